//! The reference: a map of the standard library in memory, doing the same work without keeping anything.

use super::engine::{Add, Each, Engine, FIRST, Rest, Setup, SharedEngine, increment};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    path::Path,
    sync::{Arc, RwLock},
};

type Bytes = Box<[u8]>;

pub fn open(setup: &Setup) -> Box<dyn Engine> {
    if setup.ordered {
        Box::new(Tree(BTreeMap::new()))
    } else {
        Box::new(Hash(HashMap::new()))
    }
}

/// For state that is read by key; scans sort nothing and show entries in no order.
struct Hash(HashMap<Bytes, Vec<u8>>);

/// For state that is scanned.
struct Tree(BTreeMap<Bytes, Vec<u8>>);

macro_rules! by_key {
    () => {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            match self.0.get_mut(key) {
                Some(old) => {
                    old.clear();
                    old.extend_from_slice(value);
                }
                None => {
                    self.0.insert(key.into(), value.to_vec());
                }
            }
        }

        fn delete(&mut self, key: &[u8]) {
            self.0.remove(key);
        }

        fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
            seen(self.0.get(key).map(Vec::as_slice));
        }

        fn add(&mut self, key: &[u8], how: Add) {
            match self.0.get_mut(key) {
                Some(value) => increment(value),
                None => {
                    assert!(how == Add::Upsert, "a key that was loaded is not found");
                    self.0.insert(key.into(), FIRST.to_vec());
                }
            }
        }

        fn append(&mut self, key: &[u8], bytes: &[u8]) {
            match self.0.get_mut(key) {
                Some(value) => value.extend_from_slice(bytes),
                None => {
                    self.0.insert(key.into(), bytes.to_vec());
                }
            }
        }

        fn settle(&mut self) {}

        fn flush(&mut self) {}

        fn snapshot(&mut self, _to: &Path) -> Option<Rest> {
            None
        }

        fn close(self: Box<Self>) {}

        fn facts(&mut self) -> String {
            format!("{} entries in memory", self.0.len())
        }
    };
}

impl Engine for Hash {
    by_key!();

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        assert!(
            from.is_empty() && to.is_none(),
            "a hash map shows everything or nothing"
        );
        for (key, value) in &self.0 {
            if !each(key, value) {
                break;
            }
        }
    }

    fn prefix(&mut self, _prefix: &[u8], _each: Each<'_>) {
        panic!("a hash map has no prefixes");
    }
}

impl Engine for Tree {
    by_key!();

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), to)) {
            if !each(key, value) {
                break;
            }
        }
    }

    fn prefix(&mut self, prefix: &[u8], each: Each<'_>) {
        self.scan(prefix, None, &mut |key, value| {
            key.starts_with(prefix) && each(key, value)
        });
    }
}

/// A hash map behind a lock.
pub fn open_shared(_dir: &Path, _setup: &Setup) -> Box<dyn SharedEngine> {
    Box::new(Locked(Arc::default()))
}

#[derive(Clone)]
struct Locked(Arc<RwLock<HashMap<Bytes, Vec<u8>>>>);

impl SharedEngine for Locked {
    fn handle(&self) -> Box<dyn SharedEngine> {
        Box::new(self.clone())
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        let mut map = self.0.write().expect("no writer panics");
        map.insert(key.into(), value.to_vec());
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let map = self.0.read().expect("no writer panics");
        seen(map.get(key).map(Vec::as_slice));
    }

    fn settle(&self) {}
}
