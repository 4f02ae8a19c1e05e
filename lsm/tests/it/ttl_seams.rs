//! If this fails, entries that expire do not go together with other parts of the engine: a cursor, the log, a batch.

use crate::support::{disk, simulated};
use keybed_env::{ManualClock, Scheduler, SimFs, SimScheduler};
use keybed_lsm::{
    Append, CompactionFilter, Durability, Family, FamilyOptions, IndexedBatch, Store, StoreOptions, Verdict,
    WriteBatch,
};
use std::{sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// A clock that goes on over crashes.
struct Place {
    clock: Arc<ManualClock>,
    seed: u64,
}

impl Place {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        Place { clock, seed: 0 }
    }

    fn options(&mut self, fs: &Arc<SimFs>, durability: Durability) -> (StoreOptions, Arc<dyn Scheduler>) {
        self.seed += 1;
        let scheduler: Arc<dyn Scheduler> = Arc::new(SimScheduler::new(self.seed, self.clock.clone()));
        let options = StoreOptions {
            clock: self.clock.clone(),
            scheduler: scheduler.clone(),
            durability,
            ..simulated(fs.clone(), self.seed)
        };
        (options, scheduler)
    }
}

fn living(seconds: u64) -> FamilyOptions {
    FamilyOptions {
        ttl: Some(Duration::from_secs(seconds)),
        expired_age_max: Some(Duration::ZERO),
        ..FamilyOptions::default()
    }
}

fn get(store: &Store, family: Family, key: &[u8]) -> Option<Vec<u8>> {
    store.get(family, key).unwrap().map(|value| value.to_vec())
}

#[test]
fn a_cursor_keeps_what_expires_before_its_memtable_is_sealed() {
    let mut place = Place::new();
    let (options, scheduler) = place.options(&disk(), Durability::None);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family_with("f", living(10)).unwrap();
    for key in 0..40_u8 {
        store.put(family, &[key], b"1").unwrap();
    }
    place.clock.advance(SECOND * 5);
    let mut cursor = store.cursor(family, ..).unwrap();
    assert!(cursor.next(&store).unwrap());
    place.clock.advance(SECOND * 6);
    store.flush().unwrap();
    while scheduler.help() {}
    let mut seen = 1;
    while cursor.next(&store).unwrap() {
        seen += 1;
    }
    assert_eq!(seen, 40);
    assert!(cursor.seek(&store, &[3]).unwrap());
}

#[test]
fn time_stands_still_in_a_scan_beside_a_batch() {
    let mut place = Place::new();
    let (options, _scheduler) = place.options(&disk(), Durability::None);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family_with("f", living(10)).unwrap();
    for key in [b"a", b"b", b"c"] {
        store.put(family, key, b"1").unwrap();
    }
    let mut batch = IndexedBatch::new();
    batch.delete_range(family, &b"b"[..]..b"c");
    let mut scan = batch.range(&store, family, ..).unwrap();
    assert!(scan.next_entry().unwrap().is_some());
    place.clock.advance(SECOND * 10);
    assert_eq!(scan.next_entry().unwrap(), Some((&b"c"[..], &b"1"[..])));
}

#[test]
fn what_a_batch_appended_to_survives_a_crash_though_it_has_expired() {
    let mut place = Place::new();
    let fs = disk();
    let (options, scheduler) = place.options(&fs, Durability::Buffered);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family_with("f", living(10)).unwrap();
    store.put(family, b"k", b"old").unwrap();
    store.put(family, b"covered", b"old").unwrap();
    store.flush().unwrap();
    place.clock.advance(SECOND * 6);
    let mut batch = WriteBatch::new();
    batch.append(family, b"k", b"+new").append(family, b"k", b"+more");
    batch.delete_range(family, &b"c"[..]..b"d");
    batch.append(family, b"covered", b"alone");
    store.write(&batch).unwrap();
    let answers = |store: &Store, family| (get(store, family, b"k"), get(store, family, b"covered"));
    let expected = (Some(b"old+new+more".to_vec()), Some(b"alone".to_vec()));
    assert_eq!(answers(&store, family), expected);
    place.clock.advance(SECOND * 5);
    while scheduler.help() {}
    assert_eq!(store.stats().tables, 0);
    assert_eq!(answers(&store, family), expected);
    let image = Arc::new(fs.live_image());
    let (options, _scheduler) = place.options(&image, Durability::Buffered);
    let mut found = Store::open("s", options).unwrap();
    let family = found.family_with("f", living(10)).unwrap();
    assert_eq!(answers(&found, family), expected);
}

