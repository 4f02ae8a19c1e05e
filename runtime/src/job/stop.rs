//! The stop record of a job root, from the ask to the end: written, looked at, undone, confirmed.
//!
//! ```text
//!   Begun ─▶ savepoint published ─▶ Published ─▶ confirmed, sinks may commit
//!     │  ╲ outcome unknown; or found by a new process
//!     │   `─▶ Uncertain ─ looked at ─▶ Published
//!     ▼                       `──────▶ GivenUp
//!   GivenUp ─▶ directory removed, then the record
//! ```
//! Page: docs/format/job-root.md.

use super::storage::Stopped;
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, CheckpointRoot, Metadata, StopRecord, savepoint, survey::FoundStop};
use parking_lot::Mutex;
use std::sync::Arc;

/// The stop of this root, if one was begun.
pub(super) struct Stop {
    fs: Arc<dyn Fs>,
    /// Locked for a look only.
    open: Mutex<Option<Open>>,
    /// One change of the records at a time: a removal that comes late must not meet the record of the next stop.
    changing: Mutex<()>,
    /// Savepoints, by id and attempt, that never came to be and that sinks may still keep parts for.
    undone: Mutex<Vec<(CheckpointId, u64)>>,
}

#[derive(Clone)]
struct Open {
    record: StopRecord,
    standing: Standing,
    /// Sinks may have committed.
    confirmed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Begun,
    Uncertain,
    Published,
    GivenUp,
}

impl Stop {
    /// What was found in the root.
    pub(super) fn new(fs: Arc<dyn Fs>, found: Option<&FoundStop>) -> Self {
        let open = found.map(|found| Open {
            record: found.record.clone(),
            standing: Standing::Uncertain,
            confirmed: found.confirmed,
        });
        Stop {
            fs,
            open: Mutex::new(open),
            changing: Mutex::new(()),
            undone: Mutex::default(),
        }
    }

    /// The savepoint that the job ended with; `None` if there was no stop or it came to nothing. Nothing is changed.
    ///
    /// # Errors
    /// `StopCommitPending` if it existed and is gone; those of [`savepoint::published`].
    pub(super) fn look(&self) -> Result<Option<Stopped>> {
        let Some(open) = self.open.lock().clone() else {
            return Ok(None);
        };
        if matches!(open.standing, Standing::Begun | Standing::GivenUp) {
            return Ok(None);
        }
        let Open {
            record,
            confirmed,
            standing,
        } = open;
        let existed = confirmed || standing == Standing::Published;
        let stopped = |metadata: Metadata| Stopped {
            metadata,
            directory: record.directory.clone(),
            drained: record.drained,
        };
        match savepoint::published(&*self.fs, &record) {
            Ok(None) if existed => Err(gone(&record)),
            Err(e) if existed && e.code() == Code::SnapshotIncomplete => Err(gone(&record).with("cause", e)),
            found => Ok(found?.map(stopped)),
        }
    }

    /// As [`Stop::look`], for the owner of the root: what exists is confirmed, what came to nothing is given up.
    pub(super) fn settle(&self, root: &CheckpointRoot) -> Result<Option<Stopped>> {
        match self.look()? {
            Some(stopped) => {
                self.confirm(root)?;
                Ok(Some(stopped))
            }
            None => {
                // Sinks let go first; the next cleanup undoes it.
                self.change(|open| open.standing = Standing::GivenUp);
                let open = self.open.lock();
                let undone = open
                    .iter()
                    .map(|open| (open.record.checkpoint, open.record.attempt));
                self.undone.lock().extend(undone);
                Ok(None)
            }
        }
    }

    /// Makes the record that must be durable before the savepoint's directory is created.
    ///
    /// # Errors
    /// As [`CheckpointRoot::write_stop`].
    pub(super) fn begin(&self, root: &CheckpointRoot, record: &StopRecord) -> Result {
        let _one_at_a_time = self.changing.lock();
        let open = Open {
            record: record.clone(),
            standing: Standing::Begun,
            confirmed: false,
        };
        *self.open.lock() = Some(open);
        root.write_stop(record)
    }

    /// Savepoints of stops that came to nothing, since this was asked last.
    pub(super) fn take_undone(&self) -> Vec<(CheckpointId, u64)> {
        std::mem::take(&mut self.undone.lock())
    }

    /// Whether this savepoint is to end the job.
    pub(super) fn is_of(&self, checkpoint: CheckpointId) -> bool {
        let open = self.open.lock();
        open.as_ref()
            .is_some_and(|open| open.record.checkpoint == checkpoint && open.standing == Standing::Begun)
    }

    /// The savepoint exists: records it, so that a process that does not find it any more knows that it did.
    ///
    /// # Errors
    /// As [`CheckpointRoot::confirm_stop`].
    pub(super) fn confirm(&self, root: &CheckpointRoot) -> Result {
        let record = self.open.lock().as_ref().map(|open| open.record.clone());
        if let Some(record) = record {
            root.confirm_stop(&record)?;
        }
        self.change(|open| (open.standing, open.confirmed) = (Standing::Published, true));
        Ok(())
    }

    /// It was published.
    pub(super) fn published(&self) {
        self.change(|open| open.standing = Standing::Published);
    }

    /// Nobody knows whether it was published.
    pub(super) fn in_question(&self) {
        self.change(|open| open.standing = Standing::Uncertain);
    }

    /// Whether nobody knows.
    pub(super) fn is_uncertain(&self) -> bool {
        let open = self.open.lock();
        open.as_ref()
            .is_some_and(|open| open.standing == Standing::Uncertain)
    }

    /// It will not be published; nothing happens to one that may have been.
    pub(super) fn give_up(&self, root: &CheckpointRoot, checkpoint: CheckpointId) {
        if self.is_of(checkpoint) {
            self.change(|open| open.standing = Standing::GivenUp);
            self.undo(root);
        }
    }

    /// Removes what is left of a stop that was given up. What cannot be removed is tried again: the record finds the
    /// directory, so it goes last, and without metadata there it means nothing.
    pub(super) fn undo(&self, root: &CheckpointRoot) {
        let _one_at_a_time = self.changing.lock();
        let open = self.open.lock().clone();
        let Some(open) = open.filter(|open| open.standing == Standing::GivenUp) else {
            return;
        };
        let removed =
            savepoint::remove_unpublished(&*self.fs, &open.record).and_then(|()| root.remove_stop());
        if removed.is_ok() {
            let Open { record, .. } = open;
            self.undone.lock().push((record.checkpoint, record.attempt));
            self.open.lock().take_if(|now| now.record == record);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Open)) {
        if let Some(open) = &mut *self.open.lock() {
            change(open);
        }
    }
}

fn gone(record: &StopRecord) -> Error {
    let what = "the savepoint that the job stopped with is not where it was, and what it names may be committed in part: \
                put it back";
    Error::new(Code::StopCommitPending, what)
        .with("savepoint", record.directory.display())
        .with("checkpoint", record.checkpoint)
}
