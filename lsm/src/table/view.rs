//! The visible part of a table.

use super::{Found, TableReader};
use crate::key::{Entry, KeyRange, Seqno, prefix_end};
use keybed_format::Result;
use std::{ops::ControlFlow, sync::Arc};

/// A table of which only a range of keys is visible: rescaling without rewriting. Everything outside is as if it
/// were not in the file.
#[derive(Clone, Debug)]
pub struct TableView {
    /// The table.
    pub reader: Arc<TableReader>,
    /// The keys that may be seen.
    pub visible: KeyRange,
}

impl TableView {
    /// `visible` part of `reader`.
    pub fn new(reader: Arc<TableReader>, visible: KeyRange) -> Self {
        TableView { reader, visible }
    }

    /// The whole table.
    pub fn whole(reader: Arc<TableReader>) -> Self {
        TableView {
            reader,
            visible: KeyRange::all(),
        }
    }

    /// As [`TableReader::get`], for visible keys.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get(&self, key: &[u8], hash: u64, seqno_max: Seqno) -> Result<Option<Found<'_>>> {
        if self.visible.contains(key) {
            self.reader.get(key, hash, seqno_max)
        } else {
            Ok(None)
        }
    }

    /// As [`TableReader::versions`], for visible keys.
    ///
    /// # Errors
    /// As there.
    pub fn versions(
        &self,
        key: &[u8],
        hash: u64,
        seqno_max: Seqno,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if self.visible.contains(key) {
            self.reader.versions(key, hash, seqno_max, each)
        } else {
            Ok(ControlFlow::Continue(()))
        }
    }

    /// Whether the visible part can hold `key`: false is certain, true is not. `hash` is [`crate::key::hash`] of it.
    #[inline]
    pub fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        self.visible.contains(key) && self.reader.may_contain(key, hash)
    }

    /// Whether the visible part can hold a key that begins with `prefix`: false is certain, true is not.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        let range = KeyRange {
            start: prefix.to_vec(),
            end: prefix_end(prefix),
        };
        !self.visible.clip(&range).is_empty() && self.reader.may_contain_prefix(prefix)
    }

    /// Whether some key between `first` and `last` (inclusive) can be visible here, by the table's key range.
    pub fn touches(&self, range: &KeyRange) -> bool {
        let facts = self.reader.facts();
        let clipped = self.visible.clip(range);
        clipped.touches(&facts.smallest, &facts.largest)
    }

    /// About how many bytes of the file hold visible keys, from the index: whole blocks.
    pub fn visible_bytes(&self) -> u64 {
        self.reader.bytes_in(&self.visible)
    }
}
