//! What flows through the channels: batches of records, and control marks that keep their place among them.

use keybed_snapshot::{CheckpointId, SnapshotKind};

/// A type that records may have: it crosses threads and is copied where a stream has several consumers.
pub trait Data: Clone + Send + 'static {}
impl<T: Clone + Send + 'static> Data for T {}

/// A value with its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// Event time in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: i64,
    /// The value.
    pub value: T,
}

/// How the state of a savepoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SavepointFormat {
    /// Files as the backend has them: fast to write and to restore.
    Native,
    /// Entries by key group, state and key, the same bytes whichever backend wrote them.
    Canonical,
}

impl SavepointFormat {
    /// The kind of snapshot that it makes.
    pub fn kind(self) -> SnapshotKind {
        match self {
            SavepointFormat::Native => SnapshotKind::NativeSavepoint,
            SavepointFormat::Canonical => SnapshotKind::CanonicalSavepoint,
        }
    }
}

/// What a checkpoint that somebody asks for may refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckpointScope {
    /// As the periodic ones: files of earlier checkpoints are named again.
    #[default]
    Configured,
    /// No file of another snapshot: every file is written anew. Later checkpoints may build on it.
    Full,
}

/// Why a checkpoint is taken; decides what happens after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The interval is over.
    Periodic,
    /// Somebody asked for it.
    Manual(CheckpointScope),
    /// Somebody asked for a snapshot of his own: no recovery uses it, no sink commits for it.
    Savepoint(SavepointFormat),
    /// The job ends with a snapshot that belongs to whoever asked; sinks commit what it names.
    StopWithSavepoint {
        /// How its state is written.
        format: SavepointFormat,
        /// The sources end their input first, so that everything fires that waits for its end.
        drain: bool,
    },
    /// The job stops after it and can be resumed.
    Stop,
    /// All input has been processed; the job is finished after it.
    Final,
}

impl Purpose {
    /// Whether the job ends once this checkpoint is complete.
    pub fn ends_the_job(self) -> bool {
        matches!(
            self,
            Purpose::StopWithSavepoint { .. } | Purpose::Stop | Purpose::Final
        )
    }

    /// Whether the snapshot is its user's, and none of the job's checkpoints.
    pub fn is_savepoint(self) -> bool {
        matches!(self, Purpose::Savepoint(_) | Purpose::StopWithSavepoint { .. })
    }

    /// Whether sources end their input ahead of its barrier; what follows a failure is a new attempt, then.
    pub fn drains(self) -> bool {
        matches!(self, Purpose::StopWithSavepoint { drain: true, .. })
    }

    /// What tasks write, unless they must write everything.
    pub fn kind(self) -> SnapshotKind {
        match self {
            Purpose::Savepoint(format) | Purpose::StopWithSavepoint { format, .. } => format.kind(),
            Purpose::Manual(CheckpointScope::Full) => SnapshotKind::FullCheckpoint,
            Purpose::Periodic
            | Purpose::Manual(CheckpointScope::Configured)
            | Purpose::Stop
            | Purpose::Final => SnapshotKind::Checkpoint,
        }
    }
}

/// The mark that separates the records of one checkpoint from those of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Why it is taken.
    pub purpose: Purpose,
    /// What tasks write for it.
    pub kind: SnapshotKind,
    /// Milliseconds since 1970-01-01T00:00:00Z at the trigger.
    pub timestamp_ms: u64,
}

/// A mark between records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// No record with a timestamp at or below follows.
    Watermark(i64),
    /// Everything before belongs to the checkpoint, nothing after.
    Barrier(Barrier),
    /// The checkpoint was given up before its barrier got here.
    Cancel(CheckpointId),
    /// No record follows; barriers still do.
    EndOfInput,
}

/// One entry of a channel.
#[derive(Clone, Debug)]
pub enum Element<T> {
    /// Records in the order they were emitted; never empty.
    Batch(Vec<Record<T>>),
    /// A mark.
    Control(Control),
}

impl<T> Element<T> {
    /// Records in it, which is what credit is counted in.
    pub fn records(&self) -> usize {
        match self {
            Element::Batch(batch) => batch.len(),
            Element::Control(_) => 0,
        }
    }
}
