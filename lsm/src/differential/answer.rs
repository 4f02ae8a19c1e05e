//! Comparing answers, and what a program has reached.

use crate::StoreStats;
use keybed_format::{Error, Result};

/// An answer that is not the model's.
#[derive(Debug)]
pub struct Disagreement {
    /// Index of the operation.
    pub at: usize,
    /// What was expected and found.
    pub what: String,
}

/// What a program made the store do: a program that reaches nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Operations done.
    pub operations: u64,
    /// Answers compared.
    pub answers: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Merges of runs.
    pub compactions: u64,
    /// Times the store was opened again after a close.
    pub reopened: u64,
    /// Times it was opened again after its process or machine died.
    pub crashes: u64,
    /// Writes that a crash took.
    pub lost_writes: u64,
    /// Keys left out of new tables because they had expired.
    pub expired: u64,
}

impl Reached {
    /// Takes note of what a store did until it is let go.
    pub(super) fn count(&mut self, stats: &StoreStats) {
        self.flushes += stats.counts.flushes;
        self.compactions += stats.counts.compactions;
        self.expired += stats.counts.expired_entries;
    }

    /// Sums of both.
    #[must_use]
    pub fn plus(self, other: Reached) -> Reached {
        Reached {
            operations: self.operations + other.operations,
            answers: self.answers + other.answers,
            flushes: self.flushes + other.flushes,
            compactions: self.compactions + other.compactions,
            reopened: self.reopened + other.reopened,
            crashes: self.crashes + other.crashes,
            lost_writes: self.lost_writes + other.lost_writes,
            expired: self.expired + other.expired,
        }
    }
}

/// Why a program stops: an error of the store, or an answer that is wrong.
pub(super) enum Stop {
    Error(Error),
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

/// What an operation comes to.
pub(super) type Done = std::result::Result<(), Stop>;

/// Demands that two answers are equal.
#[allow(clippy::needless_pass_by_value, reason = "answers are made to be compared")]
pub(super) fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Done {
    if found == expected {
        return Ok(());
    }
    Err(Stop::Wrong(format!(
        "{what}: expected {expected:?}, found {found:?}"
    )))
}

/// Entries of a model's family as a scan lists them.
pub(super) fn listed<'m>(
    entries: impl DoubleEndedIterator<Item = (&'m Vec<u8>, &'m Vec<u8>)>,
    down: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> = entries.map(|(key, value)| (key.clone(), value.clone())).collect();
    if down {
        all.reverse();
    }
    all
}

pub(super) fn collect(range: crate::Range<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    range.collect()
}

/// Compares two lists by their first difference: whole lists are unreadable.
pub(super) fn same_list(found: &[(Vec<u8>, Vec<u8>)], expected: &[(Vec<u8>, Vec<u8>)], what: &str) -> Done {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    match at {
        None if found.len() == expected.len() => Ok(()),
        None => Err(Stop::Wrong(format!(
            "{what}: expected {} entries, found {}; the first without a partner is {:?}",
            expected.len(),
            found.len(),
            found.get(expected.len()).or(expected.get(found.len()))
        ))),
        Some(at) => Err(Stop::Wrong(format!(
            "{what}, entry {at}: expected {:?}, found {:?}",
            expected[at], found[at]
        ))),
    }
}
