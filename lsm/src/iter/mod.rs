//! Walking several sources in the order of their keys.
//!
//! ```text
//! active ─┐
//! sealed ─┼─► MergeIter (merge.rs): every version, newest first per key ─► VisibleIter (visible.rs): one value per key
//! run    ─┤                                      │
//! run    ─┘                                      └─► compaction and flush: which versions to keep
//! ```

pub(crate) mod merge;
pub(crate) mod visible;

pub(crate) use merge::{MergeIter, Source};
pub(crate) use visible::VisibleIter;
