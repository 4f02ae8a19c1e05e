//! Behaviour of snapshot storage and ownership, one behaviour per module.
#![allow(missing_docs, reason = "tests")]

mod power_loss;
mod storages;
