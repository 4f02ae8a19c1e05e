//! Counters of a running job, read at any time.

use keybed_snapshot::OperatorUid;
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
}

impl NodeCounters {
    pub(crate) fn new(uid: OperatorUid) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(NodeCounters {
            uid,
            records: zero(),
            late: zero(),
            skipped: zero(),
        })
    }

    // Relaxed: counters order nothing.
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> NodeMetrics {
        NodeMetrics {
            uid: self.uid.clone(),
            records: self.records.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
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
}
