//! redb: a copy-on-write B-tree in one file, with a cache of equal size and nothing synced.
//!
//! Every write of redb belongs to a transaction. One per operation would measure nothing but commits, so up to
//! [`BATCH`] operations share one; reads between them go through the open transaction and see its writes.

use super::engine::{Add, Each, Engine, Rest, Setup, added};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::path::Path;

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("bench");

/// Operations of one transaction.
const BATCH: usize = 10_000;

pub struct Redb {
    /// Dropped first: it borrows `transaction`.
    table: Option<Table<'static, &'static [u8], &'static [u8]>>,
    transaction: *mut WriteTransaction,
    writes: usize,
    database: Database,
}

impl Redb {
    pub fn open(dir: &Path, setup: &Setup) -> Self {
        let database = Database::builder()
            .set_cache_size(setup.cache_bytes)
            .create(dir.join("redb"))
            .expect("redb opens");
        let mut this = Redb {
            table: None,
            transaction: std::ptr::null_mut(),
            writes: 0,
            database,
        };
        this.begin();
        this
    }

    fn begin(&mut self) {
        let mut transaction = self.database.begin_write().expect("redb begins");
        transaction
            .set_durability(Durability::None)
            .expect("redb takes the durability");
        self.transaction = Box::into_raw(Box::new(transaction));
        // SAFETY: the box lives until `commit`, which drops the table first; nothing else uses the pointer.
        let transaction: &'static WriteTransaction = unsafe { &*self.transaction };
        self.table = Some(transaction.open_table(TABLE).expect("redb opens its table"));
    }

    fn commit(&mut self) {
        self.table = None;
        let transaction = std::mem::replace(&mut self.transaction, std::ptr::null_mut());
        if !transaction.is_null() {
            // SAFETY: made by `Box::into_raw` in `begin`, taken once, and the table that borrowed it is gone.
            let transaction = unsafe { Box::from_raw(transaction) };
            transaction.commit().expect("redb commits");
        }
        self.writes = 0;
    }

    fn table(&mut self) -> &mut Table<'static, &'static [u8], &'static [u8]> {
        self.table.as_mut().expect("a transaction is open")
    }

    fn wrote(&mut self) {
        self.writes += 1;
        if self.writes == BATCH {
            self.commit();
            self.begin();
        }
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        self.commit();
    }
}

impl Engine for Redb {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.table().insert(key, value).expect("redb writes");
        self.wrote();
    }

    fn delete(&mut self, key: &[u8]) {
        self.table().remove(key).expect("redb deletes");
        self.wrote();
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        let value = self.table().get(key).expect("redb reads");
        seen(value.as_ref().map(redb::AccessGuard::value));
    }

    fn add(&mut self, key: &[u8], how: Add) {
        let mut buffer = [0; 128];
        let bytes = {
            let old = self.table().get(key).expect("redb reads");
            added(old.as_ref().map(redb::AccessGuard::value), how, &mut buffer).len()
        };
        self.put(key, &buffer[..bytes]);
    }

    fn append(&mut self, key: &[u8], bytes: &[u8]) {
        let new = {
            let old = self.table().get(key).expect("redb reads");
            [
                old.as_ref().map(redb::AccessGuard::value).unwrap_or_default(),
                bytes,
            ]
            .concat()
        };
        self.put(key, &new);
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        let entries = match to {
            Some(to) => self.table().range::<&[u8]>(from..to),
            None => self.table().range::<&[u8]>(from..),
        };
        for entry in entries.expect("redb scans") {
            let (key, value) = entry.expect("redb scans");
            if !each(key.value(), value.value()) {
                break;
            }
        }
    }

    fn prefix(&mut self, prefix: &[u8], each: Each<'_>) {
        self.scan(prefix, None, &mut |key, value| {
            key.starts_with(prefix) && each(key, value)
        });
    }

    /// There is no background; the open transaction ends.
    fn settle(&mut self) {
        self.commit();
        self.begin();
    }

    fn flush(&mut self) {
        self.settle();
    }

    /// A reader's view of the last commit; nothing is copied.
    fn snapshot(&mut self, _to: &Path) -> Option<Rest> {
        self.commit();
        let view = self.database.begin_read().expect("redb reads");
        self.begin();
        Some(Box::new(move || drop(view)))
    }

    fn close(mut self: Box<Self>) {
        self.commit();
    }

    fn facts(&mut self) -> String {
        format!("transactions of {BATCH} operations")
    }
}
