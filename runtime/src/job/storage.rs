//! Where a job's checkpoints lie, as the driver sees it. All verbs may do I/O and run in background jobs.

use super::rename::rename;
use crate::restore::Restore;
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    CheckpointId, ClaimMode, ForeignSnapshot, GcOptions, GcReport, Metadata, OpenFiles, OperatorSnapshot,
    PutFiles, SnapshotKind, verify,
};
use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A snapshot to start from.
pub(crate) struct Restored {
    pub(crate) metadata: Metadata,
    /// It is no checkpoint of this job.
    pub(crate) foreign: bool,
    pub(crate) files: Arc<dyn OpenFiles>,
}

/// A snapshot elsewhere that a job starts from.
pub(crate) struct Source {
    pub(crate) restore: Restore,
    pub(crate) snapshot: ForeignSnapshot,
}

impl Source {
    /// Opens it without looking at its files. Nothing is written.
    pub(crate) fn open(fs: Arc<dyn Fs>, restore: &Restore) -> Result<Source> {
        Ok(Source {
            snapshot: ForeignSnapshot::open(fs, &restore.path, restore.anchors.clone())?,
            restore: restore.clone(),
        })
    }
}

/// Verifies a snapshot elsewhere, every byte that the metadata names. Operators carry the names of the program.
pub(super) fn restored(
    snapshot: &ForeignSnapshot,
    files: Arc<dyn OpenFiles>,
    restore: &Restore,
) -> Result<Restored> {
    snapshot.check_complete()?;
    verify(snapshot.metadata(), snapshot).verdict()?;
    let (metadata, problems) = rename(snapshot.metadata(), &restore.renames);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(Restored {
            metadata,
            foreign: true,
            files,
        }),
    }
}

/// What is published.
pub(crate) struct Publication {
    /// The name of the job.
    pub(crate) name: String,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) kind: SnapshotKind,
    pub(crate) timestamp_ms: u64,
    pub(crate) operators: Vec<OperatorSnapshot>,
    /// The input was ended before it was taken.
    pub(crate) drained: bool,
}

/// What the storage is told of a savepoint that ends the job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopAsk {
    pub(crate) attempt: u64,
    pub(crate) drained: bool,
}

/// A savepoint that ended the job and that sinks have not committed for, as far as is known.
pub(crate) struct Stopped {
    pub(crate) metadata: Metadata,
    pub(crate) directory: PathBuf,
    pub(crate) drained: bool,
}

/// The checkpoints of one job.
pub(crate) trait Storage: Send + Sync {
    /// The newest completed checkpoint; before the first one the snapshot that the job was started from.
    fn latest(&self) -> Result<Option<Restored>>;

    /// Creates the next id, never given before.
    fn allot(&self) -> Result<CheckpointId>;

    /// Creates the next id and the directory of a savepoint under it, below `target`. One that ends the job is
    /// recorded first.
    fn allot_savepoint(
        &self,
        target: &Path,
        hard_links: bool,
        stop: Option<StopAsk>,
    ) -> Result<(CheckpointId, PathBuf)>;

    /// The savepoint that ended the job, if there is one; it is recorded that sinks may commit for it. To be asked before
    /// [`Storage::latest`]: what was begun of one that never came to be is removed.
    fn stopped(&self) -> Result<Option<Stopped>>;

    /// Savepoints of stops that came to nothing, by id and attempt, since this was asked last. No I/O.
    fn take_undone(&self) -> Vec<(CheckpointId, u64)>;

    /// Whether nobody knows, after an error of [`Storage::publish`], if the savepoint exists that ends the job. No I/O.
    fn is_stop_open(&self) -> bool;

    /// Whether nobody knows, after an error of [`Storage::publish`], if the savepoint exists. No I/O.
    fn may_exist(&self, savepoint: CheckpointId) -> bool;

