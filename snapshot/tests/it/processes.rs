//! If this fails, two processes on one root both believe that they own it or that they created the same thing.

use keybed_env::OsFs;
use keybed_format::{Code, Result};
use keybed_snapshot::{
    Birth, CheckpointId, CheckpointStorage, Generation, JobId, LocalStorage, ObjectName, ObjectPath,
};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

const ROOT: &str = "KEYBED_TEST_CHECKPOINT_ROOT";
const ROUNDS: u64 = 200;

fn storage(root: &Path) -> LocalStorage {
    LocalStorage::create(Arc::new(OsFs), root, JobId(1)).unwrap()
}

/// This very test as another process; without the variable it is a test that does nothing.
fn spawn(test: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("processes::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lines that the child prints after the mark, up to one that equals `last`.
fn lines(out: &mut impl BufRead, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(
            out.read_line(&mut line).unwrap(),
            0,
            "the child ended before it said {last}: {lines:?}"
        );
        let Some(said) = line
            .trim_end()
            .rsplit("say:")
            .next()
            .filter(|_| line.contains("say:"))
        else {
            continue;
        };
        if said == last {
            return lines;
        }
        lines.push(said.to_owned());
    }
}

fn won(result: Result) -> bool {
    match result {
        Ok(()) => true,
        Err(e) if e.code() == Code::TargetExists => false,
        Err(e) => panic!("{e}"),
    }
}

/// Tries to create everything first; says what it won.
fn race(storage: &LocalStorage, who: u8) -> BTreeSet<String> {
    let mut wins = BTreeSet::new();
    for n in 1..=ROUNDS {
        let birth = Birth {
            generation: Generation(1),
            checkpoint: CheckpointId(n),
        };
        let temporary = ObjectName::temporary(birth, u128::from(n) << 8 | u128::from(who));
        if won(storage.put_new(&ObjectPath::Owner(Generation(n)), &[who; 64], &temporary)) {
            wins.insert(format!("owner {n}"));
        }
        if won(storage.create_checkpoint(CheckpointId(n))) {
            wins.insert(format!("folder {n}"));
        }
    }
    wins
}

#[test]
fn child_races() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let storage = storage(Path::new(&root));
    println!("say:ready");
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).unwrap();
    for win in race(&storage, go[0]) {
        println!("say:{win}");
    }
    println!("say:done");
}

#[test]
fn of_two_processes_exactly_one_creates_each_thing() {
    let root = tempfile::tempdir().unwrap();
    let storage = storage(root.path());
    let mut children: Vec<Child> = (0..2).map(|_| spawn("child_races", root.path())).collect();
    let mut outs: Vec<_> = children
        .iter_mut()
        .map(|c| BufReader::new(c.stdout.take().unwrap()))
        .collect();
    for out in &mut outs {
        lines(out, "ready");
    }
    for (who, child) in children.iter_mut().enumerate() {
        child.stdin.take().unwrap().write_all(&[who as u8]).unwrap();
    }
    let wins: Vec<BTreeSet<String>> = outs
        .iter_mut()
        .map(|out| lines(out, "done").into_iter().collect())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert!(
        wins[0].is_disjoint(&wins[1]),
        "both won: {:?}",
        wins[0].intersection(&wins[1])
    );
    assert_eq!(
        wins[0].len() + wins[1].len(),
        2 * ROUNDS as usize,
        "somebody wins everything"
    );
    for n in 1..=ROUNDS {
        let winner = wins
            .iter()
            .position(|w| w.contains(&format!("owner {n}")))
            .unwrap() as u8;
        let bytes = storage.read(&ObjectPath::Owner(Generation(n)), 100).unwrap();
        assert_eq!(bytes, [winner; 64], "the bytes are the winner's");
    }
}

#[test]
fn child_holds_the_lock() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let _held = storage(Path::new(&root)).lock().unwrap();
    println!("say:{}", std::process::id());
    println!("say:locked");
    // Until the parent kills this process.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_lock_names_its_holder_and_dies_with_it() {
    let root = tempfile::tempdir().unwrap();
    let storage = storage(root.path());
    let mut child = spawn("child_holds_the_lock", root.path());
    let pid = lines(&mut BufReader::new(child.stdout.take().unwrap()), "locked").remove(0);
    let error = storage.lock().unwrap_err();
    assert_eq!(error.code(), Code::Locked);
    assert!(error.fields().contains(&("pid", pid)), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(storage.lock().unwrap());
}
