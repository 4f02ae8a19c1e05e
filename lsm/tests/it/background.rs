//! If this fails, merges do not stop when they are told to, keep flushes waiting, never end, or do not go on by
//! themselves once a full disk has room again.

use crate::support::{Map, content, disk, simulated, tiny};
use keybed_env::{
    FaultFs, ManualClock, Random, SimScheduler, ThreadScheduler,
    fs::{Fault, FaultPlan},
    random::Ids,
};
use keybed_format::Code;
use keybed_lsm::{CompactionFilter, Family, FamilyOptions, MergeRate, Store, StoreOptions, Verdict};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

fn fill(store: &mut Store, family: Family, keys: std::ops::Range<u64>) {
    for n in keys {
        let key = (n * 7919 % 10_007).to_be_bytes();
        store.put(family, &key, &[n as u8; 40]).unwrap();
    }
}

#[test]
fn nothing_is_merged_while_compactions_are_paused() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let family = store.family("f").unwrap();
    let pauses = [store.pause_compaction(), store.pause_compaction()];
    for round in 0..6 {
        fill(&mut store, family, round * 50..round * 50 + 50);
        store.flush().unwrap();
    }
    assert_eq!(store.compact(family).unwrap_err().code(), Code::Busy);
    store.wait_for_background().unwrap();
    assert_eq!(store.stats().compactions, 0);
    assert!(store.stats().runs_max > 6);
    let [first, second] = pauses;
    drop(first);
    store.wait_for_background().unwrap();
    assert_eq!(store.stats().compactions, 0);
    drop(second);
    store.wait_for_background().unwrap();
    assert!(store.stats().compactions > 0);
    assert!(store.stats().runs_max <= 3);
}

#[test]
fn a_range_is_compacted_and_the_rest_left_alone() {
    for seed in 0..10 {
        let mut random = Random::from_seed(seed);
        let options = StoreOptions {
            compaction: false,
            ..simulated(disk(), seed)
        };
        let mut store = Store::open("s", options).unwrap();
        let family = store.family("f").unwrap();
        let mut model = Map::new();
        for _ in 0..8 {
            for _ in 0..100 {
                let key = (random.below(1000) as u16).to_be_bytes().to_vec();
                if random.below(3) == 0 {
                    store.delete(family, &key).unwrap();
                    model.remove(&key);
                } else {
                    let value = vec![random.below(256) as u8; 30];
                    store.put(family, &key, &value).unwrap();
                    model.insert(key, value);
                }
            }
            let (a, b) = (random.below(1100) as u16, random.below(1100) as u16);
            let (from, to) = (a.min(b).to_be_bytes(), a.max(b).to_be_bytes());
            store.compact_range(family, &from[..]..&to[..]).unwrap();
            assert_eq!(content(&store, family).unwrap(), model, "seed {seed}");
        }
        store.compact(family).unwrap();
        assert_eq!(content(&store, family).unwrap(), model, "seed {seed}");
        assert_eq!(store.stats().runs_max, 1);
    }
}

/// Writes to another store in the middle of a merge, and looks later whether that was flushed.
struct Interrupts {
    calls: AtomicU64,
    other: Mutex<Option<(Store, Family)>>,
    flushed_in_between: AtomicU64,
}

impl std::fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupts")
    }
}

impl CompactionFilter for Interrupts {
    fn filter(&self, _: &[u8], _: &[u8], _: u64) -> Verdict {
        let mut other = self.other.lock().unwrap();
        if let Some((store, family)) = &mut *other {
            match self.calls.fetch_add(1, Ordering::Relaxed) {
                1 => {
                    store.put(*family, b"k", b"v").unwrap();
                    // Seals and queues the flush, waits for nothing.
                    drop(store.pin().unwrap());
                }
                5_000 => self
                    .flushed_in_between
                    .store(store.stats().flushes, Ordering::Relaxed),
                _ => {}
            }
        }
        Verdict::Keep
    }
}