    /// Gives the savepoint under way up and removes its directory, at the latest when the last task puts nothing into
    /// it any more.
    fn abandon_savepoint(&self, checkpoint: CheckpointId);

    /// Where files of a checkpoint or savepoint go.
    fn place(&self, checkpoint: CheckpointId) -> Result<Arc<dyn PutFiles>>;

    /// Makes the checkpoint exist. After an error it may exist or not; [`Storage::latest`] finds out.
    fn publish(&self, publication: Publication) -> Result;

    /// The checkpoint will not be published.
    fn abort(&self, checkpoint: CheckpointId);

    /// Removes what retention gives up and what nobody references any more.
    fn clean(&self) -> Result;

    /// Sweeps the job root on request; whoever asks may be any thread.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none; those of [`keybed_snapshot::CheckpointRoot::gc`].
    fn gc(&self, _options: &GcOptions) -> Result<GcReport> {
        Err(Error::invalid("a job without checkpoints has no root to sweep"))
    }

    /// Records that the job is finished, with its final checkpoint.
    fn finish(&self, checkpoint: Option<CheckpointId>) -> Result;

    /// Whether a recovery, or a checkpoint that is kept, needs files of the snapshot that the job was started from. No
    /// I/O.
    fn needs_source(&self) -> bool;

    /// The snapshot that the job was started from, by this process or an earlier one.
    fn origin(&self) -> Option<(PathBuf, ClaimMode)>;

    /// The job never began: gives the snapshot back that was claimed for it.
    fn release_source(&self) -> Result;
}

/// Without checkpoints: ids only, so that sinks can still commit at the end.
#[derive(Default)]
pub(crate) struct NoStorage {
    last: Mutex<u64>,
    source: Option<Source>,
}

impl NoStorage {
    pub(crate) fn from(source: Option<Source>) -> Self {
        NoStorage {
            source,
            ..NoStorage::default()
        }
    }
}

impl Storage for NoStorage {
    fn latest(&self) -> Result<Option<Restored>> {
        let again = |source: &Source| {
            let snapshot = Arc::new(source.snapshot.reopen()?);
            restored(&snapshot.clone(), snapshot, &source.restore)
        };
        self.source.as_ref().map(again).transpose()
    }

    fn allot(&self) -> Result<CheckpointId> {
        let mut last = self.last.lock();
        *last += 1;
        Ok(CheckpointId(*last))
    }

    fn allot_savepoint(&self, _: &Path, _: bool, _: Option<StopAsk>) -> Result<(CheckpointId, PathBuf)> {
        Err(no_storage())
    }

    fn stopped(&self) -> Result<Option<Stopped>> {
        Ok(None)
    }

    fn take_undone(&self) -> Vec<(CheckpointId, u64)> {
        Vec::new()
    }

    fn is_stop_open(&self) -> bool {
        false
    }

    fn may_exist(&self, _savepoint: CheckpointId) -> bool {
        false
    }

    fn abandon_savepoint(&self, _checkpoint: CheckpointId) {}

    fn place(&self, _checkpoint: CheckpointId) -> Result<Arc<dyn PutFiles>> {
        Err(no_storage())
    }

    fn publish(&self, _publication: Publication) -> Result {
        Ok(())
    }

    fn abort(&self, _checkpoint: CheckpointId) {}

    fn clean(&self) -> Result {
        Ok(())
    }

    fn finish(&self, _checkpoint: Option<CheckpointId>) -> Result {
        Ok(())
    }

    fn needs_source(&self) -> bool {
        self.source.is_some()
    }

    fn origin(&self) -> Option<(PathBuf, ClaimMode)> {
        let of = |source: &Source| (source.snapshot.location().to_path_buf(), source.restore.claim);
        self.source.as_ref().map(of)
    }

    fn release_source(&self) -> Result {
        Ok(())
    }
}

fn no_storage() -> Error {
    Error::new(Code::Closed, "the job has no checkpoint storage")
}
