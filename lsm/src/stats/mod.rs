//! What a store has done so far, and how it stands: always on.
//!
//! | file | idea |
//! |---|---|
//! | `counters` | where counts are kept while the store runs, and who writes them |
//! | `histogram` | [`Histogram`]: distributions of durations |
//! | `gather` | [`StatsReader`]: from counters and versions to [`StoreStats`], on any thread |
//! | `sample` | one read in a thousand is timed and followed through the tables |
//! | `text` | for people, and for Prometheus |

pub(crate) mod counters;
mod gather;
mod histogram;
mod sample;
mod text;

pub use counters::WaitReason;
pub(crate) use counters::{
    BackgroundCounters, HandleCounters, Handles, OwnerCounters, ReadCounters, Timings, count,
    count_and_sample, nanos,
};
pub use gather::StatsReader;
pub(crate) use histogram::AtomicHistogram;
pub use histogram::Histogram;

use crate::cache::CacheStats;

/// Counters of one store since it was opened. Cheap to take: no allocation, no lock that a read or write takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Writes: puts, deletes, merges, updates and appends that changed something.
    pub writes: u64,
    /// Reads that looked below the active memtable.
    pub table_gets: u64,
    /// Reads that the active memtable answered, the look-ups of read-modify-writes included.
    pub memtable_hits: u64,
    /// Keys that were read in batches.
    pub multi_gets: u64,
    /// Memtables sealed.
    pub seals: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of flushed tables.
    pub flush_bytes: u64,
    /// Versions in flushed tables.
    pub flushed_entries: u64,
    /// Merges of runs, those into the bottom included.
    pub compactions: u64,
    /// Merges into the bottom run.
    pub bottom_compactions: u64,
    /// Bytes of tables written by merges.
    pub compaction_bytes: u64,
    /// Bytes of tables read by merges.
    pub compaction_read_bytes: u64,
    /// Files put into the bottom run without a rewrite.
    pub moved_files: u64,
    /// Files let go unread because nothing in them was seen any more.
    pub dropped_files: u64,
    /// Keys that flushes and merges left out because they had expired, those of files that were let go included.
    pub expired_entries: u64,
    /// Files let go unread because everything in them had expired.
    pub expired_files: u64,
    /// Writes that had to wait for the background.
    pub stalls: u64,
    /// Table files removed because nobody needed them any more.
    pub files_removed: u64,
    /// Bytes dropped as torn from the ends of manifest and log when the store was opened.
    pub torn_bytes: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Syncs of log files.
    pub log_syncs: u64,
    /// Bytes in active memtables.
    pub active_bytes: u64,
    /// Bytes that memtables took for older versions which a cursor might see.
    pub kept_bytes: u64,
}

/// What a store has done since it was opened, and how it stands now.
///
/// The counters can be reached directly (`stats.flushes`). Printed with `{}` it is a page for an operator;
/// [`StoreStats::prometheus`] is one for a scraper.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Counters.
    pub counts: StoreCounts,
    /// Attempts to flush that failed.
    pub flush_failures: u64,
    /// Bytes in sealed memtables that wait for their flush.
    pub sealed_bytes: u64,
    /// Bytes in memtables that are flushed, or of families that were cleared, but still held: by cursors, by ranges of views that are being read, or by an
    /// owner who has not taken notice yet.
    pub lingering_bytes: u64,
    /// Tables in all runs; a table seen through several parts counts once per part.
    pub tables: u64,
    /// Bytes of those tables.
    pub table_bytes: u64,
    /// Runs of the family that has most.
    pub runs_max: u64,
    /// Families in the order of their creation, without dropped ones.
    pub families: Vec<FamilyStats>,
    /// Who waited for what, in nanoseconds.
    pub waits: Waits,
    /// How long things took, in nanoseconds.
    pub latencies: Latencies,
    /// Blocks of tables that are not mapped.
    pub cache: CacheStats,
    /// What sampled reads below the active memtable met.
    pub sampled: SampledGets,
    /// What views hold.
    pub views: ViewStats,
}

impl std::ops::Deref for StoreStats {
    type Target = StoreCounts;

    fn deref(&self) -> &StoreCounts {
        &self.counts
    }
}

