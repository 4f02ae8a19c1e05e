//! The order of a memtable's keys.
//!
//! The Hash flavour sorts (eight bytes of the key, place), then each group of equal bytes by the next eight; the
//! Ordered flavour follows its B+tree. An order sorted for the active memtable is kept until a key is added or moves.

use super::{Memtable, record::Record};
use crate::{arena::Place, key::order_prefix};
use parking_lot::Mutex;
use std::sync::Arc;

/// A memtable's places in the order of their keys.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Sorted.
    Sorted(Arc<[Place]>),
    /// The memtable's tree holds it.
    Tree,
}

/// The memtable that takes writes, and the order of its last scan.
#[derive(Debug)]
pub(crate) struct Active {
    /// The memtable.
    pub(crate) memtable: Memtable,
    /// Order and the layout it belongs to. Several threads may scan while none writes.
    sorted: Mutex<Option<(u64, Arc<[Place]>)>>,
}

impl Active {
    /// Wraps an empty memtable.
    pub(crate) fn new(memtable: Memtable) -> Self {
        Active {
            memtable,
            sorted: Mutex::new(None),
        }
    }

    /// The order of its keys now.
    pub(crate) fn order(&self) -> Order {
        if self.memtable.tree.is_some() {
            return Order::Tree;
        }
        let mut sorted = self.sorted.lock();
        match &*sorted {
            Some((layout, order)) if *layout == self.memtable.layout => Order::Sorted(order.clone()),
            _ => {
                let order = self.memtable.sort();
                *sorted = Some((self.memtable.layout, order.clone()));
                Order::Sorted(order)
            }
        }
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
    /// Places of the current records, sorted by key.
    pub(super) fn sort(&self) -> Arc<[Place]> {
        let mut words = Vec::with_capacity(self.len());
        self.arena.walk(|place, bytes| {
            let record = Record::of(bytes);
            if !record.is_covered() {
                words.push((word(record.key(), 0), place));
            }
            record.bytes()
        });
        self.sort_words(&mut words, 0);
        words.into_iter().map(|(_, place)| place).collect()
    }

    /// Sorts keys that agree before byte `at`, given their word there: first by that word, then each group of equal
    /// words by what follows.
    fn sort_words(&self, words: &mut [(u64, Place)], at: usize) {
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
        if self.tree.is_some() {
            Order::Tree
        } else {
            Order::Sorted(self.sort())
        }
    }
}
