//! How attempts and the job end.

use super::{Driver, Next, Phase, Stored, storing::is_restartable};
use crate::{
    element::Purpose,
    event::{JobEvent, Outcome},
    job::storage::NoStorage,
    restart::Decision,
    task::Mail,
};
use keybed_format::{Code, Error};
use std::sync::Arc;

impl Driver {
    /// The attempt failed: restart or give up.
    pub(super) fn fail(&mut self, error: Error) {
        if matches!(self.phase, Phase::Ending(..) | Phase::Over) {
            return; // the first reason stands
        }
        // Whoever asked for the end is not kept waiting for further attempts: the last checkpoint stands.
        let next = if is_restartable(&error) && !self.cancel_wanted && !self.stop_wanted {
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
            Phase::Restoring | Phase::Paused(_) => self.follow(next),
            Phase::Over => {}
        }
    }

    pub(super) fn follow(&mut self, next: Next) {
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
                let closed = Error::new(Code::Closed, "the job is over");
                self.refuse_tickets(&closed);
                self.refuse_savepoints(&closed);
                self.event(&JobEvent::Ended { outcome });
                self.shared.end.keep(end);
            }
        }
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
            Phase::Restoring | Phase::Paused(_) | Phase::Over => {}
        }
        self.storage = Arc::new(NoStorage::default());
        self.restored = None;
        self.shared.progress.lock().ended = Some((Outcome::Failed, self.now()));
        let closed = Error::new(Code::Closed, "the job is over");
        self.refuse_tickets(&closed);
        self.refuse_savepoints(&closed);
        let error = Error::new(Code::JobFailed, format!("the job's driver panicked: {why}"));
        self.shared.end.keep(Err(error));
    }
}
