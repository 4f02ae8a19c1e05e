//! Snapshots of the heap backend: sorted tables, a base and deltas.
//!
//! ```text
//!   family at checkpoint n     delta n       entries written and keys removed since the last completed checkpoint
//!   (newest run first)         delta n − 1
//!                              …             at most 8 deltas, together at most half of the base's bytes, else …
//!                              base          … a new base: every entry, no tombstones
//! ```
//! A run's entries carry the epoch as their seqno, so an LSM store adopts the stack as it is. A delta reaches back to
//! the last *completed* checkpoint, whatever was aborted in between.

use super::{
    BackendOptions,
    ahead::{Ahead, HeapEntry},
    heap::{Group, HeapBackend, Stamped},
    ledger::Ledger,
    run_writer::RunWriter,
};
use crate::{PendingSnapshot, SnapshotStats, StateFamily, WrittenSnapshot, runs::Runs};
use keybed_format::{Error, Result};
use keybed_lsm::{Entry, EntryKind};
use keybed_snapshot::{
    BackendKind, CheckpointId, FileSharing, KeyGroupRange, KeyedHandle, PutFiles, RunHandle, Scope,
    SnapshotKind, SnapshotRequest, TableHandle,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    fmt,
    iter::Peekable,
    sync::Arc,
};

/// Deltas on one base.
const DELTAS_MAX: usize = 8;
/// Tier of a base and of a delta in their handles: the bottom and the youngest tier of a store.
const BASE_TIER: u8 = 255;
const DELTA_TIER: u8 = 0;

/// The runs of a checkpoint and what they contain.
#[derive(Debug)]
pub(super) struct Chain {
    /// Last epoch whose writes are in the runs.
    pub(super) epoch: u64,
    pub(super) runs: Runs,
}

/// One family on its way out.
struct PendingFamily {
    family: StateFamily,
    /// Runs of the completed checkpoint that stay below what is written now; none under a new base.
    below: Vec<RunHandle>,
    /// Only what was written after this epoch; `None` writes everything: a base.
    since: Option<u64>,
    groups: Vec<Arc<Group>>,
}

/// A heap snapshot on its way out.
pub(super) struct PendingHeap {
    options: BackendOptions,
    range: KeyGroupRange,
    checkpoint: CheckpointId,
    sharing: FileSharing,
    epoch: u64,
    families: Vec<PendingFamily>,
    ledger: Ledger<Chain>,
}

impl HeapBackend {
    /// Captures the groups that a snapshot needs and begins a new epoch.
    pub(super) fn capture(&mut self, request: &SnapshotRequest) -> Result<PendingHeap> {
        if request.kind == SnapshotKind::CanonicalSavepoint {
            return Err(Error::invalid(
                "a canonical savepoint is written from captured content",
            ));
        }
        let sharing = request.sharing();
        let chain = self
            .ledger
            .completed()
            .filter(|_| sharing == FileSharing::ForwardBackward);
        let families = StateFamily::ALL.into_iter().map(|family| {
            let groups = &self.families[family.index()].groups;
            let below = chain
                .as_ref()
                .map(|chain| (chain.epoch, &chain.runs.families[family.index()]));
            match below.filter(|(_, runs)| bears_a_delta(runs)) {
                Some((epoch, runs)) => {
                    let changed = groups
                        .iter()
                        .filter(|group| group.changed > epoch)
                        .cloned()
                        .collect();
                    PendingFamily {
                        family,
                        below: runs.clone(),
                        since: Some(epoch),
                        groups: changed,
                    }
                }
                None => PendingFamily {
                    family,
                    below: Vec::new(),
                    since: None,
                    groups: groups.clone(),
                },
            }
        });
        let pending = PendingHeap {
            options: BackendOptions {
                ids: self.options.ids.fork(),
                ..self.options.clone()
            },
            range: self.range,
            checkpoint: request.checkpoint,
            sharing,
            epoch: self.epoch,
            families: families.collect(),
            ledger: self.ledger.clone(),
        };
        self.tracks_removals |= sharing != FileSharing::NoSharing;
        self.epoch += 1;
        Ok(pending)
    }
}

/// Whether one more delta may be laid on this stack (newest first).
fn bears_a_delta(runs: &[RunHandle]) -> bool {
    let bytes = |run: &RunHandle| run.tables.iter().map(|table| table.file.length).sum::<u64>();
    let Some((base, deltas)) = runs.split_last() else {
        return false;
    };
    deltas.len() < DELTAS_MAX && deltas.iter().map(bytes).sum::<u64>() <= bytes(base) / 2
}

