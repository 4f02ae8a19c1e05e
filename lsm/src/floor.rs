//! Floors: below them everything of a partition is gone, at the price of one pair instead of tombstones.
//!
//! ```text
//! partition (first bytes of a key)   ─►   (bound, seqno)
//!
//! a version is gone  ⇔  its key begins with the partition and lies below partition · bound,
//!                       and its seqno is below the floor's
//! ```
//! A fired window and a popped timer are never read again: raising the floor drops all of them at once. A version
//! written later than the floor was raised stays visible, also below it. A bound only rises; raising it again to the
//! same bound deletes what was written below since.
//!
//! Where floors are: the active memtable of a family holds the newest ones (one `Arc`, so that `View`s, pinned files
//! and sealed memtables capture them by a clone); the flush of a memtable logs those that were raised while it was
//! active, with the edit that adds its table. Merges use the logged ones alone: what they drop must be gone after a
//! crash, too. Pure: no I/O.

use crate::{
    key::{KEY_BYTES_MAX, KeyRange, Seqno},
    range_delete::{Fragment, RangeDeletes, Region},
};
use keybed_format::{Error, Result};

/// Partitions of a family that may have floors, at most: they are in memory, and in every full edit of the manifest.
pub const FLOORS_MAX: usize = 64 << 10;

/// Why no further partition gets a floor.
pub(crate) fn too_many_floors(count: usize) -> Error {
    Error::invalid("too many partitions of a family have floors").expected_found(FLOORS_MAX, count)
}

/// The floor of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The first bytes of the keys: as many as [`FamilyOptions::partition_prefix`](crate::FamilyOptions) says.
    pub partition: Vec<u8>,
    /// What follows the partition in the first key that is not below the floor.
    pub bound: Vec<u8>,
    /// Versions with smaller seqnos are gone below the bound.
    pub seqno: Seqno,
}

impl Floor {
    /// The keys below it.
    pub fn range(&self) -> KeyRange {
        KeyRange {
            start: self.partition.clone(),
            end: Some([&self.partition[..], &self.bound].concat()),
        }
    }

    /// Refuses what is no floor of a family with this partition prefix.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn check(&self, partition_prefix: u8) -> Result {
        if self.partition.len() != usize::from(partition_prefix) {
            return Err(
                Error::invalid("a partition has as many bytes as the family's partition prefix")
                    .expected_found(partition_prefix, self.partition.len()),
            );
        }
        if self.partition.len() + self.bound.len() > KEY_BYTES_MAX {
            return Err(Error::invalid("a floor is longer than a key")
                .expected_found(KEY_BYTES_MAX, self.partition.len() + self.bound.len()));
        }
        Ok(())
    }
}

/// The floors of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// One fragment per partition.
    fragments: RangeDeletes,
    partition_prefix: usize,
}

impl Floors {
    /// None, for a family with this partition prefix.
    pub fn new(partition_prefix: u8) -> Self {
        Floors {
            fragments: RangeDeletes::new(),
            partition_prefix: partition_prefix.into(),
        }
    }

    /// Partitions with a floor.
    pub fn len(&self) -> usize {
        self.fragments.len()
    }

    /// Whether no partition has a floor.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// About how many bytes of memory they take.
    pub fn bytes(&self) -> usize {
        self.fragments.bytes()
    }

    /// The highest floor of a partition.
    pub fn get(&self, partition: &[u8]) -> Option<Floor> {
        let inside = self.fragments.clip(&KeyRange::prefix(partition));
        let floor = inside.iter().next_back().map(|fragment| self.floor(fragment));
        floor.filter(|floor| floor.partition == partition)
    }

    fn floor(&self, fragment: Fragment<'_>) -> Floor {
        let cut = |key: &[u8]| self.partition_prefix.min(key.len());
        let end = fragment.end.unwrap_or_default();
        Floor {
            partition: fragment.start[..cut(fragment.start)].to_vec(),
            bound: end[cut(end)..].to_vec(),
            seqno: fragment.seqno,
        }
    }

    /// Raises a floor; false, and nothing changes, if its bound lies below the one that is there.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no floor of the family, or one too many.
    pub fn raise(&mut self, floor: &Floor) -> Result<bool> {
        let old = self.get(&floor.partition);
        if old.as_ref().is_some_and(|old| old.bound > floor.bound) || floor.bound.is_empty() {
            floor.check(self.partition_prefix as u8)?;
            return Ok(false);
        }
        self.add(floor)?;
        Ok(true)
    }

