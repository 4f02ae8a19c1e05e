//! A small job that takes checkpoints, and a walk of a job root that shares no code with the registry.

use keybed_env::{
    Fs,
    random::{Ids, Random},
};
use keybed_format::{
    Result,
    trailer::{Trailer, TrailerBuilder},
};
use keybed_snapshot::{
    Anchor, Anchors, BackendKind, Birth, CheckpointId, CheckpointRoot, ClaimMode, FamilyHandle, FileHandle,
    ForeignSnapshot, JobId, KeyGroupRange, KeyedHandle, LocalFile, LocalStorage, Metadata, OpenRoot,
    OperatorSnapshot, OperatorUid, PutFiles, RunHandle, SavepointTarget, SavepointWriter, Scope, SnapshotDir,
    SnapshotKind, StartOptions, StateCatalogue, SubtaskIndex, SubtaskState, TableHandle, metadata::decode,
    verify,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) const JOB: JobId = JobId(0xabcd);
pub(crate) const CHECKPOINTS: &str = "/ckpt";
pub(crate) const WORK: &str = "/work";

pub(crate) fn job_root() -> PathBuf {
    Path::new(CHECKPOINTS).join(JOB.to_string())
}

/// An immutable file with a trailer.
pub(crate) fn write_table(fs: &dyn Fs, path: &Path, content_id: u128, content: &[u8]) -> Result<Trailer> {
    let mut builder = TrailerBuilder::new(content_id, u32::from_le_bytes(*b"test"));
    builder.update(content);
    let (tail, trailer) = builder.finish();
    let mut file = fs.create(path)?;
    file.append(content)?;
    file.append(&tail)?;
    Ok(trailer)
}

pub(crate) fn storage(fs: &Arc<dyn Fs>) -> Result<Arc<LocalStorage>> {
    LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), JOB).map(Arc::new)
}

pub(crate) fn open(fs: &Arc<dyn Fs>) -> Result<OpenRoot> {
    OpenRoot::open(storage(fs)?, JOB)
}

pub(crate) fn options(restore: Option<CheckpointId>, retain: usize, seed: u64) -> StartOptions {
    StartOptions {
        restore,
        retain,
        ids: Ids::Seeded(Random::from_seed(seed)),
        started_ms: 1,
    }
}

/// Resumes from the latest checkpoint.
pub(crate) fn resume(fs: &Arc<dyn Fs>, retain: usize, seed: u64) -> Result<CheckpointRoot> {
    let opened = open(fs)?;
    let latest = opened.latest()?.map(|metadata| metadata.checkpoint);
    opened.start(options(latest, retain, seed))
}

/// A job of one operator whose state is a set of tables; every checkpoint adds new ones and drops old ones.
pub(crate) struct TinyJob {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) root: CheckpointRoot,
    pub(crate) tables: Vec<TableHandle>,
    next: u128,
}

impl std::fmt::Debug for TinyJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TinyJob of {}", self.root.job())
    }
}

impl TinyJob {
    pub(crate) fn new(fs: Arc<dyn Fs>, root: CheckpointRoot) -> Self {
        // Jobs and generations write different contents.
        let job = if root.job() == JOB { 0 } else { root.job().0 << 64 };
        let next = job | (u128::from(root.generation().0) << 32);
        TinyJob {
            fs,
            root,
            tables: Vec::new(),
            next,
        }
    }

    /// Puts one new table into a pending checkpoint.
    pub(crate) fn put(&mut self, checkpoint: CheckpointId, scope: Scope) -> Result<TableHandle> {
        self.next += 1;
        let path = Path::new(WORK).join(format!("{:x}.sst", self.next));
        let content = self.next.to_le_bytes().repeat(3);
        let trailer = write_table(&*self.fs, &path, self.next, &content)?;
        let put = self.root.put_files(checkpoint);
        let file = put.put_file(
            scope,
            LocalFile {
                fs: &*self.fs,
                path: &path,
                content: self.next,
                digest: trailer.digest,
                bytes: trailer.file_bytes(),
            },
        )?;
        Ok(TableHandle {
            file,
            visible_start: Vec::new(),
            visible_end: None,
            entries: 3,
        })
    }

