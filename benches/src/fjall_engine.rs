//! fjall with its defaults and a cache of equal size. Its journal cannot be switched off; it is written to the
//! kernel without syncing.

use crate::{engine::Engine, rocksdb_engine::CACHE_BYTES};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::path::Path;

pub struct Fjall {
    _database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path) -> Self {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES as u64)
            .worker_threads(2)
            .open()
            .expect("fjall opens");
        let keyspace = database
            .keyspace("bench", || {
                KeyspaceCreateOptions::default().max_memtable_size(64 << 20)
            })
            .expect("fjall makes a keyspace");
        Fjall {
            _database: database,
            keyspace,
        }
    }
}

impl Engine for Fjall {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.keyspace.insert(key, value).expect("fjall writes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let value = self.keyspace.get(key).expect("fjall reads");
        seen(value.as_deref());
    }

    fn increment(&mut self, key: &[u8]) {
        let old = self
            .keyspace
            .get(key)
            .expect("fjall reads")
            .expect("the key was loaded");
        let mut buffer = [0; 100];
        let len = old.len();
        buffer[..len].copy_from_slice(&old);
        let count = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes")) + 1;
        buffer[..8].copy_from_slice(&count.to_le_bytes());
        self.keyspace.insert(key, &buffer[..len]).expect("fjall writes");
    }

    /// fjall offers no wait for its workers; what they still do falls into the next phase.
    fn settle(&mut self) {}

    fn facts(&mut self) -> String {
        format!("{} tables", self.keyspace.table_count())
    }
}