#[test]
fn a_flush_of_another_store_passes_a_long_merge_on_the_only_thread() {
    let clock = Arc::new(ManualClock::new());
    let options = |seed| StoreOptions {
        scheduler: Arc::new(SimScheduler::new(1, clock.clone())),
        clock: clock.clone(),
        memtable_bytes: 1 << 20,
        target_file_bytes: 1 << 20,
        ids: Ids::Seeded(Random::from_seed(seed)),
        ..tiny()
    };
    let shared = options(1);
    let with = |fs, seed| StoreOptions {
        fs,
        ids: Ids::Seeded(Random::from_seed(seed)),
        ..shared.clone()
    };
    let mut other = Store::open("s", with(disk(), 2)).unwrap();
    let other_family = other.family("f").unwrap();
    let filter = Arc::new(Interrupts {
        calls: AtomicU64::new(0),
        other: Mutex::new(None),
        flushed_in_between: AtomicU64::new(0),
    });
    let mut store = Store::open("s", with(disk(), 3)).unwrap();
    let family_options = FamilyOptions {
        filter: Some(filter.clone()),
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", family_options).unwrap();
    fill(&mut store, family, 0..9_000);
    store.flush().unwrap();
    *filter.other.lock().unwrap() = Some((other, other_family));
    store.compact(family).unwrap();
    assert_eq!(filter.flushed_in_between.load(Ordering::Relaxed), 1);
    let other = filter.other.lock().unwrap().take();
    other.unwrap().0.close().unwrap();
}

#[test]
fn a_store_that_is_never_open_for_long_is_merged_at_last() {
    let (fs, rate) = (disk(), MergeRate::new(2 << 20));
    let options = |seed: u64| StoreOptions {
        fs: fs.clone(),
        scheduler: Arc::new(ThreadScheduler::new(1)),
        ids: Ids::Seeded(Random::from_seed(seed)),
        merge_rate: Some(rate.clone()),
        ..tiny()
    };
    let mut store = Store::open(
        "s",
        StoreOptions {
            compaction: false,
            ..options(0)
        },
    )
    .unwrap();
    let family = store.family("f").unwrap();
    let _pause = store.pause_compaction();
    fill(&mut store, family, 0..10_000);
    store.close().unwrap();
    for session in 1..500 {
        let store = Store::open("s", options(session)).unwrap();
        let family = store.pause_compaction();
        drop(family);
        std::thread::sleep(Duration::from_millis(10));
        let runs = store.stats().runs_max;
        store.close().unwrap();
        if runs == 1 {
            return;
        }
    }
    panic!("no session left anything to the next one");
}

fn full_disk(is_hit: impl Fn(&str) -> bool + Send + Sync + 'static) -> (Arc<FaultFs>, FaultPlan) {
    let fs = Arc::new(FaultFs::new(disk()));
    let plan = FaultPlan::new(Fault::Enospc, 1)
        .forever()
        .on_path(move |path| is_hit(&path.to_string_lossy()));
    (fs, plan)
}

#[test]
fn a_full_disk_is_tried_again_by_itself_with_growing_pauses() {
    let (fs, plan) = full_disk(|path| path.ends_with(".sst"));
    let clock = Arc::new(ManualClock::new());
    let scheduler = Arc::new(SimScheduler::new(1, clock.clone()));
    let options = StoreOptions {
        clock: clock.clone(),
        scheduler: scheduler.clone(),
        sealed_max: 1,
        ..simulated(fs.clone(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    fs.arm(plan);
    let mut written = 0;
    let error = loop {
        match store.put(family, &u64::to_be_bytes(written), &[1; 60]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::BackendReadOnly);
    let failures = |store: &Store| store.stats().flush_failures;
    let (before, started) = (failures(&store), keybed_env::Clock::monotonic(&*clock));
    let minute = Duration::from_secs(60);
    scheduler.run_until(
        || keybed_env::Clock::monotonic(&*clock) > started + minute,
        1_000_000,
    );
    let retries = failures(&store) - before;
    assert!((3..60).contains(&retries), "{retries} attempts in a minute");
    assert_eq!(content(&store, family).unwrap().len() as u64, written);
    fs.heal();
    scheduler.run_until(|| store.stats().sealed_bytes == 0, 1_000_000);
    assert_eq!(
        store.stats().sealed_bytes,
        0,
        "nobody asked, and nothing was tried"
    );
    store.put(family, b"again", b"").unwrap();
    assert_eq!(content(&store, family).unwrap().len() as u64, written + 1);
}

#[test]
fn a_merge_that_met_a_full_disk_goes_on_by_itself() {
    let (fs, plan) = full_disk(|path| path.ends_with(".sst"));
    let clock = Arc::new(ManualClock::new());
    let scheduler = Arc::new(SimScheduler::new(1, clock.clone()));
    let options = StoreOptions {
        clock: clock.clone(),
        scheduler: scheduler.clone(),
        ..simulated(fs.clone(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    let pause = store.pause_compaction();
    for round in 0..5 {
        fill(&mut store, family, round * 40..round * 40 + 40);
        store.flush().unwrap();
    }
    fs.arm(plan);
    drop(pause);
    scheduler.run_until(|| fs.first_fault().is_some(), 1_000_000);
    assert!(store.wait_for_background().is_err());
    assert_eq!(
        (content(&store, family).unwrap().len(), store.stats().compactions),
        (200, 0)
    );
    fs.heal();
    scheduler.run_until(|| store.stats().compactions > 0, 1_000_000);
    assert!(
        store.stats().compactions > 0,
        "nobody asked, and nothing was tried"
    );
}

#[test]
fn a_store_at_rest_settles_by_itself() {
    let clock = Arc::new(ManualClock::new());
    let scheduler = Arc::new(SimScheduler::new(1, clock.clone()));
    let options = StoreOptions {
        clock: clock.clone(),
        scheduler: scheduler.clone(),
        fan_in: 4,
        runs_max: 6,
        memtable_bytes: 1 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    fill(&mut store, family, 0..500);
    store.compact(family).unwrap();
    let settled = store.stats().table_bytes;
    fill(&mut store, family, 0..250);
    store.flush().unwrap();
    assert!(store.stats().table_bytes > settled * 13 / 10);
    let started = keybed_env::Clock::monotonic(&*clock);
    let minute = Duration::from_secs(60);
    scheduler.run_until(
        || keybed_env::Clock::monotonic(&*clock) > started + minute,
        1_000_000,
    );
    let stats = store.stats();
    assert!(
        stats.runs_max == 1 && stats.table_bytes < settled * 11 / 10,
        "{stats}"
    );
    let after = stats.compactions;
    scheduler.run_until(
        || keybed_env::Clock::monotonic(&*clock) > started + 3 * minute,
        1_000_000,
    );
    assert_eq!(store.stats().compactions, after, "it never comes to rest");
}

#[test]
fn any_program_comes_to_rest_in_a_good_shape() {
    for seed in 0..30 {
        let mut random = Random::from_seed(seed);
        let options = StoreOptions {
            sealed_max: 1 + (seed as usize % 3),
            fan_in: 2 + (seed as usize % 3),
            runs_max: 3 + (seed as usize % 4),
            ..simulated(disk(), seed)
        };
        let (mut store, runs_max) = (
            Store::open("s", options.clone()).unwrap(),
            options.runs_max as u64,
        );
        let families: Vec<_> = (0..5).map(|n| store.family(&format!("f{n}")).unwrap()).collect();
        let mut models = vec![Map::new(); families.len()];
        let mut pause = None;
        for step in 0..2500_u64 {
            let at = random.below(5) as usize;
            let (family, model) = (families[at], &mut models[at]);
            // Rising, falling, uniform and skewed keys; one family hardly ever written.
            let key = match at {
                0 => step,
                1 => 10_000 - step,
                2 => random.below(400),
                3 => {
                    let below = 1 + random.below(400);
                    random.below(below)
                }
                _ if random.below(20) > 0 => continue,
                _ => random.below(50),
            };
            let key = key.to_be_bytes().to_vec();
            match random.below(100) {
                0..=24 => {
                    store.delete(family, &key).unwrap();
                    model.remove(&key);
                }
                25 => {
                    let to = random.below(500).to_be_bytes();
                    if pause.is_none() {
                        store.compact_range(family, &key[..]..&to[..]).unwrap();
                    }
                }
                26 => pause = Some(store.pause_compaction()),
                27..=29 => pause = None,
                30 => drop(store.pin().unwrap().finish().unwrap()),
                _ => {
                    let value = vec![step as u8; random.below(60) as usize];
                    store.put(family, &key, &value).unwrap();
                    model.insert(key, value);
                }
            }
        }
        drop(pause);
        store.wait_for_background().unwrap();
        let settled = store.stats().table_bytes;
        assert!(
            store.stats().runs_max <= runs_max,
            "seed {seed}: {}",
            store.stats()
        );
        for (family, model) in families.iter().zip(&models) {
            assert_eq!(content(&store, *family).unwrap(), *model, "seed {seed}");
            store.compact(*family).unwrap();
            assert_eq!(content(&store, *family).unwrap(), *model, "seed {seed}");
        }
        let live = store.stats().table_bytes;
        assert!(
            settled * 10 <= live * 14,
            "seed {seed}: {settled} bytes settled, {live} live"
        );
    }
}
