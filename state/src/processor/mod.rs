//! Reading keyed state from a snapshot, without a backend and without a running job.
//!
//! ```text
//!   handles ──▶ runs ──▶ TableReader over OpenFiles ──▶ RunMerge: newest version of each key, no tombstones
//!                                                          │
//!                      read_entries: state by name, list elements one by one, timers ──▶ LogicalDigest
//! ```
//! Nothing of this goes through a backend's own iterators, so what it says about a snapshot is a second opinion.

mod digest;
mod logical;
mod merge;
mod verify;

pub use digest::{LogicalDigest, logical_digest};
pub use logical::{LogicalEntry, read_entries};
pub(crate) use logical::{OpenList, state_of};
pub(crate) use merge::{RunMerge, of_snapshot};
pub(crate) use verify::verify_table;
