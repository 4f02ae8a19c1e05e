//! If this fails, a compaction filter shows what it removed, loses what it kept, or changes what a view saw.

use crate::support::{Map, content, disk, simulated, tiny};
use keybed_env::{Random, ThreadScheduler};
use keybed_lsm::{CompactionFilter, FamilyOptions, Store, StoreOptions, SumI64, Verdict};
use std::sync::Arc;

/// Removes values that begin with 0, doubles those that begin with 1.
#[derive(Debug)]
struct ByFirstByte;

fn verdict(value: &[u8]) -> Verdict {
    match value.first() {
        Some(0) => Verdict::Remove,
        Some(1) => Verdict::Change([&[2], value].concat()),
        _ => Verdict::Keep,
    }
}

impl CompactionFilter for ByFirstByte {
    fn filter(&self, _key: &[u8], value: &[u8], now_millis: u64) -> Verdict {
        assert!(now_millis > 1_600_000_000_000, "{now_millis} is no time of today");
        verdict(value)
    }
}

fn filtered() -> FamilyOptions {
    FamilyOptions {
        filter: Some(Arc::new(ByFirstByte)),
        ..FamilyOptions::default()
    }
}

#[test]
fn after_a_compaction_the_filter_has_seen_everything() {
    for seed in 0..20 {
        let mut random = Random::from_seed(seed);
        let mut store = Store::open("s", simulated(disk(), seed)).unwrap();
        let family = store.family_with("f", filtered()).unwrap();
        let mut last = Map::new();
        for _ in 0..1500 {
            let key = random.below(150).to_be_bytes().to_vec();
            if random.below(5) == 0 {
                store.delete(family, &key).unwrap();
                last.remove(&key);
            } else {
                let value = vec![random.below(4) as u8; 1 + random.below(60) as usize];
                store.put(family, &key, &value).unwrap();
                last.insert(key, value);
            }
            let found = content(&store, family).unwrap();
            // At any time a value is seen as it was written, changed or not at all: never an older one.
            for (key, value) in &last {
                match (found.get(key), verdict(value)) {
                    (Some(seen), Verdict::Change(changed)) => assert!(*seen == changed || seen == value),
                    (Some(seen), _) => assert_eq!(seen, value, "seed {seed}"),
                    (None, verdict) => assert_eq!(verdict, Verdict::Remove, "seed {seed}"),
                }
            }
            assert!(found.keys().all(|key| last.contains_key(key)), "seed {seed}");
            if random.below(100) == 0 {
                store.flush().unwrap();
            }
        }
        store.compact(family).unwrap();
        let expected: Map = last
            .into_iter()
            .filter_map(|(key, value)| match verdict(&value) {
                Verdict::Keep => Some((key, value)),
                Verdict::Change(changed) => Some((key, changed)),
                Verdict::Remove => None,
            })
            .collect();
        assert_eq!(content(&store, family).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn a_view_keeps_what_it_saw() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let family = store.family_with("f", filtered()).unwrap();
    store.put(family, b"goes", &[0, 9]).unwrap();
    let view = store.view().unwrap();
    store.flush().unwrap();
    store.compact(family).unwrap();
    assert!(store.get(family, b"goes").unwrap().is_none());
    assert_eq!(view.get(family, b"goes").unwrap().unwrap(), [0, 9]);
}

#[test]
fn a_request_shows_the_filter_a_bottom_that_was_written_without_it() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..2000_u64 {
        store.put(family, &n.to_be_bytes(), &[(n % 3) as u8; 8]).unwrap();
    }
    store.compact(family).unwrap();
    store.close().unwrap();
    let mut store = Store::open("s", simulated(fs, 2)).unwrap();
    let family = store.family_with("f", filtered()).unwrap();
    let (from, to) = (500_u64.to_be_bytes(), 600_u64.to_be_bytes());
    store.compact_range(family, &from[..]..&to[..]).unwrap();
    let left = |store: &Store, from: u64, to: u64| {
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        store.range(family, &from[..]..&to[..]).unwrap().count()
    };
    assert_eq!(left(&store, 500, 600), 67);
    assert!(
        left(&store, 0, 2000) > 1700,
        "only files of the range are rewritten"
    );
    store.compact(family).unwrap();
    assert_eq!(left(&store, 0, 2000), 1333);
}

#[test]
fn folded_operands_are_shown_and_waiting_ones_are_not() {
    #[derive(Debug)]
    struct DropBig;
    impl CompactionFilter for DropBig {
        fn filter(&self, _: &[u8], value: &[u8], _: u64) -> Verdict {
            let sum = i64::from_le_bytes(value.try_into().unwrap());
            if sum > 10 { Verdict::Remove } else { Verdict::Keep }
        }
    }
    let options = StoreOptions {
        scheduler: Arc::new(ThreadScheduler::new(1)),
        compaction: false,
        ..tiny()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("s"), options).unwrap();
    let options = FamilyOptions {
        merge: Some(Arc::new(SumI64)),
        filter: Some(Arc::new(DropBig)),
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", options).unwrap();
    for _ in 0..3 {
        store.merge(family, b"big", &5_i64.to_le_bytes()).unwrap();
        store.merge(family, b"small", &2_i64.to_le_bytes()).unwrap();
        store.flush().unwrap();
    }
    assert_eq!(store.get(family, b"big").unwrap().unwrap(), 15_i64.to_le_bytes());
    store.compact(family).unwrap();
    assert!(store.get(family, b"big").unwrap().is_none());
    assert_eq!(store.get(family, b"small").unwrap().unwrap(), 6_i64.to_le_bytes());
}
