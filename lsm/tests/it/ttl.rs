//! Without this, entries could live on after their time, or go before it; bytes of expired ones could stay for ever, or
//! their end could bring back what they had replaced.

use crate::support::{Chain, content, disk, simulated};
use keybed_env::{Clock, Fs, ManualClock, Random, Scheduler, SimScheduler};
use keybed_lsm::{Append, Family, FamilyOptions, Store, StoreOptions};
use std::{path::Path, sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// A simulated disk and the clock that all stores on it look at.
struct Place {
    fs: Arc<dyn Fs>,
    clock: Arc<ManualClock>,
    scheduler: Arc<dyn Scheduler>,
    seed: u64,
}

impl Place {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        Place {
            fs: disk(),
            scheduler: Arc::new(SimScheduler::new(1, clock.clone())),
            clock,
            seed: 0,
        }
    }

    fn options(&mut self) -> StoreOptions {
        self.seed += 1;
        StoreOptions {
            clock: self.clock.clone(),
            scheduler: self.scheduler.clone(),
            ..simulated(self.fs.clone(), self.seed)
        }
    }

    fn open(&mut self, options: FamilyOptions) -> (Store, Family) {
        let mut store = Store::open("s", self.options()).unwrap();
        let family = store.family_with("f", options).unwrap();
        (store, family)
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        while self.scheduler.help() {}
    }
}

fn living(seconds: u64) -> FamilyOptions {
    FamilyOptions {
        ttl: Some(SECOND * seconds as u32),
        ..FamilyOptions::default()
    }
}

fn is_there(store: &Store, family: Family, key: &[u8]) -> bool {
    let found = store.get(family, key).unwrap().is_some();
    assert_eq!(
        store.multi_get(family, &[key, b"other"]).unwrap()[0]
            .as_ref()
            .unwrap()
            .is_some(),
        found
    );
    assert_eq!(content(store, family).unwrap().contains_key(key), found);
    assert_eq!(store.get_stamped(family, key).unwrap().is_some(), found);
    found
}

#[test]
fn the_time_to_live_changes_at_every_open() {
    let mut place = Place::new();
    let (mut store, family) = place.open(FamilyOptions::default());
    store.put(family, b"bare", b"1").unwrap();
    store.close().unwrap();
    place.pass(SECOND * 100);
    // What has no stamp counts from now, whatever the number of restarts.
    let (mut store, family) = place.open(living(10));
    store.put(family, b"stamped", b"2").unwrap();
    store.close().unwrap();
    place.pass(SECOND * 6);
    let (store, family) = place.open(living(10));
    assert!(is_there(&store, family, b"bare") && is_there(&store, family, b"stamped"));
    store.close().unwrap();
    place.pass(SECOND * 5);
    // Opened by its name alone, a family keeps what it was told.
    let mut store = Store::open("s", place.options()).unwrap();
    let family = store.family("f").unwrap();
    assert!(!is_there(&store, family, b"bare") && !is_there(&store, family, b"stamped"));
    // Longer, and off: what is there lives on; stamps go with the next merge.
    store.put(family, b"stamped", b"2").unwrap();
    store.flush().unwrap();
    let family = store.family_with("f", living(20)).unwrap();
    place.pass(SECOND * 15);
    assert!(is_there(&store, family, b"stamped"));
    let family = store.family_with("f", FamilyOptions::default()).unwrap();
    place.pass(SECOND * 1000);
    assert!(is_there(&store, family, b"stamped"));
    store.append(family, b"stamped", b"!").unwrap();
    assert_eq!(store.get(family, b"stamped").unwrap().unwrap(), b"2!");
    store.compact(family).unwrap();
    assert!(is_there(&store, family, b"stamped"));
    // On again is a new beginning.
    let family = store.family_with("f", living(10)).unwrap();
    assert!(is_there(&store, family, b"stamped"));
    place.pass(SECOND * 10);
    assert!(!is_there(&store, family, b"stamped"));
    store.close().unwrap();
}

#[test]
fn time_stands_still_in_views_and_cursors() {
    let mut place = Place::new();
    let (mut store, family) = place.open(living(10));
    store.put(family, b"a", b"1").unwrap();
    place.pass(SECOND * 5);
    store.put(family, b"b", b"2").unwrap();
    let view = store.view().unwrap();
    let mut cursor = store.cursor(family, ..).unwrap();
    place.pass(SECOND * 6);
    store.compact(family).unwrap();
    assert!(!is_there(&store, family, b"a") && is_there(&store, family, b"b"));
    assert_eq!(view.get(family, b"a").unwrap().unwrap(), b"1");
    assert_eq!(view.range(family, ..).unwrap().count(), 2);
    assert!(cursor.next(&store).unwrap());
    assert_eq!(cursor.key(), b"a");
    drop((view, cursor));
    store.close().unwrap();
}

