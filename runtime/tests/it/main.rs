//! Whole jobs on a simulated machine, one behaviour per module.

mod asked;
mod claims;
mod crash;
mod fault;
mod holds;
mod lost;
mod plain;
mod refusals;
mod relocation;
mod rescale;
mod restart;
mod restore;
mod retention;
mod savepoint;
mod source;
mod stop;
mod stop_crash;
mod stop_process;
mod stop_random;
mod upgrade;
mod world;
