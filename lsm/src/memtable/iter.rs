//! Walking a memtable in the order of its keys, up and down.

use super::{Memtable, Order, Sealed, ordered::TreeAt, record::Record};
use crate::{
    arena::Place,
    key::{self, Entry, EntryKind, KeyRange, Seqno},
    range_delete::RangeDeletes,
};
use std::sync::Arc;

/// Records of a sorted order that are read ahead at a time: about as many misses as a processor follows.
const AHEAD: usize = 16;

/// How an iterator holds its memtable.
#[derive(Clone, Debug)]
pub(crate) enum Held<'a> {
    /// The owner's, or one that somebody else keeps.
    Borrowed(&'a Memtable),
    /// One that may be let go while it is read.
    Sealed(Arc<Sealed>),
}

impl Held<'_> {
    #[inline(always)]
    fn memtable(&self) -> &Memtable {
        match self {
            Held::Borrowed(memtable) => memtable,
            Held::Sealed(sealed) => &sealed.memtable,
        }
    }

    fn range_deletes(&self) -> Option<Arc<RangeDeletes>> {
        self.memtable().range_deletes().cloned()
    }
}

/// The newest versions of a memtable by key; behind an operand the older ones it stands on.
#[derive(Debug)]
pub(crate) struct MemtableIter<'a> {
    held: Held<'a>,
    order: Order,
    /// `None` = everything.
    bounds: Option<Arc<KeyRange>>,
    /// Versions with a smaller seqno are seen, no others.
    below: Seqno,
    /// These are all.
    sees_all: bool,
    /// What hides versions here and in older sources.
    range_deletes: Option<Arc<RangeDeletes>>,
    sorted_at: usize,
    tree_at: TreeAt,
    /// What follows upwards in the sorted order, or in the leaf, is not behind the bounds.
    is_inside: bool,
    /// The current version; 0 behind the last and before the first.
    place: Place,
}

impl<'a> MemtableIter<'a> {
    /// Stands at the first key.
    pub(crate) fn new(held: Held<'a>, order: Order) -> Self {
        let mut iter = MemtableIter {
            range_deletes: held.range_deletes(),
            held,
            order,
            bounds: None,
            below: Seqno::MAX,
            sees_all: true,
            sorted_at: 0,
            tree_at: TreeAt::default(),
            is_inside: false,
            place: 0,
        };
        iter.seek(&[]);
        iter
    }

    /// Keys inside of `bounds`, versions below `below`. Not yet positioned. `order` may have been taken earlier, if
    /// it holds the keys that have such versions.
    pub(crate) fn within(held: Held<'a>, order: Order, bounds: &Arc<KeyRange>, below: Seqno) -> Self {
        MemtableIter {
            range_deletes: held.range_deletes(),
            sees_all: held.memtable().seqnos().1 < below,
            held,
            order,
            bounds: (!bounds.is_all()).then(|| bounds.clone()),
            below,
            sorted_at: 0,
            tree_at: TreeAt::default(),
            is_inside: false,
            place: 0,
        }
    }

    /// With the range deletes of an earlier moment.
    pub(crate) fn with_range_deletes(mut self, range_deletes: Option<Arc<RangeDeletes>>) -> Self {
        self.range_deletes = range_deletes;
        self
    }

    /// What hides versions here and in older sources.
    pub(crate) fn range_deletes(&self) -> Option<&Arc<RangeDeletes>> {
        self.range_deletes.as_ref()
    }

    #[inline(always)]
    fn memtable(&self) -> &Memtable {
        self.held.memtable()
    }

