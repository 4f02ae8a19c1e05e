//! A running job and the handle by which it is watched and stopped.

mod attempt;
pub(crate) mod driver;
mod restore;
mod root;
mod savepoint;
mod storage;
pub(crate) mod work_dir;

use crate::{
    element::SavepointFormat,
    event::{JobReport, Outcome},
    mailbox::Mailbox,
    metrics::{NodeCounters, NodeMetrics},
    options::JobOptions,
    plan::{JobPlace, Named, Role},
    promise::Promise,
    restart::RestartStrategy,
    restore::{AllowNonRestored, Restore},
    source::Throttle,
};
use driver::{Driver, DriverMail, Request, SavepointAsk};
use keybed_env::{Scheduler, TaskHandle, ThreadScheduler, sched::TaskEnd};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    CheckpointId, ClaimMode, JobId, SnapshotDir, check_parallelism, key_group::MAX_PARALLELISM_MAX,
    savepoint::resolve_target,
};
use parking_lot::Mutex;
pub use savepoint::{SavepointReport, SavepointTicket};
use std::{path::Path, sync::Arc, time::Duration};
use storage::{NoStorage, Source, Storage};

/// What driver and handle share.
pub(crate) struct Shared {
    pub(crate) place: Arc<JobPlace>,
    pub(crate) progress: Mutex<Progress>,
    /// The end of the job.
    pub(crate) end: Promise<Result<Outcome>>,
    started: Duration,
}

/// Counts that only the driver changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) attempts: u64,
    pub(crate) checkpoints: u64,
    pub(crate) last_checkpoint: Option<CheckpointId>,
    pub(crate) ended: Option<(Outcome, Duration)>,
}

/// A running job. Dropping the handle leaves the job running.
pub struct Job {
    shared: Arc<Shared>,
    inbox: Mailbox<DriverMail>,
    scheduler: Arc<dyn Scheduler>,
    driver: TaskHandle,
}

/// Starts a job; see [`Pipeline::start`](crate::Pipeline::start).
pub(crate) fn start(name: &str, nodes: Vec<Named>, mut options: JobOptions) -> Result<Job> {
    let widest = options.max_parallelism.unwrap_or(MAX_PARALLELISM_MAX);
    check_parallelism(widest, options.parallelism)?;
    let job = match options.job {
        Some(job) => job,
        None => JobId(options.ids.fresh()?),
    };
    options.job = Some(job);
    // Found out before anything is locked or written.
    if let Some(restore) = &options.restore {
        refuse_unbuilt(restore)?;
    }
    let source = options.restore.as_ref().map(|restore| Source {
        fs: options.fs.clone(),
        path: restore.path.clone(),
    });
    let snapshot = source
        .as_ref()
        .map(|s| SnapshotDir::open(s.fs.clone(), &s.path))
        .transpose()?;
    if let Some(snapshot) = &snapshot {
        snapshot.check_complete()?;
        if snapshot.metadata().job == job {
            let what = "a snapshot of the job itself; start a new job from it, or go on from its checkpoints";
            return Err(Error::invalid(what)
                .in_file(snapshot.directory())
                .with("job", job));
        }
    }
    let metadata = snapshot.as_ref().map(SnapshotDir::metadata);
    restore::plan(&nodes, options.parallelism, options.max_parallelism, metadata)?;
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
            let (fs, clock, ids) = (options.fs.clone(), options.clock.clone(), options.ids.fork());
            let root = root::RootStorage::open(fs, clock, job, checkpoints, (source, ids))?;
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
        progress: Mutex::default(),
        end,
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
    Ok(Job {
        shared,
        inbox,
        scheduler,
        driver,
    })
}

/// What a start from a snapshot cannot do yet.
fn refuse_unbuilt(restore: &Restore) -> Result {
    let unbuilt = [
        ("claim", restore.claim != ClaimMode::NoClaim),
        (
            "allow_non_restored",
            restore.allow_non_restored != AllowNonRestored::None,
        ),
        ("renames", !restore.renames.is_empty()),
        ("anchors", !restore.anchors.is_empty()),
        ("accept_lost_transactions", restore.accept_lost_transactions),
    ];
    match unbuilt.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((option, _)) => Err(Error::invalid(
            "this option of a start from a snapshot is not supported by this version",
        )
        .in_file(&restore.path)
        .with("option", option)),
    }
}

impl Job {
    /// The job's id, stable over resumes.
    pub fn id(&self) -> JobId {
        self.shared.place.job
    }

    /// Whether the job is over.
    pub fn is_ended(&self) -> bool {
        self.shared.end.is_kept() || self.driver.ended().is_some()
    }

    /// Waits for the end of the job. For threads that are not the scheduler's; a simulation steps its scheduler
    /// until [`Job::is_ended`] and calls this then.
    ///
    /// # Errors
    /// Why the job failed: the error of the task or of the storage that its restart strategy did not bear, as it
    /// was met. `InterruptedRun` never comes from here.
    pub fn wait(&self) -> Result<JobReport> {
        let read = |end: &Result<Outcome>| match end {
            Ok(_) => Ok(()),
            Err(e) => Err(e.duplicate()),
        };
        match self
            .shared
            .end
            .wait(&*self.scheduler, read, || self.driver.ended().is_some())
        {
            Some(end) => end.map(|()| self.status()),
            None => Err(self.lost()),
        }
    }

