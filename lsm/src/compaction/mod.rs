//! Merging runs, so that reads have few places to look and dead versions go.
//!
//! ```text
//! flush ──► tier 0  ▪ ▪ ▪ ▪        four runs of a tier are merged into one of the next: cheap, few bytes rewritten
//!           tier 1  ▬ ▬            …
//!           bottom  ██████████     one run; the upper runs are merged into it when together they reach a quarter of
//!                                  its size, slice by slice (so that little extra space is needed at a time)
//! ```
//! [`picker`] decides from facts, without I/O, `slice` how much at a time; `work` finds what is due and gives it to the
//! scheduler; `job` does it; `resolve` says which versions of a key are written (a flush asks it, too). `request` is what
//! the owner can ask for, [`density`] when scans do, `expire` when expired files are due, `filter` what a program may
//! decide about entries, `rate` bounds the merges of all stores.

pub(crate) mod covered;
pub mod density;
mod expire;
mod filter;
pub(crate) mod job;
pub(crate) mod output;
pub mod picker;
mod rate;
mod request;
pub(crate) mod resolve;
mod slice;
pub(crate) mod work;

pub use filter::{CompactionFilter, Verdict};
pub use rate::MergeRate;
pub use request::CompactionPause;
pub use slice::slice_bytes;
