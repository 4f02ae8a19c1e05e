//! The order of a memtable's keys.
//!
//! The Hash flavour sorts (eight bytes of the key, place), then each group of equal bytes by the next eight; the
//! Ordered flavour follows its B+tree. An order sorted for the active memtable is kept until a key is added or moves.
//! For a range of a large memtable only the keys inside are collected and sorted: one walk over the records instead of
//! a sort of all. Who does that often, while no key is added, has the whole order sorted once.

use super::{Memtable, PrefixRule, record::Record};
use crate::{
    arena::Place,
    key::{self, KeyRange, order_prefix},
    sync::Mutex,
};
use std::sync::Arc;

/// How a memtable keeps the order of its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemtableKind {
    /// By hash alone; sorted at flush. A scan sorts first and keeps the order until a key is added. For families
    /// that are read and written by key.
    #[default]
    Hash,
    /// By hash, and in order in a B+tree: insertions cost more, scans sort nothing. For families that are scanned
    /// while they are written.
    Ordered,
    /// By hash, and in order among the keys that share a prefix: insertions cost less than in order of all, a scan
    /// within one prefix sorts nothing. Other scans sort the prefixes first and keep the order until a key is added.
    /// For families whose scans ask for one prefix each.
    Prefix(PrefixRule),
}

/// A memtable's places in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Sorted.
    Sorted(Arc<[Place]>),
    /// The memtable's tree holds it.
    Tree,
}

/// Memtables with fewer keys are sorted whole.
const SELECT_KEYS_MIN: usize = 1024;

/// Selections after which the whole order is worth its price, of about as many walks.
const SELECTIONS_MAX: u32 = 8;

/// What is known of the order of a memtable that takes writes.
#[derive(Debug, Default)]
struct Known {
    /// The layout of the memtable it belongs to.
    layout: u64,
    sorted: Option<Arc<[Place]>>,
    /// Ranges that were selected.
    selections: u32,
}

/// The memtable that takes writes, and the order of its last scan.
#[derive(Debug)]
pub(crate) struct Active {
    /// The memtable.
    pub(crate) memtable: Memtable,
    /// Several threads may scan while none writes.
    known: Mutex<Known>,
}

impl Active {
    /// Wraps an empty memtable.
    pub(crate) fn new(memtable: Memtable) -> Self {
        Active {
            memtable,
            known: Mutex::default(),
        }
    }

    /// The order of its keys now, of those inside of `range` at least.
    pub(crate) fn order_in(&self, range: &KeyRange) -> Order {
        if self.memtable.is_in_order() {
            return Order::Tree;
        }
        if let Some(order) = self.memtable.order_of_group(range) {
            return order;
        }
        let mut known = self.known.lock();
        if known.layout != self.memtable.layout {
            *known = Known {
                layout: self.memtable.layout,
                ..Known::default()
            };
        }
        if known.sorted.is_none() && known.selections < SELECTIONS_MAX && self.memtable.is_selective(range) {
            known.selections += 1;
            return Order::Sorted(self.memtable.select(range));
        }
        let sorted = known.sorted.get_or_insert_with(|| self.memtable.sort());
        Order::Sorted(sorted.clone())
    }
}

/// Eight bytes of `key` from `at` on as a number that orders like the bytes, zero-padded.
#[inline]
fn word(key: &[u8], at: usize) -> u64 {
    order_prefix(key.get(at..).unwrap_or_default())
}

/// Groups of equal words up to this size are ordered by comparing keys.
const SMALL_GROUP: usize = 8;

/// Keys that share more bytes than this are ordered by comparing them, which bounds the recursion.
const WORDS_BYTES_MAX: usize = 64;

impl Memtable {
    /// Whether collecting the keys inside of `range` may be cheaper than sorting all.
    pub(super) fn is_selective(&self, range: &KeyRange) -> bool {
        self.tree.is_none() && self.len() >= SELECT_KEYS_MIN && !range.is_all()
    }

    /// Places of the current records, sorted by key.
    pub(super) fn sort(&self) -> Arc<[Place]> {
        match (&self.groups, &self.tree) {
            (Some(groups), Some(tree)) => self.sort_groups(groups, tree),
            _ => self.collect(Vec::with_capacity(self.len()), |_| true),
        }
    }

    /// Places of the current records inside of `range`, sorted by key.
    pub(super) fn select(&self, range: &KeyRange) -> Arc<[Place]> {
        self.collect(Vec::new(), |key| {
            let is_behind = |end: &Vec<u8>| !key::less(key, end);
            !key::less(key, &range.start) && !range.end.as_ref().is_some_and(is_behind)
        })
    }

    fn collect(&self, mut words: Vec<(u64, Place)>, is_inside: impl Fn(&[u8]) -> bool) -> Arc<[Place]> {
        self.arena.walk(|place, bytes| {
            let record = Record::of(bytes);
            if !record.is_covered() && is_inside(record.key()) {
                words.push((word(record.key(), 0), place));
            }
            record.bytes()
        });
        self.sort_words(&mut words, 0);
        words.into_iter().map(|(_, place)| place).collect()
    }

    /// Sorts keys that agree before byte `at`, given their word there: first by that word, then each group of equal
    /// words by what follows.
    pub(super) fn sort_words(&self, words: &mut [(u64, Place)], at: usize) {
        words.sort_unstable_by_key(|(word, _)| *word);
        let mut rest = words;
        while let Some((first, _)) = rest.first() {
            let first = *first;
            let end = rest
                .iter()
                .position(|(word, _)| *word != first)
                .unwrap_or(rest.len());
            let (group, behind) = rest.split_at_mut(end);
            if group.len() > 1 {
                self.sort_group(group, at + 8);
            }
            rest = behind;
        }
    }

    /// Sorts keys whose bytes before `at`, padded with zeros, are equal.
    fn sort_group(&self, group: &mut [(u64, Place)], at: usize) {
        let key = |place| Record::at(&self.arena, place).key();
        // A key that ended before `at` and a longer one with zeros are told apart only by comparing them whole.
        let has_ended = |group: &[(u64, Place)]| group.iter().any(|(_, place)| key(*place).len() < at);
        if group.len() <= SMALL_GROUP || at >= WORDS_BYTES_MAX || has_ended(group) {
            group.sort_unstable_by(|a, b| key(a.1).cmp(key(b.1)));
            return;
        }
        for (next, place) in group.iter_mut() {
            *next = word(key(*place), at);
        }
        self.sort_words(group, at);
    }

    /// The order of a memtable that takes no writes any more.
    pub(super) fn final_order(&self) -> Order {
        if self.is_in_order() {
            Order::Tree
        } else {
            Order::Sorted(self.sort())
        }
    }
}
