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
//! of a merge operator that cannot combine them, and cursors (kept.rs), keep older records reachable (`prev`).

mod covers;
mod hash;
mod iter;
mod kept;
mod node;
mod order;
mod ordered;
mod prefix;
mod record;
mod sealed;

pub(crate) use covers::Covers;
pub(crate) use hash::Probe;
pub(crate) use iter::{Held, MemtableIter};
pub(crate) use kept::Watch;
pub use order::MemtableKind;
pub(crate) use order::{Active, Order};
pub use prefix::PrefixRule;
pub(crate) use sealed::Sealed;

use crate::{
    arena::{Arena, Place},
    budget::{Lease, Pool, SealedBytes, WriteMemory},
    key::{self, Entry, EntryKind, Seqno},
};
use hash::HashIndex;
use kept::Kept;
use ordered::Tree;
use prefix::Groups;
use record::{Head, Record};
use std::hint::black_box;
use std::sync::Arc;

/// What a separator of usual keys takes in the arena. Many keys need less than one for eight.
const SEPARATOR_BYTES: usize = 128;

/// Operands that may wait behind the newest one in a memtable.
pub(crate) const CHAIN_MAX: u8 = 32;

/// A hash index over an arena, with or without an order.
#[derive(Debug)]
pub(crate) struct Memtable {
    arena: Arena,
    index: HashIndex,
    /// Ordered: all keys. Prefix: those of large groups.
    tree: Option<Box<Tree>>,
    /// Prefix: the keys of small groups.
    groups: Option<Box<Groups>>,
    /// Rises when a key is added or moves, so a sorted order can tell whether it still holds.
    layout: u64,
    seqno_min: Seqno,
    seqno_max: Seqno,
    kept: Kept,
    /// Bytes of versions that were appended for the sake of cursors, not counted yet.
    kept_bytes: usize,
    /// Range deletes and floors; none in a family that never saw one.
    covers: Option<Box<Covers>>,
    /// What it is paid from; none in tests of the memtable alone.
    memory: Option<WriteMemory>,
    /// Bytes they took at most, about: a memtable's bytes never fall while it is active.
    covers_bytes: usize,
    /// What is paid for them; none until there are some.
    covers_lease: Option<Lease>,
}

impl Memtable {
    /// Empty, without memory; `seed` drives the index.
    pub(crate) fn new(kind: MemtableKind, seed: u64) -> Self {
        Memtable {
            arena: Arena::default(),
            index: HashIndex::new(seed),
            tree: (kind != MemtableKind::Hash).then(|| Box::new(Tree::new())),
            groups: match kind {
                MemtableKind::Prefix(rule) => Some(Box::new(Groups::new(rule, seed))),
                _ => None,
            },
            layout: 0,
            seqno_min: Seqno::MAX,
            seqno_max: 0,
            kept: Kept::default(),
            kept_bytes: 0,
            covers: None,
            memory: None,
            covers_bytes: 0,
            covers_lease: None,
        }
    }

    /// As [`Memtable::new`]; what it takes is paid from `memory`.
    pub(crate) fn within(kind: MemtableKind, seed: u64, memory: &WriteMemory) -> Self {
        let mut memtable = Memtable::new(kind, seed);
        memtable.arena = Arena::within(memory.allotment());
        memtable.index.pay_from(memory.allotment());
        if let Some(tree) = &mut memtable.tree {
            tree.pay_from(memory.allotment());
        }
        if let Some(groups) = &mut memtable.groups {
            groups.pay_from((memory.allotment(), memory.allotment()));
        }
        memtable.memory = Some(memory.clone());
        memtable
    }

    /// Whether its tree holds all keys.
    #[inline]
    fn is_in_order(&self) -> bool {
        self.tree.is_some() && self.groups.is_none()
    }

    /// Pays for an order of so many bytes per key; none where there is nothing to sort or to pay from.
    fn lease_for_order(&self, bytes: usize) -> Option<Lease> {
        let memory = self.memory.as_ref().filter(|_| !self.is_in_order())?;
        Some(memory.overdraw(Pool::Iterator, bytes * self.len()))
    }

