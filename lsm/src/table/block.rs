//! One block: entries in rows, and an exact hash from key to entry.
//!
//! ```text
//! header (32)  slot width u8 · meta width u8 · key end width u8 · value end width u8 · entries u32 · slots u32 ·
//!              key width u32 · value width u32 · heap bytes u32 · base u64
//! rows         per entry: the key, if all are equally long · meta · key end, if they are not · the value, if all are
//!              equally long, else value end
//! heap         keys and values that vary, entry by entry, key before value
//! slots        u16 or u32 each: [fingerprint | entry], 0 = empty; linear probing
//! ```
//! `meta` is `seqno << 8 | kind`, stored as the distance to `base` in 0, 4 or 8 bytes. Ends are offsets in the heap;
//! what they end starts where the field before it ended. A slot leads to the newest version of its key. So a point
//! read of fixed widths touches two places, slot and row, one of varying widths a third, the heap.
//!
//! Nothing in here panics on broken bytes: [`Geometry::parse`] checks that the parts tile the block, and every
//! access behind it is checked again and answers `None` for bytes that make no sense. Page: docs/format/table.md.

use crate::{
    budget::{Lease, MemoryBudget, Pool},
    key::{self, Entry, EntryKind, Seqno},
};
use keybed_format::{Cursor, Result};

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Entries that two-byte slots can lead to.
pub(crate) const SHORT_SLOT_ENTRIES_MAX: u32 = 1 << 11;
/// Entries that four-byte slots can lead to.
pub(crate) const ENTRIES_MAX: u32 = 1 << LONG_INDEX_BITS;
const LONG_INDEX_BITS: u32 = 24;

/// Where the parts of a block lie; everything a read needs besides the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    base: u64,
    entries: u32,
    slots: u32,
    /// Width of every key; 0 where they vary.
    key_width: u32,
    /// Width of every value; 0 where they vary.
    value_width: u32,
    /// Bytes of a row.
    stride: u32,
    heap_at: u32,
    slots_at: u32,
    /// Where the value, or its end, lies in a row.
    value_field: u32,
    slot_width: u8,
    meta_width: u8,
    key_end_width: u8,
    value_end_width: u8,
    /// Low bits of a slot that hold the entry.
    index_bits: u8,
}

/// Bits of a slot that hold the index of one of `entries` entries.
pub(crate) fn index_bits(entries: u32) -> u32 {
    if entries > SHORT_SLOT_ENTRIES_MAX {
        LONG_INDEX_BITS
    } else {
        entries.next_power_of_two().trailing_zeros().max(8)
    }
}

/// Fingerprint of a hash in a slot of `slot_bits` bits; never 0, so an occupied slot is never 0.
#[inline(always)]
pub(crate) fn fingerprint(hash: u64, slot_bits: u32, index_bits: u32) -> u32 {
    ((hash >> (64 - (slot_bits - index_bits))) as u32).max(1)
}

/// First slot to look at: the low half of the hash scaled to the number of slots.
#[inline(always)]
pub(crate) fn first_slot(hash: u64, slots: u32) -> u32 {
    ((u64::from(hash as u32) * u64::from(slots)) >> 32) as u32
}

impl Geometry {
    /// That of no bytes.
    const EMPTY: Geometry = Geometry {
        base: 0,
        entries: 0,
        slots: 0,
        key_width: 0,
        value_width: 0,
        stride: 0,
        heap_at: 0,
        slots_at: 0,
        value_field: 0,
        slot_width: 2,
        meta_width: 0,
        key_end_width: 0,
        value_end_width: 0,
        index_bits: 8,
    };

