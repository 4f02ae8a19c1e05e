//! When checkpoints are taken and what becomes of them: a pure state machine over acknowledgements and times.
//!
//! ```text
//!          due or asked for           id allotted          all acknowledged        published
//!   Idle ────────────────▶ Allotting ────────────▶ Collecting ────────────▶ Publishing ────────▶ Idle, complete
//!    ▲                         │                        │ decline, expiry         │ failed
//!    └─────────────────────────┴────────────────────────┴─────────────────────────┘  aborted
//! ```
//! The shell ([`driver`](crate::job)) feeds it events and does what the returned [`Command`]s say; allotting and
//! publishing are I/O and come back as events. At most one checkpoint is under way. A checkpoint exists from the
//! moment it is published, so nothing expires in `Publishing`, and the shell ends no attempt before the outcome of
//! a running publication is known.
//!
//! What counts as a failure (each id once; a success starts the count anew): I/O failure while allotting or
//! publishing, failure of an asynchronous part, expiry. What does not: declines because a task was not ready, is
//! closing, or saw a newer barrier, the end of the attempt, and whatever happens to a savepoint, which is nobody's way
//! back: a savepoint changes neither the count nor the times of periodic checkpoints. A stop with a savepoint that fails
//! leaves the job running, unless its barrier was sent behind the end of the input: then a new attempt begins.

mod pending;
#[cfg(test)]
mod tests;

use crate::element::Purpose;
use keybed_snapshot::CheckpointId;
use pending::Pending;
use std::{fmt, time::Duration};

/// When checkpoints are taken; times are those of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one trigger to the next; `None` takes none by itself.
    pub interval: Option<Duration>,
    /// Least time from the end of one checkpoint to the next periodic trigger.
    pub min_pause: Duration,
    /// After this long a checkpoint is given up.
    pub timeout: Duration,
    /// Failures in a row that are borne; one more fails the attempt.
    pub tolerable_failures: u32,
}

/// Why a checkpoint was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// It took longer than its timeout.
    Expired,
    /// A task could not take its part.
    Declined {
        /// Which task.
        task: usize,
        /// In the task's words.
        why: String,
        /// Whether it is a failure in the sense of the counting table.
        counts: bool,
    },
    /// Its metadata could not be published, or no id could be allotted.
    StorageFailed(String),
    /// The attempt ended.
    AttemptEnded,
}

impl AbortReason {
    fn counts(&self) -> bool {
        match self {
            AbortReason::Expired | AbortReason::StorageFailed(_) => true,
            AbortReason::Declined { counts, .. } => *counts,
            AbortReason::AttemptEnded => false,
        }
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AbortReason::Expired => f.write_str("it took longer than its timeout"),
            AbortReason::Declined { why, .. } => write!(f, "a task declined: {why}"),
            AbortReason::StorageFailed(why) => write!(f, "it could not be stored: {why}"),
            AbortReason::AttemptEnded => f.write_str("the attempt ended"),
        }
    }
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<P> {
    /// Create the next checkpoint id and report it by [`Coordinator::on_allotted`].
    Allot(Purpose),
    /// Send the barrier into all sources.
    Trigger(CheckpointId, Purpose),
    /// Publish what the tasks acknowledged (by task) and report the outcome.
    Publish(CheckpointId, Purpose, Vec<P>),
    /// Tell everybody that the checkpoint exists.
    Complete {
        /// Which.
        checkpoint: CheckpointId,
        /// Why it was taken.
        purpose: Purpose,
        /// From trigger to publication.
        duration: Duration,
    },
    /// Tell everybody that the checkpoint will never exist. `None` if not even an id was allotted.
    Abort(Option<CheckpointId>, Purpose, AbortReason),
    /// Nobody will reference what this acknowledgement named.
    Discard(CheckpointId, P),
    /// Too many failures in a row: fail the attempt.
    FailAttempt(String),
    /// The tasks have processed the end of an input that is not at its end: they cannot go on, and it is nobody's
    /// failure. Begin a new attempt.
    RestartAttempt(String),
}

#[derive(Debug)]
enum Stage<P> {
    Idle,
    Allotting {
        purpose: Purpose,
        since: Duration,
    },
    Collecting(Pending<P>),
    Publishing {
        id: CheckpointId,
        purpose: Purpose,
        since: Duration,
    },
}

