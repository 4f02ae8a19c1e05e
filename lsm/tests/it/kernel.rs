//! If this fails, a store that keeps its promises on simulated disks breaks them on the real kernel: a disk that is
//! full, a limit on the size of files, a medium that is read-only, another process in the same directory.
//!
//! Mounts are made in a name space of their own (`unshare -rm`); where that is not allowed the test says `SKIPPED`.
#![cfg(target_os = "linux")]

use crate::support::{content, tiny};
use keybed_env::Random;
use keybed_format::Code;
use keybed_lsm::{Access, Durability, Family, Store, StoreOptions};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const DIR: &str = "KEYBED_TEST_KERNEL_DIR";

/// Another test of this file as a process of its own, after the words `before` of a shell.
fn process(own_mounts: bool, before: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new(if own_mounts { "unshare" } else { "sh" });
    if own_mounts {
        command.args(["-rm", "sh"]);
    }
    command
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("kernel::{test}"), "--ignored", "--nocapture"])
        .env(DIR, dir);
    command
}

fn passed(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{errors}"
    );
}

fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-rm", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED: no name space for mounts (unshare -rm) is to be had here");
    }
    can
}

fn dir() -> PathBuf {
    PathBuf::from(std::env::var_os(DIR).unwrap())
}

fn options(durability: Durability) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 64 << 10,
        wal_bytes_max: 256 << 10,
        target_file_bytes: 64 << 10,
        durability,
        ..tiny()
    }
}

