//! Log-structured merge tree of immutable tables with views and pinned files (see ARCHITECTURE.md).
//!
//! | file | idea |
//! |---|---|
//! | `store` | [`Store`]: the owner's handle, sealing, taking notice of the background |
//! | `room` | what a write waits for before it goes on |
//! | `wait` | flush, compact, close: waiting for the background |
//! | `ingest`, `link`, `size` | tables from outside; an openable copy; how much there is |
//! | `open`, [`mount`] | a store from its manifest; a store around tables that are there already |
//! | `family`, [`options`] | key spaces of a store and what can be chosen |
//! | `write`, `touch`, `read`, `scan` | the owner's paths |
//! | `warm`, `pinned_value` | many reads at a time; values that outlive writes |
//! | `batch`, `apply` | writes that take effect together |
//! | `read_only` | looking at a store without disturbing its owner |
//! | `wal/`, `journal`, `recover` | the write-ahead log; the store's side of it; replaying it |
//! | `memtable/`, `arena` | the newest versions, in memory |
//! | [`budget`], `write_memory` | one bound on the memory of many stores; writes that wait for it |
//! | `flush` | from sealed memtable to table |
//! | [`pressure`] | how fast a writer may go while flushes and merges fall behind (pure) |
//! | `compaction/` | merging runs: picker (pure), job, which versions are kept |
//! | `version/` | which tables hold a family's content: edits, manifest, version set |
//! | `iter/` | merging sorted sources |
//! | [`range_delete`], [`floor`] | many keys that are gone at once |
//! | [`expiry`] | entries that expire: stamps, and what they mean at one moment |
//! | `overlay`, `indexed_batch` | writes that are not in the store yet; a batch that is read with what lies below it |
//! | `cursor` | an iterator that borrows nothing and sees one moment |
//! | `view`, `pin` | the content of one moment, to read or to copy |
//! | `shared`, `install` | what owner and background share; how an edit becomes visible |
//! | `sync`, `planted` | for tests: locks that permute the steps of threads; mistakes that must be found |
//! | `shared_store/` | [`SharedStore`]: a store for many threads |
//! | `transaction` | [`Transaction`]: reads that are checked at the commit |
//! | [`mod@verify`], [`repair`] | a closed store as a whole: looked at, and brought back |
//! | `stats/` | counters, distributions, shapes: what a store does and how it stands |
//! | [`merge_operator`] | writes that say how to change a value |
//! | [`table`], [`cache`] | immutable sorted files; decoded blocks of tables that are not mapped |
//! | [`key`] | ids, versions, ranges, the one hash and the one comparison |
#![deny(unsafe_code)]

mod apply;
mod arena;
mod batch;
pub mod budget;
pub mod cache;
pub mod compaction;
mod cursor;
mod delete;
#[doc(hidden)]
pub mod differential;
pub mod expiry;
mod family;
pub mod floor;
mod flush;
#[doc(hidden)]
pub mod fuzzing;
mod indexed_batch;
mod ingest;
mod install;
mod iter;
mod journal;
pub mod key;
mod link;
mod memtable;
pub mod merge_operator;
pub mod mount;
mod open;
pub mod options;
mod overlay;
mod pin;
mod pinned_value;
mod planted;
pub mod pressure;
pub mod range_delete;
mod read;
mod read_only;
mod recover;
pub mod repair;
mod room;
mod scan;
mod shared;
mod shared_store;
mod size;
mod stats;
mod store;
mod sync;
pub mod table;
mod touch;
mod transaction;
pub mod verify;
pub mod version;
mod view;
mod wait;
mod wal;
mod warm;
mod write;
mod write_memory;

pub use batch::{BATCH_BYTES_MAX, WriteBatch};
pub use budget::{BudgetStats, MemoryBudget, Pool};
pub use cache::{BlockCache, CacheStats};
pub use compaction::{CompactionFilter, CompactionPause, MergeRate, Verdict};
pub use cursor::Cursor;
pub use family::Family;
pub use floor::Floor;
pub use indexed_batch::{IndexedBatch, IndexedRange};
pub use ingest::{IngestOptions, Transfer};
pub use key::{Entry, EntryKind, KeyRange, Seqno, TableId};
pub use memtable::{MemtableKind, PrefixRule};
pub use merge_operator::{Append, MergeOperator, SumI64, SumU64};
pub use mount::{Mount, MountFamily, MountRun, MountTable};
pub use options::{Access, Durability, FamilyOptions, StoreOptions};
pub use pin::{PinnedFamily, PinnedFiles, PinnedRun, PinnedTable, Pinning};
pub use pinned_value::PinnedValue;
pub use read::Value;
pub use scan::Range;
pub use shared_store::{SharedCursor, SharedRange, SharedStore, SharedTransaction, TRANSACT_ATTEMPTS_MAX};
pub use stats::{
    FamilyStats, Histogram, Latencies, RunStats, SampledGets, StatsReader, StoreCounts, StoreStats,
    ViewStats, WaitReason, Waits,
};
pub use store::Store;
pub use transaction::{TRANSACTION_RANGE_ENTRIES_MAX, Transaction};
pub use version::edit::BOTTOM;
pub use view::View;
pub use write::Update;
