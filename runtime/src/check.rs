//! What a start would find: a program against a snapshot, every problem at once. Made by
//! [`Pipeline::check`](crate::Pipeline::check), which changes nothing anywhere.

use keybed_format::{Error, Result};
use keybed_snapshot::{CheckpointId, JobId, OperatorUid, SnapshotKind};
use std::{fmt, path::PathBuf};

/// What a start would find.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// The snapshot that the job would start from; `None` without one, or if it cannot be read.
    pub snapshot: Option<CheckedSnapshot>,
    /// Operators of the program in its order, then those that only the snapshot has.
    pub operators: Vec<OperatorCheck>,
    /// What the job would start in spite of.
    pub warnings: Vec<RestoreWarning>,
    /// What keeps the job from starting; empty if nothing does.
    pub problems: Vec<Error>,
}

/// The facts of a snapshot that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSnapshot {
    /// Its directory.
    pub location: PathBuf,
    /// Whose it is.
    pub job: JobId,
    /// Its number there.
    pub checkpoint: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Milliseconds since 1970-01-01T00:00:00Z at its trigger.
    pub timestamp_ms: u64,
    /// Its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What becomes of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorStanding {
    /// It takes up its state.
    Restored,
    /// The snapshot has no state for it: it starts empty.
    New,
    /// The program lacks it, and there is nothing to lose.
    Gone,
    /// The program lacks it; its state is left out, as was allowed.
    LeftOut,
    /// The program lacks it: a problem.
    Unmapped,
}

impl OperatorStanding {
    /// A word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            OperatorStanding::Restored => "restored",
            OperatorStanding::New => "new",
            OperatorStanding::Gone => "gone",
            OperatorStanding::LeftOut => "left-out",
            OperatorStanding::Unmapped => "unmapped",
        }
    }
}

/// One operator of the program or the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCheck {
    /// Its uid in the program, else in the snapshot.
    pub uid: OperatorUid,
    /// Its uid in the snapshot, if it was renamed.
    pub renamed_from: Option<OperatorUid>,
    /// What becomes of it.
    pub standing: OperatorStanding,
    /// Names of the states that the snapshot holds.
    pub states: Vec<String>,
    /// Bytes that the snapshot holds of it.
    pub bytes: u64,
    /// Subtasks in the snapshot.
    pub parallelism_before: Option<u32>,
    /// Subtasks in the program.
    pub parallelism: Option<u32>,
    /// Key groups; of the snapshot if the program lacks it.
    pub max_parallelism: Option<u32>,
}

/// Something that a person who starts a job from a snapshot should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreWarning {
    /// The snapshot was taken when the job had been drained: all windows and timers have fired, event time was at its
    /// end. The job goes on, but windows begin anew for what comes.
    Drained {
        /// The snapshot.
        location: PathBuf,
    },
    /// The deprecated mode: the snapshot stays its owner's, and checkpoints refer to its files for an unknown time.
    Legacy {
        /// The snapshot.
        location: PathBuf,
    },
    /// The snapshot belongs to a job that may delete it at any time.
    Claimed {
        /// The snapshot.
        location: PathBuf,
        /// That job.
        owner: JobId,
    },
    /// State of an operator that the program lacks is left out.
    LeftOut {
        /// The operator's uid in the snapshot.
        uid: OperatorUid,
        /// Names of its states.
        states: Vec<String>,
        /// Their bytes.
        bytes: u64,
    },
}

impl RestoreWarning {
    /// A stable name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            RestoreWarning::Drained { .. } => "drained",
            RestoreWarning::Legacy { .. } => "legacy",
            RestoreWarning::Claimed { .. } => "claimed",
            RestoreWarning::LeftOut { .. } => "left-out",
        }
    }
}

impl fmt::Display for RestoreWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreWarning::Drained { location } => write!(
                f,
                "the snapshot {} was drained: its windows and timers have all fired, so those that are still open in \
                 the input give a second, partial result",
                location.display()
            ),
            RestoreWarning::Legacy { location } => write!(
                f,
                "the mode LEGACY is deprecated: checkpoints refer to files of {}, which must stay until the job says \
                 that it is released; use NO_CLAIM, or CLAIM to hand it over",
                location.display()
            ),
            RestoreWarning::Claimed { location, owner } => write!(
                f,
                "the snapshot {} is claimed by job {owner}, which deletes it when it needs it no more",
                location.display()
            ),
            RestoreWarning::LeftOut { uid, states, bytes } => write!(
                f,
                "state of the operator `{uid}` is left out: {bytes} bytes of {}",
                if states.is_empty() {
                    "operator state".to_owned()
                } else {
                    states.join(", ")
                }
            ),
        }
    }
}

impl CheckReport {
    /// Whether the job would start.
    pub fn is_compatible(&self) -> bool {
        self.problems.is_empty()
    }

    /// One error for all problems: the first, with the others as its fields `further_problem`.
    ///
    /// # Errors
    /// If there is a problem.
    pub fn verdict(&self) -> Result {
        let mut problems = self.problems.iter();
        let Some(first) = problems.next() else {
            return Ok(());
        };
        let add = |first: Error, other: &Error| first.with("further_problem", other);
        Err(problems.fold(first.duplicate(), add))
    }
}
