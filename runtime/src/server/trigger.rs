//! The table of what was asked for and what came of it. Pure: time and ids are given.
//!
//! ```text
//!   begin ──▶ in progress ──▶ completed │ failed ── read by somebody ──▶ kept for an hour ──▶ forgotten
//!     │             `── withdrawn: it could not even be started
//!     `─ the id is known: the same request again, answered by the first; another one is refused
//! ```

use crate::{element::CheckpointScope, job::SavepointOptions};
use keybed_format::{Code, Error, Result, hex};
use keybed_snapshot::CheckpointId;
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

/// Requests that may be in progress at once; more are refused, so that a client in a loop cannot fill the disk.
pub(super) const IN_PROGRESS_MAX: usize = 32;
/// Results are kept at least this long after they are known.
pub(super) const KEPT_MS: u64 = 3_600_000;
/// Results that are kept at all; reached only by thousands of requests in an hour, which are refused then.
pub(super) const KEPT_MAX: usize = 10_000;

/// Names a request, for ever: 32 hexadecimal digits, chosen by the client or by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TriggerId(pub(super) u128);

impl fmt::Display for TriggerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TriggerId {
    type Err = Error;

    /// Upper case is understood, since Flink does.
    fn from_str(text: &str) -> Result<Self> {
        match hex::decode(&text.to_ascii_lowercase()) {
            Ok(id) => Ok(TriggerId(id)),
            Err(_) => Err(Error::invalid("a request id is 32 hexadecimal digits")
                .with("found", super::request::shown(text))),
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A savepoint, with which the job is to end if `stop`.
    Savepoint {
        how: SavepointOptions,
        stop: bool,
        drain: bool,
    },
    Checkpoint(CheckpointScope),
    Disposal(PathBuf),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Savepoint(PathBuf),
    Checkpoint(CheckpointId),
    Disposed,
}

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// The whole error, beginning with the code.
    pub(super) text: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Failure {
            code: error.code(),
            text: error.to_string(),
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) asked: Asked,
    pub(super) since_ms: u64,
    /// When, and what.
    pub(super) outcome: Option<(u64, Result<Done, Failure>)>,
    /// Somebody has read the outcome.
    pub(super) read: bool,
}

/// What [`Triggers::begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Start it.
    New,
    /// The same was asked for under this id before.
    Known,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    all: BTreeMap<TriggerId, Trigger>,
}

impl Triggers {
    /// With requests of earlier runs.
    pub(super) fn with(all: BTreeMap<TriggerId, Trigger>) -> Self {
        Triggers { all }
    }

    /// Takes a request up.
    ///
    /// # Errors
    /// `TooManyRequests`; `TargetExists` if the id stands for another request.
    pub(super) fn begin(&mut self, id: TriggerId, asked: &Asked, now_ms: u64) -> Result<Begin> {
        if let Some(known) = self.all.get(&id) {
            if known.asked == *asked {
                return Ok(Begin::Known);
            }
            let what = "the trigger id stands for another request: choose a fresh one";
            return Err(Error::new(Code::TargetExists, what).with("trigger", id));
        }
        for (what, count, limit) in [
            ("requests are in progress", self.in_progress(), IN_PROGRESS_MAX),
            ("results are kept", self.all.len(), KEPT_MAX),
        ] {
            if count >= limit {
                let what = format!("too many {what}; try again later");
                return Err(Error::new(Code::TooManyRequests, what).with("limit", limit));
            }
        }
        let trigger = Trigger {
            asked: asked.clone(),
            since_ms: now_ms,
            outcome: None,
            read: false,
        };
        self.all.insert(id, trigger);
        Ok(Begin::New)
    }

    /// It could not be started; whoever asked was told.
    pub(super) fn withdraw(&mut self, id: TriggerId) {
        self.all.remove(&id);
    }

    pub(super) fn end(&mut self, id: TriggerId, outcome: Result<Done, Failure>, now_ms: u64) {
        if let Some(trigger) = self.all.get_mut(&id) {
            trigger.outcome = Some((now_ms, outcome));
        }
    }

    pub(super) fn get(&self, id: TriggerId) -> Option<&Trigger> {
        self.all.get(&id)
    }

    /// Somebody is told about it now.
    pub(super) fn tell(&mut self, id: TriggerId) {
        if let Some(trigger) = self.all.get_mut(&id) {
            trigger.read |= trigger.outcome.is_some();
        }
    }

