//! Bytes on disk and what can be wrong with them; nothing else moves in.
//!
//! | file | idea |
//! |---|---|
//! | [`error`] | the one error type of the workspace: code, kind, file, offset, exit code |
//! | [`cursor`] | reading bytes from outside without panicking or over-allocating |
//! | [`sink`] | writing the same bytes |
//! | [`checksum`] | xxh3-64, plain and bound to a place |
//! | [`envelope`] | magic, version and checksummed sections of small documents |
//! | [`trailer`] | the trailer of every immutable file: one xxh3-64 per MiB and a digest over them |
//! | [`frame`] | checksummed, position-bound frames of append-only logs |
//!
//! Every other crate of keybed stands on this one; this one knows none of them.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod cursor;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod hex;
pub mod sink;
pub mod trailer;

pub use cursor::Cursor;
pub use error::{Code, Error, ErrorKind, Result};
pub use sink::Sink;
