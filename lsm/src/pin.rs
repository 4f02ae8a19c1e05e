//! Pinning: a store's content at one moment as a set of immutable files.
//!
//! ```text
//! Store::pin       seal, capture Arcs          microseconds, no I/O      ─► Pinning
//! Pinning::finish  wait for the flushes        any thread                ─► PinnedFiles
//! drop             files go when nobody else needs them
//! ```
//! What was captured is the version and the sealed memtables of that moment. The flush of each memtable leaves its
//! table in it, so a compaction that happens meanwhile changes nothing here.

use crate::{
    floor::{Floor, Floors},
    flush,
    key::{KeyRange, Seqno, TableId},
    memtable::Sealed,
    options::{FamilyOptions, StoreOptions},
    shared::{Shared, State},
    store::{LONG, Store},
    version::{LiveTable, Version, edit::DRAINING},
    wait::read_only,
};
use keybed_env::{Priority, fs::FileLock};
use keybed_format::{Code, Error, Result};
use std::{fmt, path::PathBuf, sync::Arc};

/// Files being pinned: everything is captured, some of it is still being flushed.
#[derive(Debug)]
pub struct Pinning {
    shared: Arc<Shared>,
    lock: Arc<dyn FileLock>,
    families: Vec<PinningFamily>,
    next_seqno: Seqno,
}

#[derive(Debug)]
struct PinningFamily {
    name: Arc<str>,
    sealed: Vec<Arc<Sealed>>,
    version: Arc<Version>,
    floors: Option<Arc<Floors>>,
    options: FamilyOptions,
}

/// One visible part of a pinned table.
#[derive(Clone)]
pub struct PinnedTable {
    /// Names the content.
    pub id: TableId,
    /// The file; it stays until the last clone of this is dropped.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of the file's trailer.
    pub digest: u64,
    /// Versions in the file; an upper bound of the visible ones.
    pub entries: u64,
    /// The keys that may be seen.
    pub visible: KeyRange,
    /// Newest version in the file.
    pub seqno_max: Seqno,
    /// Seqno of every version of a table that was ingested; 0 = versions have their own.
    pub seqno_base: Seqno,
    _live: Arc<LiveTable>,
    /// Without it another owner could open the directory and remove the file as nobody's.
    _lock: Arc<dyn FileLock>,
}

impl fmt::Debug for PinnedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedTable")
            .field("id", &self.id)
            .field("bytes", &self.bytes)
            .field("entries", &self.entries)
            .field("visible", &self.visible)
            .finish_non_exhaustive()
    }
}

/// One run of pinned tables.
#[derive(Clone, Debug)]
pub struct PinnedRun {
    /// How often its data was merged; 255 is the bottom.
    pub tier: u8,
    /// In the order of their keys; visible ranges are disjoint.
    pub tables: Vec<PinnedTable>,
}

/// The pinned content of one family.
#[derive(Clone, Debug)]
pub struct PinnedFamily {
    /// Name of the family.
    pub name: String,
    /// Newest first, the bottom last.
    pub runs: Vec<PinnedRun>,
    /// What is gone below them although the files may hold it: whoever mounts the files must mount these, too, or
    /// deleted keys come back.
    pub floors: Vec<Floor>,
    pub(crate) options: FamilyOptions,
}

/// Immutable files that together hold a store's content at one moment. They stay on disk until this is dropped;
/// until then (and until clones of its tables are dropped) the directory stays locked, even after the store was
/// closed.
#[derive(Debug)]
pub struct PinnedFiles {
    /// In the order of the families' creation.
    pub families: Vec<PinnedFamily>,
    /// Larger than every seqno in the files.
    pub next_seqno: Seqno,
    shared: Arc<Shared>,
    _lock: Arc<dyn FileLock>,
}

impl PinnedFiles {
    /// All tables of all families; one file may occur several times with disjoint visible ranges.
    pub fn tables(&self) -> impl Iterator<Item = &PinnedTable> {
        self.families
            .iter()
            .flat_map(|family| &family.runs)
            .flat_map(|run| &run.tables)
    }

    /// Options of the store they are of.
    pub(crate) fn options(&self) -> StoreOptions {
        self.shared.options.clone()
    }
}

impl Drop for PinnedFiles {
    fn drop(&mut self) {
        self.families.clear();
        self.shared.bury_the_dead();
    }
}

