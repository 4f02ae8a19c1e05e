//! The checkpoints of one job: the thin shell around owner records, registry and storage.
//!
//! ```text
//!   OpenRoot::open   take the OS lock ─ read everything ─ (caller: finished? which checkpoint?)
//!        │
//!   OpenRoot::start  write owner/<g+1>            ← older generations are fenced from here
//!        │
//!   CheckpointRoot   allocate chk-<n>/ ─ put files ─ publish `_metadata` ─ cleanup
//!                                                     ↑ the checkpoint exists from here
//! ```
//! The lock, the generation and the fence come before the first line that deletes. No lock of ours is held across
//! I/O: `registry` is locked for decisions only.

mod claiming;
mod cleanup;
mod files;
mod gc;
mod open;
mod publish;
mod source;
mod stop;

pub(crate) use claiming::held_claims;
pub use cleanup::CleanupReport;
pub use files::{Reading, SourceReading};
pub use gc::gc;
pub use open::{Candidate, CandidateStanding, OpenRoot, StartOptions};

use crate::{
    CheckpointId, CheckpointStorage, FinishedRecord, ForeignSnapshot, Generation, JobId, Metadata,
    ObjectPath, Place, PutFiles, RootId, SavepointTarget, SnapshotKind, SnapshotRequest,
    claim::Claim,
    finished::FINISHED_BYTES_MAX,
    object::{Birth, ObjectName},
    owner::RestoreSource,
    registry::SharedRegistry,
    survey::read_metadata,
};
use keybed_env::{Fs, fs::FileLock, random::Ids};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Folders of other hands that one allocation steps over before it gives up.
const ALLOCATE_TRIES_MAX: u32 = 1000;

/// An owned job root. Clones share it; the lock is released when the last one is dropped.
#[derive(Clone, Debug)]
pub struct CheckpointRoot {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    storage: Arc<dyn CheckpointStorage>,
    job: JobId,
    root: RootId,
    generation: Generation,
    restored: RestoreSource,
    source: source::Source,
    ids: Mutex<Ids>,
    next_id: Mutex<CheckpointId>,
    registry: Mutex<SharedRegistry>,
    /// One cleanup at a time.
    cleaning: Mutex<()>,
    /// The FINISHED record is durable: nobody goes on. Relaxed: nothing else hangs on it.
    finished: AtomicBool,
    _lock: Box<dyn FileLock>,
}

impl CheckpointRoot {
    /// The job.
    pub fn job(&self) -> JobId {
        self.shared.job
    }

    /// The id of the root.
    pub fn root(&self) -> RootId {
        self.shared.root
    }

    /// The generation of this ownership.
    pub fn generation(&self) -> Generation {
        self.shared.generation
    }

    /// What this generation started from.
    pub fn restored(&self) -> &RestoreSource {
        &self.shared.restored
    }

    /// The snapshot that [`OpenRoot::start_from_snapshot`] was given.
    pub fn source(&self) -> Option<&Arc<ForeignSnapshot>> {
        self.shared.source.snapshot.as_ref()
    }

    /// Opens that snapshot again for a recovery, and keeps it until the value is dropped; `None` if this generation
    /// goes on from a checkpoint of its own root or from nothing.
    ///
    /// # Errors
    /// Those of [`ForeignSnapshot::reopen`].
    pub fn open_source(&self) -> Result<Option<SourceReading>> {
        SourceReading::open(self.shared.clone())
    }

    /// The claim on the snapshot that the job started from, as long as it holds one.
    pub fn claim(&self) -> Option<Claim> {
        self.shared.source.claim.lock().clone()
    }

    /// Gives the claimed snapshot back, whole: the submission failed, or the job has ended and nobody needs it.
    /// Without a claim nothing happens.
    ///
    /// # Errors
    /// `GcRefused` if a checkpoint refers to it; `Busy`, `Locked`, errors of the file system as [`Claim::release`].
    pub fn release_source(&self) -> Result {
        let Some(claim) = self.claim() else {
            return Ok(());
        };
        if !self.shared.registry.lock().outside().is_empty() {
            return Err(Error::new(
                Code::GcRefused,
                "checkpoints of the job refer to the claimed snapshot, or through it",
            )
            .in_file(claim.directory()));
        }
        claim.release()?;
        *self.shared.source.claim.lock() = None;
        Ok(())
    }

