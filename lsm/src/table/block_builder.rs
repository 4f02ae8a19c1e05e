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
pub(crate) const BLOCK_BYTES_MAX: u64 = 1 << 30;

/// Entries of the block being built, in order.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Keys and values, entry by entry, as in the heap.
    bytes: Vec<u8>,
    key_bytes: usize,
    entries: Vec<Pending>,
    /// Hash and first entry of each distinct key.
    heads: Vec<(u64, u32)>,
    keys_vary: bool,
    values_vary: bool,
    /// Bytes of the last key and the last value; 0 where there is none.
    last_widths: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    meta: u64,
    /// Where its parts end in `bytes`.
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
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the block if it ended with one more entry of this size, for a new key.
    pub(crate) fn bytes_with(&self, key_bytes: usize, value_bytes: usize) -> usize {
        let (last_key, last_value) = self.last_widths;
        let keys_vary = self.keys_vary || self.width_changes(last_key, key_bytes);
        let values_vary = self.values_vary || self.width_changes(last_value, value_bytes);
        let bytes = self.bytes.len() + key_bytes + value_bytes;
        let row = 4 + end_width(keys_vary, bytes) + end_width(values_vary, bytes);
        let entries = self.entries.len() + 1;
        let slot = if entries > SHORT_SLOT_ENTRIES_MAX as usize {
            4
        } else {
            2
        };
        HEADER_BYTES + bytes + entries * row + slots_for(self.heads.len() + 1) * slot
    }

    fn width_changes(&self, last: usize, next: usize) -> bool {
        !self.entries.is_empty() && last != next
    }

    /// Adds an entry behind the last one. `new_key` says whether its key differs from the last one's; `hash` is
    /// the hash of the key.
    ///
    /// # Errors
    /// `ValueTooLarge` if the versions of one key exceed what a block can hold.
    pub(crate) fn add(&mut self, entry: Entry<'_>, hash: u64, new_key: bool) -> Result {
        // A row, its slots and the header take less than 32 bytes per entry.
        let bytes =
            (self.bytes.len() + entry.key.len() + entry.value.len() + (self.entries.len() + 2) * 32) as u64;
        if self.entries.len() as u64 >= u64::from(ENTRIES_MAX) || bytes > BLOCK_BYTES_MAX {
            return Err(
                Error::new(Code::ValueTooLarge, "the versions of one key exceed a block")
                    .expected_found(format_args!("at most {BLOCK_BYTES_MAX}"), bytes),
            );
        }
        let (last_key, last_value) = self.last_widths;
        self.keys_vary |= self.width_changes(last_key, entry.key.len());
        self.values_vary |= self.width_changes(last_value, entry.value.len());
        self.last_widths = (entry.key.len(), entry.value.len());
        if new_key {
            self.heads.push((hash, self.entries.len() as u32));
        }
        self.bytes.extend_from_slice(entry.key);
        let key_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(entry.value);
        self.key_bytes += entry.key.len();
        let value_end = self.bytes.len() as u32;
        self.entries.push(Pending {
            meta: entry.seqno << 8 | entry.kind as u64,
            key_end,
            value_end,
        });
        Ok(())
    }

    /// Appends the block to `out` and starts an empty one. There must be at least one entry.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let slots = self.slots();
        let slot_width: usize = if self.entries.len() > SHORT_SLOT_ENTRIES_MAX as usize {
            4
        } else {
            2
        };
        let (base, meta_width) = self.meta_encoding();
        let value_bytes = self.bytes.len() - self.key_bytes;
        let heap_bytes =
            if self.keys_vary { self.key_bytes } else { 0 } + if self.values_vary { value_bytes } else { 0 };
        let key_end_width = end_width(self.keys_vary, heap_bytes);
        let value_end_width = end_width(self.values_vary, heap_bytes);
        let (last_key, last_value) = self.last_widths;
        let widths = [slot_width, meta_width, key_end_width, value_end_width].map(|w| w as u8);
        let mut head = Sink::with_capacity(HEADER_BYTES);
        head.raw(&widths)
            .u32(self.entries.len() as u32)
            .u32(slots.len() as u32);
        head.u32(if self.keys_vary { 0 } else { last_key as u32 });
        head.u32(if self.values_vary { 0 } else { last_value as u32 });
        head.u32(heap_bytes as u32).u64(base);
        out.extend_from_slice(head.as_slice());
        let (mut start, mut heap_end) = (0, 0);
        for entry in &self.entries {
            let (key_end, value_end) = (entry.key_end as usize, entry.value_end as usize);
            let meta = entry.meta - base;
            if self.keys_vary {
                heap_end += key_end - start;
                push_number(out, meta, meta_width);
                push_number(out, heap_end as u64, key_end_width);
            } else {
                out.extend_from_slice(&self.bytes[start..key_end]);
                push_number(out, meta, meta_width);
            }
            if self.values_vary {
                heap_end += value_end - key_end;
                push_number(out, heap_end as u64, value_end_width);
            } else {
                out.extend_from_slice(&self.bytes[key_end..value_end]);
            }
            start = value_end;
        }
        self.push_heap(out);
        for slot in &slots {
            push_number(out, u64::from(*slot), slot_width);
        }
        self.clear();
    }

    /// Appends the keys and values that vary, entry by entry.
    fn push_heap(&self, out: &mut Vec<u8>) {
        if self.keys_vary && self.values_vary {
            out.extend_from_slice(&self.bytes);
            return;
        }
        if !self.keys_vary && !self.values_vary {
            return;
        }
        let mut start = 0;
        for entry in &self.entries {
            let (key_end, value_end) = (entry.key_end as usize, entry.value_end as usize);
            let varies = if self.keys_vary {
                start..key_end
            } else {
                key_end..value_end
            };
            out.extend_from_slice(&self.bytes[varies]);
            start = value_end;
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.key_bytes = 0;
        self.entries.clear();
        self.heads.clear();
        (self.keys_vary, self.values_vary) = (false, false);
        self.last_widths = (0, 0);
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
                at += 1;
                if at == slots.len() {
                    at = 0;
                }
            }
            slots[at] = fingerprint(hash, slot_bits, bits) << bits | index;
        }
        slots
    }
}

