//! If this fails, keys that come and go fill memory, or come back when they should not.

use crate::support::{Map, content, disk, scale, simulated};
use keybed_env::Random;
use keybed_format::Result;
use keybed_lsm::{
    Durability, Family, FamilyOptions, IngestOptions, MemtableKind, Store, StoreOptions, Update, WriteBatch,
    table::ExternalTable,
};

fn opened(options: &StoreOptions) -> Result<(Store, Family)> {
    let mut store = Store::open("s", options.clone())?;
    let ordered = FamilyOptions {
        memtable: MemtableKind::Ordered,
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", ordered)?;
    Ok((store, family))
}

#[test]
fn a_queue_takes_no_more_memory_than_what_waits_in_it() -> Result {
    for durability in [Durability::None, Durability::Buffered] {
        let options = StoreOptions {
            memtable_bytes: 256 << 10,
            durability,
            ..simulated(disk(), 1)
        };
        let (mut store, queue) = opened(&options)?;
        let mut random = Random::from_seed(1);
        let mut model = Map::new();
        for n in 0..scale(30_000) {
            let due = n * 10 + random.below(5000);
            let timer = [due.to_be_bytes(), n.to_be_bytes()].concat();
            store.put(queue, &timer, b"")?;
            model.insert(timer, Vec::new());
            if model.len() > 500 {
                let (first, _) = model.pop_first().expect("500 wait");
                let found = store.range(queue, ..)?.next().expect("500 wait")?;
                assert_eq!(found.0, first);
                store.delete(queue, &first)?;
            }
        }
        assert_eq!(store.stats().flushes, 0, "what comes and goes needs no flush");
        assert_eq!(store.estimate_keys(queue)?, 500);
        assert_eq!(content(&store, queue)?, model);
        store.close()?;
        let (store, queue) = opened(&options)?;
        assert_eq!(content(&store, queue)?, model);
    }
    Ok(())
}

#[test]
fn keys_that_come_and_go_over_files_of_others_leave_no_tombstones() -> Result {
    let options = StoreOptions {
        memtable_bytes: 1 << 20,
        compaction: false,
        ..simulated(disk(), 2)
    };
    let (mut store, family) = opened(&options)?;
    let key = |i: u64| i.to_be_bytes();
    (0..1000).try_for_each(|i| store.put(family, &key(2 * i), b"old"))?;
    store.flush()?;
    for i in 0..1000 {
        store.put(family, &key(2 * i + 1), b"new")?;
        store.delete(family, &key(2 * i + 1))?;
    }
    // Filters err for a few of a hundred.
    let keys = store.estimate_keys(family)?;
    assert!((1000..1080).contains(&keys), "{keys} keys");
    for i in 0..100 {
        store.put(family, &key(2 * i), b"new")?;
        store.delete(family, &key(2 * i))?;
        assert!(store.get(family, &key(2 * i))?.is_none());
    }
    assert_eq!(content(&store, family)?.len(), 900);
    store.flush()?;
    assert_eq!(content(&store, family)?.len(), 900);
    Ok(())
}

#[test]
fn what_was_deleted_over_nothing_is_found_again_when_it_is_ingested_or_written() -> Result {
    let options = simulated(disk(), 3);
    let (mut store, family) = opened(&options)?;
    for key in [b"a", b"b", b"c"] {
        store.put(family, key, b"1")?;
        store.delete(family, key)?;
        store.delete(family, key)?;
    }
    assert_eq!(store.estimate_keys(family)?, 0);
    let path = std::path::PathBuf::from("external");
    let mut table = ExternalTable::create(&path, &options, &FamilyOptions::default())?;
    table.put(b"a", b"2")?;
    table.put(b"b", b"2")?;
    table.finish()?;
    store.ingest(family, &[path], IngestOptions::default())?;
    store.put(family, b"c", b"2")?;
    let all: Vec<_> = content(&store, family)?.into_iter().collect();
    assert_eq!(all, [b"a", b"b", b"c"].map(|key| (key.to_vec(), b"2".to_vec())));
    // Now something lies below.
    store.update(family, b"a", |_| Update::<Vec<u8>>::Delete)?;
    store.put(family, b"b", b"3")?;
    store.delete(family, b"b")?;
    assert_eq!(content(&store, family)?.len(), 1);
    store.flush()?;
    store.compact(family)?;
    assert_eq!(content(&store, family)?.len(), 1);
    Ok(())
}

#[test]
fn a_batch_may_add_to_what_it_removed() -> Result {
    for (is_below, is_in_memory) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut store, family) = opened(&simulated(disk(), 4))?;
        store.put(family, b"other", b"o")?;
        if is_below {
            store.put(family, b"k", b"old")?;
        }
        store.flush()?;
        if is_in_memory {
            store.put(family, b"k", b"newer")?;
        }
        let mut batch = WriteBatch::new();
        batch
            .put(family, b"l", b"l")
            .delete(family, b"l")
            .append(family, b"l", b"m");
        batch
            .delete(family, b"k")
            .append(family, b"k", b"x")
            .append(family, b"k", b"y");
        store.write(&batch)?;
        for _ in 0..2 {
            assert_eq!(store.get(family, b"k")?.as_deref(), Some(&b"xy"[..]));
            assert_eq!(store.get(family, b"l")?.as_deref(), Some(&b"m"[..]));
            store.flush()?;
        }
    }
    Ok(())
}
