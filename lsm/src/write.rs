//! The write path: family → memtable. One hash and one look-up per operation; a key that is in the memtable is
//! changed in place.

use crate::{
    arena::Place,
    expiry,
    family::{Family, OwnedFamily},
    key::{self, EntryKind, Seqno, VALUE_BYTES_MAX, check_sizes},
    memtable::{CHAIN_MAX, Probe},
    merge_operator,
    stats::count,
    store::Store,
    touch::{self, Addition},
    write_memory::UPDATE_BYTES,
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
pub(crate) fn no_operator() -> Error {
    Error::new(Code::MergeFailed, "the family has no merge operator")
}

#[cold]
pub(crate) fn too_large(bytes: usize) -> Error {
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
        if let Some(stamp) = self.stamp_of(family) {
            return self.put_at(family, key, value, stamp);
        }
        self.write_one(family, key, EntryKind::Put, value)
    }

    /// Removes `key`, whether it is there or not.
    ///
    /// # Errors
    /// As [`Store::put`].
    #[inline]
    pub fn delete(&mut self, family: Family, key: &[u8]) -> Result {
        self.write_one(family, key, EntryKind::Delete, &[])
    }

    #[inline(always)]
    pub(crate) fn write_one(&mut self, family: Family, key: &[u8], kind: EntryKind, value: &[u8]) -> Result {
        check_sizes(key, value)?;
        self.before_write_of(family, key, value.len())?;
        if self.journal.is_on() {
            self.log_write(family, key, kind, value)?;
        }
        let seqno = self.next_seqno;
        let owned = self.owned_mut(family)?;
        let before = owned.active.memtable.bytes();
        let hash = key::hash(key);
        let probe = owned.active.memtable.find(key, hash);
        match kind {
            EntryKind::Delete => owned.delete(probe, key, hash, seqno),
            _ => owned.active.memtable.write(probe, key, seqno, kind, value),
        }
        let grown = owned.active.memtable.bytes() - before;
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
        self.before_write_of(family, key, UPDATE_BYTES)?;
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let owned = match self.families.get(family.0 as usize) {
            Some(owned) if !owned.dropped => owned,
            _ => return self.owned(family).map(|_| ()),
        };
        let probe = owned.active.memtable.find(key, hash);
        let update = match probe {
            Probe::Found { place, .. } => {
                count(&self.shared.owner_counters.reads.memtable_hits);
                let entry = owned.active.memtable.newest(place);
                match entry.kind {
                    EntryKind::Put if owned.lifetime.is_none() => change(Some(entry.value)),
                    EntryKind::Delete => change(None),
                    EntryKind::Put | EntryKind::PutStamped => {
                        let is_gone = owned.expiry().is_gone(entry.kind, entry.value);
                        change((!is_gone).then(|| expiry::bare(entry.kind, entry.value)))
                    }
                    EntryKind::Merge | EntryKind::MergeStamped => {
                        change(owned.sources().get(key, hash)?.as_deref())
                    }
                }
            }
            Probe::Vacant { .. } if owned.active.memtable.hides_older(key) => change(None),
            Probe::Vacant { .. } => {
                count(&self.shared.owner_counters.reads.table_gets);
                change(owned.below().get(key, hash)?.as_deref())
            }
        };
        match update {
            Update::Keep => Ok(()),
            Update::Put(value) => self.put_found(family, probe, key, seqno, value.as_ref()),
            Update::Delete => self.write_at(family, probe, key, seqno, EntryKind::Delete, &[]),
        }
    }

    /// Writes the value of a key that was looked for.
    #[inline]
    fn put_found(&mut self, family: Family, probe: Probe, key: &[u8], seqno: Seqno, value: &[u8]) -> Result {
        let Some(stamp) = self.stamp_of(family) else {
            return self.write_at(family, probe, key, seqno, EntryKind::Put, value);
        };
        touch::within_limit(value.len())?;
        let mut raw = std::mem::take(&mut self.stamped);
        raw.clear();
        expiry::start_put(&mut raw, stamp);
        raw.extend_from_slice(value);
        let result = self.write_at(family, probe, key, seqno, EntryKind::PutStamped, &raw);
        self.stamped = raw;
        result
    }

    #[inline]
    fn write_at(
        &mut self,
        family: Family,
        mut probe: Probe,
        key: &[u8],
        seqno: Seqno,
        kind: EntryKind,
        value: &[u8],
    ) -> Result {
        if value.len() > UPDATE_BYTES {
            within_limit(value.len())?;
            // May seal the memtable.
            self.before_write_of(family, key, value.len())?;
            probe = self.owned(family)?.active.memtable.find(key, key::hash(key));
        }
        if self.journal.is_on() {
            self.log_write(family, key, kind, value)?;
        }
        let owned = self.owned_mut(family)?;
        let before = owned.active.memtable.bytes();
        match kind {
            EntryKind::Delete => owned.delete(probe, key, key::hash(key), seqno),
            _ => owned.active.memtable.write(probe, key, seqno, kind, value),
        }
        let grown = owned.active.memtable.bytes() - before;
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
        self.before_write_of(family, key, UPDATE_BYTES)?;
        let hash = key::hash(key);
        let seqno = self.next_seqno;
        let logs = self.journal.is_on();
        let stamp = self.stamp_of(family);
        let owned = self.owned_mut(family)?;
        let probe = owned.active.memtable.find(key, hash);
        if let Probe::Found { place, .. } = probe {
            let entry = owned.active.memtable.newest(place);
            match entry.kind {
                // What is logged must be there before the memtable changes.
                EntryKind::Put | EntryKind::PutStamped if logs => {}
                EntryKind::Put if stamp.is_none() && !owned.active.memtable.keeps(place) => {
                    change(owned.active.memtable.value_mut(place, seqno));
                    count(&self.shared.owner_counters.reads.memtable_hits);
                    self.after_write(family, 0);
                    return Ok(true);
                }
                EntryKind::Delete => return Ok(false),
                EntryKind::PutStamped => {
                    let value = entry.value;
                    if let (Some(lifetime), Some(stamp)) = (&owned.lifetime, stamp) {
                        if lifetime.expiry_at(stamp).is_gone(EntryKind::PutStamped, value) {
                            return Ok(false);
                        }
                        if !owned.active.memtable.keeps(place) {
                            let raw = owned.active.memtable.value_mut(place, seqno);
                            let (touched, value) = raw.split_at_mut(8);
                            touched.copy_from_slice(&stamp.to_le_bytes());
                            change(value);
                            count(&self.shared.owner_counters.reads.memtable_hits);
                            self.after_write(family, 0);
                            return Ok(true);
                        }
                    }
                }
                EntryKind::Put | EntryKind::Merge | EntryKind::MergeStamped => {}
            }
        }
        self.update_promoted(family, probe, key, hash, change)
    }

    /// [`Store::update_in_place`] of a value that is not whole in the memtable, or must stay there as it is.
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
        count(&self.shared.owner_counters.reads.table_gets);
        let found = match self.owned(family)?.sources().get(key, hash)? {
            Some(old) => {
                value.extend_from_slice(&old);
                true
            }
            None => false,
        };
        if found {
            change(&mut value);
            self.put_found(family, probe, key, self.next_seqno, &value)?;
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
        if self.expires(family) {
            return self.add_now(family, key, bytes, Addition::Append);
        }
        self.add(family, key, bytes, false, OwnedFamily::plan_append)
    }

    /// Changes the value of `key` by an operand of the family's merge operator, without reading it.
    ///
    /// # Errors
    /// `MergeFailed` if the family has no operator or the operator refuses; as [`Store::put`].
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) -> Result {
        if self.expires(family) {
            return self.add_now(family, key, operand, Addition::Merge);
        }
        self.add(family, key, operand, true, OwnedFamily::plan_merge)
    }

    /// Adds something to a value: finds out how, then does it.
    #[inline(always)]
    fn add(&mut self, family: Family, key: &[u8], more: &[u8], merges: bool, plan: Plan) -> Result {
        check_sizes(key, more)?;
        self.before_write_of(family, key, more.len())?;
        let hash = key::hash(key);
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let owned = match self.families.get(family.0 as usize) {
            Some(owned) if !owned.dropped => owned,
            _ => return self.owned(family).map(|_| ()),
        };
        let probe = owned.active.memtable.find(key, hash);
        let planned = plan(owned, probe, key, hash, more, &mut out);
        if matches!((probe, &planned), (Probe::Vacant { .. }, Ok(Step::Replace(_)))) && !owned.is_bare() {
            count(&self.shared.owner_counters.reads.table_gets);
        }
        let result = planned.and_then(|step| {
            if self.journal.is_on() {
                // What was merged is logged as it came: it is merged again when it is replayed.
                let (kind, value) = match step {
                    _ if merges => (EntryKind::Merge, more),
                    Step::Extend { .. } | Step::Chain { .. } => {
                        let owned = &self.families[family.0 as usize];
                        match probe {
                            // The program may not have named the operator yet when the log is replayed: what it folded
                            // lies in operands then, to which nothing can be appended.
                            Probe::Found { place, .. } if owned.options.merge.is_some() && !owned.appends => {
                                let whole = [owned.active.memtable.newest(place).value, more].concat();
                                self.log_write(family, key, EntryKind::Put, &whole)?;
                            }
                            _ => self.log_append(family, key, None, more)?,
                        }
                        self.add_by(family, probe, key, step, more, &out);
                        return Ok(());
                    }
                    Step::Store(kind) => (kind, more),
                    Step::Replace(kind) => (kind, out.as_slice()),
                    Step::ExtendStamped { .. } | Step::ChainStamped { .. } => {
                        unreachable!("a write without a stamp is not planned so")
                    }
                };
                self.log_write(family, key, kind, value)?;
            }
            self.add_by(family, probe, key, step, more, &out);
            Ok(())
        });
        self.scratch = out;
        result
    }

    /// Does what a plan says.
    #[inline]
    pub(crate) fn add_by(
        &mut self,
        family: Family,
        probe: Probe,
        key: &[u8],
        step: Step,
        more: &[u8],
        out: &[u8],
    ) {
        let seqno = self.next_seqno;
        let owned = &mut self.families[family.0 as usize];
        let before = owned.active.memtable.bytes();
        if let Step::Store(EntryKind::Delete) = step {
            owned.delete(probe, key, key::hash(key), seqno);
            let grown = owned.active.memtable.bytes() - before;
            return self.after_write(family, grown);
        }
        let memtable = &mut owned.active.memtable;
        match step {
            Step::Extend { slot, place } => memtable.extend(slot, place, key, seqno, more),
            Step::Chain { slot, place } => {
                memtable.chain((slot, place), key, seqno, EntryKind::Merge, more);
            }
            Step::ExtendStamped { slot, place, stamp } => {
                memtable.extend(slot, place, key, seqno, more);
                // The record may have moved. It was written just now, so no cursor sees it.
                if let Probe::Found { place, .. } = memtable.find(key, key::hash(key)) {
                    memtable.value_mut(place, seqno)[..8].copy_from_slice(&stamp.to_le_bytes());
                }
            }
            Step::ChainStamped { slot, place } => {
                memtable.chain((slot, place), key, seqno, EntryKind::MergeStamped, out);
            }
            Step::Store(kind) => memtable.write(probe, key, seqno, kind, more),
            Step::Replace(kind) => memtable.write(probe, key, seqno, kind, out),
        }
        let grown = memtable.bytes() - before;
        self.after_write(family, grown);
    }
}

