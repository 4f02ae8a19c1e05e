//! What the handle of a job tells about a savepoint.

use crate::{element::SavepointFormat, promise::Promise};
use keybed_env::{Scheduler, TaskHandle};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::CheckpointId;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How a savepoint is taken, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointOptions {
    /// How its state is written.
    pub format: SavepointFormat,
    /// In this directory its own is created. Default: [`JobOptions::savepoint_dir`](crate::JobOptions::savepoint_dir).
    pub target: Option<PathBuf>,
    /// Whether files of the same file system are linked instead of copied. The savepoint then survives the deletion of
    /// the job's files, not damage to them; it says what it shares storage with. For native ones. Default: no.
    pub hard_links: bool,
}

impl SavepointOptions {
    /// A copy of everything, below `target`.
    pub fn new(format: SavepointFormat, target: Option<&Path>) -> Self {
        SavepointOptions {
            format,
            target: target.map(Path::to_path_buf),
            hard_links: false,
        }
    }

    /// Links files where that is possible.
    #[must_use]
    pub fn hard_links(self) -> Self {
        SavepointOptions {
            hard_links: true,
            ..self
        }
    }
}

/// A published savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointReport {
    /// The id it was taken under.
    pub checkpoint: CheckpointId,
    /// Its directory; it may be moved.
    pub location: PathBuf,
    /// How its state is written.
    pub format: SavepointFormat,
    /// Bytes of its files, metadata not counted.
    pub bytes: u64,
    /// From trigger to publication.
    pub duration: Duration,
}

/// A savepoint that was asked for. Clones wait for the same one.
#[derive(Clone)]
pub struct SavepointTicket {
    answer: Promise<Result<SavepointReport>>,
    scheduler: Arc<dyn Scheduler>,
    driver: TaskHandle,
}

impl SavepointTicket {
    pub(super) fn new(
        answer: Promise<Result<SavepointReport>>,
        scheduler: Arc<dyn Scheduler>,
        driver: TaskHandle,
    ) -> Self {
        SavepointTicket {
            answer,
            scheduler,
            driver,
        }
    }

    /// The outcome, if it is known: what [`SavepointTicket::wait`] would give.
    pub fn outcome(&self) -> Option<Result<SavepointReport>> {
        let over = self.driver.ended().is_some();
        self.answer.read(copy).or_else(|| over.then(|| Err(closed())))
    }

    /// Waits for the outcome. For threads that are not the scheduler's.
    ///
    /// # Errors
    /// `CheckpointDeclined` with the reason; what the target directory met, as it was met; `Closed` if the job is over.
    pub fn wait(&self) -> Result<SavepointReport> {
        self.answer
            .wait(&*self.scheduler, copy, || self.driver.ended().is_some())
            .unwrap_or_else(|| Err(closed()))
    }
}

/// Nobody is there who could answer.
pub(super) fn closed() -> Error {
    Error::new(Code::Closed, "the job is over")
}

fn copy(outcome: &Result<SavepointReport>) -> Result<SavepointReport> {
    match outcome {
        Ok(report) => Ok(report.clone()),
        Err(e) => Err(e.duplicate()),
    }
}
