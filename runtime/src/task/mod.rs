//! A task: one subtask of one node, stepped by the scheduler.
//!
//! ```text
//!   mails ──▶ Shell ──▶ Body (source, operator, sink writer, committer) ──▶ outputs
//!               │ panic or error: everything is dropped, then the driver hears of it
//!               └── asynchronous parts, one after the other, as background jobs ──▶ acknowledgement
//! ```
//! A task ends by cancellation or failure only; a task that has finished its work says so and waits for the end of
//! the attempt.

pub(crate) mod operator;
pub(crate) mod source;

use crate::{
    element::{Barrier, Purpose},
    event::JobEvent,
    job::driver::DriverMail,
    mailbox::Mailbox,
    metrics::NodeCounters,
};
use keybed_env::{
    Fs, Priority, Scheduler, Step, Task, Waker,
    sched::{TaskBuilder, panic_text},
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, PutFiles, SubtaskIndex, SubtaskState};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// What the driver (or a background job of the task) tells a task.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Sources: emit this barrier.
    Trigger(Barrier),
    /// The checkpoint exists.
    Complete(CheckpointId, Purpose),
    /// The checkpoint will never exist.
    Aborted(CheckpointId),
    /// The job's end is recorded: what was kept for a repetition can go.
    CleanUp,
    /// A background job of the task ended.
    JobDone(JobKind, Result),
    /// End now.
    Cancel,
}

/// What a background job of a task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobKind {
    /// The asynchronous part of a snapshot; its outcome went to the driver.
    Snapshot,
    /// A commit of a sink that belongs to a checkpoint taken for this.
    Commit(Purpose),
    /// The removal of what an aborted snapshot left outside.
    Release,
    /// The removal of what is not needed any more.
    CleanUp,
}

/// What a task tells the driver.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) attempt: u64,
    pub(crate) task: usize,
    pub(crate) what: What,
}

/// The content of a [`Report`].
#[derive(Debug)]
pub(crate) enum What {
    /// State is restored; barriers are welcome.
    Ready,
    /// Its part of the checkpoint is stored.
    Ack(CheckpointId, SubtaskState),
    /// It cannot take its part; `counts` as in the coordinator.
    Decline {
        checkpoint: CheckpointId,
        why: Error,
        counts: bool,
    },
    /// All input is processed.
    Drained,
    /// What the last checkpoint asked for is done.
    Finished,
    /// What was kept is removed.
    CleanedUp,
    /// Something that listeners should know.
    Tell(JobEvent),
    /// It failed and has ended.
    Failed(Error),
    /// It was cancelled and has ended.
    Ended,
}

/// Why an asynchronous part did not succeed.
pub(crate) enum AsyncFailure {
    /// The checkpoint is declined; the task lives on.
    Decline(Error),
    /// Data may be lost: the task fails.
    Fail(Error),
}

impl From<Error> for AsyncFailure {
    fn from(error: Error) -> Self {
        AsyncFailure::Decline(error)
    }
}

/// The asynchronous part of a task's snapshot; without checkpoint storage it gets no place to put files.
pub(crate) type AsyncPart =
    Box<dyn FnOnce(Option<&dyn PutFiles>) -> Result<SubtaskState, AsyncFailure> + Send>;

/// Gives the place where one checkpoint's files go.
pub(crate) type PlaceOf = Arc<dyn Fn(CheckpointId) -> Result<Arc<dyn PutFiles>> + Send + Sync>;

/// What every task is built from.
#[derive(Clone)]
pub(crate) struct Seed {
    pub(crate) attempt: u64,
    pub(crate) task: usize,
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) settled: CheckpointId,
    pub(crate) mails: Mailbox<Mail>,
    pub(crate) driver: Mailbox<DriverMail>,
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) place_of: Option<PlaceOf>,
    pub(crate) counters: Arc<NodeCounters>,
}

/// What a body uses of its surroundings.
pub(crate) struct Control {
    pub(crate) seed: Seed,
    waiting: VecDeque<(JobKind, Box<dyn FnOnce() -> Result + Send>)>,
    running: bool,
}

impl Control {
    /// Tells the driver.
    pub(crate) fn report(&self, what: What) {
        let Seed { attempt, task, .. } = self.seed;
        self.seed
            .driver
            .post(DriverMail::Report(Report { attempt, task, what }));
    }

    /// Runs a background job after those before it; its outcome comes as [`Mail::JobDone`].
    pub(crate) fn job(&mut self, kind: JobKind, job: impl FnOnce() -> Result + Send + 'static) {
        self.waiting.push_back((kind, Box::new(job)));
        self.next_job();
    }

