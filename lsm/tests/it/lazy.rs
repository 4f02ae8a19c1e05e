//! If this fails, a store with much state takes long to open, runs out of file descriptors, or reads what it need not.

use crate::support::{content, disk, simulated, tiny};
use keybed_env::{CountFs, Fs, fs::FsOp};
use keybed_format::Code;
use keybed_lsm::{Access, Durability, Family, FamilyOptions, Store, StoreOptions};
use std::{path::PathBuf, sync::Arc};

fn options(fs: Arc<dyn Fs>) -> StoreOptions {
    StoreOptions {
        access: Access::Cache,
        cache_bytes: 0,
        durability: Durability::None,
        ..simulated(fs, 5)
    }
}

fn key(i: u64) -> Vec<u8> {
    // Odd prefixes are absent.
    [&(i / 100 * 2).to_be_bytes()[..], &i.to_be_bytes()].concat()
}

/// A closed store of many tables below `s`, keys 0, 2, 4 … below 4,000 in its family `f`.
fn filled(fs: Arc<dyn Fs>, family: FamilyOptions) {
    let mut store = Store::open("s", options(fs)).unwrap();
    let f = store.family_with("f", family).unwrap();
    for i in 0..2_000 {
        store.put(f, &key(2 * i), &i.to_be_bytes()).unwrap();
    }
    store.compact(f).unwrap();
    for i in 0..30 {
        store.put(f, &key(2 * i), &i.to_be_bytes()).unwrap();
    }
    store.close().unwrap();
}

fn tables(fs: &dyn Fs) -> Vec<PathBuf> {
    let names = fs.list("s".as_ref()).unwrap().into_iter();
    let names = names.filter(|entry| entry.name.ends_with(".sst"));
    names.map(|entry| PathBuf::from("s").join(entry.name)).collect()
}