#[test]
fn an_idle_store_gets_rid_of_what_has_expired() {
    let mut place = Place::new();
    let options = FamilyOptions {
        expired_age_max: Some(SECOND * 5),
        ..living(10)
    };
    let (mut store, family) = place.open(options);
    for at in 0..200_u32 {
        store.put(family, &at.to_be_bytes(), &[7; 50]).unwrap();
        if at == 150 {
            place.pass(SECOND * 3);
        }
    }
    store.put(family, b"late", b"1").unwrap();
    store.flush().unwrap();
    store.wait_for_background().unwrap();
    assert!(store.stats().table_bytes > 5_000);
    for _ in 0..30 {
        place.pass(SECOND);
    }
    let stats = store.stats();
    assert_eq!((stats.tables, stats.expired_entries), (0, 201), "{stats}");
    assert!(stats.expired_files > 0);
    store.close().unwrap();
}

#[test]
fn an_old_stamp_over_a_newer_value_brings_nothing_back() {
    for merges in 0..3 {
        let mut place = Place::new();
        let (mut store, family) = place.open(living(100));
        for at in 0..50_u32 {
            store.put(family, &at.to_be_bytes(), b"old").unwrap();
        }
        store.flush().unwrap();
        if merges > 0 {
            store.compact(family).unwrap();
        }
        let stamp = place.clock.wall_millis() - 99_000;
        for at in 0..50_u32 {
            store
                .put_stamped(family, &at.to_be_bytes(), b"restored", stamp)
                .unwrap();
        }
        store.flush().unwrap();
        place.pass(SECOND * 2);
        if merges > 1 {
            store.compact(family).unwrap();
        }
        store.wait_for_background().unwrap();
        assert!(content(&store, family).unwrap().is_empty(), "{merges}");
        store.close().unwrap();
    }
}

#[test]
fn the_clock_may_go_back_but_nothing_lives_again() {
    let mut place = Place::new();
    let (mut store, family) = place.open(living(10));
    store.put(family, b"a", b"1").unwrap();
    store.flush().unwrap();
    place.pass(SECOND * 20);
    store.put(family, b"b", b"2").unwrap();
    store.close().unwrap();
    place.clock = Arc::new(ManualClock::new());
    place.scheduler = Arc::new(SimScheduler::new(2, place.clock.clone()));
    let (store, family) = place.open(living(10));
    assert!(!is_there(&store, family, b"a") && is_there(&store, family, b"b"));
    store.close().unwrap();
}

#[test]
fn a_copy_and_a_killed_store_keep_the_stamps() {
    let mut place = Place::new();
    let options = FamilyOptions {
        merge: Some(Arc::new(Append)),
        ..living(10)
    };
    let (mut store, family) = place.open(options.clone());
    store.merge(family, b"list", b"1").unwrap();
    place.pass(SECOND * 6);
    store.merge(family, b"list", b"2").unwrap();
    store
        .put_stamped(family, b"old", b"3", place.clock.wall_millis() - 9_000)
        .unwrap();
    store
        .pin()
        .unwrap()
        .finish()
        .unwrap()
        .link_to(Path::new("copy"))
        .unwrap();
    store.close().unwrap();
    place.pass(SECOND * 5);
    let mut copy = Store::open("copy", place.options()).unwrap();
    let family = copy.family("f").unwrap();
    assert_eq!(copy.get(family, b"list").unwrap().unwrap(), b"12");
    assert!(!is_there(&copy, family, b"old"));
    copy.close().unwrap();
}

/// However a history of touches lies in memtables and tables, the answer at every time is the same.
#[test]
fn every_split_of_a_history_gives_the_same_answers() {
    let seed = 7;
    let mut random = Random::from_seed(seed);
    for round in 0..60 {
        let combines = round % 2 == 0;
        let history: Vec<(u64, u64)> = (0..6).map(|_| (random.below(14), random.below(5))).collect();
        let run = |splits: u64| {
            let mut place = Place::new();
            let options = FamilyOptions {
                merge: Some(if combines {
                    Arc::new(Append)
                } else {
                    Arc::new(Chain)
                }),
                expired_age_max: Some(Duration::ZERO),
                ..living(10)
            };
            let (mut store, family) = place.open(options);
            let mut answers = Vec::new();
            for (at, (pause, what)) in history.iter().enumerate() {
                place.pass(SECOND * *pause as u32);
                let value = [b'a' + at as u8];
                match what {
                    0 => store.put(family, b"k", &value).unwrap(),
                    1 if at > 2 => store.delete(family, b"k").unwrap(),
                    _ => store.merge(family, b"k", &value).unwrap(),
                }
                if splits >> at & 1 == 1 {
                    store.flush().unwrap();
                }
                if splits >> (at + 6) & 1 == 1 {
                    store.compact(family).unwrap();
                }
                answers.push(store.get(family, b"k").unwrap().map(|value| value.to_vec()));
                answers.push(content(&store, family).unwrap().remove(&b"k"[..]));
            }
            for _ in 0..12 {
                place.pass(SECOND);
                answers.push(store.get(family, b"k").unwrap().map(|value| value.to_vec()));
            }
            store.close().unwrap();
            answers
        };
        let expected = run(0);
        for splits in [
            0x3f,
            0x2a,
            0x15,
            0xfff,
            0xa95,
            random.below(1 << 12),
            random.below(1 << 12),
        ] {
            assert_eq!(
                run(splits),
                expected,
                "seed {seed}, round {round}, splits {splits:x}, {history:?}"
            );
        }
    }
}
