//! Where counts are kept while the store runs.
//!
//! ```text
//! owner        OwnerCounters       load, add, store: no atomic read-modify-write
//! background   BackgroundCounters  fetch_add
//! everybody    Timings             sampled, or events of microseconds and more
//! ```
//! All relaxed: they are statistics, and nobody concludes anything about other memory from them.

use super::{Waits, histogram::AtomicHistogram};
use crate::sync::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// One read in so many that goes below the active memtable is timed and followed through the tables.
pub(crate) const SAMPLE_EVERY: u64 = 1024;

/// A counter with one writer and many readers.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a read-modify-write. Two threads that add at the same moment may lose counts, nothing else.
    #[inline(always)]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Adds one to a counter that one thread writes.
#[inline(always)]
pub(crate) fn count(counter: &Counter) {
    counter.add(1);
}

/// As [`count`]; true once in [`SAMPLE_EVERY`] times, for the first time at the first.
#[inline(always)]
pub(crate) fn count_and_sample(counter: &Counter) -> bool {
    let before = counter.get();
    counter.set(before.wrapping_add(1));
    before.is_multiple_of(SAMPLE_EVERY)
}

/// What reads through one handle met.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters {
    pub(crate) table_gets: Counter,
    pub(crate) memtable_hits: Counter,
    pub(crate) multi_gets: Counter,
}

impl ReadCounters {
    fn add(&self, other: &ReadCounters) {
        self.table_gets.add(other.table_gets.get());
        self.memtable_hits.add(other.memtable_hits.get());
        self.multi_gets.add(other.multi_gets.get());
    }
}

/// Counters of one handle of a shared store, apart from everything that other threads write.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct HandleCounters {
    pub(crate) reads: ReadCounters,
}

/// Counters of all handles of a shared store.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    /// Guards the list alone.
    alive: Mutex<Vec<Arc<HandleCounters>>>,
    /// Counts of handles that were dropped.
    gone: HandleCounters,
}

impl Handles {
    /// Counters for a new handle.
    pub(crate) fn join(&self) -> Arc<HandleCounters> {
        let counters = Arc::<HandleCounters>::default();
        self.alive.lock().push(counters.clone());
        counters
    }

    /// Keeps the counts of a handle that is dropped.
    pub(crate) fn leave(&self, counters: &Arc<HandleCounters>) {
        let mut alive = self.alive.lock();
        alive.retain(|other| !Arc::ptr_eq(other, counters));
        self.gone.reads.add(&counters.reads);
    }

    /// Reads of all handles there ever were, and of the owner.
    pub(super) fn reads(&self, owner: &OwnerCounters) -> ReadCounters {
        let sum = ReadCounters::default();
        let alive = self.alive.lock();
        for handle in alive.iter().map(|handle| &**handle).chain([&self.gone]) {
            sum.add(&handle.reads);
        }
        sum.add(&owner.reads);
        sum
    }
}

/// Counters that the owner of the store writes; other threads read them. Apart from everything that other threads
/// write.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct OwnerCounters {
    pub(crate) writes: Counter,
    pub(crate) reads: ReadCounters,
    pub(crate) seals: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) stalls: Counter,
    /// Bytes in active memtables, as of the last write that took memory.
    pub(crate) active_bytes: Counter,
    /// Bytes taken for versions that cursors might see.
    pub(crate) kept_bytes: Counter,
}

/// Counters that background jobs write.
#[derive(Debug, Default)]
pub(crate) struct BackgroundCounters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flush_bytes: AtomicU64,
    pub(crate) flushed_entries: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) bottom_compactions: AtomicU64,
    pub(crate) compaction_read_bytes: AtomicU64,
    pub(crate) compaction_bytes: AtomicU64,
    /// Files put into the bottom run without a rewrite.
    pub(crate) moved_files: AtomicU64,
    /// Files let go unread because everything in them had expired.
    pub(crate) dropped_files: AtomicU64,
    pub(crate) expired_entries: AtomicU64,
    pub(crate) expired_files: AtomicU64,
    pub(crate) files_removed: AtomicU64,
    pub(crate) torn_bytes: AtomicU64,
    pub(crate) log_syncs: AtomicU64,
}

/// What sampled reads met on their way.
#[derive(Debug, Default)]
pub(crate) struct SampledReads {
    pub(crate) gets: AtomicU64,
    pub(crate) tables: AtomicU64,
    pub(crate) filter_negatives: AtomicU64,
    pub(crate) filter_false_positives: AtomicU64,
}

/// Why somebody waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitReason {
    /// A write was slowed down in proportion to the debt of compactions.
    Delay,
    /// A write was stopped: sealed memtables or runs had reached their bound.
    Stop,
    /// A write waited for the memory budget.
    Budget,
    /// Somebody waited for the writer lock of a [`SharedStore`](crate::SharedStore).
    Lock,
    /// A caller asked for a flush and waited for it.
    Flush,
    /// A caller asked for merges and waited for them.
    Merge,
}

impl WaitReason {
    /// All reasons.
    pub const ALL: [WaitReason; 6] = [
        WaitReason::Delay,
        WaitReason::Stop,
        WaitReason::Budget,
        WaitReason::Lock,
        WaitReason::Flush,
        WaitReason::Merge,
    ];

    /// The reason in one word, as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitReason::Delay => "delay",
            WaitReason::Stop => "stop",
            WaitReason::Budget => "budget",
            WaitReason::Lock => "lock",
            WaitReason::Flush => "flush",
            WaitReason::Merge => "merge",
        }
    }
}

/// Durations in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    pub(crate) flush: AtomicHistogram,
    pub(crate) compaction: AtomicHistogram,
    pub(crate) sync: AtomicHistogram,
    pub(crate) table_get: AtomicHistogram,
    waits: [AtomicHistogram; WaitReason::ALL.len()],
    pub(crate) sampled: SampledReads,
}

impl Timings {
    /// Notes that somebody waited.
    pub(crate) fn waited(&self, reason: WaitReason, duration: Duration) {
        self.waits[reason as usize].record(nanos(duration));
    }

    pub(super) fn waits(&self) -> Waits {
        let of = |reason: WaitReason| self.waits[reason as usize].snapshot();
        Waits {
            delay: of(WaitReason::Delay),
            stop: of(WaitReason::Stop),
            budget: of(WaitReason::Budget),
            lock: of(WaitReason::Lock),
            flush: of(WaitReason::Flush),
            merge: of(WaitReason::Merge),
        }
    }
}

/// A duration as histograms take it.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
