//! The driver: the one task that starts attempts, feeds the coordinator, and ends the job.
//!
//! ```text
//!              restored               all tasks of the last checkpoint done         recorded, cleaned
//!  Restoring ───────────▶ Running ─────────────────────────────────────▶ Recording ────────────▶ Ending ─▶ over
//!      ▲                     │ failure, cancel, stop done                                          │
//!      │ pause is over       ▼                                                                     │
//!    Paused ◀──────────── Ending (all tasks cancelled and gone, nothing being stored) ◀────────────┘
//! ```
//! All I/O runs in background jobs that answer by mail, one at a time; decisions are those of the coordinator and
//! the restart strategy.

use super::{
    Shared,
    attempt::{Attempt, Surroundings, task_count},
    restore::{self, NodeStart},
    storage::{NoStorage, Publication, Restored, Storage},
    work_dir,
};
use crate::{
    coordinator::{AbortReason, Command, Coordinator, Timing},
    element::{Barrier, Purpose},
    event::{JobEvent, Outcome},
    mailbox::Mailbox,
    plan::Named,
    promise::Promise,
    restart::{Decision, RestartStrategy, Restarts},
    task::{Mail, PlaceOf, Report, What},
};
use keybed_env::{
    Priority, Random, Scheduler, Step, Task, Waker,
    sched::{TaskBuilder, panic_text},
};
use keybed_format::{Code, Error, ErrorKind, Result};
use keybed_snapshot::{CheckpointId, OpenFiles, SubtaskState};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

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
    Checkpoint(Promise<Result<CheckpointId>>),
}

/// Outcomes of the storage.
pub(crate) enum Stored {
    Restored(Result<(Vec<NodeStart>, Option<Restored>)>),
    Allotted(Result<CheckpointId>),
    Published(Result),
    Cleaned(Result),
    Recorded(Result),
    Wiped,
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
    /// Waits for the next attempt.
    Paused(Duration),
    Over,
}

/// What follows the end of an attempt.
enum Next {
    Restart(Duration),
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
    cancel_wanted: bool,
    /// Why checkpoints were asked for by hand, until one answers.
    tickets: Vec<Promise<Result<CheckpointId>>>,
    /// What `Complete` must tell about the checkpoint being published.
    publishing: Option<(u64, u64, Vec<crate::event::SplitOffset>)>,
    timestamp_ms: u64,
    /// Highest id that was allotted or restored.
    newest: CheckpointId,
    attempts: u64,
    restored: Option<(CheckpointId, Arc<dyn OpenFiles>)>,
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
            cancel_wanted: false,
            tickets: Vec::new(),
            publishing: None,
            timestamp_ms: 0,
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

