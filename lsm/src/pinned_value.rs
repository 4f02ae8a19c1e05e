//! Values that outlive writes: `get_pinned`.
//!
//! What lies in a block of the cache stays there, and the block in memory; everything else is copied: memtables change
//! in place, and a map would keep a whole file. Blocks kept so count against a quota of the budget; beyond it values
//! are copied, too.

use crate::{
    budget::{MemoryBudget, PinnedBytes},
    family::Family,
    read::Value,
    store::Store,
    table::Slice,
};
use keybed_format::Result;
use std::{fmt, ops::Deref};

/// A value is copied, rather than its block kept, if it is smaller than this part of the block.
const BLOCK_PART: usize = 16;

/// A value that was read and borrows nothing: it stays as it was read, whatever is written, flushed or closed
/// meanwhile. It keeps its bytes alone, or one block of the cache, and none of a store's files.
pub struct PinnedValue(Held);

enum Held {
    Owned(Vec<u8>),
    Block {
        slice: Slice<'static>,
        _quota: PinnedBytes,
    },
}

impl PinnedValue {
    /// Keeps the block if that is worth it and within the quota, else copies.
    fn of(value: Value<'_>, budget: &MemoryBudget) -> Self {
        let bytes = value.len();
        let block_bytes = value.block_bytes().filter(|block| bytes * BLOCK_PART >= *block);
        let quota = block_bytes.and_then(|block| budget.pin(block));
        match (quota, value.into_slice()) {
            (Some(quota), Ok(slice)) => PinnedValue(Held::Block { slice, _quota: quota }),
            (_, Ok(slice)) => PinnedValue(Held::Owned(slice.to_vec())),
            (_, Err(value)) => PinnedValue(Held::Owned(value.into_vec())),
        }
    }

    /// Whether a block is kept for it; else the bytes are its own.
    pub fn keeps_block(&self) -> bool {
        matches!(self.0, Held::Block { .. })
    }
}

impl Deref for PinnedValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Owned(bytes) => bytes,
            Held::Block { slice, .. } => slice,
        }
    }
}

impl AsRef<[u8]> for PinnedValue {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PinnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Store {
    /// The value of `key`, free of the store: it may be kept over writes, and sent to other threads. Large values in
    /// cached blocks are not copied, as long as the blocks kept so take no more than an eighth of the budget (64 MiB
    /// at most; [`BudgetStats::pinned`](crate::BudgetStats::pinned) and `pin_copies` tell). Drop it soon.
    ///
    /// # Errors
    /// As [`Store::get`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// let old = store.get_pinned(orders, b"o-1")?.unwrap();
    /// store.put(orders, b"o-1", b"43")?;
    /// assert_eq!(&*old, b"42");
    /// # Ok(()) }
    /// ```
    pub fn get_pinned(&self, family: Family, key: &[u8]) -> Result<Option<PinnedValue>> {
        let value = self.get(family, key)?;
        Ok(value.map(|value| PinnedValue::of(value, &self.shared.budget)))
    }
}
