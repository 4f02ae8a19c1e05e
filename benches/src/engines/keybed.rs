//! keybed's store with its defaults: tables mapped into memory, or all blocks through its cache.

use super::engine::{Add, Each, Engine, Rest, Setup, SharedEngine, added, increment};
use keybed_lsm::{
    Access, Append, Family, FamilyOptions, MemoryBudget, MemtableKind, MergeOperator, PrefixRule,
    SharedStore, Store, StoreOptions, Update,
};
use std::{path::Path, sync::Arc};

pub struct Keybed {
    store: Store,
    family: Family,
}

fn options(setup: &Setup, access: Access) -> StoreOptions {
    StoreOptions {
        access,
        cache_bytes: setup.cache_bytes,
        memtable_bytes: setup.memtable_bytes,
        budget: setup.budget_bytes.map(MemoryBudget::new),
        durability: keybed_lsm::Durability::None,
        ..StoreOptions::default()
    }
}

/// A `SharedStore`.
pub fn open_shared(dir: &Path, setup: &Setup) -> Box<dyn SharedEngine> {
    let store = SharedStore::open(dir, options(setup, Access::Map)).expect("keybed opens");
    let family = store.family("bench").expect("keybed makes a family");
    Box::new(Shared { store, family })
}

struct Shared {
    store: SharedStore,
    family: Family,
}

impl SharedEngine for Shared {
    fn handle(&self) -> Box<dyn SharedEngine> {
        Box::new(Shared {
            store: self.store.clone(),
            family: self.family,
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.store.put(self.family, key, value).expect("keybed writes");
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let found = self.store.get_with(self.family, key, |value| seen(Some(value)));
        if found.expect("keybed reads").is_none() {
            seen(None);
        }
    }

    fn settle(&self) {
        self.store.wait_for_background().expect("keybed merges");
    }
}

impl Keybed {
    pub fn open(dir: &Path, setup: &Setup, access: Access) -> Self {
        let mut store = Store::open(dir, options(setup, access)).expect("keybed opens");
        let memtable = match (setup.ordered, setup.prefix_bytes) {
            (false, _) => MemtableKind::default(),
            (true, 0) => MemtableKind::Ordered,
            (true, bytes) => MemtableKind::Prefix(PrefixRule { bytes, pieces: 0 }),
        };
        let merge = setup.appends.then(|| Arc::new(Append) as Arc<dyn MergeOperator>);
        let options = FamilyOptions {
            memtable,
            merge,
            partition_prefix: setup.queue_bytes,
            ..FamilyOptions::default()
        };
        let family = store
            .family_with("bench", options)
            .expect("keybed makes a family");
        Keybed { store, family }
    }
}

/// A value without an allocation.
struct Made([u8; 128], usize);

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

impl Engine for Keybed {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.store.put(self.family, key, value).expect("keybed writes");
    }

    fn delete(&mut self, key: &[u8]) {
        self.store.delete(self.family, key).expect("keybed deletes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        seen(self.store.get(self.family, key).expect("keybed reads").as_deref());
    }

    fn multi_get(&mut self, keys: &[&[u8]], seen: &mut dyn FnMut(usize, Option<&[u8]>)) {
        let values = self.store.multi_get(self.family, keys).expect("keybed reads");
        for (at, value) in values.into_iter().enumerate() {
            seen(at, value.expect("keybed reads").as_deref());
        }
    }

    fn announce(&mut self, keys: &[&[u8]]) {
        self.store.prefetch(self.family, keys).expect("keybed prefetches");
    }

    fn add(&mut self, key: &[u8], how: Add) {
        if how == Add::InPlace {
            let found = self.store.update_in_place(self.family, key, increment);
            assert!(found.expect("keybed updates"), "the key was loaded");
            return;
        }
        self.store
            .update(self.family, key, |old| {
                let mut buffer = [0; 128];
                let bytes = added(old, how, &mut buffer).len();
                Update::Put(Made(buffer, bytes))
            })
            .expect("keybed updates");
    }

    fn adds_in_place(&self) -> bool {
        true
    }

    fn append(&mut self, key: &[u8], bytes: &[u8]) {
        self.store
            .append(self.family, key, bytes)
            .expect("keybed appends");
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        let mut range = match to {
            Some(to) => self.store.range(self.family, from..to),
            None => self.store.range(self.family, from..),
        }
        .expect("keybed scans");
        while let Some((key, value)) = range.next_entry().expect("keybed scans") {
            if !each(key, value) {
                break;
            }
        }
    }

    fn prefix(&mut self, prefix: &[u8], each: Each<'_>) {
        let mut range = self.store.prefix(self.family, prefix).expect("keybed scans");
        while let Some((key, value)) = range.next_entry().expect("keybed scans") {
            if !each(key, value) {
                break;
            }
        }
    }

    /// A floor instead of deletes.
    fn pop_through(&mut self, queue: &[u8], last: &[u8], _keys: &[[u8; 18]]) {
        let mut bound = [0; 64];
        let rest = last.strip_prefix(queue).expect("the key is of the queue");
        bound[..rest.len()].copy_from_slice(rest);
        let risen = self
            .store
            .raise_floor(self.family, queue, &bound[..rest.len() + 1]);
        assert!(risen.expect("keybed raises a floor"), "keys are taken in order");
    }

    fn delete_prefix(&mut self, prefix: &[u8]) {
        self.store
            .delete_prefix(self.family, prefix)
            .expect("keybed deletes a prefix");
    }

    fn settle(&mut self) {
        self.store.wait_for_background().expect("keybed merges");
    }

    fn flush(&mut self) {
        self.store.flush().expect("keybed flushes");
    }

    fn snapshot(&mut self, _to: &Path) -> Option<Rest> {
        let pinning = self.store.pin().expect("keybed pins");
        Some(Box::new(move || {
            let files = pinning.finish().expect("keybed flushes");
            assert!(files.tables().count() > 0, "a pinned store has tables");
        }))
    }

    fn close(self: Box<Self>) {
        self.store.close().expect("keybed closes");
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
