//! A node of the tree that keeps a memtable's keys in order: places sorted by key, searched by words.
//!
//! The keys of a node share `common`, their first bytes; a *word* is the sixteen bytes behind it. So most searches
//! read the node alone; keys are read from the arena only where two words are equal. A key that does not share
//! `common` shortens it, and a split lengthens it again: both read the keys of the node, and both are rare.

use super::record::Record;
use crate::{
    arena::{Arena, Place},
    key::{self, common_prefix_bytes},
};

/// Entries of a full node.
pub(super) const FANOUT: usize = 32;

/// Longest beginning that the keys of a node are known to share. What they share behind it costs look-ups of records.
const COMMON_BYTES_MAX: usize = 40;

/// A split that lengthens what is shared by fewer bytes leaves the words as they are.
const COMMON_BYTES_STEP: usize = 4;

/// Sixteen bytes of `key` from `at` on as a number that orders like the bytes, zero-padded.
#[inline]
fn word(key: &[u8], at: usize) -> u128 {
    let rest = key.get(at..).unwrap_or_default();
    if let Some(first) = rest.first_chunk::<16>() {
        return u128::from_be_bytes(*first);
    }
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(rest) {
        *to = *from;
    }
    u128::from_be_bytes(padded)
}

/// An inner node or a leaf.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) len: usize,
    /// Bytes of `common` in use.
    skip: usize,
    common: [u8; COMMON_BYTES_MAX],
    words: [u128; FANOUT],
    pub(super) places: [Place; FANOUT],
    /// Inner nodes: one child more than there are entries. Empty in leaves.
    pub(super) children: Vec<u32>,
    /// Leaves: the right neighbour, `u32::MAX` at the end.
    pub(super) next: u32,
    /// Leaves: the left neighbour, `u32::MAX` at the start.
    pub(super) before: u32,
}

/// No neighbour.
pub(super) const NO_NODE: u32 = u32::MAX;

impl Node {
    pub(super) fn leaf() -> Self {
        Node {
            len: 0,
            skip: 0,
            common: [0; COMMON_BYTES_MAX],
            words: [0; FANOUT],
            places: [0; FANOUT],
            children: Vec::new(),
            next: NO_NODE,
            before: NO_NODE,
        }
    }

    /// An empty leaf for keys that are likely to share what those of `self` share.
    pub(super) fn leaf_alike(&self) -> Self {
        Node {
            skip: self.skip,
            common: self.common,
            ..Node::leaf()
        }
    }

    #[inline]
    fn common(&self) -> &[u8] {
        &self.common[..self.skip]
    }

    /// Whether `key` begins like the keys here.
    #[inline]
    fn is_common_to(&self, key: &[u8]) -> bool {
        key.get(..self.skip)
            .is_some_and(|begin| key::equal(begin, self.common()))
    }

    /// Entries whose key is below `key` (`or_equal`: or equal).
    #[inline]
    pub(super) fn rank(&self, arena: &Arena, key: &[u8], or_equal: bool) -> usize {
        if self.skip != 0 && !self.is_common_to(key) {
            return if key < self.common() { 0 } else { self.len };
        }
        let wanted = word(key, self.skip);
        let words = &self.words[..self.len];
        let mut from = words.partition_point(|&word| word < wanted);
        let mut to = from + words[from..].partition_point(|&word| word == wanted);
        while from < to {
            let middle = from.midpoint(to);
            let other = Record::at(arena, self.places[middle]).key();
            if key::less(other, key) || (or_equal && key::equal(other, key)) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Makes the words those behind the first `skip` bytes, which all keys here share.
    fn set_common(&mut self, arena: &Arena, skip: usize) {
        if let Some(&first) = self.places[..self.len].first() {
            self.common[..skip].copy_from_slice(&Record::at(arena, first).key()[..skip]);
        }
        self.skip = skip;
        for at in 0..self.len {
            self.words[at] = word(Record::at(arena, self.places[at]).key(), skip);
        }
    }

    /// Makes room for a key that may not begin like the others.
    #[inline]
    fn admit(&mut self, arena: &Arena, key: &[u8]) {
        if !self.is_common_to(key) {
            self.set_common(arena, common_prefix_bytes(key, self.common()));
        }
    }

    /// Adds the key of a record at `at`.
    pub(super) fn insert(&mut self, arena: &Arena, at: usize, place: Place) {
        let key = Record::at(arena, place).key();
        self.admit(arena, key);
        self.words.copy_within(at..self.len, at + 1);
        self.places.copy_within(at..self.len, at + 1);
        self.words[at] = word(key, self.skip);
        self.places[at] = place;
        self.len += 1;
    }

    /// Removes the entry at `at`.
    pub(super) fn remove(&mut self, at: usize) -> Place {
        let place = self.places[at];
        self.words.copy_within(at + 1..self.len, at);
        self.places.copy_within(at + 1..self.len, at);
        self.len -= 1;
        place
    }

    /// Adds the entries of the right neighbour.
    pub(super) fn append(&mut self, arena: &Arena, right: &Node) {
        for &place in &right.places[..right.len] {
            self.insert(arena, self.len, place);
        }
    }

    /// Lengthens what is known to be shared, if that is worth reading the keys.
    pub(super) fn narrow(&mut self, arena: &Arena) {
        let (Some(&first), Some(&last)) = (self.places[..self.len].first(), self.places[..self.len].last())
        else {
            return;
        };
        let key = |place| Record::at(arena, place).key();
        let shared = common_prefix_bytes(key(first), key(last)).min(COMMON_BYTES_MAX);
        if shared >= self.skip + COMMON_BYTES_STEP {
            self.set_common(arena, shared);
        }
    }

    /// Moves the upper half to a new node. The last separator that an inner node keeps is the one between the two.
    pub(super) fn split(&mut self, arena: &Arena) -> Node {
        let mut right = self.leaf_alike();
        let keep = self.len / 2;
        right.len = self.len - keep;
        right.words[..right.len].copy_from_slice(&self.words[keep..self.len]);
        right.places[..right.len].copy_from_slice(&self.places[keep..self.len]);
        if !self.children.is_empty() {
            right.children = self.children.split_off(keep);
        }
        self.len = keep;
        right.narrow(arena);
        self.narrow(arena);
        right
    }
}
