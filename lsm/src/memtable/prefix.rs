//! Order of a memtable's keys by groups of one prefix, for families whose scans ask for one prefix each.
//!
//! ```text
//! hash of the prefix ─► run of slots   [header][entry][entry]…      up to 63 entries, sorted
//!                       header         hash of the prefix · class of the run · entries
//!                       entry          twelve bytes of the key behind the prefix · place
//! ```
//! A key costs one look-up by hash and a search in its group, however many groups there are. A group that outgrows
//! the largest run moves to the memtable's tree and stays there while it has keys. Groups are in no order among themselves: a scan of
//! more than one prefix sorts them, by their first keys, and finds the keys within sorted already.
//!
//! Two prefixes of one hash would share a group; both move to the tree then, which compares whole keys.

use super::{
    Memtable, Order,
    hash::{HashIndex, Probe},
    ordered::Tree,
    record::Record,
};
use crate::{
    arena::{Arena, Place},
    budget::Allotment,
    key::{self, KeyRange, order_prefix},
};
use std::sync::Arc;

/// Which first bytes of a key are its prefix: `bytes` of them, and behind these `pieces` pieces that end with `00 01`
/// each and hold `00` only as `00 FF` (strings of docs/format/logical-key.md). A key that is shorter is a prefix by
/// itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixRule {
    /// Bytes of fixed number.
    pub bytes: u16,
    /// Terminated pieces behind them.
    pub pieces: u8,
}

impl PrefixRule {
    /// Bytes of the prefix of `key`.
    #[inline]
    pub fn prefix_bytes(self, key: &[u8]) -> usize {
        let mut at = usize::from(self.bytes);
        for _ in 0..self.pieces {
            let rest = key.get(at..).unwrap_or_default();
            match rest.windows(2).position(|two| two == [0, 1]) {
                Some(end) => at += end + 2,
                None => return key.len(),
            }
        }
        at.min(key.len())
    }

    /// The prefix that all keys inside of `range` share.
    fn prefix_of(self, range: &KeyRange) -> Option<&[u8]> {
        let bytes = self.prefix_bytes(&range.start);
        let prefix = &range.start[..bytes];
        // A start that ends before the prefix does may be followed by many prefixes.
        let is_whole = bytes >= usize::from(self.bytes) && self.is_closed(prefix);
        let end = range.end.as_deref()?;
        (is_whole && (end.starts_with(prefix) || is_end_of(prefix, end))).then_some(prefix)
    }

    /// Whether a prefix holds all its pieces.
    fn is_closed(self, prefix: &[u8]) -> bool {
        let pieces = prefix.get(usize::from(self.bytes)..).unwrap_or_default();
        pieces.windows(2).filter(|two| two == &[0, 1]).count() >= usize::from(self.pieces)
    }
}

/// Whether `end` is the first key behind all that begin with `prefix`.
fn is_end_of(prefix: &[u8], end: &[u8]) -> bool {
    let counted = prefix.len() - prefix.iter().rev().take_while(|&&byte| byte == 0xff).count();
    match (prefix[..counted].split_last(), end.split_last()) {
        (Some((last, before)), Some((end_last, end_before))) => before == end_before && last + 1 == *end_last,
        _ => false,
    }
}

/// Entries of a group that is not in the tree.
const ENTRIES_MAX: usize = 63;
/// A run of class `c` has 2 ^ c slots.
const CLASSES: usize = 7;
/// Class of the header that counts the keys of a group that is in the tree.
const IN_TREE: usize = 0;
/// No run.
const NOWHERE: u32 = 0;

/// The groups of one memtable.
#[derive(Debug)]
pub(super) struct Groups {
    rule: PrefixRule,
    index: HashIndex,
    /// Runs; the first slot is unused.
    slots: Vec<u128>,
    /// By class: the first of the runs that wait to be used again; their header names the next.
    free: [u32; CLASSES],
    /// What the slots take of the budget.
    memory: Allotment,
}

/// Where the keys of a range are.
enum Whereabouts<'a> {
    /// These.
    Group(&'a [u128]),
    /// All in the tree.
    Tree,
    /// In several groups.
    Anywhere,
}