    /// Whether the job still needs a snapshot that it did not write: no checkpoint of its own completed since it
    /// started from one and it is not finished, or one that is kept refers to it. While it does, the user must not
    /// delete that.
    pub fn depends_on_source(&self) -> bool {
        let registry = self.shared.registry.lock();
        let awaits = !self.shared.finished.load(Ordering::Relaxed)
            && matches!(self.shared.restored, RestoreSource::Snapshot { .. })
            && registry.timeline().is_empty();
        awaits || !registry.outside().is_empty()
    }

    /// Completed checkpoints that can be restored, newest first.
    pub fn completed(&self) -> Vec<CheckpointId> {
        self.shared.registry.lock().timeline()
    }

    /// The metadata of the newest completed checkpoint; `None` if there is none yet. Checkpoints of unknown outcome
    /// are looked up first.
    ///
    /// # Errors
    /// As [`CheckpointRoot::load`].
    pub fn latest(&self) -> Result<Option<Metadata>> {
        cleanup::resolve_uncertain(&self.shared)?;
        let newest = self.completed().first().copied();
        newest.map(|id| self.load(id)).transpose()
    }

    /// The metadata of a completed checkpoint.
    ///
    /// # Errors
    /// `NotFound`; `SnapshotCorrupt`.
    pub fn load(&self, id: CheckpointId) -> Result<Metadata> {
        read_metadata(&*self.shared.storage, id, Some(self.shared.root))
    }

    /// Allots the next id by creating its folder; the checkpoint is pending from here.
    ///
    /// # Errors
    /// `Fenced` if a newer owner took over; errors of the storage.
    pub fn allocate(&self, kind: SnapshotKind, timestamp_ms: u64) -> Result<SnapshotRequest> {
        self.shared.demand_newest()?;
        for _ in 0..ALLOCATE_TRIES_MAX {
            let checkpoint = {
                let mut next = self.shared.next_id.lock();
                let id = *next;
                // Ids order checkpoints: one that began anew from 0 would be the first that retention deletes.
                let after = id.0.checked_add(1).ok_or_else(|| {
                    Error::new(
                        Code::Busy,
                        "no checkpoint ids are left: remove the folder of the highest one",
                    )
                    .with("id", id)
                })?;
                *next = CheckpointId(after);
                id
            };
            match self.shared.storage.create_checkpoint(checkpoint) {
                Ok(()) => {
                    self.shared.registry.lock().begin(checkpoint);
                    return Ok(SnapshotRequest {
                        checkpoint,
                        kind,
                        timestamp_ms,
                    });
                }
                // A foreign hand took the id; the next one is ours.
                Err(e) if e.code() == Code::TargetExists => {}
                Err(e) => {
                    // The folder may be there all the same; then it goes once a higher id is published.
                    self.shared.registry.lock().found_folder(checkpoint);
                    return Err(e);
                }
            }
        }
        Err(Error::new(Code::Busy, "too many ids in a row are taken").with("limit", ALLOCATE_TRIES_MAX))
    }

    /// Takes files of a pending checkpoint in.
    pub fn put_files(&self, checkpoint: CheckpointId) -> Arc<dyn PutFiles> {
        Arc::new(files::Putting::new(self.shared.clone(), checkpoint))
    }

    /// Where savepoints of this job go. A target of its own would not know which local files a failed sync spoiled.
    pub fn savepoint_target(&self, fs: Arc<dyn Fs>, directory: impl Into<PathBuf>) -> SavepointTarget {
        SavepointTarget::new(fs, directory).sharing(self.shared.storage.intake())
    }

    /// Opens files of a completed checkpoint, which stays until the value is dropped.
    pub fn open_files(&self, checkpoint: CheckpointId) -> Arc<Reading> {
        Arc::new(Reading::new(self.shared.clone(), checkpoint))
    }

    /// Gives a pending checkpoint up. What it uploaded can be referenced until the next checkpoint completes, then it
    /// is swept. Nothing happens to one that is being published.
    pub fn abort(&self, checkpoint: CheckpointId) {
        self.shared.registry.lock().given_up(checkpoint);
    }

