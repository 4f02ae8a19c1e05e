//! Behaviour of snapshot storage and ownership, one behaviour per module.
#![allow(missing_docs, reason = "tests")]

mod browse;
mod chain;
mod claim_crash;
mod claim_races;
mod claim_refused;
mod claim_root;
mod claim_savepoint;
mod crash;
mod damage;
mod externals;
mod faults;
mod forged;
mod gc;
mod gc_model;
mod interleavings;
mod legacy;
mod mounts;
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