    fn lost(&self) -> Error {
        let why = match self.driver.ended() {
            Some(TaskEnd::Panicked(why)) => why,
            _ => "it went away".into(),
        };
        Error::new(
            Code::JobFailed,
            format!("the job's driver ended without an outcome: {why}"),
        )
    }

    /// Takes a last checkpoint and ends the job, so that a resume goes on from there. Returns at once;
    /// [`Job::wait`] tells the outcome. A job that finishes first is finished; one that fails before the checkpoint
    /// is complete, or waits to be restarted, ends with that failure, and a resume goes on from the checkpoint
    /// before.
    ///
    /// # Errors
    /// `InvalidArgument` if the job has no checkpoints.
    pub fn stop_gracefully(&self) -> Result {
        if self.shared.place.options.checkpoints.is_none() {
            return Err(Error::invalid(
                "a job without checkpoints cannot be stopped so that it goes on",
            ));
        }
        self.inbox.post(DriverMail::Request(Request::Stop));
        Ok(())
    }

    /// Ends the job without a checkpoint. Returns at once; [`Job::wait`] tells the outcome.
    pub fn cancel(&self) {
        self.inbox.post(DriverMail::Request(Request::Cancel));
    }

    /// Asks for a checkpoint that is triggered after this call; it counts like a periodic one.
    pub fn request_checkpoint(&self) -> CheckpointTicket {
        let answer = Promise::new();
        self.inbox
            .post(DriverMail::Request(Request::Checkpoint(answer.clone())));
        CheckpointTicket {
            answer,
            scheduler: self.scheduler.clone(),
            driver: self.driver.clone(),
        }
    }

    /// Takes a checkpoint now and waits for it. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// `CheckpointDeclined` with the reason.
    pub fn checkpoint_now(&self) -> Result<CheckpointId> {
        self.request_checkpoint().wait()
    }

    /// Asks for a savepoint in a new directory below `target`, or below [`JobOptions::savepoint_dir`]. It is taken
    /// beside the checkpoints, under an id of their counter: no recovery of this job uses it, retention does not see
    /// it, and no sink commits for it; what it names is committed by the next checkpoint. If it fails, the job goes on
    /// and no directory stays.
    ///
    /// # Errors
    /// `NoTargetDirectory` if neither is given; `InvalidArgument` if the job has no checkpoints.
    pub fn request_savepoint(
        &self,
        format: SavepointFormat,
        target: Option<&Path>,
    ) -> Result<SavepointTicket> {
        let options = &self.shared.place.options;
        let target = resolve_target(target, options.savepoint_dir.as_deref())?;
        if options.checkpoints.is_none() {
            return Err(Error::invalid("a job without checkpoints takes no savepoints"));
        }
        let answer = Promise::new();
        self.inbox
            .post(DriverMail::Request(Request::Savepoint(SavepointAsk {
                format,
                target,
                answer: answer.clone(),
            })));
        Ok(SavepointTicket::new(
            answer,
            self.scheduler.clone(),
            self.driver.clone(),
        ))
    }

    /// Takes a savepoint and waits for it. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// Those of [`Job::request_savepoint`] and [`SavepointTicket::wait`].
    pub fn savepoint(&self, format: SavepointFormat, target: Option<&Path>) -> Result<SavepointReport> {
        self.request_savepoint(format, target)?.wait()
    }

    /// What the job has done up to now.
    pub fn status(&self) -> JobReport {
        let Shared {
            place,
            progress,
            started,
            ..
        } = &*self.shared;
        let progress = *progress.lock();
        let all: Vec<_> = place.counters.iter().map(|c| c.read()).collect();
        let source_records = place.sources.iter().map(|&i| all[i].records).sum();
        // The second half of a sink works under the uid of the first.
        let mut nodes: Vec<NodeMetrics> = Vec::new();
        for node in all {
            if nodes.iter().all(|known| known.uid != node.uid) {
                nodes.push(node);
            }
        }
        let now = progress
            .ended
            .map_or_else(|| place.options.clock.monotonic(), |(_, at)| at);
        JobReport {
            job: place.job,
            outcome: progress.ended.map(|(outcome, _)| outcome),
            duration: now.saturating_sub(*started),
            attempts: progress.attempts,
            checkpoints: progress.checkpoints,
            last_checkpoint: progress.last_checkpoint,
            source_records,
            nodes,
        }
    }
}

/// A checkpoint that was asked for.
pub struct CheckpointTicket {
    answer: Promise<Result<CheckpointId>>,
    scheduler: Arc<dyn Scheduler>,
    driver: TaskHandle,
}

impl CheckpointTicket {
    /// The outcome, if it is known.
    pub fn outcome(&self) -> Option<Result<CheckpointId>> {
        self.answer.read(copy)
    }

    /// Waits for the outcome. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// `CheckpointDeclined` with the reason; `Closed` if the job is over.
    pub fn wait(&self) -> Result<CheckpointId> {
        self.answer
            .wait(&*self.scheduler, copy, || self.driver.ended().is_some())
            .unwrap_or_else(|| Err(Error::new(Code::Closed, "the job is over")))
    }
}

fn copy(outcome: &Result<CheckpointId>) -> Result<CheckpointId> {
    match outcome {
        Ok(id) => Ok(*id),
        Err(e) => Err(e.duplicate()),
    }
}

/// Which nodes are sources.
fn sources(nodes: &[Named]) -> Vec<usize> {
    (0..nodes.len())
        .filter(|&i| nodes[i].node.role() == Role::Source)
        .collect()
}
