//! keybed: a pure-Rust storage engine with native snapshots, and the state store for stream processing on top of it.
//!
//! | module | what it is |
//! |---|---|
//! | [`guide`] | how to use it, by examples that are tested |
//! | [`runtime`] | pipelines, keyed operators, windows, sources and sinks; jobs with checkpoints |
//! | [`state`] | keyed state of stream operators on two backends |
//! | [`snapshot`] | checkpoints: identity, metadata, storage, ownership, verification |
//! | [`lsm`] | the engine: ordered bytes in immutable tables |
//! | [`env`](mod@env) | file systems, clocks, randomness, scheduling; real and simulated |
//! | [`format`](mod@format) | bytes on disk, and the one error type |
//!
//! What programs need most is in the [`prelude`].
#![forbid(unsafe_code)]

pub mod guide;
pub mod prelude;

pub use keybed_env as env;
pub use keybed_format as format;
pub use keybed_format::{Code, Error, ErrorKind, Result};
pub use keybed_lsm as lsm;
pub use keybed_lsm::{
    Cursor, Durability, Family, FamilyOptions, SharedStore, Store, StoreOptions, StoreStats, Transaction,
    Update, View, WriteBatch,
};
pub use keybed_runtime as runtime;
pub use keybed_snapshot as snapshot;
pub use keybed_state as state;

/// The code in README.md is compiled and run by the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
