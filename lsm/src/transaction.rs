//! Optimistic transactions: read and write without locks, find out at the commit whether somebody came in between.
//!
//! ```text
//! get, range ─► reads: key → seqno and hash of its value, range → digest of its entries    (what the answers rest on)
//! put, …     ─► writes: keys and ranges → what is to become of them                        (seen by own reads)
//! commit     ─► one moment: every read would answer the same? ─► one batch, all or nothing
//!                           else Conflict, nothing is written
//! ```
//! What a committed transaction read is what it would have read at the moment of its commit, so the transactions that
//! committed are as if they had run one after the other, write skew and phantoms included. A transaction that is going
//! to fail may meanwhile have read values of different moments.

use crate::{
    family::Family,
    key::{self, KeyRange, Seqno},
    overlay::Overlay,
    scan::Direction,
    store::Store,
};
use keybed_format::{Code, Error, Result, checksum};
use std::{
    collections::{BTreeMap, HashMap},
    ops::{ControlFlow, RangeBounds},
};

/// Entries that one range of a transaction may have: they are read again at the commit, while everybody waits.
pub const TRANSACTION_RANGE_ENTRIES_MAX: usize = 1 << 16;

type FamilyKey = (u32, Vec<u8>);

/// What a read of a key rests on: seqno of its newest version and hash of its value. A compaction filter changes values
/// without a seqno.
type Stamp = (Seqno, u64);

#[derive(Clone, Debug)]
struct RangeRead {
    family: Family,
    range: KeyRange,
    digest: u64,
}

/// Reads and writes that take effect together at the commit, or not at all.
///
/// Belongs to no handle: the store is passed to each call, so several transactions of one owner can be open beside each
/// other. With a [`SharedStore`](crate::SharedStore) see [`SharedStore::transact`](crate::SharedStore::transact).
///
/// Only reads make a transaction fail: a key that is written without being read is overwritten whatever it holds, a merge
/// rests on no value, and a range is removed whatever is in it. A read fails whatever changed it: a write, a range delete
/// or a floor over it, a compaction filter. Holds copies of what it read and writes, in memory.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{Store, StoreOptions, Transaction};
///
/// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
/// let seats = store.family("seats")?;
/// let mut ann = Transaction::new();
/// let mut bob = Transaction::new();
/// for (buyer, name) in [(&mut ann, b"ann"), (&mut bob, b"bob")] {
///     if buyer.get(&store, seats, b"12A")?.is_none() {
///         buyer.put(seats, b"12A", name);
///     }
/// }
/// ann.commit(&mut store)?;
/// assert_eq!(bob.commit(&mut store).unwrap_err().code(), keybed_format::Code::Conflict);
/// assert_eq!(store.get(seats, b"12A")?.unwrap(), b"ann");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// None if the key was absent.
    reads: HashMap<FamilyKey, Option<Stamp>>,
    ranges: Vec<RangeRead>,
    writes: Overlay,
}

#[cold]
fn conflict(family: Family, key: &[u8]) -> Error {
    Error::new(
        Code::Conflict,
        "somebody wrote what the transaction had read; run it again",
    )
    .with("family", family.0)
    .with("key", key.escape_ascii())
}

impl Store {
    /// The value of a key and its stamp, or neither.
    fn stamped(&self, family: Family, key: &[u8]) -> Result<(Option<Vec<u8>>, Option<Stamp>)> {
        let Some(value) = self.get(family, key)? else {
            return Ok((None, None));
        };
        let value = value.into_vec();
        let mut stamp = None;
        let _ = self
            .owned(family)?
            .sources()
            .versions(key, key::hash(key), &mut |entry| {
                stamp = Some((entry.seqno, checksum::hash(&value)));
                ControlFlow::Break(())
            })?;
        Ok((Some(value), stamp))
    }

    /// Shows the entries of a range and returns their digest.
    fn digest_range(
        &self,
        family: Family,
        range: &KeyRange,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let mut range = self.scan(family, range.clone(), Direction::Up)?;
        let (mut digest, mut entries, mut bytes) = (0_u64, 0, Vec::new());
        while let Some((key, value)) = range.next_entry()? {
            entries += 1;
            if entries > TRANSACTION_RANGE_ENTRIES_MAX {
                return Err(Error::invalid("a range of a transaction has too many entries")
                    .with("limit", TRANSACTION_RANGE_ENTRIES_MAX));
            }
            bytes.clear();
            bytes.extend_from_slice(&digest.to_le_bytes());
            bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
            digest = checksum::hash(&bytes).wrapping_add(1);
            each(key, value);
        }
        Ok(digest)
    }
}

