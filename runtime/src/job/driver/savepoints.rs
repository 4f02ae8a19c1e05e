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
    job::SavepointReport,
    promise::Promise,
    task::Mail,
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::CheckpointId;
use std::{collections::VecDeque, path::PathBuf, time::Duration};

/// A savepoint that somebody asked for.
pub(crate) struct SavepointAsk {
    pub(crate) format: SavepointFormat,
    pub(crate) target: PathBuf,
    pub(crate) answer: Promise<Result<SavepointReport>>,
}

/// The savepoints of the running attempt.
#[derive(Default)]
pub(super) struct Savepoints {
    pub(super) waiting: VecDeque<SavepointAsk>,
    current: Option<Current>,
    /// The directory of one that was given up is being removed; no other begins meanwhile.
    pub(super) removing: bool,
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

    /// The storage failed it.
    pub(super) fn met(&mut self, error: Error) {
        if let Some(current) = &mut self.current {
            current.error = Some(error);
        }
    }
}

impl Driver {
    /// Asks the coordinator for the next savepoint, if none is under way.
    pub(super) fn next_savepoint(&mut self) {
        while self.savepoints.current.is_none() && !self.savepoints.removing {
            let Some(ask) = self.savepoints.waiting.pop_front() else {
                return;
            };
            let (now, purpose) = (self.now(), Purpose::Savepoint(ask.format));
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
        let target = match &mut self.savepoints.current {
            Some(current) => {
                current.begun = true;
                current.ask.target.clone()
            }
            None => PathBuf::new(),
        };
        self.store(move |s| s.allot_savepoint(&target), Stored::SavepointAllotted);
    }

    pub(super) fn savepoint_completed(
        &mut self,
        checkpoint: CheckpointId,
        purpose: Purpose,
        duration: Duration,
    ) {
        let (new_bytes, ..) = self.publishing.take().unwrap_or_default();
        if let Phase::Running(attempt) = &self.phase {
            attempt.tell(|| Mail::Complete(checkpoint, purpose));
        }
        if let Some(Current { ask, location, .. }) = self.savepoints.current.take() {
            self.event(&JobEvent::SavepointCompleted {
                checkpoint,
                location: location.clone(),
                duration,
            });
            ask.answer.keep(Ok(SavepointReport {
                checkpoint,
                location,
                format: ask.format,
                bytes: new_bytes,
                duration,
            }));
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
        if let Some(id) = id
            && let Phase::Running(attempt) = &self.phase
        {
            attempt.tell(|| Mail::Aborted(id));
        }
        let remove = move |storage: &dyn crate::job::storage::Storage| {
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
            ask.answer.keep(Err(error.unwrap_or_else(unnamed)));
        }
        self.next_savepoint();
    }

    /// Refuses those that the coordinator has not begun with; of the others it says what becomes of them.
    pub(super) fn refuse_savepoints(&mut self, why: &Error) {
        let over = matches!(self.phase, Phase::Over);
        let refused = self.savepoints.current.take_if(|c| !c.begun || over);
        let waiting = std::mem::take(&mut self.savepoints.waiting);
        for ask in refused.map(|c| c.ask).into_iter().chain(waiting) {
            ask.answer.keep(Err(why.duplicate()));
        }
    }
}
