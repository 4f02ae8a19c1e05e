//! What a job is started with.

use crate::{
    event::JobEvent,
    job::work_dir,
    plan::JobPlace,
    restart::RestartStrategy,
    restore::Restore,
    task::{AsyncFailure, Seed},
};
use keybed_env::{Clock, Fs, OsFs, Scheduler, SystemClock, random::Ids};
use keybed_snapshot::{JobId, KeyedHandle, PutFiles};
use keybed_state::{BackendOptions, PendingSnapshot};
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

/// Where keyed state lives while the job runs. Snapshots of one backend restore on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In ordered maps in memory; for state that fits there.
    Heap,
    /// In an LSM store in the work directory.
    Lsm {
        /// Bytes at which a memtable is flushed, per family and subtask.
        memtable_bytes: usize,
    },
}

impl Backend {
    /// The LSM store with memtables of 64 MiB.
    pub fn lsm() -> Self {
        Backend::Lsm {
            memtable_bytes: 64 << 20,
        }
    }

    /// What one subtask of node `node` uses: a directory that no other subtask, node or attempt has.
    pub(crate) fn options(self, place: &JobPlace, node: usize, seed: &Seed) -> BackendOptions {
        let dir = place
            .options
            .work_dir
            .join(work_dir::name(seed.attempt, node, seed.subtask));
        let mut options = match self {
            Backend::Heap => BackendOptions::heap(dir),
            Backend::Lsm { memtable_bytes } => BackendOptions {
                memtable_bytes,
                ..BackendOptions::lsm(dir)
            },
        };
        options.fs = place.options.fs.clone();
        options.scheduler = Some(seed.scheduler.clone());
        options.ids = place.ids.lock().fork();
        options
    }
}

/// Writes the asynchronous part of keyed state; gives back its handle and the bytes that were new.
pub(crate) fn write_pending(
    pending: Box<dyn PendingSnapshot>,
    place: &dyn PutFiles,
) -> Result<(KeyedHandle, u64), AsyncFailure> {
    let written = pending.write(place)?;
    Ok((written.handle, written.stats.new_bytes))
}

/// When checkpoints are taken, and where they lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoints {
    /// From one trigger to the next. Shorter: less is done again after a failure.
    pub interval: Duration,
    /// The checkpoint root: `<root>/<job id>/` is the job's own. Created if missing.
    pub root: PathBuf,
    /// Completed checkpoints that are kept, at least 1. Default 3.
    pub retain: u32,
    /// Least time from the end of one checkpoint to the next periodic trigger. Default 0.
    pub min_pause: Duration,
    /// After this long a checkpoint is given up. Default 10 min.
    pub timeout: Duration,
    /// Failures in a row that are borne before the job restarts. Default 0.
    pub tolerable_failures: u32,
    /// Whether the last checkpoints stay when the job is finished. Default: no, its results stand then.
    pub keep_when_finished: bool,
}

impl Checkpoints {
    /// One every `interval` below `root`, the last three kept.
    pub fn every(interval: Duration, root: impl Into<PathBuf>) -> Self {
        Checkpoints {
            interval,
            root: root.into(),
            retain: 3,
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            tolerable_failures: 0,
            keep_when_finished: false,
        }
    }

    /// Keeps the last `count`.
    #[must_use]
    pub fn retain(self, count: u32) -> Self {
        Checkpoints {
            retain: count,
            ..self
        }
    }
}

/// Hears of what happens to a job; called on the job's own threads, so it must be quick.
pub type OnEvent = Arc<dyn Fn(&JobEvent) + Send + Sync>;

/// Everything that a job is started with. Options of the outside (file system, clock, scheduler, ids) have real
/// defaults.
#[derive(Clone)]
pub struct JobOptions {
    /// The job. A job that has checkpoints below [`Checkpoints::root`] goes on from the newest one; default: a new
    /// job.
    pub job: Option<JobId>,
    /// Histories given up for this job: what their sinks left unfinished is removed. Default: none.
    pub abandoned: Vec<JobId>,
    /// A snapshot to start from. The job must be new: one that has checkpoints goes on from those. Until the first
    /// checkpoint of this job a failure goes back to the snapshot. Default: none.
    pub restore: Option<Restore>,
    /// Where snapshots lie now that checkpoints of the job itself refer to and that were moved, by the number that
    /// those checkpoints give them. For [`JobOptions::restore`] say [`Restore::anchor`]. Default: none.
    pub anchors: BTreeMap<u32, PathBuf>,
    /// Subtasks of every source, operator and sink, at least 1. Default 1.
    pub parallelism: u32,
    /// Key groups of every keyed operator: bounds the parallelism for ever. Default: that of the checkpoint, else
    /// the smallest power of two of at least 1.5 × parallelism, within 128…32,768.
    pub max_parallelism: Option<u32>,
    /// Where keyed state lives. Default: LSM.
    pub backend: Backend,
    /// Directory for local stores; those of earlier runs are removed. For one job at a time. Default `keybed-state/work`.
    pub work_dir: PathBuf,
    /// Default: none; then a failure starts the job from the beginning.
    pub checkpoints: Option<Checkpoints>,
    /// Directory in which savepoints are created that are asked for without a target. Default: none.
    pub savepoint_dir: Option<PathBuf>,
    /// Default: exponential if there are checkpoints, else none.
    pub restart: Option<RestartStrategy>,
    /// Records per second of all sources together. Default: as fast as possible.
    pub throttle: Option<u64>,
    /// Records that a source subtask emits in one step at most. Default 1024; tests make it small.
    pub source_step_records: usize,
    /// File system of everything: input, output, state, checkpoints. Default: the operating system's.
    pub fs: Arc<dyn Fs>,
    /// Default: the operating system's.
    pub clock: Arc<dyn Clock>,
    /// Who runs tasks and background jobs. Default `None`: a thread for each task and two for background jobs.
    pub scheduler: Option<Arc<dyn Scheduler>>,
    /// Where ids come from, and the jitter of restarts. Default: entropy; anything else is for simulation only.
    pub ids: Ids,
    /// Default: nobody listens.
    pub on_event: Option<OnEvent>,
}

impl Default for JobOptions {
    fn default() -> Self {
        JobOptions {
            job: None,
            abandoned: Vec::new(),
            restore: None,
            anchors: BTreeMap::new(),
            parallelism: 1,
            max_parallelism: None,
            backend: Backend::lsm(),
            work_dir: PathBuf::from("keybed-state/work"),
            checkpoints: None,
            savepoint_dir: None,
            restart: None,
            throttle: None,
            source_step_records: 1024,
            fs: Arc::new(OsFs),
            clock: Arc::new(SystemClock::new()),
            scheduler: None,
            ids: Ids::Entropy,
            on_event: None,
        }
    }
}

impl fmt::Debug for JobOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOptions")
            .field("job", &self.job)
            .field("parallelism", &self.parallelism)
            .field("backend", &self.backend)
            .field("work_dir", &self.work_dir)
            .field("checkpoints", &self.checkpoints)
            .finish_non_exhaustive()
    }
}
