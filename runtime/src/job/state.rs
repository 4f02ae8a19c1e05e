//! Where a job is, in one word.

use std::path::PathBuf;

/// The state of a job in this process. Flink's words and meanings, and one of keybed's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// Nothing was begun yet.
    #[default]
    Created,
    /// Its tasks take up their state for the first time.
    Initializing,
    /// Its tasks run.
    Running,
    /// It failed and will not be restarted; its tasks are being ended.
    Failing,
    /// It failed.
    Failed,
    /// It was cancelled; its tasks are being ended.
    Cancelling,
    /// It was cancelled. Its checkpoints stay.
    Canceled,
    /// It stopped after a last checkpoint of its own, to be resumed.
    Suspended,
    /// Its result is complete, or it stopped with a savepoint. A later run finds a record of it and does nothing.
    Finished,
    /// It failed and will be, or is being, started again.
    Restarting,
    /// It stopped with a savepoint, which exists, but its sinks could not commit what the savepoint names. The next run
    /// starts from the savepoint and does nothing but commit.
    StopCommitPending {
        /// The savepoint's directory.
        savepoint: PathBuf,
    },
}

impl JobState {
    /// The word that Flink's clients know. A job whose commits are pending has failed for them.
    pub fn as_flink_status(&self) -> &'static str {
        match self {
            JobState::Created => "CREATED",
            JobState::Initializing => "INITIALIZING",
            JobState::Running => "RUNNING",
            JobState::Failing => "FAILING",
            JobState::Failed | JobState::StopCommitPending { .. } => "FAILED",
            JobState::Cancelling => "CANCELLING",
            JobState::Canceled => "CANCELED",
            JobState::Suspended => "SUSPENDED",
            JobState::Finished => "FINISHED",
            JobState::Restarting => "RESTARTING",
        }
    }

    /// Whether the job is over in this process.
    pub fn is_ended(&self) -> bool {
        matches!(
            self,
            JobState::Failed
                | JobState::Canceled
                | JobState::Suspended
                | JobState::Finished
                | JobState::StopCommitPending { .. }
        )
    }
}
