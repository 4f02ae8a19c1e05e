//! What hides keys of a memtable and of everything older: the range deletes written to it, and the family's floors.
//!
//! A range delete hides the records of its keys that are older than it, and these keys in all older sources. A floor
//! hides whatever is older than it, wherever it lies, and nothing else: a later write below it may lie in any source.

use super::{Memtable, MemtableKind, hash::Probe, record::Record};
use crate::{
    arena::Place,
    budget::Pool,
    floor::{Floor, Floors},
    key::{Entry, EntryKind, KeyRange, Seqno},
    range_delete::{RANGE_DELETE_BYTES_MAX, RANGE_DELETES_MAX, RangeDeletes},
};
use keybed_format::Result;
use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

/// Range deletes and floors of a memtable. A `Cursor` keeps the `Arc`s it saw; a change then makes new ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Covers {
    pub(crate) deletes: Arc<RangeDeletes>,
    /// All floors of the family at the time of the last write. Those that come from the manifest know of no writes:
    /// what they say of later ones holds for memtables alone.
    pub(crate) floors: Option<Arc<Floors>>,
    /// Those that rose since this memtable became active: they are logged with its flush.
    pub(crate) raised: BTreeMap<Vec<u8>, Floor>,
}

/// What a raised floor takes besides its keys, about.
const RAISED_BYTES: usize = 96;

impl Covers {
    /// What goes on to hold when the next memtable becomes active.
    pub(super) fn successor(&self) -> Option<Box<Covers>> {
        let floors = self.floors.clone()?;
        Some(Box::new(Covers {
            floors: Some(floors),
            ..Covers::default()
        }))
    }

    /// Whether nothing was written here.
    pub(crate) fn is_untouched(&self) -> bool {
        self.deletes.is_empty() && self.raised.is_empty()
    }

    /// Whether the memtable should be sealed for the sake of its readers.
    pub(super) fn is_crowded(&self) -> bool {
        self.deletes.len() >= RANGE_DELETES_MAX
            || self.deletes.key_bytes() >= RANGE_DELETE_BYTES_MAX
            || self.raised.len() >= RANGE_DELETES_MAX
    }

    /// Returns how many bytes it takes more.
    pub(super) fn delete_range(&mut self, range: &KeyRange, seqno: Seqno) -> usize {
        let before = self.deletes.bytes();
        Arc::make_mut(&mut self.deletes).insert(range, seqno);
        self.deletes.bytes().saturating_sub(before)
    }

    /// Raises a floor and returns how many bytes it takes more; `None` if it does not rise.
    pub(super) fn raise(&mut self, partition_prefix: u8, floor: Floor) -> Result<Option<usize>> {
        let floors = self
            .floors
            .get_or_insert_with(|| Arc::new(Floors::new(partition_prefix)));
        if !Arc::make_mut(floors).raise(&floor)? {
            return Ok(None);
        }
        let bytes = |floor: &Floor| 2 * floor.partition.len() + floor.bound.len() + RAISED_BYTES;
        let taken = bytes(&floor);
        let old = self.raised.insert(floor.partition.clone(), floor);
        Ok(Some(taken.saturating_sub(old.as_ref().map_or(0, bytes))))
    }

    /// A version was written to `key`.
    #[cold]
    pub(super) fn note_write(&mut self, key: &[u8]) {
        if self.deletes.misses_write(key) {
            Arc::make_mut(&mut self.deletes).note_write(key);
        }
        if let Some(floors) = self.floors.as_mut().filter(|floors| floors.misses_write(key)) {
            Arc::make_mut(floors).note_write(key);
        }
    }

    /// The seqno below which records of `key` are gone here.
    pub(crate) fn below(&self, key: &[u8]) -> Seqno {
        let deleted = self.deletes.covering(key).unwrap_or(0);
        let floor = self.floors.as_ref().and_then(|floors| floors.covering(key));
        deleted.max(floor.unwrap_or(0))
    }
}

impl Memtable {
    /// Empty, for a family that has these floors.
    pub(crate) fn with_floors(mut self, floors: Option<Arc<Floors>>) -> Self {
        self.covers = floors.map(|floors| {
            Box::new(Covers {
                floors: Some(floors),
                ..Covers::default()
            })
        });
        self.lease_floors();
        self
    }

    /// Empty, in the place of this one.
    pub(crate) fn successor(&self, kind: MemtableKind, seed: u64) -> Self {
        let mut successor = self.like(kind, seed);
        successor.covers = self.covers.as_ref().and_then(|covers| covers.successor());
        successor.lease_floors();
        successor
    }

