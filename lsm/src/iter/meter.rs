//! Counts the tombstones that a scan steps over, and tells where they are dense.

use crate::{
    key::{self, KeyRange},
    shared::Shared,
};
use std::sync::{Arc, Weak};

/// Tombstones before the place of the first one is remembered: most scans meet few and copy no key.
const MARK: u64 = 8;
/// Tombstones before the first look how dense they are; twice as many before each further one.
const WINDOW_FIRST: u64 = 64;
const WINDOW_MAX: u64 = 1 << 12;
/// They are dense if they are so many for each living entry.
const PER_LIVING: u64 = 4;

/// Who is told of a family's tombstones.
#[derive(Clone, Copy)]
pub(crate) enum Told<'a> {
    /// The store that the scan borrows.
    Store(&'a Arc<Shared>, usize),
    /// The store, if it is still there.
    Weakly(&'a Weak<Shared>, usize),
}

/// Counts during one scan.
pub(crate) struct Meter<'a> {
    told: Option<Told<'a>>,
    /// Tombstones of sources before this one are not counted: the active memtable, which no merge reads.
    counted_from: usize,
    /// Living entries and tombstones since the last look.
    living: u64,
    dead: u64,
    /// Tombstones at which something is to be done.
    due: u64,
    window: u64,
    /// A key at the beginning of what is counted.
    start: Option<Vec<u8>>,
}

impl<'a> Meter<'a> {
    /// Counts for nobody.
    pub(super) fn off() -> Self {
        Meter {
            told: None,
            counted_from: usize::MAX,
            living: 0,
            dead: 0,
            due: MARK,
            window: WINDOW_FIRST,
            start: None,
        }
    }

    /// Counts the tombstones of sources from `counted_from` on.
    pub(super) fn on(told: Told<'a>, counted_from: usize) -> Self {
        Meter {
            told: Some(told),
            counted_from,
            ..Meter::off()
        }
    }

    #[inline(always)]
    pub(super) fn met_living(&mut self) {
        self.living += 1;
    }

    /// A tombstone of this source; true if [`Meter::look`] is due.
    #[inline]
    pub(super) fn met_dead(&mut self, source: usize) -> bool {
        if source < self.counted_from {
            return false;
        }
        self.dead += 1;
        self.dead == self.due
    }

    /// Looks at what was counted up to the tombstone of `key`.
    #[cold]
    pub(super) fn look(&mut self, key: &[u8]) {
        let Some(start) = self.start.replace(key.to_vec()) else {
            self.due = self.window;
            return;
        };
        if self.living.saturating_mul(PER_LIVING) <= self.dead {
            let range = match start.as_slice() <= key {
                true => KeyRange {
                    start,
                    end: Some(key::behind(key)),
                },
                false => KeyRange {
                    start: key.to_vec(),
                    end: Some(key::behind(&start)),
                },
            };
            self.tell(&range);
            self.window = (self.window * 2).min(WINDOW_MAX);
        }
        (self.living, self.dead, self.due) = (0, 0, self.window);
    }

    fn tell(&self, range: &KeyRange) {
        match self.told {
            Some(Told::Store(shared, family)) => shared.stepped_over(family, range, self.dead),
            Some(Told::Weakly(shared, family)) => {
                if let Some(shared) = shared.upgrade() {
                    shared.stepped_over(family, range, self.dead);
                }
            }
            None => {}
        }
    }
}