    /// One job at a time: what a later checkpoint stands on is stored before it.
    fn next_job(&mut self) {
        if self.running {
            return;
        }
        let Some((kind, job)) = self.waiting.pop_front() else {
            return;
        };
        self.running = true;
        let mails = self.seed.mails.clone();
        let run = move || {
            let outcome =
                catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| Err(panicked(&*payload)));
            mails.post(Mail::JobDone(kind, outcome));
        };
        self.seed.scheduler.submit(Priority::Flush, Box::new(run));
    }

    /// Runs the asynchronous part of a snapshot and acknowledges or declines for it.
    pub(crate) fn snapshot(&mut self, checkpoint: CheckpointId, part: AsyncPart) {
        let (place_of, driver) = (self.seed.place_of.clone(), self.seed.driver.clone());
        let (attempt, task) = (self.seed.attempt, self.seed.task);
        let job = move || {
            let run = || match place_of {
                Some(place_of) => part(Some(&*place_of(checkpoint)?)),
                None => part(None),
            };
            let outcome = catch_unwind(AssertUnwindSafe(run));
            let (what, end) = match outcome {
                Ok(Ok(state)) => (What::Ack(checkpoint, state), Ok(())),
                Ok(Err(AsyncFailure::Decline(why))) => (
                    What::Decline {
                        checkpoint,
                        why,
                        counts: true,
                    },
                    Ok(()),
                ),
                Ok(Err(AsyncFailure::Fail(why))) => (
                    What::Decline {
                        checkpoint,
                        why: why.duplicate(),
                        counts: true,
                    },
                    Err(why),
                ),
                Err(payload) => (
                    What::Decline {
                        checkpoint,
                        why: panicked(&*payload),
                        counts: true,
                    },
                    Ok(()),
                ),
            };
            driver.post(DriverMail::Report(Report { attempt, task, what }));
            end
        };
        self.job(JobKind::Snapshot, job);
    }

    /// The subtask's number.
    pub(crate) fn index(&self) -> SubtaskIndex {
        SubtaskIndex(self.seed.subtask)
    }
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> Error {
    Error::new(Code::OperatorFailed, format!("panicked: {}", panic_text(payload)))
}

/// What a kind of task does.
pub(crate) trait Body: Send {
    /// Restores state, opens readers; called once, before the first step.
    fn open(&mut self, waker: &Waker, control: &mut Control) -> Result;

    /// A bounded piece of work.
    fn step(&mut self, control: &mut Control) -> Result<Step>;

    /// A mail other than `Cancel`. Job failures were turned into errors before, except those of `CleanUp`.
    fn mail(&mut self, mail: Mail, control: &mut Control) -> Result;
}

/// Runs a body: mails first, failures reported, nothing left behind.
pub(crate) struct Shell {
    life: Life,
    waker: Waker,
}

enum Life {
    Alive(Alive),
    /// The body is gone; a background job of it may still run.
    Dying(Control),
    Ended,
}

struct Alive {
    body: Box<dyn Body>,
    control: Control,
    opened: bool,
}

impl Shell {
    /// A builder for the scheduler.
    pub(crate) fn builder(seed: Seed, body: Box<dyn Body>) -> TaskBuilder {
        Box::new(move |waker| {
            seed.mails.set_waker(&waker);
            let control = Control {
                seed,
                waiting: VecDeque::new(),
                running: false,
            };
            Box::new(Shell {
                life: Life::Alive(Alive {
                    body,
                    control,
                    opened: false,
                }),
                waker,
            })
        })
    }
}

impl Task for Shell {
    fn step(&mut self) -> Step {
        let Life::Alive(alive) = &mut self.life else {
            return self.die();
        };
        let step = catch_unwind(AssertUnwindSafe(|| alive.step(&self.waker)));
        let failure = match step {
            Ok(Ok(Some(step))) => return step,
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(alive.name(error)),
            Err(payload) => Some(alive.name(panicked(&*payload))),
        };
        let Life::Alive(Alive {
            body, mut control, ..
        }) = std::mem::replace(&mut self.life, Life::Ended)
        else {
            return Step::Done;
        };
        if let Some(error) = failure {
            control.report(What::Failed(error));
        }
        // What it holds is lost in any case; what dropping it says is not heard.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(body)));
        control.waiting.clear();
        self.life = Life::Dying(control);
        Step::Again
    }
}

impl Shell {
    /// Reports the end once nothing of the task is left: no store, no file, no job, no hold on the storage.
    fn die(&mut self) -> Step {
        let Life::Dying(control) = &mut self.life else {
            return Step::Done;
        };
        while let Some(mail) = control.seed.mails.take() {
            control.running &= !matches!(mail, Mail::JobDone(..));
        }
        if control.running {
            return Step::Park(None);
        }
        control.seed.place_of = None;
        control.report(What::Ended);
        self.life = Life::Ended;
        Step::Done
    }
}

impl Alive {
    /// `None`: cancelled.
    fn step(&mut self, waker: &Waker) -> Result<Option<Step>> {
        while let Some(mail) = self.control.seed.mails.take() {
            match mail {
                Mail::Cancel => return Ok(None),
                Mail::JobDone(kind, outcome) => {
                    self.control.running = false;
                    self.control.next_job();
                    if kind == JobKind::CleanUp {
                        self.body.mail(Mail::JobDone(kind, outcome), &mut self.control)?;
                    } else {
                        outcome?;
                        self.body.mail(Mail::JobDone(kind, Ok(())), &mut self.control)?;
                    }
                }
                other if self.opened => self.body.mail(other, &mut self.control)?,
                // Nothing can be asked of a task that has not said that it is ready.
                _ => {}
            }
        }
        if !self.opened {
            self.body.open(waker, &mut self.control)?;
            self.opened = true;
            self.control.report(What::Ready);
            return Ok(Some(Step::Again));
        }
        self.body.step(&mut self.control).map(Some)
    }

    fn name(&self, error: Error) -> Error {
        let Seed {
            counters, subtask, ..
        } = &self.control.seed;
        error.context(format!("{} (subtask {subtask})", counters.uid))
    }
}
