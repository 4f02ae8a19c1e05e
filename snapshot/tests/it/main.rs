//! Behaviour of snapshot storage and ownership, one behaviour per module.
#![allow(missing_docs, reason = "tests")]

mod chain;
mod crash;
mod damage;
mod faults;
mod forged;
mod gc;
mod gc_model;
mod interleavings;
mod ownership;
mod power_loss;
mod processes;
mod races;
mod savepoint_crash;
mod savepoint_dispose;
mod savepoint_export;
mod savepoint_places;
mod savepoint_write;
mod stop;
mod storages;
mod support;
mod trace;
