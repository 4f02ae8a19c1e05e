//! The index of a memtable: open addressing over `u64` slots, linear probing.
//!
//! ```text
//! slot (u64) = tag (high 32) · place (low 32); 0 = empty
//! home slot  = the tag's highest bits, so doubling the index never looks at a record
//! tag        = high half of hash × odd seed of this instance
//! ```
//! The seed keeps keys that were chosen against one instance from hurting the next; an index that is crowded
//! nevertheless (a probe longer than [`PROBE_MAX`]) says so, and its memtable is sealed early.

use crate::{arena::Place, budget::Allotment};

/// A probe longer than this marks the index as crowded.
const PROBE_MAX: usize = 512;
const SLOTS_FIRST: usize = 16;

/// From hashes to places.
#[derive(Debug)]
pub(crate) struct HashIndex {
    slots: Vec<u64>,
    /// The home slot of a tag is `tag >> shift`.
    shift: u32,
    len: usize,
    seed: u64,
    crowded: bool,
    /// What the slots take of the budget.
    memory: Allotment,
}

/// Where a key is or belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The key's record.
    Found {
        /// Slot that names the record.
        slot: usize,
        /// The record.
        place: Place,
    },
    /// The key is absent; valid until the next insertion.
    Vacant {
        /// Slot that would name the record.
        slot: usize,
        /// High half of the slot's value.
        tag: u32,
    },
}

impl HashIndex {
    /// Empty, without memory.
    pub(crate) fn new(seed: u64) -> Self {
        HashIndex {
            slots: Vec::new(),
            shift: 0,
            len: 0,
            seed: seed | 1,
            crowded: false,
            memory: Allotment::default(),
        }
    }

    /// Pays from `memory` from now on; called before the first insertion.
    pub(super) fn pay_from(&mut self, memory: Allotment) {
        self.memory = memory;
    }

    /// Whether so many keys can be added without more slots.
    #[inline(always)]
    pub(super) fn has_room(&self, keys: usize) -> bool {
        (self.len + keys) * 4 <= self.slots.len() * 3
    }

    /// Pays for the slots that so many keys more may need; false if the memory is not there.
    pub(super) fn prepare(&mut self, keys: usize) -> bool {
        let mut slots = self.slots.len().max(SLOTS_FIRST / 2);
        let mut grown = 0;
        while (self.len + keys) * 4 > slots * 3 {
            slots *= 2;
            grown += slots * 8;
        }
        grown == 0 || self.memory.prepay(grown)
    }