#[test]
fn a_replay_with_little_memory_keeps_what_appends_stand_on() {
    for memtable_bytes in [1 << 20, 64 << 10] {
        let mut place = Place::new();
        let fs = disk();
        let (options, _) = place.options(&fs, Durability::Buffered);
        let options = StoreOptions {
            memtable_bytes: 4 << 20,
            ..options
        };
        let mut store = Store::open("s", options).unwrap();
        let family = store.family_with("f", living(10)).unwrap();
        let mut expected = Vec::new();
        for round in 0..20_u8 {
            for key in 0..20_u8 {
                store.append(family, &[key], &[round; 500]).unwrap();
            }
            expected.extend_from_slice(&[round; 500]);
            place.clock.advance(SECOND * 8);
        }
        assert_eq!(get(&store, family, &[3]), Some(expected.clone()));
        let image = Arc::new(fs.live_image());
        let (options, scheduler) = place.options(&image, Durability::Buffered);
        let options = StoreOptions {
            memtable_bytes,
            ..options
        };
        let found = Store::open("s", options).unwrap();
        while scheduler.help() {}
        let mut found = found;
        let family = found.family_with("f", living(10)).unwrap();
        for key in 0..20_u8 {
            assert_eq!(
                get(&found, family, &[key]).map(|value| value.len()),
                Some(expected.len()),
                "{memtable_bytes}, {key}"
            );
        }
        found.flush().unwrap();
        place.clock.advance(SECOND * 20);
        found.compact(family).unwrap();
        assert_eq!(found.stats().tables, 0);
    }
}

#[test]
fn values_of_full_length_are_appended_refused_and_replayed() {
    let longest = (64 << 20) - 16;
    for less in [0, 8, 16] {
        let mut place = Place::new();
        let fs = disk();
        let (options, _) = place.options(&fs, Durability::Buffered);
        let options = StoreOptions {
            memtable_bytes: 1 << 20,
            ..options
        };
        let mut store = Store::open("s", options).unwrap();
        let family = store.family_with("f", living(10)).unwrap();
        let body = vec![7; longest - less];
        store.put(family, b"gone", b"1").unwrap();
        store.flush().unwrap();
        store.delete(family, b"gone").unwrap();
        let mut batch = WriteBatch::new();
        batch.append(family, b"gone", &body);
        store.write(&batch).unwrap();
        assert_eq!(
            get(&store, family, b"gone").map(|value| value.len()),
            Some(longest - less)
        );
        let mut batch = WriteBatch::new();
        batch.append(family, b"gone", &vec![1; less + 1]);
        assert!(store.write(&batch).is_err(), "{less}");
        store.append(family, b"gone", &vec![1; less]).unwrap();
        let image = Arc::new(fs.live_image());
        drop(store);
        let (options, _scheduler) = place.options(&image, Durability::Buffered);
        let mut found = Store::open("s", options).unwrap();
        let family = found.family_with("f", living(10)).unwrap();
        assert_eq!(
            get(&found, family, b"gone").map(|value| value.len()),
            Some(longest)
        );
    }
}

#[test]
fn what_got_no_stamp_while_nothing_expired_counts_from_the_new_beginning() {
    for merges in [false, true] {
        let mut place = Place::new();
        let (options, _scheduler) = place.options(&disk(), Durability::None);
        let mut store = Store::open("s", options).unwrap();
        let family = store.family_with("f", living(10)).unwrap();
        store.put(family, b"k", b"1").unwrap();
        store.flush().unwrap();
        store.family_with("f", FamilyOptions::default()).unwrap();
        place.clock.advance(SECOND * 100);
        if merges {
            store.compact(family).unwrap();
        }
        assert!(get(&store, family, b"k").is_some());
        store.family_with("f", living(10)).unwrap();
        assert!(get(&store, family, b"k").is_some(), "{merges}");
        place.clock.advance(SECOND * 10);
        assert!(get(&store, family, b"k").is_none(), "{merges}");
    }
}

