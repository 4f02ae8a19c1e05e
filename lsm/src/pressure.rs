//! How fast a writer may go. Pure: debts in, a delay per byte out.
//!
//! A writer that is faster than its flushes and merges is slowed down long before it has to be stopped: the delay
//! rises with the square of the debt, so it settles where writing and background keep pace.
//!
//! ```text
//! ns per byte
//!   1000 ┤                    ╭── limit: nothing but waiting helps (last resort, see Store::make_room)
//!        │                 ╭──╯
//!      0 ┼────────────────╯
//!        0              onset            debt
//! ```

use std::time::Duration;

/// The longest sleep at a time: whoever is slowed down notices soon that the debt is paid.
pub const SLEEP_MAX: Duration = Duration::from_millis(1);

/// Shorter sleeps are saved up: going to sleep and waking costs tens of microseconds itself.
pub const SLEEP_MIN: Duration = Duration::from_micros(200);

/// Delay at the limit of a debt: 1 MB/s.
const NANOS_PER_BYTE_MAX: u64 = 1000;

/// A family with this many times [`runs_max`](crate::StoreOptions::runs_max) runs is at its limit.
const RUNS_LIMIT_FACTOR: u64 = 3;

/// What the background still has to do for a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt {
    /// Bytes in memtables, active and sealed, that no table holds yet.
    pub memory_bytes: u64,
    /// Bytes that memtables may hold at all.
    pub memory_bytes_max: u64,
    /// Runs of the family that has most.
    pub runs: u64,
    /// Runs a family may have before it is merged further.
    pub runs_max: u64,
    /// Bytes above the bottom run in the family where they exceed what is usual most.
    pub merge_bytes: u64,
    /// Bytes above the bottom run that are usual there; twice as many are the limit.
    pub merge_bytes_max: u64,
}

/// Nanoseconds a writer owes for each byte; 0 while the background keeps pace.
///
/// ```
/// use keybed_lsm::pressure::{Debt, nanos_per_byte};
///
/// let debt = |memory_bytes| Debt { memory_bytes, memory_bytes_max: 1000, ..Debt::default() };
/// assert_eq!(nanos_per_byte(&debt(500)), 0);
/// assert!(nanos_per_byte(&debt(600)) < nanos_per_byte(&debt(900)));
/// ```
pub fn nanos_per_byte(debt: &Debt) -> u64 {
    let memory = share(
        debt.memory_bytes,
        debt.memory_bytes_max / 2,
        debt.memory_bytes_max,
    );
    let runs = share(
        debt.runs,
        debt.runs_max + debt.runs_max / 2,
        debt.runs_max.saturating_mul(RUNS_LIMIT_FACTOR),
    );
    let merges = share(
        debt.merge_bytes,
        debt.merge_bytes_max,
        debt.merge_bytes_max.saturating_mul(2),
    );
    let worst = memory.max(runs).max(merges);
    NANOS_PER_BYTE_MAX * worst * worst / (SHARE * SHARE)
}

/// Unit of [`share`].
const SHARE: u64 = 1 << 10;

/// How far `debt` has gone from its onset to its limit, 0 to [`SHARE`].
fn share(debt: u64, onset: u64, limit: u64) -> u64 {
    if limit <= onset {
        return 0;
    }
    let above = u128::from(debt.min(limit).saturating_sub(onset));
    (above * u128::from(SHARE) / u128::from(limit - onset)) as u64
}

/// Bytes above the bottom run that are usual: as many as `fan_in` memtables, or half as many as there are in the
/// bottom, which they may all hide.
pub fn merge_bytes_usual(memtable_bytes: u64, fan_in: u64, bottom_bytes: u64) -> u64 {
    memtable_bytes.saturating_mul(fan_in).max(bottom_bytes / 2)
}

/// Bytes that may be written before the writer looks at its debt again.
pub fn bytes_until_next_look(nanos_per_byte: u64, memtable_bytes: u64) -> u64 {
    let paid_by_one_sleep = SLEEP_MIN.as_nanos() as u64 * 2 / nanos_per_byte.max(1);
    paid_by_one_sleep.clamp(1, (memtable_bytes / 16).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: u64) -> Debt {
        Debt {
            memory_bytes: bytes,
            memory_bytes_max: 256 << 20,
            runs: 3,
            runs_max: 6,
            merge_bytes: 0,
            merge_bytes_max: 1 << 30,
        }
    }

    #[test]
    fn the_delay_rises_smoothly_from_nothing_to_its_limit() {
        let mut last = 0;
        for mib in 0..=300 {
            let delay = nanos_per_byte(&memory(mib << 20));
            assert!(
                delay >= last && delay - last <= 20,
                "{mib} MiB: {last} then {delay}"
            );
            assert_eq!(delay == 0, mib <= 132, "{mib} MiB: {delay}");
            last = delay;
        }
        assert_eq!(last, NANOS_PER_BYTE_MAX);
    }

    #[test]
    fn the_worst_debt_counts() {
        let runs = |runs| nanos_per_byte(&Debt { runs, ..memory(0) });
        assert_eq!((runs(9), runs(18), runs(1000)), (0, 1000, 1000));
        assert_eq!(runs(13), 197);
        let merges = |merge_bytes| {
            nanos_per_byte(&Debt {
                merge_bytes,
                ..memory(0)
            })
        };
        assert_eq!(
            (merges(1 << 30), merges(2 << 30), merges(u64::MAX)),
            (0, 1000, 1000)
        );
        assert_eq!(nanos_per_byte(&Debt::default()), 0);
    }

    #[test]
    fn looks_come_often_enough_to_keep_sleeps_short() {
        for delay in [1, 10, 100, 1000] {
            let bytes = bytes_until_next_look(delay, 64 << 20);
            assert!(delay * bytes <= SLEEP_MAX.as_nanos() as u64, "{delay}: {bytes}");
        }
        assert_eq!(bytes_until_next_look(1, 4096), 256);
        assert_eq!(bytes_until_next_look(1000, 8), 1);
    }
}
