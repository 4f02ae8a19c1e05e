//! Touching what look-ups in blocks will read, in phases over many look-ups; see `crate::warm`.

use super::{TableReader, block::BlockView, reader::BlockRef};
use std::{hint::black_box, ptr};

/// Look-ups that are under way at a time.
const MAX: usize = 16;

/// A look-up: block of a table, and the hash of the key.
type Wanted<'t> = (&'t TableReader, usize, u64);
/// Blocks for look-ups, as far as they are there.
type Blocks<'t> = [Option<(BlockRef<'t>, u64)>; MAX];

/// Touches block, slots, row and heap for each (table, block, hash). Blocks that are not at hand are fetched, all at
/// the same time; errors are left to the read that comes.
#[allow(
    clippy::redundant_closure_for_method_calls,
    reason = "a method of one lifetime is not general enough"
)]
pub(crate) fn warm<'t>(wanted: impl Iterator<Item = Wanted<'t>>) {
    let mut blocks: Blocks<'t> = [const { None }; MAX];
    let mut missing: [Option<Wanted<'t>>; MAX] = [None; MAX];
    let mut misses = 0;
    // The geometry of a mapped block lies in a list of the table: touched by asking for the block.
    for ((slot, missing), wanted) in blocks.iter_mut().zip(&mut missing).zip(wanted) {
        let (table, block, hash) = wanted;
        match table.block_at_hand(block) {
            Some(block) => *slot = Some((block, hash)),
            None => (*missing, misses) = (Some(wanted), misses + 1),
        }
    }
    if misses > 0 {
        fetch(&missing, &mut blocks);
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

/// Reads what is missing. If that is more than one block, all of them are announced first, so that the system reads
/// the later ones while the earlier ones are awaited.
#[cold]
#[inline(never)]
fn fetch<'t>(missing: &[Option<Wanted<'t>>; MAX], blocks: &mut Blocks<'t>) {
    let mut places = missing.map(|wanted| wanted.map(|(table, block, _)| (table, table.place_of(block))));
    places.sort_unstable_by_key(|place| place.map(|(table, place)| (ptr::from_ref(table).addr(), place)));
    let mut places = places.iter().flatten();
    if let Some(&(mut table, mut range)) = places.next() {
        let first = range;
        let mut is_alone = true;
        for &(next, place) in places {
            is_alone &= ptr::eq(table, next) && place == first;
            if ptr::eq(table, next) && place.0 <= range.1 {
                range.1 = range.1.max(place.1);
            } else {
                table.will_read(range);
                (table, range) = (next, place);
            }
        }
        if !is_alone {
            table.will_read(range);
        }
    }
    for (slot, wanted) in blocks.iter_mut().zip(missing) {
        if let Some((table, block, hash)) = *wanted {
            *slot = table.block(block, true).ok().map(|block| (block, hash));
        }
    }
}

fn each(blocks: &Blocks<'_>, rows: &[u32; MAX], touch: impl Fn(&BlockView<'_>, u32) -> u32) {
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

    /// Where a block lies in the file.
    fn place_of(&self, block: usize) -> (u64, u64) {
        self.fence.place(block)
    }

    /// Announces the read of a range of the file.
    fn will_read(&self, (start, end): (u64, u64)) {
        self.source.will_read(start, end);
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
