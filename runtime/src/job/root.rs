//! Checkpoints in a job root on a file system.

use super::{
    check::DRAINED,
    stop::Stop,
    storage::{Publication, Restored, Source, StopAsk, Stopped, Storage},
};
use crate::{
    options::{Checkpoints, JobOptions},
    restore::Restore,
};
use keybed_env::{Clock, Fs, random::Ids};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    Anchors, Birth, CheckpointId, CheckpointRoot, ClaimMode, GcOptions, GcReport, JobId, LocalStorage,
    Metadata, OpenRoot, PutFiles, SavepointWriter, SnapshotKind, SnapshotOwner, StartOptions, StopRecord,
    verify,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The root of a job, owned by this process.
pub(super) struct RootStorage {
    root: CheckpointRoot,
    clock: Arc<dyn Clock>,
    keep_when_finished: bool,
    fs: Arc<dyn Fs>,
    ids: Mutex<Ids>,
    /// How the snapshot is taken that the job is started from.
    restore: Option<Restore>,
    /// The snapshot that the job was started from.
    origin: Option<(PathBuf, ClaimMode)>,
    /// The savepoint under way. Locked for a look only.
    savepoint: Mutex<Option<(CheckpointId, Arc<SavepointWriter>)>>,
    stop: Stop,
}

impl RootStorage {
    /// Locks the root, finds what to go on from, and becomes its owner.
    ///
    /// # Errors
    /// `Locked`, `Fenced`; `SnapshotCorrupt` if the newest checkpoint cannot be read; `InvalidArgument` if the job
    /// is finished.
    pub(super) fn open(
        options: &JobOptions,
        job: JobId,
        checkpoints: &Checkpoints,
        (source, mut ids): (Option<Source>, Ids),
    ) -> Result<Self> {
        let (fs, clock) = (options.fs.clone(), options.clock.clone());
        let anchors = Anchors::from(options.anchors.clone());
        let storage = Arc::new(LocalStorage::create(fs.clone(), &checkpoints.root, job)?);
        let open = OpenRoot::open(storage, job)?.with_anchors(anchors);
        let stop = Stop::new(fs.clone(), open.stop());
        if let Some(finished) = open.finished() {
            let error =
                Error::invalid("the job is finished; there is nothing to go on with").with("job", job);
            let with = open
                .stop()
                .filter(|stop| finished.checkpoint == Some(stop.record.checkpoint));
            return Err(match with {
                Some(stop) => error.with("savepoint", stop.record.directory.display()),
                None => error,
            });
        }
        // Then no checkpoint is gone on from, and no snapshot.
        let stopped = stop.look()?.is_some();
        let restore = match &source {
            _ if stopped => None,
            Some(_) if open.awaits_snapshot() => None,
            _ => open.latest()?.map(|metadata| metadata.checkpoint),
        };
        if let (Some(source), Some(newest)) = (&source, restore) {
            return Err(Error::invalid(
                "the job has checkpoints of its own; start a new job from the snapshot",
            )
            .in_file(&source.restore.path)
            .with("newest", newest));
        }
        let retain = checkpoints.retain.max(1) as usize;
        let start = StartOptions {
            restore,
            retain,
            ids: ids.fork(),
            started_ms: clock.wall_millis(),
        };
        let known = open.origin().map(|(path, mode)| (path.to_path_buf(), mode));
        let (root, restore, origin) = match source {
            _ if stopped => (open.start_stopped(start)?, None, known),
            Some(Source { restore, snapshot }) => {
                let origin = (snapshot.location().to_path_buf(), restore.claim);
                let root = open.start_from_snapshot(snapshot, restore.claim, start)?;
                (root, Some(restore), Some(origin))
            }
            None => (open.start(start)?, None, known),
        };
        let keep_when_finished = checkpoints.keep_when_finished;
        Ok(RootStorage {
            root,
            clock,
            keep_when_finished,
            fs,
            ids: Mutex::new(ids),
            restore,
            origin,
            savepoint: Mutex::default(),
            stop,
        })
    }

    /// Makes attempts unique over the life of the job.
    pub(super) fn generation(&self) -> u64 {
        self.root.generation().0
    }

    /// Publishes the savepoint that ends the job. Its recovery is that of the root, so a stale owner must not.
    fn publish_stop(&self, writer: &SavepointWriter, metadata: &Metadata) -> Result {
        if let Err(fenced) = self.root.demand_owner() {
            // The failure is what the caller must hear of.
            let _ = writer.abandon();
            return Err(fenced);
        }
        match writer.publish(metadata) {
            Ok(()) => self
                .root
                .demand_owner()
                .inspect_err(|_| self.stop.in_question())?,
            Err(error) => {
                if writer.is_unknown() {
                    self.stop.in_question();
                }
                return Err(error);
            }
        }
        self.stop.published();
        // Before anybody is told where it lies, and may move it. What fails here is tried again before sinks commit.
        let _ = self.stop.confirm(&self.root);
        Ok(())
    }

    fn take_savepoint(&self, checkpoint: CheckpointId) -> Option<Arc<SavepointWriter>> {
        let taken = self.savepoint.lock().take_if(|(id, _)| *id == checkpoint);
        taken.map(|(_, writer)| writer)
    }
}

impl Storage for RootStorage {
    fn stopped(&self) -> Result<Option<Stopped>> {
        self.stop.settle(&self.root)
    }

    fn take_undone(&self) -> Vec<(CheckpointId, u64)> {
        self.stop.take_undone()
    }

    fn is_stop_open(&self) -> bool {
        self.stop.is_uncertain()
    }

