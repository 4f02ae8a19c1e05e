//! Random programs run on a store and on maps, under many configurations: for tests and fuzzers.
//!
//! ```text
//! bytes or a seed ─► Choices ─► Op, Op, Op …   one program
//!                                  │
//!                    Config 0..50 ─┼─► Store on a simulated or a real disk ─┐
//!                                  └─► Model: a map per family              ├─► every answer compared
//!                                                                            │
//!                    reduce: fewer operations that still disagree ◄──────────┘
//! ```
//! A configuration changes how a store keeps its content, never what it answers; so all of them agree with one model,
//! and with each other.

mod answer;
mod choice;
mod config;
mod crash;
pub mod fuzz;
mod model;
mod op;
mod read;
mod reduce;
mod run;

pub use answer::{Disagreement, Reached};
pub use choice::{Bytes, Choices};
pub use config::{CONFIGS, Config};
pub use model::{FAMILIES, Map, Model};
pub use op::{Op, Write, text};
pub use reduce::reduce;
pub use run::run;

use keybed_env::Random;

/// The operations of a program of this length.
pub fn program(choices: &mut dyn Choices, length: usize) -> Vec<Op> {
    (0..length).map(|_| Op::choose(choices)).collect()
}

/// The operations that a seed stands for.
pub fn seeded(seed: u64, length: usize) -> Vec<Op> {
    program(&mut Random::from_seed(seed), length)
}
