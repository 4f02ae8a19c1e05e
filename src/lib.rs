//! keybed: a pure-Rust storage engine with native snapshots, and the state, snapshot and runtime layers that make it
//! a state store for stream processing.
//!
//! | module | what it is |
//! |---|---|
//! | [`state`] | keyed state of stream operators on two backends |
//! | [`lsm`] | the storage engine: tables, store, views |
//! | [`snapshot`] | checkpoints: identity, metadata, storage, ownership |
//! | [`format`](mod@format) | bytes on disk, and the one error type |
//! | [`env`](mod@env) | file systems, clocks, randomness, scheduling; real and simulated |
#![forbid(unsafe_code)]

pub use keybed_env as env;
pub use keybed_format as format;
pub use keybed_format::{Code, Error, ErrorKind, Result};
pub use keybed_lsm as lsm;
pub use keybed_snapshot as snapshot;
pub use keybed_state as state;