fn open(dir: &Path, durability: Durability) -> (Store, Family) {
    let mut store = Store::open(dir.join("s"), options(durability)).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

fn value(n: u64) -> Vec<u8> {
    [&n.to_be_bytes()[..], &vec![n as u8; 100 + n as usize % 700]].concat()
}

#[test]
fn a_disk_that_is_full_refuses_writes_and_takes_them_when_there_is_space() {
    if !can_mount() {
        return;
    }
    let full = std::env::var_os("KEYBED_TEST_FULL").is_some();
    for size in if full {
        &["2m", "3m", "5m", "8m"][..]
    } else {
        &["3m"]
    } {
        let place = tempfile::tempdir().unwrap();
        let before = format!("mount -t tmpfs -o size={size} tmpfs \"${DIR}\" &&");
        let mut child = process(true, &before, "on_a_small_disk", place.path());
        passed(&child.output().unwrap());
    }
}

#[test]
#[ignore = "run by a_disk_that_is_full_refuses_writes_and_takes_them_when_there_is_space"]
fn on_a_small_disk() {
    let dir = dir();
    let ballast = dir.join("ballast");
    for durability in [Durability::Buffered, Durability::Sync, Durability::None] {
        let mut random = Random::from_seed(1);
        fs::write(&ballast, vec![1; 1 << 20]).unwrap();
        let mut model = BTreeMap::new();
        let (mut store, family) = open(&dir, durability);
        let mut n = 0;
        for round in 0..5 {
            let refused = loop {
                // Ever more keys, so that merges cannot make room.
                let key = random.below(2 * n + 10).to_be_bytes().to_vec();
                match store.put(family, &key, &value(n)) {
                    Ok(()) => drop(model.insert(key, value(n))),
                    Err(error) => break error,
                }
                n += 1;
                assert!(n < 100_000, "nothing is full");
            };
            assert_eq!(refused.code(), Code::BackendReadOnly, "{durability:?}: {refused}");
            assert!(
                content(&store, family).unwrap() == model,
                "reads go on, round {round}"
            );
            // Space again: less each time.
            let left = fs::metadata(&ballast).unwrap().len() - (150 << 10);
            fs::File::options()
                .write(true)
                .open(&ballast)
                .unwrap()
                .set_len(left)
                .unwrap();
            store.put(family, b"again", &value(n)).unwrap();
            model.insert(b"again".to_vec(), value(n));
        }
        assert!(n > 500, "{n} writes");
        fs::remove_file(&ballast).unwrap();
        if durability == Durability::None {
            store.flush().unwrap();
        }
        drop(store);
        let (store, family) = open(&dir, durability);
        assert!(content(&store, family).unwrap() == model, "{durability:?}");
        store.close().unwrap();
        for file in fs::read_dir(dir.join("s")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn a_medium_that_is_read_only_is_read_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (mut store, family) = open(place.path(), Durability::Buffered);
    for n in 0..500_u64 {
        store.put(family, &n.to_be_bytes(), &value(n)).unwrap();
    }
    drop(store); // Part of it is in the log alone.
    let before = format!("mount --bind \"${DIR}\" \"${DIR}\" && mount -o remount,bind,ro \"${DIR}\" &&");
    let mut child = process(true, &before, "on_a_read_only_medium", place.path());
    passed(&child.output().unwrap());
    let (store, family) = open(place.path(), Durability::Buffered);
    assert_eq!(content(&store, family).unwrap().len(), 500);
}

#[test]
#[ignore = "run by a_medium_that_is_read_only_is_read_and_nothing_else"]
fn on_a_read_only_medium() {
    let dir = dir();
    let error = Store::open(dir.join("s"), options(Durability::Buffered)).unwrap_err();
    assert_eq!(error.code(), Code::ReadOnlyMedium, "{error}");
    for access in [Access::Map, Access::Cache] {
        let options = StoreOptions {
            access,
            ..options(Durability::Buffered)
        };
        let mut store = Store::open_read_only(dir.join("s"), options).unwrap();
        let family = store.family("f").unwrap();
        for n in 0..500_u64 {
            assert_eq!(store.get(family, &n.to_be_bytes()).unwrap().unwrap(), value(n));
        }
        let refused = store.put(family, b"k", b"v").unwrap_err();
        assert_eq!(refused.code(), Code::ReadOnlyMedium, "{refused}");
    }
}

#[test]
fn writes_beyond_the_largest_file_are_refused_and_the_others_are_there() {
    for kib in [16, 40, 100, 300] {
        let place = tempfile::tempdir().unwrap();
        let before = format!("trap '' XFSZ; ulimit -f {};", kib * 2);
        let mut child = process(false, &before, "with_small_files", place.path());
        let child = child.output().unwrap();
        passed(&child);
        let acknowledged = String::from_utf8_lossy(&child.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("acks ")?.parse::<u64>().ok())
            .next_back()
            .unwrap();
        let (store, family) = open(place.path(), Durability::Buffered);
        for n in 0..acknowledged {
            let found = store.get(family, &n.to_be_bytes()).unwrap();
            assert_eq!(
                found.unwrap(),
                value(n),
                "{n} of {acknowledged}, files of {kib} KiB"
            );
        }
        store.close().unwrap();
    }
}

#[test]
#[ignore = "run by writes_beyond_the_largest_file_are_refused_and_the_others_are_there"]
fn with_small_files() {
    let (mut store, family) = open(&dir(), Durability::Buffered);
    let mut n = 0_u64;
    let error = loop {
        match store.put(family, &n.to_be_bytes(), &value(n)) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
        if n == 3_000 {
            break store
                .close()
                .err()
                .unwrap_or_else(|| keybed_format::Error::new(Code::Busy, "no limit"));
        }
    };
    println!("acks {n}");
    let known = [Code::BackendReadOnly, Code::Poisoned, Code::Busy];
    assert!(known.contains(&error.code()), "{error}");
}

#[test]
fn another_process_is_named_and_disturbs_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut child = process(false, "", "owns_a_store", place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap() == "open"));
    for _ in 0..3 {
        let error = Store::open(place.path().join("s"), options(Durability::Buffered)).unwrap_err();
        assert_eq!(error.code(), Code::Locked, "{error}");
        let pid = child.id().to_string();
        assert!(
            error
                .fields()
                .iter()
                .any(|(name, value)| *name == "pid" && *value == pid),
            "{error}"
        );
        let read_only = Store::open_read_only(place.path().join("s"), options(Durability::Buffered));
        assert!(read_only.is_ok(), "it may be looked at");
    }
    child.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert!(child.wait().unwrap().success());
    let (store, family) = open(place.path(), Durability::Buffered);
    assert_eq!(content(&store, family).unwrap().len(), 1000);
}

#[test]
#[ignore = "run by another_process_is_named_and_disturbs_nothing"]
fn owns_a_store() {
    let (mut store, family) = open(&dir(), Durability::Buffered);
    println!("open");
    for n in 0..1000_u64 {
        store.put(family, &n.to_be_bytes(), &value(n)).unwrap();
        if n == 500 {
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
    }
    // Not closed: what is in the log alone counts, too.
}
