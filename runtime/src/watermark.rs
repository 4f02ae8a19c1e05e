//! Event time: the minimum over inputs, and generation with bounded out-of-orderness.
//!
//! A watermark `t` promises that no record with a timestamp ≤ `t` follows. Times are milliseconds since
//! 1970-01-01T00:00:00Z; [`MIN`] says "nothing known", [`MAX`] "the input is at its end".

/// Nothing is known yet.
pub const MIN: i64 = i64::MIN;
/// No record follows at all; timers at the end of time fire.
pub const MAX: i64 = i64::MAX;

/// The watermark of a task: the smallest of its channels', never going backwards.
#[derive(Clone, Debug)]
pub struct Watermarks {
    channels: Vec<i64>,
    current: i64,
}

impl Watermarks {
    /// All channels start at `floor` ([`MIN`], or what was restored).
    pub fn new(channels: usize, floor: i64) -> Self {
        Watermarks {
            channels: vec![floor; channels],
            current: floor,
        }
    }

    /// The task's watermark.
    pub fn current(&self) -> i64 {
        self.current
    }

    /// A channel promises `time`; returns the task's watermark if it advanced.
    pub fn advance(&mut self, channel: usize, time: i64) -> Option<i64> {
        let slot = &mut self.channels[channel];
        *slot = (*slot).max(time);
        let min = self.channels.iter().copied().min().unwrap_or(MAX);
        (min > self.current).then(|| {
            self.current = min;
            min
        })
    }
}

/// The watermark of one split whose records are out of order by at most `bound_millis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrderness {
    max_timestamp: i64,
    bound_millis: i64,
    ended: bool,
}

impl OutOfOrderness {
    /// `max_timestamp` is the largest seen so far ([`MIN`] for none); it is the state that a snapshot stores.
    pub fn new(bound_millis: i64, max_timestamp: i64) -> Self {
        OutOfOrderness {
            max_timestamp,
            bound_millis,
            ended: false,
        }
    }

    /// Takes note of a record.
    pub fn on_record(&mut self, timestamp: i64) {
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// The split has no more records.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The largest timestamp seen.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// What the split promises now.
    pub fn watermark(&self) -> i64 {
        match (self.ended, self.max_timestamp) {
            (true, _) => MAX,
            (false, MIN) => MIN,
            (false, max) => max.saturating_sub(self.bound_millis).saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_silent_channel_holds_the_watermark_back() {
        let mut w = Watermarks::new(2, MIN);
        assert_eq!(w.advance(0, 10), None);
        assert_eq!(w.advance(1, 5), Some(5));
        assert_eq!(w.advance(1, 20), Some(10));
        assert_eq!(w.advance(1, 15), None);
    }

    #[test]
    fn an_ended_split_promises_everything_and_an_empty_one_nothing() {
        let mut s = OutOfOrderness::new(100, MIN);
        assert_eq!(s.watermark(), MIN);
        s.on_record(1000);
        s.on_record(950);
        assert_eq!(s.watermark(), 899);
        s.end();
        assert_eq!((s.watermark(), s.max_timestamp()), (MAX, 1000));
    }

    proptest! {
        #[test]
        fn is_the_minimum_and_monotone(events in proptest::collection::vec((0..4usize, -50..50i64), 0..80)) {
            let mut w = Watermarks::new(4, MIN);
            let mut seen = [MIN; 4];
            for (channel, time) in events {
                let before = w.current();
                let advanced = w.advance(channel, time);
                seen[channel] = seen[channel].max(time);
                prop_assert_eq!(w.current(), *seen.iter().min().unwrap());
                prop_assert_eq!(advanced.is_some(), w.current() > before);
            }
        }

        #[test]
        fn no_record_within_the_bound_is_behind_the_watermark(times in proptest::collection::vec(0..1000i64, 1..50)) {
            let mut s = OutOfOrderness::new(200, MIN);
            let mut max = MIN;
            for t in times {
                if max == MIN || t >= max - 200 {
                    prop_assert!(t > s.watermark());
                }
                s.on_record(t);
                max = max.max(t);
            }
        }
    }
}
