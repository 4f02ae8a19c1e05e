//! Tests of the seam: every file system keeps the same promises, and the simulations catch planted mistakes.

mod conformance;
mod crash;
mod faults;
mod lock;
mod programs;
mod scheduling;
