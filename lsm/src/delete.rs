//! Deleting many keys at once: ranges, prefixes, everything below a floor, a whole family.
//!
//! | verb | costs when it is written | reads until it is merged away |
//! |---|---|---|
//! | `delete_range`, `delete_prefix` | one fragment in the memtable | skip the keys by a seek |
//! | `raise_floor` | a pair in memory | one look-up per read of the family |
//! | `clear` | an edit | nothing |

use crate::{
    batch::Op,
    family::Family,
    floor::{FLOORS_MAX, Floor, too_many_floors},
    key::KeyRange,
    store::Store,
};
use keybed_format::Result;
use std::{collections::BTreeSet, ops::RangeBounds};

/// A range delete that frees files of at least this share of a file's target is flushed at once.
const SEAL_SHARE: u64 = 4;

impl Store {
    /// Removes every key of a range, as if each one were deleted now: keys that are written later stay. Costs one small
    /// record, however many keys there are; reads pass over the removed keys by a seek, and tables that hold no others
    /// go without being read.
    ///
    /// # Errors
    /// As [`Store::put`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// for key in [b"o-1", b"o-2", b"o-3"] {
    ///     store.put(orders, key, b"42")?;
    /// }
    /// store.delete_range(orders, &b"o-1"[..]..&b"o-3"[..])?;
    /// assert!(store.get(orders, b"o-2")?.is_none());
    /// assert!(store.get(orders, b"o-3")?.is_some());
    /// # Ok(()) }
    /// ```
    pub fn delete_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result {
        self.delete_keys(family, &KeyRange::of(&range))
    }

    /// Removes every key that begins with `prefix`; as [`Store::delete_range`].
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn delete_prefix(&mut self, family: Family, prefix: &[u8]) -> Result {
        self.delete_keys(family, &KeyRange::prefix(prefix))
    }

    fn delete_keys(&mut self, family: Family, range: &KeyRange) -> Result {
        self.before_write()?;
        let (seqno, target_bytes) = (self.next_seqno, self.shared.options.target_file_bytes);
        let owned = self.owned(family)?;
        let memtable = &owned.active.memtable;
        if range.is_empty()
            || (memtable.is_empty() && owned.sealed.is_empty() && owned.version.runs.is_empty())
        {
            return Ok(());
        }
        if self.journal.is_on() {
            self.log_all(std::iter::once(Op::DeleteRange {
                family: family.0,
                start: &range.start,
                end: range.end.as_deref(),
            }))?;
        }
        let owned = self.owned_mut(family)?;
        let memtable = &mut owned.active.memtable;
        let before = memtable.bytes();
        memtable.delete_range(range, seqno);
        let grown = memtable.bytes() - before;
        // Tables go only together with the range delete that covers them, or a crash would forget a part of it. Where
        // that frees more than it writes it is flushed now.
        let freed = owned.version.bytes_inside(range);
        let seals = freed >= target_bytes / SEAL_SHARE && freed >= memtable.bytes() as u64;
        self.after_write(family, grown);
        if seals {
            self.seal(family.0 as usize);
        }
        Ok(())
    }

