//! The one seam through which every layer of keybed touches the outside.
//!
//! | file | idea |
//! |---|---|
//! | [`fs`] | [`Fs`]: files and directories; the real one, a simulated one with crash images, a faulty one, a counting one |
//! | [`clock`] | [`Clock`]: monotonic and wall time that tests can drive |
//! | [`random`] | [`Random`]: seeded randomness handed down; entropy of the system only at the top |
//! | [`sched`] | [`Scheduler`]: cooperative tasks and background jobs, on threads or single-threaded and seeded |
//!
//! Engine, checkpoint storage and sinks all take these, so that one simulated disk sees every byte that the whole
//! system makes durable.

pub mod clock;
pub mod fs;
pub mod random;
pub mod sched;

pub use clock::{Clock, ManualClock, SystemClock};
pub use fs::{Fs, OsFs, ReadFile, WriteFile};
pub use random::Random;
pub use sched::{Job, Priority, Scheduler, Step, Task, TaskHandle, ThreadScheduler, Waker};