    /// Makes the checkpoint exist: writes `_metadata` durably, completely or not at all. Returns older pending
    /// checkpoints that are subsumed by it. Afterwards call [`CheckpointRoot::cleanup`] in the background.
    ///
    /// # Errors
    /// `InvalidArgument` for a savepoint, which must lie outside; `Fenced`; `CheckpointDeclined` if it was aborted or
    /// subsumed; `SnapshotIncomplete` naming referenced objects that are not there; errors of the storage. The checkpoint is then certain not to exist, unless
    /// [`CheckpointRoot::is_unknown`] says otherwise: then nothing of it is deleted before it was read again, and
    /// whoever restores next may find it. The job should restart from [`CheckpointRoot::latest`].
    pub fn publish(&self, metadata: &Metadata) -> Result<Vec<CheckpointId>> {
        publish::publish(&self.shared, metadata)
    }

    /// Whether publishing the checkpoint failed in a way that leaves open whether it exists.
    pub fn is_unknown(&self, checkpoint: CheckpointId) -> bool {
        self.shared.registry.lock().uncertain().contains(&checkpoint)
    }

    /// Deletes what nobody needs: subsumed and void checkpoints, orphans, empty folders. Never blocks on failures:
    /// what could not be deleted is tried again by the next call.
    pub fn cleanup(&self) -> CleanupReport {
        cleanup::cleanup(&self.shared)
    }

    /// Writes the FINISHED record; doing it again changes nothing.
    ///
    /// # Errors
    /// `Fenced`; errors of the storage.
    pub fn finish(&self, checkpoint: Option<CheckpointId>, timestamp_ms: u64) -> Result<FinishedRecord> {
        self.shared.demand_newest()?;
        let Shared {
            job,
            root,
            generation,
            ..
        } = *self.shared;
        let record = FinishedRecord {
            job,
            root,
            generation,
            checkpoint,
            timestamp_ms,
        };
        let written = self.shared.write_finished(record)?;
        // Whoever took over meanwhile does not count the record: it is of an older generation.
        self.shared.demand_newest()?;
        self.shared.finished.store(true, Ordering::Relaxed);
        Ok(written)
    }

    /// After [`CheckpointRoot::finish`]: the next cleanup deletes the job's own checkpoints. Those of abandoned
    /// timelines stay.
    pub fn retain_none(&self) {
        self.shared.registry.lock().retain_none();
    }
}

impl Shared {
    /// Writes the FINISHED record, or finds the one that an earlier attempt of this generation wrote.
    fn write_finished(&self, record: FinishedRecord) -> Result<FinishedRecord> {
        let path = ObjectPath::Finished;
        let put = || {
            let temporary = self.temporary(record.checkpoint.unwrap_or_default())?;
            self.storage.put_new(&path, &record.encode(), &temporary)
        };
        match put() {
            Err(e) if e.code() == Code::TargetExists => {}
            other => return other.map(|()| record),
        }
        let found = FinishedRecord::decode(&self.storage.read(&path, FINISHED_BYTES_MAX)?)
            .map_err(|e| e.in_file(self.storage.describe(&path)))?;
        if found.generation == record.generation {
            // The attempt that wrote it may have failed before its name was durable; checkpoints go next.
            return self.storage.sync(Place::Root).map(|()| found);
        }
        // An older generation wrote it: fenced, or its job was gone on with. It says nothing about this one.
        self.demand_newest()?;
        self.storage.delete(&path)?;
        put().map(|()| record)
    }

    /// Re-reads which owner record is the newest.
    ///
    /// # Errors
    /// `Fenced` if it is not ours.
    fn demand_newest(&self) -> Result {
        let newest = self
            .storage
            .list(Place::Owner)?
            .iter()
            .filter_map(|l| l.name.parse::<Generation>().ok())
            .max();
        if newest == Some(self.generation) {
            return Ok(());
        }
        Err(Error::new(Code::Fenced, "a newer owner took the job root over")
            .with("generation", self.generation)
            .with("newest", newest.unwrap_or_default()))
    }

    fn temporary(&self, checkpoint: CheckpointId) -> Result<ObjectName> {
        let birth = Birth {
            generation: self.generation,
            checkpoint,
        };
        Ok(ObjectName::temporary(birth, self.ids.lock().fresh()?))
    }
}
