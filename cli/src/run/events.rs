//! `events.jsonl` in the state directory: what happened to the job, one JSON object per line, only ever appended.
//!
//! A line is appended with one write when the event happens, so a reader sees it as soon as it is true. The log is
//! for people and tests; nothing is decided by it. A line torn by a crash is ended before the next is written.
//! Fields: docs/format/state-dir.md.

use keybed::{
    Result,
    env::{Clock, Fs, WriteFile},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Name of the log in the state directory.
pub(crate) const NAME: &str = "events.jsonl";

/// The open log.
pub(crate) struct EventLog {
    file: Mutex<Box<dyn WriteFile>>,
    clock: Arc<dyn Clock>,
}

impl EventLog {
    /// Opens the log of a state directory at its end.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(fs: &dyn Fs, clock: Arc<dyn Clock>, state_dir: &Path) -> Result<EventLog> {
        let path = state_dir.join(NAME);
        let mut torn = false;
        let mut file = match fs.facts(&path)? {
            None => fs.create(&path)?,
            Some(facts) => {
                let mut last = [b'\n'];
                if facts.len > 0 {
                    fs.open(&path)?.read_exact_at(&mut last, facts.len - 1)?;
                }
                torn = last != [b'\n'];
                fs.append(&path)?
            }
        };
        if torn {
            file.append(b"\n")?;
        }
        Ok(EventLog {
            file: Mutex::new(file),
            clock,
        })
    }

    /// Appends an event with the fields of the object `fields`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn append(&self, event: &str, fields: &Value) -> Result {
        let mut line = json!({ "event": event, "time_ms": self.clock.wall_millis() });
        if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object()) {
            line.extend(fields.clone());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.append(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed::env::{ManualClock, OsFs};

    #[test]
    fn lines_are_appended_over_runs_and_a_torn_one_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let open = || EventLog::open(&OsFs, Arc::new(ManualClock::new()), dir.path()).unwrap();
        open().append("started", &json!({ "attempt": 1 })).unwrap();
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"event\":\"trig");
        std::fs::write(&path, bytes).unwrap();
        open().append("restored", &json!({})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let first: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(
            (first["event"].as_str(), first["attempt"].as_u64()),
            (Some("started"), Some(1))
        );
        assert_eq!(
            serde_json::from_str::<Value>(lines[2]).unwrap()["event"],
            "restored"
        );
    }
}
