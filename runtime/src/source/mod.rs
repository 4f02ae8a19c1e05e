//! Where records come from: replayable splits.
//!
//! An input consists of a fixed number of *splits*; each is a sequence that can be read again from any position.
//! Splits are dealt to the source's subtasks (split *i* goes to subtask *i* mod parallelism), so they move when the
//! parallelism changes; the number of splits never depends on it. A snapshot stores for each split the next
//! position and the largest event time seen ([`split`]).

pub mod split;
mod throttle;

pub(crate) use throttle::Throttle;

use crate::element::Data;
use keybed_env::Fs;
use keybed_format::Result;
use std::{sync::Arc, time::Duration};

/// A replayable input.
///
/// The same splits and positions must always give the same records: after a failure they are read again.
pub trait Source: Send + Sync + 'static {
    /// What it emits.
    type Record: Data;

    /// Number of splits, fixed by the input, at least 1.
    fn splits(&self) -> u32;

    /// How far event times may be out of order within one split; a record that is later than this may be dropped by
    /// windows. Zero by default.
    fn out_of_orderness(&self) -> Duration {
        Duration::ZERO
    }

    /// Opens a reader for some splits, each from a position (0 is the beginning). Called on the task's own thread.
    ///
    /// # Errors
    /// `InputUnreadable`, `BadRecord`: the job fails and is not restarted.
    fn open(&self, fs: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<Self::Record>>>;
}

/// A split and where to begin in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitStart {
    /// Which split.
    pub split: u32,
    /// Position of the next record; 0 is the beginning.
    pub position: u64,
}

/// Reads the splits of one subtask.
pub trait SourceReader<T>: Send {
    /// The next record of any of the splits. Must not block for long.
    ///
    /// # Errors
    /// `InputUnreadable`, `BadRecord` (with file, line and column): the job fails and is not restarted.
    fn poll_next(&mut self) -> Result<Polled<T>>;
}

/// What a reader has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled<T> {
    /// A record.
    Record {
        /// Its split.
        split: u32,
        /// Position after it: where reading this split goes on after a restore.
        next: u64,
        /// Event time in milliseconds since 1970-01-01T00:00:00Z.
        timestamp: i64,
        /// The record.
        value: T,
    },
    /// Something was passed over; reading this split goes on at `next`.
    Skipped {
        /// The split.
        split: u32,
        /// Position after it.
        next: u64,
    },
    /// This split has no more records; it holds event time back no longer.
    SplitEnd(u32),
    /// Nothing now; ask again after this long.
    Pending(Duration),
    /// All splits are at their end.
    End,
}
