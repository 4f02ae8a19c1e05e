//! If this fails, a write that was acknowledged is lost with the process, replayed twice, or replayed wrongly.

use crate::logged::{FAMILIES, Logged, Program};
use crate::support::{Chain, disk, scale, simulated};
use keybed_env::{Fs, ManualClock, Random, SimFs, SimScheduler};
use keybed_format::Code;
use keybed_lsm::{Durability, FamilyOptions, SharedStore, Store, StoreOptions, WriteBatch};
use std::{path::Path, sync::Arc, time::Duration};

const ALL: [Durability; 3] = [
    Durability::Buffered,
    Durability::Interval(Duration::from_millis(5)),
    Durability::Sync,
];

fn log_files(fs: &SimFs) -> Vec<String> {
    let names = fs
        .list(Path::new("s"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name);
    names.filter(|name| name.starts_with("WAL-")).collect()
}

#[test]
fn nothing_is_lost_with_the_process() {
    for durability in ALL {
        for seed in 0..scale(6) {
            let fs = disk();
            let mut random = Random::from_seed(seed);
            let mut program = Program::default();
            let mut opened = 0;
            let mut logged = Logged::open(fs.clone(), seed, durability).unwrap();
            for round in 0..400 {
                program.step(&mut logged, &mut random).unwrap();
                match random.below(40) {
                    0 => {
                        drop(logged);
                        opened += 1;
                        logged = Logged::open(fs.clone(), seed + 1000 * opened, durability).unwrap();
                    }
                    1 => logged.store.flush().unwrap(),
                    2 => logged.store.sync().unwrap(),
                    3 => logged
                        .store
                        .compact(logged.families[random.index(FAMILIES)])
                        .unwrap(),
                    4 => {
                        logged.store.close().unwrap();
                        assert_eq!(log_files(&fs), [""; 0], "a closed store needs no log");
                        opened += 1;
                        logged = Logged::open(fs.clone(), seed + 1000 * opened, durability).unwrap();
                    }
                    _ => {}
                }
                assert_eq!(
                    logged.content().unwrap(),
                    program.models,
                    "{durability:?}, seed {seed}, round {round}"
                );
                assert_eq!(logged.store.stats().torn_bytes, 0);
            }
        }
    }
}

#[test]
fn the_default_survives_the_process() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("s");
    let mut store = Store::open(&dir, StoreOptions::default()).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"k", b"v").unwrap();
    drop(store);
    let mut store = Store::open(&dir, StoreOptions::default()).unwrap();
    let family = store.family("f").unwrap();
    assert_eq!(store.get(family, b"k").unwrap().unwrap(), b"v");
}

