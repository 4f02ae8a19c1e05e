//! Keys, versions and ranges: the words every part of the engine shares.
//!
//! An *entry* is one version of one key. Entries are ordered by key ascending (as bytes), then by seqno descending,
//! so the newest version of a key comes first.

use keybed_format::{Code, Error, Result, checksum, hex};
use std::{cmp::Ordering, fmt, str::FromStr};

/// Names the bytes of a table: random, never reused, equal to the content id of the file's trailer. Every copy of
/// the file keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u128);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableId({self})")
    }
}

impl FromStr for TableId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        hex::decode(text).map(TableId)
    }
}

/// Position of a write in the order of its store; larger is newer, below 2^56.
pub type Seqno = u64;

/// Largest seqno; as a bound it means "see everything".
pub const SEQNO_MAX: Seqno = (1 << 56) - 1;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Longest value in bytes, 64 MiB.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// What a version does to its key. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The key has this value.
    Put = 0,
    /// The key is gone; the value is empty.
    Delete = 1,
    /// The value is an operand for the merge operator, to be applied to the older versions.
    Merge = 2,
    /// As `Put`; before the value stands when it was touched last ([`expiry`](crate::expiry)).
    PutStamped = 3,
    /// As `Merge`; before the operand stands when it was touched last and first ([`expiry`](crate::expiry)).
    MergeStamped = 4,
}

impl EntryKind {
    /// The kind of a number on disk.
    #[inline]
    pub fn from_u8(kind: u8) -> Option<EntryKind> {
        match kind {
            0 => Some(EntryKind::Put),
            1 => Some(EntryKind::Delete),
            2 => Some(EntryKind::Merge),
            3 => Some(EntryKind::PutStamped),
            4 => Some(EntryKind::MergeStamped),
            _ => None,
        }
    }

    /// Whether it is an operand, stamped or not.
    #[inline]
    pub fn is_merge(self) -> bool {
        matches!(self, EntryKind::Merge | EntryKind::MergeStamped)
    }

    /// Bytes of stamps before the value.
    #[inline]
    pub fn stamp_bytes(self) -> usize {
        match self {
            EntryKind::Put | EntryKind::Delete | EntryKind::Merge => 0,
            EntryKind::PutStamped => 8,
            EntryKind::MergeStamped => 16,
        }
    }
}

/// One version of one key, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// When it was written.
    pub seqno: Seqno,
    /// What it does.
    pub kind: EntryKind,
    /// The value or operand, behind its stamps if the kind has any; empty for a delete.
    pub value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// When the key was touched by this version, in milliseconds since 1970; `None` if it does not say. The value must
    /// have the stamps of its kind, as that of every version in a store or table has.
    pub fn touched(&self) -> Option<u64> {
        let stamped = self.value.get(..self.kind.stamp_bytes().min(8))?;
        stamped.try_into().ok().map(u64::from_le_bytes)
    }

    /// The value or operand without stamps.
    pub fn bare_value(&self) -> &'a [u8] {
        self.value.get(self.kind.stamp_bytes()..).unwrap_or_default()
    }
}

impl Entry<'_> {
    /// Order of entries in memtables, tables and merges: key ascending, then seqno descending.
    #[inline]
    pub fn order(&self, other: &Entry<'_>) -> Ordering {
        self.key.cmp(other.key).then(other.seqno.cmp(&self.seqno))
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {:?} ", self.key.escape_ascii(), self.seqno, self.kind)?;
        match self.value.get(..32) {
            Some(start) if self.value.len() > 32 => {
                write!(f, "{}… ({} bytes)", start.escape_ascii(), self.value.len())
            }
            _ => write!(f, "{}", self.value.escape_ascii()),
        }
    }
}

/// A range of keys: start inclusive, end exclusive, no end = to the last key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// First key inside.
    pub start: Vec<u8>,
    /// First key behind it; `None` = unbounded.
    pub end: Option<Vec<u8>>,
}

impl Default for KeyRange {
    fn default() -> Self {
        KeyRange::all()
    }
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        KeyRange {
            start: Vec::new(),
            end: None,
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        KeyRange {
            start: prefix.to_vec(),
            end: prefix_end(prefix),
        }
    }

    /// Whether every key is inside.
    #[inline]
    pub fn is_all(&self) -> bool {
        self.start.is_empty() && self.end.is_none()
    }

    /// Whether no key is inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is inside.
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && !self.ends_before(key)
    }

    /// Whether `key` lies at or behind the end.
    #[inline]
    pub fn ends_before(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| key >= end.as_slice())
    }

    /// What is inside of both; possibly empty.
    #[must_use]
    pub fn clip(&self, other: &KeyRange) -> KeyRange {
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one.as_ref(),
        };
        KeyRange {
            start: self.start.as_slice().max(&other.start).to_vec(),
            end: end.cloned(),
        }
    }

    /// Whether some key is inside of both.
    pub fn intersects(&self, other: &KeyRange) -> bool {
        let below =
            |start: &[u8], end: &Option<Vec<u8>>| end.as_ref().is_none_or(|end| start < end.as_slice());
        !self.is_empty()
            && !other.is_empty()
            && below(&self.start, &other.end)
            && below(&other.start, &self.end)
    }

    /// Whether some key of `first..=last` is inside.
    pub fn touches(&self, first: &[u8], last: &[u8]) -> bool {
        !self.is_empty() && last >= self.start.as_slice() && !self.ends_before(first)
    }
}

/// The first key behind all keys that begin with `prefix`; `None` if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// The first key behind `key`: the key and a zero byte.
pub fn behind(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The one hash of a key: xxh3-64 with seed 0, shared by memtable, filter and block.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    checksum::hash(key)
}

