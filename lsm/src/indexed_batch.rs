//! A batch whose writes are seen by its own reads before they are written.
//!
//! ```text
//! WriteBatch   operations in their order, as they are written
//! overlay      what they make of keys and ranges below
//! get, range   overlay over store; operands are folded over the value below, removed ranges are not read
//! ```

use crate::{
    batch::WriteBatch,
    family::{Family, OwnedFamily},
    key::{self, KeyRange},
    merge_operator::MergeOperator,
    overlay::{Change, Overlay},
    read::Value,
    scan::{Direction, Range},
    store::Store,
};
use keybed_format::Result;
use std::{
    cmp::Ordering,
    collections::btree_map,
    fmt,
    iter::Peekable,
    ops::{Deref, RangeBounds},
};

/// A [`WriteBatch`] that can be read: its writes lie over the content of a store.
///
/// It is written with [`Store::write`], as the [`WriteBatch`] it is. Reading does not check that the store is the one
/// it will be written to, and sees the store as it is at the time of the read. Each key of the batch is held twice. Floors
/// are raised by a [`WriteBatch`] alone: whether one rises is known when it is written.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// # use keybed_lsm::{IndexedBatch, Store, StoreOptions};
/// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
/// let orders = store.family("orders")?;
/// store.put(orders, b"o-1", b"42")?;
/// let mut batch = IndexedBatch::new();
/// batch.delete(orders, b"o-1").put(orders, b"o-2", b"43");
/// assert!(batch.get(&store, orders, b"o-1")?.is_none());
/// assert_eq!(batch.get(&store, orders, b"o-2")?.unwrap(), b"43");
/// assert!(store.get(orders, b"o-2")?.is_none());
/// store.write(&batch)?;
/// assert_eq!(store.get(orders, b"o-2")?.unwrap(), b"43");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct IndexedBatch {
    batch: WriteBatch,
    overlay: Overlay,
}

impl Deref for IndexedBatch {
    type Target = WriteBatch;

    fn deref(&self) -> &WriteBatch {
        &self.batch
    }
}

impl IndexedBatch {
    /// Without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`WriteBatch::put`].
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> &mut Self {
        self.batch.put(family, key, value);
        self.overlay.put(family, key, value);
        self
    }

    /// As [`WriteBatch::delete`].
    pub fn delete(&mut self, family: Family, key: &[u8]) -> &mut Self {
        self.batch.delete(family, key);
        self.overlay.delete(family, key);
        self
    }

    /// As [`WriteBatch::merge`].
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) -> &mut Self {
        self.batch.merge(family, key, operand);
        self.overlay.merge(family, key, operand);
        self
    }

    /// As [`WriteBatch::append`].
    pub fn append(&mut self, family: Family, key: &[u8], bytes: &[u8]) -> &mut Self {
        self.batch.append(family, key, bytes);
        self.overlay.append(family, key, bytes);
        self
    }

    /// As [`WriteBatch::delete_range`].
    pub fn delete_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) -> &mut Self {
        self.delete_keys(family, &KeyRange::of(&range))
    }

    /// As [`WriteBatch::delete_prefix`].
    pub fn delete_prefix(&mut self, family: Family, prefix: &[u8]) -> &mut Self {
        self.delete_keys(family, &KeyRange::prefix(prefix))
    }

    fn delete_keys(&mut self, family: Family, range: &KeyRange) -> &mut Self {
        self.batch.delete_keys(family, range);
        self.overlay.delete_range(family, range);
        self
    }

    /// Removes all operations and keeps the memory of their bytes.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.overlay.clear();
    }

    /// The operations, to be written.
    pub fn as_batch(&self) -> &WriteBatch {
        &self.batch
    }

    /// The value that `key` would have in `store` if the batch were written now; `None` if it would be absent.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get<'s>(&self, store: &'s Store, family: Family, key: &[u8]) -> Result<Option<Value<'s>>> {
        let Some(change) = self.overlay.change(family, key) else {
            return store.get(family, key);
        };
        let below = if change.needs_below() {
            store.get(family, key)?
        } else {
            None
        };
        let operator = store.owned(family)?.options.merge.as_deref();
        Ok(change.apply(below.as_deref(), operator)?.map(Value::owned))
    }

    /// The entries that a range of keys would have in `store` if the batch were written now, ascending.
    ///
    /// # Errors
    /// As [`IndexedRange::next_entry`].
    pub fn range<'s, 'k>(
        &'s self,
        store: &'s Store,
        family: Family,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<IndexedRange<'s>> {
        self.range_within(store, family, &KeyRange::of(&range), Direction::Up)
    }

    /// As [`IndexedBatch::range`], descending.
    ///
    /// # Errors
    /// As [`IndexedRange::next_entry`].
    pub fn range_rev<'s, 'k>(
        &'s self,
        store: &'s Store,
        family: Family,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<IndexedRange<'s>> {
        self.range_within(store, family, &KeyRange::of(&range), Direction::Down)
    }

    /// As [`IndexedBatch::range`], for the keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`IndexedRange::next_entry`].
    pub fn prefix<'s>(&'s self, store: &'s Store, family: Family, prefix: &[u8]) -> Result<IndexedRange<'s>> {
        self.range_within(store, family, &KeyRange::prefix(prefix), Direction::Up)
    }

    /// As [`IndexedBatch::prefix`], descending.
    ///
    /// # Errors
    /// As [`IndexedRange::next_entry`].
    pub fn prefix_rev<'s>(
        &'s self,
        store: &'s Store,
        family: Family,
        prefix: &[u8],
    ) -> Result<IndexedRange<'s>> {
        self.range_within(store, family, &KeyRange::prefix(prefix), Direction::Down)
    }

    fn range_within<'s>(
        &'s self,
        store: &'s Store,
        family: Family,
        range: &KeyRange,
        direction: Direction,
    ) -> Result<IndexedRange<'s>> {
        let owned = store.owned(family)?;
        let mut parts = self.overlay.kept(family, range);
        if direction == Direction::Up {
            parts.reverse();
        }
        let nothing = KeyRange {
            start: Vec::new(),
            end: Some(Vec::new()),
        };
        let first = parts.pop().unwrap_or(nothing);
        let sources = owned.sources();
        Ok(IndexedRange {
            changes: Changes {
                range: self.overlay.changes(family, range),
                direction,
            }
            .peekable(),
            below: store.told_by(family, &sources, sources.scan(first, direction)?),
            owned,
            store: (store, family),
            moment: sources.expiry.now,
            parts,
            step: Step::Both,
            direction,
            value: Vec::new(),
            key: &[],
            is_over: false,
        })
    }
}

