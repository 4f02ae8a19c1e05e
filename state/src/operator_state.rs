//! Operator state: a list per subtask that belongs to no key (offsets of a source, parts of a sink).

use crate::{
    Codec,
    codec::{decode_value, encode_value},
};
use keybed_format::{Code, Result};
use keybed_snapshot::{OperatorStateHandle, OperatorStateMode};

/// A list of encoded items on its way into or out of a snapshot.
///
/// ```
/// use keybed_snapshot::OperatorStateMode;
/// use keybed_state::ListOperatorState;
///
/// let mut offsets = ListOperatorState::default();
/// offsets.push(&(0_u32, 17_u64)); // split, next line
/// let handle = offsets.into_handle("offsets", OperatorStateMode::Split);
/// assert_eq!(ListOperatorState::of_handle(&handle).values::<(u32, u64)>()?, [(0, 17)]);
/// # Ok::<(), keybed_format::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOperatorState {
    /// Encoded items in order.
    pub items: Vec<Vec<u8>>,
}

impl ListOperatorState {
    /// Appends an item.
    pub fn push<T: Codec>(&mut self, item: &T) {
        self.items.push(encode_value(item));
    }

    /// All items in order.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if an item is not a `T`.
    pub fn values<T: Codec>(&self) -> Result<Vec<T>> {
        let decode = |(index, item): (usize, &Vec<u8>)| {
            let context = || format!("reading item {index} of operator state");
            decode_value(item).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt).context(context()))
        };
        self.items.iter().enumerate().map(decode).collect()
    }

    /// The items under a name, for a snapshot; `mode` says how they are dealt to other subtasks.
    pub fn into_handle(self, name: &str, mode: OperatorStateMode) -> OperatorStateHandle {
        OperatorStateHandle {
            name: name.into(),
            mode,
            items: self.items,
        }
    }

    /// The items of a handle.
    pub fn of_handle(handle: &OperatorStateHandle) -> Self {
        ListOperatorState {
            items: handle.items.clone(),
        }
    }
}
