//! If this fails, a writer that is faster than its background is refused, starves or is stopped for long instead of
//! being slowed down.

use crate::support::{disk, tiny};
use keybed_env::ThreadScheduler;
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
