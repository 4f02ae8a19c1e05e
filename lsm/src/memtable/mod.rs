//! The newest versions of a family's keys, in memory.
//!
//! ```text
//!   HashIndex (hash.rs)            Arena (arena.rs)                 order
//!   tag|place ──────────────► [header][key][value] …         Ordered: B+tree (ordered.rs)
//!   tag|place ──────────────► [header][key][value]  ──prev──► older operand        Hash: sorted when asked (order.rs)
//! ```
//! One record is current per key. A write to a key that is here overwrites it in place if the value fits, else
//! appends a record and points the index at it: nobody but the owner sees an active memtable, because taking a
//! `View` or pinning files seals it first. So n updates between two flushes cost one entry in a table. Only operands
//! of a merge operator that cannot combine them keep older records reachable (`prev`).

mod hash;
mod order;
mod ordered;
mod record;
mod sealed;

pub(crate) use hash::Probe;
pub(crate) use order::{Active, MemtableIter, Order};
pub(crate) use sealed::Sealed;

use crate::{
    arena::{Arena, Place},
    key::{self, Entry, EntryKind, Seqno},
};
use hash::HashIndex;
use ordered::Tree;
use record::{Head, Record};

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
}

/// Operands that may wait behind the newest one in a memtable.
pub(crate) const CHAIN_MAX: u8 = 32;

/// A hash index over an arena, with or without an order.
#[derive(Debug)]
pub(crate) struct Memtable {
    arena: Arena,
    index: HashIndex,
    tree: Option<Tree>,
    /// Rises when a key is added or moves, so a sorted order can tell whether it still holds.
    layout: u64,
    seqno_min: Seqno,
    seqno_max: Seqno,
}

impl Memtable {
    /// Empty, without memory; `seed` drives the index.
    pub(crate) fn new(kind: MemtableKind, seed: u64) -> Self {
        Memtable {
            arena: Arena::default(),
            index: HashIndex::new(seed),
            tree: (kind == MemtableKind::Ordered).then(Tree::new),
            layout: 0,
            seqno_min: Seqno::MAX,
            seqno_max: 0,
        }
    }