fn reopened(fs: Arc<dyn Fs>) -> (Store, Family) {
    let mut store = Store::open("s", options(fs)).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

#[test]
fn opening_reads_no_table_and_a_get_opens_the_one_it_needs() {
    let fs = disk();
    filled(fs.clone(), FamilyOptions::default());
    let count = CountFs::new(fs.clone());
    assert!(tables(&*fs).len() > 10);
    let before = count.counts();
    let (store, f) = reopened(Arc::new(count.clone()));
    let opened = count.counts().since(&before);
    assert!(
        opened.of(FsOp::Open) <= 4,
        "CURRENT, manifest: {}",
        opened.of(FsOp::Open)
    );
    let before = count.counts();
    assert_eq!(
        store.get(f, &key(3_000)).unwrap().unwrap(),
        1_500_u64.to_be_bytes()
    );
    let first = count.counts().since(&before);
    assert!(
        (1..=2).contains(&first.of(FsOp::Open)),
        "{}",
        first.of(FsOp::Open)
    );
    assert_eq!(content(&store, f).unwrap().len(), 2_000);
}

#[test]
fn tables_that_are_missing_or_cut_are_named_at_open_and_others_at_their_first_use() {
    let fs = disk();
    filled(fs.clone(), FamilyOptions::default());
    let all = tables(&*fs);
    let image = |change: &dyn Fn(&dyn Fs)| {
        let fs: Arc<dyn Fs> = Arc::new(fs.live_image());
        change(&*fs);
        fs
    };
    let missing = image(&|fs| fs.remove_file(&all[3]).unwrap());
    let error = Store::open("s", options(missing)).unwrap_err();
    assert_eq!(error.code(), Code::TableMissing);
    assert_eq!(error.file().unwrap(), all[3]);
    let cut = image(&|fs| {
        let len = fs.facts(&all[3]).unwrap().unwrap().len;
        fs.truncate(&all[3], len - 1).unwrap();
    });
    let error = Store::open("s", options(cut)).unwrap_err();
    assert_eq!(
        (error.code(), error.file().unwrap()),
        (Code::TableCorrupt, &*all[3])
    );
    // Another table of the same length in its place.
    let other = image(&|fs| {
        let mut bytes = fs.read(&all[3], 1 << 20).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(7);
        fs.remove_file(&all[3]).unwrap();
        fs.create(&all[3]).unwrap().append(&bytes).unwrap();
    });
    let (store, f) = reopened(other);
    let error = content(&store, f).unwrap_err();
    assert_eq!(
        (error.code(), error.file().unwrap()),
        (Code::TableCorrupt, &*all[3])
    );
}

#[test]
fn two_open_files_are_enough() {
    let fs = disk();
    filled(fs.clone(), FamilyOptions::default());
    let few = StoreOptions {
        open_files_max: 2,
        ..options(fs)
    };
    let mut store = Store::open("s", few).unwrap();
    let f = store.family("f").unwrap();
    for i in (0..2_000).map(|i| i * 7 % 2_000) {
        assert!(store.get(f, &key(2 * i)).unwrap().is_some());
    }
    let view = store.view().unwrap();
    store.compact(f).unwrap();
    assert_eq!(view.range(f, ..).unwrap().count(), 2_000);
    assert_eq!(content(&store, f).unwrap().len(), 2_000);
}

#[test]
fn a_scan_of_a_prefix_that_no_table_has_reads_no_block() {
    for prefix_bytes in [0, 8] {
        let fs = disk();
        let family = FamilyOptions {
            prefix_bytes,
            ..FamilyOptions::default()
        };
        filled(fs.clone(), family);
        let count = CountFs::new(fs);
        let (store, f) = reopened(Arc::new(count.clone()));
        assert_eq!(content(&store, f).unwrap().len(), 2_000);
        // Filters are read when they are asked.
        for group in 0..20_u64 {
            assert_eq!(
                store.prefix(f, &(2 * group + 1).to_be_bytes()).unwrap().count(),
                0
            );
        }
        let mut reads = 0;
        for group in 0..20_u64 {
            let before = count.counts();
            assert_eq!(
                store.prefix(f, &(2 * group + 1).to_be_bytes()).unwrap().count(),
                0
            );
            reads += count.counts().since(&before).of(FsOp::Read);
            assert_eq!(store.prefix(f, &(2 * group).to_be_bytes()).unwrap().count(), 50);
        }
        // Of the filter's answers 1 in 256 is wrong.
        assert_eq!(
            reads < 3,
            prefix_bytes > 0,
            "{prefix_bytes} bytes of prefix: {reads} reads"
        );
    }
}

#[test]
fn a_bottom_without_filter_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("s"), tiny()).unwrap();
    let family = |bottom_filter| FamilyOptions {
        bottom_filter,
        ..FamilyOptions::default()
    };
    let with = store.family_with("with", family(true)).unwrap();
    let without = store.family_with("without", family(false)).unwrap();
    let mut bytes = Vec::new();
    for f in [with, without] {
        for i in 0..3_000 {
            store.put(f, &key(i), b"v").unwrap();
        }
        store.compact(f).unwrap();
        let table_bytes = store.stats().table_bytes;
        bytes.push(table_bytes - bytes.iter().sum::<u64>());
        for i in 0..3_100 {
            assert_eq!(store.get(f, &key(i)).unwrap().is_some(), i < 3_000);
        }
    }
    assert!(bytes[1] + 3_000 < bytes[0], "{bytes:?}: about nine bits per key");
    store.close().unwrap();
    let store = Store::open(dir.path().join("s"), tiny()).unwrap();
    assert_eq!(store.stats().table_bytes, bytes.iter().sum::<u64>());
}

/// A process may be allowed 64 open files; a store whose tables are not mapped then closes some to open others, also
/// with the default bound, which is higher.
#[test]
#[cfg(unix)]
fn a_limit_of_64_descriptors_is_never_met() {
    let script = "ulimit -n 64 && exec \"$0\" --exact lazy::with_few_descriptors --ignored";
    let mut child = std::process::Command::new("sh");
    child.args(["-c", script]).arg(std::env::current_exe().unwrap());
    let output = child.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
#[ignore = "run by a_limit_of_64_descriptors_is_never_met"]
fn with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        access: Access::Cache,
        cache_bytes: 0,
        ..tiny()
    };
    for open_files_max in [32, options.open_files_max] {
        let options = StoreOptions {
            open_files_max,
            ..options.clone()
        };
        let mut store = Store::open(dir.path().join("s"), options).unwrap();
        let f = store.family("f").unwrap();
        for i in 0..20_000 {
            store.put(f, &key(i), &i.to_be_bytes()).unwrap();
        }
        store.compact(f).unwrap();
        assert!(store.stats().tables > 100);
        for i in (0..20_000).map(|i| i * 7_919 % 20_000) {
            assert!(store.get(f, &key(i)).unwrap().is_some());
        }
        store.close().unwrap();
    }
}