#[inline(always)]
fn header(hash: u64, class: usize, entries: usize) -> u128 {
    (u128::from(hash) << 64) | ((class as u128) << 32) | entries as u128
}

#[inline(always)]
fn class_of(header: u128) -> usize {
    (header >> 32) as u8 as usize
}

#[inline(always)]
fn entries_of(header: u128) -> usize {
    header as u32 as usize
}

/// The place that an entry names.
#[inline(always)]
fn place_of(entry: u128) -> Place {
    entry as u32
}

/// An entry for the record at `place`; those of a group order like the bytes of their keys from `skip` on, as far as
/// they hold them.
#[inline(always)]
fn entry(key: &[u8], skip: usize, place: Place) -> u128 {
    let rest = &key[skip..];
    let first = u128::from(order_prefix(rest));
    let mut more = [0; 4];
    match rest.get(8..12) {
        Some(bytes) => more.copy_from_slice(bytes),
        None => {
            let rest = rest.get(8..).unwrap_or_default();
            more[..rest.len()].copy_from_slice(rest);
        }
    }
    (first << 64) | (u128::from(u32::from_be_bytes(more)) << 32) | u128::from(place)
}

/// Entries whose key is below `key`, which `wanted` stands for.
#[inline]
fn rank(entries: &[u128], arena: &Arena, key: &[u8], wanted: u128) -> usize {
    let mut from = entries.partition_point(|entry| entry >> 32 < wanted >> 32);
    while let Some(&entry) = entries.get(from)
        && entry >> 32 == wanted >> 32
        && key::less(Record::at(arena, place_of(entry)).key(), key)
    {
        from += 1;
    }
    from
}

impl Groups {
    /// Without keys.
    pub(super) fn new(rule: PrefixRule, seed: u64) -> Self {
        Groups {
            rule,
            index: HashIndex::new(seed.rotate_left(32)),
            slots: Vec::new(),
            free: [NOWHERE; CLASSES],
            memory: Allotment::default(),
        }
    }

    /// Pays from now on; called before the first insertion.
    pub(super) fn pay_from(&mut self, (index, slots): (Allotment, Allotment)) {
        self.index.pay_from(index);
        self.memory = slots;
    }

    /// Slots that so many keys more may take. All of them could make their groups grow; that is overdrawn.
    fn slots_for(keys: usize) -> usize {
        1 + ENTRIES_MAX + 4 * keys
    }

    /// Whether so many keys can be added without more memory.
    pub(super) fn has_room(&self, keys: usize) -> bool {
        self.index.has_room(keys) && self.slots.len() + Self::slots_for(keys) <= self.slots.capacity()
    }

    /// Pays for what so many keys more may need; false if the memory is not there.
    pub(super) fn prepare(&mut self, keys: usize) -> bool {
        let needed = self.slots.len() + Self::slots_for(keys);
        let grown = needed > self.slots.capacity();
        self.index.prepare(keys)
            && (!grown
                || self
                    .memory
                    .prepay(needed.max(self.grown_slots()) * size_of::<u128>()))
    }

    fn grown_slots(&self) -> usize {
        (self.slots.capacity() * 2).max(2 * ENTRIES_MAX)
    }

    /// What was paid for.
    pub(super) fn paid_bytes(&self) -> usize {
        self.index.paid_bytes() + self.memory.bytes()
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.slots.len() * size_of::<u128>()
    }

    /// Whether probes have become too long.
    pub(super) fn is_crowded(&self) -> bool {
        self.index.is_crowded()
    }

    /// A run of 2 ^ `class` slots, its header not yet written.
    fn take(&mut self, class: usize) -> u32 {
        let free = self.free[class];
        if free != NOWHERE {
            self.free[class] = self.slots[free as usize] as u32;
            return free;
        }
        let start = self.slots.len().max(1);
        let end = start + (1 << class);
        if end > self.slots.capacity() {
            let (before, after) = (self.slots.capacity(), self.grown_slots().max(end));
            self.memory.charge(after * size_of::<u128>());
            self.slots.reserve_exact(after - self.slots.len());
            self.memory.refund(before * size_of::<u128>());
        }
        self.slots.resize(end, 0);
        start as u32
    }