#[test]
fn a_store_without_a_log_replays_what_one_with_a_log_left() {
    let fs = disk();
    let mut logged = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    let (plain, sums) = (logged.families[0], logged.families[2]);
    logged.store.put(plain, b"k", b"v").unwrap();
    logged.store.merge(sums, b"n", &5_i64.to_le_bytes()).unwrap();
    drop(logged);
    for seed in 2..5 {
        // Replayed again and again until it is flushed, and then never more.
        let mut logged = Logged::open(fs.clone(), seed, Durability::None).unwrap();
        assert_eq!(logged.store.get(plain, b"k").unwrap().unwrap(), b"v");
        assert_eq!(
            logged.store.get(sums, b"n").unwrap().unwrap(),
            5_i64.to_le_bytes()
        );
        assert_eq!(logged.store.sync().unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(log_files(&fs).len(), 1);
    }
    let mut logged = Logged::open(fs.clone(), 5, Durability::None).unwrap();
    logged.store.merge(sums, b"n", &5_i64.to_le_bytes()).unwrap();
    logged.store.flush().unwrap();
    logged.store.wait_for_background().unwrap();
    assert_eq!(log_files(&fs), [""; 0]);
    drop(logged);
    let logged = Logged::open(fs, 6, Durability::Buffered).unwrap();
    assert_eq!(
        logged.store.get(sums, b"n").unwrap().unwrap(),
        10_i64.to_le_bytes()
    );
}

#[test]
fn a_batch_of_which_one_family_is_flushed_is_replayed_for_the_others() {
    let fs = disk();
    let mut logged = Logged::open(fs.clone(), 1, Durability::Buffered).unwrap();
    let [plain, lists, sums, _] = logged.families;
    let mut batch = WriteBatch::new();
    batch
        .put(plain, b"k", b"v")
        .append(lists, b"l", b"ab")
        .merge(sums, b"n", &7_i64.to_le_bytes());
    logged.store.write(&batch).unwrap();
    logged.store.compact(sums).unwrap();
    drop(logged);
    // The manifest says what is flushed: as if the flush of the others had come too late.
    let manifest = keybed_lsm::version::manifest::read_current(&*fs, Path::new("s"))
        .unwrap()
        .unwrap();
    let found = keybed_lsm::version::manifest::recover(&*fs, Path::new("s"), &manifest).unwrap();
    assert!(
        found
            .set
            .families()
            .all(|family| family.flushed > 0 || family.record.name == "family 3")
    );
    let logged = Logged::open(fs, 2, Durability::Buffered).unwrap();
    assert_eq!(
        logged.store.get(sums, b"n").unwrap().unwrap(),
        7_i64.to_le_bytes()
    );
    assert_eq!(logged.store.get(lists, b"l").unwrap().unwrap(), b"ab");
}

#[test]
fn a_log_that_is_too_long_makes_families_flush_that_hold_it_back() {
    let fs = disk();
    let mut options = Logged::options(fs.clone(), 1, Durability::Buffered);
    options.memtable_bytes = 64 << 20;
    options.wal_bytes_max = 64 << 10;
    let mut logged = Logged::open_with(options).unwrap();
    let [plain, lists, ..] = logged.families;
    logged.store.put(lists, b"old", b"v").unwrap();
    for n in 0..20_000_u64 {
        logged.store.put(plain, b"hot", &n.to_le_bytes()).unwrap();
    }
    let stats = logged.store.stats();
    assert!(stats.log_bytes > 10 * (64 << 10), "{}", stats.log_bytes);
    let bytes: u64 = log_files(&fs)
        .iter()
        .map(|name| fs.facts(&Path::new("s").join(name)).unwrap().unwrap().len)
        .sum();
    assert!(bytes < 256 << 10, "{bytes} bytes of log");
    // One key was written: its flushes are small, and few.
    assert!(stats.flushes > 5 && stats.flush_bytes < 1 << 20, "{stats:?}");
    drop(logged);
    let logged = Logged::open(fs, 2, Durability::Buffered).unwrap();
    assert_eq!(
        logged.store.get(plain, b"hot").unwrap().unwrap(),
        19_999_u64.to_le_bytes()
    );
    assert_eq!(logged.store.get(lists, b"old").unwrap().unwrap(), b"v");
}

#[test]
fn a_log_larger_than_the_write_memory_is_replayed() {
    let fs = disk();
    let mut options = Logged::options(fs.clone(), 1, Durability::Buffered);
    options.memtable_bytes = 64 << 20;
    options.wal_bytes_max = 64 << 20;
    let mut logged = Logged::open_with(options).unwrap();
    let mut random = Random::from_seed(1);
    let mut program = Program::default();
    for n in 0..3000_u64 {
        let key = n.to_be_bytes();
        logged.store.put(logged.families[0], &key, &[7; 100]).unwrap();
        program.models[0].insert(key.to_vec(), vec![7; 100]);
        if n < 2000 {
            program.step(&mut logged, &mut random).unwrap();
        }
    }
    drop(logged);
    let logged = Logged::open(fs, 2, Durability::Buffered).unwrap();
    assert!(logged.store.stats().seals > 10);
    assert_eq!(logged.content().unwrap(), program.models);
}

#[test]
fn an_idle_store_has_no_log_and_a_dropped_family_none_of_it() {
    let fs = disk();
    let logged = Logged::open(fs.clone(), 1, Durability::Sync).unwrap();
    assert_eq!(log_files(&fs), [""; 0]);
    drop(logged);
    let mut logged = Logged::open(fs.clone(), 2, Durability::Sync).unwrap();
    logged.store.put(logged.families[1], b"k", b"v").unwrap();
    logged.store.put(logged.families[0], b"k", b"w").unwrap();
    logged.store.drop_family(logged.families[1]).unwrap();
    drop(logged);
    let logged = Logged::open(Arc::new(fs.live_image()), 3, Durability::Sync).unwrap();
    assert!(logged.store.get(logged.families[1], b"k").unwrap().is_none());
    let first = logged
        .store
        .get(logged.families[0], b"k")
        .unwrap()
        .unwrap()
        .to_vec();
    assert_eq!(first, b"w");
}

#[test]
fn many_writes_of_a_shared_store_share_a_sync() {
    let fs = disk();
    let logged = Logged::open(fs.clone(), 1, Durability::Sync).unwrap();
    let family = logged.families[0];
    let store = SharedStore::from(logged.store);
    store.put(family, b"first", b"v").unwrap();
    let before = store.stats().log_syncs;
    store
        .exclusive(|store| (0..10_u8).try_for_each(|n| store.put(family, &[n], b"v")))
        .unwrap();
    assert_eq!(store.stats().log_syncs, before + 1);
    store.put(family, b"k", b"v").unwrap();
    store.sync().unwrap();
    assert_eq!(
        store.stats().log_syncs,
        before + 2,
        "it was durable when the write returned"
    );
}

#[test]
fn the_log_is_synced_every_so_often() {
    let sim = Arc::new(SimFs::new());
    let scheduler = Arc::new(SimScheduler::new(1, Arc::new(ManualClock::new())));
    let mut options = Logged::options(sim.clone(), 1, Durability::Interval(Duration::from_secs(1)));
    options.scheduler = scheduler.clone();
    let mut logged = Logged::open_with(options).unwrap();
    logged.store.put(logged.families[0], b"k", b"v").unwrap();
    let durable = |seed: u64| {
        let image = Arc::new(sim.strict_image(sim.op_count()));
        let logged = Logged::open(image, seed, Durability::Buffered).unwrap();
        logged.store.contains(logged.families[0], b"k").unwrap()
    };
    assert!(!durable(2));
    scheduler.run_until(|| false, 20);
    assert!(durable(3));
    let syncs = logged.store.stats().log_syncs;
    scheduler.run_until(|| false, 20);
    assert_eq!(logged.store.stats().log_syncs, syncs, "nothing was written since");
    logged.store.close().unwrap();
    assert!(
        !scheduler.run_until(|| false, 20) && scheduler.deadlock().is_empty(),
        "the task has ended"
    );
}

#[test]
fn what_was_appended_to_merged_values_is_replayed_before_the_operator_is_named() {
    let fs = disk();
    let chain = FamilyOptions {
        merge: Some(Arc::new(Chain)),
        ..FamilyOptions::default()
    };
    let options = |seed| StoreOptions {
        durability: Durability::Buffered,
        ..simulated(fs.clone(), seed)
    };
    let mut store = Store::open("s", options(1)).unwrap();
    let family = store.family_with("f", chain.clone()).unwrap();
    store.merge(family, b"k", b"a").unwrap();
    store.append(family, b"k", b"b").unwrap();
    store.merge(family, b"k", b"c").unwrap();
    store.append(family, b"k", b"d").unwrap();
    let before = store.get(family, b"k").unwrap().unwrap().to_vec();
    drop(store);
    let mut store = Store::open("s", options(2)).unwrap();
    let family = store.family_with("f", chain).unwrap();
    assert_eq!(store.get(family, b"k").unwrap().unwrap(), before);
}
