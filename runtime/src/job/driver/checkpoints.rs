//! Doing what the coordinator says, and telling tasks, tickets and listeners what came of it.

use super::{
    CheckpointAsk, Driver, Phase, Stored,
    savepoints::{REQUESTS_MAX, too_many},
};
use crate::{
    coordinator::{AbortReason, Command, Coordinator, Timing},
    element::{Barrier, Purpose},
    event::JobEvent,
    job::{restore, storage::Publication},
    task::Mail,
};
use keybed_format::{Code, Error};
use keybed_snapshot::{CheckpointId, SnapshotKind, SubtaskState, handle::total_bytes};
use std::time::Duration;

impl Driver {
    pub(super) fn timing(&self) -> Timing {
        match &self.shared.place.options.checkpoints {
            Some(c) => Timing {
                interval: Some(c.interval.max(Duration::from_micros(1))),
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

    pub(super) fn coordinate(
        &mut self,
        feed: impl FnOnce(&mut Coordinator<SubtaskState>) -> Vec<Command<SubtaskState>>,
    ) {
        let commands = self.coordinator.as_mut().map(feed).unwrap_or_default();
        for command in commands {
            self.obey(command);
        }
    }

    pub(super) fn obey(&mut self, command: Command<SubtaskState>) {
        match command {
            Command::Allot(purpose) if purpose.is_savepoint() => self.allot_savepoint(),
            Command::Allot(purpose) => {
                let asked = |ask: &mut CheckpointAsk| purpose == Purpose::Manual(ask.scope);
                self.awaited.extend(self.tickets.extract_if(.., asked));
                self.store(|s| s.allot(), Stored::Allotted);
            }
            Command::Trigger(checkpoint, purpose) => {
                self.timestamp_ms = self.shared.place.options.clock.wall_millis();
                self.kind = match purpose.kind() {
                    SnapshotKind::Checkpoint if self.copies_source() => SnapshotKind::FullCheckpoint,
                    kind => kind,
                };
                self.event(&JobEvent::CheckpointTriggered { checkpoint, purpose });
                if let Phase::Running(attempt) = &self.phase {
                    attempt.trigger(Barrier {
                        checkpoint,
                        purpose,
                        kind: self.kind,
                        timestamp_ms: self.timestamp_ms,
                    });
                }
            }
            Command::Publish(checkpoint, purpose, acks) => {
                let Phase::Running(attempt) = &self.phase else {
                    return;
                };
                let new_bytes = acks.iter().map(|a| a.new_bytes).sum();
                let total_bytes = total_bytes(&acks);
                let operators = attempt.operators(&self.nodes, acks);
                self.publishing = Some((new_bytes, total_bytes, restore::offsets(operators.iter())));
                let timestamp_ms = self.timestamp_ms;
                let name = self.name.clone();
                let publication = Publication {
                    checkpoint,
                    kind: self.kind,
                    timestamp_ms,
                    operators,
                    name,
                    drained: purpose.drains(),
                };
                let answer = if purpose.is_savepoint() {
                    Stored::SavepointPublished
                } else {
                    Stored::Published
                };
                self.store(move |s| s.publish(publication), answer);
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
            Command::RestartAttempt(why) => self.restart_drained(why),
        }
    }

    pub(super) fn complete(&mut self, checkpoint: CheckpointId, purpose: Purpose, duration: Duration) {
        if purpose.is_savepoint() {
            self.savepoint_completed(checkpoint, purpose, duration);
            return;
        }
        self.foreign = false;
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
            self.release_source();
        }
        if matches!(purpose, Purpose::Manual(_)) {
            self.awaited
                .drain(..)
                .for_each(|ask| ask.answer.keep(Ok(checkpoint)));
        }
        if let Phase::Running(attempt) = &mut self.phase {
            attempt.last = attempt.last.or(purpose.ends_the_job().then_some(purpose));
            attempt.tell(|| Mail::Complete(checkpoint, purpose));
        }
    }

    pub(super) fn aborted(&mut self, id: Option<CheckpointId>, purpose: Purpose, reason: &AbortReason) {
        if purpose.is_savepoint() {
            self.savepoint_failed(id, reason);
            return;
        }
        let text = reason.to_string();
        if matches!(purpose, Purpose::Manual(_)) {
            let why = || Error::new(Code::CheckpointDeclined, text.as_str());
            self.awaited.drain(..).for_each(|ask| ask.answer.keep(Err(why())));
        }
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

    /// Asks the coordinator for the checkpoint that ends the job, if it is time for it.
    pub(super) fn ask_to_end(&mut self) {
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

    pub(super) fn ask_for_checkpoint(&mut self, ask: CheckpointAsk) {
        let (now, scope) = (self.now(), ask.scope);
        let ready = matches!(&self.phase, Phase::Running(a) if a.all(&a.ready));
        if self.savepoints.is_stopping() {
            let why = Error::new(Code::CheckpointDeclined, "the job is being stopped");
            ask.answer.keep(Err(why));
            return;
        }
        if self.tickets.len() >= REQUESTS_MAX {
            ask.answer.keep(Err(too_many()));
            return;
        }
        if !ready || self.shared.place.options.checkpoints.is_none() {
            let why = Error::new(Code::CheckpointDeclined, "not all tasks are ready");
            ask.answer.keep(Err(why));
            return;
        }
        self.tickets.push(ask);
        self.coordinate(|c| c.request(now, Purpose::Manual(scope)).1);
    }

    /// Tells everybody who waits for a checkpoint that there is none.
    pub(super) fn refuse_tickets(&mut self, why: &Error) {
        self.awaited
            .drain(..)
            .chain(self.tickets.drain(..))
            .for_each(|ask| ask.answer.keep(Err(why.duplicate())));
    }
}