/// The coordinator of one job; `P` is what tasks acknowledge with.
#[derive(Debug)]
pub struct Coordinator<P> {
    timing: Timing,
    tasks: usize,
    attempt: u64,
    /// All tasks of the attempt have restored their state.
    ready: bool,
    stage: Stage<P>,
    /// Requests that wait for the stage to be idle.
    asked: Vec<Purpose>,
    last_start: Duration,
    last_end: Option<Duration>,
    failures: u32,
}

impl<P> Coordinator<P> {
    /// For a job of `tasks` tasks; the first interval starts at `now`.
    pub fn new(timing: Timing, tasks: usize, now: Duration) -> Self {
        Coordinator {
            timing,
            tasks,
            attempt: 0,
            ready: false,
            stage: Stage::Idle,
            asked: Vec::new(),
            last_start: now,
            last_end: None,
            failures: 0,
        }
    }

    /// A new attempt begins; its tasks are not ready yet. What was asked of the old attempt is forgotten.
    ///
    /// # Panics
    /// If a publication is under way: its outcome must be known first.
    pub fn begin_attempt(&mut self, attempt: u64) {
        assert!(
            !self.is_storing(),
            "an attempt begins only when nothing is being stored"
        );
        self.attempt = attempt;
        self.ready = false;
        self.stage = Stage::Idle;
        self.failures = 0;
        self.asked.clear();
    }

    /// All tasks are ready.
    pub fn on_ready(&mut self, now: Duration) -> Vec<Command<P>> {
        self.ready = true;
        self.last_start = now;
        self.on_time(now)
    }

    /// Whether the storage is being asked for something whose outcome must be awaited.
    pub fn is_storing(&self) -> bool {
        matches!(self.stage, Stage::Allotting { .. } | Stage::Publishing { .. })
    }

    /// The attempt is ending: the checkpoint under way is given up unless it is being stored.
    pub fn on_attempt_ending(&mut self, now: Duration) -> Vec<Command<P>> {
        self.ready = false;
        match &self.stage {
            Stage::Collecting(_) => self.abort(now, AbortReason::AttemptEnded),
            _ => Vec::new(),
        }
    }

    /// Asks for a checkpoint; it is triggered as soon as none is under way. False if the tasks are not ready.
    pub fn request(&mut self, now: Duration, purpose: Purpose) -> (bool, Vec<Command<P>>) {
        if !self.ready {
            return (false, Vec::new());
        }
        if !self.asked.contains(&purpose) {
            self.asked.push(purpose);
        }
        (true, self.on_time(now))
    }

    /// Time has passed: expires what took too long, triggers what is due.
    pub fn on_time(&mut self, now: Duration) -> Vec<Command<P>> {
        let mut commands = Vec::new();
        if let Stage::Collecting(pending) = &self.stage
            && now >= pending.since + self.timing.timeout
        {
            commands = self.abort(now, AbortReason::Expired);
        }
        if matches!(self.stage, Stage::Idle)
            && self.ready
            && let Some(purpose) = self.due(now)
        {
            self.asked.retain(|&asked| asked != purpose);
            if !purpose.is_savepoint() {
                self.last_start = now;
            }
            self.stage = Stage::Allotting { purpose, since: now };
            commands.push(Command::Allot(purpose));
        }
        commands
    }

    fn due(&self, now: Duration) -> Option<Purpose> {
        // The one that ends the job goes last among requests made together, and no periodic one delays it.
        if let Some(&asked) = self.asked.iter().min() {
            return Some(asked);
        }
        (now >= self.periodic_at()?).then_some(Purpose::Periodic)
    }

    fn periodic_at(&self) -> Option<Duration> {
        let paused = self
            .last_end
            .map_or(Duration::ZERO, |end| end + self.timing.min_pause);
        Some((self.last_start + self.timing.interval?).max(paused))
    }

