//! One block: entries in columns, and an exact hash from key to entry.
//!
//! ```text
//! header (32)  slot width u8 · meta width u8 · key end width u8 · value end width u8 · entries u32 · slots u32 ·
//!              keys u32 · values u32 · zero u32 · base u64
//! keys         the keys, one behind the other
//! rows         per entry: meta · key end, if keys vary · value end, if values vary, else the value itself
//! values       the values, if they vary
//! slots        u16 or u32 each: [fingerprint | entry], 0 = empty; linear probing
//! ```
//! `keys` and `values` are widths where all are equally long, else the bytes of the column. `meta` is
//! `seqno << 8 | kind`, stored as the distance to `base` in 0, 4 or 8 bytes. A slot leads to the newest version of
//! its key. A point read touches three cache lines: slot, key, row.
//!
//! Nothing in here panics on broken bytes: [`Geometry::parse`] checks that the columns tile the block, and every
//! access behind it is checked again and answers `None` for bytes that make no sense. Page: docs/format/table.md.

use crate::key::{self, Entry, EntryKind, Seqno};
use keybed_format::{Cursor, Result};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 32;
/// Entries that two-byte slots can lead to.
pub(super) const SHORT_SLOT_ENTRIES_MAX: u32 = 1 << 11;
/// Entries that four-byte slots can lead to.
pub(super) const ENTRIES_MAX: u32 = 1 << LONG_INDEX_BITS;
const LONG_INDEX_BITS: u32 = 24;

/// Where the columns of a block lie; everything a read needs besides the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    base: u64,
    entries: u32,
    slots: u32,
    /// Width of every key; 0 where they vary.
    key_width: u32,
    /// Width of every value; 0 where they vary.
    value_width: u32,
    rows_at: u32,
    values_at: u32,
    slots_at: u32,
    /// Bytes of a row.
    stride: u32,
    slot_width: u8,
    meta_width: u8,
    key_end_width: u8,
    value_end_width: u8,
    /// Low bits of a slot that hold the entry.
    index_bits: u8,
}

/// Bits of a slot that hold the index of one of `entries` entries.
pub(super) fn index_bits(entries: u32) -> u32 {
    if entries > SHORT_SLOT_ENTRIES_MAX {
        LONG_INDEX_BITS
    } else {
        entries.next_power_of_two().trailing_zeros().max(8)
    }
}

/// Fingerprint of a hash in a slot of `slot_bits` bits; never 0, so an occupied slot is never 0.
#[inline(always)]
pub(super) fn fingerprint(hash: u64, slot_bits: u32, index_bits: u32) -> u32 {
    ((hash >> (64 - (slot_bits - index_bits))) as u32).max(1)
}

/// First slot to look at: the low half of the hash scaled to the number of slots.
#[inline(always)]
pub(super) fn first_slot(hash: u64, slots: u32) -> u32 {
    ((u64::from(hash as u32) * u64::from(slots)) >> 32) as u32
}

