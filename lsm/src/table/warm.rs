//! Touching what look-ups in blocks will read, in phases over many look-ups; see `crate::warm`.

use super::{TableReader, block::BlockView, reader::BlockRef};
use std::hint::black_box;

/// Look-ups that are under way at a time.
const MAX: usize = 16;

/// Touches block, slots, row and heap for each (table, block, hash), as far as the blocks are at hand. A block that
/// is not mapped is loaded; errors are left to the read that comes.
#[allow(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of one lifetime is not general enough"
)]
pub(crate) fn warm<'t>(wanted: impl Iterator<Item = (&'t TableReader, usize, u64)>) {
    let mut blocks: [Option<(BlockRef<'t>, u64)>; MAX] = [const { None }; MAX];
    // The geometry of a mapped block lies in a list of the table: touched by asking for the block.
    for (slot, (table, block, hash)) in blocks.iter_mut().zip(wanted) {
        *slot = table.block_for_warming(block).map(|block| (block, hash));
    }
    let mut touched = 0_u32;
    for (block, hash) in blocks.iter().flatten() {
        touched ^= block.view().touch_slot(*hash);
    }
    black_box(touched);
    let mut rows = [u32::MAX; MAX];
    for (slot, row) in blocks.iter().zip(&mut rows) {
        if let Some((block, hash)) = slot {
            *row = block.view().likely_entry(*hash).unwrap_or(u32::MAX);
        }
    }
    each(&blocks, &rows, |view, row| view.touch_row(row));
    each(&blocks, &rows, |view, row| view.touch_value(row));
}

fn each(
    blocks: &[Option<(BlockRef<'_>, u64)>; MAX],
    rows: &[u32; MAX],
    touch: impl Fn(&BlockView<'_>, u32) -> u32,
) {
    let mut touched = 0;
    for (slot, row) in blocks.iter().zip(rows) {
        if let (Some((block, _)), true) = (slot, *row != u32::MAX) {
            touched ^= touch(&block.view(), *row);
        }
    }
    black_box(touched);
}

impl TableReader {
    /// The one block that can hold `key`.
    #[inline]
    pub(crate) fn block_of(&self, key: &[u8]) -> usize {
        self.fence.find(key)
    }

    /// A block, if that takes no more than a look into the map or the cache, or one read of a table that is not
    /// mapped.
    #[inline]
    fn block_for_warming(&self, block: usize) -> Option<BlockRef<'_>> {
        self.block(block, true).ok()
    }
}

impl BlockView<'_> {
    /// Reads the first slot of a hash.
    #[inline]
    fn touch_slot(&self, hash: u64) -> u32 {
        self.slot_byte(hash).map_or(0, u32::from)
    }

    /// Reads the ends of a row.
    #[inline]
    fn touch_row(&self, index: u32) -> u32 {
        self.row_bytes(index).map_or(0, |row| {
            u32::from(*row.first().unwrap_or(&0)) ^ u32::from(*row.last().unwrap_or(&0))
        })
    }

    /// Reads the ends of key and value of an entry.
    #[inline]
    fn touch_value(&self, index: u32) -> u32 {
        self.entry(index).map_or(0, |entry| {
            let ends = |bytes: &[u8]| *bytes.first().unwrap_or(&0) ^ *bytes.last().unwrap_or(&0);
            u32::from(ends(entry.key) ^ ends(entry.value))
        })
    }
}