/// What the [`View`](crate::View)s of a store hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// Views that are not dropped; clones of one count once.
    pub views: u64,
    /// Bytes of memtables that views hold until they are flushed.
    pub memtable_bytes: u64,
    /// Bytes of files that are no part of the store any more and stay for views.
    pub file_bytes: u64,
    /// Age of the oldest view in nanoseconds.
    pub oldest_nanos: u64,
}

/// Shape of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyStats {
    /// Name of the family.
    pub name: String,
    /// Sealed memtables that wait for their flush.
    pub sealed: u64,
    /// Bytes of those.
    pub sealed_bytes: u64,
    /// Newest first, the bottom last.
    pub runs: Vec<RunStats>,
}

impl FamilyStats {
    /// Bytes of tables.
    pub fn table_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).sum()
    }
}

/// One run of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// How often its data was merged; 255 is the bottom.
    pub tier: u8,
    /// Files; one that is seen through several parts counts once.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Versions in those files.
    pub entries: u64,
}

/// Waiting by reason, in nanoseconds; [`WaitReason`] says what the reasons mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Writes slowed down in proportion to the debt of compactions.
    pub delay: Histogram,
    /// Writes stopped at the bound of sealed memtables or runs.
    pub stop: Histogram,
    /// Writes that waited for the memory budget.
    pub budget: Histogram,
    /// Waits for the writer lock of a shared store.
    pub lock: Histogram,
    /// Flushes that a caller waited for.
    pub flush: Histogram,
    /// Merges that a caller waited for.
    pub merge: Histogram,
}

impl Waits {
    /// The waits of one reason.
    pub fn of(&self, reason: WaitReason) -> &Histogram {
        match reason {
            WaitReason::Delay => &self.delay,
            WaitReason::Stop => &self.stop,
            WaitReason::Budget => &self.budget,
            WaitReason::Lock => &self.lock,
            WaitReason::Flush => &self.flush,
            WaitReason::Merge => &self.merge,
        }
    }

    /// Waits that the engine caused and nobody asked for: delay, stop, budget and lock together.
    pub fn engine_caused(&self) -> Histogram {
        let mut all = self.delay.clone();
        for waits in [&self.stop, &self.budget, &self.lock] {
            all.merge(waits);
        }
        all
    }
}

/// Durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Flushes of one memtable, from the first byte to the installed edit.
    pub flush: Histogram,
    /// Merges, from the first block to the installed edit.
    pub compaction: Histogram,
    /// Syncs of the write-ahead log.
    pub sync: Histogram,
    /// Reads below the active memtable; one in 1,024 is timed.
    pub table_get: Histogram,
}

/// What the reads that were followed met: one in 1,024 of those below the active memtable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledGets {
    /// Reads that were followed.
    pub gets: u64,
    /// Tables whose key range held the key, until the read ended.
    pub tables: u64,
    /// Tables that their filter ruled out.
    pub filter_negatives: u64,
    /// Tables that the filter let through and that did not hold the key.
    pub filter_false_positives: u64,
}

impl StoreStats {
    /// Bytes written to tables for each byte that was flushed; 0 before the first flush.
    pub fn write_amplification(&self) -> f64 {
        ratio(self.flush_bytes + self.compaction_bytes, self.flush_bytes)
    }

    /// Bytes of tables for each byte of the largest run of each family, which is close to what would be left if
    /// everything were merged; 0 without tables.
    pub fn space_amplification(&self) -> f64 {
        let largest = |family: &FamilyStats| family.runs.iter().map(|run| run.bytes).max().unwrap_or(0);
        ratio(self.table_bytes, self.families.iter().map(largest).sum())
    }

    /// Blocks looked into per read that went below the active memtable, from samples; 0 before the first.
    pub fn read_amplification(&self) -> f64 {
        let sampled = &self.sampled;
        ratio(sampled.tables - sampled.filter_negatives, sampled.gets)
    }

    /// Share of the tables in question that filters ruled out, from samples, 0 to 1.
    pub fn filter_hit_rate(&self) -> f64 {
        ratio(self.sampled.filter_negatives, self.sampled.tables)
    }

    /// Share of look-ups in the block cache that found their block, 0 to 1.
    pub fn cache_hit_rate(&self) -> f64 {
        ratio(self.cache.hits, self.cache.hits + self.cache.misses)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