/// Appends the low `width` bytes. A copy of constant length, cut, is cheaper than one of varying length.
#[inline(always)]
fn push_number(out: &mut Vec<u8>, number: u64, width: usize) {
    let end = out.len() + width;
    out.extend_from_slice(&number.to_le_bytes());
    out.truncate(end);
}

/// Slots for `keys` distinct keys: three quarters full, never completely.
fn slots_for(keys: usize) -> usize {
    keys * 4 / 3 + 1
}

/// Checks a block completely: its entries are in order and build exactly these bytes.
///
/// # Errors
/// `Malformed` with the offset, `offset` being that of the block in its file.
pub(crate) fn check(bytes: &[u8], offset: u64) -> Result {
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
        Err(damaged("the parts of a block contradict each other").with("at", at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::EntryKind;

    fn block(entries: u32, key: impl Fn(u32) -> Vec<u8>, value: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for i in 0..entries {
            let (key, value) = (key(i), value(i));
            let entry = Entry {
                key: &key,
                seqno: 9,
                kind: EntryKind::Put,
                value: &value,
            };
            builder.add(entry, key::hash(&key), true).unwrap();
        }
        let mut raw = Vec::new();
        builder.finish(&mut raw);
        raw
    }

    fn every_key_is_found(raw: &[u8], entries: u32, key: impl Fn(u32) -> Vec<u8>) {
        check(raw, 0).unwrap();
        let geometry = Geometry::parse(raw, 0).unwrap();
        let view = BlockView {
            bytes: raw,
            geometry: &geometry,
        };
        for i in 0..entries {
            let key = key(i);
            let found = view.find_visible(&key, key::hash(&key), 9).unwrap();
            assert_eq!(found.map(|(at, _)| at), Some(i), "{entries} entries");
            assert_eq!(view.find_visible(&key, key::hash(&key), 8), Some(None));
            assert_eq!(view.lower_bound(&key), Some(i));
        }
    }

    #[test]
    fn slots_change_their_width_without_losing_a_key() {
        let fixed = |i: u32| i.to_be_bytes().to_vec();
        let varying = |i: u32| format!("{i:05}{}", "x".repeat(i as usize % 4)).into_bytes();
        for entries in [
            1, 2, 255, 256, 257, 511, 512, 513, 1_024, 1_025, 2_047, 2_048, 2_049, 3_001, 5_000,
        ] {
            every_key_is_found(&block(entries, fixed, |_| vec![1]), entries, fixed);
            every_key_is_found(
                &block(entries, varying, |i| vec![0; (i % 5) as usize]),
                entries,
                varying,
            );
        }
    }

    #[test]
    fn the_estimate_is_no_less_than_the_block_when_seqnos_are_near() {
        for width in [0, 1, 9] {
            let mut builder = BlockBuilder::default();
            let mut estimate = 0;
            for i in 0..600_u64 {
                let key = i.to_be_bytes();
                let value = vec![1; if width == 9 { (i % 9) as usize } else { width }];
                estimate = builder.bytes_with(8, value.len());
                let entry = Entry {
                    key: &key,
                    seqno: 1_000 + i,
                    kind: EntryKind::Put,
                    value: &value,
                };
                builder.add(entry, key::hash(&key), true).unwrap();
            }
            let mut raw = Vec::new();
            builder.finish(&mut raw);
            assert_eq!(estimate, raw.len(), "width {width}");
        }
    }
}