    /// Reads the header of a block at `offset` of its file and checks that its parts tile the block exactly.
    pub(crate) fn parse(bytes: &[u8], offset: u64) -> Result<Geometry> {
        let mut c = Cursor::with_base(bytes, offset);
        let [slot_width, meta_width, key_end_width, value_end_width] = c.array()?;
        let (entries, slots, key_width, value_width, heap_bytes, base) =
            (c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u64()?);
        let widths_fit = matches!(slot_width, 2 | 4)
            && matches!(meta_width, 0 | 4 | 8)
            && matches!(key_end_width, 0 | 2 | 4)
            && matches!(value_end_width, 0 | 2 | 4);
        let one_way = (key_end_width == 0 || key_width == 0) && (value_end_width == 0 || value_width == 0);
        if !widths_fit || !one_way {
            return Err(c.malformed("the header of a block holds impossible widths"));
        }
        let short = entries <= SHORT_SLOT_ENTRIES_MAX;
        if entries == 0 || entries > ENTRIES_MAX || slots == 0 || short != (slot_width == 2) {
            return Err(c
                .malformed("a block's counts of entries and slots do not fit")
                .with("entries", entries));
        }
        // Sums and products of 32-bit numbers do not overflow 128 bits.
        let value_field = u128::from(key_width) + u128::from(meta_width) + u128::from(key_end_width);
        let stride = value_field + u128::from(value_width) + u128::from(value_end_width);
        // Versions differ, so rows of no bytes would be a few bytes that claim to be millions of entries.
        if stride == 0 && entries > 1 {
            return Err(c
                .malformed("the rows of a block are empty")
                .with("entries", entries));
        }
        let heap_at = HEADER_BYTES as u128 + stride * u128::from(entries);
        let slots_at = heap_at + u128::from(heap_bytes);
        let end = slots_at + u128::from(slots) * u128::from(slot_width);
        if end != bytes.len() as u128 || end > u128::from(u32::MAX) {
            return Err(c
                .malformed("a block's parts do not fill it")
                .expected_found(end, bytes.len()));
        }
        Ok(Geometry {
            base,
            entries,
            slots,
            key_width,
            value_width,
            // None exceeds `end`, which fits.
            stride: stride as u32,
            heap_at: heap_at as u32,
            slots_at: slots_at as u32,
            value_field: value_field as u32,
            slot_width,
            meta_width,
            key_end_width,
            value_end_width,
            index_bits: index_bits(entries) as u8,
        })
    }

    /// Versions in the block, at least 1.
    #[inline]
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }
}

/// A version decoded from a block: where its bytes lie in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) seqno: Seqno,
    pub(crate) kind: EntryKind,
    pub(crate) value_start: u32,
    pub(crate) value_end: u32,
}

/// A block's bytes with their geometry.
#[derive(Clone, Copy)]
pub(crate) struct BlockView<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) geometry: &'a Geometry,
}

/// Answer about bytes that may make no sense: `None` = the block is damaged.
pub(crate) type Sane<T> = Option<T>;

