//! Requests on disk: `requests/<id>.json` in the job's state directory, so that whoever asked can die, and the job can
//! end, and the answer is still there. Layout: docs/format/state-dir.md.
//!
//! ```text
//!  written, in progress ─▶ the request is started ─▶ answered "accepted" ─▶ written again with its outcome ─▶ told
//! ```
//! A request that is in progress in a file whose process is gone has no outcome: what it left is for whoever looks.

use super::trigger::{Asked, Done, Failure, KEPT_MAX, KEPT_MS, Trigger, TriggerId};
use crate::{
    element::{CheckpointScope, SavepointFormat},
    job::SavepointOptions,
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, JobId};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const FORMAT: u64 = 1;
const BYTES_MAX: u64 = 64 << 10;

/// The request of an id as a job recorded it in its directory `requests`, an object as docs/format/state-dir.md says.
///
/// # Errors
/// `NotFound` if there is none; `InvalidArgument` if `id` is no request id; `ManifestCorrupt` if the record is damaged.
pub fn recorded_request(fs: &dyn Fs, directory: &Path, id: &str) -> Result<Value> {
    let id: TriggerId = id.parse()?;
    let path = file(directory, id);
    if fs.facts(&path)?.is_none() {
        return Err(unknown(id));
    }
    let bytes = fs.read(&path, BYTES_MAX)?;
    let (job, trigger) = parse(&bytes).map_err(|e| e.in_file(&path))?;
    Ok(object(id, job, &trigger))
}

pub(super) fn unknown(id: TriggerId) -> Error {
    Error::new(Code::NotFound, "there is no request of that id").with("request", id)
}

/// The directory of the records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) directory: PathBuf,
    pub(super) job: JobId,
}

impl Records {
    /// Writes a request as it stands now, durably.
    pub(super) fn write(&self, id: TriggerId, trigger: &Trigger) -> Result {
        let object = object(id, self.job, trigger);
        let path = file(&self.directory, id);
        self.fs.create_dir_all(&self.directory)?;
        let temporary = path.with_extension("json.new");
        self.fs
            .write_atomic(&path, &temporary, format!("{object}\n").as_bytes())
            .map_err(|e| e.context("record the request"))
    }

    /// A record that is kept long enough, or whose request was never accepted; what cannot be removed stays.
    pub(super) fn remove(&self, id: TriggerId) {
        let _ = self.fs.remove_file(&file(&self.directory, id));
    }

    /// Requests of earlier runs of the job that are kept still. Older ones are removed, whosever they are; damaged
    /// records stay where they are and are passed by.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn load(&self, now_ms: u64) -> Result<BTreeMap<TriggerId, Trigger>> {
        let mut found = BTreeMap::new();
        if self.fs.facts(&self.directory)?.is_none() {
            return Ok(found);
        }
        for entry in self.fs.list(&self.directory)? {
            let name = entry.name.strip_suffix(".json");
            let Some(id) = name.and_then(|name| name.parse::<TriggerId>().ok()) else {
                continue;
            };
            let path = file(&self.directory, id);
            let Ok((job, mut trigger)) = self.fs.read(&path, BYTES_MAX).and_then(|bytes| parse(&bytes))
            else {
                continue;
            };
            let known_at = trigger.outcome.as_ref().map_or(trigger.since_ms, |(at, _)| *at);
            if now_ms.saturating_sub(known_at) > KEPT_MS {
                self.remove(id);
            } else if job == self.job && found.len() < KEPT_MAX {
                if trigger.outcome.is_none() {
                    trigger.outcome = Some((now_ms, Err(interrupted())));
                    self.write(id, &trigger)?;
                }
                found.insert(id, trigger);
            }
        }
        Ok(found)
    }
}

fn interrupted() -> Failure {
    let what = "the process ended before the request did; what came of it is seen at its target only";
    Failure::from(&Error::new(Code::Closed, what))
}

fn file(directory: &Path, id: TriggerId) -> PathBuf {
    directory.join(format!("{id}.json"))
}