    /// [`Memtable::get`] beside range deletes or floors.
    #[cold]
    pub(super) fn get_covered(
        &self,
        covers: &Covers,
        key: &[u8],
        hash: u64,
    ) -> Option<(Place, EntryKind, &[u8])> {
        let gone = Some((0, EntryKind::Delete, &[][..]));
        match self.find(key, hash) {
            Probe::Found { place, .. } => {
                let record = Record::at(&self.arena, place);
                if record.seqno() < covers.below(key) {
                    return gone;
                }
                Some((place, record.kind(), record.value()))
            }
            // Below a floor older sources may hold a later write; below a range delete they cannot.
            Probe::Vacant { .. } => covers.deletes.covering(key).and(gone),
        }
    }

    /// Range deletes and floors, if there are any.
    #[inline]
    pub(crate) fn covers(&self) -> Option<&Covers> {
        self.covers.as_deref()
    }

    /// The range deletes, if there are any.
    pub(crate) fn range_deletes(&self) -> Option<&Arc<RangeDeletes>> {
        let deletes = &self.covers.as_ref()?.deletes;
        (!deletes.is_empty()).then_some(deletes)
    }

    /// The family's floors.
    #[inline(always)]
    pub(crate) fn floors(&self) -> Option<&Arc<Floors>> {
        self.covers.as_ref()?.floors.as_ref()
    }

    /// Whether a range delete of this memtable covers the key: older sources hold nothing of it.
    #[inline]
    pub(crate) fn hides_older(&self, key: &[u8]) -> bool {
        self.covers
            .as_ref()
            .is_some_and(|covers| covers.deletes.covering(key).is_some())
    }

    /// The version at a place, as a write finds it: one that a range delete or a floor hides is a deleted one.
    #[inline]
    pub(crate) fn newest(&self, place: Place) -> Entry<'_> {
        let entry = self.entry(place);
        match &self.covers {
            Some(covers) if entry.seqno < covers.below(entry.key) => Entry {
                kind: EntryKind::Delete,
                value: &[],
                ..entry
            },
            _ => entry,
        }
    }

    /// Shows the versions of a key that are not older than `floor`, newest first, until `each` has seen enough. A
    /// version that hides what is older is shown as a deleted one where the covered versions begin.
    pub(crate) fn versions(
        &self,
        key: &[u8],
        hash: u64,
        floor: Seqno,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let deleted = self
            .covers
            .as_ref()
            .and_then(|covers| covers.deletes.covering(key));
        let below = deleted.unwrap_or(0).max(floor);
        let mut place = match self.find(key, hash) {
            Probe::Found { place, .. } => place,
            Probe::Vacant { .. } => 0,
        };
        while place != 0 {
            let entry = self.entry(place);
            if entry.seqno < below {
                break;
            }
            each(entry)?;
            place = self.older(place);
        }
        if place == 0 && deleted.is_none() {
            return ControlFlow::Continue(());
        }
        let _ = each(Entry {
            key,
            seqno: below,
            kind: EntryKind::Delete,
            value: &[],
        });
        ControlFlow::Break(())
    }

    /// They are few: the memory is taken even where there is none, and the next write that needs some waits for it.
    fn pay_for_covers(&mut self, bytes: usize) {
        self.covers_bytes += bytes;
        self.lease_for_covers(bytes);
    }

    /// The floors of a family are in its newest memtable, whoever raised them.
    fn lease_floors(&mut self) {
        let bytes = self.floors().map_or(0, |floors| floors.bytes());
        if bytes > 0 {
            self.lease_for_covers(bytes);
        }
    }

    fn lease_for_covers(&mut self, bytes: usize) {
        if let Some(memory) = &self.memory {
            let lease = self
                .covers_lease
                .get_or_insert_with(|| memory.overdraw(Pool::Write, 0));
            lease.overdraw(bytes);
        }
    }

    /// Hides every record of the keys of `range` from now on.
    pub(crate) fn delete_range(&mut self, range: &KeyRange, seqno: Seqno) {
        self.note_seqno(seqno);
        let grown = self.covers.get_or_insert_default().delete_range(range, seqno);
        self.pay_for_covers(grown);
    }

    /// Raises a floor; false, and nothing changes, if it does not rise.
    ///
    /// # Errors
    /// As [`Floors::raise`].
    pub(crate) fn raise_floor(&mut self, partition_prefix: u8, floor: Floor) -> Result<bool> {
        let seqno = floor.seqno;
        let covers = self.covers.get_or_insert_default();
        let Some(grown) = covers.raise(partition_prefix, floor)? else {
            return Ok(false);
        };
        self.pay_for_covers(grown);
        self.note_seqno(seqno);
        Ok(true)
    }
}