    /// Runs one verb of the storage in the background; a panic in it is an error like another.
    fn store<T: Send + 'static>(
        &mut self,
        verb: impl FnOnce(&dyn Storage) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) -> Stored + Send + 'static,
    ) {
        assert!(!self.storing, "the storage is asked for one thing at a time");
        self.storing = true;
        self.submit(verb, answer);
    }

    fn submit<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&dyn Storage) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) -> Stored + Send + 'static,
    ) {
        let (storage, inbox) = (self.storage.clone(), self.inbox.clone());
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| verb(&*storage))).unwrap_or_else(|payload| {
                Err(Error::new(
                    Code::JobFailed,
                    format!("storing panicked: {}", panic_text(&*payload)),
                ))
            });
            // Whoever waits for the answer may need the lock that the storage holds.
            drop(storage);
            inbox.post(DriverMail::Stored(answer(outcome)));
        };
        self.scheduler.submit(Priority::Flush, Box::new(job));
    }

    fn begin_restore(&mut self) {
        self.phase = Phase::Restoring;
        let nodes = self.nodes.clone();
        let options = &self.shared.place.options;
        let (parallelism, max_parallelism) = (options.parallelism, options.max_parallelism);
        let (fs, dir) = (options.fs.clone(), options.work_dir.clone());
        self.store(
            move |storage| {
                // What is left takes space only: every attempt has directories of its own.
                let _ = work_dir::wipe(&*fs, &dir);
                let restored = storage.latest()?;
                let metadata = restored.as_ref().map(|r| &r.metadata);
                Ok((
                    restore::plan(&nodes, parallelism, max_parallelism, metadata)?,
                    restored,
                ))
            },
            Stored::Restored,
        );
    }

    fn begin_attempt(&mut self, starts: Vec<NodeStart>, restored: Option<Restored>) -> Result {
        self.attempts += 1;
        let id = (self.shared.place.generation << 24) | self.attempts;
        let place_of: Option<PlaceOf> = self.shared.place.options.checkpoints.as_ref().map(|_| {
            let storage = self.storage.clone();
            Arc::new(move |checkpoint| storage.place(checkpoint)) as PlaceOf
        });
        let offsets = restore::offsets(restored.iter().flat_map(|r| &r.metadata.operators));
        self.restored = restored.map(|r| (r.metadata.checkpoint, r.files));
        let checkpoint = self.restored.as_ref().map(|r| r.0);
        self.newest = self.newest.max(checkpoint.unwrap_or_default());
        let around = Surroundings {
            place: &self.shared.place,
            scheduler: &self.scheduler,
            inbox: &self.inbox,
            place_of,
            files: self.restored.as_ref().map(|r| r.1.clone()),
            settled: self.newest,
        };
        let now = self.now();
        let timing = self.timing();
        let tasks = task_count(&starts);
        let coordinator = self
            .coordinator
            .get_or_insert_with(|| Coordinator::new(timing, tasks, now));
        coordinator.begin_attempt(id);
        let attempt = Attempt::spawn(id, &self.nodes, starts, &around)?;
        {
            let mut progress = self.shared.progress.lock();
            progress.attempts = self.attempts;
            progress.last_checkpoint = checkpoint;
        }
        self.phase = Phase::Running(attempt);
        let (job, attempt) = (self.shared.place.job, self.attempts);
        self.event(&JobEvent::Started {
            job,
            attempt,
            restored: checkpoint,
            offsets,
        });
        Ok(())
    }

    fn timing(&self) -> Timing {
        match &self.shared.place.options.checkpoints {
            Some(c) => Timing {
                interval: Some(c.interval.max(Duration::from_millis(1))),
                min_pause: c.min_pause,
                timeout: c.timeout,
                tolerable_failures: c.tolerable_failures,
            },
            None => Timing {
                interval: None,
                min_pause: Duration::ZERO,
                timeout: Duration::from_secs(3600),
                tolerable_failures: 0,
            },
        }
    }

    fn coordinate(
        &mut self,
        feed: impl FnOnce(&mut Coordinator<SubtaskState>) -> Vec<Command<SubtaskState>>,
    ) {
        let commands = self.coordinator.as_mut().map(feed).unwrap_or_default();
        for command in commands {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command<SubtaskState>) {
        match command {
            Command::Allot(_) => self.store(|s| s.allot(), Stored::Allotted),
            Command::Trigger(checkpoint, purpose) => {
                self.timestamp_ms = self.shared.place.options.clock.wall_millis();
                self.event(&JobEvent::CheckpointTriggered { checkpoint, purpose });
                if let Phase::Running(attempt) = &self.phase {
                    attempt.trigger(Barrier {
                        checkpoint,
                        purpose,
                        timestamp_ms: self.timestamp_ms,
                    });
                }
            }
            Command::Publish(checkpoint, _, acks) => {
                let Phase::Running(attempt) = &self.phase else {
                    return;
                };
                let new_bytes = acks.iter().map(|a| a.new_bytes).sum();
                let total_bytes = acks.iter().map(SubtaskState::total_bytes).sum();
                let operators = attempt.operators(&self.nodes, acks);
                self.publishing = Some((new_bytes, total_bytes, restore::offsets(operators.iter())));
                let timestamp_ms = self.timestamp_ms;
                let name = self.name.clone();
                let publication = Publication {
                    checkpoint,
                    timestamp_ms,
                    operators,
                    name,
                };
                self.store(move |s| s.publish(publication), Stored::Published);
            }
            Command::Complete {
                checkpoint,
                purpose,
                duration,
            } => self.complete(checkpoint, purpose, duration),
            Command::Abort(id, purpose, reason) => self.aborted(id, purpose, &reason),
            // Files that nobody references are swept after the next completed checkpoint.
            Command::Discard(..) => {}
            Command::FailAttempt(why) => self.fail(Error::new(Code::CheckpointDeclined, why)),
        }
    }

    fn complete(&mut self, checkpoint: CheckpointId, purpose: Purpose, duration: Duration) {
        {
            let mut progress = self.shared.progress.lock();
            progress.checkpoints += 1;
            progress.last_checkpoint = Some(checkpoint);
        }
        if self.shared.place.options.checkpoints.is_some() {
            let (new_bytes, total_bytes, offsets) = self.publishing.take().unwrap_or_default();
            self.event(&JobEvent::CheckpointCompleted {
                checkpoint,
                purpose,
                duration,
                new_bytes,
                total_bytes,
                offsets,
            });
        }
        self.tickets
            .drain(..)
            .for_each(|ticket| ticket.keep(Ok(checkpoint)));
        if let Phase::Running(attempt) = &mut self.phase {
            attempt.last = attempt.last.or(purpose.ends_the_job().then_some(purpose));
            attempt.tell(|| Mail::Complete(checkpoint, purpose));
        }
    }

    fn aborted(&mut self, id: Option<CheckpointId>, _purpose: Purpose, reason: &AbortReason) {
        let text = reason.to_string();
        let error = Error::new(Code::CheckpointDeclined, text.as_str());
        self.tickets
            .drain(..)
            .for_each(|ticket| ticket.keep(Err(error.duplicate())));
        self.event(&JobEvent::CheckpointDeclined {
            checkpoint: id,
            reason: text,
        });
        let Some(id) = id else { return };
        self.storage.abort(id);
        if let Phase::Running(attempt) = &self.phase {
            attempt.tell(|| Mail::Aborted(id));
        }
    }

    /// The attempt failed: restart or give up.
    fn fail(&mut self, error: Error) {
        if matches!(self.phase, Phase::Ending(..) | Phase::Over) {
            return; // the first reason stands
        }
        let next = if is_restartable(&error) && !self.cancel_wanted {
            match self.restarts.on_failure(self.now(), &mut self.random) {
                Decision::After(pause) => {
                    self.event(&JobEvent::Restarting {
                        reason: error.duplicate(),
                        pause,
                    });
                    Next::Restart(self.now() + pause)
                }
                Decision::GiveUp if self.attempts > 1 => Next::End(Err(
                    error.context(format!("given up after {} attempts", self.attempts))
                )),
                Decision::GiveUp => Next::End(Err(error)),
            }
        } else {
            Next::End(Err(error))
        };
        self.end_attempt(next);
    }

    /// Cancels all tasks; `next` follows when they are gone.
    fn end_attempt(&mut self, next: Next) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running(attempt) | Phase::Recording(attempt) => {
                attempt.tell(|| Mail::Cancel);
                self.phase = Phase::Ending(attempt, next);
                let now = self.now();
                self.coordinate(|c| c.on_attempt_ending(now));
            }
            // A cancellation goes before whatever was to follow; else the first reason stands.
            Phase::Ending(attempt, _) if self.cancel_wanted => self.phase = Phase::Ending(attempt, next),
            Phase::Ending(attempt, first) => self.phase = Phase::Ending(attempt, first),
            Phase::Restoring | Phase::Paused(_) => self.follow(next),
            Phase::Over => {}
        }
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Restart(at) => self.phase = Phase::Paused(at),
            Next::End(end) => {
                let outcome = match &end {
                    Ok(outcome) => *outcome,
                    Err(_) => Outcome::Failed,
                };
                self.phase = Phase::Over;
                // The root's lock is free before anybody hears of the end.
                self.storage = Arc::new(NoStorage::default());
                self.restored = None;
                self.shared.progress.lock().ended = Some((outcome, self.now()));
                let closed = || Err(Error::new(Code::Closed, "the job is over"));
                self.tickets.drain(..).for_each(|ticket| ticket.keep(closed()));
                self.event(&JobEvent::Ended { outcome });
                self.shared.end.keep(end);
            }
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
            _ if ending => {}
            What::Ready => {
                attempt.ready.insert(task);
                if attempt.all(&attempt.ready) {
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

    /// Asks the coordinator for the checkpoint that ends the job, if it is time for it.
    fn ask_to_end(&mut self) {
        let now = self.now();
        let Phase::Running(attempt) = &self.phase else {
            return;
        };
        if !attempt.all(&attempt.ready) {
            return;
        }
        if attempt.all(&attempt.drained) {
            self.coordinate(|c| c.request(now, Purpose::Final).1);
        } else if self.stop_wanted {
            self.coordinate(|c| c.request(now, Purpose::Stop).1);
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Cancel => {
                self.cancel_wanted = true;
                self.end_attempt(Next::End(Ok(Outcome::Cancelled)));
            }
            Request::Stop => {
                self.stop_wanted = true;
                self.ask_to_end();
            }
            Request::Checkpoint(ticket) => {
                let now = self.now();
                let ready = matches!(&self.phase, Phase::Running(a) if a.all(&a.ready));
                if !ready || self.shared.place.options.checkpoints.is_none() {
                    ticket.keep(Err(Error::new(
                        Code::CheckpointDeclined,
                        "not all tasks are ready",
                    )));
                    return;
                }
                self.tickets.push(ticket);
                self.coordinate(|c| c.request(now, Purpose::Manual).1);
            }
        }
    }

    fn on_stored(&mut self, stored: Stored) {
        match &stored {
            Stored::Cleaned(_) => self.cleaning = false,
            _ => self.storing = false,
        }
        let now = self.now();
        match stored {
            Stored::Restored(outcome) => {
                if !matches!(self.phase, Phase::Restoring) {
                    return; // cancelled meanwhile
                }
                let begun = outcome.and_then(|(starts, restored)| self.begin_attempt(starts, restored));
                if let Err(error) = begun {
                    self.fail(error);
                }
            }
            Stored::Allotted(Ok(id)) => {
                self.newest = self.newest.max(id);
                self.coordinate(|c| c.on_allotted(now, id));
            }
            Stored::Published(Ok(())) => {
                let id = self.newest;
                self.coordinate(|c| c.on_published(now, id));
                self.clean_wanted = self.shared.place.options.checkpoints.is_some();
            }
            Stored::Allotted(Err(error)) | Stored::Published(Err(error)) => {
                if is_restartable(&error) {
                    self.coordinate(|c| c.on_storage_failed(now, error.to_string()));
                } else {
                    // Fenced, locked, corrupt: nothing that a further try could change.
                    let why = error.to_string();
                    self.fail(error);
                    self.coordinate(|c| c.on_storage_failed(now, why));
                }
            }
            Stored::Cleaned(Ok(())) => {}
            Stored::Cleaned(Err(error)) => self.event(&JobEvent::CleanupFailed { error }),
            Stored::Recorded(Ok(())) => {
                if let Phase::Recording(attempt) = &self.phase {
                    attempt.tell(|| Mail::CleanUp);
                }
            }
            Stored::Recorded(Err(error)) => self.fail(error),
            Stored::Wiped => {}
        }
    }

    /// Moves on where everything that a phase waits for has come.
    fn advance(&mut self) {
        if self.clean_wanted && !self.cleaning {
            self.clean_wanted = false;
            self.cleaning = true;
            self.submit(|s| s.clean(), Stored::Cleaned);
        }
        let quiet = !self.storing && !self.cleaning;
        match &self.phase {
            Phase::Paused(at) if self.now() >= *at && quiet => self.begin_restore(),
            Phase::Running(attempt) if attempt.all(&attempt.finished) && quiet => self.end_of_input(),
            Phase::Recording(attempt) if attempt.all(&attempt.cleaned) => {
                self.end_attempt(Next::End(Ok(Outcome::Finished)));
            }
            Phase::Ending(attempt, _) if attempt.all(&attempt.ended) && quiet => {
                if matches!(self.phase, Phase::Ending(_, Next::End(_))) && !self.wiped {
                    self.wiped = true;
                    let options = &self.shared.place.options;
                    let (fs, dir) = (options.fs.clone(), options.work_dir.clone());
                    // The next start tries again.
                    self.store(
                        move |_| {
                            let _ = work_dir::wipe(&*fs, &dir);
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

    /// All tasks did what the last checkpoint asked for.
    fn end_of_input(&mut self) {
        let Phase::Running(attempt) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let finished = attempt.last == Some(Purpose::Final);
        self.phase = Phase::Recording(attempt);
        if finished {
            let last = self.shared.progress.lock().last_checkpoint;
            self.store(move |s| s.finish(last), Stored::Recorded);
        } else {
            self.end_attempt(Next::End(Ok(Outcome::Stopped)));
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
        if matches!(self.phase, Phase::Over) {
            return Step::Done;
        }
        let now = self.now();
        Step::Park(
            self.deadline()
                .map(|at| at.saturating_sub(now).max(Duration::from_micros(50))),
        )
    }
}

/// Whether the same job may succeed when it is started again.
fn is_restartable(error: &Error) -> bool {
    use std::io::ErrorKind as Io;
    let refused = matches!(
        error.io_kind(),
        Some(Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory)
    );
    let lasting = matches!(
        error.kind(),
        ErrorKind::InvalidInput
            | ErrorKind::BadInput
            | ErrorKind::Incompatible
            | ErrorKind::Corruption
            | ErrorKind::Locked
            | ErrorKind::Refused
    );
    !refused && !lasting
}
