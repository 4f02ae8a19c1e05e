//! Whole jobs on a simulated machine, one behaviour per module.

mod plain;
mod restart;
mod world;
