//! What a store has done so far. Owner counters are plain; those of the background are relaxed atomics, read when
//! somebody asks.

use std::cell::Cell;

/// Counters of one store since it was opened, and sizes of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Writes: puts, deletes, merges, updates and appends that changed something.
    pub writes: u64,
    /// Reads that looked below the active memtable.
    pub table_gets: u64,
    /// Reads that the active memtable answered, the look-ups of read-modify-writes included.
    pub memtable_hits: u64,
    /// Memtables sealed.
    pub seals: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of flushed tables.
    pub flush_bytes: u64,
    /// Versions in flushed tables.
    pub flushed_entries: u64,
    /// Attempts to flush that failed.
    pub flush_failures: u64,
    /// Merges of runs, those into the bottom included.
    pub compactions: u64,
    /// Merges into the bottom run.
    pub bottom_compactions: u64,
    /// Bytes of tables written by merges.
    pub compaction_bytes: u64,
    /// Bytes of tables read by merges.
    pub compaction_read_bytes: u64,
    /// Writes that had to wait for a flush.
    pub stalls: u64,
    /// Table files removed because nobody needed them any more.
    pub files_removed: u64,
    /// Bytes dropped as a torn tail of the manifest when the store was opened.
    pub torn_bytes: u64,
    /// Bytes in active memtables.
    pub active_bytes: u64,
    /// Bytes in sealed memtables that wait for their flush.
    pub sealed_bytes: u64,
    /// Tables in all runs; a table seen through several parts counts once per part.
    pub tables: u64,
    /// Bytes of those tables.
    pub table_bytes: u64,
    /// Runs of the family that has most.
    pub runs_max: u64,
}

/// Counters of the owner.
#[derive(Debug, Default)]
pub(crate) struct OwnerCounters {
    pub(crate) writes: u64,
    pub(crate) table_gets: Cell<u64>,
    pub(crate) memtable_hits: Cell<u64>,
    pub(crate) seals: u64,
    pub(crate) stalls: u64,
}

/// Adds one to a counter that only the owner touches.
#[inline(always)]
pub(crate) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
