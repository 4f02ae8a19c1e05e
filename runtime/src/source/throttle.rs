//! Holds the whole job to a number of events per second.

use keybed_env::Clock;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Shared by all source subtasks of a job.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Arc<dyn Clock>,
    events_per_second: u64,
    /// When the next event is due.
    next: Mutex<Duration>,
}

/// Events may come this much late at once, so that short stalls are made up for.
const BURST: Duration = Duration::from_millis(20);

impl Throttle {
    pub(crate) fn new(clock: Arc<dyn Clock>, events_per_second: u64) -> Self {
        Throttle {
            clock,
            events_per_second: events_per_second.max(1),
            next: Mutex::default(),
        }
    }

    /// Takes up to `wanted` events; 0 of them means: ask again after the duration.
    pub(crate) fn take(&self, wanted: u64) -> (u64, Duration) {
        let now = self.clock.monotonic();
        let mut next = self.next.lock();
        *next = (*next).max(now.saturating_sub(BURST));
        if *next > now {
            return (0, *next - now);
        }
        let each = Duration::from_secs(1).as_nanos() as u64 / self.events_per_second;
        let due = ((now - *next).as_nanos() as u64)
            .checked_div(each)
            .unwrap_or(wanted)
            .saturating_add(1);
        let taken = wanted.min(due);
        *next += Duration::from_nanos(each.saturating_mul(taken));
        (taken, Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::ManualClock;

    #[test]
    fn a_second_lets_the_rate_through_and_no_more() {
        for rate in [1, 7, 1000, 50_000] {
            let clock = Arc::new(ManualClock::new());
            clock.advance(Duration::from_secs(5));
            let throttle = Throttle::new(clock.clone(), rate);
            let end = clock.monotonic() + Duration::from_secs(10);
            let mut taken = 0;
            while clock.monotonic() < end {
                let (n, wait) = throttle.take(256);
                taken += n;
                clock.advance(wait.max(Duration::from_micros(10)));
            }
            let expected = rate * 10;
            let slack = 2 + rate / 50 + expected / 100;
            assert!(taken.abs_diff(expected) <= slack, "{taken} of {expected}");
        }
    }
}
