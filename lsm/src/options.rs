//! Options of stores and families.

use crate::{
    budget::MemoryBudget,
    compaction::{CompactionFilter, MergeRate},
    memtable::MemtableKind,
    merge_operator::MergeOperator,
    table::Compression,
};
use keybed_env::{Clock, Fs, OsFs, Scheduler, SystemClock, ThreadScheduler, random::Ids};
use keybed_format::{Error, Result};
use std::{sync::Arc, time::Duration};

/// Longest partition or cut prefix in bytes.
pub const PREFIX_BYTES_MAX: u8 = 8;

/// A block of a mapped table costs nothing to read, and little to check once.
const MAPPED_BLOCK_BYTES: usize = 16 << 10;
/// A block that is read and checked for one entry.
const READ_BLOCK_BYTES: usize = 4 << 10;

/// What survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing local is promised: neither tables nor edits are synced. After [`Store::close`](crate::Store::close)
    /// the store opens with all its content unless the machine loses power; after that it opens with an older
    /// consistent content or reports damage, never wrong data. For state whose log is the checkpoint.
    None,
    /// A write is in the log and with the operating system before it returns: the death of the process loses nothing,
    /// a power loss loses the last writes, never some in the middle. [`Store::sync`](crate::Store::sync) makes what
    /// was written so far durable.
    #[default]
    Buffered,
    /// As `Buffered`; the log is synced every so often in the background, so that a power loss loses at most the writes
    /// of that time. Under a scheduler with threads this takes a thread.
    Interval(Duration),
    /// A write is durable before it returns. Writes of several threads through a shared store, and operations of a
    /// [`WriteBatch`](crate::WriteBatch), share a sync.
    Sync,
}

/// How blocks of tables are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Tables this store wrote are mapped into memory; mounted ones go through the cache.
    #[default]
    Map,
    /// All blocks go through the cache.
    Cache,
}