/// The changes of a range in its direction.
#[derive(Clone)]
struct Changes<'s> {
    range: btree_map::Range<'s, Vec<u8>, Change>,
    direction: Direction,
}

impl<'s> Iterator for Changes<'s> {
    type Item = (&'s Vec<u8>, &'s Change);

    fn next(&mut self) -> Option<Self::Item> {
        match self.direction {
            Direction::Up => self.range.next(),
            Direction::Down => self.range.next_back(),
        }
    }
}

/// What the next step moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The store's range: its entry was returned, or replaced by the batch, or nothing was read yet.
    Both,
    /// The batch alone: the store's entry comes later.
    Batch,
}

/// Entries of a batch over those of a store, in the order that was asked for. After an error it is over.
pub struct IndexedRange<'s> {
    changes: Peekable<Changes<'s>>,
    /// The store's entries of one part of the range.
    below: Range<'s>,
    owned: &'s OwnedFamily,
    store: (&'s Store, Family),
    /// When it was made: time stands still in it.
    moment: u64,
    /// The further parts that the batch did not remove, the next one last.
    parts: Vec<KeyRange>,
    step: Step,
    direction: Direction,
    /// What the batch made of the value of `key`.
    value: Vec<u8>,
    key: &'s [u8],
    is_over: bool,
}

impl fmt::Debug for IndexedRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexedRange(over {:?})", self.below)
    }
}

impl IndexedRange<'_> {
    /// Moves to the next entry and lends it; `None` behind the last.
    ///
    /// # Errors
    /// As [`Range::next_entry`].
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let found = if self.is_over { Ok(None) } else { self.advance() };
        self.is_over = !matches!(found, Ok(Some(_)));
        Ok(match found? {
            None => None,
            Some(Origin::Store) => self.below.current(),
            Some(Origin::Batch) => Some((self.key, self.value.as_slice())),
        })
    }

    /// Moves to the store's next entry that the batch did not remove.
    fn advance_below(&mut self) -> Result {
        while self.below.next_entry()?.is_none() {
            let Some(part) = self.parts.pop() else { break };
            let (store, family) = self.store;
            let sources = self.owned.sources_at(self.moment);
            self.below = store.told_by(family, &sources, sources.scan(part, self.direction)?);
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Origin>> {
        let operator: Option<&dyn MergeOperator> = self.owned.options.merge.as_deref();
        loop {
            if self.step == Step::Both {
                self.advance_below()?;
            }
            let below = self.below.current();
            let order = match (below, self.changes.peek()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((changed, _))) => match self.direction {
                    Direction::Up => key::compare(key, changed),
                    Direction::Down => key::compare(changed, key),
                },
            };
            if order == Ordering::Less {
                self.step = Step::Both;
                return Ok(Some(Origin::Store));
            }
            let Some((key, change)) = self.changes.next() else {
                return Ok(None);
            };
            // The store's entry is replaced by the change only if it is the same key.
            let replaced = below.filter(|_| order == Ordering::Equal).map(|(_, value)| value);
            self.step = if order == Ordering::Equal {
                Step::Both
            } else {
                Step::Batch
            };
            if let Some(value) = change.apply(replaced, operator)? {
                (self.key, self.value) = (key, value);
                return Ok(Some(Origin::Batch));
            }
        }
    }
}

/// Where the entry is that was reached.
enum Origin {
    Store,
    Batch,
}

impl Iterator for IndexedRange<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .transpose()
    }
}