    /// Tells the budget that what it takes will come back.
    fn promise(&self) -> Option<SealedBytes> {
        let memory = self.memory.as_ref()?;
        Some(memory.promise(self.paid_bytes()))
    }

    /// An empty one that is paid from the same memory.
    fn like(&self, kind: MemtableKind, seed: u64) -> Self {
        match &self.memory {
            Some(memory) => Memtable::within(kind, seed, memory),
            None => Memtable::new(kind, seed),
        }
    }

    /// Whether a record of `bytes` fits without more memory.
    #[inline(always)]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.has_room_for(bytes, 1)
    }

    /// Whether `keys` records of `bytes` together fit without more memory.
    #[inline(always)]
    pub(crate) fn has_room_for(&self, bytes: usize, keys: usize) -> bool {
        self.arena.has_room(bytes + self.separator_bytes(keys))
            && self.index.has_room(keys)
            && self.tree.as_ref().is_none_or(|tree| tree.has_room(keys))
            && self.groups.as_ref().is_none_or(|groups| groups.has_room(keys))
    }

    /// Pays for what `keys` records of `bytes` together may need; false if the memory is not there.
    pub(crate) fn prepare(&mut self, bytes: usize, keys: usize) -> bool {
        self.arena.prepare(bytes + self.separator_bytes(keys))
            && self.index.prepare(keys)
            && self.tree.as_mut().is_none_or(|tree| tree.prepare(keys))
            && self.groups.as_mut().is_none_or(|groups| groups.prepare(keys))
    }

    /// Bytes of the records that the order needs for so many keys more, about.
    #[inline(always)]
    fn separator_bytes(&self, keys: usize) -> usize {
        self.tree.as_ref().map_or(0, |_| SEPARATOR_BYTES * (1 + keys / 8))
    }

    /// Bytes that it takes of the budget.
    pub(crate) fn paid_bytes(&self) -> usize {
        let tree = self.tree.as_ref().map_or(0, |tree| tree.paid_bytes());
        let groups = self.groups.as_ref().map_or(0, |groups| groups.paid_bytes());
        let covers = self.covers_lease.as_ref().map_or(0, Lease::bytes);
        self.arena.paid_bytes() + self.index.paid_bytes() + tree + groups + covers
    }

    /// Whether it keeps its keys in order.
    #[inline]
    pub(crate) fn is_ordered(&self) -> bool {
        self.tree.is_some()
    }

    /// Keys, deleted ones included if something of them may lie below.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing was written, neither something that is gone again: the flush of that is logged, too.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.seqno_min == Seqno::MAX
    }

    /// Bytes in use.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        let tree = self.tree.as_ref().map_or(0, |tree| tree.bytes());
        let groups = self.groups.as_ref().map_or(0, |groups| groups.bytes());
        self.arena.used() + self.index.bytes() + tree + groups + self.covers_bytes
    }

    /// Whether it must be sealed although its bytes are within the budget.
    #[inline]
    pub(crate) fn must_seal(&self) -> bool {
        self.index.is_crowded()
            || self.arena.is_full()
            || self.covers.as_ref().is_some_and(|covers| covers.is_crowded())
            || self.groups.as_ref().is_some_and(|groups| groups.is_crowded())
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

    /// The newest version of a key. A key that is covered by a range delete is one that was deleted, at place 0.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], hash: u64) -> Option<(Place, EntryKind, &[u8])> {
        if let Some(covers) = &self.covers {
            return self.get_covered(covers, key, hash);
        }
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

    /// Reads the first cache lines of records that will be looked at soon, so that the misses overlap.
    #[inline]
    pub(crate) fn touch(&self, places: &[Place]) {
        let mut touched = 0;
        for &place in places {
            let bytes = self.arena.at(place);
            touched ^= bytes.first().unwrap_or(&0) ^ bytes.get(64).unwrap_or(&0);
        }
        black_box(touched);
    }

    /// The version at a place.
    #[inline]
    pub(crate) fn entry(&self, place: Place) -> Entry<'_> {
        Record::at(&self.arena, place).entry()
    }

    /// The next older operand behind a version; 0 = none.
    #[inline]
    pub(crate) fn older(&self, place: Place) -> Place {
        Record::at(&self.arena, place).operand_behind()
    }

    /// The newest version below `below` among the one at `place` and those behind it; 0 = none.
    #[inline]
    pub(crate) fn version_below(&self, mut place: Place, below: Seqno) -> Place {
        while place != 0 {
            let record = Record::at(&self.arena, place);
            if record.seqno() < below {
                break;
            }
            place = record.prev();
        }
        place
    }

    /// Whether the version at `place` must stay as it is, because a cursor may see it.
    #[inline(always)]
    pub(crate) fn keeps(&self, place: Place) -> bool {
        self.kept.keeps(Record::at(&self.arena, place).seqno())
    }

    /// Registers a cursor that sees what is below `seqno`.
    pub(crate) fn watch(&self, seqno: Seqno) -> Arc<Watch> {
        self.kept.watch(seqno)
    }

    /// Bytes of versions that were appended for the sake of cursors since the last call.
    #[inline(always)]
    pub(crate) fn take_kept_bytes(&mut self) -> usize {
        if self.kept_bytes == 0 {
            return 0;
        }
        std::mem::take(&mut self.kept_bytes)
    }

    /// Operands behind a version.
    pub(crate) fn depth(&self, place: Place) -> u8 {
        Record::at(&self.arena, place).depth()
    }

    #[inline]
    fn note_seqno(&mut self, seqno: Seqno) {
        self.seqno_min = self.seqno_min.min(seqno);
        self.seqno_max = self.seqno_max.max(seqno);
    }

    /// A version of `key` is being written.
    #[inline]
    fn note(&mut self, key: &[u8], seqno: Seqno) {
        self.note_seqno(seqno);
        if let Some(covers) = &mut self.covers {
            covers.note_write(key);
        }
    }

    /// Makes `value` the current version of the key that `probe` stands for.
    #[inline]
    pub(crate) fn write(&mut self, probe: Probe, key: &[u8], seqno: Seqno, kind: EntryKind, value: &[u8]) {
        self.note(key, seqno);
        match probe {
            Probe::Found { slot, place } => {
                let record = Record::at(&self.arena, place);
                if value.len() <= record.capacity() && !self.kept.keeps(record.seqno()) {
                    if record.prev() != 0 {
                        record::cut_chain(&mut self.arena, place);
                    }
                    record::overwrite(&mut self.arena, place, seqno, kind, value);
                } else {
                    self.replace(slot, place, key, seqno, kind, value);
                }
            }
            Probe::Vacant { slot, tag } => {
                let head = Head {
                    seqno,
                    kind,
                    prev: 0,
                    replaces: false,
                    depth: 0,
                    slack: 0,
                };
                let place = record::push(&mut self.arena, key, value, head);
                self.index.insert(slot, tag, place);
                self.layout += 1;
                match (&mut self.tree, &mut self.groups) {
                    (None, _) => {}
                    (Some(tree), None) => tree.insert(&mut self.arena, place),
                    (Some(tree), Some(groups)) => groups.insert(&mut self.arena, tree, place),
                }
            }
        }
    }

    /// Deletes a key of which no older source holds anything. Where the keys are kept in order it is gone from there
    /// and from the index, and its bytes go to others; only a version that a cursor may see stays behind a tombstone.
    #[inline]
    pub(crate) fn remove(&mut self, probe: Probe, key: &[u8], seqno: Seqno) {
        match (probe, &mut self.tree) {
            (Probe::Vacant { .. }, _) => {}
            (Probe::Found { slot, place }, Some(tree)) if !is_seen(&self.kept, &self.arena, place) => {
                match &mut self.groups {
                    None => tree.remove(&mut self.arena, key),
                    Some(groups) => groups.remove(&mut self.arena, tree, key),
                }
                self.layout += 1;
                self.index.remove(slot);
                free_all(&mut self.arena, place);
            }
            (Probe::Found { .. }, _) => return self.write(probe, key, seqno, EntryKind::Delete, &[]),
        }
        self.note_seqno(seqno);
    }

    /// Appends a record that takes the place of the one at `place`, because that one is too small or must stay.
    fn replace(
        &mut self,
        slot: usize,
        place: Place,
        key: &[u8],
        seqno: Seqno,
        kind: EntryKind,
        value: &[u8],
    ) {
        let capacity = Record::at(&self.arena, place).capacity();
        // A value that outgrew its record once will do it again: leave room up to a power of two.
        let capacity = if value.len() > capacity {
            value.len().next_power_of_two()
        } else {
            capacity
        };
        let head = Head {
            seqno,
            kind,
            prev: if self.kept.is_watched() { place } else { 0 },
            replaces: true,
            depth: 0,
            slack: capacity - value.len(),
        };
        self.move_to_new(slot, place, key, value, head);
    }

    /// Puts an operand in front of the merge chain at `place`, which stays reachable behind it.
    pub(crate) fn chain(
        &mut self,
        (slot, place): (usize, Place),
        key: &[u8],
        seqno: Seqno,
        kind: EntryKind,
        operand: &[u8],
    ) {
        self.note(key, seqno);
        let depth = Record::at(&self.arena, place).depth().saturating_add(1);
        let head = Head {
            seqno,
            kind,
            prev: place,
            replaces: false,
            depth,
            slack: 0,
        };
        self.move_to_new(slot, place, key, operand, head);
    }

    /// Adds bytes behind the value at `place`, keeping its kind.
    pub(crate) fn extend(&mut self, slot: usize, place: Place, key: &[u8], seqno: Seqno, more: &[u8]) {
        self.note(key, seqno);
        let record = Record::at(&self.arena, place);
        let bytes = record.value().len() + more.len();
        if bytes <= record.capacity() && !self.kept.keeps(record.seqno()) {
            record::extend(&mut self.arena, place, seqno, more);
            return;
        }
        let (kind, mut value) = (record.kind(), Vec::with_capacity(bytes));
        value.extend_from_slice(record.value());
        value.extend_from_slice(more);
        self.replace(slot, place, key, seqno, kind, &value);
    }

    /// The value at `place`, to be changed in place. The caller made sure that nobody [keeps](Memtable::keeps) it.
    #[inline]
    pub(crate) fn value_mut(&mut self, place: Place, seqno: Seqno) -> &mut [u8] {
        self.note_seqno(seqno);
        if let Some(covers) = &mut self.covers {
            covers.note_write(Record::at(&self.arena, place).key());
        }
        record::value_mut(&mut self.arena, place, seqno)
    }

    fn move_to_new(&mut self, slot: usize, old: Place, key: &[u8], value: &[u8], head: Head) {
        let before = self.arena.used();
        let place = record::push(&mut self.arena, key, value, head);
        if head.replaces && head.prev != 0 {
            self.kept_bytes += self.arena.used() - before;
        }
        record::cover(&mut self.arena, old);
        self.index.replace(slot, place);
        self.layout += 1;
        match (&mut self.tree, &mut self.groups) {
            (None, _) => {}
            (Some(tree), None) => tree.replace(&self.arena, place),
            (Some(tree), Some(groups)) => groups.replace(&self.arena, tree, place),
        }
    }
}

/// Whether a cursor may see the version at `place` or one behind it.
#[inline]
fn is_seen(kept: &Kept, arena: &Arena, place: Place) -> bool {
    let record = Record::at(arena, place);
    kept.keeps(record.seqno()) || (record.prev() != 0 && kept.has_cursors())
}

/// Lets go of the record at `place` and of those behind it.
fn free_all(arena: &mut Arena, mut place: Place) {
    while place != 0 {
        let prev = Record::at(arena, place).prev();
        record::free(arena, place);
        place = prev;
    }
}

#[cfg(test)]
mod tests;
