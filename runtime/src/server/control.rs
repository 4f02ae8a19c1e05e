//! The endpoint's core: what it knows of the job, and the life of a request from acceptance to answer.
//!
//! A request that was begun goes on whatever becomes of its client: it runs in a task of its own, is recorded on disk
//! before the job hears of it, and recorded again before anybody is told of its outcome.

use super::{
    answer::Refusal,
    controlled::{Controlled, Pending},
    place::Roots,
    record::{Records, unknown},
    shapes::Facts,
    trigger::{Asked, Begin, Done, Failure, Trigger, TriggerId, Triggers},
};
use crate::promise::Promise;
use keybed_env::{Clock, Fs, random::Ids};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::savepoint::Disposal;
use parking_lot::{Condvar, Mutex};
use std::{path::Path, sync::Arc, time::Duration};

/// Least and most time between two looks whether a request is done.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(50);

/// What all routes share.
pub(super) struct Control {
    pub(super) job: Arc<dyn Controlled>,
    pub(super) facts: Facts,
    pub(super) roots: Roots,
    pub(super) token: Option<String>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Mutex<Ids>,
    pub(super) records: Option<Records>,
    pub(super) triggers: Mutex<Triggers>,
    /// Something was told.
    pub(super) told: Condvar,
}

impl Control {
    /// Whether a text is the id of the job here.
    ///
    /// # Errors
    /// `UnknownJob`.
    pub(super) fn demand_job(&self, id: &str) -> Result<(), Refusal> {
        let ours = self.job.report().job;
        if ours.to_string() == id.to_ascii_lowercase() {
            return Ok(());
        }
        let what = "there is no job of that id here";
        Err(Error::new(Code::UnknownJob, what)
            .with("id", super::request::shown(id))
            .with("job", ours)
            .into())
    }

    /// Begins with a request, or finds that it was begun before.
    ///
    /// # Errors
    /// Why it was not begun; nothing was changed then.
    pub(super) async fn begin(
        self: Arc<Self>,
        id: Option<TriggerId>,
        asked: Asked,
    ) -> Result<TriggerId, Refusal> {
        // The future of a connection is dropped with it; a request must not be left half begun.
        let begun = tokio::spawn(async move { self.begin_anyway(id, asked).await }).await;
        begun.unwrap_or_else(|_| Err(broken().into()))
    }

    async fn begin_anyway(
        self: Arc<Self>,
        id: Option<TriggerId>,
        asked: Asked,
    ) -> Result<TriggerId, Refusal> {
        let id = match id {
            Some(id) => id,
            None => TriggerId(self.ids.lock().fresh()?),
        };
        let now = self.clock.wall_millis();
        let gone = self.triggers.lock().forget(now);
        match self.triggers.lock().begin(id, &asked, now)? {
            Begin::Known => return Ok(id),
            Begin::New => {}
        }
        let trigger = Trigger {
            asked: asked.clone(),
            since_ms: now,
            outcome: None,
            read: false,
        };
        let started = match self.clone().record(id, trigger, gone).await {
            Ok(()) => self.start(&asked),
            Err(error) => Err(error),
        };
        match started {
            Ok(pending) => {
                tokio::spawn(self.watch(id, pending));
                Ok(id)
            }
            Err(error) => {
                self.triggers.lock().withdraw(id);
                if let Some(records) = self.records.clone() {
                    let _ = tokio::task::spawn_blocking(move || records.remove(id)).await;
                }
                Err(error.into())
            }
        }
    }

