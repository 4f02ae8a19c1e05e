//! The driver: the one task that starts attempts, feeds the coordinator, and ends the job.
//!
//! ```text
//!              restored               all tasks of the last checkpoint done         recorded, cleaned
//!  Restoring ───────────▶ Running ─────────────────────────────────────▶ Recording ────────────▶ Ending ─▶ over
//!      ▲                     │ failure, cancel, stop done                                          │
//!      │ pause is over       ▼                                                                     │
//!    Paused ◀──────────── Ending (all tasks cancelled and gone, nothing being stored) ◀────────────┘
//! ```
//! Without tasks, `Closing` stands for `Ending`; `Concluding` commits what a savepoint names that ended the job
//! ([`stopping`]). All I/O runs in background jobs that answer by mail, one at a time; decisions are those of the coordinator and
//! the restart strategy.

mod checkpoints;
mod ending;
mod savepoints;
mod source;
mod stopping;
mod storing;

use super::{
    Shared,
    attempt::Attempt,
    restore::NodeStart,
    storage::{Restored, Stopped, Storage},
    work_dir,
};
use crate::{
    coordinator::Coordinator,
    element::CheckpointScope,
    event::{JobEvent, Outcome, SplitOffset},
    mailbox::Mailbox,
    plan::Named,
    promise::Promise,
    restart::{RestartStrategy, Restarts},
    task::{Report, What},
};
use keybed_env::{
    Random, Scheduler, Step, Task, Waker,
    sched::{TaskBuilder, panic_text},
};
use keybed_format::{Error, Result};
use keybed_snapshot::{CheckpointId, OpenFiles, SnapshotKind, SubtaskState};
pub(crate) use savepoints::SavepointAsk;
use savepoints::Savepoints;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use storing::release_undone;

/// What the driver is told.
pub(crate) enum DriverMail {
    /// By a task.
    Report(Report),
    /// By the handle.
    Request(Request),
    /// By a background job.
    Stored(Stored),
}

/// What the handle asks for.
pub(crate) enum Request {
    Stop,
    Cancel,
    Checkpoint(CheckpointAsk),
    Savepoint(SavepointAsk),
}

/// A checkpoint that somebody asked for.
pub(crate) struct CheckpointAsk {
    pub(crate) scope: CheckpointScope,
    pub(crate) answer: Promise<Result<CheckpointId>>,
}

/// Outcomes of the storage.
pub(crate) enum Stored {
    Restored(Result<Begin>),
    Allotted(Result<CheckpointId>),
    Published(Result),
    SavepointAllotted(Result<(CheckpointId, PathBuf)>),
    SavepointPublished(Result),
    SavepointGone,
    Cleaned(Result),
    Recorded(Result),
    Concluded(Result),
    Wiped,
}

/// What an attempt begins with.
pub(crate) enum Begin {
    /// Tasks, from a checkpoint or from nothing.
    Attempt(Vec<NodeStart>, Option<Restored>),
    /// No tasks: the job stopped with a savepoint.
    Conclude(Stopped),
}

/// Where the job is.
enum Phase {
    /// The newest checkpoint is being read.
    Restoring,
    Running(Attempt),
    /// The end of the job is being recorded and what is not needed any more removed.
    Recording(Attempt),
    /// All tasks were cancelled; what follows when they are gone.
    Ending(Attempt, Next),
    /// No task runs: what a savepoint that ended the job names is being committed.
    Concluding,
    /// No task runs; what follows when the storage is.
    Closing(Next),
    /// Waits for the next attempt.
    Paused(Duration),
    Over,
}

/// What follows the end of an attempt.
enum Next {
    Restart(Duration),
    /// Finding out whether the savepoint exists that ends the job, and committing then.
    Conclude,
    End(Result<Outcome>),
}

