//! The logical digest: equal exactly if two snapshots hold the same keyed state, however their files are cut.

use super::read_entries;
use keybed_format::{Result, Sink, checksum};
use keybed_snapshot::{KeyedHandle, OpenFiles, StateCatalogue};
use std::{fmt, ops::Add};

/// An order-independent hash over logical entries: (operator, state name, components, list index, value).
///
/// Digests of disjoint parts add up to the digest of the whole, so subtasks, parallelism, backends, chunks, runs and
/// state ids leave no trace in it.
///
/// ```text
/// bytes of an entry   operator text · state text · components bytes · index u64 · value bytes     (keybed_format)
/// its hash            xxh3-64 bound to (0, 0) · xxh3-64 bound to (1, 0)                           as one u128
/// digest              count of entries, sum of their hashes modulo 2^128
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogicalDigest {
    /// Number of entries; every list element and timer counts.
    pub entries: u64,
    /// Sum of the entries' hashes.
    pub sum: u128,
}

impl LogicalDigest {
    /// The digest of a single entry.
    pub fn of(operator: &str, state: &str, components: &[u8], index: u64, value: &[u8]) -> Self {
        let mut bytes = Sink::new();
        bytes
            .text(operator)
            .text(state)
            .bytes(components)
            .u64(index)
            .bytes(value);
        let half = |id| u128::from(checksum::bound(bytes.as_slice(), id, 0));
        LogicalDigest {
            entries: 1,
            sum: half(0) << 64 | half(1),
        }
    }
}

impl Add for LogicalDigest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = self.sum.wrapping_add(other.sum);
        LogicalDigest {
            entries: self.entries + other.entries,
            sum,
        }
    }
}

impl fmt::Display for LogicalDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.entries, self.sum)
    }
}

/// The digest of an operator's keyed state: states by name, and timers.
///
/// # Errors
/// As [`read_entries`].
pub fn logical_digest(
    operator: &str,
    catalogue: &StateCatalogue,
    handles: &[KeyedHandle],
    files: &dyn OpenFiles,
) -> Result<LogicalDigest> {
    let mut digest = LogicalDigest::default();
    read_entries(catalogue, handles, files, &mut |entry| {
        let one = LogicalDigest::of(
            operator,
            &entry.state,
            &entry.components,
            entry.index,
            &entry.value,
        );
        digest = digest + one;
        Ok(())
    })?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_digest_pins_the_definition() {
        let one = LogicalDigest::of("totals", "total", &[1, 2], 0, &[3]);
        let two = LogicalDigest::of("totals", "recent", &[1, 2], 7, &[]);
        assert_eq!(one + two, two + one);
        assert_ne!(one, LogicalDigest::of("totals", "total", &[1], 0, &[2, 3]));
        assert_eq!((one + two).to_string(), "2-04a6ff4dd4218dd1b38dfe9bd75b1197");
    }
}