#[inline(always)]
fn u16_at(bytes: &[u8], at: usize) -> Sane<u32> {
    Some(u32::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> Sane<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline(always)]
fn end_at(bytes: &[u8], at: usize, width: u8) -> Sane<u32> {
    if width == 2 {
        u16_at(bytes, at)
    } else {
        u32_at(bytes, at)
    }
}

impl<'a> BlockView<'a> {
    #[inline(always)]
    fn row_at(&self, index: u32) -> usize {
        HEADER_BYTES + index as usize * self.geometry.stride as usize
    }

    /// Where in the block the heap's part of entry `index` starts: at the last end of the entry before.
    #[inline(always)]
    fn heap_start(&self, index: u32) -> Sane<u32> {
        let g = self.geometry;
        let Some(before) = index.checked_sub(1) else {
            return Some(g.heap_at);
        };
        let row = self.row_at(before);
        let start = if g.value_end_width > 0 {
            end_at(self.bytes, row + g.value_field as usize, g.value_end_width)?
        } else {
            end_at(self.bytes, row + usize::from(g.meta_width), g.key_end_width)?
        };
        self.in_heap(start)
    }

    /// The place in the block of an offset in the heap; behind the heap lie foreign bytes.
    #[inline(always)]
    fn in_heap(&self, offset: u32) -> Sane<u32> {
        let g = self.geometry;
        g.heap_at.checked_add(offset).filter(|place| *place <= g.slots_at)
    }

    /// Where in the block a part of the heap ends that starts at `start`; its end is the field at `field`.
    #[inline(always)]
    fn heap_end(&self, start: u32, field: usize, width: u8) -> Sane<u32> {
        let end = self.in_heap(end_at(self.bytes, field, width)?)?;
        (start <= end).then_some(end)
    }

    /// Where the key of entry `index` lies.
    #[inline(always)]
    pub(crate) fn key_place(&self, index: u32) -> Sane<(u32, u32)> {
        let g = self.geometry;
        let row = self.row_at(index);
        if g.key_end_width == 0 {
            return Some((row as u32, row as u32 + g.key_width));
        }
        let start = self.heap_start(index)?;
        Some((
            start,
            self.heap_end(start, row + usize::from(g.meta_width), g.key_end_width)?,
        ))
    }

    /// Key of entry `index`.
    #[inline(always)]
    pub(crate) fn key(&self, index: u32) -> Sane<&'a [u8]> {
        let (start, end) = self.key_place(index)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// `seqno << 8 | kind` of entry `index`.
    #[inline(always)]
    fn meta(&self, index: u32) -> Sane<u64> {
        let g = self.geometry;
        let at = self.row_at(index) + g.key_width as usize;
        let distance = match g.meta_width {
            0 => 0,
            4 => u64::from(u32_at(self.bytes, at)?),
            _ => u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?),
        };
        Some(g.base.wrapping_add(distance))
    }

    /// Seqno, kind and place of the value of entry `index`, whose key ends at `key_end`.
    #[inline(always)]
    pub(crate) fn version(&self, index: u32, key_end: u32) -> Sane<Version> {
        let g = self.geometry;
        let meta = self.meta(index)?;
        let kind = EntryKind::from_u8(meta as u8)?;
        let field = self.row_at(index) + g.value_field as usize;
        let (value_start, value_end) = if g.value_end_width == 0 {
            (field as u32, field as u32 + g.value_width)
        } else {
            let start = if g.key_end_width == 0 {
                self.heap_start(index)?
            } else {
                key_end
            };
            (start, self.heap_end(start, field, g.value_end_width)?)
        };
        if ((value_end - value_start) as usize) < kind.stamp_bytes() {
            return None;
        }
        Some(Version {
            seqno: meta >> 8,
            kind,
            value_start,
            value_end,
        })
    }

    /// Entry `index` as a whole.
    pub(crate) fn entry(&self, index: u32) -> Sane<Entry<'a>> {
        let (key_start, key_end) = self.key_place(index)?;
        let version = self.version(index, key_end)?;
        Some(Entry {
            key: self.bytes.get(key_start as usize..key_end as usize)?,
            seqno: version.seqno,
            kind: version.kind,
            value: self
                .bytes
                .get(version.value_start as usize..version.value_end as usize)?,
        })
    }

    /// Newest version of `key`, and where its key ends.
    #[inline(always)]
    fn find(&self, key: &[u8], hash: u64) -> Sane<Option<(u32, u32)>> {
        let slots = self.bytes.get(self.geometry.slots_at as usize..)?;
        if self.geometry.slot_width == 2 {
            self.probe(key, hash, slots.as_chunks().0, |slot| {
                u32::from(u16::from_le_bytes(slot))
            })
        } else {
            self.probe(key, hash, slots.as_chunks().0, u32::from_le_bytes)
        }
    }

    /// [`Self::find`] among slots of `W` bytes.
    #[inline(always)]
    fn probe<const W: usize>(
        &self,
        key: &[u8],
        hash: u64,
        slots: &[[u8; W]],
        number: impl Fn([u8; W]) -> u32,
    ) -> Sane<Option<(u32, u32)>> {
        let index_bits = u32::from(self.geometry.index_bits);
        let wanted = fingerprint(hash, W as u32 * 8, index_bits);
        let start = first_slot(hash, slots.len() as u32) as usize;
        let mut at = start;
        loop {
            let slot = number(*slots.get(at)?);
            if slot == 0 {
                return Some(None);
            }
            if slot >> index_bits == wanted {
                let index = slot & ((1 << index_bits) - 1);
                if index >= self.geometry.entries {
                    return None;
                }
                let (start, end) = self.key_place(index)?;
                if key::equal(self.bytes.get(start as usize..end as usize)?, key) {
                    return Some(Some((index, end)));
                }
            }
            at += 1;
            if at == slots.len() {
                at = 0;
            }
            // Only a damaged block has no empty slot.
            if at == start {
                return Some(None);
            }
        }
    }

    /// A byte of the first slot to look at for a hash.
    #[inline]
    pub(super) fn slot_byte(&self, hash: u64) -> Sane<u8> {
        let g = self.geometry;
        let slot = first_slot(hash, g.slots) as usize * usize::from(g.slot_width);
        self.bytes.get(g.slots_at as usize + slot).copied()
    }

    /// The row of entry `index`.
    #[inline]
    pub(super) fn row_bytes(&self, index: u32) -> Sane<&'a [u8]> {
        let row = self.row_at(index);
        self.bytes.get(row..row + self.geometry.stride as usize)
    }

    /// The first entry that a slot names for this hash, its key unseen.
    #[inline]
    pub(super) fn likely_entry(&self, hash: u64) -> Sane<u32> {
        let slots = self.bytes.get(self.geometry.slots_at as usize..)?;
        if self.geometry.slot_width == 2 {
            self.likely(hash, slots.as_chunks().0, |slot| {
                u32::from(u16::from_le_bytes(slot))
            })
        } else {
            self.likely(hash, slots.as_chunks().0, u32::from_le_bytes)
        }
    }

    #[inline(always)]
    fn likely<const W: usize>(
        &self,
        hash: u64,
        slots: &[[u8; W]],
        number: impl Fn([u8; W]) -> u32,
    ) -> Sane<u32> {
        let index_bits = u32::from(self.geometry.index_bits);
        let wanted = fingerprint(hash, W as u32 * 8, index_bits);
        let start = first_slot(hash, slots.len() as u32) as usize;
        // Whoever lies behind the end of the slots goes without: it is only a hint.
        for slot in slots.get(start..)? {
            let slot = number(*slot);
            if slot == 0 {
                return None;
            }
            if slot >> index_bits == wanted {
                let index = slot & ((1 << index_bits) - 1);
                return (index < self.geometry.entries).then_some(index);
            }
        }
        None
    }

    /// The next older version of the same key, and where its key ends.
    #[inline]
    pub(crate) fn older(&self, index: u32, key: &[u8]) -> Sane<Option<(u32, u32)>> {
        let next = index + 1;
        if next >= self.geometry.entries {
            return Some(None);
        }
        let (start, end) = self.key_place(next)?;
        let same = key::equal(self.bytes.get(start as usize..end as usize)?, key);
        Some(same.then_some((next, end)))
    }

    /// Newest version of `key` with a seqno of at most `seqno_max`, and its index.
    #[inline(always)]
    pub(crate) fn find_visible(
        &self,
        key: &[u8],
        hash: u64,
        seqno_max: Seqno,
    ) -> Sane<Option<(u32, Version)>> {
        let mut found = self.find(key, hash)?;
        while let Some((index, key_end)) = found {
            let version = self.version(index, key_end)?;
            if version.seqno <= seqno_max {
                return Some(Some((index, version)));
            }
            found = self.older(index, key)?;
        }
        Some(None)
    }

    /// Index of the first entry whose key is not before `key`; the number of entries if there is none.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Sane<u32> {
        let (mut low, mut high) = (0, self.geometry.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if key::less(self.key(middle)?, key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

/// A decoded block that owns its bytes; what the cache keeps.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    geometry: Geometry,
    /// What it takes of a memory budget, given back with the last holder.
    lease: Option<Lease>,
}

impl Block {
    /// Takes decoded bytes of the block at `offset` of its file.
    pub(crate) fn new(bytes: Vec<u8>, offset: u64) -> Result<Block> {
        let geometry = Geometry::parse(&bytes, offset)?;
        Ok(Block {
            bytes,
            geometry,
            lease: None,
        })
    }

    /// Counts against a budget from now on.
    pub(crate) fn charge(mut self, budget: &MemoryBudget, pool: Pool) -> Block {
        self.lease = Some(budget.overdraw(pool, self.memory_bytes()));
        self
    }

    /// Takes the memory out, for other bytes; what is left is to be given to [`Block::refill`] or dropped.
    pub(crate) fn take_memory(&mut self) -> Vec<u8> {
        self.geometry = Geometry::EMPTY;
        std::mem::take(&mut self.bytes)
    }

    /// As [`Block::new`], in the place of a block whose content nobody needs; counts against the same budget.
    pub(crate) fn refill(&mut self, bytes: Vec<u8>, offset: u64) -> Result {
        self.geometry = Geometry::parse(&bytes, offset)?;
        self.bytes = bytes;
        let memory = self.memory_bytes();
        if let Some(lease) = &mut self.lease {
            lease.set(memory);
        }
        Ok(())
    }

    pub(crate) fn view(&self) -> BlockView<'_> {
        BlockView {
            bytes: &self.bytes,
            geometry: &self.geometry,
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<Block>()
    }

    /// A block of one entry and about this many bytes.
    #[cfg(test)]
    pub(crate) fn of_bytes(bytes: usize) -> Block {
        let mut builder = super::block_builder::BlockBuilder::default();
        let entry = Entry {
            key: &vec![1; bytes],
            seqno: 1,
            kind: EntryKind::Put,
            value: b"",
        };
        builder.add(entry, 0, true).expect("it is small");
        let mut raw = Vec::new();
        builder.finish(&mut raw);
        raw.shrink_to_fit();
        Block::new(raw, 0).expect("it was just built")
    }
}
