//! Programmes: what a child does with one store, and the rows it says figures of.

mod lists;
mod maps;
mod point;
mod threads;
mod timers;
mod windows;

use crate::engines::{Contender, Engine, Setup};
use std::path::{Path, PathBuf};

/// A programme under its name.
pub struct Program {
    /// Name in tables and on the command line.
    pub name: &'static str,
    /// Runs once for one engine.
    pub run: fn(&Bench),
    /// Keys of the programme for each key of the run.
    pub keys_factor: u64,
    /// Block cache in bytes, for a million keys of the programme.
    pub cache_bytes_per_million: usize,
    /// Rounds at most: long programmes are not repeated as often.
    pub rounds_max: usize,
    /// Engines it leaves out: for those it takes too long and says nothing new.
    pub without: &'static [&'static str],
    /// Memory that the whole process may use, page cache included, for a million keys of the programme.
    pub confined_per_million: Option<u64>,
    /// Write memory of every engine.
    pub memtable_bytes: usize,
    /// Whether quick mode runs it.
    pub quick: bool,
}

/// All programmes in the order of the report.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "point",
        run: point::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &[],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "lists",
        run: lists::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &[],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "maps",
        run: maps::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &[],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "windows",
        run: windows::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &[],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "timers",
        run: timers::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &[],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "threads",
        run: threads::run,
        keys_factor: 1,
        cache_bytes_per_million: 512 << 20,
        rounds_max: usize::MAX,
        without: &["keybed-unmapped", "rocksdb-plain", "rocksdb-mapped", "redb"],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    Program {
        name: "cached",
        run: point::run_beside_cache,
        keys_factor: 10,
        cache_bytes_per_million: (256 << 20) / 10,
        rounds_max: 1,
        without: &["redb"],
        confined_per_million: None,
        memtable_bytes: MEMTABLE_BYTES,
        quick: true,
    },
    // 384 MiB for 10 M keys: about half of the state.
    Program {
        name: "confined",
        run: point::run_confined,
        keys_factor: 10,
        cache_bytes_per_million: (64 << 20) / 10,
        rounds_max: 1,
        without: &["redb", "std", "rocksdb-plain"],
        confined_per_million: Some((384 << 20) / 10),
        memtable_bytes: 32 << 20,
        quick: false,
    },
    // A quarter of the state, look-ups only.
    Program {
        name: "outside",
        run: point::run_outside,
        keys_factor: 10,
        cache_bytes_per_million: (64 << 20) / 10,
        rounds_max: 1,
        without: &["redb", "std", "rocksdb-plain"],
        confined_per_million: Some((170 << 20) / 10),
        memtable_bytes: 8 << 20,
        quick: false,
    },
];

/// Cache that an engine gets at least.
const CACHE_BYTES_MIN: usize = 8 << 20;
/// Cache that an engine gets at most.
const CACHE_BYTES_MAX: usize = 4 << 30;
/// Write memory of every engine.
const MEMTABLE_BYTES: usize = 64 << 20;

impl Program {
    /// Keys of the programme in a run of that many.
    pub fn keys(&self, keys: u64) -> u64 {
        keys * self.keys_factor
    }

    /// Bytes that its process may use.
    pub fn confined(&self, keys: u64) -> Option<u64> {
        self.confined_per_million
            .map(|bytes| bytes * self.keys(keys) / 1_000_000)
    }

    /// What an engine gets.
    pub fn setup(&self, keys: u64) -> Setup {
        let cache = self.cache_bytes_per_million as u64 * self.keys(keys) / 1_000_000;
        let cache_bytes = (cache as usize).clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX);
        // Where memory is short it is short in proportion: the sizes are those for 10 M keys.
        let memtable_bytes = match self.confined_per_million {
            Some(_) => (self.memtable_bytes as u64 * self.keys(keys) / 10_000_000) as usize,
            None => self.memtable_bytes,
        };
        Setup {
            cache_bytes,
            memtable_bytes,
            // What RocksDB's cache and its two memtables may take.
            budget_bytes: self
                .confined_per_million
                .map(|_| cache_bytes + 2 * memtable_bytes),
            ordered: false,
            queue_bytes: 0,
            prefix_bytes: 0,
            appends: false,
        }
    }
}

/// One run of a programme with one engine.
pub struct Bench {
    pub contender: &'static Contender,
    /// Keys of the programme.
    pub keys: u64,
    /// Operations of a row.
    pub ops: u64,
    /// Scratch directory.
    pub dir: PathBuf,
    pub setup: Setup,
}

impl Bench {
    /// Opens the store of the programme.
    pub fn open(&self, setup: &Setup) -> Box<dyn Engine> {
        let dir = self.store_dir();
        std::fs::create_dir_all(&dir).expect("the scratch directory takes a directory");
        (self.contender.open)(&dir, setup)
    }

    /// Where the store is.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A fresh path beside the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join(name)
    }

    /// Whether this is the reference in memory.
    pub fn is_reference(&self) -> bool {
        self.contender.peer == "std"
    }
}