/// A request as it is recorded, and as keybed's own route tells it.
pub(super) fn object(id: TriggerId, job: JobId, trigger: &Trigger) -> Value {
    let (kind, target, how, drain, full) = match &trigger.asked {
        Asked::Savepoint { how, stop, drain } => {
            let kind = if *stop { "stop" } else { "savepoint" };
            (kind, how.target.as_ref(), Some(how), *drain, false)
        }
        Asked::Checkpoint(scope) => ("checkpoint", None, None, false, *scope == CheckpointScope::Full),
        Asked::Disposal(path) => ("disposal", Some(path), None, false, false),
    };
    let status = match &trigger.outcome {
        None => "in-progress",
        Some((_, Ok(_))) => "completed",
        Some((_, Err(_))) => "failed",
    };
    let done = trigger.outcome.as_ref().map(|(_, outcome)| outcome);
    json!({
        "format": FORMAT,
        "request": id.to_string(),
        "job_id": job.to_string(),
        "kind": kind,
        "target": target.map(|path| path.display().to_string()),
        "savepoint_format": how.map(|how| format_name(how.format)),
        "hard_links": how.is_some_and(|how| how.hard_links),
        "drain": drain,
        "full": full,
        "since_ms": trigger.since_ms,
        "status": status,
        "ended_ms": trigger.outcome.as_ref().map(|(at, _)| at),
        "location": match done {
            Some(Ok(Done::Savepoint(path))) => Some(path.display().to_string()),
            _ => None,
        },
        "checkpoint": match done {
            Some(Ok(Done::Checkpoint(id))) => Some(id.0),
            _ => None,
        },
        "error": match done {
            Some(Err(failure)) => json!({ "code": failure.code.as_str(), "text": failure.text }),
            _ => Value::Null,
        },
    })
}

fn format_name(format: SavepointFormat) -> &'static str {
    match format {
        SavepointFormat::Native => "native",
        SavepointFormat::Canonical => "canonical",
    }
}