impl fmt::Debug for PendingHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PendingHeap");
        debug
            .field("checkpoint", &self.checkpoint)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl PendingSnapshot for PendingHeap {
    fn write(mut self: Box<Self>, files: &dyn PutFiles) -> Result<WrittenSnapshot> {
        let mut runs = Runs {
            next_seqno: self.epoch + 1,
            ..Runs::default()
        };
        let mut new = BTreeSet::new();
        for pending in std::mem::take(&mut self.families) {
            let family = pending.family.index();
            let tables = self.write_run(&pending, files)?;
            new.extend(tables.iter().map(|table| table.file.content));
            let stack = &mut runs.families[family];
            if !tables.is_empty() {
                stack.push(RunHandle {
                    tier: if pending.below.is_empty() {
                        BASE_TIER
                    } else {
                        DELTA_TIER
                    },
                    tables,
                });
            }
            for mut run in pending.below {
                for table in &mut run.tables {
                    // It may be a restored snapshot's, which the storage decides about.
                    table.file = files.adopt(&table.file)?;
                }
                stack.push(run);
            }
        }
        let stats = stats(&runs, &new);
        if self.sharing != FileSharing::NoSharing {
            self.ledger.finished(
                self.checkpoint,
                Chain {
                    epoch: self.epoch,
                    runs: runs.clone(),
                },
            );
        }
        let next_seqno = runs.next_seqno;
        let (range, families) = (self.range, runs.handles());
        let handle = KeyedHandle {
            range,
            backend: BackendKind::Heap,
            next_seqno,
            families,
        };
        Ok(WrittenSnapshot { handle, stats })
    }
}

/// What a snapshot cost whose tables with content `new` were just put.
pub(super) fn stats(runs: &Runs, new: &BTreeSet<u128>) -> SnapshotStats {
    let files: BTreeMap<_, _> = runs
        .tables()
        .map(|table| (table.file.content, table.file.length))
        .collect();
    let mut stats = SnapshotStats::default();
    for (content, length) in files {
        stats.total_bytes += length;
        if new.contains(&content) {
            stats.new_bytes += length;
            stats.files_new += 1;
        } else {
            stats.files_reused += 1;
        }
    }
    stats
}

impl PendingHeap {
    /// Writes and puts the tables of one run.
    fn write_run(&mut self, pending: &PendingFamily, files: &dyn PutFiles) -> Result<Vec<TableHandle>> {
        let scope = match self.sharing {
            FileSharing::NoSharing => Scope::Exclusive,
            FileSharing::Forward | FileSharing::ForwardBackward => Scope::Shared,
        };
        let BackendOptions { fs, dir, ids, .. } = &mut self.options;
        let mut run = RunWriter::new(&**fs, dir, ids, files, scope).without_filter();
        for group in &pending.groups {
            for (key, kind, value) in Ahead::new(Changes::of(group, pending.since)) {
                run.add(Entry {
                    key,
                    seqno: self.epoch,
                    kind,
                    value,
                })?;
            }
        }
        run.finish()
    }
}

/// Entries of a group in key order: all of them, or what changed after an epoch.
struct Changes<'a> {
    since: Option<u64>,
    entries: Peekable<btree_map::Iter<'a, Vec<u8>, Stamped>>,
    removed: Peekable<btree_map::Iter<'a, Vec<u8>, u64>>,
}

impl<'a> Changes<'a> {
    fn of(group: &'a Group, since: Option<u64>) -> Self {
        Changes {
            since,
            entries: group.entries.iter().peekable(),
            removed: group.removed.iter().peekable(),
        }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = HeapEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let since = self.since.unwrap_or(0);
        let is_base = self.since.is_none();
        while self
            .entries
            .next_if(|(_, stamped)| !is_base && stamped.epoch <= since)
            .is_some()
        {}
        while self
            .removed
            .next_if(|(_, epoch)| is_base || **epoch <= since)
            .is_some()
        {}
        // A key is in one of the two, never in both.
        let removed_first = match (self.entries.peek(), self.removed.peek()) {
            (Some((entry, _)), Some((removed, _))) => removed < entry,
            (None, removed) => removed.is_some(),
            (Some(_), None) => false,
        };
        if removed_first {
            self.removed
                .next()
                .map(|(key, _)| (key.as_slice(), EntryKind::Delete, &[][..]))
        } else {
            self.entries
                .next()
                .map(|(key, stamped)| (key.as_slice(), EntryKind::Put, stamped.value.as_slice()))
        }
    }
}
