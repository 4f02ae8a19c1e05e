//! The handle by which a running job is watched and stopped, from any thread.

use super::{SavepointOptions, SavepointReport, SavepointTicket, Shared, savepoint::closed};
use crate::{
    element::{CheckpointScope, Purpose, SavepointFormat},
    event::{JobReport, Outcome},
    job::driver::{CheckpointAsk, DriverMail, Request, SavepointAsk},
    mailbox::Mailbox,
    metrics::NodeMetrics,
    promise::Promise,
};
use keybed_env::{Scheduler, TaskHandle, sched::TaskEnd};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, GcOptions, GcReport, JobId, savepoint::resolve_target};
use std::{ops::Deref, path::Path, sync::Arc};

/// A running job, as [`Pipeline::start`](crate::Pipeline::start) gives it. Dropping it leaves the job running. Its verbs
/// are those of [`JobHandle`].
pub struct Job(JobHandle);

impl Job {
    pub(super) fn new(handle: JobHandle) -> Self {
        Job(handle)
    }

    /// Another handle of the same job, for another thread.
    pub fn handle(&self) -> JobHandle {
        self.0.clone()
    }
}

impl Deref for Job {
    type Target = JobHandle;

    fn deref(&self) -> &JobHandle {
        &self.0
    }
}

/// Watches and stops a job. Clones are handles of the same job; all verbs may be called from any thread, also after
/// the end of the job.
#[derive(Clone)]
pub struct JobHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Mailbox<DriverMail>,
    pub(super) scheduler: Arc<dyn Scheduler>,
    pub(super) driver: TaskHandle,
}

/// A server keeps handles in its threads.
const _: () = {
    const fn crosses_threads<T: Clone + Send + Sync + 'static>() {}
    crosses_threads::<JobHandle>();
    crosses_threads::<CheckpointTicket>();
    crosses_threads::<SavepointTicket>();
};

impl JobHandle {
    /// The job's id, stable over resumes.
    pub fn id(&self) -> JobId {
        self.shared.place.job
    }

    /// What it was started with.
    #[cfg(feature = "server")]
    pub(crate) fn options(&self) -> &crate::options::JobOptions {
        &self.shared.place.options
    }

    /// Whether the job is over.
    pub fn is_ended(&self) -> bool {
        self.shared.end.is_kept() || self.driver.ended().is_some()
    }

    /// Waits for the end of the job. For threads that are not the scheduler's; a simulation steps its scheduler
    /// until [`JobHandle::is_ended`] and calls this then.
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
    /// [`JobHandle::wait`] tells the outcome. A job that finishes first is finished; one that fails before the checkpoint
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

    /// Ends the job without a checkpoint. Returns at once; [`JobHandle::wait`] tells the outcome.
    pub fn cancel(&self) {
        self.inbox.post(DriverMail::Request(Request::Cancel));
    }

    /// Asks for a checkpoint that is triggered after this call; it counts like a periodic one.
    pub fn request_checkpoint(&self, scope: CheckpointScope) -> CheckpointTicket {
        let answer = Promise::new();
        self.inbox
            .post(DriverMail::Request(Request::Checkpoint(CheckpointAsk {
                scope,
                answer: answer.clone(),
            })));
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
        self.request_checkpoint(CheckpointScope::Configured).wait()
    }

