//! The write path: family → memtable. One hash and one look-up per operation; a key that is in the memtable is
//! changed in place.

use crate::{
    family::Family,
    key::{self, EntryKind, Seqno, VALUE_BYTES_MAX, check_sizes},
    memtable::{CHAIN_MAX, Probe},
    merge_operator,
    stats::count,
    store::Store,
};
use keybed_format::{Code, Error, Result};

/// What [`Store::update`] makes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update<V = Vec<u8>> {
    /// It stays as it is.
    Keep,
    /// This becomes the value.
    Put(V),
    /// The key is removed.
    Delete,
}

#[cold]
fn no_operator() -> Error {
    Error::new(Code::MergeFailed, "the family has no merge operator")
}

#[cold]
fn too_large(bytes: usize) -> Error {
    Error::new(Code::ValueTooLarge, "a value is too long").expected_found(VALUE_BYTES_MAX, bytes)
}

impl Store {
    /// Gives `key` a value.
    ///
    /// # Errors
    /// `KeyTooLarge`, `ValueTooLarge`; `Busy` if sealed memtables wait for their flush for too long;
    /// `BackendReadOnly` if they cannot be written; `Poisoned`. Nothing is written then.
    #[inline]
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result {
        self.write(family, key, EntryKind::Put, value)
    }

    /// Removes `key`, whether it is there or not.
    ///
    /// # Errors
    /// As [`Store::put`].
    #[inline]
    pub fn delete(&mut self, family: Family, key: &[u8]) -> Result {
        self.write(family, key, EntryKind::Delete, &[])
    }

    #[inline(always)]
    fn write(&mut self, family: Family, key: &[u8], kind: EntryKind, value: &[u8]) -> Result {
        check_sizes(key, value)?;
        self.before_write()?;
        let seqno = self.next_seqno;
        let memtable = &mut self.owned_mut(family)?.active.memtable;
        let before = memtable.bytes();
        let probe = memtable.find(key, key::hash(key));
        memtable.write(probe, key, seqno, kind, value);
        let grown = memtable.bytes() - before;
        self.after_write(family, grown);
        Ok(())
    }

    /// Reads the value of `key` and replaces it by what `change` makes of it, with one look-up if the memtable
    /// holds the key.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::put`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{Store, StoreOptions, Update};
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let totals = store.family("totals")?;
    /// for cents in [5_u64, 7] {
    ///     store.update(totals, b"user", |old| {
    ///         let old = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    ///         Update::Put((old + cents).to_le_bytes())
    ///     })?;
    /// }
    /// assert_eq!(store.get(totals, b"user")?.unwrap(), 12_u64.to_le_bytes());
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn update<V: AsRef<[u8]>>(
        &mut self,
        family: Family,
        key: &[u8],
        change: impl FnOnce(Option<&[u8]>) -> Update<V>,
    ) -> Result {
        check_sizes(key, &[])?;
        self.before_write()?;
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let owned = match self.families.get(family.0 as usize) {
            Some(owned) if !owned.dropped => owned,
            _ => return self.owned(family).map(|_| ()),
        };
        let probe = owned.active.memtable.find(key, hash);
        let update = match probe {
            Probe::Found { place, .. } => {
                count(&self.shared.owner_counters.memtable_hits);
                let entry = owned.active.memtable.entry(place);
                match entry.kind {
                    EntryKind::Put => change(Some(entry.value)),
                    EntryKind::Delete => change(None),
                    EntryKind::Merge => change(owned.sources().get(key, hash)?.as_deref()),
                }
            }
            Probe::Vacant { .. } => {
                count(&self.shared.owner_counters.table_gets);
                change(owned.below().get(key, hash)?.as_deref())
            }
        };
        match update {
            Update::Keep => Ok(()),
            Update::Put(value) => self.write_at(family, probe, key, seqno, EntryKind::Put, value.as_ref()),
            Update::Delete => self.write_at(family, probe, key, seqno, EntryKind::Delete, &[]),
        }
    }

    #[inline]
    fn write_at(
        &mut self,
        family: Family,
        probe: Probe,
        key: &[u8],
        seqno: Seqno,
        kind: EntryKind,
        value: &[u8],
    ) -> Result {
        if value.len() > VALUE_BYTES_MAX {
            return Err(too_large(value.len()));
        }
        let memtable = &mut self.owned_mut(family)?.active.memtable;
        let before = memtable.bytes();
        memtable.write(probe, key, seqno, kind, value);
        let grown = memtable.bytes() - before;
        self.after_write(family, grown);
        Ok(())
    }