    /// Tells the job.
    fn start(&self, asked: &Asked) -> Result<Pending> {
        match asked {
            Asked::Savepoint {
                how,
                stop: true,
                drain,
            } => self.job.stop(how, *drain),
            Asked::Savepoint { how, .. } => self.job.savepoint(how),
            Asked::Checkpoint(scope) => self.job.checkpoint(*scope),
            Asked::Disposal(path) => {
                self.demand_unneeded(path)?;
                let (fs, path, answer) = (self.fs.clone(), path.clone(), Promise::new());
                let kept = answer.clone();
                tokio::task::spawn_blocking(move || {
                    answer.keep(Disposal::plan(fs, &path).and_then(|disposal| disposal.execute()));
                });
                Ok(Box::new(move || {
                    kept.read(|outcome| match outcome {
                        Ok(_) => Ok(Done::Disposed),
                        Err(e) => Err(e.duplicate()),
                    })
                }))
            }
        }
    }

    /// Whether the job can do without what lies at a path. The path is a resolved one.
    ///
    /// # Errors
    /// `GcRefused` if it cannot.
    pub(super) fn demand_unneeded(&self, path: &Path) -> Result {
        for needed in self.job.needs() {
            let mut needed = self.roots.here.join(needed);
            if needed.is_file() {
                needed.pop(); // it was named by its metadata
            }
            let needed = needed.canonicalize().unwrap_or(needed);
            if path.starts_with(&needed) || needed.starts_with(path) {
                let what = "the job needs the snapshot that it was started from: its own checkpoints do not yet hold \
                            everything";
                return Err(Error::new(Code::GcRefused, what)
                    .in_file(needed)
                    .with("job", self.job.report().job));
            }
        }
        Ok(())
    }

    async fn watch(self: Arc<Self>, id: TriggerId, pending: Pending) {
        let mut pause = LOOK_MIN;
        let outcome = loop {
            if let Some(outcome) = pending() {
                break outcome.map_err(|e| Failure::from(&e));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        };
        let now = self.clock.wall_millis();
        let ended = self.triggers.lock().get(id).map(|trigger| Trigger {
            outcome: Some((now, outcome.clone())),
            ..trigger.clone()
        });
        if let Some(trigger) = ended {
            // If it cannot be recorded, this process can still tell it.
            let _ = self.clone().record(id, trigger, Vec::new()).await;
        }
        self.triggers.lock().end(id, outcome, now);
        self.told.notify_all();
    }

    /// Writes a request down, and removes the records of those that were forgotten.
    async fn record(self: Arc<Self>, id: TriggerId, trigger: Trigger, gone: Vec<TriggerId>) -> Result {
        let Some(records) = self.records.clone() else {
            return Ok(());
        };
        let job = move || {
            gone.into_iter().for_each(|id| records.remove(id));
            records.write(id, &trigger)
        };
        tokio::task::spawn_blocking(job)
            .await
            .unwrap_or_else(|_| Err(broken()))
    }

    /// How a request stands, for somebody who is told of it now.
    ///
    /// # Errors
    /// `NotFound`, unless `of_kind` takes it for one of its own; else why the request failed.
    pub(super) fn tell(&self, id: &str, of_kind: fn(&Asked) -> bool) -> Result<Trigger, Refusal> {
        let id: TriggerId = id.parse()?;
        let mut triggers = self.triggers.lock();
        let found = triggers
            .get(id)
            .filter(|trigger| of_kind(&trigger.asked))
            .cloned();
        let trigger = found.ok_or_else(|| unknown(id))?;
        triggers.tell(id);
        drop(triggers);
        self.told.notify_all();
        match trigger.outcome {
            Some((_, Err(failure))) => Err(failure.into()),
            _ => Ok(trigger),
        }
    }

    /// Waits until the outcomes of all requests were told, but not for ever. Whether they were.
    pub(super) fn linger(&self, at_most: Duration) -> bool {
        let start = self.clock.monotonic();
        let mut triggers = self.triggers.lock();
        while triggers.untold() > 0 {
            let waited = self.clock.monotonic().saturating_sub(start);
            let Some(left) = at_most.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return false;
            };
            self.told.wait_for(&mut triggers, left.min(LOOK_MAX));
        }
        true
    }
}

fn broken() -> Error {
    Error::new(Code::JobFailed, "the endpoint failed at the request")
}
