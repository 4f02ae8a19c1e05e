//! A memtable that takes no writes any more and waits for its flush.

use super::{Held, Memtable, MemtableIter, Order};
use crate::{
    budget::{Lease, SealedBytes},
    expiry::Expiry,
    key::KeyRange,
    sync::{Mutex, OnceLock},
    version::{LiveTable, LiveView, Run, Version},
};
use std::sync::Arc;

/// Bytes per key of an order, and while it is sorted.
const PLACE_BYTES: usize = 4;
const SORT_BYTES: usize = 20 + PLACE_BYTES;

/// What the flush of a memtable made of it: the table, or nothing if no version had to be kept.
pub(crate) type Flushed = OnceLock<Option<Arc<LiveTable>>>;

/// A sealed memtable: read by the owner, by `View`s and by the flush at the same time.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The memtable.
    pub(crate) memtable: Memtable,
    /// Other families had writes in memory alone when this one was sealed: the log must be durable before its table is
    /// visible, or a power loss could keep these writes and lose older ones of theirs.
    pub(crate) needs_log: bool,
    /// What had expired when it was sealed. Who reads it later sees no less expired, so its flush leaves that out.
    pub(crate) expiry: Expiry,
    /// No write to it touched a key before this moment.
    pub(crate) active_since: u64,
    /// The order of its keys, and what that takes of the budget.
    order: OnceLock<(Order, Option<Lease>)>,
    /// [`Version::removals`] of the version it was sealed above: what was gone by then its table need not hide.
    pub(crate) removals: u64,
    /// Set once, before the version that holds the table is published.
    pub(crate) flushed: Arc<Flushed>,
    /// How often its family had been cleared: what is of an earlier time gets into no version any more.
    pub(crate) epoch: u64,
    below: Mutex<Option<Below>>,
    /// Tells the budget that this memory will come back.
    _promise: Option<SealedBytes>,
}

/// What was older than a memtable when it was sealed.
///
/// Pinned files put the table of a flush on top of this, not of what the version has become meanwhile: a merge may
/// have dropped versions that a tombstone, an operand or a range delete of the memtable has to hide (what a filter or a
/// range delete removed, for example), so its flush must look here, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    version: Arc<Version>,
    flushing: Vec<Arc<Flushed>>,
}

impl Below {
    /// Runs of everything older, of which all that was waiting has been flushed.
    pub(crate) fn flushed_runs(&self) -> Vec<Run> {
        let tables = self.flushing.iter().filter_map(|flushed| flushed.get()?.clone());
        let run = |table| Run {
            number: 0,
            tier: 0,
            tables: vec![LiveView::new(table, KeyRange::all())],
        };
        tables.map(run).collect()
    }

    /// The version of that moment.
    pub(crate) fn version(&self) -> &Arc<Version> {
        &self.version
    }
}

impl Version {
    /// This version under the tables of `sealed`, newest first, that lay above it; `None` unless all of them are flushed.
    /// Who reads it holds none of their memory.
    pub(crate) fn with_flushed(self: &Arc<Self>, sealed: &[Arc<Sealed>]) -> Option<Arc<Version>> {
        if sealed.is_empty() {
            return Some(self.clone());
        }
        let tables: Option<Vec<_>> = sealed.iter().map(|sealed| sealed.flushed.get()).collect();
        let part = |live: &LiveView| LiveView::new(live.table.clone(), live.visible.clone());
        let flushed = tables?.into_iter().flatten().map(|table| Run {
            number: table.record.run,
            tier: 0,
            tables: vec![LiveView::new(table.clone(), table.record.visible.clone())],
        });
        let runs = self.runs.iter().map(|run| Run {
            number: run.number,
            tier: run.tier,
            tables: run.tables.iter().map(part).collect(),
        });
        Some(Arc::new(Version::new(flushed.chain(runs).collect())))
    }
}

impl Sealed {
    /// Takes an active memtable out of use that lies above `version` and memtables that wait for their flush.
    pub(crate) fn new(
        memtable: Memtable,
        epoch: u64,
        version: Arc<Version>,
        waiting: &[Arc<Sealed>],
    ) -> Self {
        Sealed {
            _promise: memtable.promise(),
            memtable,
            needs_log: false,
            expiry: Expiry::OFF,
            active_since: 0,
            order: OnceLock::new(),
            removals: version.removals,
            flushed: Arc::default(),
            epoch,
            below: Mutex::new(Some(Below {
                version,
                flushing: waiting.iter().map(|sealed| sealed.flushed.clone()).collect(),
            })),
        }
    }

    /// What was older when it was sealed; nothing once it was flushed.
    pub(crate) fn below(&self) -> Below {
        self.below.lock().clone().unwrap_or_default()
    }

    /// Says what its flush made of it, and lets go of what was older.
    pub(crate) fn set_flushed(&self, table: Option<Arc<LiveTable>>) {
        let _ = self.flushed.set(table);
        let below = self.below.lock().take();
        drop(below);
    }

    /// Hands the sealed memtable to the cursors that watched it.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        self.memtable.kept.hand_over(self);
    }

    /// The order of its keys; the first call sorts.
    pub(crate) fn order(&self) -> Order {
        let sorted = self.order.get_or_init(|| {
            let mut lease = self.memtable.lease_for_order(SORT_BYTES);
            let order = self.memtable.final_order();
            if let Some(lease) = &mut lease {
                lease.set(lease.bytes() / SORT_BYTES * PLACE_BYTES);
            }
            (order, lease)
        });
        sorted.0.clone()
    }

    /// The order of its keys inside of `range`. Sorts nothing else unless somebody sorted everything already.
    pub(crate) fn order_in(&self, range: &KeyRange) -> Order {
        if let Some(order) = self.memtable.order_of_group(range) {
            return order;
        }
        match self.order.get() {
            Some((order, _)) => order.clone(),
            None if self.memtable.is_selective(range) => Order::Sorted(self.memtable.select(range)),
            None => self.order(),
        }
    }

    /// All its newest versions; the first call sorts.
    pub(crate) fn iter(&self) -> MemtableIter<'_> {
        MemtableIter::new(Held::Borrowed(&self.memtable), self.order())
    }
}
