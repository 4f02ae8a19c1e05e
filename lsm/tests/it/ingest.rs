//! If this fails, bulk loads lose keys, bring back old ones, or a copy of a store is not one.

use crate::support::{Map, content, disk, simulated, tiny};
use keybed_env::{
    FaultFs, Fs, Random, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::Code;
use keybed_lsm::{
    Access, Append, Durability, Family, FamilyOptions, IngestOptions, Store, StoreOptions, Transfer,
    table::ExternalTable,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

fn key(i: u64) -> Vec<u8> {
    i.to_be_bytes().to_vec()
}

/// An external table of these keys; some are deleted, the others have `value`.
fn external(options: &StoreOptions, name: &str, keys: &BTreeSet<u64>, value: u64) -> PathBuf {
    let path = PathBuf::from(name);
    let mut table = ExternalTable::create(&path, options, &FamilyOptions::default()).unwrap();
    for &i in keys {
        if i % 5 == 0 {
            table.delete(&key(i)).unwrap();
        } else {
            table.put(&key(i), &key(value)).unwrap();
        }
    }
    table.finish().unwrap();
    path
}

fn note(model: &mut Map, keys: &BTreeSet<u64>, value: u64) {
    for &i in keys {
        if i % 5 == 0 {
            model.remove(&key(i));
        } else {
            model.insert(key(i), key(value));
        }
    }
}

fn opened(fs: Arc<dyn Fs>, seed: u64, access: Access) -> (Store, Family, StoreOptions) {
    let options = StoreOptions {
        access,
        ..simulated(fs, seed)
    };
    let mut store = Store::open("s", options.clone()).unwrap();
    let family = store.family("f").unwrap();
    (store, family, options)
}

#[test]
fn ingested_tables_are_newer_than_all_before_and_older_than_all_after() {
    for seed in 0..12_u64 {
        println!("seed {seed}");
        let mut dice = Random::from_seed(seed);
        let fs = disk();
        let access = [Access::Map, Access::Cache][seed as usize % 2];
        let (mut store, mut f, options) = opened(fs.clone(), seed, access);
        let mut model = Map::new();
        for round in 0..60_u64 {
            match dice.below(8) {
                0..4 => {
                    for _ in 0..dice.below(60) {
                        let i = dice.below(300);
                        if dice.below(4) == 0 {
                            store.delete(f, &key(i)).unwrap();
                            model.remove(&key(i));
                        } else {
                            store.put(f, &key(i), &key(round)).unwrap();
                            model.insert(key(i), key(round));
                        }
                    }
                }
                4..6 => {
                    let cut = dice.below(300);
                    let keys: BTreeSet<u64> = (0..1 + dice.below(80)).map(|_| dice.below(300)).collect();
                    let (low, high): (BTreeSet<_>, BTreeSet<_>) = keys.iter().partition(|i| **i < cut);
                    let parts = [high, low].into_iter().filter(|part| !part.is_empty());
                    let parts: Vec<_> = parts.enumerate().collect();
                    let files: Vec<PathBuf> = parts
                        .iter()
                        .map(|(at, part)| {
                            external(&options, &format!("e-{round}-{at}.sst"), part, 1000 + round)
                        })
                        .collect();
                    let transfer = [Transfer::Copy, Transfer::Link, Transfer::Move][dice.below(3) as usize];
                    let ingest = IngestOptions {
                        transfer,
                        verify: dice.below(2) == 0,
                    };
                    store.ingest(f, &files, ingest).unwrap();
                    note(&mut model, &keys, 1000 + round);
                    for file in &files {
                        assert_eq!(fs.facts(file).unwrap().is_none(), transfer == Transfer::Move);
                    }
                }
                6 => store.compact(f).unwrap(),
                _ => {
                    store.close().unwrap();
                    (store, f, _) = opened(fs.clone(), seed + (round + 1) * 100, access);
                }
            }
            assert_eq!(content(&store, f).unwrap(), model, "seed {seed}, round {round}");
            let i = dice.below(300);
            let found = store.get(f, &key(i)).unwrap();
            assert_eq!(found.map(|v| v.to_vec()), model.get(&key(i)).cloned());
        }
        // A copy of the whole by links.
        let pinned = store.pin().unwrap().finish().unwrap();
        store.put(f, &key(1), b"later").unwrap();
        pinned.link_to("copy").unwrap();
        let again = pinned.link_to("copy").unwrap_err();
        assert_eq!(again.code(), Code::TargetExists);
        drop(pinned);
        store.compact(f).unwrap();
        store.close().unwrap();
        for name in fs.list(Path::new("s")).unwrap() {
            fs.remove_file(&Path::new("s").join(name.name)).unwrap();
        }
        let options = StoreOptions {
            access,
            ..simulated(fs.clone(), seed + 99_999)
        };
        let mut copy = Store::open("copy", options).unwrap();
        let f = copy.family("f").unwrap();
        assert_eq!(content(&copy, f).unwrap(), model, "seed {seed}, the copy");
        copy.put(f, &key(2), b"own").unwrap();
        copy.compact(f).unwrap();
        model.insert(key(2), b"own".to_vec());
        assert_eq!(content(&copy, f).unwrap(), model);
    }
}

#[test]
fn files_that_do_not_belong_are_refused_and_nothing_changes() {
    let fs = disk();
    let (mut store, f, options) = opened(fs.clone(), 3, Access::Cache);
    store.put(f, b"k", b"u").unwrap();
    store.put(f, b"k", b"v").unwrap();
    let set = |range: std::ops::Range<u64>| range.collect::<BTreeSet<u64>>();
    let a = external(&options, "a.sst", &set(0..10), 1);
    let b = external(&options, "b.sst", &set(9..20), 1);
    let mut refused = |files: &[&Path], code: Code| {
        let error = store.ingest(f, files, IngestOptions::default()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(content(&store, f).unwrap().len(), 1);
        error
    };
    refused(&[&a, &b], Code::InvalidArgument);
    refused(&[&a, &a], Code::InvalidArgument);
    refused(&["none".as_ref()], Code::NotFound);
    fs.create(Path::new("text")).unwrap().append(b"no table").unwrap();
    refused(&["text".as_ref()], Code::TableCorrupt);
    let mut merge = ExternalTable::create("m.sst", &options, &FamilyOptions::default()).unwrap();
    merge.merge(b"k", b"+").unwrap();
    assert!(merge.put(b"k", b"twice").is_err());
    drop(merge);
    fs.remove_file(Path::new("m.sst")).unwrap();
    let mut merge = ExternalTable::create("m.sst", &options, &FamilyOptions::default()).unwrap();
    merge.merge(b"k", b"+").unwrap();
    merge.finish().unwrap();
    refused(&["m.sst".as_ref()], Code::InvalidArgument);
    // Damage in the middle of a file is found before anything is taken in.
    fs.corrupt("a.sst", |bytes| bytes[100] ^= 1).unwrap();
    refused(&[&a], Code::TableCorrupt);
    fs.corrupt("a.sst", |bytes| bytes[100] ^= 1).unwrap();
    store.ingest(f, &[&a], IngestOptions::default()).unwrap();
    assert_eq!(
        store
            .ingest(f, &[&a], IngestOptions::default())
            .unwrap_err()
            .code(),
        Code::TargetExists
    );
    // A table of the store itself.
    let own = store.pin().unwrap().finish().unwrap();
    let table = own
        .tables()
        .find(|table| table.seqno_base == 0)
        .unwrap()
        .path
        .clone();
    fs.copy(&table, Path::new("own.sst")).unwrap();
    let error = store
        .ingest(f, &["own.sst"], IngestOptions::default())
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let sums = store.family_with(
        "sums",
        FamilyOptions {
            merge: Some(Arc::new(Append)),
            ..Default::default()
        },
    );
    let sums = sums.unwrap();
    store.put(sums, b"k", b"a").unwrap();
    store.ingest(sums, &["m.sst"], IngestOptions::default()).unwrap();
    store.merge(sums, b"k", b"b").unwrap();
    assert_eq!(store.get(sums, b"k").unwrap().unwrap(), b"a+b");
    store.compact(sums).unwrap();
    assert_eq!(store.get(sums, b"k").unwrap().unwrap(), b"a+b");
}

#[test]
fn whatever_call_fails_the_files_are_in_or_out() {
    for transfer in [Transfer::Copy, Transfer::Link, Transfer::Move] {
        for &fault in Fault::ALL {
            for nth in 1.. {
                let sim = Arc::new(SimFs::without_history());
                let fs = Arc::new(FaultFs::new(sim.clone()));
                let (mut store, f, options) = opened(fs.clone(), 4, Access::Cache);
                store.put(f, &key(1), b"old").unwrap();
                let keys: BTreeSet<u64> = (0..40).collect();
                let file = external(&options, "e.sst", &keys, 7);
                fs.arm(FaultPlan::new(fault, nth));
                let taken = store.ingest(
                    f,
                    &[&file],
                    IngestOptions {
                        transfer,
                        verify: true,
                    },
                );
                let failed = fs.triggered() > 0;
                fs.heal();
                drop(store);
                let (store, f, _) = opened(sim.clone(), 5, Access::Cache);
                let found = content(&store, f).unwrap().len();
                assert!(
                    found == 32 || (failed && found <= 1),
                    "{transfer:?} {fault:?} {nth}: {found} keys"
                );
                if taken.is_ok() {
                    assert_eq!(found, 32, "{transfer:?} {fault:?} {nth}");
                } else {
                    assert!(sim.facts(&file).unwrap().is_some(), "the source is gone");
                }
                if !failed {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_file_that_nobody_synced_survives_a_power_loss_once_it_is_taken_in() {
    for transfer in [Transfer::Copy, Transfer::Link, Transfer::Move] {
        let fs = Arc::new(SimFs::new());
        let options = |fs: &Arc<SimFs>, seed| StoreOptions {
            durability: Durability::Sync,
            ..simulated(fs.clone(), seed)
        };
        let mut store = Store::open("s", options(&fs, 1)).unwrap();
        let family = store.family("f").unwrap();
        let made = external(&options(&fs, 1), "made.sst", &(0..40).collect(), 7);
        // As cp does it: not synced, neither the bytes nor the name.
        let file = PathBuf::from("copied.sst");
        fs.copy(&made, &file).unwrap();
        let with = IngestOptions {
            transfer,
            verify: true,
        };
        store.ingest(family, &[&file], with).unwrap();
        let image = Arc::new(fs.strict_image(fs.op_count()));
        let mut store = Store::open("s", options(&image, 2)).unwrap();
        let family = store.family("f").unwrap();
        assert_eq!(content(&store, family).unwrap().len(), 32, "{transfer:?}");
    }
}

#[test]
fn sizes_and_counts_are_about_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("s"), tiny()).unwrap();
    let f = store.family("f").unwrap();
    assert_eq!(
        (
            store.approximate_size(f, ..).unwrap(),
            store.estimate_keys(f).unwrap()
        ),
        (0, 0)
    );
    for i in 0..5_000 {
        store.put(f, &key(i), &[1; 50]).unwrap();
    }
    store.compact(f).unwrap();
    assert_eq!(store.estimate_keys(f).unwrap(), 5_000);
    let whole = store.approximate_size(f, ..).unwrap();
    assert_eq!(whole, store.stats().table_bytes);
    let half = store
        .approximate_size(f, &key(1_250)[..]..&key(3_750)[..])
        .unwrap();
    assert!(
        (whole * 45 / 100..whole * 60 / 100).contains(&half),
        "{half} of {whole}"
    );
    assert!(store.approximate_size(f, &key(9_000)[..]..).unwrap() == 0);
    for i in 0..1_000 {
        store.delete(f, &key(i)).unwrap();
    }
    store.flush().unwrap();
    // Merges may be under way, and count a delete and what it deletes at different moments.
    let about = store.estimate_keys(f).unwrap();
    assert!((3_600..=4_400).contains(&about), "{about}");
    store.compact(f).unwrap();
    assert_eq!(store.estimate_keys(f).unwrap(), 4_000);
}
