//! The end of a job with a savepoint.
//!
//! ```text
//!   savepoint under way ──▶ published ──▶ tasks gone ──▶ looked up ──▶ sinks commit, FINISHED ──▶ over: finished
//!        │ failed: the job goes on, or a new      ▲            │ failed           │ failed
//!        ▼ attempt begins if it was drained       └── pause ◀──┴──────────────────┴──▶ over: commits pending
//! ```
//! Committing needs no task: it is the same few steps after the publication, after a failure of them, and in the next
//! process. Each step can be repeated. From the publication on nothing leads back to a checkpoint.

use super::{Driver, Next, Phase, Stored, storing::is_restartable};
use crate::{
    event::{JobEvent, Outcome},
    job::{
        SavepointReport,
        restore::demand_nodes,
        storage::{Stopped, Storage},
        work_dir,
    },
    plan::{Conclusion, Named},
    restart::Decision,
};
use keybed_format::{Code, Error, Result};
use std::{path::PathBuf, time::Duration};

impl Driver {
    /// The savepoint that ends the job exists: whatever was to follow, now it is this.
    pub(super) fn stop_published(&mut self, location: PathBuf) {
        self.note_stop(location);
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Ending(attempt, _) => self.phase = Phase::Ending(attempt, Next::Conclude),
            phase => {
                self.phase = phase;
                self.end_attempt(Next::Conclude);
            }
        }
    }

    fn note_stop(&mut self, location: PathBuf) {
        self.shared.progress.lock().stopped_with = Some(location.clone());
        self.stopped_with = Some(location);
    }

    /// Ends the attempt because its tasks processed the end of an input that goes on.
    pub(super) fn restart_drained(&mut self, why: String) {
        let reason = Error::new(Code::CheckpointDeclined, why);
        self.failure = Some(reason.duplicate());
        let pause = Duration::ZERO;
        self.event(&JobEvent::Restarting { reason, pause });
        self.end_attempt(Next::Restart(self.now()));
    }

    /// Does what the savepoint asks of the outside, and records the end of the job.
    pub(super) fn begin_conclusion(&mut self, stopped: Stopped) {
        self.attempts += 1;
        {
            let mut progress = self.shared.progress.lock();
            // Where tasks ran before, the first try belongs to their end.
            progress.attempts = self.attempts - u64::from(self.coordinator.is_some());
            progress.drained = stopped.drained;
        }
        let attempt = (self.shared.place.generation << 24) | self.attempts;
        let (checkpoint, location) = (stopped.metadata.checkpoint, stopped.directory.clone());
        self.note_stop(location.clone());
        if let Some((ask, _)) = self.savepoints.unresolved.take() {
            ask.answer.keep(Ok(SavepointReport {
                checkpoint,
                location: location.clone(),
                format: ask.format,
                bytes: 0,
                duration: Duration::ZERO,
            }));
        }
        self.event(&JobEvent::Concluding {
            checkpoint,
            location,
            drained: stopped.drained,
        });
        self.phase = Phase::Concluding;
        let (nodes, place) = (self.nodes.clone(), self.shared.place.clone());
        let conclude = move |storage: &dyn Storage| {
            let conclusion = Conclusion {
                place: &place,
                attempt,
                drained: stopped.drained,
            };
            conclude(&nodes, &stopped, &conclusion)?;
            storage.finish(Some(checkpoint))?;
            // The job is over; what stays takes space and nothing else.
            for Named { node, .. } in &nodes {
                let _ = node.clean_up(&conclusion);
            }
            let _ = work_dir::wipe(&*place.options.fs, &place.options.work_dir);
            Ok(())
        };
        self.store(conclude, Stored::Concluded);
    }

    pub(super) fn concluded(&mut self, outcome: Result) {
        match outcome {
            Ok(()) => {
                self.release_source();
                self.phase = Phase::Closing(Next::End(Ok(Outcome::Finished)));
            }
            Err(error) => self.fail(error),
        }
    }

    /// What a failure means after the publication: it never leads back.
    pub(super) fn next_conclusion(&mut self, error: Error) -> Next {
        let gives_up = self.cancel_wanted || self.stop_wanted || !is_restartable(&error);
        let decision = match gives_up {
            true => Decision::GiveUp,
            false => self.restarts.on_failure(self.now(), &mut self.random),
        };
        match decision {
            Decision::After(pause) => {
                self.failure = Some(error.duplicate());
                self.event(&JobEvent::Restarting { reason: error, pause });
                Next::Restart(self.now() + pause)
            }
            Decision::GiveUp => Next::End(Err(error)),
        }
    }

    /// The error that the job ends with.
    pub(super) fn last_error(&self, error: Error) -> Error {
        let Some(savepoint) = &self.stopped_with else {
            return error;
        };
        if error.code() == Code::StopCommitPending {
            return error;
        }
        let what =
            "the job stopped with a savepoint, and what that names could not be committed yet: run it again";
        Error::new(Code::StopCommitPending, what)
            .with("savepoint", savepoint.display())
            .with("cause", error)
    }

    /// Somebody wants the end while commits are retried. What runs is waited for.
    pub(super) fn cancel_conclusion(&mut self) {
        if matches!(self.phase, Phase::Paused(_)) {
            let cancelled = || Error::new(Code::Cancelled, "the job was cancelled");
            let error = self.failure.take().unwrap_or_else(cancelled);
            self.end_attempt(Next::End(Err(error)));
        }
    }
}

/// Commits what a savepoint names.
fn conclude(nodes: &[Named], stopped: &Stopped, conclusion: &Conclusion<'_>) -> Result {
    let operators = &stopped.metadata.operators;
    demand_nodes(nodes, operators)?;
    for Named { uid, node } in nodes {
        if let Some(operator) = operators.iter().find(|operator| operator.uid == *uid) {
            node.conclude(conclusion, operator)
                .map_err(|e| e.context(uid.to_string()))?;
        }
    }
    Ok(())
}