/// Options of a [`Store`](crate::Store). Sizes are bytes.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The file system; default the operating system's.
    pub fs: Arc<dyn Fs>,
    /// Runs flushes and compactions; default a pool of one thread of its own. Clones of these options share it: a
    /// process with many stores clones one set of options.
    pub scheduler: Arc<dyn Scheduler>,
    /// Where time comes from, for statistics and for everything that is due after a while; default the system's.
    pub clock: Arc<dyn Clock>,
    /// Where table ids come from; default the system's entropy.
    pub ids: Ids,
    /// Write memory of all families together, 4 KiB to 4 GiB; default 64 MiB. When it is used up the largest
    /// memtable is sealed and flushed. Sealed memtables may hold `sealed_max` times as much again.
    pub memtable_bytes: usize,
    /// Sealed memtables that may wait for their flush, in units of `memtable_bytes`, 1 to 16; default 3. Beyond, a
    /// write waits.
    pub sealed_max: usize,
    /// How long a write waits for a flush before it fails with `Busy`; default 30 s.
    pub write_wait_max: Duration,
    /// What survives a crash; default `Buffered`: everything survives the death of the process.
    pub durability: Durability,
    /// Bytes that the files of the log may have together, 64 KiB to 1 TiB; default 512 MiB. When they have more the
    /// memtables that need the oldest file are sealed and flushed, however small they are. Less: smaller tables where
    /// few keys are overwritten often, and a shorter recovery.
    pub wal_bytes_max: u64,
    /// Target of a table's block, 512 B to 1 MiB; default 0 = 16 KiB where tables are mapped, 4 KiB where every block
    /// that the cache has not is read. Recorded nowhere: tables keep the blocks they were written with.
    pub block_bytes: usize,
    /// Compression of flushed and upper tables; default none.
    pub upper_compression: Compression,
    /// Compression of the bottom run; default none. zstd saves space and costs microseconds per block read.
    pub bottom_compression: Compression,
    /// Runs of one tier that are merged together, 2 to 16; default 4. More: fewer bytes written, more runs to read.
    pub fan_in: usize,
    /// Runs a family may have before it is merged further, at least 2; default 6.
    pub runs_max: usize,
    /// Target of a table's file, at least 4 KiB; default 64 MiB.
    pub target_file_bytes: u64,
    /// How blocks are read; default mapped.
    pub access: Access,
    /// Cache of decoded blocks; default 32 MiB. Stores of one [`budget`](Self::budget) share one cache, as large as
    /// the largest value among them and smaller while the budget needs the memory.
    pub cache_bytes: usize,
    /// Files of tables that are not mapped that may be open at the same time, at least 1; default 256. Mapped tables
    /// keep no file open. Fewer: files are opened again and again, at some microseconds each.
    pub open_files_max: usize,
    /// Bounds the memory of all stores that are given clones of it; default none: memory is counted, and bounded by
    /// `memtable_bytes`, `sealed_max` and `cache_bytes` of each store alone.
    pub budget: Option<MemoryBudget>,
    /// Bounds the bytes per second of the merges of all stores that are given clones of it; default none.
    pub merge_rate: Option<MergeRate>,
    /// Bytes that [`View`](crate::View)s may hold, in memtables and in files that only they still need; default
    /// 64 GiB. Beyond, [`Store::view`](crate::Store::view) fails with `Busy` until views are dropped.
    pub view_bytes_max: u64,
    /// Whether compactions are started by themselves; default yes. Without, runs pile up until
    /// [`Store::compact`](crate::Store::compact).
    pub compaction: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            fs: Arc::new(OsFs),
            scheduler: Arc::new(ThreadScheduler::new(1)),
            clock: Arc::new(SystemClock::new()),
            ids: Ids::Entropy,
            memtable_bytes: 64 << 20,
            sealed_max: 3,
            write_wait_max: Duration::from_secs(30),
            durability: Durability::Buffered,
            wal_bytes_max: 512 << 20,
            block_bytes: 0,
            upper_compression: Compression::None,
            bottom_compression: Compression::None,
            fan_in: 4,
            runs_max: 6,
            target_file_bytes: 64 << 20,
            access: Access::Map,
            cache_bytes: 32 << 20,
            open_files_max: 256,
            budget: None,
            merge_rate: None,
            view_bytes_max: 64 << 30,
            compaction: true,
        }
    }
}

impl StoreOptions {
    /// Target of the blocks of tables that are written.
    pub(crate) fn table_block_bytes(&self) -> usize {
        match (self.block_bytes, self.access) {
            (0, Access::Map) => MAPPED_BLOCK_BYTES,
            (0, Access::Cache) => READ_BLOCK_BYTES,
            (bytes, _) => bytes,
        }
    }

    /// Refuses values outside of their bounds.
    pub(crate) fn check(&self) -> Result {
        let bounds = [
            ("memtable_bytes", self.memtable_bytes as u64, 4 << 10, 4 << 30),
            ("sealed_max", self.sealed_max as u64, 1, 16),
            ("wal_bytes_max", self.wal_bytes_max, 64 << 10, 1 << 40),
            ("block_bytes", self.table_block_bytes() as u64, 512, 1 << 20),
            ("fan_in", self.fan_in as u64, 2, 16),
            ("open_files_max", self.open_files_max as u64, 1, 1 << 20),
            ("runs_max", self.runs_max as u64, 2, 1000),
            ("target_file_bytes", self.target_file_bytes, 4 << 10, 1 << 40),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(Error::invalid(format!("the option {name} is out of its bounds"))
                    .expected_found(format_args!("{min} to {max}"), value));
            }
        }
        // Now: later they would fail in the background, flush after flush.
        self.upper_compression.check()?;
        self.bottom_compression.check()
    }
}

