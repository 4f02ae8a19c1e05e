//! Bytes found in a table, pinned where they lie: nothing is copied to return a value.

use super::block::Block;
use crate::key::{EntryKind, Seqno};
use std::{fmt, ops::Deref, sync::Arc};

/// Bytes that stay where they are for as long as this value lives: borrowed from the reader's memory map, or inside
/// a cached block that is kept alive.
#[derive(Clone)]
pub struct Slice<'t>(Repr<'t>);

#[derive(Clone)]
enum Repr<'t> {
    Borrowed(&'t [u8]),
    Cached { block: Arc<Block>, start: u32, end: u32 },
}

impl<'t> Slice<'t> {
    /// Bytes that outlive the reader's borrow.
    #[inline]
    pub fn borrowed(bytes: &'t [u8]) -> Self {
        Slice(Repr::Borrowed(bytes))
    }

    /// Bytes `start..end` of a block.
    #[inline]
    pub(super) fn in_block(block: Arc<Block>, start: u32, end: u32) -> Self {
        Slice(Repr::Cached { block, start, end })
    }
}

impl<'t> Slice<'t> {
    /// Bytes of the block that it keeps, if it keeps one.
    pub(crate) fn block_bytes(&self) -> Option<usize> {
        match &self.0 {
            Repr::Borrowed(_) => None,
            Repr::Cached { block, .. } => Some(block.memory_bytes()),
        }
    }

    /// Without its first `bytes`.
    pub(crate) fn skip(self, bytes: usize) -> Self {
        match self.0 {
            Repr::Borrowed(all) => Slice(Repr::Borrowed(all.get(bytes..).unwrap_or_default())),
            Repr::Cached { block, start, end } => {
                let start = start.saturating_add(bytes as u32).min(end);
                Slice(Repr::Cached { block, start, end })
            }
        }
    }

    /// Without its borrow, if it keeps its block.
    pub(crate) fn detach(self) -> Result<Slice<'static>, Self> {
        match self.0 {
            Repr::Borrowed(_) => Err(self),
            Repr::Cached { block, start, end } => Ok(Slice(Repr::Cached { block, start, end })),
        }
    }
}

impl Deref for Slice<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Borrowed(bytes) => bytes,
            Repr::Cached { block, start, end } => block
                .bytes()
                .get(*start as usize..*end as usize)
                .unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for Slice<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The newest visible version of a key.
#[derive(Clone, Debug)]
pub struct Found<'t> {
    /// When it was written.
    pub seqno: Seqno,
    /// What it does to the key.
    pub kind: EntryKind,
    /// Its value or operand, behind the stamps of its kind; empty for a delete.
    pub value: Slice<'t>,
}
