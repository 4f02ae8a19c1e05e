//! Range deletes: which keys are gone, and since when.
//!
//! ```text
//! delete b..f @4, delete d..k @7      ─►   fragments  [b, d) @4   [d, k) @7
//! ```
//! A *fragment* says that every version of its keys older than its seqno is gone. Fragments do not overlap: of two
//! range deletes of a key the newer one says everything. A memtable holds the fragments of its range deletes, a table
//! those of its section (docs/format/table.md); a fragment also hides everything in older sources, so a reader that
//! goes from the newest source to the oldest one treats a covered key like one that has a tombstone there.
//!
//! Pure: no I/O. [`Floors`](crate::floor::Floors) are made of the same fragments.

use crate::key::{KEY_BYTES_MAX, KeyRange, SEQNO_MAX, Seqno, prefix_end};
use keybed_format::{Cursor, Result, Sink};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

/// Fragments that a memtable may hold before it is sealed: a scan or a flush stays cheap beside them.
pub const RANGE_DELETES_MAX: usize = 16 << 10;

/// Bytes of the keys in the fragments of a memtable above which it is sealed; what it writes fits into one table.
pub const RANGE_DELETE_BYTES_MAX: usize = 4 << 20;

/// Fragments of one table, at most; an output that needs more is cut into several tables.
pub const TABLE_RANGE_DELETES_MAX: usize = 64 << 10;

/// Bytes of the keys in the fragments of one table, at most. They are in memory while the table is open.
pub const TABLE_RANGE_DELETE_BYTES_MAX: usize = 16 << 20;

/// What a fragment takes in memory besides its keys, about.
const FRAGMENT_BYTES: usize = 96;

/// Fragments: disjoint ranges of keys, each with the seqno below which its versions are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeDeletes {
    /// By start. Neighbours that touch differ in what they say.
    fragments: BTreeMap<Vec<u8>, Rest>,
    key_bytes: usize,
}

/// What a fragment is besides its start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    /// First key behind it.
    end: Option<Vec<u8>>,
    seqno: Seqno,
    /// Something was written into it later: only then do its keys have to be looked at one by one.
    is_rewritten: bool,
}

/// One fragment, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// First key inside.
    pub start: &'a [u8],
    /// First key behind it; `None` = unbounded.
    pub end: Option<&'a [u8]>,
    /// Versions with smaller seqnos are gone.
    pub seqno: Seqno,
}

impl Fragment<'_> {
    /// The keys inside.
    pub fn range(&self) -> KeyRange {
        KeyRange {
            start: self.start.to_vec(),
            end: self.end.map(<[u8]>::to_vec),
        }
    }
}

/// Neighbouring keys of which all are covered by one fragment, or by none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The keys; nothing is said about others.
    pub keys: KeyRange,
    /// The seqno of the fragment.
    pub seqno: Option<Seqno>,
    /// Whether newer versions may lie among them in the same source.
    pub is_rewritten: bool,
}

impl Region {
    /// As far as it lies inside of `range`.
    #[must_use]
    pub fn clip(mut self, range: &KeyRange) -> Region {
        self.keys = self.keys.clip(range);
        self
    }
}

/// A bound that may be longer than a key, as one that no key tells apart from it: the first key behind the longest
/// one is not that key and a zero byte. `None` = behind all keys.
fn bounded(key: &[u8]) -> Option<Vec<u8>> {
    match key.get(..KEY_BYTES_MAX) {
        Some(whole) if key.len() > KEY_BYTES_MAX => prefix_end(whole),
        _ => Some(key.to_vec()),
    }
}

/// `range` with bounds that are keys; `None` if no key is inside.
fn bounded_range(range: &KeyRange) -> Option<KeyRange> {
    let range = KeyRange {
        start: bounded(&range.start)?,
        end: range.end.as_deref().and_then(bounded),
    };
    (!range.is_empty()).then_some(range)
}