    /// What was paid for.
    pub(super) fn paid_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes of the slots.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * 8
    }

    /// Keys in the index.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether probes have become too long.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Finds the record of the key with this hash; `is_key` decides among equal tags.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, mut is_key: impl FnMut(Place) -> bool) -> Probe {
        let tag = (hash.wrapping_mul(self.seed) >> 32) as u32;
        let mask = self.slots.len().wrapping_sub(1);
        if self.slots.is_empty() {
            return Probe::Vacant {
                slot: usize::MAX,
                tag,
            };
        }
        let mut at = (tag >> self.shift) as usize;
        loop {
            let slot = self.slots[at & mask];
            if slot == 0 {
                return Probe::Vacant { slot: at & mask, tag };
            }
            if (slot >> 32) as u32 == tag && is_key(slot as u32) {
                return Probe::Found {
                    slot: at & mask,
                    place: slot as u32,
                };
            }
            at += 1;
        }
    }

    /// The home slot of a hash; 0 without slots.
    #[inline]
    pub(crate) fn home(&self, hash: u64) -> u64 {
        let tag = (hash.wrapping_mul(self.seed) >> 32) as u32;
        self.slots.get((tag >> self.shift) as usize).copied().unwrap_or(0)
    }

    /// The first record whose tag is that of the hash, its key unseen; 0 = none.
    #[inline]
    pub(crate) fn likely(&self, hash: u64) -> Place {
        match self.find(hash, |_| true) {
            Probe::Found { place, .. } => place,
            Probe::Vacant { .. } => 0,
        }
    }

    /// Names the record of a new key. `slot` and `tag` come from the [`Probe::Vacant`] of the same key.
    #[inline]
    pub(crate) fn insert(&mut self, slot: usize, tag: u32, place: Place) {
        self.len += 1;
        if self.len * 4 > self.slots.len() * 3 {
            self.grow();
            self.insert_tag(tag, place);
            return;
        }
        let home = (tag >> self.shift) as usize;
        if slot.wrapping_sub(home) & (self.slots.len() - 1) > PROBE_MAX {
            self.crowded = true;
        }
        self.slots[slot] = (u64::from(tag) << 32) | u64::from(place);
    }

    /// Names another record for a key that is in the index.
    #[inline]
    pub(crate) fn replace(&mut self, slot: usize, place: Place) {
        let tag = self.slots[slot] >> 32;
        self.slots[slot] = (tag << 32) | u64::from(place);
    }

    /// Forgets the key that `slot` names. Moves others, so probes of before are void.
    pub(crate) fn remove(&mut self, slot: usize) {
        let mask = self.slots.len() - 1;
        let (mut hole, mut at) = (slot, slot);
        loop {
            at = (at + 1) & mask;
            let moved = self.slots[at];
            if moved == 0 {
                break;
            }
            let home = ((moved >> 32) as u32 >> self.shift) as usize;
            // It stays unless its probe would end at the hole.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = moved;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
    }

    /// Shows what every key leads to, in no order.
    pub(super) fn each(&self, mut show: impl FnMut(Place)) {
        let taken = self.slots.iter().filter(|&&slot| slot != 0);
        taken.for_each(|&slot| show(slot as u32));
    }

    fn insert_tag(&mut self, tag: u32, place: Place) {
        let mask = self.slots.len() - 1;
        let mut at = (tag >> self.shift) as usize;
        while self.slots[at & mask] != 0 {
            at += 1;
        }
        self.slots[at & mask] = (u64::from(tag) << 32) | u64::from(place);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_FIRST);
        self.shift = 32 - slots.trailing_zeros();
        self.memory.charge(slots * 8);
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        let old_bytes = old.len() * 8;
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            self.insert_tag((slot >> 32) as u32, slot as u32);
        }
        self.memory.refund(old_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(index: &HashIndex, key: u32) -> Probe {
        index.find(keybed_format::checksum::hash(&key.to_le_bytes()), |place| {
            place == key
        })
    }

    #[test]
    fn every_key_is_found_at_every_size() {
        let mut index = HashIndex::new(0x1234_5678_9abc_def1);
        for key in 1..3000_u32 {
            let Probe::Vacant { slot, tag } = find(&index, key) else {
                panic!("{key} is not there yet")
            };
            index.insert(slot, tag, key);
            for old in (1..=key).step_by(97).chain([key]) {
                assert!(
                    matches!(find(&index, old), Probe::Found { place, .. } if place == old),
                    "{old} of {key}"
                );
            }
        }
        assert_eq!(index.len(), 2999);
        assert!(!index.is_crowded());
    }

    #[test]
    fn keys_come_and_go_like_those_of_a_set() {
        for seed in 0..8 {
            let mut random = keybed_env::Random::from_seed(seed);
            let mut index = HashIndex::new(random.u64());
            let mut model = std::collections::BTreeSet::new();
            // Few tags, so that probes are long and pass the end.
            let tags = [2, 5, 300][seed as usize % 3];
            let hash = |key: u32| (u64::from(key % tags).wrapping_sub(1)) << 32;
            for _ in 0..4000 {
                let key = 1 + random.below(180) as u32;
                match index.find(hash(key), |place| place == key) {
                    Probe::Vacant { slot, tag } => {
                        assert!(model.insert(key), "seed {seed}");
                        index.insert(slot, tag, key);
                    }
                    Probe::Found { slot, .. } => {
                        assert!(model.remove(&key), "seed {seed}");
                        index.remove(slot);
                    }
                }
                assert_eq!(index.len(), model.len());
            }
            for key in 1..=180 {
                let is_there = matches!(index.find(hash(key), |place| place == key), Probe::Found { .. });
                assert_eq!(is_there, model.contains(&key), "seed {seed}");
            }
        }
    }

    #[test]
    fn keys_of_one_tag_crowd_the_index_but_are_found() {
        let mut index = HashIndex::new(1);
        for key in 1..2000_u32 {
            let Probe::Vacant { slot, tag } = index.find(7 << 32, |place| place == key) else {
                panic!("new")
            };
            index.insert(slot, tag, key);
        }
        assert!(index.is_crowded());
        assert!(matches!(
            index.find(7 << 32, |place| place == 1999),
            Probe::Found { place: 1999, .. }
        ));
    }
}
