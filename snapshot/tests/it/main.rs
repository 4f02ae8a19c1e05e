//! Behaviour of snapshot storage and ownership, one behaviour per module.
#![allow(missing_docs, reason = "tests")]

mod chain;
mod crash;
mod faults;
mod ownership;
mod power_loss;
mod storages;
mod support;