/// Options of a family.
#[derive(Clone, Debug)]
pub struct FamilyOptions {
    /// What [`Store::merge`](crate::Store::merge) does; default none, merges are refused. Recorded by name: a
    /// family is never opened with another operator.
    pub merge: Option<Arc<dyn MergeOperator>>,
    /// How memtables keep order; default by hash.
    pub memtable: MemtableKind,
    /// First bytes of a key that name its partition, 0 to 8; default 0. Recorded in tables for their statistics.
    pub partition_prefix: u8,
    /// First bytes of a key after whose change a file may be cut, 0 to 8; default 0 = files are cut at any key.
    pub cut_prefix: u8,
    /// First bytes of a key that scans ask for, 0 to 65,535; default 0 = none. With it tables carry a filter of these
    /// prefixes (about 9 bits each), and [`Store::prefix`](crate::Store::prefix) of at least as many bytes passes over
    /// tables without the prefix. Recorded in the manifest.
    pub prefix_bytes: u16,
    /// Whether tables of the bottom run carry a filter of their keys; default yes. Without, they are 9 bits per key
    /// smaller and absent keys cost a block each: for families whose look-ups nearly always hit. Recorded in the
    /// manifest.
    pub bottom_filter: bool,
    /// Decides about entries while they are merged; default none. Not recorded: a program that opens the
    /// store without it keeps everything.
    pub filter: Option<Arc<dyn CompactionFilter>>,
    /// Runs of one tier that are merged together, 2 to 16; default 0 = [`StoreOptions::fan_in`]. 2 or 3 suit families
    /// that are scanned by prefix, where every run costs a look.
    pub fan_in: u8,
    /// How long an entry lives after it was touched last, at least a millisecond; default none = for ever. An expired
    /// entry is seen by no reader. Every write is a touch ([`Store::touch`](crate::Store::touch) is nothing else), reads
    /// are not. Values are 8 bytes longer, and at most 64 MiB − 16. It may change whenever the family is opened: longer or
    /// shorter, the entries that are there follow; none, and they stay for ever; from none, and those written before
    /// count from that moment (if they expired at an earlier time already, tables of that time are rewritten first).
    /// Recorded in the manifest.
    pub ttl: Option<Duration>,
    /// Since when entries expire, in milliseconds since 1970; default none = since the family was first opened with
    /// [`ttl`](Self::ttl). Only for a family that is just beginning: for restores of content that expired elsewhere, and
    /// after a repair from tables, whose stamps then go on to count.
    pub ttl_since: Option<u64>,
    /// How long bytes of expired entries may stay in files that nobody writes or merges; default none = as long as
    /// entries live, at most a day. Files of which everything has expired go at once, without being read; others are
    /// rewritten when this time is over. Shorter: less space, more bytes rewritten. Not recorded.
    pub expired_age_max: Option<Duration>,
}

impl Default for FamilyOptions {
    fn default() -> Self {
        FamilyOptions {
            merge: None,
            memtable: MemtableKind::default(),
            partition_prefix: 0,
            cut_prefix: 0,
            prefix_bytes: 0,
            bottom_filter: true,
            filter: None,
            fan_in: 0,
            ttl: None,
            ttl_since: None,
            expired_age_max: None,
        }
    }
}

impl FamilyOptions {
    pub(crate) fn check(&self) -> Result {
        if self.fan_in == 1 || self.fan_in > 16 {
            return Err(Error::invalid("the option fan_in is out of its bounds")
                .expected_found("0, or 2 to 16", self.fan_in));
        }
        if self.ttl.is_some_and(|ttl| ttl < Duration::from_millis(1)) {
            return Err(
                Error::invalid("the option ttl is out of its bounds").expected_found(
                    "at least 1 ms",
                    format_args!("{:?}", self.ttl.unwrap_or_default()),
                ),
            );
        }
        if self.partition_prefix > PREFIX_BYTES_MAX || self.cut_prefix > PREFIX_BYTES_MAX {
            return Err(Error::invalid("a prefix is longer than 8 bytes")
                .with("partition_prefix", self.partition_prefix)
                .with("cut_prefix", self.cut_prefix));
        }
        Ok(())
    }
}
