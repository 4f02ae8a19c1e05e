//! How attempts and the job end.

use super::{Driver, Next, Phase, Stored, storing::is_restartable};
use crate::{
    element::Purpose,
    event::{JobEvent, Outcome},
    job::{JobState, storage::NoStorage},
    restart::Decision,
    task::Mail,
};
use keybed_format::{Code, Error};
use std::sync::Arc;

impl Driver {
    /// The attempt failed: restart or give up.
    pub(super) fn fail(&mut self, error: Error) {
        if matches!(self.phase, Phase::Ending(..) | Phase::Closing(_) | Phase::Over) {
            return; // the first reason stands
        }
        // Whoever asked for the end is not kept waiting for further attempts: the last checkpoint stands.
        let next = if self.stopped_with.is_some() {
            self.next_conclusion(error)
        } else if is_restartable(&error) && !self.cancel_wanted && !self.stop_wanted {
            match self.restarts.on_failure(self.now(), &mut self.random) {
                Decision::After(pause) => {
                    self.failure = Some(error.duplicate());
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
    pub(super) fn end_attempt(&mut self, next: Next) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running(attempt) | Phase::Recording(attempt) => {
                attempt.tell(|| Mail::Cancel);
                self.phase = Phase::Ending(attempt, next);
                let why = Error::new(Code::CheckpointDeclined, "the attempt ended");
                self.refuse_tickets(&why);
                self.refuse_savepoints(&why);
                let now = self.now();
                self.coordinate(|c| c.on_attempt_ending(now));
            }
            // A cancellation or a stop goes before a restart; else the first reason stands.
            Phase::Ending(attempt, Next::Restart(_)) if self.cancel_wanted || self.stop_wanted => {
                self.phase = Phase::Ending(attempt, next);
            }
            Phase::Ending(attempt, first) => self.phase = Phase::Ending(attempt, first),
            Phase::Closing(first) => {
                let replaced = matches!(first, Next::Restart(_)) && (self.cancel_wanted || self.stop_wanted);
                self.phase = Phase::Closing(if replaced { next } else { first });
            }
            // The storage may still be asked for something, and holds its lock until that is done.
            Phase::Restoring | Phase::Concluding | Phase::Paused(_) => self.phase = Phase::Closing(next),
            Phase::Over => {}
        }
    }

    pub(super) fn follow(&mut self, next: Next) {
        match next {
            Next::Restart(at) => self.phase = Phase::Paused(at),
            Next::Conclude => self.phase = Phase::Paused(self.now()),
            Next::End(end) => {
                let end = end.map_err(|error| self.last_error(error));
                let outcome = match &end {
                    Ok(outcome) => *outcome,
                    Err(_) => Outcome::Failed,
                };
                self.phase = Phase::Over;
                // The root's lock is free before anybody hears of the end.
                self.storage = Arc::new(NoStorage::default());
                self.restored = None;
                self.note_end(outcome);
                if let (Err(error), Some(savepoint)) = (&end, &self.stopped_with)
                    && error.code() == Code::StopCommitPending
                {
                    let savepoint = savepoint.clone();
                    self.shared.progress.lock().state = JobState::StopCommitPending { savepoint };
                }
                let closed = Error::new(Code::Closed, "the job is over");
                self.refuse_tickets(&closed);
                self.refuse_savepoints(&closed);
                self.event(&JobEvent::Ended { outcome });
                self.shared.end.keep(end);
            }
        }
    }

    fn note_end(&self, outcome: Outcome) {
        let mut progress = self.shared.progress.lock();
        progress.ended = Some((outcome, self.now()));
        progress.state = match outcome {
            Outcome::Finished => JobState::Finished,
            Outcome::Stopped => JobState::Suspended,
            Outcome::Cancelled => JobState::Canceled,
            Outcome::Failed => JobState::Failed,
        };
    }

    /// Lets the handles see where the job is.
    pub(super) fn note_state(&self) {
        let taking_up = || match self.attempts {
            0 | 1 => JobState::Initializing,
            _ => JobState::Restarting,
        };
        let state = match &self.phase {
            Phase::Paused(_) if self.attempts == 0 => JobState::Created,
            Phase::Running(attempt) if attempt.all(&attempt.ready) => JobState::Running,
            Phase::Restoring if self.attempts == 0 => JobState::Initializing,
            Phase::Running(_) => taking_up(),
            Phase::Recording(_) | Phase::Concluding => JobState::Running,
            Phase::Restoring | Phase::Paused(_) => JobState::Restarting,
            Phase::Ending(_, next) | Phase::Closing(next) => match next {
                Next::Restart(_) => JobState::Restarting,
                Next::Conclude | Next::End(Ok(Outcome::Finished | Outcome::Stopped)) => JobState::Running,
                Next::End(Ok(Outcome::Cancelled)) => JobState::Cancelling,
                Next::End(Ok(Outcome::Failed) | Err(_)) => JobState::Failing,
            },
            // Noted with the outcome.
            Phase::Over => return,
        };
        self.shared.progress.lock().state = state;
    }

    /// All tasks did what the last checkpoint asked for.
    pub(super) fn end_of_input(&mut self) {
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

    /// The driver itself panicked: cancels what runs and says so. Nothing is waited for.
    pub(super) fn give_up(&mut self, why: &str) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running(attempt) | Phase::Recording(attempt) | Phase::Ending(attempt, _) => {
                attempt.tell(|| Mail::Cancel);
            }
            Phase::Restoring | Phase::Concluding | Phase::Closing(_) | Phase::Paused(_) | Phase::Over => {}
        }
        self.storage = Arc::new(NoStorage::default());
        self.restored = None;
        self.note_end(Outcome::Failed);
        let closed = Error::new(Code::Closed, "the job is over");
        self.refuse_tickets(&closed);
        self.refuse_savepoints(&closed);
        let error = Error::new(Code::JobFailed, format!("the job's driver panicked: {why}"));
        self.shared.end.keep(Err(error));
    }
}
