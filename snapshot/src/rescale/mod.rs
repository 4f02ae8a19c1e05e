//! Restore at another parallelism, as metadata: which views and items every new subtask gets.
//!
//! ```text
//!   old subtasks   |0    42|43    84|85   127|      disjoint ranges of key groups
//!   new subtasks   |0        63|64       127|
//!                   ╰ views of 0, clip of 1 ╯       no data file is read or written here
//! ```
//! Keyed state: every old handle that meets the new range is narrowed to the intersection; a backend restores from
//! the parts or from their [`merge`]. Old subtasks are disjoint in key groups, so seqnos of different origins are
//! never compared for one key. Operator state is split, united or copied by its mode.
//!
//! Pure: handles in, handles out.

mod keyed;
mod operator_state;
#[cfg(test)]
mod tests;

pub use keyed::{clip, merge};

use crate::{KeyGroupRange, KeyedHandle, OperatorStateHandle, SubtaskIndex, SubtaskState};
use keybed_format::Result;

/// What one new subtask restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which subtask.
    pub index: SubtaskIndex,
    /// Its key groups.
    pub range: KeyGroupRange,
    /// Old handles narrowed to its range, by key group; disjoint.
    pub keyed: Vec<KeyedHandle>,
    /// Its operator state, by name.
    pub operator: Vec<OperatorStateHandle>,
    /// Whether the subtask had ended: all old ones that it continues had.
    pub finished: bool,
}

impl Assignment {
    /// One handle over all parts; `None` without keyed state.
    pub fn merged(&self) -> Option<KeyedHandle> {
        merge(&self.keyed, self.range)
    }
}

/// Deals the state of one operator's old subtasks to `parallelism` new ones.
///
/// At an unchanged parallelism every subtask gets back what it had, item by item.
///
/// # Errors
/// `ParallelismExceedsMax` or `InvalidArgument` if the key groups cannot be shared by that many subtasks.
pub fn rescale(old: &[SubtaskState], max_parallelism: u32, parallelism: u32) -> Result<Vec<Assignment>> {
    let ranges = KeyGroupRange::split(max_parallelism, parallelism)?;
    let mut old: Vec<&SubtaskState> = old.iter().collect();
    old.sort_by_key(|subtask| subtask.index);
    let unchanged = old.len() == ranges.len();
    let mut operator = operator_state::deal(&old, parallelism);
    Ok(ranges
        .into_iter()
        .zip(0..)
        .map(|(range, index)| {
            let continued = |subtask: &&&SubtaskState| !unchanged || subtask.index.0 == index;
            let mut keyed: Vec<KeyedHandle> = old
                .iter()
                .filter_map(|s| s.keyed.as_ref())
                .filter_map(|k| keyed::narrow(k, range))
                .collect();
            keyed.sort_by_key(|part| part.range);
            Assignment {
                index: SubtaskIndex(index),
                range,
                keyed,
                operator: operator.next().unwrap_or_default(),
                finished: old.iter().filter(continued).count() > 0
                    && old.iter().filter(continued).all(|subtask| subtask.finished),
            }
        })
        .collect())
}
