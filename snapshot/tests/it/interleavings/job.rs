//! One living job: a process that owns a root, with the tables of its state and what it has begun.

use super::ledger::{Files, Ledger, Violation, demand};
use keybed_env::{Fs, SimFs, fs::FaultFs};
use keybed_format::{Code, Error, Result, trailer::Trailer};
use keybed_snapshot::{
    BackendKind, CheckpointId, CheckpointRoot, FamilyHandle, FileHandle, KeyGroupRange, KeyedHandle,
    LocalFile, Metadata, OperatorSnapshot, OperatorUid, RunHandle, SavepointWriter, Scope, SnapshotKind,
    StateCatalogue, SubtaskIndex, SubtaskState, TableHandle, root::Reading,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

/// An immutable local file of the state.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) content: u128,
    pub(crate) path: PathBuf,
    pub(crate) trailer: Trailer,
    /// Its copy in the last completed checkpoint.
    pub(crate) confirmed: Option<FileHandle>,
    /// A copy that a failed checkpoint left behind; good until the next one completes.
    pub(crate) leftover: Option<FileHandle>,
}

/// A checkpoint that was begun.
pub(crate) struct Pending {
    pub(crate) id: CheckpointId,
    /// Files of the checkpoint that was the newest when it began.
    pub(crate) base: Vec<(String, FileHandle)>,
    /// What was put into it, by content.
    pub(crate) puts: BTreeMap<u128, FileHandle>,
    /// A sync of names failed beside it, so that what it put can be lost: publishing it may tell so.
    pub(crate) doubtful: bool,
}

/// A savepoint that is being written.
pub(crate) struct Writing {
    pub(crate) writer: Arc<SavepointWriter>,
    pub(crate) id: CheckpointId,
    pub(crate) left: Vec<Table>,
    pub(crate) put: Vec<TableHandle>,
}

pub(crate) struct Live {
    pub(crate) sim: SimFs,
    pub(crate) faulty: FaultFs,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) root: CheckpointRoot,
    pub(crate) index: usize,
    pub(crate) work: PathBuf,
    pub(crate) tables: Vec<Table>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) pins: Vec<(CheckpointId, Arc<Reading>)>,
    pub(crate) savepoint: Option<Writing>,
    /// A call failed since it started, so names may be lost that it counted on.
    pub(crate) tainted: bool,
    /// Highest checkpoint that it completed.
    pub(crate) completed_max: Option<CheckpointId>,
}

pub(crate) fn table(file: FileHandle) -> TableHandle {
    TableHandle {
        file,
        visible_start: Vec::new(),
        visible_end: None,
        entries: 3,
    }
}

/// Metadata of one operator with these tables.
pub(crate) fn metadata_of(root: &CheckpointRoot, id: CheckpointId, tables: Vec<TableHandle>) -> Metadata {
    let keyed = KeyedHandle {
        range: KeyGroupRange::all(128).unwrap_or_else(|e| panic!("{e}")),
        backend: BackendKind::Lsm,
        next_seqno: id.0,
        families: vec![FamilyHandle {
            name: "point".into(),
            runs: vec![RunHandle { tier: 0, tables }],
        }],
    };
    let subtask = SubtaskState {
        keyed: Some(keyed),
        ..SubtaskState::empty(SubtaskIndex(0))
    };
    Metadata {
        job: root.job(),
        root: root.root(),
        generation: root.generation(),
        checkpoint: id,
        kind: SnapshotKind::Checkpoint,
        timestamp_ms: 5,
        externals: Vec::new(),
        operators: vec![OperatorSnapshot {
            uid: OperatorUid::new("tiny").unwrap_or_else(|e| panic!("{e}")),
            parallelism: 1,
            max_parallelism: 128,
            catalogue: StateCatalogue::new(),
            subtasks: vec![subtask],
        }],
        properties: BTreeMap::new(),
    }
}

impl Live {
    /// Puts a table into a pending checkpoint.
    pub(crate) fn put(&mut self, pending: usize, table: &Table, scope: Scope) -> Result<FileHandle> {
        let id = self.pending[pending].id;
        let put = self.root.put_files(id);
        let (digest, bytes) = (table.trailer.digest, table.trailer.file_bytes());
        let handle = put.put_file(
            scope,
            LocalFile {
                fs: &*self.fs,
                path: &table.path,
                content: table.content,
                digest,
                bytes,
            },
        )?;
        self.pending[pending].puts.insert(table.content, handle.clone());
        Ok(handle)
    }

    fn adopt(&mut self, pending: usize, handle: &FileHandle) -> Result<FileHandle> {
        let own = self.root.put_files(self.pending[pending].id).adopt(handle)?;
        if own != *handle {
            self.pending[pending].puts.insert(own.content, own.clone());
        }
        Ok(own)
    }

