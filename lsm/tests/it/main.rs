//! Behaviour of the engine as its users see it; one module per behaviour.

mod batches;
mod crash;
mod cursors;
mod faults;
mod fuzz_corpus;
mod lazy;
mod limits;
mod lock;
mod manifest;
mod model;
mod mount;
mod multi_get;
mod pins;
mod pressure;
mod rescale;
mod shape;
mod shared;
mod simulated;
mod stats;
mod support;
mod table_corruption;
mod table_faults;
mod table_format;
mod table_model;
mod tables;
mod transactions;