    /// Removes everything of a partition below a bound, and says so for the future: the pair (bound, seqno) is all that
    /// is kept, however often the floor rises. `partition` is as long as
    /// [`FamilyOptions::partition_prefix`](crate::FamilyOptions), `bound` is what follows it in the first key that
    /// stays. Keys that are written later stay, also below the bound, until the floor is raised again.
    ///
    /// Returns false, and changes nothing, if the floor lies above `bound` already.
    ///
    /// # Errors
    /// `InvalidArgument` if the partition has another length, the bound is longer than a key, or more than
    /// [`FLOORS_MAX`](crate::floor::FLOORS_MAX) partitions would have floors; as [`Store::put`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{FamilyOptions, Store, StoreOptions};
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let timers = store.family_with("timers", FamilyOptions { partition_prefix: 2, ..FamilyOptions::default() })?;
    /// for (group, time) in [(1_u16, 10_u64), (1, 20), (2, 10)] {
    ///     store.put(timers, &[&group.to_be_bytes()[..], &time.to_be_bytes()].concat(), b"")?;
    /// }
    /// store.raise_floor(timers, &1_u16.to_be_bytes(), &15_u64.to_be_bytes())?;
    /// assert_eq!(store.range(timers, ..)?.count(), 2);
    /// # Ok(()) }
    /// ```
    pub fn raise_floor(&mut self, family: Family, partition: &[u8], bound: &[u8]) -> Result<bool> {
        self.before_write()?;
        let seqno = self.next_seqno;
        if self.journal.is_on() && self.would_raise(family, partition, bound)? {
            self.log_all(std::iter::once(Op::RaiseFloor {
                family: family.0,
                partition,
                bound,
            }))?;
        }
        let owned = self.owned_mut(family)?;
        let floor = Floor {
            partition: partition.to_vec(),
            bound: bound.to_vec(),
            seqno,
        };
        let memtable = &mut owned.active.memtable;
        let before = memtable.bytes();
        let has_risen = memtable.raise_floor(owned.options.partition_prefix, floor)?;
        if has_risen {
            let grown = memtable.bytes() - before;
            self.after_write(family, grown);
        }
        Ok(has_risen)
    }

    /// Whether a floor would rise: what changes nothing is not logged, and takes no seqno.
    pub(crate) fn would_raise(&self, family: Family, partition: &[u8], bound: &[u8]) -> Result<bool> {
        let owned = self.owned(family)?;
        let floor = Floor {
            partition: partition.to_vec(),
            bound: bound.to_vec(),
            seqno: self.next_seqno,
        };
        floor.check(owned.options.partition_prefix)?;
        let floors = owned.active.memtable.floors();
        let old = floors.and_then(|floors| floors.get(partition));
        let has_room = old.is_some() || floors.is_none_or(|floors| floors.len() < FLOORS_MAX);
        Ok(has_room && !bound.is_empty() && old.is_none_or(|old| old.bound.as_slice() <= bound))
    }

    /// Refuses floors of families and partitions that would not all find room.
    pub(crate) fn check_floors(&self, raised: &BTreeSet<(u32, &[u8])>) -> Result {
        let mut rest = raised.iter().peekable();
        while let Some((family, _)) = rest.peek().copied() {
            let floors = self.owned(Family(*family))?.active.memtable.floors();
            let is_new = |partition: &[u8]| floors.is_none_or(|floors| floors.get(partition).is_none());
            let mut count = floors.map_or(0, |floors| floors.len());
            while let Some((_, partition)) = rest.next_if(|(other, _)| other == family) {
                count += usize::from(is_new(partition));
            }
            if count > FLOORS_MAX {
                return Err(too_many_floors(count));
            }
        }
        Ok(())
    }

    /// The bound of a partition's floor; `None` without one.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store.
    pub fn floor(&self, family: Family, partition: &[u8]) -> Result<Option<Vec<u8>>> {
        let floors = self.owned(family)?.active.memtable.floors();
        Ok(floors
            .and_then(|floors| floors.get(partition))
            .map(|floor| floor.bound))
    }

    /// Removes everything of a family at once: memtables, tables and floors. `View`s and pinned files keep what they
    /// saw, and files go when nobody holds them any more. Takes effect in the manifest before it returns.
    ///
    /// # Errors
    /// `Closed`; `Poisoned`; `InvalidArgument` if the token is not of this store; errors of the file system.
    pub fn clear(&mut self, family: Family) -> Result {
        self.check_open()?;
        self.refresh();
        let id = self.shared_id(family)?;
        let seqno = self.next_seqno;
        self.check_writable()?;
        // What comes earlier, in other families, must not be lost where this is kept.
        self.shared.sync_whole_log()?;
        self.shared.clear(family.0 as usize, id, seqno)?;
        self.next_seqno += 1;
        // The owner takes over an empty memtable and an empty version.
        self.refresh();
        self.shared.bury_the_dead();
        Ok(())
    }
}
