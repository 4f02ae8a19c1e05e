//! Writes to families whose entries expire: each says when it touched its key.
//!
//! The same paths as in `write`, beside them, so that families without a time to live pay one compare. What the
//! memtable is given has its stamps before it; see [`expiry`](crate::expiry).

use crate::{
    expiry::{self, Expiry, Stamps},
    family::{Family, OwnedFamily},
    key::{self, EntryKind, VALUE_BYTES_MAX, check_sizes},
    memtable::{CHAIN_MAX, Probe},
    merge_operator,
    stats::count,
    store::Store,
    write::{Step, no_operator, too_large},
};
use keybed_format::Result;

/// Most bytes of stamps before a value.
pub(crate) const STAMP_BYTES_MAX: usize = 16;

/// What is added to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addition {
    /// An operand of the family's operator.
    Merge,
    /// Bytes behind the value.
    Append,
}

/// A value must leave room for its stamps.
pub(crate) fn within_limit(bytes: usize) -> Result {
    if bytes > VALUE_BYTES_MAX - STAMP_BYTES_MAX {
        return Err(too_large(bytes));
    }
    Ok(())
}

impl Store {
    /// Whether the entries of `family` expire.
    #[inline(always)]
    pub(crate) fn expires(&self, family: Family) -> bool {
        let owned = self.families.get(family.0 as usize);
        owned.is_some_and(|owned| owned.lifetime.is_some())
    }

    /// When a write to `family` touches its key; `None` if its entries do not expire.
    #[inline(always)]
    pub(crate) fn stamp_of(&self, family: Family) -> Option<u64> {
        let lifetime = self.families.get(family.0 as usize)?.lifetime.as_ref()?;
        Some(lifetime.wall.now())
    }

    /// Gives `key` a value that was touched last at `stamp`, in milliseconds since 1970: for restores, which must not
    /// prolong the life of what they restore. It replaces the value that is there even if that was touched later. In a
    /// family whose entries do not expire the stamp says nothing.
    ///
    /// # Errors
    /// As [`Store::put`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{FamilyOptions, Store, StoreOptions};
    /// # use std::time::Duration;
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let hour = Some(Duration::from_secs(3600));
    /// let sessions = store.family_with("sessions", FamilyOptions { ttl: hour, ..FamilyOptions::default() })?;
    /// store.put_stamped(sessions, b"ann", b"42", 1_000_000_000_000)?; // in 2001
    /// assert!(store.get(sessions, b"ann")?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn put_stamped(&mut self, family: Family, key: &[u8], value: &[u8], stamp: u64) -> Result {
        match self.stamp_of(family) {
            Some(_) => self.put_at(family, key, value, stamp),
            None => self.put(family, key, value),
        }
    }

    /// Lets the value of `key` live as if it had just been written; false if it is absent or has expired. In a family
    /// whose entries do not expire this tells whether the key is there.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::put`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{FamilyOptions, Store, StoreOptions};
    /// # use std::time::Duration;
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let hour = Some(Duration::from_secs(3600));
    /// let sessions = store.family_with("sessions", FamilyOptions { ttl: hour, ..FamilyOptions::default() })?;
    /// store.put(sessions, b"ann", b"42")?;
    /// assert!(store.touch(sessions, b"ann")?);
    /// assert!(!store.touch(sessions, b"bob")?);
    /// # Ok(()) }
    /// ```
    pub fn touch(&mut self, family: Family, key: &[u8]) -> Result<bool> {
        match self.stamp_of(family) {
            Some(_) => self.update_in_place(family, key, |_| {}),
            None => self.contains(family, key),
        }
    }

    /// [`Store::put`] with a stamp.
    pub(crate) fn put_at(&mut self, family: Family, key: &[u8], value: &[u8], stamp: u64) -> Result {
        within_limit(value.len())?;
        let mut raw = std::mem::take(&mut self.stamped);
        raw.clear();
        expiry::start_put(&mut raw, stamp);
        raw.extend_from_slice(value);
        let result = self.write_one(family, key, EntryKind::PutStamped, &raw);
        self.stamped = raw;
        result
    }

    /// [`Store::merge`] and [`Store::append`] in a family whose entries expire.
    pub(crate) fn add_now(&mut self, family: Family, key: &[u8], more: &[u8], addition: Addition) -> Result {
        check_sizes(key, more)?;
        within_limit(more.len())?;
        self.before_write_of(family, key, more.len() + STAMP_BYTES_MAX)?;
        // Not before: what was sealed just now is flushed without what had expired by its seal, on which this could stand.
        let stamp = self.stamp_of(family).unwrap_or_default();
        let hash = key::hash(key);
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let owned = self.owned(family)?;
        let probe = owned.active.memtable.find(key, hash);
        let planned = owned.plan_touch(addition, probe, (key, hash), more, stamp, &mut out);
        if matches!(
            (probe, &planned),
            (Probe::Vacant { .. }, Ok(Step::Replace(EntryKind::PutStamped)))
        ) && !owned.is_bare()
        {
            count(&self.shared.owner_counters.reads.table_gets);
        }
        let result = planned.and_then(|step| {
            if self.journal.is_on() {
                match (step, addition) {
                    (Step::Replace(EntryKind::PutStamped), Addition::Append) => {
                        self.log_write(family, key, EntryKind::PutStamped, &out)?;
                    }
                    // Without the operator, which may not be named yet when the log is replayed, nothing can be appended
                    // to what it folded.
                    (Step::ExtendStamped { place, .. }, Addition::Append) if self.folds_otherwise(family) => {
                        let old = self.families[family.0 as usize].active.memtable.newest(place);
                        let whole = [&stamp.to_le_bytes()[..], old.bare_value(), more].concat();
                        self.log_write(family, key, EntryKind::PutStamped, &whole)?;
                    }
                    (_, Addition::Append) => self.log_append(family, key, Some(stamp), more)?,
                    // What was merged is logged as it came: it is merged again when it is replayed.
                    (_, Addition::Merge) => self.log_merge(family, key, stamp, more)?,
                }
            }
            self.add_by(family, probe, key, step, more, &out);
            Ok(())
        });
        self.scratch = out;
        result
    }
}

