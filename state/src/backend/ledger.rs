//! What the last completed checkpoint holds, known to the owner and to snapshots on their way out.
//!
//! ```text
//!   write ──finished(id, what)──▶ waiting ──notify_complete(id)──▶ completed: the next checkpoint builds on it
//!                                         `─notify_aborted(id)───▶ kept until a later one completes or fails too, or
//!                                                                  forgotten
//! ```

use keybed_snapshot::CheckpointId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Facts of type `T` about checkpoints. Cheap to clone; all clones are one ledger.
#[derive(Debug)]
pub(super) struct Ledger<T>(Arc<Mutex<Pages<T>>>);

#[derive(Debug)]
struct Pages<T> {
    completed: Option<Arc<T>>,
    /// Written, not completed yet.
    waiting: BTreeMap<CheckpointId, Arc<T>>,
    /// Those waiting ones that never will, if the next one may build on them all the same.
    failed: BTreeSet<CheckpointId>,
    /// The highest checkpoint that completed; whatever arrives later for it or below is stale.
    newest: Option<CheckpointId>,
}

impl<T> Clone for Ledger<T> {
    fn clone(&self) -> Self {
        Ledger(self.0.clone())
    }
}

impl<T> Ledger<T> {
    /// A ledger that starts with what was restored.
    pub(super) fn new(completed: Option<T>) -> Self {
        let completed = completed.map(Arc::new);
        Ledger(Arc::new(Mutex::new(Pages {
            completed,
            waiting: BTreeMap::new(),
            failed: BTreeSet::new(),
            newest: None,
        })))
    }

    fn pages(&self) -> MutexGuard<'_, Pages<T>> {
        // Every change is a single assignment, so a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last completed checkpoint holds.
    pub(super) fn completed(&self) -> Option<Arc<T>> {
        self.pages().completed.clone()
    }

    /// What was written for checkpoints that did not complete (yet).
    pub(super) fn waiting(&self) -> Vec<Arc<T>> {
        self.pages().waiting.values().cloned().collect()
    }

    /// A checkpoint's files are durable.
    pub(super) fn finished(&self, id: CheckpointId, facts: T) {
        let mut pages = self.pages();
        if pages.newest.is_none_or(|newest| id > newest) {
            pages.waiting.insert(id, Arc::new(facts));
        }
    }

    /// A checkpoint completed; `None` if nothing was written for it (a savepoint, say).
    pub(super) fn complete(&self, id: CheckpointId) -> Option<Arc<T>> {
        let mut pages = self.pages();
        let facts = pages.waiting.remove(&id)?;
        pages.waiting.retain(|other, _| *other > id);
        pages.failed.retain(|other| *other > id);
        pages.newest = pages.newest.max(Some(id));
        pages.completed = Some(facts.clone());
        Some(facts)
    }

    /// A checkpoint that was written will not complete. Its facts stay, so that the next one need not repeat the work,
    /// unless it could build on such facts itself and failed again: then they may be the reason.
    pub(super) fn aborted(&self, id: CheckpointId) {
        let pages = &mut *self.pages();
        if pages.failed.is_empty() {
            pages.failed.extend(pages.waiting.contains_key(&id).then_some(id));
        } else {
            pages.failed.insert(id);
            for failed in std::mem::take(&mut pages.failed) {
                pages.waiting.remove(&failed);
            }
        }
    }

    /// Forgets what was written for a checkpoint that will not complete.
    pub(super) fn forget(&self, id: CheckpointId) {
        self.pages().waiting.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completing_replaces_and_forgets_what_is_older() {
        let ledger = Ledger::new(Some("restored"));
        let clone = ledger.clone();
        ledger.finished(CheckpointId(1), "one");
        ledger.finished(CheckpointId(2), "two");
        ledger.finished(CheckpointId(3), "three");
        assert_eq!(clone.completed().as_deref(), Some(&"restored"));
        assert_eq!(clone.complete(CheckpointId(2)).as_deref(), Some(&"two"));
        assert_eq!(clone.completed().as_deref(), Some(&"two"));
        assert_eq!(ledger.waiting().len(), 1);
        ledger.finished(CheckpointId(1), "one, late");
        assert_eq!(ledger.waiting().len(), 1, "a stale one is not taken");
        assert_eq!(ledger.complete(CheckpointId(9)), None);
        ledger.forget(CheckpointId(3));
        assert_eq!(ledger.complete(CheckpointId(3)), None);
        assert_eq!(ledger.completed().as_deref(), Some(&"two"));
    }

    #[test]
    fn what_failed_is_built_on_once_and_what_is_still_pending_is_kept() {
        let ledger = Ledger::new(Some("restored"));
        for (id, facts) in [(1, "one"), (2, "two"), (3, "three")] {
            ledger.finished(CheckpointId(id), facts);
        }
        ledger.aborted(CheckpointId(1));
        assert_eq!(ledger.waiting().len(), 3);
        ledger.aborted(CheckpointId(3));
        assert_eq!(ledger.waiting().len(), 1);
        assert_eq!(ledger.complete(CheckpointId(2)).as_deref(), Some(&"two"));
        ledger.finished(CheckpointId(4), "four");
        ledger.aborted(CheckpointId(4));
        assert_eq!(ledger.waiting().len(), 1);
    }
}
