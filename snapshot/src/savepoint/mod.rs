//! Savepoints: snapshots that belong to the user, each self-contained in a directory of its own.
//!
//! ```text
//! resolve_target ─ SavepointTarget::begin ─ SavepointWriter: put files ─ publish ─▶ SnapshotDir::open, anywhere
//!                    creates savepoint-…          └ abandon ─▶ no directory
//! export: any snapshot ─▶ a savepoint      Disposal: a savepoint ─▶ no directory
//! ```
//! No registry is told and nothing is shared: a savepoint survives its job, and a job its savepoint. Page:
//! docs/format/savepoint.md.

mod dispose;
mod export;
mod recover;
mod target;
mod writer;

pub use dispose::{Disposal, Disposed, Going, going};
pub use export::export;
pub use recover::{published, remove_unpublished};
pub use target::{SHARES_STORAGE_WITH, SavepointTarget, resolve_target};
pub use writer::SavepointWriter;