#[test]
fn an_idle_family_gets_rid_of_operands_while_others_are_written() {
    let mut place = Place::new();
    let (options, scheduler) = place.options(&disk(), Durability::None);
    let mut store = Store::open("s", options).unwrap();
    let options = FamilyOptions {
        merge: Some(Arc::new(Append)),
        ..living(10)
    };
    let idle = store.family_with("idle", options).unwrap();
    let busy = store.family("busy").unwrap();
    for key in 0..50_u8 {
        store.merge(idle, &[key], b"1").unwrap();
    }
    store.flush().unwrap();
    for round in 0..20_u32 {
        for at in 0..200_u32 {
            store.put(busy, &at.to_be_bytes(), &[round as u8; 400]).unwrap();
        }
        place.clock.advance(SECOND * 10);
        while scheduler.help() {}
    }
    assert_eq!(store.stats().expired_entries, 50, "{}", store.stats());
}

/// A filter that removes everything.
#[derive(Debug)]
struct Nothing;

impl CompactionFilter for Nothing {
    fn filter(&self, _: &[u8], _: &[u8], _: u64) -> Verdict {
        Verdict::Remove
    }
}

#[test]
fn what_a_batch_appended_to_survives_a_crash_though_a_filter_removed_it() {
    let mut place = Place::new();
    let fs = disk();
    let filtered = || FamilyOptions {
        filter: Some(Arc::new(Nothing)),
        ..FamilyOptions::default()
    };
    let (options, scheduler) = place.options(&fs, Durability::Buffered);
    let mut store = Store::open("s", options).unwrap();
    let family = store.family_with("f", filtered()).unwrap();
    for other in [b"x", b"y"] {
        store.put(family, b"k", b"old").unwrap();
        store.put(family, other, b"1").unwrap();
        store.flush().unwrap();
    }
    let mut batch = WriteBatch::new();
    batch.append(family, b"k", b"+new");
    store.write(&batch).unwrap();
    assert_eq!(get(&store, family, b"k"), Some(b"old+new".to_vec()));
    for _ in 0..10 {
        place.clock.advance(SECOND * 5);
        while scheduler.help() {}
    }
    assert_eq!(store.stats().tables, 0);
    let image = Arc::new(fs.live_image());
    let (options, _scheduler) = place.options(&image, Durability::Buffered);
    let mut found = Store::open("s", options).unwrap();
    let family = found.family_with("f", filtered()).unwrap();
    assert_eq!(get(&found, family, b"k"), Some(b"old+new".to_vec()));
}

#[test]
fn a_store_of_another_time_to_live_shows_what_its_readers_are_promised() {
    for (first, then, shown) in [(10, 100, true), (100, 10, false)] {
        let mut place = Place::new();
        let fs = disk();
        let (options, scheduler) = place.options(&fs, Durability::Buffered);
        let mut store = Store::open("s", options).unwrap();
        let family = store.family_with("f", living(first)).unwrap();
        store.put(family, b"flushed", b"1").unwrap();
        store.flush().unwrap();
        store.put(family, b"logged", b"1").unwrap();
        place.clock.advance(SECOND * 5);
        let store = store;
        let image = Arc::new(fs.live_image());
        drop(store);
        drop(scheduler);
        let (options, scheduler) = place.options(&image, Durability::Buffered);
        let mut found = Store::open("s", options).unwrap();
        let family = found.family_with("f", living(then)).unwrap();
        place.clock.advance(SECOND * 45);
        while scheduler.help() {}
        for key in [&b"flushed"[..], b"logged"] {
            assert_eq!(get(&found, family, key).is_some(), shown, "{first} {then}");
            let mut cursor = found.cursor(family, ..).unwrap();
            assert_eq!(cursor.seek(&found, key).unwrap(), shown);
        }
        found.compact(family).unwrap();
        for key in [&b"flushed"[..], b"logged"] {
            assert_eq!(get(&found, family, key).is_some(), shown, "{first} {then}");
        }
    }
}
