//! Asking the storage in background jobs, and beginning attempts with what it answers.

use super::{Begin, Driver, DriverMail, Next, Phase, Stored};
use crate::{
    coordinator::Coordinator,
    event::JobEvent,
    job::{
        attempt::{Attempt, Surroundings, task_count},
        outside,
        restore::{self, NodeStart, Wanted},
        storage::{Restored, Storage},
        work_dir,
    },
    plan::Named,
    task::{Mail, PlaceOf},
};
use keybed_env::{Fs, Priority, sched::panic_text};
use keybed_format::{Code, Error, ErrorKind, Result};
use keybed_snapshot::JobId;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

impl Driver {
    /// Runs one verb of the storage in the background; a panic in it is an error like another.
    pub(super) fn store<T: Send + 'static>(
        &mut self,
        verb: impl FnOnce(&dyn Storage) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) -> Stored + Send + 'static,
    ) {
        assert!(!self.storing, "the storage is asked for one thing at a time");
        self.storing = true;
        self.submit(verb, answer);
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&dyn Storage) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) -> Stored + Send + 'static,
    ) {
        let (storage, inbox) = (self.storage.clone(), self.inbox.clone());
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| verb(&*storage))).unwrap_or_else(|payload| {
                Err(Error::new(
                    Code::JobFailed,
                    format!("storing panicked: {}", panic_text(&*payload)),
                ))
            });
            // Whoever waits for the answer may need the lock that the storage holds.
            drop(storage);
            inbox.post(DriverMail::Stored(answer(outcome)));
        };
        self.scheduler.submit(Priority::Flush, Box::new(job));
    }

    pub(super) fn begin_restore(&mut self) {
        self.phase = Phase::Restoring;
        let nodes = self.nodes.clone();
        let options = &self.shared.place.options;
        let (wanted, job) = (Wanted::of(options), self.shared.place.job);
        let (fs, dir) = (options.fs.clone(), options.work_dir.clone());
        let accepts_lost = self.shared.place.accepts_lost_transactions();
        let (first, outputs, sinks) = (self.attempts == 0, fs.clone(), nodes.clone());
        let take_up = move |storage: &dyn Storage| {
            let restored = storage.latest()?;
            let own = restored.as_ref().is_none_or(|r| !r.foreign);
            let wanted = if own { wanted.of_own() } else { wanted };
            let metadata = restored.as_ref().map(|r| &r.metadata);
            let snapshot = restored.as_ref().map(|r| (&r.metadata, &*r.files));
            let starts = restore::plan(&nodes, &wanted, snapshot)?;
            if own || !accepts_lost {
                let operators = metadata.map(|m| m.operators.as_slice()).unwrap_or_default();
                outside::check(&*outputs, &nodes, operators)?;
            }
            Ok(Begin::Attempt(starts, restored))
        };
        self.store(
            move |storage| {
                // What is left takes space only: every attempt has directories of its own.
                let _ = work_dir::wipe(&*fs, &dir);
                if let Some(stopped) = storage.stopped()? {
                    return Ok(Begin::Conclude(stopped));
                }
                release_undone(storage, &sinks, (&*fs, job));
                take_up(storage).inspect_err(|error| {
                    // The job never began, and never will: nothing it claimed is its own.
                    if first && !is_restartable(error) {
                        let _ = storage.release_source();
                    }
                })
            },
            Stored::Restored,
        );
    }

    pub(super) fn begin_attempt(&mut self, starts: Vec<NodeStart>, restored: Option<Restored>) -> Result {
        self.resolve_savepoint();
        self.attempts += 1;
        let id = (self.shared.place.generation << 24) | self.attempts;
        let place_of: Option<PlaceOf> = self.shared.place.options.checkpoints.as_ref().map(|_| {
            let storage = self.storage.clone();
            Arc::new(move |checkpoint| storage.place(checkpoint)) as PlaceOf
        });
        let offsets = restore::offsets(restored.iter().flat_map(|r| &r.metadata.operators));
        let checkpoint = restored.as_ref().map(|r| r.metadata.checkpoint);
        self.foreign = restored.as_ref().is_some_and(|r| r.foreign);
        self.restored = restored.map(|r| r.files);
        // Ids of another job's counter say nothing about ours.
        let own = checkpoint.filter(|_| !self.foreign);
        self.newest = self.newest.max(own.unwrap_or_default());
        let around = Surroundings {
            place: &self.shared.place,
            scheduler: &self.scheduler,
            inbox: &self.inbox,
            place_of,
            files: self.restored.clone(),
            foreign: self.foreign,
            settled: self.newest,
        };
        let now = self.now();
        let timing = self.timing();
        let tasks = task_count(&starts);
        let coordinator = self
            .coordinator
            .get_or_insert_with(|| Coordinator::new(timing, tasks, now));
        coordinator.begin_attempt(id);
        let attempt = Attempt::spawn(id, &self.nodes, starts, &around)?;
        {
            let mut progress = self.shared.progress.lock();
            progress.attempts = self.attempts;
            progress.last_checkpoint = own;
        }
        self.phase = Phase::Running(attempt);
        let (job, attempt) = (self.shared.place.job, self.attempts);
        self.warn();
        self.release_source();
        self.event(&JobEvent::Started {
            job,
            attempt,
            restored: checkpoint,
            offsets,
        });
        Ok(())
    }

    pub(super) fn on_stored(&mut self, stored: Stored) {
        match &stored {
            Stored::Cleaned(_) => self.cleaning = false,
            Stored::SavepointGone => self.savepoints.removing = false,
            _ => self.storing = false,
        }
        let now = self.now();
        match stored {
            Stored::Restored(outcome) => {
                if !matches!(self.phase, Phase::Restoring) {
                    return; // cancelled meanwhile
                }
                let begun = outcome.and_then(|begin| match begin {
                    Begin::Attempt(starts, restored) => self.begin_attempt(starts, restored),
                    Begin::Conclude(stopped) => {
                        self.begin_conclusion(stopped);
                        Ok(())
                    }
                });
                if let Err(error) = begun {
                    self.fail(error);
                }
            }
            Stored::Allotted(Ok(id)) => {
                self.newest = self.newest.max(id);
                self.coordinate(|c| c.on_allotted(now, id));
            }
            Stored::Published(Ok(())) => {
                let id = self.newest;
                self.coordinate(|c| c.on_published(now, id));
                self.clean_wanted = self.shared.place.options.checkpoints.is_some();
            }
            Stored::Allotted(Err(error)) | Stored::Published(Err(error)) => {
                if is_restartable(&error) {
                    self.coordinate(|c| c.on_storage_failed(now, error.to_string()));
                } else {
                    // Fenced, locked, corrupt: nothing that a further try could change.
                    let why = error.to_string();
                    self.fail(error);
                    self.coordinate(|c| c.on_storage_failed(now, why));
                }
            }
            Stored::SavepointAllotted(Ok((id, location))) => {
                self.newest = self.newest.max(id);
                self.savepoints.found_place(location);
                self.coordinate(|c| c.on_allotted(now, id));
            }
            Stored::SavepointPublished(Ok(())) => {
                let id = self.newest;
                self.coordinate(|c| c.on_published(now, id));
            }
            Stored::SavepointPublished(Err(error)) if self.storage.is_stop_open() => {
                let why = error.to_string();
                self.savepoints.met(error);
                // Nothing runs on before it is known whether the savepoint exists.
                self.end_attempt(Next::Conclude);
                self.coordinate(|c| c.on_storage_failed(now, why));
            }
            // Nothing that a savepoint meets ends the job: if it is the job's own trouble, the next checkpoint finds it.
            Stored::SavepointAllotted(Err(error)) | Stored::SavepointPublished(Err(error)) => {
                let why = error.to_string();
                self.savepoints.met(error);
                self.coordinate(|c| c.on_storage_failed(now, why));
            }
            Stored::SavepointGone => self.savepoint_gone(),
            Stored::Cleaned(Ok(())) => self.release_source(),
            Stored::Cleaned(Err(error)) => self.event(&JobEvent::CleanupFailed { error }),
            Stored::Recorded(Ok(())) => {
                self.release_source();
                if let Phase::Recording(attempt) = &self.phase {
                    attempt.tell(|| Mail::CleanUp);
                }
            }
            Stored::Recorded(Err(error)) => self.fail(error),
            Stored::Concluded(outcome) => self.concluded(outcome),
            Stored::Wiped => {}
        }
    }
}

/// Lets go what sinks keep for savepoints of stops that came to nothing. What stays keeps parts that need not be.
pub(super) fn release_undone(storage: &dyn Storage, nodes: &[Named], (fs, job): (&dyn Fs, JobId)) {
    for undone in storage.take_undone() {
        for Named { node, .. } in nodes {
            let _ = node.release(fs, job, undone);
        }
    }
}

/// Whether the same job may succeed when it is started again.
pub(super) fn is_restartable(error: &Error) -> bool {
    use std::io::ErrorKind as Io;
    let refused = matches!(
        error.io_kind(),
        Some(Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory)
    );
    // Local stores are built anew from the checkpoint, which is verified before.
    let local = matches!(
        error.code(),
        Code::TableCorrupt | Code::TableMissing | Code::ManifestCorrupt
    );
    let lasting = matches!(
        error.kind(),
        ErrorKind::InvalidInput
            | ErrorKind::BadInput
            | ErrorKind::Incompatible
            | ErrorKind::Corruption
            | ErrorKind::Locked
            | ErrorKind::Refused
    );
    local || !refused && !lasting
}
