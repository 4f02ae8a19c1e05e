//! Where things lie in a state directory, and what an earlier run left there. Page: docs/format/state-dir.md.

use super::{decide::Found, record::JobRecord};
use keybed::{
    Code, Result,
    env::{Fs, OsFs},
    snapshot::{
        CandidateStanding, CheckpointStorage, FinishedRecord, JobId, LocalStorage, ObjectPath, OpenRoot,
        StopRecord, finished::FINISHED_BYTES_MAX, stop::STOP_BYTES_MAX,
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A state directory.
pub(super) struct Places {
    state_dir: PathBuf,
}

impl Places {
    pub(super) fn new(state_dir: PathBuf) -> Places {
        Places { state_dir }
    }

    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Held by the running process.
    pub(super) fn lock(&self) -> PathBuf {
        self.state_dir.join("LOCK")
    }

    /// Local stores.
    pub(super) fn work(&self) -> PathBuf {
        self.state_dir.join("work")
    }

    /// The checkpoint root.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.state_dir.join("checkpoints")
    }

    /// Where the checkpoints of a job lie.
    pub(super) fn job_root(&self, job: JobId) -> PathBuf {
        self.checkpoints().join(job.to_string())
    }

    /// Whether a job has checkpoints of its own, readable or not. Until then it can only go on from the snapshot
    /// that it was started from.
    ///
    /// # Errors
    /// `Locked`; `SnapshotCorrupt`, `SnapshotIncomplete` if a record of the job root is damaged or missing.
    pub(super) fn has_checkpoints(&self, job: JobId) -> Result<bool> {
        let storage = LocalStorage::create(Arc::new(OsFs), &self.checkpoints(), job)?;
        let candidates = OpenRoot::open(Arc::new(storage), job)?.candidates();
        Ok(candidates
            .iter()
            .any(|candidate| candidate.standing != CandidateStanding::Void))
    }

    /// The savepoint that a finished job ended with, if it ended so.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a record is damaged.
    pub(super) fn stopped_with(&self, job: JobId) -> Result<Option<StopRecord>> {
        let storage = LocalStorage::at(Arc::new(OsFs), self.job_root(job));
        let read = |path: ObjectPath, bytes_max| match storage.read(&path, bytes_max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        let finished = read(ObjectPath::Finished, FINISHED_BYTES_MAX)?;
        let stop = read(ObjectPath::Stop, STOP_BYTES_MAX)?;
        let (Some(finished), Some(stop)) = (finished, stop) else {
            return Ok(None);
        };
        let (finished, stop) = (FinishedRecord::decode(&finished)?, StopRecord::decode(&stop)?);
        Ok((finished.checkpoint == Some(stop.checkpoint)).then_some(stop))
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// `ManifestCorrupt`, `SnapshotCorrupt` if a record is damaged.
    pub(super) fn found(&self, fs: &dyn Fs) -> Result<Option<Found>> {
        let Some(record) = JobRecord::read(fs, &self.state_dir)? else {
            return Ok(None);
        };
        let storage = LocalStorage::at(Arc::new(OsFs), self.job_root(record.id));
        let finished = match storage.read(&ObjectPath::Finished, FINISHED_BYTES_MAX) {
            Ok(bytes) => FinishedRecord::decode(&bytes)
                .map(|_| true)
                .map_err(|e| e.in_file(storage.describe(&ObjectPath::Finished)))?,
            Err(e) if e.code() == Code::NotFound => false,
            Err(e) => return Err(e),
        };
        Ok(Some(Found { record, finished }))
    }
}
