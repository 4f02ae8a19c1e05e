//! Older versions that stay in a memtable because a `Cursor` may see them.
//!
//! ```text
//! index ─► record 19 ──replaces──► record 12 ──replaces──► record 5        cursors at 8 and 15 see 5 and 12
//! ```
//! A cursor at seqno `s` sees the versions below `s`. So a record may be overwritten in place if no live cursor sees
//! it: if its seqno is not below that of the newest live cursor. Else a record is appended, and the old one stays
//! reachable behind it. Writes pay one compare; who lives is asked only where a version is about to be kept, so the
//! drop of a cursor costs nothing and ends the regime all the same. A flush writes the newest versions alone.

use super::Sealed;
use crate::{key::Seqno, sync::Mutex};
use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicU64, Ordering},
};

/// Cursors that are remembered before it is asked which of them live.
const WATCHES_MIN: usize = 8;

/// Held by a cursor while it may read a memtable that takes writes.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The cursor sees what is below.
    pub(crate) seqno: Seqno,
    /// The memtable, once it takes no writes any more.
    pub(crate) sealed: OnceLock<Arc<Sealed>>,
}

/// The cursors of a memtable.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Seqno of the newest cursor that may live, 0 = none. Relaxed: nobody writes the store while cursors are made.
    below: AtomicU64,
    /// Guards the list alone. Uncontended: the owner adds, asks and hands over.
    watches: Mutex<Vec<Weak<Watch>>>,
}

impl Kept {
    /// Whether some cursor may see records with this seqno.
    #[inline(always)]
    pub(super) fn keeps(&self, seqno: Seqno) -> bool {
        seqno < self.below.load(Ordering::Relaxed) && self.ask(seqno)
    }

    /// Whether there may be cursors at all.
    #[inline(always)]
    pub(super) fn is_watched(&self) -> bool {
        self.below.load(Ordering::Relaxed) != 0
    }

    /// Whether there are cursors.
    pub(super) fn has_cursors(&self) -> bool {
        self.keeps(0)
    }

    /// Forgets dropped cursors first.
    #[cold]
    #[inline(never)]
    fn ask(&self, seqno: Seqno) -> bool {
        let mut watches = self.watches.lock();
        watches.retain(|watch| watch.strong_count() > 0);
        let newest = watches.iter().filter_map(Weak::upgrade).map(|watch| watch.seqno);
        let below = newest.max().unwrap_or(0);
        self.below.store(below, Ordering::Relaxed);
        seqno < below
    }

    /// Registers a cursor that sees what is below `seqno`.
    pub(super) fn watch(&self, seqno: Seqno) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            seqno,
            sealed: OnceLock::new(),
        });
        {
            let mut watches = self.watches.lock();
            // Where nobody writes nobody asks who lives: the list is at most about twice as long as it need be.
            if watches.len() == watches.capacity() {
                watches.retain(|watch| watch.strong_count() > 0);
                let more = watches.len() + WATCHES_MIN;
                watches.reserve(more);
            }
            watches.push(Arc::downgrade(&watch));
        }
        self.below.fetch_max(seqno, Ordering::Relaxed);
        watch
    }

    /// Hands the memtable, sealed now, to those who watch it.
    pub(super) fn hand_over(&self, sealed: &Arc<Sealed>) {
        for watch in self.watches.lock().drain(..).filter_map(|watch| watch.upgrade()) {
            let _ = watch.sealed.set(sealed.clone());
        }
        self.below.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_that_are_gone_take_no_memory() {
        let kept = Kept::default();
        let living: Vec<_> = (1..=20).map(|seqno| kept.watch(seqno)).collect();
        // Nobody writes, so nobody asks who lives.
        for seqno in 21..2000 {
            drop(kept.watch(seqno));
            let watches = kept.watches.lock().len();
            assert!(watches <= 64, "{watches} after {seqno} cursors");
        }
        assert!(kept.keeps(19) && !kept.keeps(20));
        drop(living);
        assert!(!kept.has_cursors());
    }
}