    fn give(&mut self, run: u32, class: usize) {
        self.slots[run as usize] = u128::from(std::mem::replace(&mut self.free[class], run));
    }

    #[inline]
    fn find(&self, hash: u64) -> Probe {
        self.index
            .find(hash, |run| (self.slots[run as usize] >> 64) as u64 == hash)
    }

    #[inline]
    fn entries(&self, run: u32) -> &[u128] {
        let entries = match self.is_in_tree(run) {
            true => 0,
            false => entries_of(self.slots[run as usize]),
        };
        &self.slots[run as usize + 1..][..entries]
    }

    #[inline]
    fn is_in_tree(&self, run: u32) -> bool {
        class_of(self.slots[run as usize]) == IN_TREE
    }

    /// Whether the keys of a group begin with `prefix`, not another one of the same hash.
    fn is_of(&self, arena: &Arena, run: u32, prefix: &[u8]) -> bool {
        let first = self.entries(run).first();
        first.is_none_or(|&first| {
            let key = Record::at(arena, place_of(first)).key();
            key.get(..self.rule.prefix_bytes(key)) == Some(prefix)
        })
    }

    /// Adds a key that is not here.
    pub(super) fn insert(&mut self, arena: &mut Arena, tree: &mut Tree, place: Place) {
        let key = Record::at(arena, place).key();
        let skip = self.rule.prefix_bytes(key);
        let hash = key::hash(&key[..skip]);
        let entry = entry(key, skip, place);
        let (slot, mut run) = match self.find(hash) {
            Probe::Vacant { slot, tag } => {
                let run = self.take(1);
                self.slots[run as usize] = header(hash, 1, 1);
                self.slots[run as usize + 1] = entry;
                self.index.insert(slot, tag, run);
                return;
            }
            Probe::Found { slot, place } => (slot, place),
        };
        let old = self.slots[run as usize];
        let (mut class, entries) = (class_of(old), entries_of(old));
        if class == IN_TREE {
            self.slots[run as usize] += 1;
            return tree.insert(arena, place);
        }
        if entries == ENTRIES_MAX || !self.is_of(arena, run, &key[..skip]) {
            self.move_to_tree(arena, tree, (slot, run));
            return tree.insert(arena, place);
        }
        if entries + 1 == 1 << class {
            let larger = self.take(class + 1);
            let from = run as usize;
            self.slots.copy_within(from..from + (1 << class), larger as usize);
            self.give(run, class);
            self.index.replace(slot, larger);
            (run, class) = (larger, class + 1);
        }
        let rank = rank(&self.slots[run as usize + 1..][..entries], arena, key, entry);
        let first = run as usize + 1;
        self.slots
            .copy_within(first + rank..first + entries, first + rank + 1);
        self.slots[first + rank] = entry;
        self.slots[run as usize] = header(hash, class, entries + 1);
    }

    /// Moves a group that gets one more key.
    fn move_to_tree(&mut self, arena: &mut Arena, tree: &mut Tree, (slot, run): (usize, u32)) {
        for at in 0..self.entries(run).len() {
            tree.insert(arena, place_of(self.slots[run as usize + 1 + at]));
        }
        let old = self.slots[run as usize];
        self.give(run, class_of(old));
        let counter = self.take(IN_TREE);
        self.slots[counter as usize] = header((old >> 64) as u64, IN_TREE, entries_of(old) + 1);
        self.index.replace(slot, counter);
    }

    /// The group of a key that is here: its slot in the index, its run, and the key's entry unless it is in the tree.
    fn position(&self, arena: &Arena, key: &[u8]) -> Option<(usize, u32, Option<usize>)> {
        let skip = self.rule.prefix_bytes(key);
        let Probe::Found { slot, place: run } = self.find(key::hash(&key[..skip])) else {
            return None;
        };
        let is_here = !self.is_in_tree(run);
        let rank = is_here.then(|| rank(self.entries(run), arena, key, entry(key, skip, 0)));
        Some((slot, run, rank))
    }

