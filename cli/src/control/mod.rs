//! Speaking to running jobs: finding them, asking them, waiting for what comes of it. Page: docs/control.md.
//!
//! ```text
//!  keybed run ──▶ records: one per process, with the endpoint's address ◀── find ◀── keybed list, savepoint, stop, …
//!                                                                            │
//!                 endpoint ◀──────────────── client ◀────────────────────────╯
//! ```
//!
//! | file | idea |
//! |---|---|
//! | [`records`] | which jobs run here, by files that a dead process cannot keep up |
//! | [`find`] | a job by its name or id |
//! | [`client`] | requests and answers |
//! | [`requests`] | a request that is begun, polled, told |
//! | [`list`], [`savepoint`], [`stop`], [`dispose`], [`status`] | the verbs |

pub(crate) mod client;
pub(crate) mod dispose;
pub(crate) mod find;
pub(crate) mod list;
pub(crate) mod records;
mod requests;
pub(crate) mod savepoint;
pub(crate) mod status;
pub(crate) mod stop;
