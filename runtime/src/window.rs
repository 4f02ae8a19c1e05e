//! Tumbling event-time windows with incremental aggregation.
//!
//! ```text
//!   state    window (end, start), key ─▶ accumulator        namespace-first
//!   timer    at end − 1, the last timestamp that belongs to the window
//! ```
//! A window is over when the watermark reaches its last timestamp; then its one result is emitted with that
//! timestamp and its state is removed. A record whose window is over is late: it is dropped and counted.

use crate::{
    element::Data,
    operator::{Context, KeyedOperator},
};
use keybed_format::{Error, Result};
use keybed_state::{
    Codec, KeyCodec, StateAccess, StateRegistry, ValueState,
    codec::{decode_key, encode_key},
};
use std::{marker::PhantomData, sync::Arc, time::Duration};

/// A span of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First millisecond that belongs to it.
    pub start: i64,
    /// First millisecond after it.
    pub end: i64,
}

/// Windows of equal length side by side, aligned to 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    size_millis: i64,
}

impl Tumbling {
    /// Windows of this length; less than a millisecond counts as one.
    pub fn of(size: Duration) -> Self {
        Tumbling {
            size_millis: i64::try_from(size.as_millis()).unwrap_or(i64::MAX).max(1),
        }
    }

    /// The window that a timestamp belongs to; at the ends of time it is cut short.
    pub fn window_of(self, timestamp: i64) -> Window {
        let into = timestamp.rem_euclid(self.size_millis);
        let start = timestamp.saturating_sub(into);
        Window {
            start,
            end: start.saturating_add(self.size_millis),
        }
    }
}

/// How the records of a window become one result.
pub trait Aggregate: Send + Sync + 'static {
    /// The key that the stream is grouped by.
    type Key: KeyCodec + Data;
    /// What comes in.
    type In: Data;
    /// What is kept of a window; stored in state.
    type Accumulator: Codec;
    /// The result.
    type Out: Data;

    /// Of no record.
    fn create(&self) -> Self::Accumulator;

    /// Adds one record. The result must not depend on the order of records.
    fn add(&self, accumulator: &mut Self::Accumulator, value: Self::In);

    /// The result of a window that is over.
    fn finish(&self, key: &Self::Key, window: Window, accumulator: Self::Accumulator) -> Self::Out;
}

/// The operator behind [`KeyedStream::window`](crate::KeyedStream::window).
pub(crate) struct WindowOperator<A: Aggregate> {
    windows: Tumbling,
    aggregate: Arc<A>,
    accumulators: ValueState<A::Accumulator>,
    marker: PhantomData<A>,
}

impl<A: Aggregate> WindowOperator<A> {
    pub(crate) fn open(states: &mut StateRegistry, windows: Tumbling, aggregate: Arc<A>) -> Result<Self> {
        // The end goes first, so that windows lie in the order in which they are over.
        let accumulators = states.window_value::<(i64, i64), A::Accumulator>("window")?;
        Ok(WindowOperator {
            windows,
            aggregate,
            accumulators,
            marker: PhantomData,
        })
    }
}

impl<A: Aggregate> KeyedOperator for WindowOperator<A> {
    type Key = A::Key;
    type In = A::In;
    type Out = A::Out;

    fn process(&mut self, _key: &A::Key, value: A::In, ctx: &mut Context<'_, A::Out>) -> Result {
        let window = self.windows.window_of(ctx.timestamp());
        let last = window.end.saturating_sub(1);
        if last <= ctx.watermark() {
            ctx.count_late();
            return Ok(());
        }
        let namespace = encode_key(&(window.end, window.start));
        ctx.keyed().set_namespace(&namespace);
        let mut first = false;
        self.accumulators.update(ctx, |accumulator| {
            let mut accumulator = accumulator.unwrap_or_else(|| {
                first = true;
                self.aggregate.create()
            });
            self.aggregate.add(&mut accumulator, value);
            accumulator
        })?;
        if first {
            ctx.keyed().register_timer(last, &namespace)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, key: &A::Key, _time: i64, ctx: &mut Context<'_, A::Out>) -> Result {
        let (end, start) = decode_key::<(i64, i64)>(ctx.keyed().namespace())?;
        let accumulator = self.accumulators.get(ctx)?.ok_or_else(|| {
            Error::invalid("a window's timer fired without its accumulator").with("end", end)
        })?;
        self.accumulators.clear(ctx)?;
        let result = self.aggregate.finish(key, Window { start, end }, accumulator);
        ctx.emit(result);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_side_by_side_also_before_1970() {
        let day = Tumbling::of(Duration::from_millis(10));
        for (time, start) in [(0, 0), (9, 0), (10, 10), (-1, -10), (-10, -10), (-11, -20)] {
            assert_eq!(
                day.window_of(time),
                Window {
                    start,
                    end: start + 10
                },
                "{time}"
            );
        }
        assert_eq!(day.window_of(i64::MAX).end, i64::MAX);
        assert_eq!(day.window_of(i64::MIN).start, i64::MIN);
    }
}