    /// Removes a key that is here.
    pub(super) fn remove(&mut self, arena: &mut Arena, tree: &mut Tree, key: &[u8]) {
        let Some((slot, run, rank)) = self.position(arena, key) else {
            return;
        };
        let old = self.slots[run as usize];
        let entries = entries_of(old);
        if let Some(rank) = rank {
            let at = run as usize + 1 + rank;
            self.slots.copy_within(at + 1..run as usize + 1 + entries, at);
        } else {
            tree.remove(arena, key);
        }
        self.slots[run as usize] = old - 1;
        if entries == 1 {
            self.index.remove(slot);
            self.give(run, class_of(old));
        }
    }

    /// Follows a key to its new record.
    pub(super) fn replace(&mut self, arena: &Arena, tree: &mut Tree, place: Place) {
        match self.position(arena, Record::at(arena, place).key()) {
            Some((_, run, Some(rank))) => {
                let entry = &mut self.slots[run as usize + 1 + rank];
                *entry = (*entry >> 32 << 32) | u128::from(place);
            }
            _ => tree.replace(arena, place),
        }
    }

    /// Where the keys inside of `range` are.
    fn locate(&self, arena: &Arena, range: &KeyRange) -> Whereabouts<'_> {
        let Some(prefix) = self.rule.prefix_of(range) else {
            return Whereabouts::Anywhere;
        };
        match self.find(key::hash(prefix)) {
            Probe::Vacant { .. } => Whereabouts::Group(&[]),
            Probe::Found { place: run, .. } if self.is_in_tree(run) => Whereabouts::Tree,
            Probe::Found { place: run, .. } if !self.is_of(arena, run, prefix) => Whereabouts::Group(&[]),
            Probe::Found { place: run, .. } => {
                let entries = self.entries(run);
                let rank = |key: &[u8]| rank(entries, arena, key, entry(key, prefix.len(), 0));
                let start = if range.start.len() == prefix.len() {
                    0
                } else {
                    rank(&range.start)
                };
                let end = range
                    .end
                    .as_deref()
                    .filter(|end| end.starts_with(prefix))
                    .map(rank);
                Whereabouts::Group(&entries[start..end.unwrap_or(entries.len()).max(start)])
            }
        }
    }
}

impl Memtable {
    /// The order of the keys inside of `range`, if they share a prefix.
    pub(super) fn order_of_group(&self, range: &KeyRange) -> Option<Order> {
        match self.groups.as_ref()?.locate(&self.arena, range) {
            Whereabouts::Group(entries) => {
                let places = entries.iter().map(|&entry| place_of(entry));
                Some(Order::Sorted(places.collect()))
            }
            Whereabouts::Tree => Some(Order::Tree),
            Whereabouts::Anywhere => None,
        }
    }

    /// Places of the current records of all groups, sorted by key.
    pub(super) fn sort_groups(&self, groups: &Groups, tree: &Tree) -> Arc<[Place]> {
        let key = |place| Record::at(&self.arena, place).key();
        let mut heads = Vec::new();
        groups.index.each(|run| {
            let first = groups.entries(run).first();
            heads.extend(first.map(|&first| (order_prefix(key(place_of(first))), place_of(first))));
        });
        self.sort_words(&mut heads, 0);
        let mut places = Vec::with_capacity(self.len());
        let mut at = tree.first();
        for (_, head) in heads {
            let head = key(head);
            while let Some(place) = tree.place(at).filter(|&place| key::less(key(place), head)) {
                places.push(place);
                tree.advance(&mut at);
            }
            if let Some((_, run, _)) = groups.position(&self.arena, head) {
                places.extend(groups.entries(run).iter().map(|&entry| place_of(entry)));
            }
        }
        while let Some(place) = tree.place(at) {
            places.push(place);
            tree.advance(&mut at);
        }
        places.into()
    }
}

#[cfg(test)]
mod tests;
