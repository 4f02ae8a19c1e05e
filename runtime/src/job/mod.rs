//! Starting a job.

mod attempt;
pub(crate) mod check;
pub(crate) mod driver;
mod handle;
mod outside;
mod rename;
mod restore;
mod root;
mod savepoint;
mod state;
mod stop;
mod storage;
pub(crate) mod work_dir;

use crate::{
    check::RestoreWarning,
    event::Outcome,
    mailbox::Mailbox,
    metrics::NodeCounters,
    options::JobOptions,
    plan::{JobPlace, Named, Role},
    promise::Promise,
    restart::RestartStrategy,
    source::Throttle,
};
use check::Depth;
use driver::Driver;
pub use handle::{CheckpointTicket, Job, JobHandle};
use keybed_env::ThreadScheduler;
use keybed_format::{Error, Result};
use keybed_snapshot::{CheckpointId, ClaimMode, JobId};
use parking_lot::Mutex;
pub use savepoint::{SavepointOptions, SavepointReport, SavepointTicket};
pub use state::JobState;
use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};
use storage::{NoStorage, Storage};

/// What driver and handle share.
pub(crate) struct Shared {
    pub(crate) place: Arc<JobPlace>,
    pub(crate) progress: Mutex<Progress>,
    /// The end of the job.
    pub(crate) end: Promise<Result<Outcome>>,
    /// Directory of the snapshot that the job was started from.
    pub(crate) source: Option<(PathBuf, ClaimMode)>,
    /// What is to be known about it.
    pub(crate) warnings: Vec<RestoreWarning>,
    /// Gone with the driver, so that no handle keeps the root locked.
    pub(crate) storage: Weak<dyn Storage>,
    started: Duration,
}

/// Counts that only the driver changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) state: JobState,
    pub(crate) attempts: u64,
    pub(crate) checkpoints: u64,
    pub(crate) last_checkpoint: Option<CheckpointId>,
    pub(crate) stopped_with: Option<PathBuf>,
    pub(crate) drained: bool,
    pub(crate) ended: Option<(Outcome, Duration)>,
    /// Whether the snapshot that the job was started from must stay.
    pub(crate) needs_source: bool,
}

/// Starts a job; see [`Pipeline::start`](crate::Pipeline::start).
pub(crate) fn start(name: &str, nodes: Vec<Named>, mut options: JobOptions) -> Result<Job> {
    let job = match options.job {
        Some(job) => job,
        None => JobId(options.ids.fresh()?),
    };
    options.job = Some(job);
    // Found out before anything is locked, written or claimed.
    let (report, source) = check::check(&nodes, &options, Depth::Presence);
    report.verdict()?;
    if let Some(snapshot) = report.snapshot.as_ref().filter(|snapshot| snapshot.job == job) {
        let what = "a snapshot of the job itself; start a new job from it, or go on from its checkpoints";
        return Err(Error::invalid(what).in_file(&snapshot.location).with("job", job));
    }
    for named in &nodes {
        named
            .node
            .check(&*options.fs, job)
            .map_err(|e| e.context(named.uid.to_string()))?;
    }
    let scheduler = options
        .scheduler
        .clone()
        .unwrap_or_else(|| Arc::new(ThreadScheduler::new(2)));
    let generation = options.ids.fresh()? as u64 >> 33;
    let (storage, generation): (Arc<dyn Storage>, u64) = match &options.checkpoints {
        None => (Arc::new(NoStorage::from(source)), generation),
        Some(checkpoints) => {
            let ids = options.ids.fork();
            let root = root::RootStorage::open(&options, job, checkpoints, (source, ids))?;
            let generation = root.generation();
            (Arc::new(root), generation)
        }
    };
    let restart = options.restart.clone().unwrap_or(match &options.checkpoints {
        Some(_) => RestartStrategy::exponential(),
        None => RestartStrategy::None,
    });
    let counters = nodes.iter().map(|n| NodeCounters::new(n.uid.clone())).collect();
    let throttle = options
        .throttle
        .map(|rate| Arc::new(Throttle::new(options.clock.clone(), rate)));
    let ids = Mutex::new(options.ids.fork());
    let clock = options.clock.clone();
    let sources = sources(&nodes);
    let place = Arc::new(JobPlace {
        job,
        options,
        throttle,
        ids,
        generation,
        counters,
        sources,
    });
    let end = Promise::new();
    let shared = Arc::new(Shared {
        place,
        progress: Mutex::new(Progress {
            needs_source: storage.needs_source(),
            ..Progress::default()
        }),
        end,
        source: storage.origin(),
        warnings: report.warnings,
        storage: Arc::downgrade(&storage),
        started: clock.monotonic(),
    });
    let inbox = Mailbox::new();
    let driver = Driver::new(
        name.into(),
        nodes,
        shared.clone(),
        storage,
        scheduler.clone(),
        inbox.clone(),
        restart,
    );
    let driver = scheduler.spawn("keybed-driver", driver.builder());
    Ok(Job::new(JobHandle {
        shared,
        inbox,
        scheduler,
        driver,
    }))
}

/// Which nodes are sources.
fn sources(nodes: &[Named]) -> Vec<usize> {
    (0..nodes.len())
        .filter(|&i| nodes[i].node.role() == Role::Source)
        .collect()
}
