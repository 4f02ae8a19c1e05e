//! Which backend, and what it stands on.

use keybed_env::{Fs, OsFs, Scheduler, random::Ids};
use keybed_lsm::table::Compression;
use keybed_snapshot::BackendKind;
use std::{path::PathBuf, sync::Arc};

/// What a keyed backend is made from; every subtask has its own.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Heap (state in ordered maps, for state that fits in memory) or LSM.
    pub kind: BackendKind,
    /// Work directory of this subtask and attempt alone. Created if missing; whatever files lie in it are removed first,
    /// because nothing local is trusted after a restart. A snapshot that is still on its way out keeps it locked, so a
    /// restarted job gives every attempt directories of its own. The heap backend writes its tables here while they
    /// are on their way into a snapshot.
    pub dir: PathBuf,
    /// File system of `dir`. Default: the operating system's.
    pub fs: Arc<dyn Fs>,
    /// Who runs flushes and compactions. Default `None`: one thread for all stores of the process.
    pub scheduler: Option<Arc<dyn Scheduler>>,
    /// Where ids of tables come from. Default: entropy; anything else is for simulation only.
    pub ids: Ids,
    /// Write memory of the subtask in bytes, 4 KiB to 4 GiB; for writes LSM only. Default 64 MiB. When it is used up the largest
    /// memtable is flushed. Smaller: less memory, more and smaller tables to merge. On both backends it also bounds
    /// the memory in which a canonical savepoint sorts windows and timers, which is at most 32 MiB.
    pub memtable_bytes: usize,
    /// How canonical savepoints are compressed. Default: not at all, as tables are. LZ4 halves what compresses well and
    /// writes it at about half the speed; zstd saves more and needs the feature. Readers know all of them.
    pub canonical_compression: Compression,
}

impl BackendOptions {
    /// The heap backend.
    pub fn heap(dir: impl Into<PathBuf>) -> Self {
        Self::of(BackendKind::Heap, dir.into())
    }

    /// The LSM backend.
    pub fn lsm(dir: impl Into<PathBuf>) -> Self {
        Self::of(BackendKind::Lsm, dir.into())
    }

    fn of(kind: BackendKind, dir: PathBuf) -> Self {
        BackendOptions {
            kind,
            dir,
            fs: Arc::new(OsFs),
            scheduler: None,
            ids: Ids::Entropy,
            memtable_bytes: 64 << 20,
            canonical_compression: Compression::None,
        }
    }
}