    #[inline(always)]
    fn record(&self, place: Place) -> Record<'_> {
        Record::at(&self.memtable().arena, place)
    }

    /// The record that the order names here.
    #[inline]
    fn listed(&self) -> Option<Place> {
        match (&self.order, &self.memtable().tree) {
            (Order::Sorted(places), _) => places.get(self.sorted_at).copied(),
            (Order::Tree, Some(tree)) => tree.place(self.tree_at),
            (Order::Tree, None) => None,
        }
    }

    #[inline]
    fn step(&mut self, down: bool) {
        let mut at = self.tree_at;
        match (&self.order, &self.memtable().tree) {
            (Order::Tree, Some(tree)) if down => tree.retreat(&mut at),
            (Order::Tree, Some(tree)) => tree.advance(&mut at),
            // Before the first is behind all.
            _ if down => self.sorted_at = self.sorted_at.wrapping_sub(1),
            _ => self.sorted_at += 1,
        }
        self.tree_at = at;
    }

    /// Whether the last of these records, which are in order, is not behind the bounds.
    fn is_last_inside(&self, places: &[Place]) -> bool {
        let end = self.bounds.as_ref().and_then(|bounds| bounds.end.as_deref());
        match (end, places.last()) {
            (Some(end), Some(&last)) => key::less(self.record(last).key(), end),
            _ => true,
        }
    }

    /// Reads ahead a few records behind the position that a search found.
    fn look_around(&mut self) {
        let memtable = self.memtable();
        let found = match (&self.order, &memtable.tree) {
            (Order::Sorted(places), _) => places.get(self.sorted_at..).unwrap_or_default(),
            (Order::Tree, Some(tree)) => tree.places_from(self.tree_at),
            (Order::Tree, None) => &[],
        };
        memtable.touch(&found[..found.len().min(AHEAD / 2)]);
        self.is_inside = self.is_last_inside(found);
    }

    /// Reads ahead what the next steps upwards will meet: the records of neighbours lie anywhere in the arena.
    #[inline]
    fn look_ahead(&mut self) {
        let memtable = self.memtable();
        match (&self.order, &memtable.tree) {
            (Order::Sorted(places), _) if self.sorted_at.is_multiple_of(AHEAD) => {
                let ahead = places.get(self.sorted_at..).unwrap_or_default();
                memtable.touch(&ahead[..ahead.len().min(AHEAD)]);
            }
            (Order::Tree, Some(tree)) => {
                if let Some(leaf) = tree.entered_leaf(self.tree_at) {
                    memtable.touch(leaf);
                    self.is_inside = self.is_last_inside(leaf);
                }
            }
            _ => {}
        }
    }

    /// Takes the version that is seen of the key here, or of the nearest key in the direction that has one.
    #[inline]
    fn settle(&mut self, down: bool) {
        self.place = 0;
        while let Some(place) = self.listed() {
            if let Some(bounds) = &self.bounds
                && (down || !self.is_inside)
            {
                let key = self.record(place).key();
                let is_over = match &bounds.end {
                    _ if down => key::less(key, &bounds.start),
                    Some(end) => !key::less(key, end),
                    None => false,
                };
                if is_over {
                    return;
                }
            }
            self.place = match self.sees_all {
                true => place,
                false => self.memtable().version_below(place, self.below),
            };
            if self.place != 0 {
                return;
            }
            self.step(down);
            if !down {
                // The bounds may end in the leaf that this led to.
                self.look_ahead();
            }
        }
    }

    /// Puts the order's position at the first key not below `key`.
    fn find(&mut self, key: &[u8]) {
        let memtable = self.memtable();
        match (&self.order, &memtable.tree) {
            (Order::Sorted(places), _) => {
                let is_before = |&place: &Place| key::less(Record::at(&memtable.arena, place).key(), key);
                // An order of a range is looked up from its start more often than not.
                self.sorted_at = match places.first() {
                    Some(first) if is_before(first) => places.partition_point(is_before),
                    _ => 0,
                };
            }
            (Order::Tree, Some(tree)) => self.tree_at = tree.seek(&memtable.arena, key),
            (Order::Tree, None) => {}
        }
    }

    /// Moves to the first key not below `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        let bounds = self.bounds.clone();
        self.find(bounds.as_ref().map_or(key, |bounds| key.max(&bounds.start)));
        self.look_around();
        self.settle(false);
    }

    /// Moves to the last key below `key`; `None`: to the last of all.
    pub(crate) fn seek_before(&mut self, key: Option<&[u8]>) {
        let bounds = self.bounds.clone();
        let end = match (key, bounds.as_ref().and_then(|bounds| bounds.end.as_deref())) {
            (Some(key), Some(end)) => Some(key.min(end)),
            (one, other) => one.or(other),
        };
        match (end, &self.order, &self.memtable().tree) {
            (Some(end), ..) => {
                self.find(end);
                self.step(true);
            }
            (None, Order::Sorted(places), _) => self.sorted_at = places.len().wrapping_sub(1),
            (None, Order::Tree, Some(tree)) => self.tree_at = tree.last(),
            (None, Order::Tree, None) => {}
        }
        self.settle(true);
    }

    /// Whether it stands at a version.
    #[inline]
    pub(crate) fn is_valid(&self) -> bool {
        self.place != 0
    }

    /// The version it stands at.
    #[inline]
    pub(crate) fn entry(&self) -> Entry<'_> {
        self.memtable().entry(self.place)
    }

    /// What the version it stands at does.
    #[inline]
    pub(crate) fn kind(&self) -> EntryKind {
        self.record(self.place).kind()
    }

    /// The key it stands at.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.record(self.place).key()
    }

    /// Moves to the next version.
    #[inline]
    pub(crate) fn advance(&mut self) {
        if !self.older() {
            self.next_key();
        }
    }

    /// Moves to the older operand that this one stands on; false if there is none.
    #[inline]
    pub(crate) fn older(&mut self) -> bool {
        let older = self.memtable().older(self.place);
        if older != 0 {
            self.place = older;
        }
        older != 0
    }

    /// Moves to the next key.
    #[inline]
    pub(crate) fn next_key(&mut self) {
        self.step(false);
        self.look_ahead();
        self.settle(false);
    }

    /// Moves to the previous key.
    #[inline]
    pub(crate) fn prev_key(&mut self) {
        self.step(true);
        self.settle(true);
    }
}
