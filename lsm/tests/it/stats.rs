//! Statistics that do not add up would send an operator after the wrong cause.

use crate::support::{simulated, tiny};
use keybed_env::{CountFs, SimFs};
use keybed_lsm::{Store, StoreStats};
use std::sync::Arc;

fn churn(store: &mut Store, rounds: u64) {
    let family = store.family("orders").unwrap();
    for n in 0..rounds {
        store
            .put(
                family,
                format!("key {:05}", n * 7919 % 5000).as_bytes(),
                &[n as u8; 40],
            )
            .unwrap();
        if n % 3 == 0 {
            let key = format!("key {:05}", n * 31 % 10_000);
            store.get(family, key.as_bytes()).unwrap();
        }
    }
}

#[test]
fn levels_and_bytes_are_those_of_the_files() {
    let place = tempfile::tempdir().unwrap();
    let mut store = Store::open(place.path(), tiny()).unwrap();
    churn(&mut store, 20_000);
    store.flush().unwrap();
    store.wait_for_background().unwrap();
    let stats = store.stats();
    assert_eq!(stats.writes, 20_000);
    let files: Vec<u64> = std::fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".sst"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert_eq!(stats.tables, files.len() as u64);
    assert_eq!(stats.table_bytes, files.iter().sum::<u64>());
    let family = &stats.families[0];
    assert_eq!(family.name, "orders");
    assert_eq!(family.table_bytes(), stats.table_bytes);
    assert_eq!(family.runs.iter().map(|run| run.files).sum::<u64>(), stats.tables);
    assert_eq!(family.runs.len() as u64, stats.runs_max);
    assert_eq!((stats.active_bytes, stats.sealed_bytes, family.sealed), (0, 0, 0));
    assert_eq!(stats.latencies.flush.count(), stats.flushes);
    assert_eq!(stats.latencies.compaction.count(), stats.compactions);
    assert!(stats.write_amplification() > 1.0 && stats.space_amplification() >= 1.0);
    store.close().unwrap();
}

#[test]
fn what_was_written_is_what_reached_the_file_system() {
    let count = Arc::new(CountFs::new(Arc::new(SimFs::without_history())));
    let mut store = Store::open("store", simulated(count.clone(), 3)).unwrap();
    let before = count.counts().bytes_written;
    churn(&mut store, 5_000);
    store.wait_for_background().unwrap();
    let stats = store.stats();
    let written = count.counts().bytes_written - before;
    let tables = stats.flush_bytes + stats.compaction_bytes;
    // The rest is the manifest.
    assert!(
        tables <= written && written - tables < written / 4,
        "{tables} of {written}"
    );
    assert_eq!(stats.seals, stats.flushes);
}

#[test]
fn sampled_reads_tell_what_reads_meet() {
    let mut store = Store::open("store", simulated(crate::support::disk(), 5)).unwrap();
    let family = store.family("orders").unwrap();
    for run in 0..3 {
        for n in 0..200_u64 {
            store
                .put(family, format!("key {:05}", n * 3 + run).as_bytes(), b"v")
                .unwrap();
        }
        store.flush().unwrap();
    }
    for n in 0..100 * 1024_u64 {
        store
            .get(family, format!("key {:05}", n * 7919 % 599).as_bytes())
            .unwrap();
    }
    let StoreStats {
        sampled, latencies, ..
    } = store.stats();
    assert_eq!((sampled.gets, latencies.table_get.count()), (100, 100));
    let found = sampled.tables - sampled.filter_negatives - sampled.filter_false_positives;
    assert_eq!(found, 100, "{sampled:?}");
    assert!(sampled.filter_negatives > 20, "{sampled:?}");
}

#[test]
fn other_threads_read_them_while_the_owner_works() {
    let place = tempfile::tempdir().unwrap();
    let mut store = Store::open(place.path(), tiny()).unwrap();
    let reader = store.stats_reader();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while last < 3_000 {
                let stats = reader.stats();
                assert!(stats.writes >= last, "counters never go back");
                last = stats.writes;
                assert!(!format!("{stats}").is_empty());
            }
        });
        churn(&mut store, 3_000);
    });
    assert_eq!(reader.counts().writes, 3_000);
    store.close().unwrap();
    assert_eq!(reader.stats().writes, 3_000, "after the end, too");
}