    /// Puts one new table into a savepoint.
    pub(crate) fn put_into(&mut self, savepoint: &SavepointWriter) -> Result<TableHandle> {
        self.next += 1;
        let path = Path::new(WORK).join(format!("{:x}.sst", self.next));
        let content = self.next.to_le_bytes().repeat(3);
        let trailer = write_table(&*self.fs, &path, self.next, &content)?;
        let (digest, bytes) = (trailer.digest, trailer.file_bytes());
        let file = savepoint.put_file(
            Scope::Exclusive,
            LocalFile {
                fs: &*self.fs,
                path: &path,
                content: self.next,
                digest,
                bytes,
            },
        )?;
        Ok(TableHandle {
            file,
            visible_start: Vec::new(),
            visible_end: None,
            entries: 3,
        })
    }

    /// Creates the directory of a savepoint of this job under that id.
    pub(crate) fn begin_savepoint(
        &self,
        target: &SavepointTarget,
        id: CheckpointId,
    ) -> Result<Arc<SavepointWriter>> {
        let birth = Birth {
            generation: self.root.generation(),
            checkpoint: id,
        };
        target.begin(self.root.job(), birth, Ids::Seeded(Random::from_seed(id.0)))
    }

    /// Metadata of a native savepoint of these tables.
    pub(crate) fn savepoint_metadata(&self, id: CheckpointId, tables: Vec<TableHandle>) -> Metadata {
        Metadata {
            kind: SnapshotKind::NativeSavepoint,
            ..self.metadata(id, tables)
        }
    }

    /// A native savepoint of two tables.
    pub(crate) fn savepoint(&mut self, target: &SavepointTarget, id: u64) -> Result<PathBuf> {
        let id = CheckpointId(id);
        let writer = self.begin_savepoint(target, id)?;
        let tables = vec![self.put_into(&writer)?, self.put_into(&writer)?];
        writer.publish(&self.savepoint_metadata(id, tables))?;
        Ok(writer.directory().to_path_buf())
    }

    pub(crate) fn metadata(&self, checkpoint: CheckpointId, tables: Vec<TableHandle>) -> Metadata {
        let keyed = KeyedHandle {
            range: KeyGroupRange::all(128).unwrap(),
            backend: BackendKind::Lsm,
            next_seqno: checkpoint.0,
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
            job: self.root.job(),
            root: self.root.root(),
            generation: self.root.generation(),
            checkpoint,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 5,
            externals: Vec::new(),
            operators: vec![OperatorSnapshot {
                uid: OperatorUid::new("tiny").unwrap(),
                parallelism: 1,
                max_parallelism: 128,
                catalogue: StateCatalogue::new(),
                subtasks: vec![subtask],
            }],
            properties: BTreeMap::new(),
        }
    }

    /// One checkpoint: `new` new shared tables and a private one; all but the newest `keep` shared ones are dropped.
    pub(crate) fn checkpoint(&mut self, new: usize, keep: usize) -> Result<CheckpointId> {
        let id = self.root.allocate(SnapshotKind::Checkpoint, 5)?.checkpoint;
        let taken = self
            .fill(id, new, keep)
            .and_then(|metadata| self.root.publish(&metadata));
        match taken {
            Ok(_) => Ok(id),
            Err(error) => {
                self.root.abort(id);
                Err(error)
            }
        }
    }

    pub(crate) fn fill(&mut self, id: CheckpointId, new: usize, keep: usize) -> Result<Metadata> {
        let mut tables = self.tables.clone();
        for _ in 0..new {
            tables.push(self.put(id, Scope::Shared)?);
        }
        tables.drain(..tables.len().saturating_sub(keep));
        let put = self.root.put_files(id);
        for table in &mut tables {
            table.file = put.adopt(&table.file)?;
        }
        let mut all = tables.clone();
        all.push(self.put(id, Scope::Exclusive)?);
        let metadata = self.metadata(id, all);
        self.tables = tables;
        Ok(metadata)
    }
}

