//! Load programmes: what an engine does over minutes, under a budget, or beside a grave.

mod big;
mod pace;
mod sustained;
mod tombstones;

pub use big::run as big;
pub use sustained::run as sustained;
pub use tombstones::run as tombstones;

use crate::arguments::positive;
use std::path::PathBuf;

/// Values of flags; what is not there keeps its default.
struct Flags<'a>(&'a [String]);

impl Flags<'_> {
    fn number(&self, flag: &str, default: u64) -> Result<u64, String> {
        let at = self.0.iter().position(|word| word == flag);
        match at.map(|at| self.0.get(at + 1)) {
            None => Ok(default),
            Some(Some(text)) => positive(text),
            Some(None) => Err(format!("{flag} wants a value")),
        }
    }

    fn dir(&self) -> PathBuf {
        let at = self.0.iter().position(|word| word == "--dir");
        at.and_then(|at| self.0.get(at + 1))
            .map_or_else(std::env::temp_dir, PathBuf::from)
    }

    /// Refuses flags other than these.
    fn check(&self, known: &[&str]) -> Result<(), String> {
        match self
            .0
            .iter()
            .step_by(2)
            .find(|word| !known.contains(&word.as_str()))
        {
            Some(word) => Err(format!("{word}: unknown; known are {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

/// p50, p99, p99.9 and maximum in microseconds.
fn line(histogram: &keybed_lsm::Histogram) -> String {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    format!(
        "{} times, p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
        histogram.count(),
        micros(histogram.quantile(0.5)),
        micros(histogram.quantile(0.99)),
        micros(histogram.quantile(0.999)),
        micros(histogram.max())
    )
}
