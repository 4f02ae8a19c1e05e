//! One record of a memtable: a version of a key, in memory only.
//!
//! ```text
//! 0   seqno << 8 | kind   u64
//! 8   value bytes         u32
//! 12  capacity            u32   bytes the value may grow to in place
//! 16  prev                u32   place of an older record of the key, 0 = none
//! 20  key bytes           u16
//! 22  flags               u8    1 = not the newest record of its key (covered)
//!                               2 = replaces what `prev` leads to, which only cursors may still see; without it
//!                                   `prev` leads to the older operand that this one stands on
//! 23  depth               u8    operands behind this one in its merge chain
//! 24  key, then the value, then unused capacity; rounded up to 8
//! ```

use crate::{
    arena::{Arena, Place, UNIT},
    key::{Entry, EntryKind, Seqno, common_prefix_bytes},
};

pub(super) const HEADER_BYTES: usize = 24;
const VALUE_BYTES_AT: usize = 8;
const CAPACITY_AT: usize = 12;
const PREV_AT: usize = 16;
const KEY_BYTES_AT: usize = 20;
const FLAGS_AT: usize = 22;
const COVERED: u8 = 1;
const REPLACES: u8 = 2;
const DEPTH_AT: usize = 23;

/// A record, borrowed from its arena.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(&'a [u8]);

/// What a new record holds besides key and value.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) seqno: Seqno,
    pub(super) kind: EntryKind,
    pub(super) prev: Place,
    /// `prev` is an older version, not an operand to stand on.
    pub(super) replaces: bool,
    pub(super) depth: u8,
    /// Unused bytes behind the value.
    pub(super) slack: usize,
}

#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline(always)]
fn stamp(seqno: Seqno, kind: EntryKind) -> u64 {
    (seqno << 8) | kind as u64
}

impl<'a> Record<'a> {
    #[inline(always)]
    pub(super) fn at(arena: &'a Arena, place: Place) -> Self {
        Record(arena.at(place))
    }

    /// The record at the start of `bytes`.
    #[inline(always)]
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Record(bytes)
    }

    #[inline(always)]
    fn header(self) -> &'a [u8; HEADER_BYTES] {
        self.0.first_chunk().expect("a record has a header")
    }

    #[inline(always)]
    fn stamp(self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.header()[..8]);
        u64::from_le_bytes(word)
    }

    #[inline(always)]
    pub(super) fn seqno(self) -> Seqno {
        self.stamp() >> 8
    }

    #[inline(always)]
    pub(super) fn kind(self) -> EntryKind {
        match self.header()[0] {
            0 => EntryKind::Put,
            1 => EntryKind::Delete,
            2 => EntryKind::Merge,
            3 => EntryKind::PutStamped,
            _ => EntryKind::MergeStamped,
        }
    }

    #[inline(always)]
    fn key_bytes(self) -> usize {
        let header = self.header();
        usize::from(u16::from_le_bytes([
            header[KEY_BYTES_AT],
            header[KEY_BYTES_AT + 1],
        ]))
    }

    #[inline(always)]
    pub(super) fn key(self) -> &'a [u8] {
        &self.0[HEADER_BYTES..HEADER_BYTES + self.key_bytes()]
    }

    #[inline(always)]
    pub(super) fn value(self) -> &'a [u8] {
        let start = HEADER_BYTES + self.key_bytes();
        &self.0[start..start + u32_at(self.header(), VALUE_BYTES_AT) as usize]
    }

    /// The older record of the key, whatever it is to this one.
    #[inline(always)]
    pub(super) fn prev(self) -> Place {
        u32_at(self.header(), PREV_AT)
    }

    /// The older operand that this one stands on.
    #[inline(always)]
    pub(super) fn operand_behind(self) -> Place {
        if self.header()[FLAGS_AT] & REPLACES == 0 {
            self.prev()
        } else {
            0
        }
    }

    #[inline(always)]
    pub(super) fn capacity(self) -> usize {
        u32_at(self.header(), CAPACITY_AT) as usize
    }

    pub(super) fn is_covered(self) -> bool {
        self.header()[FLAGS_AT] & COVERED != 0
    }

    pub(super) fn depth(self) -> u8 {
        self.header()[DEPTH_AT]
    }

    /// Bytes of the whole record before rounding.
    pub(super) fn bytes(self) -> usize {
        HEADER_BYTES + self.key_bytes() + self.capacity()
    }

    #[inline]
    pub(super) fn entry(self) -> Entry<'a> {
        Entry {
            key: self.key(),
            seqno: self.seqno(),
            kind: self.kind(),
            value: self.value(),
        }
    }
}