impl Geometry {
    /// Reads the header of a block at `offset` of its file and checks that its columns tile the block exactly.
    pub(super) fn parse(bytes: &[u8], offset: u64) -> Result<Geometry> {
        let mut c = Cursor::with_base(bytes, offset);
        let [slot_width, meta_width, key_end_width, value_end_width] = c.array()?;
        let (entries, slots, keys, values, zero, base) =
            (c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u64()?);
        let widths_fit = matches!(slot_width, 2 | 4)
            && matches!(meta_width, 0 | 4 | 8)
            && matches!(key_end_width, 0 | 2 | 4)
            && matches!(value_end_width, 0 | 2 | 4);
        if !widths_fit || zero != 0 {
            return Err(c.malformed("the header of a block holds an unknown width"));
        }
        let short = entries <= SHORT_SLOT_ENTRIES_MAX;
        if entries == 0 || entries > ENTRIES_MAX || slots == 0 || short != (slot_width == 2) {
            return Err(c
                .malformed("a block's counts of entries and slots do not fit")
                .with("entries", entries));
        }
        let fixed_keys = key_end_width == 0;
        let fixed_values = value_end_width == 0;
        let stride = u64::from(meta_width)
            + u64::from(key_end_width)
            + if fixed_values {
                u64::from(values)
            } else {
                u64::from(value_end_width)
            };
        let keys_bytes = if fixed_keys {
            u64::from(keys) * u64::from(entries)
        } else {
            u64::from(keys)
        };
        let values_bytes = if fixed_values { 0 } else { u64::from(values) };
        // Sums of a few products of 32-bit numbers: no overflow in 128 bits, and in 64 only with absurd counts.
        let rows_at = HEADER_BYTES as u128 + u128::from(keys_bytes);
        let values_at = rows_at + u128::from(stride) * u128::from(entries);
        let slots_at = values_at + u128::from(values_bytes);
        let end = slots_at + u128::from(slots) * u128::from(slot_width);
        if end != bytes.len() as u128 || end > u128::from(u32::MAX) {
            return Err(c
                .malformed("a block's columns do not fill it")
                .expected_found(end, bytes.len()));
        }
        Ok(Geometry {
            base,
            entries,
            slots,
            key_width: if fixed_keys { keys } else { 0 },
            value_width: if fixed_values { values } else { 0 },
            // Below `end`, which fits.
            rows_at: rows_at as u32,
            values_at: values_at as u32,
            slots_at: slots_at as u32,
            stride: stride as u32,
            slot_width,
            meta_width,
            key_end_width,
            value_end_width,
            index_bits: index_bits(entries) as u8,
        })
    }

    /// Versions in the block, at least 1.
    #[inline]
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }
}

/// A version decoded from a block: where its bytes lie in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) seqno: Seqno,
    pub(super) kind: EntryKind,
    pub(super) value_start: u32,
    pub(super) value_end: u32,
}

/// A block's bytes with their geometry.
#[derive(Clone, Copy)]
pub(super) struct BlockView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) geometry: &'a Geometry,
}

