//! The `keybed` command as a user meets it: the binary, files in, files out.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod bad_input;
mod bad_snapshots;
mod control;
mod corruption;
mod endpoint;
mod flink;
mod fold;
mod kills;
mod lifecycle;
mod offline;
mod place;
mod relocation;
mod restores;
mod retention;
mod savepoints;
mod sinks;
mod sst;
mod stores;
mod wordcount;
mod wordfold;
