//! What a job tells the outside while it runs and when it is over.

use crate::{check::RestoreWarning, element::Purpose, job::JobState, metrics::NodeMetrics};
use keybed_format::Error;
use keybed_snapshot::{CheckpointId, JobId, OperatorUid};
use std::{path::PathBuf, time::Duration};

/// How far a split of a source was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitOffset {
    /// The source.
    pub uid: OperatorUid,
    /// The split.
    pub split: u32,
    /// Position of the next record.
    pub position: u64,
}

/// Something happened to a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// An attempt began: its tasks take up their state.
    Started {
        /// The job.
        job: JobId,
        /// Counts attempts of this process from 1.
        attempt: u64,
        /// The checkpoint that was restored, or the id of the snapshot that the job was started from.
        restored: Option<CheckpointId>,
        /// Where the sources go on; empty if nothing was restored.
        offsets: Vec<SplitOffset>,
    },
    /// The job starts from a snapshot, and there is something to know about that. Comes before the first
    /// [`JobEvent::Started`].
    RestoreWarning {
        /// What.
        warning: RestoreWarning,
    },
    /// Nothing of this job reads the snapshot any more that it was started from, nor ever will: its owner may remove
    /// it. Comes once.
    SourceSnapshotReleased {
        /// Its directory.
        location: PathBuf,
    },
    /// A barrier was sent into the sources.
    CheckpointTriggered {
        /// Which.
        checkpoint: CheckpointId,
        /// Why.
        purpose: Purpose,
    },
    /// A checkpoint is published: it will be restored if the job fails now.
    CheckpointCompleted {
        /// Which.
        checkpoint: CheckpointId,
        /// Why it was taken.
        purpose: Purpose,
        /// From trigger to publication.
        duration: Duration,
        /// Bytes that were added to the storage.
        new_bytes: u64,
        /// Bytes of everything that it refers to.
        total_bytes: u64,
        /// Where the sources were.
        offsets: Vec<SplitOffset>,
    },
    /// A checkpoint was given up.
    CheckpointDeclined {
        /// Which; `None` if it did not even get an id.
        checkpoint: Option<CheckpointId>,
        /// Why.
        reason: String,
    },
    /// A savepoint is published.
    SavepointCompleted {
        /// The id it was taken under.
        checkpoint: CheckpointId,
        /// Its directory.
        location: PathBuf,
        /// From trigger to publication.
        duration: Duration,
    },
    /// A savepoint was given up; the job goes on.
    SavepointFailed {
        /// The id it was to be taken under; `None` if it did not even get one.
        checkpoint: Option<CheckpointId>,
        /// Why.
        reason: String,
    },
    /// A savepoint ended the job; sinks commit what it names. In a run that finds it, nothing was restored and no record
    /// is read.
    Concluding {
        /// The id it was taken under.
        checkpoint: CheckpointId,
        /// Its directory.
        location: PathBuf,
        /// The input was ended before, so the result is complete.
        drained: bool,
    },
    /// Retention or the sweep of an older checkpoint failed; it is tried again after the next one.
    CleanupFailed {
        /// What was met.
        error: Error,
    },
    /// A sink dropped parts that the restored snapshot names and that lie nowhere, as it was told to: the output lacks
    /// their lines.
    TransactionsLost {
        /// The sink.
        uid: OperatorUid,
        /// How many parts.
        parts: u64,
        /// Lines in them.
        lines: u64,
    },
    /// A job began a history of its own from a snapshot, and a sink found parts of other histories that the snapshot
    /// does not name. They are left to their owners; `keybed sink ls` lists them.
    TransactionsInDoubt {
        /// The sink.
        uid: OperatorUid,
        /// How many parts.
        parts: u64,
    },
    /// An attempt failed; the next begins after the pause.
    Restarting {
        /// What failed.
        reason: Error,
        /// Time until then.
        pause: Duration,
    },
    /// The job is over.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All input is processed, the results stand.
    Finished,
    /// A last checkpoint was taken; a resume goes on from it.
    Stopped,
    /// It was cancelled; a resume goes on from the newest checkpoint.
    Cancelled,
    /// It failed; [`JobHandle::wait`](crate::JobHandle::wait) gives the error.
    Failed,
}

/// What a job has done in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReport {
    /// The job.
    pub job: JobId,
    /// Where it is.
    pub state: JobState,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// From the start of the run to its end, or to now.
    pub duration: Duration,
    /// Attempts so far.
    pub attempts: u64,
    /// Checkpoints completed in this run.
    pub checkpoints: u64,
    /// The newest completed checkpoint, that which was restored included.
    pub last_checkpoint: Option<CheckpointId>,
    /// The savepoint that the job ended with, or ends with: it exists.
    pub stopped_with: Option<PathBuf>,
    /// The input was ended ahead of that savepoint, so the result is complete.
    pub drained: bool,
    /// The directory of the snapshot that the job was started from, in this run or an earlier one.
    pub restored_from: Option<PathBuf>,
    /// Whether that snapshot must stay where it is: a recovery would go back to it, or a checkpoint that is kept refers
    /// to its files. One that the job has claimed is its own concern.
    pub depends_on_restored_snapshot: bool,
    /// Counters of every source, operator and sink, in the order of the program.
    pub nodes: Vec<NodeMetrics>,
    /// Records that the sources emitted, those read again after a restart included.
    pub source_records: u64,
}