    /// When [`Coordinator::on_time`] has something to do next; `None` if only an event can change anything.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Idle if self.ready => self.periodic_at(),
            Stage::Collecting(pending) => Some(pending.since + self.timing.timeout),
            _ => None,
        }
    }

    /// An id was created for the checkpoint asked for by [`Command::Allot`].
    pub fn on_allotted(&mut self, now: Duration, id: CheckpointId) -> Vec<Command<P>> {
        let Stage::Allotting { purpose, since } = self.stage else {
            panic!("an id arrived that nobody asked for")
        };
        self.stage = Stage::Collecting(Pending::new(id, purpose, since, self.tasks));
        if self.ready {
            vec![Command::Trigger(id, purpose)]
        } else {
            self.abort(now, AbortReason::AttemptEnded)
        }
    }

    /// A task stored its part.
    pub fn on_ack(&mut self, attempt: u64, task: usize, id: CheckpointId, payload: P) -> Vec<Command<P>> {
        let fits = attempt == self.attempt;
        let Stage::Collecting(pending) = &mut self.stage else {
            return vec![Command::Discard(id, payload)];
        };
        if !fits || pending.id != id {
            return vec![Command::Discard(id, payload)];
        }
        if let Some(payload) = pending.ack(task, payload) {
            return vec![Command::Discard(id, payload)];
        }
        if !pending.is_complete() {
            return Vec::new();
        }
        let (purpose, since) = (pending.purpose, pending.since);
        let acks = pending.take();
        self.stage = Stage::Publishing { id, purpose, since };
        vec![Command::Publish(id, purpose, acks)]
    }

    /// A task could not take its part; `counts` says whether that is a failure.
    pub fn on_decline(
        &mut self,
        now: Duration,
        attempt: u64,
        task: usize,
        id: CheckpointId,
        why: String,
        counts: bool,
    ) -> Vec<Command<P>> {
        match &self.stage {
            Stage::Collecting(pending) if pending.id == id && attempt == self.attempt => {
                self.abort(now, AbortReason::Declined { task, why, counts })
            }
            _ => Vec::new(),
        }
    }

    /// The checkpoint is published: it exists.
    pub fn on_published(&mut self, now: Duration, checkpoint: CheckpointId) -> Vec<Command<P>> {
        let Stage::Publishing { id, purpose, since } = self.stage else {
            panic!("a checkpoint was published that nobody asked for")
        };
        assert_eq!(id, checkpoint, "the checkpoint being published is another one");
        self.stage = Stage::Idle;
        if !purpose.is_savepoint() {
            self.last_end = Some(now);
            self.failures = 0;
        }
        if purpose.ends_the_job() {
            // Nothing follows the checkpoint that ends the job.
            self.ready = false;
            self.asked.clear();
        }
        let mut commands = vec![Command::Complete {
            checkpoint,
            purpose,
            duration: now.saturating_sub(since),
        }];
        commands.extend(self.on_time(now));
        commands
    }

    /// The storage failed to allot an id or to publish, and it is certain that nothing was published.
    pub fn on_storage_failed(&mut self, now: Duration, why: String) -> Vec<Command<P>> {
        assert!(
            self.is_storing(),
            "the storage failed at something that nobody asked for"
        );
        self.abort(now, AbortReason::StorageFailed(why))
    }

    fn abort(&mut self, now: Duration, reason: AbortReason) -> Vec<Command<P>> {
        let (id, purpose, acks) = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => return Vec::new(),
            Stage::Allotting { purpose, .. } => (None, purpose, Vec::new()),
            Stage::Publishing { id, purpose, .. } => (Some(id), purpose, Vec::new()),
            Stage::Collecting(pending) => (Some(pending.id), pending.purpose, pending.into_acks()),
        };
        let drained = purpose.drains() && id.is_some();
        let counts = reason.counts() && !purpose.is_savepoint();
        if !purpose.is_savepoint() {
            self.last_end = Some(now);
        }
        self.failures += u32::from(counts);
        let failed = counts && self.failures > self.timing.tolerable_failures;
        let why = format!(
            "{} checkpoint failures in a row, the last: {reason}",
            self.failures
        );
        let drain_failed = format!("the input was ended for a savepoint that failed: {reason}");
        let mut commands = vec![Command::Abort(id, purpose, reason)];
        if let Some(id) = id {
            commands.extend(acks.into_iter().map(|ack| Command::Discard(id, ack)));
        }
        if failed {
            self.ready = false;
            commands.push(Command::FailAttempt(why));
        } else if self.ready && drained {
            // No checkpoint may hold what fired too early.
            self.ready = false;
            commands.push(Command::RestartAttempt(drain_failed));
        } else if self.ready {
            if purpose.ends_the_job() && !purpose.is_savepoint() {
                // The job cannot end without it, and its sources may have stopped already; how often it is tried is
                // bounded by the failures borne, and declines that do not count cannot repeat at the end of input.
                // Without a savepoint the job goes on.
                self.asked.push(purpose);
            }
            commands.extend(self.on_time(now));
        }
        commands
    }
}