/// Refuses keys and values above the limits.
///
/// # Errors
/// `KeyTooLarge`, `ValueTooLarge`.
#[inline]
pub fn check_sizes(key: &[u8], value: &[u8]) -> Result {
    if key.len() > KEY_BYTES_MAX {
        return Err(
            Error::new(Code::KeyTooLarge, "a key is too long").expected_found(KEY_BYTES_MAX, key.len())
        );
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::new(Code::ValueTooLarge, "a value is too long")
            .expected_found(VALUE_BYTES_MAX, value.len()));
    }
    Ok(())
}

/// Whether two keys are equal, compared in words of eight bytes inside the caller's loop: a call of the C library
/// per comparison costs several times as much for the short keys of state. Keys of a table share their beginnings,
/// so the last word is compared first.
#[inline(always)]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(x), Some(y)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return short_equal(a, b);
    };
    if u64::from_ne_bytes(*x) != u64::from_ne_bytes(*y) {
        return false;
    }
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    a_words
        .iter()
        .zip(b_words)
        .all(|(x, y)| u64::from_ne_bytes(*x) == u64::from_ne_bytes(*y))
}

/// Equality of fewer than eight bytes, both of one length.
#[inline(always)]
fn short_equal(a: &[u8], b: &[u8]) -> bool {
    if let (Some(a1), Some(b1), Some(a2), Some(b2)) = (
        a.first_chunk::<4>(),
        b.first_chunk::<4>(),
        a.last_chunk::<4>(),
        b.last_chunk::<4>(),
    ) {
        return u32::from_ne_bytes(*a1) == u32::from_ne_bytes(*b1)
            && u32::from_ne_bytes(*a2) == u32::from_ne_bytes(*b2);
    }
    a.iter().zip(b).all(|(x, y)| x == y)
}

/// Whether `a` lies before `b`, compared in words of eight bytes like [`equal`].
#[inline]
pub fn less(a: &[u8], b: &[u8]) -> bool {
    compare(a, b).is_lt()
}

/// The order of two keys, compared in words of eight bytes like [`equal`].
#[inline]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for (x, y) in a_words.iter().zip(b_words) {
        if x != y {
            return u64::from_be_bytes(*x).cmp(&u64::from_be_bytes(*y));
        }
    }
    let words = a_words.len().min(b_words.len()) * 8;
    // Equal padded words: one key is the other followed by zeros, so the shorter one comes first.
    (word_at(a, words).cmp(&word_at(b, words))).then(a.len().cmp(&b.len()))
}

/// Eight bytes from `at` on, at most the length, as a number that orders like the bytes; padded with zeros.
#[inline(always)]
fn word_at(key: &[u8], at: usize) -> u64 {
    match (key.len() - at, key.last_chunk::<8>()) {
        (0, _) => 0,
        // The end of the key, moved to the front of the word: no loop over single bytes.
        (rest @ 1..8, Some(last)) => u64::from_be_bytes(*last) << (64 - 8 * rest),
        _ => order_prefix(&key[at..]),
    }
}

/// The first eight bytes as a number that orders like the bytes; shorter keys are padded with zeros, so equal
/// numbers say nothing about the order of the keys.
#[inline]
pub fn order_prefix(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    u64::from_be_bytes(padded)
}

/// Length of the longest common prefix.
pub fn common_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: &[u8], end: Option<&[u8]>) -> KeyRange {
        KeyRange {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
        assert!(
            KeyRange::prefix(b"a\xff").contains(b"a\xff\xff") && !KeyRange::prefix(b"a\xff").contains(b"b")
        );
    }

    #[test]
    fn a_long_value_is_shortened_in_traces() {
        let entry = Entry {
            key: b"k\0",
            seqno: 7,
            kind: EntryKind::Put,
            value: &[b'v'; 40],
        };
        assert!(format!("{entry:?}").ends_with("… (40 bytes)"));
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0_u8..3, 0..5)
    }

    fn ranges() -> impl Strategy<Value = KeyRange> {
        (bytes(), prop::option::of(bytes())).prop_map(|(start, end)| KeyRange { start, end })
    }

    proptest! {
        #[test]
        fn equality_is_that_of_slices(a in prop::collection::vec(0_u8..2, 0..40), b in prop::collection::vec(0_u8..2, 0..40), at: usize) {
            prop_assert_eq!(equal(&a, &b), a == b);
            prop_assert_eq!(less(&a, &b), a < b);
            prop_assert_eq!(compare(&a, &b), a.cmp(&b));
            prop_assert!(behind(&a) > a && (b <= a || behind(&a) <= b));
            prop_assert!(equal(&a, &a.clone()));
            let mut other = a.clone();
            if !other.is_empty() {
                let at = at % other.len();
                other[at] ^= 0x80;
                prop_assert!(!equal(&a, &other));
            }
        }

        #[test]
        fn the_order_prefix_never_contradicts_the_order(a in bytes(), b in bytes()) {
            if order_prefix(&a) < order_prefix(&b) {
                prop_assert!(a < b);
            }
        }

        #[test]
        fn ranges_agree_with_their_keys(a in ranges(), b in ranges(), key in bytes(), last in bytes()) {
            prop_assert_eq!(a.clip(&b).contains(&key), a.contains(&key) && b.contains(&key));
            if a.contains(&key) && b.contains(&key) {
                prop_assert!(a.intersects(&b) && !a.is_empty());
            }
            prop_assert_eq!(a.intersects(&b), !a.clip(&b).is_empty());
            if key <= last {
                prop_assert_eq!(a.touches(&key, &last), a.intersects(&range(&key, Some(&[last, vec![0]].concat()))));
            }
        }
    }
}
