//! Writes, one at a time.

use super::SharedStore;
use crate::{batch::WriteBatch, family::Family, write::Update};
use keybed_format::Result;
use std::ops::RangeBounds;

impl SharedStore {
    /// Gives `key` a value.
    ///
    /// # Errors
    /// `Closed`; as [`Store::put`](crate::Store::put).
    #[inline]
    pub fn put(&self, family: Family, key: &[u8], value: &[u8]) -> Result {
        self.write_alone(|store| store.put(family, key, value))
    }

    /// As [`Store::put_stamped`](crate::Store::put_stamped).
    ///
    /// # Errors
    /// As there.
    pub fn put_stamped(&self, family: Family, key: &[u8], value: &[u8], stamp: u64) -> Result {
        self.write_alone(|store| store.put_stamped(family, key, value, stamp))
    }

    /// As [`Store::touch`](crate::Store::touch).
    ///
    /// # Errors
    /// As there.
    pub fn touch(&self, family: Family, key: &[u8]) -> Result<bool> {
        self.write_alone(|store| store.touch(family, key))
    }

    /// Removes `key`, whether it is there or not.
    ///
    /// # Errors
    /// As [`SharedStore::put`].
    #[inline]
    pub fn delete(&self, family: Family, key: &[u8]) -> Result {
        self.write_alone(|store| store.delete(family, key))
    }

    /// Removes every key of a range.
    ///
    /// # Errors
    /// As [`Store::delete_range`](crate::Store::delete_range).
    pub fn delete_range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result {
        self.write_alone(|store| store.delete_range(family, range))
    }

    /// Removes every key that begins with `prefix`.
    ///
    /// # Errors
    /// As [`Store::delete_prefix`](crate::Store::delete_prefix).
    pub fn delete_prefix(&self, family: Family, prefix: &[u8]) -> Result {
        self.write_alone(|store| store.delete_prefix(family, prefix))
    }

    /// Removes everything of a partition below a bound; false if its floor lies above already.
    ///
    /// # Errors
    /// As [`Store::raise_floor`](crate::Store::raise_floor).
    pub fn raise_floor(&self, family: Family, partition: &[u8], bound: &[u8]) -> Result<bool> {
        self.write_alone(|store| store.raise_floor(family, partition, bound))
    }

    /// Removes everything of a family.
    ///
    /// # Errors
    /// As [`Store::clear`](crate::Store::clear).
    pub fn clear(&self, family: Family) -> Result {
        self.write_alone(|store| store.clear(family))
    }

    /// Applies a batch: all of its operations at one moment, or none.
    ///
    /// # Errors
    /// `Closed`; as [`Store::write`](crate::Store::write).
    pub fn write(&self, batch: &WriteBatch) -> Result {
        self.write_alone(|store| store.write(batch))
    }

    /// Changes the value of `key` by an operand of the family's merge operator.
    ///
    /// # Errors
    /// As [`Store::merge`](crate::Store::merge).
    #[inline]
    pub fn merge(&self, family: Family, key: &[u8], operand: &[u8]) -> Result {
        self.write_alone(|store| store.merge(family, key, operand))
    }

    /// Adds `bytes` behind the value of `key`.
    ///
    /// # Errors
    /// As [`Store::append`](crate::Store::append).
    #[inline]
    pub fn append(&self, family: Family, key: &[u8], bytes: &[u8]) -> Result {
        self.write_alone(|store| store.append(family, key, bytes))
    }

    /// Replaces the value of `key` by what `change` makes of it; nobody writes in between. Runs `change` under the
    /// lock: it must not use the store.
    ///
    /// # Errors
    /// As [`Store::update`](crate::Store::update).
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{SharedStore, StoreOptions, Update};
    /// let store = SharedStore::open(dir.path().join("s"), StoreOptions::default())?;
    /// let counts = store.family("counts")?;
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         let store = store.clone();
    ///         scope.spawn(move || {
    ///             store.update(counts, b"visits", |old| {
    ///                 let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_le_bytes);
    ///                 Update::Put((old + 1).to_le_bytes())
    ///             })
    ///         });
    ///     }
    /// });
    /// assert_eq!(store.get(counts, b"visits")?.unwrap(), 4_u64.to_le_bytes());
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn update<V: AsRef<[u8]>>(
        &self,
        family: Family,
        key: &[u8],
        change: impl FnOnce(Option<&[u8]>) -> Update<V>,
    ) -> Result {
        self.write_alone(|store| store.update(family, key, change))
    }

    /// Lets `change` overwrite the bytes of the value, keeping their number; false if `key` is absent. Runs `change`
    /// under the lock: it must not use the store.
    ///
    /// # Errors
    /// As [`Store::update_in_place`](crate::Store::update_in_place).
    #[inline]
    pub fn update_in_place(
        &self,
        family: Family,
        key: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Result<bool> {
        self.write_alone(|store| store.update_in_place(family, key, change))
    }
}
