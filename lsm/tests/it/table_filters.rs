//! If this fails, look-ups miss keys that are there, or read far more filter than they need.

use crate::tables::{Version, build, cached, mapped};
use keybed_env::{CountFs, OsFs, fs::FsOp};
use keybed_lsm::{
    EntryKind, KeyRange, MemoryBudget, TableId,
    key::hash,
    table::{TableOptions, TableReader, TableView},
};
use std::{path::Path, sync::Arc};

const KEYS: u64 = 200_000;

/// Even numbers, in an order that bytes have, some with long common beginnings.
fn key(i: u64) -> Vec<u8> {
    [
        &b"prefix-"[..],
        &(i / 1000).to_be_bytes(),
        &[0; 9],
        &i.to_be_bytes(),
    ]
    .concat()
}

fn table(path: &Path) {
    let all: Vec<Version> = (0..KEYS)
        .map(|i| (key(2 * i), i, EntryKind::Put, vec![i as u8; 20]))
        .collect();
    let options = TableOptions {
        filter_prefix: 15,
        ..TableOptions::default()
    };
    build(path, TableId(1), &options, &all).unwrap();
}

#[test]
fn partitioned_filters_deny_no_key_and_nearly_all_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    table(&path);
    for access in [mapped(), cached()] {
        let reader = TableReader::open(&OsFs, &path, TableId(1), access).unwrap();
        assert!(
            reader.dump().to_string().contains("filters 12"),
            "{}",
            reader.dump().to_string()
        );
        let passed = |i: u64| reader.may_contain(&key(i), hash(&key(i)));
        assert!((0..KEYS).all(|i| passed(2 * i)));
        let strangers = (0..KEYS).filter(|i| passed(2 * i + 1)).count();
        assert!((400..1_600).contains(&strangers), "{strangers} of {KEYS}");
        for outside in [
            &b""[..],
            b"a",
            b"prefix",
            b"prefix-",
            b"prefiy",
            b"z",
            &[0xff; 40],
        ] {
            reader.may_contain(outside, hash(outside));
        }
        assert!(reader.may_contain_prefix(&key(0)[..15]));
        let absent =
            |i: &u64| !reader.may_contain_prefix(&[&b"prefix-"[..], &(i + 1_000_000).to_be_bytes()].concat());
        assert!((0..1_000_u64).filter(absent).count() > 980);
        reader.verify_all().unwrap();
    }
}

#[test]
fn a_view_reads_the_filters_of_its_part_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    table(&path);
    let fs = CountFs::new(Arc::new(OsFs));
    let reader = TableReader::open(&fs, &path, TableId(1), cached()).unwrap();
    let before = fs.counts();
    let part = KeyRange {
        start: key(100_000),
        end: Some(key(110_000)),
    };
    let view = TableView::new(reader, part);
    for i in 0..KEYS {
        view.may_contain(&key(2 * i + 1), hash(&key(2 * i + 1)));
    }
    let read = fs.counts().since(&before);
    assert!((1..=2).contains(&read.of(FsOp::Read)), "{}", read.of(FsOp::Read));
    assert!(read.bytes_read < 60_000, "{}", read.bytes_read);
}

#[test]
fn filters_give_way_to_a_tight_budget_and_answer_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = crate::support::tiny();
    options.access = keybed_lsm::Access::Cache;
    options.target_file_bytes = 64 << 20;
    options.memtable_bytes = 256 << 10;
    let budget = MemoryBudget::new(1 << 20);
    options.budget = Some(budget.clone());
    let mut store = keybed_lsm::Store::open(dir.path().join("s"), options).unwrap();
    let f = store.family("f").unwrap();
    for i in 0..KEYS {
        store.put(f, &(2 * i).to_be_bytes(), b"").unwrap();
    }
    store.compact(f).unwrap();
    for i in (0..KEYS).map(|i| i * 7_919 % KEYS).take(20_000) {
        assert!(store.get(f, &(2 * i).to_be_bytes()).unwrap().is_some());
        assert!(store.get(f, &(2 * i + 1).to_be_bytes()).unwrap().is_none());
    }
    let stats = budget.stats();
    assert!(stats.bytes <= stats.total, "{stats:?}");
    println!("{stats:?}");
}
