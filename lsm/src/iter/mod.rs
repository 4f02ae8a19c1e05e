//! Walking several sources in the order of their keys.
//!
//! ```text
//! active ─┐
//! sealed ─┼─► MergeIter (merge.rs): every version, newest first per key ─► VisibleIter (visible.rs): one value per key
//! run    ─┤                                      │
//! run    ─┘   (run.rs)                            └─► compaction and flush: which versions to keep
//! ```

mod hidden;
mod merge;
mod meter;
mod run;
mod visible;

pub(crate) use merge::{MergeIter, Source};
pub(crate) use meter::Told;
pub(crate) use run::RunIter;
pub(crate) use visible::VisibleIter;

#[cfg(test)]
mod tests;
