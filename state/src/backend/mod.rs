//! What keyed state stands on: a small ordered key/value store over logical keys, with two implementations.
//!
//! ```text
//!   ValueState  ListState  MapState  timers
//!          \        |         |       /
//!           `---- KeyedState --------'      builds logical keys, knows the current key
//!                     |
//!               KeyedBackend                bytes in, bytes out; prepares snapshots
//!               /          \
//!         HeapBackend    LsmBackend
//!         ordered maps   a keybed_lsm::Store
//! ```
//! Both answer alike, and both snapshot into sorted tables of the same format, so each restores what the other
//! wrote. The backend of a state is chosen when the state is created or restored and never changes its answers.

mod ahead;
mod heap;
mod heap_snapshot;
mod ledger;
mod lsm;
mod lsm_snapshot;
mod options;
mod prefix;
mod run_writer;
mod work_dir;

pub use heap::HeapBackend;
pub use lsm::LsmBackend;
pub use options::BackendOptions;
pub(crate) use run_writer::RunWriter;
pub(crate) use work_dir::table_path;

use crate::{PendingSnapshot, StateFamily, canonical::CanonicalPart, runs::Runs};
use keybed_format::{Code, Error, Result, Sink};
use keybed_snapshot::{CheckpointId, SnapshotRequest, StateCatalogue};
use std::fmt::Debug;

/// A snapshot whose tables hold seqnos that it says are not given out yet: what is written next could hide below them.
fn seqno_too_low(said: u64, needed: u64) -> Error {
    Error::new(
        Code::SnapshotCorrupt,
        "the next seqno of the snapshot is not above those in its tables",
    )
    .expected_found(format_args!("at least {needed}"), said)
}

/// What a backend is restored from.
pub(crate) struct Restored<'a> {
    /// Tables.
    pub(crate) runs: Runs,
    /// Canonical files, by key group; the key groups of `runs` are others.
    pub(crate) canonical: &'a [CanonicalPart],
    /// The operator's states.
    pub(crate) catalogue: &'a StateCatalogue,
}

/// What to do with an entry after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Leave it as it is.
    Keep,
    /// Its value becomes the bytes written to the sink.
    Put,
    /// Remove it.
    Delete,
}

/// Looks at the value of a key (absent: `None`), may write a new value to the (empty) sink, and says what to do.
pub type Changer<'a> = dyn FnMut(Option<&[u8]>, &mut Sink) -> Result<Change> + 'a;

/// An ordered key/value store over logical keys, owned by one subtask.
///
/// Keys start with the key group, which lies in the range the backend was created for. Every method takes whole
/// logical keys; order is the order of bytes.
pub trait KeyedBackend: Send + Debug {
    /// Calls `read` with the value of `key`, if there is one, and says whether there was.
    ///
    /// # Errors
    /// Those of `read`; reading a table may fail.
    fn get(&self, family: StateFamily, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Result) -> Result<bool>;

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// `KeyTooLarge`, `ValueTooLarge`, or the store is read-only.
    fn put(&mut self, family: StateFamily, key: &[u8], value: &[u8]) -> Result;

    /// Removes `key`, whether present or not.
    ///
    /// # Errors
    /// As [`KeyedBackend::put`].
    fn delete(&mut self, family: StateFamily, key: &[u8]) -> Result;

    /// Reads, changes and writes `key` with a single look-up.
    ///
    /// # Errors
    /// Those of `change` (then nothing is written), and as [`KeyedBackend::put`].
    fn update(&mut self, family: StateFamily, key: &[u8], change: &mut Changer<'_>) -> Result;

    /// Entries from `start` (inclusive) to `end` (exclusive; `None` is the end of the family) in key order.
    ///
    /// # Errors
    /// Reading a table may fail.
    fn scan<'a>(
        &'a self,
        family: StateFamily,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Box<dyn EntryScan + 'a>>;

    /// Captures the state as it is now: the synchronous part of a snapshot, no I/O, pointers only.
    ///
    /// # Errors
    /// `InvalidArgument` for canonical savepoints, which [`KeyedState`](crate::KeyedState) writes from what
    /// [`KeyedBackend::capture`] returns; the store may be read-only.
    fn prepare(&mut self, request: &SnapshotRequest) -> Result<Box<dyn PendingSnapshot>>;

    /// Captures the content of now, to be read on any thread while the state changes: no I/O, pointers only.
    ///
    /// # Errors
    /// The store may be closed.
    fn capture(&mut self) -> Result<Captured>;

    /// The checkpoint was published: later ones may reference its files.
    fn notify_complete(&mut self, checkpoint: CheckpointId);

    /// The checkpoint will never be published.
    fn notify_aborted(&mut self, checkpoint: CheckpointId);

    /// What the backend has done so far.
    fn stats(&self) -> BackendStats;
}

/// Counters of a backend since it was created or restored; all 0 on the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Memtables flushed to tables.
    pub flushes: u64,
    /// Merges of runs, those into the bottom run included.
    pub compactions: u64,
    /// Merges into the bottom run.
    pub bottom_compactions: u64,
    /// Look-ups that the active memtable answered.
    pub memtable_hits: u64,
    /// Look-ups that went below the active memtable.
    pub table_gets: u64,
}

/// The content of a backend at one moment.
#[derive(Debug)]
pub struct Captured {
    /// The content.
    pub content: Box<dyn CapturedContent>,
    /// What the backend was made from, with ids of its own: where scratch files may lie.
    pub options: BackendOptions,
}

/// The content of one moment, whatever happens to the state meanwhile.
pub trait CapturedContent: Send + Debug {
    /// Calls `read` once with scans of all families, in the order of [`StateFamily::ALL`]. May wait for flushes.
    ///
    /// # Errors
    /// Those of `read`; the store may be unable to flush.
    fn read(self: Box<Self>, read: &mut ReadScans<'_>) -> Result;
}

/// Takes one scan per family.
pub type ReadScans<'a> = dyn FnMut([Box<dyn ContentScan + '_>; 4]) -> Result + 'a;

/// Walks over captured entries in key order, standing on one after the other, so that nobody need copy them.
pub trait ContentScan {
    /// Moves to the next entry, at first to the first one; `false` behind the last.
    ///
    /// # Errors
    /// Reading a table may fail.
    fn advance(&mut self) -> Result<bool>;

    /// The entry it stands on; empty if it stands on none.
    fn entry(&self) -> ScanEntry<'_>;
}

/// One entry of a scan: key and value, borrowed until the next one is asked for.
pub type ScanEntry<'a> = (&'a [u8], &'a [u8]);

/// Walks over entries in key order.
pub trait EntryScan {
    /// The next entry, or `None` at the end.
    ///
    /// # Errors
    /// Reading a table may fail.
    fn next_entry(&mut self) -> Result<Option<ScanEntry<'_>>>;
}
