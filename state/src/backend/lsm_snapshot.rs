//! Snapshots of the LSM backend: the tables the store has anyway.
//!
//! ```text
//!   prepare    Store::pin: memtables sealed, versions captured           owner thread, no I/O
//!   write      Pinning::finish: flushes awaited                          any thread
//!              tables that the last completed checkpoint holds:          named again
//!              all others, by content id:                                put
//! ```
//! The files stay pinned until the handle is made.

use super::{CapturedContent, ContentScan, ReadScans, heap_snapshot::stats, ledger::Ledger, lsm::LsmBackend};
use crate::{PendingSnapshot, StateFamily, WrittenSnapshot, processor::RunMerge, runs::Runs};
use keybed_env::Fs;
use keybed_format::{Error, Result};
use keybed_lsm::{
    PinnedFiles, PinnedRun, PinnedTable, Pinning,
    table::{BlockAccess, TableReader, TableView},
};
use keybed_snapshot::{
    BackendKind, CheckpointId, FamilyHandle, FileHandle, FileSharing, KeyGroupRange, KeyedHandle, LocalFile,
    PutFiles, RunHandle, Scope, SnapshotKind, SnapshotRequest, TableHandle,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The files of a checkpoint, by content.
pub(super) type Held = BTreeMap<u128, FileHandle>;

/// An LSM snapshot on its way out.
#[derive(Debug)]
pub(super) struct PendingLsm {
    pinning: Pinning,
    fs: Arc<dyn Fs>,
    range: KeyGroupRange,
    checkpoint: CheckpointId,
    sharing: FileSharing,
    ledger: Ledger<Held>,
}

impl LsmBackend {
    /// Captures the store's content of this moment.
    pub(super) fn pin(&mut self, request: &SnapshotRequest) -> Result<PendingLsm> {
        if request.kind == SnapshotKind::CanonicalSavepoint {
            return Err(Error::invalid(
                "a canonical savepoint is written from captured content",
            ));
        }
        Ok(PendingLsm {
            pinning: self.store.pin()?,
            fs: self.options.fs.clone(),
            range: self.range,
            checkpoint: request.checkpoint,
            sharing: request.sharing(),
            ledger: self.ledger.clone(),
        })
    }
}

/// The store's content of one moment.
#[derive(Debug)]
pub(super) struct CapturedStore {
    pub(super) pinning: Pinning,
    pub(super) fs: Arc<dyn Fs>,
}

impl CapturedContent for CapturedStore {
    fn read(self: Box<Self>, read: &mut ReadScans<'_>) -> Result {
        let pinned = self.pinning.finish()?;
        let open = |table: &PinnedTable| {
            let access = BlockAccess::Stream;
            let reader = TableReader::open(&*self.fs, &table.path, table.id, access)?;
            Ok(TableView::new(reader, table.visible.clone()))
        };
        let open_run = |run: &PinnedRun| run.tables.iter().map(open).collect::<Result<Vec<_>>>();
        let mut scans = Vec::new();
        refuse_floors(&pinned)?;
        for family in StateFamily::ALL {
            let pinned = pinned.families.iter().find(|pinned| pinned.name == family.name());
            let runs = pinned.into_iter().flat_map(|pinned| &pinned.runs);
            let merge = RunMerge::over(runs.map(open_run).collect::<Result<_>>()?)?;
            scans.push(Box::new(merge) as Box<dyn ContentScan>);
        }
        match scans.try_into() {
            Ok(scans) => read(scans),
            Err(_) => unreachable!("there is one scan per family"),
        }
    }
}

/// Handles carry no floors: what lies below one would come back at a restore.
fn refuse_floors(pinned: &PinnedFiles) -> Result {
    match pinned.families.iter().find(|family| !family.floors.is_empty()) {
        Some(family) => Err(Error::invalid("a snapshot carries no floors").with("family", &family.name)),
        None => Ok(()),
    }
}

impl PendingSnapshot for PendingLsm {
    fn write(self: Box<Self>, files: &dyn PutFiles) -> Result<WrittenSnapshot> {
        let PendingLsm {
            pinning,
            fs,
            range,
            checkpoint,
            sharing,
            ledger,
        } = *self;
        let pinned = pinning.finish()?;
        refuse_floors(&pinned)?;
        let mut tables = Tables::new(&ledger, sharing, &*fs, files);
        let mut families = Vec::new();
        for family in &pinned.families {
            let runs = family
                .runs
                .iter()
                .map(|run| tables.run(run))
                .collect::<Result<_>>()?;
            families.push(FamilyHandle {
                name: family.name.clone(),
                runs,
            });
        }
        let (backend, next_seqno) = (BackendKind::Lsm, pinned.next_seqno);
        let handle = KeyedHandle {
            range,
            backend,
            next_seqno,
            families,
        };
        // A flushed table shows all keys; the handle shows those of the subtask, so that handles can lie side by side.
        let runs = Runs::combine(std::slice::from_ref(&handle), range)?;
        let stats = stats(&runs, &tables.new);
        if sharing != FileSharing::NoSharing {
            ledger.finished(checkpoint, tables.named);
        }
        Ok(WrittenSnapshot {
            handle: KeyedHandle {
                families: runs.handles(),
                ..handle
            },
            stats,
        })
    }
}

/// Finds or makes the handles of pinned tables.
struct Tables<'a> {
    /// Files that may be named again.
    held: Held,
    /// Files of this snapshot.
    named: Held,
    /// Contents that were put.
    new: BTreeSet<u128>,
    scope: Scope,
    fs: &'a dyn Fs,
    files: &'a dyn PutFiles,
}

impl<'a> Tables<'a> {
    fn new(ledger: &Ledger<Held>, sharing: FileSharing, fs: &'a dyn Fs, files: &'a dyn PutFiles) -> Self {
        let mut held = Held::new();
        if sharing == FileSharing::ForwardBackward {
            for facts in ledger.waiting().into_iter().chain(ledger.completed()) {
                held.extend(facts.iter().map(|(content, file)| (*content, file.clone())));
            }
        }
        let scope = match sharing {
            FileSharing::NoSharing => Scope::Exclusive,
            FileSharing::Forward | FileSharing::ForwardBackward => Scope::Shared,
        };
        Tables {
            held,
            named: Held::new(),
            new: BTreeSet::new(),
            scope,
            fs,
            files,
        }
    }

    fn run(&mut self, run: &PinnedRun) -> Result<RunHandle> {
        let tables = run
            .tables
            .iter()
            .map(|table| self.table(table))
            .collect::<Result<_>>()?;
        Ok(RunHandle {
            tier: run.tier,
            tables,
        })
    }

    fn table(&mut self, table: &PinnedTable) -> Result<TableHandle> {
        let content = table.id.0;
        let file = match (self.named.get(&content), self.held.get(&content)) {
            (Some(named), _) => named.clone(),
            // It may be a restored snapshot's, which the storage decides about.
            (None, Some(held)) => self.files.adopt(held)?,
            (None, None) => {
                self.new.insert(content);
                self.files.put_file(
                    self.scope,
                    LocalFile {
                        fs: self.fs,
                        path: &table.path,
                        content,
                        digest: table.digest,
                        bytes: table.bytes,
                    },
                )?
            }
        };
        self.named.insert(content, file.clone());
        let (visible_start, visible_end) = (table.visible.start.clone(), table.visible.end.clone());
        Ok(TableHandle {
            file,
            visible_start,
            visible_end,
            entries: table.entries,
        })
    }
}