pub(super) struct Driver {
    name: String,
    nodes: Vec<Named>,
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    scheduler: Arc<dyn Scheduler>,
    inbox: Mailbox<DriverMail>,
    coordinator: Option<Coordinator<SubtaskState>>,
    restarts: Restarts,
    random: Random,
    phase: Phase,
    /// A background job whose outcome the phases wait for is under way.
    storing: bool,
    /// The removal of old checkpoints is under way; it delays nothing but the end of an attempt.
    cleaning: bool,
    clean_wanted: bool,
    wiped: bool,
    stop_wanted: bool,
    /// Why the last attempt failed.
    failure: Option<Error>,
    cancel_wanted: bool,
    /// The savepoint that ends the job, once it exists: only forward from there.
    stopped_with: Option<PathBuf>,
    /// Who asked for a checkpoint by hand that was not begun yet.
    tickets: Vec<CheckpointAsk>,
    /// Who waits for the one under way.
    awaited: Vec<CheckpointAsk>,
    savepoints: Savepoints,
    /// What `Complete` must tell about the checkpoint being published.
    publishing: Option<(u64, u64, Vec<SplitOffset>)>,
    timestamp_ms: u64,
    /// What the tasks write for the checkpoint under way.
    kind: SnapshotKind,
    /// The attempt rests on a snapshot that is not this job's: the next checkpoint must not.
    foreign: bool,
    /// Highest id that was allotted or restored.
    newest: CheckpointId,
    attempts: u64,
    /// Keeps the files of the restored snapshot until all tasks have taken up their state.
    restored: Option<Arc<dyn OpenFiles>>,
}

impl Driver {
    pub(super) fn new(
        name: String,
        nodes: Vec<Named>,
        shared: Arc<Shared>,
        storage: Arc<dyn Storage>,
        scheduler: Arc<dyn Scheduler>,
        inbox: Mailbox<DriverMail>,
        restart: RestartStrategy,
    ) -> Self {
        let seed = shared.place.ids.lock().fork().fresh().map_or(0, |id| id as u64);
        Driver {
            name,
            nodes,
            shared,
            storage,
            scheduler,
            inbox,
            coordinator: None,
            restarts: Restarts::new(restart),
            random: Random::from_seed(seed),
            phase: Phase::Paused(Duration::ZERO),
            storing: false,
            cleaning: false,
            clean_wanted: false,
            wiped: false,
            stop_wanted: false,
            failure: None,
            cancel_wanted: false,
            stopped_with: None,
            tickets: Vec::new(),
            awaited: Vec::new(),
            savepoints: Savepoints::default(),
            publishing: None,
            timestamp_ms: 0,
            kind: SnapshotKind::Checkpoint,
            foreign: false,
            newest: CheckpointId(0),
            attempts: 0,
            restored: None,
        }
    }

    pub(super) fn builder(self) -> TaskBuilder {
        Box::new(move |waker: Waker| {
            self.inbox.set_waker(&waker);
            Box::new(self)
        })
    }

    fn now(&self) -> Duration {
        self.shared.place.options.clock.monotonic()
    }

    fn event(&self, event: &JobEvent) {
        if let Some(on_event) = &self.shared.place.options.on_event {
            on_event(event);
        }
    }