impl Store {
    /// Pins the content of this moment: seals the memtables and captures what there is. Microseconds, no I/O: the
    /// synchronous part of a checkpoint. The rest is [`Pinning::finish`], on any thread.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn pin(&mut self) -> Result<Pinning> {
        self.check_writable()?;
        self.seal_all()?;
        let lock = self.shared.hold().ok_or_else(closed)?;
        let families = self.families.iter().filter(|family| !family.dropped);
        let families = families.map(|family| PinningFamily {
            name: family.name.clone(),
            sealed: family.sealed.clone(),
            version: family.version.clone(),
            floors: family.active.memtable.floors().cloned(),
            options: family.options.clone(),
        });
        Ok(Pinning {
            families: families.collect(),
            next_seqno: self.next_seqno,
            shared: self.shared.clone(),
            lock,
        })
    }
}

fn closed() -> Error {
    Error::new(
        Code::Closed,
        "the store was closed before its memtables were flushed",
    )
}

impl Pinning {
    /// All writes with smaller seqnos are in the pinned files, no others.
    pub fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    /// Whether [`Pinning::finish`] would return without waiting.
    pub fn is_ready(&self) -> bool {
        self.sealed().all(|sealed| sealed.flushed.get().is_some())
    }

    fn sealed(&self) -> impl Iterator<Item = &Arc<Sealed>> {
        self.families.iter().flat_map(|family| &family.sealed)
    }

    /// Waits for the flushes, helping the scheduler with flushes meanwhile.
    ///
    /// # Errors
    /// `BackendReadOnly` if a memtable cannot be written; `Closed` if the store was closed or the family dropped
    /// before it was; `Poisoned`.
    pub fn finish(self) -> Result<PinnedFiles> {
        flush::schedule(&self.shared);
        let mut result = Ok(());
        self.shared.wait(Priority::Flush, LONG, |state| {
            if self.is_ready() {
                return true;
            }
            match self.obstacle(state) {
                Some(error) => {
                    result = Err(error);
                    true
                }
                None => false,
            }
        });
        result?;
        Ok(PinnedFiles {
            families: self
                .families
                .iter()
                .map(|family| family.pinned(&self.lock))
                .collect(),
            next_seqno: self.next_seqno,
            shared: self.shared,
            _lock: self.lock,
        })
    }

    /// Why the flushes will not come.
    fn obstacle(&self, state: &State) -> Option<Error> {
        if let Some(error) = &state.poisoned {
            return Some(error.duplicate());
        }
        if state.flushing {
            return None;
        }
        if let Some(error) = &state.flush_error {
            return Some(read_only(error));
        }
        let waiting = self.sealed().any(|sealed| {
            sealed.flushed.get().is_none()
                && !state.queue.iter().any(|(_, queued)| Arc::ptr_eq(queued, sealed))
        });
        (state.closing || waiting).then(closed)
    }
}

impl PinningFamily {
    fn pinned(&self, lock: &Arc<dyn FileLock>) -> PinnedFamily {
        let flushed = self
            .sealed
            .iter()
            .filter_map(|sealed| sealed.flushed.get()?.as_ref());
        let flushed = flushed.map(|table| PinnedRun {
            tier: 0,
            tables: vec![pinned(table, &table.record.visible, lock)],
        });
        let runs = self.version.runs.iter().map(|run| PinnedRun {
            // Half-drained runs are ordinary upper runs to whoever mounts them.
            tier: if run.tier == DRAINING { 1 } else { run.tier },
            tables: run
                .tables
                .iter()
                .map(|live| pinned(&live.table, &live.visible, lock))
                .collect(),
        });
        PinnedFamily {
            name: self.name.to_string(),
            runs: flushed.chain(runs).collect(),
            floors: self.floors.iter().flat_map(|floors| floors.iter()).collect(),
            options: self.options.clone(),
        }
    }
}

fn pinned(table: &Arc<LiveTable>, visible: &KeyRange, lock: &Arc<dyn FileLock>) -> PinnedTable {
    let record = &table.record;
    PinnedTable {
        id: record.id(),
        path: table.path.clone(),
        bytes: record.facts.bytes,
        digest: record.facts.digest,
        entries: record.facts.entries,
        visible: visible.clone(),
        seqno_max: record.seqno_max(),
        seqno_base: record.seqno_base,
        _live: table.clone(),
        _lock: lock.clone(),
    }
}
