//! Reads beside each other. Values are copied or shown under the lock, so that nothing borrowed outlives it.

use super::{SharedCursor, SharedRange, SharedStore};
use crate::{family::Family, scan::Direction};
use keybed_format::Result;
use std::ops::RangeBounds;

impl SharedStore {
    /// A copy of the value of `key`; `None` if it is absent.
    ///
    /// # Errors
    /// `Closed`; as [`Store::get`](crate::Store::get).
    #[inline]
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.beside(|store| {
            let value = store.get_counted(family, key, &self.counters.reads)?;
            Ok(value.map(crate::Value::into_vec))
        })
    }

    /// Shows the value of `key` to `see`, without copying it; `None` if it is absent. Runs `see` under the lock: it
    /// must not use the store.
    ///
    /// # Errors
    /// As [`SharedStore::get`].
    #[inline]
    pub fn get_with<R>(&self, family: Family, key: &[u8], see: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.beside(|store| {
            let value = store.get_counted(family, key, &self.counters.reads)?;
            Ok(value.map(|value| see(&value)))
        })
    }

    /// A copy of the value of `key`, and when it was touched last; as
    /// [`Store::get_stamped`](crate::Store::get_stamped).
    ///
    /// # Errors
    /// As [`SharedStore::get`].
    pub fn get_stamped(&self, family: Family, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>> {
        self.beside(|store| {
            let found = store.get_stamped(family, key)?;
            Ok(found.map(|(value, stamp)| (value.into_vec(), stamp)))
        })
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`SharedStore::get`].
    pub fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.get_with(family, key, |_| ())?.is_some())
    }

    /// Copies of the values of several keys, all of one moment, in the order of the keys.
    ///
    /// # Errors
    /// As [`SharedStore::get`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, family: Family, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        self.beside(|store| {
            self.counters.reads.multi_gets.add(keys.len() as u64);
            let values = store.owned(family)?.sources().multi_get(keys);
            let copy = |value: Result<Option<crate::Value<'_>>>| Ok(value?.map(crate::Value::into_vec));
            values.into_iter().map(copy).collect()
        })
    }

    /// Entries of a range of keys at the moment of the call, ascending. Writes go on meanwhile and are not seen.
    ///
    /// # Errors
    /// As [`SharedRange::next_entry`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = keybed_lsm::SharedStore::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// let mut range = store.range(orders, &b"o-"[..]..)?;
    /// store.delete(orders, b"o-1")?;
    /// assert_eq!(range.next_entry()?, Some((&b"o-1"[..], &b"42"[..])));
    /// # Ok(()) }
    /// ```
    pub fn range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<SharedRange> {
        Ok(SharedRange::new(self.cursor(family, range)?, Direction::Up))
    }

    /// As [`SharedStore::range`], descending.
    ///
    /// # Errors
    /// As there.
    pub fn range_rev<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<SharedRange> {
        Ok(SharedRange::new(self.cursor(family, range)?, Direction::Down))
    }

    /// Entries whose keys begin with `prefix` at the moment of the call, ascending.
    ///
    /// # Errors
    /// As [`SharedRange::next_entry`].
    pub fn prefix(&self, family: Family, prefix: &[u8]) -> Result<SharedRange> {
        Ok(SharedRange::new(
            self.prefix_cursor(family, prefix)?,
            Direction::Up,
        ))
    }

    /// As [`SharedStore::prefix`], descending.
    ///
    /// # Errors
    /// As there.
    pub fn prefix_rev(&self, family: Family, prefix: &[u8]) -> Result<SharedRange> {
        Ok(SharedRange::new(
            self.prefix_cursor(family, prefix)?,
            Direction::Down,
        ))
    }

    /// A cursor over a range of keys as they are now.
    ///
    /// # Errors
    /// `Closed`; as [`Store::cursor`](crate::Store::cursor).
    pub fn cursor<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<SharedCursor> {
        let cursor = self.beside(|store| store.cursor(family, range))?;
        Ok(SharedCursor::new(self.clone(), cursor))
    }

    /// A cursor over the keys that begin with `prefix`, as they are now.
    ///
    /// # Errors
    /// As [`SharedStore::cursor`].
    pub fn prefix_cursor(&self, family: Family, prefix: &[u8]) -> Result<SharedCursor> {
        let cursor = self.beside(|store| store.prefix_cursor(family, prefix))?;
        Ok(SharedCursor::new(self.clone(), cursor))
    }
}