    /// Lets `change` overwrite the bytes of the value where they lie, keeping their number; false if `key` is
    /// absent. The fastest read-modify-write: a value found in a table is first copied to the memtable.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::put`].
    #[inline]
    pub fn update_in_place(
        &mut self,
        family: Family,
        key: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Result<bool> {
        check_sizes(key, &[])?;
        self.before_write()?;
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let owned = self.owned_mut(family)?;
        let probe = owned.active.memtable.find(key, hash);
        if let Probe::Found { place, .. } = probe {
            match owned.active.memtable.entry(place).kind {
                EntryKind::Put => {
                    change(owned.active.memtable.value_mut(place, seqno));
                    count(&self.shared.owner_counters.memtable_hits);
                    self.after_write(family, 0);
                    return Ok(true);
                }
                EntryKind::Delete => return Ok(false),
                EntryKind::Merge => {}
            }
        }
        self.update_promoted(family, probe, key, hash, change)
    }

    /// [`Store::update_in_place`] of a value that is not whole in the memtable.
    fn update_promoted(
        &mut self,
        family: Family,
        probe: Probe,
        key: &[u8],
        hash: u64,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<bool> {
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        count(&self.shared.owner_counters.table_gets);
        let found = match self.owned(family)?.sources().get(key, hash)? {
            Some(old) => {
                value.extend_from_slice(&old);
                true
            }
            None => false,
        };
        if found {
            change(&mut value);
            self.write_at(family, probe, key, self.next_seqno, EntryKind::Put, &value)?;
        }
        self.scratch = value;
        Ok(found)
    }

    /// Adds `bytes` behind the value of `key`; an absent value counts as empty. In a family whose merge operator is
    /// [`Append`](crate::Append) nothing is read; else a value that is not in the memtable is read first.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::put`].
    pub fn append(&mut self, family: Family, key: &[u8], bytes: &[u8]) -> Result {
        check_sizes(key, bytes)?;
        self.before_write()?;
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let owned = self.owned_mut(family)?;
        let probe = owned.active.memtable.find(key, hash);
        match probe {
            Probe::Found { slot, place } => {
                let entry = owned.active.memtable.entry(place);
                match entry.kind {
                    EntryKind::Put => return self.extend(family, slot, place, key, bytes),
                    EntryKind::Merge if owned.appends => return self.extend(family, slot, place, key, bytes),
                    EntryKind::Delete => {
                        return self.write_at(family, probe, key, seqno, EntryKind::Put, bytes);
                    }
                    EntryKind::Merge => {}
                }
            }
            Probe::Vacant { .. } if owned.appends && !owned.is_bare() => {
                return self.write_at(family, probe, key, seqno, EntryKind::Merge, bytes);
            }
            Probe::Vacant { .. } => {}
        }
        count(&self.shared.owner_counters.table_gets);
        let mut value = self
            .owned(family)?
            .sources()
            .get(key, hash)?
            .map_or_else(Vec::new, |old| old.to_vec());
        value.extend_from_slice(bytes);
        self.write_at(family, probe, key, seqno, EntryKind::Put, &value)
    }

    /// Adds bytes behind the value of a record.
    fn extend(&mut self, family: Family, slot: usize, place: u32, key: &[u8], bytes: &[u8]) -> Result {
        let seqno = self.next_seqno;
        let memtable = &mut self.owned_mut(family)?.active.memtable;
        let total = memtable.entry(place).value.len() + bytes.len();
        if total > VALUE_BYTES_MAX {
            return Err(too_large(total));
        }
        let before = memtable.bytes();
        memtable.extend(slot, place, key, seqno, bytes);
        let grown = memtable.bytes() - before;
        self.after_write(family, grown);
        Ok(())
    }

    /// Changes the value of `key` by an operand of the family's merge operator, without reading it.
    ///
    /// # Errors
    /// `MergeFailed` if the family has no operator or the operator refuses; as [`Store::put`].
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) -> Result {
        check_sizes(key, operand)?;
        self.before_write()?;
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let result = self.merge_into(family, key, operand, &mut out);
        self.scratch = out;
        result
    }

    fn merge_into(&mut self, family: Family, key: &[u8], operand: &[u8], out: &mut Vec<u8>) -> Result {
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let owned = self.owned_mut(family)?;
        let operator = owned.options.merge.as_deref().ok_or_else(no_operator)?;
        let named = |error| merge_operator::failed(operator, error);
        operator.check(operand).map_err(named)?;
        let probe = owned.active.memtable.find(key, hash);
        let Probe::Found { slot, place } = probe else {
            if !owned.is_bare() {
                return self.write_at(family, probe, key, seqno, EntryKind::Merge, operand);
            }
            operator.merge(None, operand, out).map_err(named)?;
            return self.write_at(family, probe, key, seqno, EntryKind::Put, out);
        };
        let entry = owned.active.memtable.entry(place);
        match entry.kind {
            EntryKind::Put | EntryKind::Merge if owned.appends => {
                return self.extend(family, slot, place, key, operand);
            }
            EntryKind::Put => operator.merge(Some(entry.value), operand, out).map_err(named)?,
            EntryKind::Delete => operator.merge(None, operand, out).map_err(named)?,
            EntryKind::Merge => {
                let chained = owned.active.memtable.older(place) != 0;
                if !chained && operator.combine(entry.value, operand, out).map_err(named)? {
                    return self.write_at(family, probe, key, seqno, EntryKind::Merge, out);
                }
                if owned.active.memtable.depth(place) < CHAIN_MAX {
                    let memtable = &mut owned.active.memtable;
                    let before = memtable.bytes();
                    memtable.chain(slot, place, key, seqno, operand);
                    let grown = memtable.bytes() - before;
                    self.after_write(family, grown);
                    return Ok(());
                }
                // The chain is long enough: find out what it stands on.
                let base = owned.sources().get(key, hash)?;
                out.clear();
                operator.merge(base.as_deref(), operand, out).map_err(named)?;
            }
        }
        self.write_at(family, probe, key, seqno, EntryKind::Put, out)
    }
}
