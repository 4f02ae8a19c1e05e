//! If this fails, a scan reads more than its range, goes on after an error, or sees something else downwards than
//! upwards.

use crate::support::{Map, content, disk, simulated};
use keybed_env::{
    CountFs, Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, FsOp},
};
use keybed_lsm::{Access, Family, FamilyOptions, MemtableKind, PrefixRule, Range, Store, StoreOptions};
use std::{ops::Bound, path::Path, sync::Arc};

const KEYS: u64 = 2_000;

fn key(i: u64) -> Vec<u8> {
    [&(i / 50).to_be_bytes()[6..], &i.to_be_bytes()[..]].concat()
}

/// Every block is read from its file, every time.
fn options(fs: Arc<dyn Fs>) -> StoreOptions {
    StoreOptions {
        access: Access::Cache,
        cache_bytes: 0,
        compaction: false,
        ..simulated(fs, 5)
    }
}

/// A store of many tables in one run, if `runs` is 1, or with every key in one of several runs.
fn filled(fs: Arc<dyn Fs>, runs: u64) -> (Store, Family) {
    let mut store = Store::open(Path::new("s"), options(fs)).unwrap();
    let family = store.family("f").unwrap();
    for run in 0..runs {
        for i in (0..KEYS).filter(|i| i % runs == run) {
            store.put(family, &key(i), &i.to_be_bytes()).unwrap();
        }
        if runs == 1 {
            store.compact(family).unwrap();
        } else {
            store.flush().unwrap();
        }
    }
    (store, family)
}

fn count(mut range: Range<'_>) -> u64 {
    let mut entries = 0;
    while range.next_entry().unwrap().is_some() {
        entries += 1;
    }
    entries
}

#[test]
fn no_block_outside_of_a_range_is_read() {
    let count_fs = CountFs::new(disk());
    let (store, f) = filled(Arc::new(count_fs.clone()), 1);
    let reads = |work: &mut dyn FnMut()| {
        let before = count_fs.counts();
        work();
        count_fs.counts().since(&before).of(FsOp::Read)
    };
    // Opens all tables.
    assert_eq!(count(store.range(f, ..).unwrap()), KEYS);
    let blocks = reads(&mut || assert_eq!(count(store.range(f, ..).unwrap()), KEYS));
    let down = reads(&mut || assert_eq!(count(store.range_rev(f, ..).unwrap()), KEYS));
    assert_eq!(blocks, down);
    assert!(blocks > 50, "{blocks}");
    for step in [1, 7, 40, 333] {
        let cuts: Vec<Vec<u8>> = (0..KEYS).step_by(step).map(key).collect();
        let ranges = cuts.iter().zip(cuts.iter().skip(1).map(Some).chain([None]));
        let mut entries = 0;
        let (mut up, mut down) = (0, 0);
        for (start, end) in ranges.clone() {
            let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
            let bounds = (Bound::Included(start.as_slice()), end);
            up += reads(&mut || entries += count(store.range(f, bounds).unwrap()));
            down += reads(&mut || entries += count(store.range_rev(f, bounds).unwrap()));
        }
        assert_eq!(entries, 2 * KEYS);
        // A range that ends inside of a block shares it with the next one; none is read besides.
        let most = blocks + ranges.count() as u64;
        assert!(
            up <= most && down <= most,
            "step {step}: {up}, {down}, {blocks} blocks"
        );
    }
    // Between two keys lies nothing. Where they are in two blocks, what separates these lies in the gap.
    let mut gaps = 0;
    for i in 0..KEYS - 1 {
        let (low, high) = (key(i), key(i + 1));
        let gap: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(&low), Bound::Excluded(&high));
        let up = reads(&mut || assert_eq!(count(store.range(f, gap).unwrap()), 0));
        let down = reads(&mut || assert_eq!(count(store.range_rev(f, gap).unwrap()), 0));
        assert!(up <= 2 && down <= 2, "behind {i}: {up}, {down}");
        gaps += up + down;
    }
    assert!(gaps <= 2 * (KEYS + blocks), "{gaps}");
    // Ranges in which no key can be.
    let (low, high) = (key(10), key(20));
    for empty in [
        (Bound::Included(high.as_slice()), Bound::Excluded(low.as_slice())),
        (Bound::Included(&low), Bound::Excluded(&low)),
        (Bound::Excluded(&low), Bound::Excluded(&low)),
    ] {
        let up = reads(&mut || assert_eq!(count(store.range(f, empty).unwrap()), 0));
        let down = reads(&mut || assert_eq!(count(store.range_rev(f, empty).unwrap()), 0));
        assert_eq!((up, down), (0, 0));
    }
    assert_eq!(
        reads(&mut || assert_eq!(count(store.prefix(f, &[0xff]).unwrap()), 0)),
        0
    );
    store.close().unwrap();
}