    /// Adds what a floor says to what the others say: a manifest's reader and a store that is mounted around the parts
    /// of several meet floors in any order.
    ///
    /// # Errors
    /// As [`Floors::raise`].
    pub fn add(&mut self, floor: &Floor) -> Result {
        floor.check(self.partition_prefix as u8)?;
        if self.len() >= FLOORS_MAX && self.get(&floor.partition).is_none() {
            return Err(too_many_floors(self.len() + 1));
        }
        // Floors of two partitions never touch: the end of a floor begins with its partition.
        self.fragments.insert(&floor.range(), floor.seqno);
        Ok(())
    }

    /// Whether [`Floors::note_write`] of `key` would change anything.
    pub fn misses_write(&self, key: &[u8]) -> bool {
        self.fragments.misses_write(key)
    }

    /// Remembers that a version of `key` was written that is newer than the floor above it.
    pub fn note_write(&mut self, key: &[u8]) {
        self.fragments.note_write(key);
    }

    /// The seqno below which versions of `key` are gone.
    pub fn covering(&self, key: &[u8]) -> Option<Seqno> {
        self.fragments.covering(key)
    }

    /// The widest range around `key` of which everything or nothing lies below one floor.
    pub fn region(&self, key: &[u8]) -> Region {
        self.fragments.region(key)
    }

    /// As ranges of keys.
    pub fn fragments(&self) -> &RangeDeletes {
        &self.fragments
    }

    /// All floors, by partition; a partition may have several where floors of several stores came together.
    pub fn iter(&self) -> impl Iterator<Item = Floor> {
        self.fragments.iter().map(|fragment| self.floor(fragment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(partition: &[u8], bound: &[u8], seqno: Seqno) -> Floor {
        Floor {
            partition: partition.to_vec(),
            bound: bound.to_vec(),
            seqno,
        }
    }

    #[test]
    fn a_floor_rises_and_its_partition_alone_is_below_it() {
        let mut floors = Floors::new(2);
        assert!(floors.raise(&floor(b"p1", b"\x05", 10)).unwrap());
        assert_eq!(floors.covering(b"p1\x04\xff"), Some(10));
        assert_eq!(floors.covering(b"p1"), Some(10));
        for other in [&b"p1\x05"[..], b"p2\x01", b"p0\x01", b"p"] {
            assert_eq!(floors.covering(other), None, "{other:?}");
        }
        assert!(!floors.raise(&floor(b"p1", b"\x04", 11)).unwrap());
        assert!(!floors.raise(&floor(b"p1", b"", 11)).unwrap());
        assert_eq!(floors.covering(b"p1\x03"), Some(10));
        // The same bound again: what was written below since is gone, too.
        assert!(floors.raise(&floor(b"p1", b"\x05", 12)).unwrap());
        assert!(floors.raise(&floor(b"p1", b"\x07", 13)).unwrap());
        assert!(floors.raise(&floor(b"p2", b"\xff\xff", 14)).unwrap());
        assert_eq!(floors.get(b"p1"), Some(floor(b"p1", b"\x07", 13)));
        assert_eq!(floors.get(b"p3"), None);
        let all: Vec<Floor> = floors.iter().collect();
        assert_eq!(all, [floor(b"p1", b"\x07", 13), floor(b"p2", b"\xff\xff", 14)]);
        assert!(floors.region(b"p1\x02").keys == floor(b"p1", b"\x07", 13).range());
    }

    #[test]
    fn floors_of_two_stores_come_together_in_any_order() {
        let parts = [floor(b"p", b"\x20", 50), floor(b"p", b"\x90", 30)];
        for order in [[0, 1], [1, 0]] {
            let mut floors = Floors::new(1);
            order.iter().for_each(|&at| floors.add(&parts[at]).unwrap());
            assert_eq!(floors.covering(b"p\x10"), Some(50));
            assert_eq!(floors.covering(b"p\x20"), Some(30));
            let mut again = Floors::new(1);
            floors.iter().for_each(|floor| again.add(&floor).unwrap());
            assert_eq!(again, floors);
        }
    }

    #[test]
    fn floors_of_a_family_without_partitions_and_wrong_ones() {
        let mut floors = Floors::new(0);
        assert!(floors.raise(&floor(b"", b"k", 3)).unwrap());
        assert_eq!((floors.covering(b"j"), floors.covering(b"k")), (Some(3), None));
        assert!(floors.raise(&floor(b"p", b"k", 3)).is_err());
        let long = vec![0xff; KEY_BYTES_MAX];
        assert!(Floors::new(1).raise(&floor(b"p", &long, 3)).is_err());
    }
}
