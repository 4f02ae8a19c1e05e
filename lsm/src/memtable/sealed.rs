//! A memtable that takes no writes any more and waits for its flush.

use super::{Held, Memtable, MemtableIter, Order};
use crate::version::LiveTable;
use std::sync::{Arc, OnceLock};

/// A sealed memtable: read by the owner, by `View`s and by the flush at the same time.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The memtable.
    pub(crate) memtable: Memtable,
    order: OnceLock<Order>,
    /// What its flush made of it: the table, or nothing if no version had to be kept. Set once, before the version
    /// that holds the table is published.
    pub(crate) flushed: OnceLock<Option<Arc<LiveTable>>>,
}

impl Sealed {
    /// Takes an active memtable out of use.
    pub(crate) fn new(memtable: Memtable) -> Self {
        Sealed {
            memtable,
            order: OnceLock::new(),
            flushed: OnceLock::new(),
        }
    }

    /// Hands the sealed memtable to the cursors that watched it.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        self.memtable.kept.hand_over(self);
    }

    /// The order of its keys; the first call sorts.
    pub(crate) fn order(&self) -> Order {
        self.order.get_or_init(|| self.memtable.final_order()).clone()
    }

    /// All its newest versions; the first call sorts.
    pub(crate) fn iter(&self) -> MemtableIter<'_> {
        MemtableIter::new(Held::Borrowed(&self.memtable), self.order())
    }
}