/// Appends a record.
#[inline]
pub(super) fn push(arena: &mut Arena, key: &[u8], value: &[u8], head: Head) -> Place {
    let used = HEADER_BYTES + key.len() + value.len() + head.slack;
    let capacity = value.len() + head.slack + (used.next_multiple_of(UNIT) - used);
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&stamp(head.seqno, head.kind).to_le_bytes());
    header[VALUE_BYTES_AT..][..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
    header[CAPACITY_AT..][..4].copy_from_slice(&(capacity as u32).to_le_bytes());
    header[PREV_AT..][..4].copy_from_slice(&head.prev.to_le_bytes());
    header[KEY_BYTES_AT..][..2].copy_from_slice(&(key.len() as u16).to_le_bytes());
    header[FLAGS_AT] = if head.replaces { REPLACES } else { 0 };
    header[DEPTH_AT] = head.depth;
    arena.push(&header, key, value, head.slack)
}

/// Adds a record that separates the key at `last` from that at `first`, the next one: the least beginning of the latter
/// that the former does not have. It is no version of a key.
pub(super) fn separator(arena: &mut Arena, last: Place, first: Place) -> Place {
    let (last, key) = (Record::at(arena, last).key(), Record::at(arena, first).key());
    let key = key[..key.len().min(common_prefix_bytes(last, key) + 1)].to_vec();
    let head = Head {
        seqno: 0,
        kind: EntryKind::Delete,
        prev: 0,
        replaces: false,
        depth: 0,
        slack: 0,
    };
    let place = push(arena, &key, &[], head);
    cover(arena, place);
    place
}

/// Gives the bytes of a record that nothing names any more to the records to come.
pub(super) fn free(arena: &mut Arena, place: Place) {
    cover(arena, place);
    arena.give(place, Record::at(arena, place).bytes());
}

/// Replaces stamp and value in place. The caller checked the capacity.
#[inline]
pub(super) fn overwrite(arena: &mut Arena, place: Place, seqno: Seqno, kind: EntryKind, value: &[u8]) {
    let bytes = arena.at_mut(place);
    let start =
        HEADER_BYTES + usize::from(u16::from_le_bytes([bytes[KEY_BYTES_AT], bytes[KEY_BYTES_AT + 1]]));
    bytes[..8].copy_from_slice(&stamp(seqno, kind).to_le_bytes());
    bytes[VALUE_BYTES_AT..][..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
    bytes[start..start + value.len()].copy_from_slice(value);
}

/// Restamps the record and adds `more` behind its value. The caller checked the capacity.
pub(super) fn extend(arena: &mut Arena, place: Place, seqno: Seqno, more: &[u8]) {
    let (key_bytes, value_bytes, kind) = {
        let record = Record::at(arena, place);
        (record.key_bytes(), record.value().len(), record.kind())
    };
    let bytes = arena.at_mut(place);
    bytes[..8].copy_from_slice(&stamp(seqno, kind).to_le_bytes());
    bytes[VALUE_BYTES_AT..][..4].copy_from_slice(&((value_bytes + more.len()) as u32).to_le_bytes());
    let start = HEADER_BYTES + key_bytes + value_bytes;
    bytes[start..start + more.len()].copy_from_slice(more);
}

/// The value, to be changed in place.
#[inline]
pub(super) fn value_mut(arena: &mut Arena, place: Place, seqno: Seqno) -> &mut [u8] {
    let bytes = arena.at_mut(place);
    let start =
        HEADER_BYTES + usize::from(u16::from_le_bytes([bytes[KEY_BYTES_AT], bytes[KEY_BYTES_AT + 1]]));
    let value_bytes = u32_at(bytes, VALUE_BYTES_AT) as usize;
    let kind = u64::from(bytes[0]);
    bytes[..8].copy_from_slice(&((seqno << 8) | kind).to_le_bytes());
    &mut bytes[start..start + value_bytes]
}

/// Marks a record that is no longer the newest of its key.
pub(super) fn cover(arena: &mut Arena, place: Place) {
    arena.at_mut(place)[FLAGS_AT] |= COVERED;
}

/// Makes a record stand on nothing: what is behind it is what it replaces.
pub(super) fn cut_chain(arena: &mut Arena, place: Place) {
    let bytes = arena.at_mut(place);
    bytes[FLAGS_AT] |= REPLACES;
    bytes[DEPTH_AT] = 0;
}
