//! How fast all stores together may merge.

use crate::sync::Mutex;
use std::{fmt, sync::Arc, time::Duration};

/// A bound on the bytes that merges of all stores that are given clones of it look at per second; flushes are not
/// held back. A merge over the rate sleeps, in small pieces, and lets flushes pass meanwhile. Too low a rate lets
/// runs pile up until writes are slowed down to it.
///
/// ```
/// use keybed_lsm::{MergeRate, StoreOptions};
///
/// let rate = MergeRate::new(64 << 20);
/// let options = StoreOptions { merge_rate: Some(rate.clone()), ..StoreOptions::default() };
/// assert_eq!(rate.bytes_per_second(), 64 << 20);
/// # drop(options);
/// ```
#[derive(Clone)]
pub struct MergeRate {
    bytes_per_second: u64,
    /// The moment, by the stores' clock, at which everything taken so far will be paid for. Held for a few
    /// additions.
    paid_at: Arc<Mutex<Duration>>,
}

impl MergeRate {
    /// Merges saved up in idle time may take this much at once.
    const BURST: Duration = Duration::from_millis(100);

    /// So many bytes per second, at least 64 KiB.
    pub fn new(bytes_per_second: u64) -> MergeRate {
        MergeRate {
            bytes_per_second: bytes_per_second.max(64 << 10),
            paid_at: Arc::default(),
        }
    }

    /// The bound.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Takes bytes at the moment `now`; returns how long to wait before the next ones.
    pub(crate) fn take(&self, bytes: u64, now: Duration) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at)
            .max(now.saturating_sub(Self::BURST))
            .saturating_add(cost);
        paid_at.saturating_sub(now)
    }
}

impl fmt::Debug for MergeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeRate({} bytes/s)", self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_at_once_is_waited_for_and_idle_time_is_saved_up_to_a_bound() {
        let rate = MergeRate::new(1 << 20);
        let second = Duration::from_secs(1);
        assert_eq!(rate.take(1 << 20, 10 * second), second - MergeRate::BURST);
        assert_eq!(
            rate.clone().take(1 << 20, 10 * second),
            2 * second - MergeRate::BURST
        );
        assert_eq!(rate.take(0, 11 * second), second - MergeRate::BURST);
        assert_eq!(rate.take(0, 20 * second), Duration::ZERO);
        assert_eq!(rate.take((1 << 20) / 10, 30 * second), Duration::ZERO);
    }
}
