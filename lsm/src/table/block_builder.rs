//! Collects the entries of one block and lays them out; the layout is drawn in `block`.
//!
//! The encoding is canonical: equal entries give equal bytes, so a block is checked by building it again.

use super::block::{
    BlockView, ENTRIES_MAX, Geometry, HEADER_BYTES, SHORT_SLOT_ENTRIES_MAX, fingerprint, first_slot,
    index_bits,
};
use crate::key::{self, Entry};
use keybed_format::{Code, Error, Result, Sink};

/// Largest block before compression, 1 GiB: all versions of one key must fit.
pub(super) const BLOCK_BYTES_MAX: u64 = 1 << 30;

/// Entries of the block being built, in order.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: Vec<Pending>,
    /// Hash and first entry of each distinct key.
    heads: Vec<(u64, u32)>,
    keys_vary: bool,
    values_vary: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    meta: u64,
    key_end: u32,
    value_end: u32,
}

fn end_width(varies: bool, bytes: usize) -> usize {
    match varies {
        false => 0,
        true if bytes <= usize::from(u16::MAX) => 2,
        true => 4,
    }
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn last_key(&self) -> &[u8] {
        let start = match self.entries.len().checked_sub(2) {
            Some(before) => self.entries[before].key_end as usize,
            None => 0,
        };
        &self.keys[start..]
    }

    /// Bytes of the block if it ended with one more entry of this size, for a new key.
    pub(super) fn bytes_with(&self, key_bytes: usize, value_bytes: usize) -> usize {
        let keys_vary = self.keys_vary || self.width_changes(self.last_key().len(), key_bytes);
        let values_vary = self.values_vary || self.width_changes(self.last_value_bytes(), value_bytes);
        let (keys, values) = (self.keys.len() + key_bytes, self.values.len() + value_bytes);
        let row = 4 + end_width(keys_vary, keys) + end_width(values_vary, values);
        let entries = self.entries.len() + 1;
        let slot = if entries > SHORT_SLOT_ENTRIES_MAX as usize {
            4
        } else {
            2
        };
        HEADER_BYTES + keys + values + entries * row + slots_for(self.heads.len() + 1) * slot
    }

    fn width_changes(&self, last: usize, next: usize) -> bool {
        !self.entries.is_empty() && last != next
    }

    fn last_value_bytes(&self) -> usize {
        let before = self
            .entries
            .len()
            .checked_sub(2)
            .map_or(0, |i| self.entries[i].value_end as usize);
        self.values.len() - before
    }

    /// Adds an entry behind the last one. `new_key` says whether its key differs from the last one's; `hash` is
    /// the hash of the key.
    ///
    /// # Errors
    /// `ValueTooLarge` if the versions of one key exceed what a block can hold.
    pub(super) fn add(&mut self, entry: Entry<'_>, hash: u64, new_key: bool) -> Result {
        let bytes = self.bytes_with(entry.key.len(), entry.value.len()) as u64;
        if self.entries.len() as u64 >= u64::from(ENTRIES_MAX) || bytes > BLOCK_BYTES_MAX {
            return Err(
                Error::new(Code::ValueTooLarge, "the versions of one key exceed a block")
                    .expected_found(format_args!("at most {BLOCK_BYTES_MAX}"), bytes),
            );
        }
        self.keys_vary |= self.width_changes(self.last_key().len(), entry.key.len());
        self.values_vary |= self.width_changes(self.last_value_bytes(), entry.value.len());
        if new_key {
            self.heads.push((hash, self.entries.len() as u32));
        }
        self.keys.extend_from_slice(entry.key);
        self.values.extend_from_slice(entry.value);
        self.entries.push(Pending {
            meta: entry.seqno << 8 | entry.kind as u64,
            key_end: self.keys.len() as u32,
            value_end: self.values.len() as u32,
        });
        Ok(())
    }

    /// Appends the block to `out` and starts an empty one. There must be at least one entry.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let slots = self.slots();
        let slot_width: usize = if self.entries.len() > SHORT_SLOT_ENTRIES_MAX as usize {
            4
        } else {
            2
        };
        let (base, meta_width) = self.meta_encoding();
        let key_end_width = end_width(self.keys_vary, self.keys.len());
        let value_end_width = end_width(self.values_vary, self.values.len());
        let first = self.entries[0];
        let keys = if self.keys_vary {
            self.keys.len() as u32
        } else {
            first.key_end
        };
        let values = if self.values_vary {
            self.values.len() as u32
        } else {
            first.value_end
        };
        let widths = [slot_width, meta_width, key_end_width, value_end_width].map(|w| w as u8);
        let mut head = Sink::with_capacity(HEADER_BYTES);
        head.raw(&widths)
            .u32(self.entries.len() as u32)
            .u32(slots.len() as u32);
        head.u32(keys).u32(values).u32(0).u64(base);
        out.extend_from_slice(head.as_slice());
        out.extend_from_slice(&self.keys);
        let mut value_start = 0;
        for entry in &self.entries {
            out.extend_from_slice(&(entry.meta - base).to_le_bytes()[..meta_width]);
            out.extend_from_slice(&entry.key_end.to_le_bytes()[..key_end_width]);
            if self.values_vary {
                out.extend_from_slice(&entry.value_end.to_le_bytes()[..value_end_width]);
            } else {
                out.extend_from_slice(&self.values[value_start..entry.value_end as usize]);
                value_start = entry.value_end as usize;
            }
        }
        if self.values_vary {
            out.extend_from_slice(&self.values);
        }
        for slot in &slots {
            out.extend_from_slice(&slot.to_le_bytes()[..slot_width]);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.entries.clear();
        self.heads.clear();
        (self.keys_vary, self.values_vary) = (false, false);
    }

    /// Base and width of the narrowest encoding of all metas.
    fn meta_encoding(&self) -> (u64, usize) {
        let metas = || self.entries.iter().map(|e| e.meta);
        let (min, max) = (metas().min().unwrap_or(0), metas().max().unwrap_or(0));
        if min == max {
            return (min, 0);
        }
        // The kind stays legible in the low byte.
        let base = min & !0xff;
        if max - base <= u64::from(u32::MAX) {
            (base, 4)
        } else {
            (0, 8)
        }
    }

    fn slots(&self) -> Vec<u32> {
        let count = slots_for(self.heads.len()) as u32;
        let entries = self.entries.len() as u32;
        let bits = index_bits(entries);
        let slot_bits = if entries > SHORT_SLOT_ENTRIES_MAX { 32 } else { 16 };
        let mut slots = vec![0_u32; count as usize];
        for &(hash, index) in &self.heads {
            let mut at = first_slot(hash, count) as usize;
            while slots[at] != 0 {
                at = (at + 1) % slots.len();
            }
            slots[at] = fingerprint(hash, slot_bits, bits) << bits | index;
        }
        slots
    }
}

