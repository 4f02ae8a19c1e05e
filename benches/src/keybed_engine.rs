//! keybed's store with its defaults.

use crate::engine::Engine;
use keybed_lsm::{Family, Store, StoreOptions};
use std::path::Path;

pub struct Keybed {
    store: Store,
    family: Family,
}

impl Keybed {
    pub fn open(dir: &Path) -> Self {
        let mut store = Store::open(dir, StoreOptions::default()).expect("keybed opens");
        let family = store.family("bench").expect("keybed makes a family");
        Keybed { store, family }
    }
}

impl Engine for Keybed {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.store.put(self.family, key, value).expect("keybed writes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        seen(self.store.get(self.family, key).expect("keybed reads").as_deref());
    }

    fn increment(&mut self, key: &[u8]) {
        let found = self.store.update_in_place(self.family, key, |value| {
            let count = u64::from_le_bytes(value[..8].try_into().expect("eight bytes")) + 1;
            value[..8].copy_from_slice(&count.to_le_bytes());
        });
        assert!(found.expect("keybed updates"), "the key was loaded");
    }

    fn settle(&mut self) {
        self.store.wait_for_background().expect("keybed merges");
    }

    fn facts(&mut self) -> String {
        let s = self.store.stats();
        format!(
            "{} flushes ({} MiB), {} merges ({} MiB), {} of them into the bottom; {} runs at most",
            s.flushes,
            s.flush_bytes >> 20,
            s.compactions,
            s.compaction_bytes >> 20,
            s.bottom_compactions,
            s.runs_max
        )
    }
}