#[test]
fn a_scan_that_meets_an_error_is_over() {
    let disk = disk();
    let faults = Arc::new(FaultFs::new(disk));
    let (store, f) = filled(faults.clone(), 3);
    let whole: Vec<_> = content(&store, f).unwrap().into_iter().collect();
    assert_eq!(whole.len() as u64, KEYS);
    let mut failed = 0;
    for down in [false, true] {
        for nth in (1..).step_by(5) {
            let start = || {
                if down {
                    store.range_rev(f, ..)
                } else {
                    store.range(f, ..)
                }
            };
            faults.arm(FaultPlan::new(Fault::Eio, nth).only(&[FsOp::Read]));
            let Ok(mut range) = start() else {
                failed += 1;
                faults.heal();
                continue;
            };
            let mut seen = 0;
            let error = loop {
                let expected = |at: usize| &whole[if down { whole.len() - 1 - at } else { at }];
                match range.next_entry() {
                    Ok(Some((key, value))) => {
                        let (k, v) = expected(seen);
                        assert_eq!((key, value), (k.as_slice(), v.as_slice()));
                        seen += 1;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            faults.heal();
            match error {
                Some(_) => {
                    failed += 1;
                    assert_eq!(range.next_entry().unwrap(), None);
                    assert_eq!(range.next_entry().unwrap(), None);
                }
                None => {
                    assert_eq!(seen, whole.len());
                    break;
                }
            }
            // A cursor goes on after the next seek.
            let mut cursor = store.cursor(f, ..).unwrap();
            faults.arm(FaultPlan::new(Fault::Eio, 2).only(&[FsOp::Read]));
            let mut moved = cursor.next(&store);
            while let Ok(true) = moved {
                moved = cursor.next(&store);
            }
            faults.heal();
            assert!(moved.is_err() && !cursor.valid() && !cursor.next(&store).unwrap());
            assert!(cursor.seek_to_last(&store).unwrap() && cursor.key() == key(KEYS - 1));
        }
    }
    assert!(failed > 20, "{failed}");
    drop(store);
}

#[test]
fn prefixes_of_highest_bytes_and_every_kind_of_bound() {
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    for (seed, memtable) in [
        (1, MemtableKind::Hash),
        (2, MemtableKind::Ordered),
        (3, by_prefix),
    ] {
        let mut random = Random::from_seed(seed);
        let mut store = Store::open(Path::new("s"), simulated(disk(), seed)).unwrap();
        let options = FamilyOptions {
            memtable,
            ..FamilyOptions::default()
        };
        let f = store.family_with("f", options).unwrap();
        let mut model = Map::new();
        let bytes = |random: &mut Random| -> Vec<u8> {
            let len = random.index(5);
            (0..len).map(|_| [0, 1, 0xfe, 0xff][random.index(4)]).collect()
        };
        for round in 0..3_000 {
            let key = bytes(&mut random);
            if random.one_in(4) {
                store.delete(f, &key).unwrap();
                model.remove(&key);
            } else {
                let value = vec![round as u8; random.index(30)];
                store.put(f, &key, &value).unwrap();
                model.insert(key, value);
            }
            if !random.one_in(4) {
                continue;
            }
            let (a, b) = (bytes(&mut random), bytes(&mut random));
            let bound = |random: &mut Random, key: &'_ [u8]| -> Bound<Vec<u8>> {
                match random.below(3) {
                    0 => Bound::Included(key.to_vec()),
                    1 => Bound::Excluded(key.to_vec()),
                    _ => Bound::Unbounded,
                }
            };
            let bounds = (bound(&mut random, &a), bound(&mut random, &b));
            let slices = (
                bounds.0.as_ref().map(Vec::as_slice),
                bounds.1.as_ref().map(Vec::as_slice),
            );
            let inside = |key: &Vec<u8>| {
                let above = match &bounds.0 {
                    Bound::Included(start) => key >= start,
                    Bound::Excluded(start) => key > start,
                    Bound::Unbounded => true,
                };
                above
                    && match &bounds.1 {
                        Bound::Included(end) => key <= end,
                        Bound::Excluded(end) => key < end,
                        Bound::Unbounded => true,
                    }
            };
            let what = format!("seed {seed}, round {round}, {bounds:?}");
            let same = |range: Range<'_>, inside: &dyn Fn(&Vec<u8>) -> bool, down: bool| {
                let found: Vec<_> = range.map(Result::unwrap).collect();
                let mut expected: Vec<_> = model.iter().filter(|(key, _)| inside(key)).collect();
                if down {
                    expected.reverse();
                }
                assert!(found.iter().map(|(k, v)| (k, v)).eq(expected), "{what}");
            };
            same(store.range(f, slices).unwrap(), &inside, false);
            same(store.range_rev(f, slices).unwrap(), &inside, true);
            let starts = |key: &Vec<u8>| key.starts_with(&a);
            same(store.prefix(f, &a).unwrap(), &starts, false);
            same(store.prefix_rev(f, &a).unwrap(), &starts, true);
            if random.one_in(40) {
                let view = store.view().unwrap();
                same(view.range_rev(f, slices).unwrap(), &inside, true);
                same(view.prefix_rev(f, &a).unwrap(), &starts, true);
                store.wait_for_background().unwrap();
                same(view.range_rev(f, slices).unwrap(), &inside, true);
            }
        }
        store.close().unwrap();
    }
}