/// Slots for `keys` distinct keys: three quarters full, never completely.
fn slots_for(keys: usize) -> usize {
    keys * 4 / 3 + 1
}

/// Checks a block completely: its entries are in order and build exactly these bytes.
///
/// # Errors
/// `Malformed` with the offset, `offset` being that of the block in its file.
pub(super) fn check(bytes: &[u8], offset: u64) -> Result {
    let damaged = |message: &str| Error::new(Code::Malformed, message).at(offset);
    let geometry = Geometry::parse(bytes, offset)?;
    let view = BlockView {
        bytes,
        geometry: &geometry,
    };
    let mut builder = BlockBuilder::default();
    let mut last: Option<Entry<'_>> = None;
    for index in 0..geometry.entries() {
        let entry = view
            .entry(index)
            .ok_or_else(|| damaged("an entry of a block makes no sense"))?;
        if last.is_some_and(|last| last.order(&entry).is_ge()) {
            return Err(damaged("the entries of a block are not in order").with("entry", index));
        }
        key::check_sizes(entry.key, entry.value).map_err(|_| damaged("an entry of a block is too large"))?;
        let new_key = last.is_none_or(|last| last.key != entry.key);
        builder
            .add(entry, key::hash(entry.key), new_key)
            .map_err(|_| damaged("a block is too large"))?;
        last = Some(entry);
    }
    let mut again = Vec::with_capacity(bytes.len());
    builder.finish(&mut again);
    if again == bytes {
        Ok(())
    } else {
        let at = key::common_prefix_bytes(&again, bytes) as u64;
        Err(damaged("the columns of a block contradict each other").with("at", at))
    }
}
