//! If this fails, a writer that is faster than its background is refused, starves or is stopped for long instead of
//! being slowed down.

use crate::support::{disk, tiny};
use keybed_env::{ManualClock, SimScheduler, ThreadScheduler};
use keybed_lsm::{Store, StoreOptions};
use std::sync::Arc;

#[test]
fn an_unthrottled_writer_with_tiny_memtables_is_never_refused() {
    let options = StoreOptions {
        fs: disk(),
        scheduler: Arc::new(ThreadScheduler::new(1)),
        sealed_max: 1,
        ..tiny()
    };
    let mut store = Store::open("s", options).unwrap();
    let families: Vec<_> = (0..8).map(|n| store.family(&format!("f{n}")).unwrap()).collect();
    for n in 0..60_000_u64 {
        let family = families[(n % 8) as usize];
        let key = (n % 500).to_be_bytes();
        store
            .put(family, &key, &[n as u8; 50])
            .unwrap_or_else(|error| panic!("write {n} of {:?}: {error}", store.stats()));
    }
    store.wait_for_background().unwrap();
    store.close().unwrap();
}

/// Writes at full speed; the longest wait, in simulated time or not, must be short.
#[test]
fn a_writer_faster_than_its_background_is_slowed_down_and_never_stopped_for_long() {
    let clock = Arc::new(ManualClock::new());
    let options = StoreOptions {
        fs: disk(),
        scheduler: Arc::new(SimScheduler::new(3, clock.clone())),
        clock,
        sealed_max: 3,
        ..tiny()
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..20_000_u64 {
        store
            .put(family, &(n * 7919 % 4000).to_be_bytes(), &[n as u8; 50])
            .unwrap();
    }
    let stats = store.stats();
    assert!(stats.waits.delay.count() > 0, "{stats:?}");
    assert!(stats.waits.engine_caused().max() <= 10_000_000, "{stats:?}");
    assert_eq!(stats.stalls, 0, "{stats:?}");
    assert!(stats.runs_max <= 4 * 3, "{stats:?}");
    store.wait_for_background().unwrap();
}