    /// Handles of all tables for a pending checkpoint; what no copy is good for is put.
    pub(crate) fn fill(&mut self, pending: usize, private: Option<Table>) -> Result<Vec<TableHandle>> {
        let mut handles = Vec::new();
        for at in self.tables.clone() {
            let known = self.pending[pending].puts.get(&at.content).cloned();
            let known = known.or(at.confirmed.clone()).or(at.leftover.clone());
            let handle = match known {
                // What lies in a claimed snapshot gets a name here.
                Some(handle) => self.adopt(pending, &handle)?,
                None => self.put(pending, &at, Scope::Shared)?,
            };
            handles.push(table(handle));
        }
        if let Some(private) = private {
            handles.push(table(self.put(pending, &private, Scope::Exclusive)?));
        }
        Ok(handles)
    }

    /// The checkpoint is complete: older ones that are pending are subsumed.
    pub(crate) fn completed(
        &mut self,
        metadata: &Metadata,
        subsumed: &[CheckpointId],
    ) -> Result<(), Violation> {
        let id = metadata.checkpoint;
        let older: Vec<CheckpointId> = self.pending.iter().map(|p| p.id).filter(|p| *p < id).collect();
        demand!(
            older == subsumed,
            "{id} subsumes {older:?} and tells {subsumed:?}"
        );
        self.pending.retain(|p| p.id > id);
        self.completed_max = self.completed_max.max(Some(id));
        for at in &mut self.tables {
            at.leftover = None;
            let shared = |f: &&FileHandle| f.content == at.content;
            at.confirmed = metadata.files().find(shared).cloned();
        }
        Ok(())
    }

    /// The checkpoint does not exist; what it uploaded can be used again.
    pub(crate) fn failed(&mut self, pending: usize) {
        let failed = self.pending.remove(pending);
        for at in &mut self.tables {
            let put = failed.puts.get(&at.content);
            if let Some(handle) = put.filter(|f| f.anchor == keybed_snapshot::Anchor::Root) {
                at.leftover.get_or_insert_with(|| handle.clone());
            }
        }
    }

    /// What this process counts on beyond published snapshots.
    pub(crate) fn demand_promised(&self, ledger: &Ledger, files: &Files) -> Result<(), Violation> {
        let root = &ledger.roots[self.index];
        for pending in &self.pending {
            let here = root.checkpoint(pending.id);
            for file in pending.puts.values().filter(|_| !pending.doubtful) {
                ledger.demand_file(&here, file, files, "it is pending")?;
            }
            for (directory, file) in &pending.base {
                ledger.demand_file(directory, file, files, "a pending checkpoint builds on it")?;
            }
        }
        // A sync that failed may have cost the names, which the next checkpoint hears.
        for leftover in self
            .tables
            .iter()
            .filter_map(|t| t.leftover.as_ref())
            .filter(|_| !self.tainted)
        {
            ledger.demand_file(
                &root.checkpoint(CheckpointId(0)),
                leftover,
                files,
                "it may be used again",
            )?;
        }
        for (id, _) in &self.pins {
            let directory = root.checkpoint(*id);
            for file in ledger.known[&directory].metadata.files() {
                ledger.demand_file(&directory, file, files, "it is being read")?;
            }
        }
        if let Some(writing) = &self.savepoint {
            let directory = writing.writer.directory().display().to_string();
            for at in &writing.put {
                ledger.demand_file(&directory, &at.file, files, "a savepoint is being written")?;
            }
        }
        Ok(())
    }

    /// Paths in the root that may lie there after a sweep besides those of snapshots that exist.
    pub(crate) fn may_stay(&self, ledger: &Ledger, path: &str) -> Result<bool, Violation> {
        let root = &ledger.roots[self.index];
        let name = path.rsplit('/').next().unwrap_or_default();
        let object = keybed_snapshot::ObjectName::new(name).map_err(|e| e.to_string())?;
        let Some(birth) = object.birth() else {
            return Ok(false);
        };
        let own = birth.generation == self.root.generation();
        // The second name of a document whose removal failed goes with the next generation.
        if own && self.tainted && object.is_temporary() {
            return Ok(true);
        }
        if own && (!self.pending.is_empty() || Some(birth.checkpoint) > self.completed_max) {
            return Ok(true);
        }
        let mut promised = BTreeSet::new();
        for (id, _) in &self.pins {
            let directory = root.checkpoint(*id);
            for file in ledger.known[&directory].metadata.files() {
                promised.insert(ledger.path(&directory, file)?);
            }
        }
        for (directory, file) in self.pending.iter().flat_map(|pending| &pending.base) {
            promised.insert(ledger.path(directory, file)?);
        }
        Ok(promised.contains(path))
    }
}

/// Whether an earlier failure explains it: a name that was lost, or metadata that could not be read at the start.
pub(crate) fn late(error: &Error) -> bool {
    matches!(error.code(), Code::SnapshotIncomplete | Code::GcRefused)
}
