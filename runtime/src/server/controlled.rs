//! What the endpoint needs of a job: the seam between requests and [`JobHandle`], so that routes are tested without one.

use super::trigger::Done;
use crate::{
    element::CheckpointScope,
    event::JobReport,
    job::{JobHandle, JobState, SavepointOptions},
};
use keybed_format::{Error, Result};
use keybed_snapshot::{GcOptions, GcReport};
use std::path::PathBuf;

/// Asks what came of a request; `None` while nobody knows.
pub(super) type Pending = Box<dyn Fn() -> Option<Result<Done>> + Send>;

/// A job as the endpoint sees it. No verb waits unless it says so.
pub(super) trait Controlled: Send + Sync + 'static {
    fn report(&self) -> JobReport;
    /// Why it failed, if it did.
    fn failure(&self) -> Option<Error>;
    /// Directories of snapshots that it needs though they are not its own.
    fn needs(&self) -> Vec<PathBuf>;
    fn savepoint(&self, how: &SavepointOptions) -> Result<Pending>;
    fn stop(&self, how: &SavepointOptions, drain: bool) -> Result<Pending>;
    fn checkpoint(&self, scope: CheckpointScope) -> Result<Pending>;
    fn cancel(&self);
    /// Waits for the disk.
    fn gc(&self, options: &GcOptions) -> Result<GcReport>;
}

impl Controlled for JobHandle {
    fn report(&self) -> JobReport {
        self.status()
    }

    fn failure(&self) -> Option<Error> {
        self.is_ended().then(|| self.wait().err()).flatten()
    }

    fn needs(&self) -> Vec<PathBuf> {
        let report = self.status();
        let restored = report
            .restored_from
            .filter(|_| report.depends_on_restored_snapshot && !report.state.is_ended());
        let stopped = match report.state {
            JobState::StopCommitPending { savepoint } => Some(savepoint),
            _ => None,
        };
        restored.into_iter().chain(stopped).collect()
    }

    fn savepoint(&self, how: &SavepointOptions) -> Result<Pending> {
        let ticket = self.request_savepoint_with(how)?;
        Ok(Box::new(move || {
            let outcome = ticket.outcome()?;
            Some(outcome.map(|report| Done::Savepoint(report.location)))
        }))
    }

    fn stop(&self, how: &SavepointOptions, drain: bool) -> Result<Pending> {
        let ticket = self.request_stop_with(how, drain)?;
        Ok(Box::new(move || {
            let outcome = ticket.outcome()?;
            Some(outcome.map(|report| Done::Savepoint(report.location)))
        }))
    }

    fn checkpoint(&self, scope: CheckpointScope) -> Result<Pending> {
        let ticket = self.request_checkpoint(scope);
        Ok(Box::new(move || Some(ticket.outcome()?.map(Done::Checkpoint))))
    }

    fn cancel(&self) {
        JobHandle::cancel(self);
    }

    fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        JobHandle::gc(self, options)
    }
}