    /// Asks for a savepoint in a new directory below `target`, or below [`JobOptions::savepoint_dir`](crate::JobOptions::savepoint_dir). It is taken
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
        self.request_savepoint_with(&SavepointOptions::new(format, target))
    }

    /// As [`JobHandle::request_savepoint`], with all there is to say.
    ///
    /// # Errors
    /// Those of [`JobHandle::request_savepoint`]; `InvalidArgument` for links of a canonical savepoint.
    pub fn request_savepoint_with(&self, how: &SavepointOptions) -> Result<SavepointTicket> {
        self.ask_for_savepoint(how, Purpose::Savepoint(how.format))
    }

    fn ask_for_savepoint(&self, how: &SavepointOptions, purpose: Purpose) -> Result<SavepointTicket> {
        let options = &self.shared.place.options;
        let target = resolve_target(how.target.as_deref(), options.savepoint_dir.as_deref())?;
        if options.checkpoints.is_none() {
            return Err(Error::invalid("a job without checkpoints takes no savepoints"));
        }
        if how.hard_links && how.format == SavepointFormat::Canonical {
            return Err(Error::invalid(
                "a canonical savepoint is written anew: there is nothing to link",
            ));
        }
        let answer = Promise::new();
        let ask = SavepointAsk {
            format: how.format,
            purpose,
            target,
            hard_links: how.hard_links,
            answer: answer.clone(),
        };
        self.inbox.post(DriverMail::Request(Request::Savepoint(ask)));
        let (scheduler, driver) = (self.scheduler.clone(), self.driver.clone());
        Ok(SavepointTicket::new(answer, scheduler, driver))
    }

    /// Takes a savepoint and waits for it. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// Those of [`JobHandle::request_savepoint`] and [`SavepointTicket::wait`].
    pub fn savepoint(&self, format: SavepointFormat, target: Option<&Path>) -> Result<SavepointReport> {
        self.request_savepoint(format, target)?.wait()
    }

    /// Asks for a savepoint below `target`, or below [`JobOptions::savepoint_dir`](crate::JobOptions::savepoint_dir), after which the job is over: no
    /// record after its barrier is processed, sinks commit what it names, and [`JobHandle::wait`] says
    /// [`Outcome::Finished`]. With `drain` the sources end their input first, so all timers and windows fire and the
    /// result is complete; without it the job can be continued from the savepoint. The ticket is kept when the
    /// savepoint is published. If it fails before, the job goes on.
    ///
    /// # Errors
    /// `NoTargetDirectory` if neither is given; `InvalidArgument` if the job has no checkpoints.
    pub fn request_stop_with_savepoint(
        &self,
        format: SavepointFormat,
        target: Option<&Path>,
        drain: bool,
    ) -> Result<SavepointTicket> {
        self.request_stop_with(&SavepointOptions::new(format, target), drain)
    }

    /// As [`JobHandle::request_stop_with_savepoint`], with all there is to say.
    ///
    /// # Errors
    /// Those of [`JobHandle::request_stop_with_savepoint`]; `InvalidArgument` for links of a canonical savepoint.
    pub fn request_stop_with(&self, how: &SavepointOptions, drain: bool) -> Result<SavepointTicket> {
        let format = how.format;
        self.ask_for_savepoint(how, Purpose::StopWithSavepoint { format, drain })
    }

    /// Sweeps the job root inside of its owner: deletes what nobody needs any more, or in a dry run tells it. The job
    /// goes on meanwhile. Blocks on the disk.
    ///
    /// # Errors
    /// `Closed` if the job is over; `InvalidArgument` if it has no checkpoints; `GcRefused` if something in the root
    /// cannot be read; errors of the storage.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let over = || Error::new(Code::Closed, "the job is over: sweep its root without it");
        self.shared.storage.upgrade().ok_or_else(over)?.gc(options)
    }

    /// What the job has done up to now.
    pub fn status(&self) -> JobReport {
        let Shared {
            place,
            progress,
            started,
            ..
        } = &*self.shared;
        let progress = progress.lock().clone();
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
            state: progress.state,
            outcome: progress.ended.map(|(outcome, _)| outcome),
            duration: now.saturating_sub(*started),
            attempts: progress.attempts,
            checkpoints: progress.checkpoints,
            last_checkpoint: progress.last_checkpoint,
            stopped_with: progress.stopped_with,
            drained: progress.drained,
            restored_from: self.shared.source.as_ref().map(|(path, _)| path.clone()),
            depends_on_restored_snapshot: progress.needs_source,
            source_records,
            nodes,
        }
    }
}

/// A checkpoint that was asked for. Clones wait for the same one.
#[derive(Clone)]
pub struct CheckpointTicket {
    answer: Promise<Result<CheckpointId>>,
    scheduler: Arc<dyn Scheduler>,
    driver: TaskHandle,
}

impl CheckpointTicket {
    /// The outcome, if it is known: what [`CheckpointTicket::wait`] would give.
    pub fn outcome(&self) -> Option<Result<CheckpointId>> {
        let over = self.driver.ended().is_some();
        self.answer.read(copy).or_else(|| over.then(|| Err(closed())))
    }

    /// Waits for the outcome. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// `CheckpointDeclined` with the reason; `Closed` if the job is over.
    pub fn wait(&self) -> Result<CheckpointId> {
        self.answer
            .wait(&*self.scheduler, copy, || self.driver.ended().is_some())
            .unwrap_or_else(|| Err(closed()))
    }
}

fn copy(outcome: &Result<CheckpointId>) -> Result<CheckpointId> {
    match outcome {
        Ok(id) => Ok(*id),
        Err(e) => Err(e.duplicate()),
    }
}