    fn on_report(&mut self, report: Report) {
        let Report {
            attempt: id,
            task,
            what,
        } = report;
        let now = self.now();
        let (attempt, ending) = match &mut self.phase {
            Phase::Running(attempt) | Phase::Recording(attempt) => (attempt, false),
            Phase::Ending(attempt, _) => (attempt, true),
            _ => return,
        };
        if attempt.id != id {
            return; // a zombie
        }
        match what {
            What::Failed(error) if !ending => self.fail(error),
            What::Failed(_) => {}
            What::Ended => {
                attempt.ended.insert(task);
            }
            What::Ack(checkpoint, state) => self.coordinate(|c| c.on_ack(id, task, checkpoint, state)),
            What::Decline {
                checkpoint,
                why,
                counts,
            } => {
                self.coordinate(|c| c.on_decline(now, id, task, checkpoint, why.to_string(), counts));
            }
            What::Tell(event) => self.event(&event),
            _ if ending => {}
            What::Ready => {
                attempt.ready.insert(task);
                if attempt.all(&attempt.ready) {
                    // The tasks have what they need of the snapshot; retention may have it.
                    self.restored = None;
                    self.coordinate(|c| c.on_ready(now));
                    self.ask_to_end();
                }
            }
            What::Drained => {
                attempt.drained.insert(task);
                self.ask_to_end();
            }
            What::Finished => {
                attempt.finished.insert(task);
            }
            What::CleanedUp => {
                attempt.cleaned.insert(task);
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Cancel => {
                self.cancel_wanted = true;
                // A job whose end is being recorded cannot be called back.
                if self.stopped_with.is_some() {
                    self.cancel_conclusion();
                } else if !matches!(self.phase, Phase::Recording(_)) {
                    self.end_attempt(Next::End(Ok(Outcome::Cancelled)));
                }
            }
            Request::Stop => {
                self.stop_wanted = true;
                // Between two attempts nothing runs that could take a last checkpoint.
                if let Phase::Paused(_)
                | Phase::Ending(_, Next::Restart(_))
                | Phase::Closing(Next::Restart(_)) = &self.phase
                    && let Some(failure) = self.failure.take()
                {
                    let error = failure.context("stopped before the next attempt");
                    self.end_attempt(Next::End(Err(error)));
                }
                self.ask_to_end();
            }
            Request::Checkpoint(ask) => self.ask_for_checkpoint(ask),
            Request::Savepoint(ask) => self.ask_for_savepoint(ask),
        }
    }

    /// Moves on where everything that a phase waits for has come.
    fn advance(&mut self) {
        if self.clean_wanted && !self.cleaning {
            self.clean_wanted = false;
            self.cleaning = true;
            self.submit(|s| s.clean(), Stored::Cleaned);
        }
        let quiet = !self.storing && !self.cleaning && !self.savepoints.removing;
        match &self.phase {
            Phase::Paused(at) if self.now() >= *at && quiet => self.begin_restore(),
            Phase::Running(attempt) if attempt.all(&attempt.finished) && quiet => self.end_of_input(),
            Phase::Recording(attempt) if attempt.all(&attempt.cleaned) => {
                self.end_attempt(Next::End(Ok(Outcome::Finished)));
            }
            Phase::Closing(_) if quiet => {
                if let Phase::Closing(next) = std::mem::replace(&mut self.phase, Phase::Over) {
                    self.follow(next);
                }
            }
            Phase::Ending(attempt, _) if attempt.all(&attempt.ended) && quiet => {
                if matches!(self.phase, Phase::Ending(_, Next::End(_))) && !self.wiped {
                    self.wiped = true;
                    let options = &self.shared.place.options;
                    let (fs, dir) = (options.fs.clone(), options.work_dir.clone());
                    let (nodes, job) = (self.nodes.clone(), self.shared.place.job);
                    // The next start tries again.
                    self.store(
                        move |storage| {
                            let _ = work_dir::wipe(&*fs, &dir);
                            // No task is left that could still keep something for them.
                            release_undone(storage, &nodes, (&*fs, job));
                            // Late parts of checkpoints that were given up.
                            let _ = storage.clean();
                            Ok(())
                        },
                        |_: Result| Stored::Wiped,
                    );
                } else if let Phase::Ending(_, next) = std::mem::replace(&mut self.phase, Phase::Over) {
                    self.follow(next);
                }
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Paused(at) => Some(*at),
            Phase::Running(_) => self.coordinator.as_ref().and_then(Coordinator::next_deadline),
            _ => None,
        }
    }
}

impl Task for Driver {
    fn step(&mut self) -> Step {
        // A listener's panic ends the job; it must not leave tasks behind that nobody can cancel.
        catch_unwind(AssertUnwindSafe(|| self.move_on())).unwrap_or_else(|payload| {
            self.give_up(&panic_text(&*payload));
            Step::Done
        })
    }
}

impl Driver {
    fn move_on(&mut self) -> Step {
        while let Some(mail) = self.inbox.take() {
            match mail {
                DriverMail::Report(report) => self.on_report(report),
                DriverMail::Request(request) => self.on_request(request),
                DriverMail::Stored(stored) => self.on_stored(stored),
            }
            self.advance();
        }
        if matches!(self.phase, Phase::Running(_)) && !self.storing {
            let now = self.now();
            self.coordinate(|c| c.on_time(now));
        }
        self.advance();
        self.note_state();
        if matches!(self.phase, Phase::Over) {
            return Step::Done;
        }
        let now = self.now();
        let wait = |at: Duration| at.saturating_sub(now).max(Duration::from_micros(50));
        Step::Park(self.deadline().map(wait))
    }
}
