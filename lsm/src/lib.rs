//! Log-structured merge tree of immutable tables with views and pinned files (see ARCHITECTURE.md).
//!
//! | file | idea |
//! |---|---|
//! | [`key`] | ids, versions, ranges, the one hash and the one comparison |
//! | [`table`] | immutable sorted files: builder, reader, view, iterator |
//! | [`cache`] | decoded blocks of tables that are not mapped |
#![deny(unsafe_code)]

pub mod cache;
pub mod key;
pub mod table;

pub use cache::BlockCache;
pub use key::{Entry, EntryKind, KeyRange, Seqno, TableId};
