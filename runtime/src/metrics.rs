//! Counters of a running job, read at any time.

use keybed_snapshot::OperatorUid;
use keybed_state::backend::BackendStats;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counters of one node of the pipeline, over all its subtasks and attempts; records that are processed again
/// after a restart count again.
#[derive(Debug)]
pub(crate) struct NodeCounters {
    pub(crate) uid: OperatorUid,
    pub(crate) records: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) skipped: AtomicU64,
    flushes: AtomicU64,
    compactions: AtomicU64,
    bottom_compactions: AtomicU64,
    memtable_hits: AtomicU64,
    table_gets: AtomicU64,
}

impl NodeCounters {
    pub(crate) fn new(uid: OperatorUid) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(NodeCounters {
            uid,
            records: zero(),
            late: zero(),
            skipped: zero(),
            flushes: zero(),
            compactions: zero(),
            bottom_compactions: zero(),
            memtable_hits: zero(),
            table_gets: zero(),
        })
    }

    // Relaxed: counters order nothing.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds what a backend has done between two looks at it.
    pub(crate) fn add_backend(&self, before: &BackendStats, now: &BackendStats) {
        for (counter, before, now) in [
            (&self.flushes, before.flushes, now.flushes),
            (&self.compactions, before.compactions, now.compactions),
            (
                &self.bottom_compactions,
                before.bottom_compactions,
                now.bottom_compactions,
            ),
            (&self.memtable_hits, before.memtable_hits, now.memtable_hits),
            (&self.table_gets, before.table_gets, now.table_gets),
        ] {
            Self::add(counter, now.saturating_sub(before));
        }
    }

    pub(crate) fn read(&self) -> NodeMetrics {
        NodeMetrics {
            uid: self.uid.clone(),
            records: self.records.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            backend: BackendStats {
                flushes: self.flushes.load(Ordering::Relaxed),
                compactions: self.compactions.load(Ordering::Relaxed),
                bottom_compactions: self.bottom_compactions.load(Ordering::Relaxed),
                memtable_hits: self.memtable_hits.load(Ordering::Relaxed),
                table_gets: self.table_gets.load(Ordering::Relaxed),
            },
        }
    }
}

/// What one source, operator or sink has done in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMetrics {
    /// Its uid.
    pub uid: OperatorUid,
    /// Records that it took up (sources: emitted), those processed again after a restart included.
    pub records: u64,
    /// Records dropped because their window was over.
    pub late: u64,
    /// Records that the source passed over.
    pub skipped: u64,
    /// What its backends had done when they last took a barrier.
    pub backend: BackendStats,
}
