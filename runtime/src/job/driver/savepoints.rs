//! Savepoints of a running job: asked for one after the other, written beside the checkpoints, never the job's concern.
//!
//! ```text
//!   waiting ──▶ asked of the coordinator ──▶ begun (id and directory) ──▶ published: the user's
//!      │                  │                            `──▶ given up: directory removed, then the user hears why
//!      `──────────────────┴── the attempt ends: refused
//! ```

use super::{Driver, Phase, Stored};
use crate::{
    coordinator::AbortReason,
    element::{Purpose, SavepointFormat},
    event::JobEvent,
    job::{
        SavepointReport,
        storage::{StopAsk, Storage},
    },
    promise::Promise,
    task::Mail,
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::CheckpointId;
use std::{collections::VecDeque, path::PathBuf, time::Duration};

/// Requests that wait at most; more come from somebody who does not look at the answers.
pub(super) const REQUESTS_MAX: usize = 1000;

/// A savepoint that somebody asked for.
pub(crate) struct SavepointAsk {
    pub(crate) format: SavepointFormat,
    /// [`Purpose::Savepoint`] or [`Purpose::StopWithSavepoint`].
    pub(crate) purpose: Purpose,
    pub(crate) target: PathBuf,
    /// Files of the same file system are linked.
    pub(crate) hard_links: bool,
    pub(crate) answer: Promise<Result<SavepointReport>>,
}

/// The savepoints of the running attempt.
#[derive(Default)]
pub(super) struct Savepoints {
    pub(super) waiting: VecDeque<SavepointAsk>,
    current: Option<Current>,
    /// The directory of one that was given up is being removed; no other begins meanwhile.
    pub(super) removing: bool,
    /// One of a stop of which nobody knows whether it exists, and what was met.
    pub(super) unresolved: Option<(SavepointAsk, Error)>,
}

struct Current {
    ask: SavepointAsk,
    /// The coordinator has begun with it and will say what becomes of it.
    begun: bool,
    location: PathBuf,
    /// What the storage met.
    error: Option<Error>,
}

impl Savepoints {
    /// Its directory exists.
    pub(super) fn found_place(&mut self, location: PathBuf) {
        if let Some(current) = &mut self.current {
            current.location = location;
        }
    }

    /// Whether one was asked for that ends the job.
    pub(super) fn is_stopping(&self) -> bool {
        let current = self.current.iter().map(|current| &current.ask);
        let unresolved = self.unresolved.iter().map(|(ask, _)| ask);
        let mut all = self.waiting.iter().chain(current).chain(unresolved);
        all.any(|ask| ask.purpose.ends_the_job())
    }

    /// The storage failed it.
    pub(super) fn met(&mut self, error: Error) {
        if let Some(current) = &mut self.current {
            current.error = Some(error);
        }
    }
}

impl Driver {
    pub(super) fn ask_for_savepoint(&mut self, ask: SavepointAsk) {
        let stopping = self.savepoints.is_stopping()
            || self.stopped_with.is_some()
            || self.stop_wanted && ask.purpose.ends_the_job();
        if stopping {
            let why = Error::new(Code::CheckpointDeclined, "the job is being stopped");
            ask.answer.keep(Err(why));
        } else if self.savepoints.waiting.len() >= REQUESTS_MAX {
            ask.answer.keep(Err(too_many()));
        } else {
            self.savepoints.waiting.push_back(ask);
            self.next_savepoint();
        }
    }

    /// Asks the coordinator for the next savepoint, if none is under way.
    pub(super) fn next_savepoint(&mut self) {
        while self.savepoints.current.is_none() && !self.savepoints.removing {
            let Some(ask) = self.savepoints.waiting.pop_front() else {
                return;
            };
            let (now, purpose) = (self.now(), ask.purpose);
            let ready = matches!(&self.phase, Phase::Running(a) if a.all(&a.ready));
            let coordinator = self.coordinator.as_mut().filter(|_| ready);
            match coordinator.map(|c| c.request(now, purpose)) {
                Some((true, commands)) => {
                    self.savepoints.current = Some(Current {
                        ask,
                        begun: false,
                        location: PathBuf::new(),
                        error: None,
                    });
                    commands.into_iter().for_each(|command| self.obey(command));
                }
                _ => {
                    let why = Error::new(Code::CheckpointDeclined, "not all tasks are ready");
                    ask.answer.keep(Err(why));
                }
            }
        }
    }

    pub(super) fn allot_savepoint(&mut self) {
        let (target, hard_links, purpose) = match &mut self.savepoints.current {
            Some(current) => {
                current.begun = true;
                let ask = &current.ask;
                (ask.target.clone(), ask.hard_links, ask.purpose)
            }
            None => return, // only an ask makes the coordinator allot one
        };
        let stop = purpose.ends_the_job().then(|| StopAsk {
            attempt: (self.shared.place.generation << 24) | self.attempts,
            drained: purpose.drains(),
        });
        self.store(
            move |s| s.allot_savepoint(&target, hard_links, stop),
            Stored::SavepointAllotted,
        );
    }

    pub(super) fn savepoint_completed(
        &mut self,
        checkpoint: CheckpointId,
        purpose: Purpose,
        duration: Duration,
    ) {
        let (new_bytes, ..) = self.publishing.take().unwrap_or_default();
        if let Phase::Running(attempt) = &self.phase
            && !purpose.ends_the_job()
        {
            attempt.tell(|| Mail::Complete(checkpoint, purpose));
        }
        let mut published = PathBuf::new();
        if let Some(Current { ask, location, .. }) = self.savepoints.current.take() {
            self.event(&JobEvent::SavepointCompleted {
                checkpoint,
                location: location.clone(),
                duration,
            });
            published.clone_from(&location);
            ask.answer.keep(Ok(SavepointReport {
                checkpoint,
                location,
                format: ask.format,
                bytes: new_bytes,
                duration,
            }));
        }
        if purpose.ends_the_job() {
            self.stop_published(published);
        }
        self.next_savepoint();
    }

    pub(super) fn savepoint_failed(&mut self, id: Option<CheckpointId>, reason: &AbortReason) {
        self.publishing = None;
        self.event(&JobEvent::SavepointFailed {
            checkpoint: id,
            reason: reason.to_string(),
        });
        if let Some(current) = &mut self.savepoints.current {
            let why = || Error::new(Code::CheckpointDeclined, reason.to_string());
            current.error.get_or_insert_with(why);
        }
        self.savepoints.removing = true;
        let purpose = self
            .savepoints
            .current
            .as_ref()
            .map(|current| current.ask.purpose);
        if let (Some(id), Phase::Running(attempt)) = (id, &self.phase) {
            match purpose.filter(|_| self.storage.may_exist(id)) {
                // Whoever finds it may start from it: what was made for it stays, as if it were certain.
                Some(purpose) => attempt.tell(|| Mail::Complete(id, purpose)),
                None => attempt.tell(|| Mail::Aborted(id)),
            }
        }
        let remove = move |storage: &dyn Storage| {
            if let Some(id) = id {
                storage.abandon_savepoint(id);
            }
            Ok(())
        };
        self.submit(remove, |_: Result| Stored::SavepointGone);
    }

    /// The directory of a savepoint that was given up is gone, or will be with the last task that writes into it.
    pub(super) fn savepoint_gone(&mut self) {
        if let Some(Current { ask, error, .. }) = self.savepoints.current.take() {
            let unnamed = || Error::new(Code::CheckpointDeclined, "the savepoint was given up");
            let error = error.unwrap_or_else(unnamed);
            if self.storage.is_stop_open() {
                self.savepoints.unresolved = Some((ask, error));
            } else {
                ask.answer.keep(Err(error));
            }
        }
        self.next_savepoint();
    }

    /// The job goes on or is over: there is no savepoint that would have ended it.
    pub(super) fn resolve_savepoint(&mut self) {
        if let Some((ask, error)) = self.savepoints.unresolved.take() {
            ask.answer.keep(Err(error));
        }
    }

    /// Refuses those that the coordinator has not begun with; of the others it says what becomes of them.
    pub(super) fn refuse_savepoints(&mut self, why: &Error) {
        let over = matches!(self.phase, Phase::Over);
        let refused = self.savepoints.current.take_if(|c| !c.begun || over);
        let waiting = std::mem::take(&mut self.savepoints.waiting);
        for ask in refused.map(|c| c.ask).into_iter().chain(waiting) {
            ask.answer.keep(Err(why.duplicate()));
        }
        if over {
            self.resolve_savepoint();
        }
    }
}

pub(super) fn too_many() -> Error {
    let what = "too many requests wait for the job";
    Error::new(Code::TooManyRequests, what).with("limit", REQUESTS_MAX)
}
