//! From counters and versions to [`StoreStats`], on any thread.

use super::{FamilyStats, Latencies, RunStats, SampledGets, StoreCounts, StoreStats};
use crate::{
    shared::{Shared, SharedFamily},
    store::Store,
    version::{Run, Version},
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Reads the statistics of a store from any thread, while its owner works; also after the store was closed.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
/// let orders = store.family("orders")?;
/// let reader = store.stats_reader();
/// store.put(orders, b"o-1", b"42")?;
/// let writes = std::thread::spawn(move || reader.counts().writes).join().unwrap();
/// assert_eq!(writes, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StatsReader(Arc<Shared>);

impl StatsReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        StatsReader(shared)
    }

    /// Everything.
    pub fn stats(&self) -> StoreStats {
        self.0.stats()
    }

    /// The counters alone.
    pub fn counts(&self) -> StoreCounts {
        self.0.counts()
    }
}

impl Store {
    /// What the store has done so far, and how it stands.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// What the store has done so far, in a few counters that are cheap to read.
    pub fn counts(&self) -> StoreCounts {
        self.shared.counts()
    }

    /// A handle by which other threads read the statistics.
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader(self.shared.clone())
    }
}

impl Shared {
    pub(crate) fn counts(&self) -> StoreCounts {
        let (owner, background) = (&self.owner_counters, &self.counters);
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let reads = self.handles.reads(owner);
        StoreCounts {
            writes: owner.writes.get(),
            table_gets: reads.table_gets.get(),
            memtable_hits: reads.memtable_hits.get(),
            multi_gets: reads.multi_gets.get(),
            seals: owner.seals.get(),
            flushes: load(&background.flushes),
            flush_bytes: load(&background.flush_bytes),
            flushed_entries: load(&background.flushed_entries),
            compactions: load(&background.compactions),
            bottom_compactions: load(&background.bottom_compactions),
            compaction_bytes: load(&background.compaction_bytes),
            moved_files: load(&background.moved_files),
            dropped_files: load(&background.dropped_files),
            expired_entries: load(&background.expired_entries),
            expired_files: load(&background.expired_files),
            compaction_read_bytes: load(&background.compaction_read_bytes),
            stalls: owner.stalls.get(),
            files_removed: load(&background.files_removed),
            torn_bytes: load(&background.torn_bytes),
            log_bytes: owner.log_bytes.get(),
            log_syncs: load(&background.log_syncs),
            active_bytes: owner.active_bytes.get(),
            kept_bytes: owner.kept_bytes.get(),
        }
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let (flush_failures, shapes): (u64, Vec<_>) = {
            let state = self.state.lock();
            let alive = state.families.iter().filter(|family| !family.dropped);
            (state.flush_failures, alive.map(Shape::of).collect())
        };
        let mut stats = StoreStats {
            counts: self.counts(),
            flush_failures,
            waits: self.timings.waits(),
            latencies: Latencies {
                flush: self.timings.flush.snapshot(),
                compaction: self.timings.compaction.snapshot(),
                sync: self.timings.sync.snapshot(),
                table_get: self.timings.table_get.snapshot(),
            },
            cache: self.cache().stats(),
            sampled: self.sampled_gets(),
            views: self.view_stats(),
            lingering_bytes: self.lingering_bytes(),
            ..StoreStats::default()
        };
        for shape in shapes {
            stats.sealed_bytes += shape.family.sealed_bytes;
            let tables = || shape.version.runs.iter().flat_map(|run| &run.tables);
            stats.tables += tables().count() as u64;
            stats.table_bytes += tables().map(|live| live.table.record.facts.bytes).sum::<u64>();
            stats.runs_max = stats.runs_max.max(shape.version.runs.len() as u64);
            stats.families.push(FamilyStats {
                runs: shape.version.runs.iter().map(run_stats).collect(),
                ..shape.family
            });
        }
        stats
    }

    fn sampled_gets(&self) -> SampledGets {
        let sampled = &self.timings.sampled;
        SampledGets {
            gets: sampled.gets.load(Relaxed),
            tables: sampled.tables.load(Relaxed),
            filter_negatives: sampled.filter_negatives.load(Relaxed),
            filter_false_positives: sampled.filter_false_positives.load(Relaxed),
        }
    }
}

/// What is taken of a family under the lock.
struct Shape {
    family: FamilyStats,
    version: Arc<Version>,
}

impl Shape {
    fn of(family: &SharedFamily) -> Shape {
        Shape {
            family: FamilyStats {
                name: family.name.clone(),
                sealed: family.sealed.len() as u64,
                sealed_bytes: family
                    .sealed
                    .iter()
                    .map(|sealed| sealed.memtable.bytes() as u64)
                    .sum(),
                runs: Vec::new(),
            },
            version: family.version.clone(),
        }
    }
}

fn run_stats(run: &Run) -> RunStats {
    let mut stats = RunStats {
        tier: run.tier,
        ..RunStats::default()
    };
    let mut seen = HashSet::new();
    for live in &run.tables {
        if seen.insert(live.table.id()) {
            stats.files += 1;
            stats.bytes += live.table.record.facts.bytes;
            stats.entries += live.table.record.facts.entries;
        }
    }
    stats
}
