//! Checkpoints in a job root on a file system.

use super::storage::{Publication, Restored, Storage};
use crate::options::Checkpoints;
use keybed_env::{Clock, Fs, random::Ids};
use keybed_format::{Error, Result};
use keybed_snapshot::{
    CheckpointId, CheckpointRoot, JobId, LocalStorage, Metadata, OpenRoot, PutFiles, SnapshotKind,
    StartOptions, verify,
};
use std::{collections::BTreeMap, sync::Arc};

/// The root of a job, owned by this process.
pub(super) struct RootStorage {
    root: CheckpointRoot,
    clock: Arc<dyn Clock>,
    keep_when_finished: bool,
}

impl RootStorage {
    /// Locks the root, finds what to go on from, and becomes its owner.
    ///
    /// # Errors
    /// `Locked`, `Fenced`; `SnapshotCorrupt` if the newest checkpoint cannot be read; `InvalidArgument` if the job
    /// is finished.
    pub(super) fn open(
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        job: JobId,
        checkpoints: &Checkpoints,
        ids: Ids,
    ) -> Result<Self> {
        let storage = Arc::new(LocalStorage::create(fs, &checkpoints.root, job)?);
        let open = OpenRoot::open(storage, job)?;
        if open.finished().is_some() {
            return Err(
                Error::invalid("the job is finished; there is nothing to go on with").with("job", job),
            );
        }
        let restore = open.latest()?.map(|metadata| metadata.checkpoint);
        let retain = checkpoints.retain.max(1) as usize;
        let root = open.start(StartOptions {
            restore,
            retain,
            ids,
            started_ms: clock.wall_millis(),
        })?;
        let keep_when_finished = checkpoints.keep_when_finished;
        Ok(RootStorage {
            root,
            clock,
            keep_when_finished,
        })
    }

    /// Makes attempts unique over the life of the job.
    pub(super) fn generation(&self) -> u64 {
        self.root.generation().0
    }
}

impl Storage for RootStorage {
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
        Ok(restored.map(|(metadata, files)| Restored { metadata, files }))
    }

    fn allot(&self) -> Result<CheckpointId> {
        let request = self
            .root
            .allocate(SnapshotKind::Checkpoint, self.clock.wall_millis())?;
        Ok(request.checkpoint)
    }

    fn place(&self, checkpoint: CheckpointId) -> Result<Arc<dyn PutFiles>> {
        Ok(self.root.put_files(checkpoint))
    }

    fn publish(&self, publication: Publication) -> Result {
        let Publication {
            checkpoint,
            timestamp_ms,
            operators,
            name,
        } = publication;
        let metadata = Metadata {
            job: self.root.job(),
            root: self.root.root(),
            generation: self.root.generation(),
            checkpoint,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms,
            externals: Vec::new(),
            operators,
            properties: BTreeMap::from([("job-name".into(), name)]),
        };
        self.root.publish(&metadata).map(drop)
    }

    fn abort(&self, checkpoint: CheckpointId) {
        self.root.abort(checkpoint);
    }

    fn clean(&self) -> Result {
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
}