/// Finds out how bytes get into a memtable; what is to be stored in their place goes to the last argument.
type Plan = fn(&OwnedFamily, Probe, &[u8], u64, &[u8], &mut Vec<u8>) -> Result<Step>;

/// How an operand or more bytes get into a memtable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Behind the bytes of the record.
    Extend { slot: usize, place: Place },
    /// In front of the versions of the key.
    Chain { slot: usize, place: Place },
    /// Behind the bytes of the record, which was touched now.
    ExtendStamped { slot: usize, place: Place, stamp: u64 },
    /// What the plan made of it, in front of the versions of the key.
    ChainStamped { slot: usize, place: Place },
    /// As they are, as the current version.
    Store(EntryKind),
    /// What the plan made of them is the current version.
    Replace(EntryKind),
}

impl OwnedFamily {
    /// How `bytes` get behind the value of a key.
    pub(crate) fn plan_append(
        &self,
        probe: Probe,
        key: &[u8],
        hash: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step> {
        match probe {
            Probe::Found { slot, place } => {
                let entry = self.active.memtable.newest(place);
                match entry.kind {
                    EntryKind::Put => return extend(slot, place, entry.value, bytes),
                    EntryKind::Merge if self.appends => return extend(slot, place, entry.value, bytes),
                    EntryKind::Delete => return Ok(Step::Store(EntryKind::Put)),
                    // Of a time when entries of the family expired.
                    EntryKind::MergeStamped if self.appends && self.active.memtable.older(place) == 0 => {
                        out.extend_from_slice(expiry::bare(entry.kind, entry.value));
                        out.extend_from_slice(bytes);
                        within_limit(out.len())?;
                        return Ok(Step::Replace(EntryKind::Merge));
                    }
                    EntryKind::Merge | EntryKind::MergeStamped | EntryKind::PutStamped => {}
                }
            }
            Probe::Vacant { .. } if self.appends && !self.is_bare() => {
                return Ok(Step::Store(EntryKind::Merge));
            }
            Probe::Vacant { .. } => {}
        }
        if let Some(old) = self.sources().get(key, hash)? {
            out.extend_from_slice(&old);
        }
        out.extend_from_slice(bytes);
        within_limit(out.len())?;
        Ok(Step::Replace(EntryKind::Put))
    }

    /// How an operand of the family's merge operator gets into the memtable.
    pub(crate) fn plan_merge(
        &self,
        probe: Probe,
        key: &[u8],
        hash: u64,
        operand: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step> {
        let operator = self.options.merge.as_deref().ok_or_else(no_operator)?;
        let named = |error| merge_operator::failed(operator, error);
        operator.check(operand).map_err(named)?;
        let Probe::Found { slot, place } = probe else {
            if !self.is_bare() {
                return Ok(Step::Store(EntryKind::Merge));
            }
            operator.merge(None, operand, out).map_err(named)?;
            within_limit(out.len())?;
            return Ok(Step::Replace(EntryKind::Put));
        };
        let memtable = &self.active.memtable;
        let entry = memtable.newest(place);
        match entry.kind {
            EntryKind::Put | EntryKind::Merge if self.appends => {
                return extend(slot, place, entry.value, operand);
            }
            EntryKind::Put | EntryKind::PutStamped => {
                let value = expiry::bare(entry.kind, entry.value);
                operator.merge(Some(value), operand, out).map_err(named)?;
            }
            EntryKind::Delete => operator.merge(None, operand, out).map_err(named)?,
            EntryKind::Merge | EntryKind::MergeStamped => {
                let chained = memtable.older(place) != 0;
                let value = expiry::bare(entry.kind, entry.value);
                if !chained && operator.combine(value, operand, out).map_err(named)? {
                    within_limit(out.len())?;
                    return Ok(Step::Replace(EntryKind::Merge));
                }
                if memtable.depth(place) < CHAIN_MAX {
                    return Ok(Step::Chain { slot, place });
                }
                // The chain is long enough: find out what it stands on.
                let base = self.sources().get(key, hash)?;
                out.clear();
                operator.merge(base.as_deref(), operand, out).map_err(named)?;
            }
        }
        within_limit(out.len())?;
        Ok(Step::Replace(EntryKind::Put))
    }
}

fn within_limit(bytes: usize) -> Result {
    if bytes > VALUE_BYTES_MAX {
        return Err(too_large(bytes));
    }
    Ok(())
}

fn extend(slot: usize, place: Place, old: &[u8], more: &[u8]) -> Result<Step> {
    within_limit(old.len() + more.len())?;
    Ok(Step::Extend { slot, place })
}
