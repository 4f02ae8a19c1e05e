//! Behaviour of keyed state on every backend.

mod canonical;
mod claim;
mod convert;
mod derived;
mod engine;
mod faults;
mod files;
mod fixture;
mod fuzz_corpus;
mod hostile;
mod model;
mod random_programs;
mod savepoint_dir;
mod snapshots;
mod states;
mod world;