/// Starts `job` from the snapshot at `path`; its state are the shared tables of that.
pub(crate) fn start_from(
    fs: &Arc<dyn Fs>,
    job: JobId,
    path: &Path,
    mode: ClaimMode,
    retain: usize,
) -> Result<TinyJob> {
    let storage = LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), job)?;
    let source = ForeignSnapshot::open(fs.clone(), path, Anchors::default())?;
    source.check_complete()?;
    let tables = source.metadata().operators.iter().flat_map(|o| &o.subtasks);
    let tables: Vec<TableHandle> = tables
        .flat_map(|s| &s.keyed)
        .flat_map(KeyedHandle::tables)
        .cloned()
        .collect();
    let opened = OpenRoot::open(Arc::new(storage), job)?;
    let root = opened.start_from_snapshot(source, mode, options(None, retain, job.0 as u64))?;
    let mut tiny = TinyJob::new(fs.clone(), root);
    tiny.tables = tables;
    Ok(tiny)
}

/// Resumes `job` from its latest checkpoint, whose shared tables are its state.
pub(crate) fn resume_job(fs: &Arc<dyn Fs>, job: JobId, retain: usize, seed: u64) -> Result<TinyJob> {
    let storage = LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), job)?;
    let opened = OpenRoot::open(Arc::new(storage), job)?;
    let latest = opened.latest()?;
    let id = latest.as_ref().map(|metadata| metadata.checkpoint);
    let mut tiny = TinyJob::new(fs.clone(), opened.start(options(id, retain, seed))?);
    let operators = latest.iter().flat_map(|metadata| &metadata.operators);
    let keyed = operators.flat_map(|o| &o.subtasks).flat_map(|s| &s.keyed);
    let tables = keyed.flat_map(KeyedHandle::tables);
    tiny.tables = tables
        .filter(|t| t.file.anchor != Anchor::SelfDir)
        .cloned()
        .collect();
    Ok(tiny)
}

/// The files that the published checkpoints of a tree need, by their own `_metadata`; nothing of the registry.
pub(crate) fn needed(tree: &BTreeMap<PathBuf, Vec<u8>>) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for (path, bytes) in tree.iter().filter(|(path, _)| path.ends_with("_metadata")) {
        let metadata = decode(bytes).unwrap();
        needed.insert(path.display().to_string());
        for file in metadata.files() {
            needed.insert(path_of(path.parent().unwrap(), file));
        }
    }
    needed
}

fn path_of(snapshot: &Path, file: &FileHandle) -> String {
    use keybed_snapshot::Folder;
    let path = match (file.anchor, file.folder) {
        (Anchor::SelfDir, Folder::Private) => snapshot.join(file.object.as_str()),
        (Anchor::Root, Folder::Shared) => snapshot
            .parent()
            .unwrap()
            .join("shared")
            .join(file.object.as_str()),
        other => panic!("an unexpected reference {other:?}"),
    };
    path.display().to_string()
}

/// All files of a job root but owner records, lock and FINISHED.
pub(crate) fn kept(tree: &BTreeMap<PathBuf, Vec<u8>>) -> BTreeSet<String> {
    tree.keys()
        .map(|path| path.display().to_string())
        .filter(|path| path.contains("/shared/") || path.contains("/chk-") || path.contains("/taskowned/"))
        .collect()
}

/// Opens a snapshot by its path as a restore does, and reads every byte.
pub(crate) fn check_snapshot(fs: &Arc<dyn Fs>, path: &Path) -> Result<Metadata> {
    let snapshot = SnapshotDir::open(fs.clone(), path)?;
    snapshot.check_complete()?;
    verify(snapshot.metadata(), &snapshot).verdict()?;
    Ok(snapshot.metadata().clone())
}

/// Copies a directory of files.
pub(crate) fn copy_dir(fs: &dyn Fs, from: &Path, to: &Path) {
    fs.create_dir_all(to).unwrap();
    for entry in fs.list(from).unwrap() {
        fs.copy(&from.join(&entry.name), &to.join(&entry.name)).unwrap();
    }
}

/// Removes whatever lies there.
pub(crate) fn remove_tree(fs: &dyn Fs, path: &Path) {
    use keybed_env::fs::FileKind;
    for entry in fs.list(path).unwrap() {
        let path = path.join(&entry.name);
        match entry.kind {
            FileKind::Dir => remove_tree(fs, &path),
            _ => fs.remove_file(&path).unwrap(),
        }
    }
    fs.remove_dir(path).unwrap();
}