/// Answer about bytes that may make no sense: `None` = the block is damaged.
pub(super) type Sane<T> = Option<T>;

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
        self.geometry.rows_at as usize + index as usize * self.geometry.stride as usize
    }

    /// Where the key of entry `index` lies.
    #[inline(always)]
    pub(super) fn key_place(&self, index: u32) -> Sane<(u32, u32)> {
        let g = self.geometry;
        let head = HEADER_BYTES as u32;
        if g.key_end_width == 0 {
            let start = head + index.checked_mul(g.key_width)?;
            return Some((start, start + g.key_width));
        }
        let field = usize::from(g.meta_width);
        let end = end_at(self.bytes, self.row_at(index) + field, g.key_end_width)?;
        let start = match index.checked_sub(1) {
            Some(before) => end_at(self.bytes, self.row_at(before) + field, g.key_end_width)?,
            None => 0,
        };
        // An end behind the column would read foreign bytes, a start behind the end none.
        (start <= end && end <= g.rows_at - head).then_some((head + start, head + end))
    }

    /// Key of entry `index`.
    #[inline(always)]
    pub(super) fn key(&self, index: u32) -> Sane<&'a [u8]> {
        let (start, end) = self.key_place(index)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// `seqno << 8 | kind` of entry `index`.
    #[inline(always)]
    fn meta(&self, index: u32) -> Sane<u64> {
        let g = self.geometry;
        let distance = match g.meta_width {
            0 => 0,
            4 => u64::from(u32_at(self.bytes, self.row_at(index))?),
            _ => u64::from_le_bytes(*self.bytes.get(self.row_at(index)..)?.first_chunk()?),
        };
        Some(g.base.wrapping_add(distance))
    }

    /// Seqno, kind and place of the value of entry `index`.
    #[inline(always)]
    pub(super) fn version(&self, index: u32) -> Sane<Version> {
        let g = self.geometry;
        let meta = self.meta(index)?;
        let kind = EntryKind::from_u8(meta as u8)?;
        let row = self.row_at(index);
        let field = usize::from(g.meta_width + g.key_end_width);
        let (value_start, value_end) = if g.value_end_width == 0 {
            let start = (row + field) as u32;
            (start, start + g.value_width)
        } else {
            let end = end_at(self.bytes, row + field, g.value_end_width)?;
            let start = match index.checked_sub(1) {
                Some(before) => end_at(self.bytes, self.row_at(before) + field, g.value_end_width)?,
                None => 0,
            };
            if start > end || end > g.slots_at - g.values_at {
                return None;
            }
            (g.values_at + start, g.values_at + end)
        };
        Some(Version {
            seqno: meta >> 8,
            kind,
            value_start,
            value_end,
        })
    }

    /// Entry `index` as a whole.
    pub(super) fn entry(&self, index: u32) -> Sane<Entry<'a>> {
        let version = self.version(index)?;
        Some(Entry {
            key: self.key(index)?,
            seqno: version.seqno,
            kind: version.kind,
            value: self
                .bytes
                .get(version.value_start as usize..version.value_end as usize)?,
        })
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Sane<u32> {
        let g = self.geometry;
        let at = g.slots_at as usize + slot as usize * usize::from(g.slot_width);
        if g.slot_width == 2 {
            u16_at(self.bytes, at)
        } else {
            u32_at(self.bytes, at)
        }
    }

    /// Newest version of `key`.
    #[inline(always)]
    pub(super) fn find(&self, key: &[u8], hash: u64) -> Sane<Option<u32>> {
        let g = self.geometry;
        let index_bits = u32::from(g.index_bits);
        let wanted = fingerprint(hash, u32::from(g.slot_width) * 8, index_bits);
        let mut at = first_slot(hash, g.slots);
        // Bounded by the slots, should a damaged block have no empty one.
        for _ in 0..g.slots {
            let slot = self.slot(at)?;
            if slot == 0 {
                return Some(None);
            }
            if slot >> index_bits == wanted {
                let index = slot & ((1 << index_bits) - 1);
                if index >= g.entries {
                    return None;
                }
                if key::equal(self.key(index)?, key) {
                    return Some(Some(index));
                }
            }
            at += 1;
            if at == g.slots {
                at = 0;
            }
        }
        Some(None)
    }

    /// The next older version of the same key.
    #[inline(always)]
    pub(super) fn older(&self, index: u32, key: &[u8]) -> Sane<Option<u32>> {
        let next = index + 1;
        if next < self.geometry.entries && key::equal(self.key(next)?, key) {
            Some(Some(next))
        } else {
            Some(None)
        }
    }

    /// Newest version of `key` with a seqno of at most `seqno_max`, and its index.
    #[inline(always)]
    pub(super) fn find_visible(
        &self,
        key: &[u8],
        hash: u64,
        seqno_max: Seqno,
    ) -> Sane<Option<(u32, Version)>> {
        let mut found = self.find(key, hash)?;
        while let Some(index) = found {
            let version = self.version(index)?;
            if version.seqno <= seqno_max {
                return Some(Some((index, version)));
            }
            found = self.older(index, key)?;
        }
        Some(None)
    }

    /// Index of the first entry whose key is not before `key`; the number of entries if there is none.
    pub(super) fn lower_bound(&self, key: &[u8]) -> Sane<u32> {
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
}

impl Block {
    /// Takes decoded bytes of the block at `offset` of its file.
    pub(super) fn new(bytes: Vec<u8>, offset: u64) -> Result<Block> {
        let geometry = Geometry::parse(&bytes, offset)?;
        Ok(Block { bytes, geometry })
    }

    pub(super) fn view(&self) -> BlockView<'_> {
        BlockView {
            bytes: &self.bytes,
            geometry: &self.geometry,
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<Block>()
    }
}
