//! What a snapshot stores of a split. Page: docs/format/source-splits.md.
//!
//! ```text
//! item (20 bytes)   split u32 · position u64 · largest timestamp i64 (i64::MIN: none)
//! ```

use crate::watermark;
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{OperatorSnapshot, OperatorStateHandle, OperatorStateMode};
use std::collections::BTreeMap;

/// Name of the operator state that holds the splits.
pub const STATE_NAME: &str = "splits";

/// How far a split was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitState {
    /// Which split.
    pub split: u32,
    /// Position of the next record.
    pub position: u64,
    /// Largest event time seen; `i64::MIN` if none.
    pub max_timestamp: i64,
}

impl SplitState {
    /// A split nothing was read of.
    pub fn new(split: u32) -> Self {
        SplitState {
            split,
            position: 0,
            max_timestamp: watermark::MIN,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Sink::with_capacity(20);
        out.u32(self.split).u64(self.position).i64(self.max_timestamp);
        out.into_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut c = Cursor::new(bytes);
        let state = SplitState {
            split: c.u32()?,
            position: c.u64()?,
            max_timestamp: c.i64()?,
        };
        c.finish()?;
        Ok(state)
    }
}

/// The operator state of a subtask that reads these splits.
pub(crate) fn to_state(splits: impl Iterator<Item = SplitState>) -> OperatorStateHandle {
    let items = splits.map(|s| s.encode()).collect();
    OperatorStateHandle {
        name: STATE_NAME.into(),
        mode: OperatorStateMode::Split,
        items,
    }
}

/// All splits that a source's snapshot holds, by number.
///
/// # Errors
/// `SnapshotCorrupt` if an item cannot be read or a split occurs twice.
pub fn from_snapshot(operator: &OperatorSnapshot) -> Result<BTreeMap<u32, SplitState>> {
    let mut splits = BTreeMap::new();
    let lists = operator
        .subtasks
        .iter()
        .flat_map(|s| &s.operator)
        .filter(|o| o.name == STATE_NAME);
    for item in lists.flat_map(|o| &o.items) {
        let state = SplitState::decode(item).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))?;
        if splits.insert(state.split, state).is_some() {
            return Err(
                Error::new(Code::SnapshotCorrupt, "a split occurs twice in a snapshot")
                    .with("uid", &operator.uid)
                    .with("split", state.split),
            );
        }
    }
    Ok(splits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_pin_the_format() {
        let state = SplitState {
            split: 3,
            position: 260,
            max_timestamp: -2,
        };
        let bytes = state.encode();
        assert_eq!(
            bytes,
            [
                3, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0xfe, 255, 255, 255, 255, 255, 255, 255
            ]
        );
        assert_eq!(SplitState::decode(&bytes).unwrap(), state);
        for n in 0..20 {
            assert!(SplitState::decode(&bytes[..n]).is_err());
        }
    }
}
