//! Distributions of durations and sizes: log-linear buckets, eight per power of two.
//!
//! ```text
//! value   0 … 7            one bucket each
//!         2^e … 2^(e+1)    eight buckets of 2^(e-3) each, e = 3 … 43
//!         from 2^44        the last bucket
//! ```
//! A bucket is at most an eighth of its value wide, so a quantile is at most 12.5 % too high. Nothing is allocated
//! before the first value.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

const SUB_BITS: u32 = 3;
const SUBS: usize = 1 << SUB_BITS;
/// Values from `2^EXPONENT_MAX` on fall into the last bucket; as nanoseconds that is almost five hours.
const EXPONENT_MAX: u32 = 44;
const BUCKETS: usize = (EXPONENT_MAX - SUB_BITS + 1) as usize * SUBS;

fn bucket_of(value: u64) -> usize {
    if value < SUBS as u64 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros();
    let sub = (value >> (exponent - SUB_BITS)) as usize & (SUBS - 1);
    (((exponent - SUB_BITS + 1) as usize) * SUBS + sub).min(BUCKETS - 1)
}

/// Largest value of a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < SUBS {
        return bucket as u64;
    }
    let shift = bucket / SUBS - 1;
    (((SUBS + bucket % SUBS + 1) as u64) << shift) - 1
}

/// A distribution of values, usually nanoseconds.
///
/// ```
/// let mut waits = keybed_lsm::Histogram::default();
/// (1..=1000).for_each(|ns| waits.record(ns));
/// assert_eq!((waits.count(), waits.max()), (1000, 1000));
/// assert!((500..=563).contains(&waits.quantile(0.5)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Empty, or one counter per bucket.
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        self.buckets.resize(BUCKETS, 0);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
    }

    /// Adds all values of another distribution.
    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        self.buckets.resize(BUCKETS, 0);
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Largest value, exactly; 0 without values.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Mean of the values; 0 without values.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// A value that the share `q` (0 to 1) of all values does not exceed; at most 12.5 % above the smallest such
    /// value. 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((self.count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_end(at).min(self.max);
            }
        }
        self.max
    }
}

/// A [`Histogram`] that several threads add to; for events that take a microsecond or more, or are sampled.
///
/// Relaxed throughout: it is read by nobody who concludes anything about other memory.
#[derive(Debug, Default)]
pub(crate) struct AtomicHistogram {
    buckets: OnceLock<Box<[AtomicU64]>>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl AtomicHistogram {
    /// Adds a value.
    pub(crate) fn record(&self, value: u64) {
        let buckets = self
            .buckets
            .get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        if let Some(bucket) = buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
        self.max.fetch_max(value, Relaxed);
    }

    /// What was added so far.
    pub(crate) fn snapshot(&self) -> Histogram {
        let Some(buckets) = self.buckets.get() else {
            return Histogram::default();
        };
        let buckets: Vec<u64> = buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Histogram {
            count: buckets.iter().sum(),
            buckets,
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gaps() {
        for bucket in 1..BUCKETS - 1 {
            let end = bucket_end(bucket);
            assert_eq!(bucket_of(end), bucket);
            assert_eq!(bucket_of(end + 1), bucket + 1);
            let width = end - bucket_end(bucket - 1);
            assert!(width == 1 || width * 8 <= end, "bucket {bucket} is {width} wide");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close_from_above() {
        let mut all = Histogram::default();
        let shared = AtomicHistogram::default();
        assert_eq!((all.quantile(0.5), all.max(), all.mean()), (0, 0, 0));
        for value in (0..100_000_u64).map(|n| n * n % 1_000_003) {
            all.record(value);
            shared.record(value);
        }
        assert_eq!(shared.snapshot(), all);
        let mut sorted: Vec<u64> = (0..100_000_u64).map(|n| n * n % 1_000_003).collect();
        sorted.sort_unstable();
        for q in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = sorted[((sorted.len() as f64 * q).ceil() as usize).max(1) - 1];
            let told = all.quantile(q);
            assert!(
                told >= exact && told <= exact + exact / 8 + 1,
                "{q}: {told} for {exact}"
            );
        }
        let mut twice = all.clone();
        twice.merge(&all);
        assert_eq!((twice.count(), twice.max()), (200_000, all.max()));
        assert_eq!(twice.quantile(0.9), all.quantile(0.9));
    }
}