fn parse(bytes: &[u8]) -> Result<(JobId, Trigger)> {
    let damaged = |what: &str| Error::new(Code::ManifestCorrupt, format!("the record is damaged: {what}"));
    let value: Value = serde_json::from_slice(bytes).map_err(|e| damaged(&e.to_string()))?;
    if value["format"].as_u64() != Some(FORMAT) {
        let what = "the record is of another version";
        return Err(Error::new(Code::UnsupportedFormatVersion, what).expected_found(FORMAT, &value["format"]));
    }
    let text = |name: &str| value[name].as_str();
    let number = |name: &str| value[name].as_u64().ok_or_else(|| damaged(name));
    let target = text("target").map(PathBuf::from);
    let asked = match text("kind") {
        Some(kind @ ("savepoint" | "stop")) => Asked::Savepoint {
            how: SavepointOptions {
                target,
                format: match text("savepoint_format") {
                    Some("native") => SavepointFormat::Native,
                    Some("canonical") => SavepointFormat::Canonical,
                    _ => return Err(damaged("savepoint_format")),
                },
                hard_links: value["hard_links"] == true,
            },
            stop: kind == "stop",
            drain: value["drain"] == true,
        },
        Some("checkpoint") if value["full"] == true => Asked::Checkpoint(CheckpointScope::Full),
        Some("checkpoint") => Asked::Checkpoint(CheckpointScope::Configured),
        Some("disposal") => Asked::Disposal(target.ok_or_else(|| damaged("target"))?),
        _ => return Err(damaged("kind")),
    };
    let done = || match &asked {
        Asked::Savepoint { .. } => text("location").map(|path| Done::Savepoint(path.into())),
        Asked::Checkpoint(_) => value["checkpoint"]
            .as_u64()
            .map(|id| Done::Checkpoint(CheckpointId(id))),
        Asked::Disposal(_) => Some(Done::Disposed),
    };
    let outcome = match text("status") {
        Some("in-progress") => None,
        Some("completed") => Some(Ok(done().ok_or_else(|| damaged("location"))?)),
        Some("failed") => {
            let error = &value["error"];
            let named = |code: &&Code| error["code"].as_str() == Some(code.as_str());
            Some(Err(Failure {
                code: *Code::ALL.iter().find(named).ok_or_else(|| damaged("error"))?,
                text: error["text"].as_str().ok_or_else(|| damaged("error"))?.to_owned(),
            }))
        }
        _ => return Err(damaged("status")),
    };
    let job = text("job_id").ok_or_else(|| damaged("job_id"))?;
    let trigger = Trigger {
        since_ms: number("since_ms")?,
        outcome: match outcome {
            Some(outcome) => Some((number("ended_ms")?, outcome)),
            None => None,
        },
        asked,
        read: true,
    };
    Ok((job.parse().map_err(|e: Error| damaged(e.message()))?, trigger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::OsFs;

    fn triggers() -> Vec<Trigger> {
        let savepoint = |stop| Asked::Savepoint {
            how: SavepointOptions {
                target: Some("/sp/ä".into()),
                format: SavepointFormat::Native,
                hard_links: stop,
            },
            stop,
            drain: stop,
        };
        let failed = Err(Failure {
            code: Code::NoTargetDirectory,
            text: "NoTargetDirectory: x".into(),
        });
        let trigger = |asked, outcome: Option<Result<Done, Failure>>| Trigger {
            asked,
            since_ms: 1_000,
            outcome: outcome.map(|outcome| (2_000, outcome)),
            read: true,
        };
        vec![
            trigger(savepoint(false), Some(Ok(Done::Savepoint("/sp/ä/1".into())))),
            trigger(savepoint(true), Some(failed)),
            trigger(savepoint(true), None),
            trigger(
                Asked::Checkpoint(CheckpointScope::Full),
                Some(Ok(Done::Checkpoint(CheckpointId(7)))),
            ),
            trigger(Asked::Disposal("/sp/ä/1".into()), Some(Ok(Done::Disposed))),
        ]
    }

    fn records(dir: &Path, job: u128) -> Records {
        Records {
            fs: Arc::new(OsFs),
            directory: dir.join("requests"),
            job: JobId(job),
        }
    }

    #[test]
    fn what_is_recorded_is_read_again_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(dir.path(), 7);
        assert_eq!(records.load(0).unwrap(), BTreeMap::new());
        for (n, trigger) in triggers().iter().enumerate() {
            records.write(TriggerId(n as u128), trigger).unwrap();
        }
        let loaded = records.load(3_000).unwrap();
        for (n, written) in triggers().into_iter().enumerate() {
            let read = &loaded[&TriggerId(n as u128)];
            match &written.outcome {
                Some(_) => assert_eq!(*read, written),
                None => assert_eq!(read.outcome, Some((3_000, Err(interrupted())))),
            }
        }
        let one = recorded_request(&OsFs, &records.directory, &TriggerId(0).to_string()).unwrap();
        assert_eq!(
            (one["status"].as_str(), one["location"].as_str()),
            (Some("completed"), Some("/sp/ä/1"))
        );
        let none = recorded_request(&OsFs, &records.directory, &TriggerId(99).to_string()).unwrap_err();
        assert_eq!(none.code(), Code::NotFound);
    }

    #[test]
    fn old_records_go_foreign_and_damaged_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (records(dir.path(), 7), records(dir.path(), 8));
        ours.write(TriggerId(1), &triggers()[0]).unwrap();
        theirs.write(TriggerId(2), &triggers()[0]).unwrap();
        for text in ["", "{}", "[", r#"{"format":1}"#, r#"{"format":2}"#, "\u{0}"] {
            std::fs::write(file(&ours.directory, TriggerId(3)), text).unwrap();
            let loaded = ours.load(2_000 + KEPT_MS).unwrap();
            assert_eq!(loaded.keys().collect::<Vec<_>>(), [&TriggerId(1)]);
            assert!(recorded_request(&OsFs, &ours.directory, &TriggerId(3).to_string()).is_err());
        }
        assert!(ours.load(2_001 + KEPT_MS).unwrap().is_empty());
        assert!(!file(&ours.directory, TriggerId(1)).exists());
        assert!(file(&ours.directory, TriggerId(3)).exists());
    }
}
