//! Whether and when a failed job starts again: pure decisions over the times of failures.

use keybed_env::Random;
use std::{collections::VecDeque, time::Duration};

/// How a job is restarted after a failure that may pass by itself.
///
/// Failures that would repeat (bad input, an incompatible or corrupt snapshot, a lost lock) never restart a job.
#[derive(Clone, Debug, PartialEq)]
pub enum RestartStrategy {
    /// The first failure ends the job.
    None,
    /// At most `attempts` restarts over the life of the job, each after `delay`.
    FixedDelay {
        /// Restarts before the job gives up.
        attempts: u32,
        /// Pause before each restart.
        delay: Duration,
    },
    /// Restarts for ever, each after a longer pause.
    Exponential {
        /// First pause.
        initial: Duration,
        /// Longest pause.
        max: Duration,
        /// Growth of the pause from one failure to the next, at least 1.
        factor: f64,
        /// Part of the pause that is drawn at random, in both directions; 0.1 is ±10 %.
        jitter: f64,
        /// After this long without a failure the pause is the first one again.
        reset_after: Duration,
        /// Restarts in a row (without such a quiet time) before the job gives up.
        attempts_max: u32,
    },
    /// Gives up when more than `failures_max` failures fall within `interval`.
    FailureRate {
        /// Failures that are borne within the interval.
        failures_max: u32,
        /// Length of the window.
        interval: Duration,
        /// Pause before each restart.
        delay: Duration,
    },
}

impl RestartStrategy {
    /// 1 s growing by 1.5 to 1 min, ±10 %, first pause again after an hour without failure; gives up after 20 in
    /// a row.
    pub fn exponential() -> Self {
        RestartStrategy::Exponential {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            factor: 1.5,
            jitter: 0.1,
            reset_after: Duration::from_secs(3600),
            attempts_max: 20,
        }
    }

    /// One restart after one second.
    pub fn fixed_delay() -> Self {
        RestartStrategy::FixedDelay {
            attempts: 1,
            delay: Duration::from_secs(1),
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this pause.
    After(Duration),
    /// The job has failed.
    GiveUp,
}

/// A strategy and the failures it has seen.
#[derive(Clone, Debug)]
pub struct Restarts {
    strategy: RestartStrategy,
    /// Restarts granted in a row.
    granted: u32,
    pause: Duration,
    last_failure: Option<Duration>,
    recent: VecDeque<Duration>,
}

impl Restarts {
    /// No failure seen yet.
    pub fn new(strategy: RestartStrategy) -> Self {
        Restarts {
            strategy,
            granted: 0,
            pause: Duration::ZERO,
            last_failure: None,
            recent: VecDeque::new(),
        }
    }

    /// A failure happened at `now` (monotonic).
    pub fn on_failure(&mut self, now: Duration, random: &mut Random) -> Decision {
        let previous = self.last_failure.replace(now);
        match self.strategy {
            RestartStrategy::None => Decision::GiveUp,
            RestartStrategy::FixedDelay { attempts, delay } => self.grant(attempts, delay),
            RestartStrategy::FailureRate {
                failures_max,
                interval,
                delay,
            } => {
                self.recent.push_back(now);
                while self
                    .recent
                    .front()
                    .is_some_and(|&t| now.saturating_sub(t) > interval)
                {
                    self.recent.pop_front();
                }
                if self.recent.len() > failures_max as usize {
                    Decision::GiveUp
                } else {
                    Decision::After(delay)
                }
            }
            RestartStrategy::Exponential {
                initial,
                max,
                factor,
                jitter,
                reset_after,
                attempts_max,
            } => {
                let quiet = previous.is_none_or(|p| now.saturating_sub(p) >= self.pause + reset_after);
                if quiet {
                    self.granted = 0;
                    self.pause = initial.min(max);
                } else {
                    self.pause = self.pause.mul_f64(factor.clamp(1.0, 1000.0)).min(max);
                }
                // A number in [-1, 1) with 20 bits.
                let draw = random.below(1 << 21) as f64 / f64::from(1 << 20) - 1.0;
                let pause = self.pause.mul_f64(1.0 + draw * jitter.clamp(0.0, 1.0));
                self.grant(attempts_max, pause)
            }
        }
    }

    fn grant(&mut self, attempts: u32, pause: Duration) -> Decision {
        if self.granted >= attempts {
            return Decision::GiveUp;
        }
        self.granted += 1;
        Decision::After(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pauses(strategy: RestartStrategy, times: &[u64]) -> Vec<Option<u64>> {
        let (mut restarts, mut random) = (Restarts::new(strategy), Random::from_seed(1));
        let decide = |&t: &u64| match restarts.on_failure(Duration::from_secs(t), &mut random) {
            Decision::After(d) => Some(d.as_millis() as u64),
            Decision::GiveUp => None,
        };
        times.iter().map(decide).collect()
    }

    #[test]
    fn without_a_strategy_the_first_failure_ends_the_job() {
        assert_eq!(pauses(RestartStrategy::None, &[0]), [None]);
    }

    #[test]
    fn a_fixed_delay_counts_over_the_life_of_the_job() {
        let s = RestartStrategy::FixedDelay {
            attempts: 2,
            delay: SECOND,
        };
        assert_eq!(pauses(s, &[0, 10_000, 20_000]), [Some(1000), Some(1000), None]);
    }

    #[test]
    fn exponential_pauses_grow_to_the_maximum_and_start_over_after_quiet_time() {
        let s = RestartStrategy::Exponential {
            initial: SECOND,
            max: 3 * SECOND,
            factor: 1.5,
            jitter: 0.0,
            reset_after: 100 * SECOND,
            attempts_max: 5,
        };
        let found = pauses(s, &[0, 1, 2, 3, 4, 5, 1000, 1001]);
        let expected = [
            Some(1000),
            Some(1500),
            Some(2250),
            Some(3000),
            Some(3000),
            None,
            Some(1000),
            Some(1500),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn jitter_stays_within_its_part() {
        let mut different = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut restarts = Restarts::new(RestartStrategy::exponential());
            let Decision::After(d) = restarts.on_failure(SECOND, &mut Random::from_seed(seed)) else {
                panic!("the first failure is borne")
            };
            assert!((900..=1100).contains(&(d.as_millis() as u64)), "{d:?}");
            different.insert(d);
        }
        assert!(different.len() > 50);
    }

    #[test]
    fn the_failure_rate_forgets_what_is_older_than_its_interval() {
        let s = RestartStrategy::FailureRate {
            failures_max: 2,
            interval: 60 * SECOND,
            delay: SECOND,
        };
        assert_eq!(
            pauses(s, &[0, 30, 100, 110, 120]),
            [Some(1000), Some(1000), Some(1000), Some(1000), None]
        );
    }
}