    pub(super) fn in_progress(&self) -> usize {
        self.all
            .values()
            .filter(|trigger| trigger.outcome.is_none())
            .count()
    }

    /// Requests of whose outcome nobody knows yet.
    pub(super) fn untold(&self) -> usize {
        self.all.values().filter(|trigger| !trigger.read).count()
    }

    /// Forgets what was kept long enough; says what.
    pub(super) fn forget(&mut self, now_ms: u64) -> Vec<TriggerId> {
        let old = |trigger: &Trigger| match &trigger.outcome {
            Some((at, _)) => now_ms.saturating_sub(*at) > KEPT_MS,
            None => false,
        };
        let gone: Vec<TriggerId> = self
            .all
            .iter()
            .filter(|(_, t)| old(t))
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.all.remove(id);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::SavepointFormat;

    fn asked(drain: bool) -> Asked {
        Asked::Savepoint {
            how: SavepointOptions::new(SavepointFormat::Native, None),
            stop: drain,
            drain,
        }
    }

    #[test]
    fn the_same_request_again_is_the_first_and_another_one_is_refused() {
        let mut triggers = Triggers::default();
        let id = TriggerId(1);
        assert_eq!(triggers.begin(id, &asked(false), 0).unwrap(), Begin::New);
        assert_eq!(triggers.begin(id, &asked(false), 1).unwrap(), Begin::Known);
        assert_eq!(
            triggers.begin(id, &asked(true), 1).unwrap_err().code(),
            Code::TargetExists
        );
        triggers.end(id, Ok(Done::Savepoint("/sp".into())), 2);
        assert_eq!(triggers.begin(id, &asked(false), 3).unwrap(), Begin::Known);
        assert_eq!(triggers.in_progress(), 0);
    }

    #[test]
    fn an_outcome_is_untold_until_it_is_read_and_kept_for_an_hour() {
        let mut triggers = Triggers::default();
        let id = TriggerId(1);
        triggers.begin(id, &asked(false), 0).unwrap();
        triggers.tell(id);
        assert_eq!(triggers.untold(), 1, "in progress is no outcome");
        triggers.end(
            id,
            Err(Failure {
                code: Code::IoFailed,
                text: "IoFailed: x".into(),
            }),
            10,
        );
        assert_eq!(triggers.untold(), 1);
        triggers.tell(id);
        assert_eq!(triggers.untold(), 0);
        assert_eq!(triggers.forget(10 + KEPT_MS), []);
        assert!(triggers.get(id).is_some());
        assert_eq!(triggers.forget(11 + KEPT_MS), [id]);
        assert!(triggers.get(id).is_none());
    }

    #[test]
    fn what_is_in_progress_and_what_is_kept_is_bounded() {
        let mut triggers = Triggers::default();
        for n in 0..KEPT_MAX as u128 {
            let id = TriggerId(n);
            triggers.begin(id, &asked(false), 0).unwrap();
            let bound = n as usize % IN_PROGRESS_MAX == IN_PROGRESS_MAX - 1;
            if bound {
                let error = triggers
                    .begin(TriggerId(u128::MAX), &asked(false), 0)
                    .unwrap_err();
                assert_eq!(
                    (error.code(), error.exit_code(), triggers.in_progress()),
                    (Code::TooManyRequests, 4, IN_PROGRESS_MAX)
                );
                for m in 0..=n {
                    triggers.end(TriggerId(m), Ok(Done::Disposed), 5);
                }
            }
        }
        for n in 0..KEPT_MAX as u128 {
            triggers.end(TriggerId(n), Ok(Done::Disposed), 5);
        }
        let error = triggers
            .begin(TriggerId(u128::MAX), &asked(false), 6)
            .unwrap_err();
        assert_eq!(error.code(), Code::TooManyRequests);
        assert_eq!(triggers.forget(6 + KEPT_MS).len(), KEPT_MAX);
        triggers.begin(TriggerId(u128::MAX), &asked(false), 7).unwrap();
    }

    #[test]
    fn ids_are_hexadecimal_in_either_case() {
        let id: TriggerId = "00000000000000000000000000000aBc".parse().unwrap();
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
        for bad in [
            "",
            "abc",
            "+0000000000000000000000000000abc",
            "00000000000000000000000000000ab/",
            "ａ",
        ] {
            assert!(bad.parse::<TriggerId>().is_err(), "{bad}");
        }
    }
}
