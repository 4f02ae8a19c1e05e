//! If this fails under Miri (`ci/full`, stage `miri`), the engine or a crate below it reads memory that it must not, or
//! two threads race.
//!
//! The engine has no unsafe code; the crates it stands on have. So what Miri sees here are whole stores in miniature: the
//! memory file system, real threads, no zstd (C code), no memory map and no fallocate (system calls that Miri does not
//! know; they are the only unsafe code of `env`). The tests run without Miri, too.

use keybed_env::{Random, SimFs, ThreadScheduler, random::Ids};
use keybed_lsm::{
    Access, Append, Durability, FamilyOptions, SharedStore, Store, StoreOptions,
    differential::{CONFIGS, Config, run, seeded},
};
use std::{sync::Arc, thread};

fn options(fs: &Arc<SimFs>, seed: u64) -> StoreOptions {
    StoreOptions {
        fs: fs.clone(),
        scheduler: Arc::new(ThreadScheduler::new(1)),
        ids: Ids::Seeded(Random::from_seed(seed)),
        memtable_bytes: 4 << 10,
        block_bytes: 512,
        fan_in: 2,
        runs_max: 2,
        target_file_bytes: 4 << 10,
        access: Access::Cache,
        cache_bytes: 8 << 10,
        durability: Durability::Sync,
        ..StoreOptions::default()
    }
}

#[test]
fn threads_write_and_read_one_store_beside_its_background() {
    const WRITES: u64 = if cfg!(miri) { 5 } else { 12 };
    let fs = Arc::new(SimFs::without_history());
    let store = SharedStore::open("s", options(&fs, 1)).unwrap();
    let appended = FamilyOptions {
        merge: Some(Arc::new(Append)),
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", appended.clone()).unwrap();
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..WRITES {
                    store.put(family, &[writer as u8, n as u8], &[7; 600]).unwrap();
                    store.merge(family, b"all", &[writer as u8]).unwrap();
                }
                store.delete_prefix(family, &[writer as u8]).unwrap();
            });
        }
        let store = store.clone();
        scope.spawn(move || {
            for n in 0..WRITES {
                let view = store.view().unwrap();
                let found = view.get(family, &[0, n as u8]).unwrap();
                assert!(found.is_none_or(|value| value == [7; 600]));
                assert!(store.range(family, ..).unwrap().all(|entry| entry.is_ok()));
            }
        });
    });
    store.compact(family).unwrap();
    assert_eq!(
        store.get(family, b"all").unwrap().unwrap().len(),
        2 * WRITES as usize
    );
    assert_eq!(store.range(family, ..).unwrap().count(), 1);
    drop(store);
    let mut store = Store::open("s", options(&Arc::new(fs.process()), 2)).unwrap();
    let family = store.family_with("f", appended).unwrap();
    assert_eq!(
        store.get(family, b"all").unwrap().unwrap().len(),
        2 * WRITES as usize
    );
}

#[test]
fn short_programs_of_every_operation_agree_with_maps() {
    let configs = (0..CONFIGS).map(Config::new);
    // Miri is a thousand times as slow.
    let (step, length) = if cfg!(miri) { (20, 15) } else { (7, 200) };
    for (seed, config) in configs.filter(|config| !config.is_real).step_by(step).enumerate() {
        run(&seeded(seed as u64, length), &config)
            .unwrap_or_else(|wrong| panic!("{}: {config:?}", wrong.what));
    }
}
