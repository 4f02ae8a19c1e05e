//! A snapshot of keyed state on its way out.
//!
//! ```text
//!   prepare (owner thread; pointers only) ──▶ PendingSnapshot ──▶ write (any thread; flush, upload) ──▶ handle
//!                                                                                                       │
//!   notify_complete(id): the next snapshot may build on it ◀── the checkpoint is published ◀────────────┘
//!   notify_aborted(id):  it never was
//! ```

use keybed_format::Result;
use keybed_snapshot::{KeyedHandle, PutFiles};
use std::fmt::Debug;

/// The asynchronous part of a snapshot: owns what it needs, whatever happens to the state meanwhile.
pub trait PendingSnapshot: Send + Debug {
    /// Writes what the snapshot needs and the last completed checkpoint does not hold, and returns the handle of all
    /// of it. May take long; may run on any thread.
    ///
    /// # Errors
    /// Those of flush and `files`; the snapshot must then be declined and [`notify_aborted`] called.
    ///
    /// [`notify_aborted`]: crate::KeyedState::notify_aborted
    fn write(self: Box<Self>, files: &dyn PutFiles) -> Result<WrittenSnapshot>;
}

/// A snapshot whose files are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// Where the state lies.
    pub handle: KeyedHandle,
    /// What it cost.
    pub stats: SnapshotStats,
}

/// What a snapshot cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Bytes of files that were put.
    pub new_bytes: u64,
    /// Bytes of all files of the handle, each counted once.
    pub total_bytes: u64,
    /// Files that were put.
    pub files_new: u32,
    /// Files of the last completed checkpoint that the handle names again.
    pub files_reused: u32,
    /// Canonical savepoints only: most bytes of windows and timers that were in memory at once to be sorted.
    pub sort_bytes_max: u64,
    /// Canonical savepoints only: scratch files that the sort took.
    pub sort_files: u32,
}
