//! The one seam through which every layer of keybed touches the outside.
//!
//! | file | idea |
//! |---|---|
//! | [`fs`] | [`Fs`]: files and directories; the real one, a simulated one with crash images, a faulty one, a counting one |
//! | [`clock`] | [`Clock`]: monotonic and wall time that tests can drive |
//! | [`random`] | [`Random`]: seeded randomness handed down; entropy of the system only at the top |
//! | [`sched`] | [`Scheduler`]: cooperative tasks and background jobs; on threads |
//! | [`sched_sim`] | [`SimScheduler`]: the same tasks and jobs on one thread, in an order drawn from a seed |
//!
//! Engine, checkpoint storage and sinks all take these, so that one simulated disk sees every byte that the whole
//! system makes durable.
#![deny(unsafe_code)] // forbidden but for fs/map.rs

pub mod clock;
pub mod fs;
pub mod random;
pub mod sched;
pub mod sched_sim;

pub use clock::{Clock, ManualClock, SystemClock};
pub use fs::{CountFs, FaultFs, Fs, OsFs, ReadFile, SimFs, WriteFile};
pub use random::{Ids, Random};
pub use sched::{Job, Priority, Scheduler, Step, Task, TaskHandle, ThreadScheduler, Waker};
pub use sched_sim::SimScheduler;
