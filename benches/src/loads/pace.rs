//! Keeping a rate by spinning on the clock, and what the spinning sees: gaps in which this thread did not run.

use keybed_lsm::Histogram;
use std::time::{Duration, Instant};

/// Shorter gaps between two looks at the clock are the look itself.
const GAP_MIN: Duration = Duration::from_nanos(500);

/// Lets operations begin at a fixed rate.
pub struct Pace {
    start: Instant,
    nanos_per_op: f64,
    ops: u64,
    /// Times between two looks at the clock while nothing was done but looking: what the machine does to any thread.
    pub gaps: Histogram,
    /// Time spent spinning.
    pub idle: Duration,
}

impl Pace {
    pub fn new(ops_per_second: f64) -> Self {
        Pace {
            start: Instant::now(),
            nanos_per_op: 1e9 / ops_per_second,
            ops: 0,
            gaps: Histogram::default(),
            idle: Duration::ZERO,
        }
    }

    /// Waits until the next operation is due, and tells when it was.
    pub fn next(&mut self) -> Instant {
        let due = self.start + Duration::from_nanos((self.ops as f64 * self.nanos_per_op) as u64);
        self.ops += 1;
        let mut last = Instant::now();
        let begun = last;
        while last < due {
            std::hint::spin_loop();
            let now = Instant::now();
            if now - last >= GAP_MIN {
                self.gaps.record((now - last).as_nanos() as u64);
            }
            last = now;
        }
        self.idle += last - begun;
        due
    }
}
