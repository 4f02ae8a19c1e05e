//! fjall with its defaults and a cache of equal size. Its journal cannot be switched off; it is written to the
//! kernel without syncing.

use super::engine::{Add, Each, Engine, Rest, Setup, SharedEngine, added};
use fjall::{Database, Iter, Keyspace, KeyspaceCreateOptions};
use std::path::Path;

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path, setup: &Setup) -> Self {
        let database = Database::builder(dir)
            .cache_size(setup.cache_bytes as u64)
            .worker_threads(2)
            .open()
            .expect("fjall opens");
        let keyspace = database
            .keyspace("bench", || {
                KeyspaceCreateOptions::default().max_memtable_size(setup.memtable_bytes as u64)
            })
            .expect("fjall makes a keyspace");
        Fjall { database, keyspace }
    }
}

/// fjall offers no wait for its workers: this looks until no flush and no compaction is under way.
fn settle(database: &Database) {
    let mut calm = 0;
    while calm < 3 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let busy = database.outstanding_flushes() > 0 || database.active_compactions() > 0;
        calm = if busy { 0 } else { calm + 1 };
    }
}

/// A keyspace is shared as it is.
pub fn open_shared(dir: &Path, setup: &Setup) -> Box<dyn SharedEngine> {
    Box::new(Fjall::open(dir, setup))
}

impl SharedEngine for Fjall {
    fn handle(&self) -> Box<dyn SharedEngine> {
        Box::new(Fjall {
            database: self.database.clone(),
            keyspace: self.keyspace.clone(),
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.keyspace.insert(key, value).expect("fjall writes");
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let value = self.keyspace.get(key).expect("fjall reads");
        seen(value.as_deref());
    }

    fn settle(&self) {
        settle(&self.database);
    }
}

fn show(entries: Iter, each: Each<'_>) {
    for guard in entries {
        let (key, value) = guard.into_inner().expect("fjall scans");
        if !each(&key, &value) {
            break;
        }
    }
}

impl Engine for Fjall {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.keyspace.insert(key, value).expect("fjall writes");
    }

    fn delete(&mut self, key: &[u8]) {
        self.keyspace.remove(key).expect("fjall deletes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let value = self.keyspace.get(key).expect("fjall reads");
        seen(value.as_deref());
    }

    fn add(&mut self, key: &[u8], how: Add) {
        let old = self.keyspace.get(key).expect("fjall reads");
        let mut buffer = [0; 128];
        let new = added(old.as_deref(), how, &mut buffer);
        self.keyspace.insert(key, new).expect("fjall writes");
    }

    fn append(&mut self, key: &[u8], bytes: &[u8]) {
        let old = self.keyspace.get(key).expect("fjall reads");
        let new = [old.as_deref().unwrap_or_default(), bytes].concat();
        self.keyspace.insert(key, new).expect("fjall writes");
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        match to {
            Some(to) => show(self.keyspace.range(from..to), each),
            None => show(self.keyspace.range(from..), each),
        }
    }

    fn prefix(&mut self, prefix: &[u8], each: Each<'_>) {
        show(self.keyspace.prefix(prefix), each);
    }

    fn settle(&mut self) {
        settle(&self.database);
    }

    fn flush(&mut self) {
        self.keyspace.rotate_memtable_and_wait().expect("fjall flushes");
    }

    /// The flush that a copy of its files would need; it links no files itself.
    fn snapshot(&mut self, _to: &Path) -> Option<Rest> {
        self.keyspace.rotate_memtable_and_wait().expect("fjall flushes");
        Some(Box::new(|| {}))
    }

    fn close(self: Box<Self>) {}

    fn facts(&mut self) -> String {
        format!("{} tables", self.keyspace.table_count())
    }
}