impl Transaction {
    /// Without reads and writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`, as this transaction wrote it, else as the store has it now; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Store::get`]; `Conflict` if the key was read before and has changed since: the commit would fail.
    pub fn get(&mut self, store: &Store, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let change = self.writes.change(family, key);
        let operator = store.owned(family)?.options.merge.as_deref();
        if let Some(change) = change.filter(|change| !change.needs_below()) {
            return change.apply(None, operator);
        }
        let (value, stamp) = store.stamped(family, key)?;
        let before = *self.reads.entry((family.0, key.to_vec())).or_insert(stamp);
        if before != stamp {
            return Err(conflict(family, key));
        }
        match change {
            Some(change) => change.apply(value.as_deref(), operator),
            None => Ok(value),
        }
    }

    /// The entries of a range of keys, ascending, own writes included; all of the store's are of one moment. They are
    /// read again at the commit, so keys that appear in the range are noticed; for short ranges. A range rests on all of
    /// the store's entries in it, also on those that the transaction has written or removed itself.
    ///
    /// # Errors
    /// As [`Store::range`]; `InvalidArgument` above [`TRANSACTION_RANGE_ENTRIES_MAX`] entries.
    pub fn range<'k>(
        &mut self,
        store: &Store,
        family: Family,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.range_within(store, family, KeyRange::of(&range))
    }

    /// The entries whose keys begin with `prefix`; see [`Transaction::range`].
    ///
    /// # Errors
    /// As there.
    pub fn prefix(
        &mut self,
        store: &Store,
        family: Family,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.range_within(store, family, KeyRange::prefix(prefix))
    }

    fn range_within(
        &mut self,
        store: &Store,
        family: Family,
        range: KeyRange,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = BTreeMap::new();
        let digest = store.digest_range(family, &range, |key, value| {
            if !self.writes.is_removed(family, key) {
                entries.insert(key.to_vec(), value.to_vec());
            }
        })?;
        let operator = store.owned(family)?.options.merge.as_deref();
        for (key, change) in self.writes.changes(family, &range) {
            match change.apply(entries.get(key).map(Vec::as_slice), operator)? {
                Some(value) => entries.insert(key.clone(), value),
                None => entries.remove(key),
            };
        }
        self.ranges.push(RangeRead {
            family,
            range,
            digest,
        });
        Ok(entries.into_iter().collect())
    }

    /// Gives `key` a value.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.writes.put(family, key, value);
    }

    /// Removes `key`, whether it is there or not.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.writes.delete(family, key);
    }

    /// Changes the value of `key` by an operand of the family's merge operator, without reading it.
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) {
        self.writes.merge(family, key, operand);
    }

    /// Removes every key that a range has at the commit, without reading it: no conflict comes of it.
    pub fn delete_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) {
        self.writes.delete_range(family, &KeyRange::of(&range));
    }

    /// Removes every key that begins with `prefix`; see [`Transaction::delete_range`].
    pub fn delete_prefix(&mut self, family: Family, prefix: &[u8]) {
        self.writes.delete_range(family, &KeyRange::prefix(prefix));
    }

    /// Whether nothing would be written.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// Finds out whether a commit would fail now.
    ///
    /// # Errors
    /// `Conflict` with family and key, or the first key of the range; as [`Store::get`].
    pub fn check(&self, store: &Store) -> Result {
        for ((number, key), before) in &self.reads {
            let family = Family(*number);
            if store.stamped(family, key)?.1 != *before {
                return Err(conflict(family, key));
            }
        }
        for read in &self.ranges {
            if store.digest_range(read.family, &read.range, |_, _| {})? != read.digest {
                return Err(conflict(read.family, &read.range.start));
            }
        }
        Ok(())
    }

    /// Writes everything, if whatever was read has not changed since. The transaction is over in any case.
    ///
    /// # Errors
    /// `Conflict`: nothing is written, run it again from its beginning; as [`Store::write`].
    pub fn commit(self, store: &mut Store) -> Result {
        self.check(store)?;
        if self.writes.is_empty() {
            return Ok(());
        }
        store.write(&self.writes.batch())
    }
}
