//! Transactions of a shared store: the commit is the only moment that excludes others.

use super::SharedStore;
use crate::{family::Family, transaction::Transaction};
use keybed_format::{Code, Result};
use std::ops::RangeBounds;

/// How often [`SharedStore::transact`] runs a transaction that meets conflicts.
pub const TRANSACT_ATTEMPTS_MAX: usize = 100;

/// A [`Transaction`] over a shared store.
#[derive(Debug)]
pub struct SharedTransaction {
    store: SharedStore,
    transaction: Transaction,
}

impl SharedStore {
    /// Begins a transaction.
    pub fn transaction(&self) -> SharedTransaction {
        SharedTransaction {
            store: self.clone(),
            transaction: Transaction::new(),
        }
    }

    /// Runs `work` in a transaction and commits it, again from the beginning after each conflict, at most
    /// [`TRANSACT_ATTEMPTS_MAX`] times. `work` must do nothing but through the transaction that cannot be done again.
    ///
    /// # Errors
    /// Those of `work`, then nothing is written; `Conflict` after the last attempt; as [`SharedStore::write`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{SharedStore, StoreOptions};
    /// let store = SharedStore::open(dir.path().join("s"), StoreOptions::default())?;
    /// let seats = store.family("seats")?;
    /// let buy = |name: &[u8]| {
    ///     store.transact(|transaction| {
    ///         let is_free = transaction.get(seats, b"12A")?.is_none();
    ///         if is_free {
    ///             transaction.put(seats, b"12A", name);
    ///         }
    ///         Ok(is_free)
    ///     })
    /// };
    /// assert!(buy(b"ann")?);
    /// assert!(!buy(b"bob")?);
    /// # Ok(()) }
    /// ```
    pub fn transact<R>(&self, mut work: impl FnMut(&mut SharedTransaction) -> Result<R>) -> Result<R> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut transaction = self.transaction();
            let done = work(&mut transaction).and_then(|result| transaction.commit().map(|()| result));
            match done {
                Err(error) if error.code() == Code::Conflict && attempt < TRANSACT_ATTEMPTS_MAX => {}
                done => return done,
            }
        }
    }
}

impl SharedTransaction {
    /// As [`Transaction::get`].
    ///
    /// # Errors
    /// As there; `Closed`.
    pub fn get(&mut self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let transaction = &mut self.transaction;
        self.store.beside(|store| transaction.get(store, family, key))
    }

    /// As [`Transaction::range`].
    ///
    /// # Errors
    /// As there; `Closed`.
    pub fn range<'k>(
        &mut self,
        family: Family,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let transaction = &mut self.transaction;
        self.store.beside(|store| transaction.range(store, family, range))
    }

    /// As [`Transaction::prefix`].
    ///
    /// # Errors
    /// As there; `Closed`.
    pub fn prefix(&mut self, family: Family, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let transaction = &mut self.transaction;
        self.store
            .beside(|store| transaction.prefix(store, family, prefix))
    }

    /// As [`Transaction::put`].
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.transaction.put(family, key, value);
    }

    /// As [`Transaction::delete`].
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.transaction.delete(family, key);
    }

    /// As [`Transaction::merge`].
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) {
        self.transaction.merge(family, key, operand);
    }

    /// As [`Transaction::delete_range`].
    pub fn delete_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) {
        self.transaction.delete_range(family, range);
    }

    /// As [`Transaction::delete_prefix`].
    pub fn delete_prefix(&mut self, family: Family, prefix: &[u8]) {
        self.transaction.delete_prefix(family, prefix);
    }

    /// As [`Transaction::commit`].
    ///
    /// # Errors
    /// As there; `Closed`.
    pub fn commit(self) -> Result {
        let transaction = self.transaction;
        if transaction.is_read_only() {
            return self.store.beside(|store| transaction.check(store));
        }
        self.store.write_alone(|store| transaction.commit(store))
    }
}
