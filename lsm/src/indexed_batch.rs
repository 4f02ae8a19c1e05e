//! A batch whose writes are seen by its own reads before they are written.
//!
//! ```text
//! WriteBatch   operations in their order, as they are written
//! index        per family: key ─► what the batch makes of the value below it
//! get, range   batch over store; operands are folded over the value below
//! ```

use crate::{
    batch::WriteBatch,
    family::Family,
    key::{self, KeyRange},
    merge_operator::{self, MergeOperator},
    read::Value,
    scan::{Direction, Range},
    store::Store,
};
use keybed_format::{Code, Error, Result};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    fmt,
    iter::Peekable,
    ops::{Bound, Deref, RangeBounds},
};

/// A [`WriteBatch`] that can be read: its writes lie over the content of a store.
///
/// It is written with [`Store::write`], as the [`WriteBatch`] it is. Reading does not check that the store is the one
/// it will be written to, and sees the store as it is at the time of the read. Each key of the batch is held twice.
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
    index: BTreeMap<u32, BTreeMap<Vec<u8>, Change>>,
}

/// What the operations of a batch make of a key.
#[derive(Clone, Debug, Default)]
struct Change {
    base: Base,
    /// Oldest first.
    operands: Vec<Operand>,
}

/// What the operands stand on.
#[derive(Clone, Debug, Default)]
enum Base {
    /// The value below the batch.
    #[default]
    Below,
    Value(Vec<u8>),
    Absent,
}

#[derive(Clone, Debug)]
enum Operand {
    Merge(Vec<u8>),
    Append(Vec<u8>),
}

impl Change {
    /// Whether the value below the batch matters.
    fn needs_below(&self) -> bool {
        matches!(self.base, Base::Below)
    }

    /// The value, given the one below the batch.
    fn apply(&self, below: Option<&[u8]>, operator: Option<&dyn MergeOperator>) -> Result<Option<Vec<u8>>> {
        let mut value = match &self.base {
            Base::Below => below.map(<[u8]>::to_vec),
            Base::Value(value) => Some(value.clone()),
            Base::Absent => None,
        };
        for operand in &self.operands {
            match operand {
                Operand::Append(bytes) => value.get_or_insert_default().extend_from_slice(bytes),
                Operand::Merge(operand) => {
                    let operator = operator
                        .ok_or_else(|| Error::new(Code::MergeFailed, "the family has no merge operator"))?;
                    let mut merged = Vec::new();
                    operator
                        .merge(value.as_deref(), operand, &mut merged)
                        .map_err(|error| merge_operator::failed(operator, error))?;
                    value = Some(merged);
                }
            }
        }
        Ok(value)
    }
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

    fn change(&mut self, family: Family, key: &[u8]) -> &mut Change {
        let keys = self.index.entry(family.0).or_default();
        if !keys.contains_key(key) {
            keys.insert(key.to_vec(), Change::default());
        }
        keys.get_mut(key).expect("it was just inserted")
    }

    fn set(&mut self, family: Family, key: &[u8], base: Base) {
        *self.change(family, key) = Change {
            base,
            operands: Vec::new(),
        };
    }

    /// As [`WriteBatch::put`].
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> &mut Self {
        self.batch.put(family, key, value);
        self.set(family, key, Base::Value(value.to_vec()));
        self
    }

    /// As [`WriteBatch::delete`].
    pub fn delete(&mut self, family: Family, key: &[u8]) -> &mut Self {
        self.batch.delete(family, key);
        self.set(family, key, Base::Absent);
        self
    }

    /// As [`WriteBatch::merge`].
    pub fn merge(&mut self, family: Family, key: &[u8], operand: &[u8]) -> &mut Self {
        self.batch.merge(family, key, operand);
        let operand = Operand::Merge(operand.to_vec());
        self.change(family, key).operands.push(operand);
        self
    }

    /// As [`WriteBatch::append`].
    pub fn append(&mut self, family: Family, key: &[u8], bytes: &[u8]) -> &mut Self {
        self.batch.append(family, key, bytes);
        let operand = Operand::Append(bytes.to_vec());
        self.change(family, key).operands.push(operand);
        self
    }

    /// Removes all operations and keeps the memory of their bytes.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.index.clear();
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
        let change = self.index.get(&family.0).and_then(|keys| keys.get(key));
        let Some(change) = change else {
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
        self.range_within(store, family, KeyRange::of(&range), Direction::Up)
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
        self.range_within(store, family, KeyRange::of(&range), Direction::Down)
    }

    /// As [`IndexedBatch::range`], for the keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`IndexedRange::next_entry`].
    pub fn prefix<'s>(&'s self, store: &'s Store, family: Family, prefix: &[u8]) -> Result<IndexedRange<'s>> {
        self.range_within(store, family, KeyRange::prefix(prefix), Direction::Up)
    }

    fn range_within<'s>(
        &'s self,
        store: &'s Store,
        family: Family,
        range: KeyRange,
        direction: Direction,
    ) -> Result<IndexedRange<'s>> {
        let owned = store.owned(family)?;
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (
            Bound::Included(&range.start),
            range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        );
        let keys = self.index.get(&family.0).filter(|_| !range.is_empty());
        let changes = keys.map(|keys| keys.range::<[u8], _>(bounds)).unwrap_or_default();
        Ok(IndexedRange {
            changes: Changes {
                range: changes,
                direction,
            }
            .peekable(),
            below: owned.sources().scan(range, direction)?,
            step: Step::Both,
            direction,
            operator: owned.options.merge.as_deref(),
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
    below: Range<'s>,
    step: Step,
    direction: Direction,
    operator: Option<&'s dyn MergeOperator>,
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

    fn advance(&mut self) -> Result<Option<Origin>> {
        loop {
            if self.step == Step::Both {
                self.below.next_entry()?;
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
            if let Some(value) = change.apply(replaced, self.operator)? {
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