    fn latest(&self) -> Result<Option<Restored>> {
        // What could not be deleted keeps nobody from starting; it is tried again after the next checkpoint.
        let _ = self.clean();
        let restored = self.root.latest()?.map(|metadata| {
            let files = self.root.open_files(metadata.checkpoint);
            (metadata, files)
        });
        // Every time: what failed the last attempt may have been damage that lies in the checkpoint, too.
        if let Some((metadata, files)) = &restored {
            verify(metadata, &**files).verdict()?;
        }
        if let Some((metadata, files)) = restored {
            return Ok(Some(Restored {
                metadata,
                foreign: false,
                files,
            }));
        }
        match (self.root.open_source()?, &self.restore) {
            (Some(source), Some(restore)) => {
                let source = Arc::new(source);
                super::storage::restored(source.snapshot(), source.clone(), restore).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn allot(&self) -> Result<CheckpointId> {
        let request = self
            .root
            .allocate(SnapshotKind::Checkpoint, self.clock.wall_millis())?;
        Ok(request.checkpoint)
    }

    fn allot_savepoint(
        &self,
        target: &Path,
        hard_links: bool,
        stop: Option<StopAsk>,
    ) -> Result<(CheckpointId, PathBuf)> {
        let checkpoint = self.allot()?;
        // The root keeps the number from being given again, and nothing else of a savepoint.
        self.root.abort(checkpoint);
        let birth = Birth {
            generation: self.root.generation(),
            checkpoint,
        };
        let ids = self.ids.lock().fork();
        let job = self.root.job();
        let target_at = |directory: &Path| {
            let target = self.root.savepoint_target(self.fs.clone(), directory);
            if hard_links {
                target.with_hard_links()
            } else {
                target
            }
        };
        let writer = match stop {
            None => target_at(target).begin(job, birth, ids)?,
            Some(StopAsk { attempt, drained }) => {
                let record = |directory: &Path| StopRecord {
                    job,
                    root: self.root.root(),
                    generation: birth.generation,
                    attempt,
                    checkpoint,
                    drained,
                    timestamp_ms: self.clock.wall_millis(),
                    directory: directory.to_path_buf(),
                };
                // Another process must find it.
                let target = target_at(&self.fs.absolute(target)?);
                target
                    .begin_announced(job, birth, ids, &mut |directory| {
                        self.stop.begin(&self.root, &record(directory))
                    })
                    .inspect_err(|_| self.stop.give_up(&self.root, checkpoint))?
            }
        };
        let directory = writer.directory().to_path_buf();
        *self.savepoint.lock() = Some((checkpoint, writer));
        Ok((checkpoint, directory))
    }

    fn may_exist(&self, savepoint: CheckpointId) -> bool {
        let current = self.savepoint.lock();
        current
            .as_ref()
            .is_some_and(|(id, writer)| *id == savepoint && writer.is_unknown())
    }

    fn abandon_savepoint(&self, checkpoint: CheckpointId) {
        if let Some(writer) = self.take_savepoint(checkpoint) {
            // What cannot be removed is no savepoint: it has no metadata.
            let _ = writer.abandon();
        }
        self.stop.give_up(&self.root, checkpoint);
    }

    fn place(&self, checkpoint: CheckpointId) -> Result<Arc<dyn PutFiles>> {
        let savepoint = self.savepoint.lock().clone();
        if let Some((_, writer)) = savepoint.filter(|(id, _)| *id == checkpoint) {
            return Ok(writer);
        }
        Ok(self.root.put_files(checkpoint))
    }

    fn publish(&self, publication: Publication) -> Result {
        let Publication {
            checkpoint,
            kind,
            timestamp_ms,
            operators,
            name,
            drained,
        } = publication;
        let mut metadata = Metadata {
            job: self.root.job(),
            root: self.root.root(),
            generation: self.root.generation(),
            checkpoint,
            kind,
            timestamp_ms,
            externals: Vec::new(),
            operators,
            properties: BTreeMap::from([("job-name".into(), name)]),
        };
        if drained {
            metadata.properties.insert(DRAINED.into(), "true".into());
        }
        match kind.owner() {
            SnapshotOwner::Job => self.root.publish(&metadata).map(drop),
            SnapshotOwner::User => match self.take_savepoint(checkpoint) {
                Some(writer) if self.stop.is_of(checkpoint) => self.publish_stop(&writer, &metadata),
                Some(writer) => writer.publish(&metadata).inspect_err(|_| {
                    if writer.is_unknown() {
                        *self.savepoint.lock() = Some((checkpoint, writer.clone()));
                    }
                }),
                None => Err(Error::new(Code::CheckpointDeclined, "the savepoint was given up")),
            },
        }
    }

    fn abort(&self, checkpoint: CheckpointId) {
        self.root.abort(checkpoint);
    }

    fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        self.root.gc(options)
    }

    fn clean(&self) -> Result {
        self.stop.undo(&self.root);
        self.root.cleanup().error.map_or(Ok(()), Err)
    }

    fn finish(&self, checkpoint: Option<CheckpointId>) -> Result {
        self.root.finish(checkpoint, self.clock.wall_millis())?;
        if !self.keep_when_finished {
            self.root.retain_none();
            // The job is finished; checkpoints that could not be removed take space and nothing else.
            let _ = self.root.cleanup();
        }
        Ok(())
    }

    fn needs_source(&self) -> bool {
        self.root.depends_on_source()
    }

    fn origin(&self) -> Option<(PathBuf, ClaimMode)> {
        self.origin.clone()
    }

    fn release_source(&self) -> Result {
        match &self.restore {
            Some(_) => self.root.release_source(),
            // An earlier process began with it.
            None => Ok(()),
        }
    }
}