    /// Keys, deleted ones included.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing was written.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Bytes in use.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.arena.used() + self.index.bytes() + self.tree.as_ref().map_or(0, Tree::bytes)
    }

    /// Whether it must be sealed although its bytes are within the budget.
    #[inline]
    pub(crate) fn must_seal(&self) -> bool {
        self.index.is_crowded() || self.arena.is_full()
    }

    /// Smallest and largest seqno written; meaningless while empty.
    pub(crate) fn seqnos(&self) -> (Seqno, Seqno) {
        (self.seqno_min, self.seqno_max)
    }

    /// Finds a key by its hash.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], hash: u64) -> Probe {
        self.index.find(hash, |place| {
            key::equal(Record::at(&self.arena, place).key(), key)
        })
    }

    /// The newest version of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], hash: u64) -> Option<(Place, EntryKind, &[u8])> {
        match self.find(key, hash) {
            Probe::Found { place, .. } => {
                let record = Record::at(&self.arena, place);
                Some((place, record.kind(), record.value()))
            }
            Probe::Vacant { .. } => None,
        }
    }

    /// Reads the slot that a look-up starts with.
    #[inline]
    pub(crate) fn touch_slot(&self, hash: u64) -> u64 {
        self.index.home(hash)
    }

    /// Reads the ends of the record that a look-up is likely to find: header and key, and the next cache line.
    #[inline]
    pub(crate) fn touch_record(&self, hash: u64) -> Option<u8> {
        let place = self.index.likely(hash);
        if place == 0 {
            return None;
        }
        let bytes = self.arena.at(place);
        Some(bytes.first().unwrap_or(&0) ^ bytes.get(64).unwrap_or(&0))
    }

    /// The version at a place.
    #[inline]
    pub(crate) fn entry(&self, place: Place) -> Entry<'_> {
        Record::at(&self.arena, place).entry()
    }

    /// The next older operand behind a version; 0 = none.
    #[inline]
    pub(crate) fn older(&self, place: Place) -> Place {
        Record::at(&self.arena, place).prev()
    }

    /// Operands behind a version.
    pub(crate) fn depth(&self, place: Place) -> u8 {
        Record::at(&self.arena, place).depth()
    }

    #[inline]
    fn note(&mut self, seqno: Seqno) {
        self.seqno_min = self.seqno_min.min(seqno);
        self.seqno_max = self.seqno_max.max(seqno);
    }

    /// Makes `value` the current version of the key that `probe` stands for.
    #[inline]
    pub(crate) fn write(&mut self, probe: Probe, key: &[u8], seqno: Seqno, kind: EntryKind, value: &[u8]) {
        self.note(seqno);
        match probe {
            Probe::Found { slot, place } => {
                let record = Record::at(&self.arena, place);
                if value.len() <= record.capacity() {
                    if record.prev() != 0 {
                        record::cut_chain(&mut self.arena, place);
                    }
                    record::overwrite(&mut self.arena, place, seqno, kind, value);
                } else {
                    // A value that outgrew its record once will do it again: leave room up to a power of two.
                    let slack = value.len().next_power_of_two() - value.len();
                    self.move_to_new(
                        slot,
                        place,
                        key,
                        value,
                        Head {
                            seqno,
                            kind,
                            prev: 0,
                            depth: 0,
                            slack,
                        },
                    );
                }
            }
            Probe::Vacant { slot, tag } => {
                let head = Head {
                    seqno,
                    kind,
                    prev: 0,
                    depth: 0,
                    slack: 0,
                };
                let place = record::push(&mut self.arena, key, value, head);
                self.index.insert(slot, tag, place);
                self.layout += 1;
                if let Some(tree) = &mut self.tree {
                    tree.insert(&self.arena, place);
                }
            }
        }
    }

    /// Puts an operand in front of the merge chain at `place`, which stays reachable behind it.
    pub(crate) fn chain(&mut self, slot: usize, place: Place, key: &[u8], seqno: Seqno, operand: &[u8]) {
        self.note(seqno);
        let depth = Record::at(&self.arena, place).depth().saturating_add(1);
        let head = Head {
            seqno,
            kind: EntryKind::Merge,
            prev: place,
            depth,
            slack: 0,
        };
        self.move_to_new(slot, place, key, operand, head);
    }

    /// Adds bytes behind the value at `place`, keeping its kind.
    pub(crate) fn extend(&mut self, slot: usize, place: Place, key: &[u8], seqno: Seqno, more: &[u8]) {
        self.note(seqno);
        let record = Record::at(&self.arena, place);
        let bytes = record.value().len() + more.len();
        if bytes <= record.capacity() {
            record::extend(&mut self.arena, place, seqno, more);
            return;
        }
        let (kind, old) = (record.kind(), record.value().to_vec());
        let slack = bytes.next_power_of_two() - old.len();
        let head = Head {
            seqno,
            kind,
            prev: 0,
            depth: 0,
            slack,
        };
        let place = self.move_to_new(slot, place, key, &old, head);
        record::extend(&mut self.arena, place, seqno, more);
    }

    /// The value at `place`, to be changed in place.
    #[inline]
    pub(crate) fn value_mut(&mut self, place: Place, seqno: Seqno) -> &mut [u8] {
        self.note(seqno);
        record::value_mut(&mut self.arena, place, seqno)
    }

    fn move_to_new(&mut self, slot: usize, old: Place, key: &[u8], value: &[u8], head: Head) -> Place {
        let place = record::push(&mut self.arena, key, value, head);
        record::cover(&mut self.arena, old);
        self.index.replace(slot, place);
        self.layout += 1;
        if let Some(tree) = &mut self.tree {
            tree.replace(&self.arena, place);
        }
        place
    }
}

#[cfg(test)]
mod tests;