impl Store {
    /// Whether the family has an operator, and one that does not append.
    fn folds_otherwise(&self, family: Family) -> bool {
        let owned = &self.families[family.0 as usize];
        owned.options.merge.is_some() && !owned.appends
    }
}

/// Keeps an operand that cannot be folded now.
pub(crate) fn beside(probe: Probe, operand: &[u8], stamp: u64, out: &mut Vec<u8>) -> Step {
    operand_of(operand, stamp, out);
    match probe {
        Probe::Found { slot, place } => Step::ChainStamped { slot, place },
        Probe::Vacant { .. } => Step::Replace(EntryKind::MergeStamped),
    }
}

fn operand_of(operand: &[u8], stamp: u64, out: &mut Vec<u8>) {
    out.clear();
    let stamps = Stamps {
        touched: stamp,
        first: stamp,
    };
    expiry::start_merge(out, stamps);
    out.extend_from_slice(operand);
}

impl OwnedFamily {
    /// How something that is added to a value at `stamp` gets into the memtable. What is to be stored goes to `out`,
    /// stamps and all.
    pub(crate) fn plan_touch(
        &self,
        addition: Addition,
        probe: Probe,
        (key, hash): (&[u8], u64),
        more: &[u8],
        stamp: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step> {
        if addition == Addition::Merge {
            let operator = self.options.merge.as_deref().ok_or_else(no_operator)?;
            let checked = operator.check(more);
            checked.map_err(|error| merge_operator::failed(operator, error))?;
        }
        let memtable = &self.active.memtable;
        let Probe::Found { slot, place } = probe else {
            if memtable.hides_older(key) || self.is_bare() {
                return self.changed(addition, None, more, stamp, out);
            }
            if addition == Addition::Merge || self.appends {
                operand_of(more, stamp, out);
                return Ok(Step::Replace(EntryKind::MergeStamped));
            }
            return self.read_and_change(addition, (key, hash), more, stamp, out);
        };
        let entry = memtable.newest(place);
        let expiry = self.expiry_at(stamp);
        let found = expiry::stamps(entry.kind, entry.value, expiry.since);
        if entry.kind == EntryKind::Delete || expiry.is_over(found.touched) {
            return self.changed(addition, None, more, stamp, out);
        }
        let value = expiry::bare(entry.kind, entry.value);
        let adds_bytes = self.appends || addition == Addition::Append;
        let is_alone = memtable.older(place) == 0;
        match entry.kind {
            EntryKind::PutStamped if adds_bytes => {
                within_limit(value.len() + more.len())?;
                Ok(Step::ExtendStamped { slot, place, stamp })
            }
            EntryKind::MergeStamped if self.appends && is_alone => {
                within_limit(value.len() + more.len())?;
                Ok(Step::ExtendStamped { slot, place, stamp })
            }
            EntryKind::Put | EntryKind::PutStamped | EntryKind::Delete => {
                self.changed(addition, Some(value), more, stamp, out)
            }
            EntryKind::Merge | EntryKind::MergeStamped if addition == Addition::Merge || self.appends => {
                if is_alone && self.combined(value, more, (stamp, found.first), out)? {
                    return Ok(Step::Replace(EntryKind::MergeStamped));
                }
                if memtable.depth(place) < CHAIN_MAX {
                    operand_of(more, stamp, out);
                    return Ok(Step::ChainStamped { slot, place });
                }
                // The chain is long enough: find out what it stands on.
                self.read_and_change(addition, (key, hash), more, stamp, out)
            }
            EntryKind::Merge | EntryKind::MergeStamped => {
                self.read_and_change(addition, (key, hash), more, stamp, out)
            }
        }
    }

    /// Folds an operand into the one before it, which was first touched at `first`; false if the operator cannot.
    fn combined(
        &self,
        old: &[u8],
        more: &[u8],
        (touched, first): (u64, u64),
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let operator = self.options.merge.as_deref().ok_or_else(no_operator)?;
        let mut both = Vec::new();
        let combined = operator.combine(old, more, &mut both);
        if !combined.map_err(|error| merge_operator::failed(operator, error))? {
            return Ok(false);
        }
        within_limit(both.len())?;
        out.clear();
        expiry::start_merge(out, Stamps { touched, first });
        out.extend_from_slice(&both);
        Ok(true)
    }

    pub(crate) fn expiry_at(&self, now: u64) -> Expiry {
        match &self.lifetime {
            Some(lifetime) => lifetime.expiry_at(now),
            None => Expiry::OFF,
        }
    }

    fn read_and_change(
        &self,
        addition: Addition,
        (key, hash): (&[u8], u64),
        more: &[u8],
        stamp: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step> {
        let base = self.sources_at(stamp).get(key, hash)?;
        self.changed(addition, base.as_deref(), more, stamp, out)
    }

    /// The value that `more` makes of `old`.
    fn changed(
        &self,
        addition: Addition,
        old: Option<&[u8]>,
        more: &[u8],
        stamp: u64,
        out: &mut Vec<u8>,
    ) -> Result<Step> {
        out.clear();
        expiry::start_put(out, stamp);
        match (addition, &self.options.merge) {
            (Addition::Merge, Some(operator)) => {
                let mut value = Vec::new();
                let merged = operator.merge(old, more, &mut value);
                merged.map_err(|error| merge_operator::failed(&**operator, error))?;
                out.extend_from_slice(&value);
            }
            (Addition::Merge, None) => return Err(no_operator()),
            (Addition::Append, _) => {
                out.extend_from_slice(old.unwrap_or_default());
                out.extend_from_slice(more);
            }
        }
        within_limit(out.len() - EntryKind::PutStamped.stamp_bytes())?;
        Ok(Step::Replace(EntryKind::PutStamped))
    }
}