impl RangeDeletes {
    /// None.
    pub fn new() -> Self {
        RangeDeletes::default()
    }

    /// Fragments.
    pub fn len(&self) -> usize {
        self.fragments.len()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Bytes of the fragments' keys.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// About how many bytes of memory they take.
    pub fn bytes(&self) -> usize {
        self.key_bytes + self.len() * FRAGMENT_BYTES
    }

    /// Deletes every version of the keys of `range` that is older than `seqno`.
    ///
    /// ```
    /// use keybed_lsm::{KeyRange, range_delete::RangeDeletes};
    ///
    /// let mut deletes = RangeDeletes::new();
    /// deletes.insert(&KeyRange::prefix(b"user-7/"), 40);
    /// assert_eq!(deletes.covering(b"user-7/name"), Some(40));
    /// assert_eq!(deletes.covering(b"user-8/name"), None);
    /// ```
    pub fn insert(&mut self, range: &KeyRange, seqno: Seqno) {
        let Some(range) = bounded_range(range) else { return };
        self.cut(&range.start);
        range.end.iter().for_each(|end| self.cut(end));
        // Every fragment lies inside or outside now. Of those inside the newer ones stay.
        let mut from = Some(range.start.clone());
        let older: Vec<Vec<u8>> = self
            .starts(&range)
            .filter(|(_, rest)| rest.seqno < seqno)
            .map(|(start, _)| start.clone())
            .collect();
        older.iter().for_each(|start| self.remove(start));
        let newer: Vec<(Vec<u8>, Option<Vec<u8>>)> = self
            .starts(&range)
            .map(|(start, rest)| (start.clone(), rest.end.clone()))
            .collect();
        for (start, end) in &newer {
            if let Some(from) = from.take_if(|from| *from < *start) {
                self.add(from, Some(start.clone()), seqno, false);
            }
            from = end.clone();
        }
        if let Some(from) = from
            && range.end.as_ref().is_none_or(|end| from < *end)
        {
            self.add(from, range.end.clone(), seqno, false);
        }
        for (start, _) in &newer {
            self.join(start);
        }
        for (_, end) in &newer {
            end.iter().for_each(|end| self.join(end));
        }
        self.join(&range.start);
        range.end.iter().for_each(|end| self.join(end));
    }

    /// Adds all fragments of `other`.
    pub fn extend(&mut self, other: &RangeDeletes) {
        for fragment in other.iter() {
            self.insert(&fragment.range(), fragment.seqno);
        }
    }

    fn starts(&self, range: &KeyRange) -> impl Iterator<Item = (&Vec<u8>, &Rest)> {
        let end = range.end.as_deref().map_or(Unbounded, Excluded);
        self.fragments
            .range::<[u8], _>((Included(range.start.as_slice()), end))
    }

    fn add(&mut self, start: Vec<u8>, end: Option<Vec<u8>>, seqno: Seqno, is_rewritten: bool) {
        self.key_bytes += start.len() + end.as_ref().map_or(0, Vec::len);
        self.fragments.insert(
            start,
            Rest {
                end,
                seqno,
                is_rewritten,
            },
        );
    }

    fn remove(&mut self, start: &[u8]) {
        if let Some(rest) = self.fragments.remove(start) {
            self.key_bytes -= start.len() + rest.end.as_ref().map_or(0, Vec::len);
        }
    }

    /// The fragment that covers `key`.
    fn fragment(&self, key: &[u8]) -> Option<(&Vec<u8>, &Rest)> {
        let (start, rest) = self
            .fragments
            .range::<[u8], _>((Unbounded, Included(key)))
            .next_back()?;
        rest.end
            .as_ref()
            .is_none_or(|end| key < end.as_slice())
            .then_some((start, rest))
    }

    /// Splits the fragment that `key` lies inside of.
    fn cut(&mut self, key: &[u8]) {
        let Some((start, rest)) = self.fragment(key).filter(|(start, _)| *start != key) else {
            return;
        };
        let (start, rest) = (start.clone(), rest.clone());
        self.remove(&start);
        self.add(start, Some(key.to_vec()), rest.seqno, rest.is_rewritten);
        self.add(key.to_vec(), rest.end, rest.seqno, rest.is_rewritten);
    }

    /// Makes one of two fragments that meet at `key` and say the same.
    fn join(&mut self, key: &[u8]) {
        let before = self
            .fragments
            .range::<[u8], _>((Unbounded, Excluded(key)))
            .next_back();
        let (Some((start, left)), Some(right)) = (before, self.fragments.get(key)) else {
            return;
        };
        if left.end.as_deref() != Some(key)
            || (left.seqno, left.is_rewritten) != (right.seqno, right.is_rewritten)
        {
            return;
        }
        let (start, right) = (start.clone(), right.clone());
        self.remove(&start);
        self.remove(key);
        self.add(start, right.end, right.seqno, right.is_rewritten);
    }

    /// The seqno below which versions of `key` are gone.
    pub fn covering(&self, key: &[u8]) -> Option<Seqno> {
        self.fragment(key).map(|(_, rest)| rest.seqno)
    }

    /// Whether [`RangeDeletes::note_write`] of `key` would change anything.
    pub fn misses_write(&self, key: &[u8]) -> bool {
        self.fragment(key).is_some_and(|(_, rest)| !rest.is_rewritten)
    }

    /// Remembers that a version of `key` was written that is newer than the fragment that covers it.
    pub fn note_write(&mut self, key: &[u8]) {
        let end = self
            .fragments
            .range_mut::<[u8], _>((Unbounded, Included(key)))
            .next_back();
        if let Some((_, rest)) = end
            && rest.end.as_ref().is_none_or(|end| key < end.as_slice())
        {
            rest.is_rewritten = true;
        }
    }

    /// The widest range around `key` of which everything or nothing is covered by one fragment.
    pub fn region(&self, key: &[u8]) -> Region {
        if let Some((start, rest)) = self.fragment(key) {
            return Region {
                keys: KeyRange {
                    start: start.clone(),
                    end: rest.end.clone(),
                },
                seqno: Some(rest.seqno),
                is_rewritten: rest.is_rewritten,
            };
        }
        let before = self
            .fragments
            .range::<[u8], _>((Unbounded, Included(key)))
            .next_back();
        let behind = self.fragments.range::<[u8], _>((Excluded(key), Unbounded)).next();
        Region {
            keys: KeyRange {
                start: before.and_then(|(_, rest)| rest.end.clone()).unwrap_or_default(),
                end: behind.map(|(start, _)| start.clone()),
            },
            seqno: None,
            is_rewritten: false,
        }
    }

    /// Whether every key of `range` is covered by fragments newer than `seqno`.
    pub fn covers(&self, range: &KeyRange, seqno: Seqno) -> bool {
        let Some(range) = bounded_range(range) else {
            return true;
        };
        let mut from = range.start.as_slice();
        loop {
            match self.fragment(from) {
                Some((_, rest)) if rest.seqno > seqno => match (&rest.end, &range.end) {
                    (None, _) => return true,
                    (Some(end), Some(last)) if end >= last => return true,
                    (Some(end), _) => from = end,
                },
                _ => return false,
            }
        }
    }

    /// Fragments in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        self.fragments.iter().map(|(start, rest)| Fragment {
            start,
            end: rest.end.as_deref(),
            seqno: rest.seqno,
        })
    }

    /// The least range that all fragments lie in.
    pub fn extent(&self) -> Option<KeyRange> {
        let (start, _) = self.fragments.first_key_value()?;
        let (_, last) = self.fragments.last_key_value()?;
        Some(KeyRange {
            start: start.clone(),
            end: last.end.clone(),
        })
    }

    /// What they say about the keys of `range`.
    #[must_use]
    pub fn clip(&self, range: &KeyRange) -> RangeDeletes {
        let mut clipped = RangeDeletes::new();
        let Some(range) = bounded_range(range) else {
            return clipped;
        };
        let first = self.fragment(&range.start).map(|(start, _)| start.clone());
        let from = KeyRange {
            start: first.unwrap_or_else(|| range.start.clone()),
            end: range.end.clone(),
        };
        for (start, rest) in self.starts(&from) {
            let keys = range.clip(&KeyRange {
                start: start.clone(),
                end: rest.end.clone(),
            });
            clipped.add(keys.start, keys.end, rest.seqno, rest.is_rewritten);
        }
        clipped
    }

    /// Keeps what lies below `key` and returns the rest.
    pub fn split_off(&mut self, key: &[u8]) -> RangeDeletes {
        self.cut(key);
        let mut rest = RangeDeletes {
            fragments: self.fragments.split_off(key),
            key_bytes: 0,
        };
        let keys = rest.fragments.iter();
        rest.key_bytes = keys
            .map(|(start, rest)| start.len() + rest.end.as_ref().map_or(0, Vec::len))
            .sum();
        self.key_bytes -= rest.key_bytes;
        rest
    }

    /// Where to split so that at most `count` fragments with at most `bytes` bytes of keys (but at least one) lie
    /// before it; `None` if all do.
    pub fn split_point(&self, count: usize, bytes: usize) -> Option<&[u8]> {
        let mut total = 0;
        self.iter().enumerate().find_map(|(at, fragment)| {
            total += fragment.start.len() + fragment.end.map_or(0, <[u8]>::len);
            (at > 0 && (at >= count || total > bytes)).then_some(fragment.start)
        })
    }

    /// The section's bytes: varint count, then of each fragment: start (bytes) · end flag u8 \[bytes\] · seqno varint.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::with_capacity(self.key_bytes + self.len() * 12 + 8);
        out.count(self.len());
        for fragment in self.iter() {
            out.bytes(fragment.start).bool(fragment.end.is_some());
            if let Some(end) = fragment.end {
                out.bytes(end);
            }
            out.varint(fragment.seqno);
        }
        out.into_vec()
    }

    /// Reads what [`RangeDeletes::encode`] wrote at `base` of its file.
    ///
    /// # Errors
    /// `Malformed` with the offset if fragments are empty, overlap, are out of order or out of bounds, or if two that
    /// touch should have been one.
    pub fn decode(bytes: &[u8], base: u64) -> Result<RangeDeletes> {
        let mut c = Cursor::with_base(bytes, base);
        let count = c.count(3)?;
        if count > TABLE_RANGE_DELETES_MAX || bytes.len() > TABLE_RANGE_DELETE_BYTES_MAX * 2 {
            return Err(c
                .malformed("a table has too many range deletes")
                .expected_found(TABLE_RANGE_DELETES_MAX, count));
        }
        let mut deletes = RangeDeletes::new();
        let mut last: Option<(Option<Vec<u8>>, Seqno)> = None;
        for _ in 0..count {
            let start = c.bytes()?.to_vec();
            let end = if c.bool()? {
                Some(c.bytes()?.to_vec())
            } else {
                None
            };
            let seqno = c.varint()?;
            let in_order = match &last {
                None => true,
                Some((None, _)) => false,
                Some((Some(last), other)) => *last < start || (*last == start && *other != seqno),
            };
            let is_sane = start.len() <= KEY_BYTES_MAX
                && end
                    .as_ref()
                    .is_none_or(|end| start < *end && end.len() <= KEY_BYTES_MAX)
                && seqno <= SEQNO_MAX;
            if !in_order || !is_sane {
                return Err(c.malformed("the fragments of the range deletes contradict each other"));
            }
            last = Some((end.clone(), seqno));
            deletes.add(start, end, seqno, false);
        }
        c.finish()?;
        Ok(deletes)
    }
}

#[cfg(test)]
mod tests;
