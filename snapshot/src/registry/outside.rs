//! What the registry knows of snapshots and jobs outside of the root: who is referred to, and who claimed what.

use super::{ObjectState, SharedRegistry};
use crate::{Anchor, CheckpointId, Metadata, ObjectPath};
use keybed_format::Result;
use std::collections::BTreeSet;

/// What the metadata of a checkpoint names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Objects of the root.
    pub inside: BTreeSet<ObjectPath>,
    /// Anchors of other snapshots.
    pub outside: BTreeSet<u32>,
}

impl References {
    /// Those of checkpoint `id`.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if anchor and folder of a file do not fit.
    pub fn of(id: CheckpointId, metadata: &Metadata) -> Result<References> {
        let mut references = References::default();
        for file in metadata.files() {
            match file.anchor {
                Anchor::External(id) => drop(references.outside.insert(id)),
                Anchor::SelfDir | Anchor::Root => {
                    references.inside.insert(ObjectPath::of_handle(id, file)?);
                }
            }
        }
        Ok(references)
    }
}

impl From<BTreeSet<ObjectPath>> for References {
    fn from(inside: BTreeSet<ObjectPath>) -> Self {
        let outside = BTreeSet::new();
        References { inside, outside }
    }
}

impl SharedRegistry {
    /// A checkpoint was found to be claimed by another job: it stays, whatever retention says.
    pub fn found_claim(&mut self, id: CheckpointId) {
        self.claimed.insert(id);
    }

    /// A pending checkpoint names an object of an earlier one again that the completed ones may not name; `false` if it
    /// is gone or going. It stays as long as the checkpoint is pending.
    ///
    /// # Errors
    /// `CheckpointDeclined` if the checkpoint is not pending any more.
    pub fn named_again(&mut self, id: CheckpointId, path: &ObjectPath) -> Result<bool> {
        self.demand_pending(id)?;
        let usable = matches!(
            self.objects.get(path),
            Some(ObjectState::Stored | ObjectState::Published)
        );
        if let Some(pending) = self.pending.get_mut(&id).filter(|_| usable) {
            pending.base.inside.insert(path.clone());
        }
        Ok(usable)
    }

    /// Somebody reads the snapshot that the job started from; it stays until as many
    /// [`SharedRegistry::source_reader_left`] followed.
    pub fn source_reader_came(&mut self) {
        self.source_readers += 1;
    }

    /// A reader is done.
    pub fn source_reader_left(&mut self) {
        self.source_readers -= 1;
    }

    /// Whether the claimed snapshot that the job started from goes: it counts as the oldest retained checkpoint, so it
    /// is subsumed once as many own ones completed as are retained; and nothing refers to any file of it, nor of what
    /// it refers to in turn: whoever owns that keeps it for the snapshot's sake. The end of the job subsumes nothing.
    ///
    /// # Errors
    /// As [`SharedRegistry::doomed`].
    pub fn source_goes(&self) -> Result<bool> {
        self.doomed()?;
        let subsumed = self.retain > 0 && self.timeline().len() >= self.retain;
        Ok(subsumed && self.source_readers == 0 && self.outside().is_empty())
    }

    /// Anchors of other snapshots that something needs.
    pub fn outside(&self) -> BTreeSet<u32> {
        self.needed().flat_map(|r| &r.outside).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, registry::Standing};

    fn references(outside: &[u32]) -> References {
        References {
            inside: BTreeSet::new(),
            outside: outside.iter().copied().collect(),
        }
    }

    #[test]
    fn the_claimed_snapshot_counts_as_the_oldest_retained_checkpoint() {
        for (retain, completed, goes) in [
            (1, 0, false),
            (1, 1, true),
            (2, 1, false),
            (2, 2, true),
            (3, 5, true),
        ] {
            let mut registry = SharedRegistry::new(Generation(1), retain);
            for id in 1..=completed {
                registry.begin(CheckpointId(id));
                registry
                    .publish_begins(CheckpointId(id), references(&[]))
                    .unwrap();
                registry.published(CheckpointId(id));
            }
            assert_eq!(
                registry.source_goes().unwrap(),
                goes,
                "{retain} retained, {completed} completed"
            );
            registry.retain_none();
            assert!(
                !registry.source_goes().unwrap(),
                "the end of the job subsumes nothing"
            );
        }
    }

    #[test]
    fn whatever_may_still_need_the_claimed_snapshot_keeps_it() {
        let fresh = || {
            let mut registry = SharedRegistry::new(Generation(2), 1);
            registry.found_checkpoint(CheckpointId(9), references(&[]), Standing::Timeline);
            assert!(registry.source_goes().unwrap());
            registry
        };
        for standing in [
            Standing::Timeline,
            Standing::Abandoned,
            Standing::Void,
            Standing::Uncertain,
        ] {
            for anchor in [FOREIGN, FOREIGN + 1] {
                let mut registry = fresh();
                registry.found_checkpoint(CheckpointId(3), references(&[anchor]), standing);
                assert!(!registry.source_goes().unwrap(), "{standing:?} {anchor}");
                registry.erased(CheckpointId(3));
                assert!(registry.source_goes().unwrap());
            }
        }
        let mut registry = fresh();
        registry.begin(CheckpointId(10));
        registry
            .publish_begins(CheckpointId(10), references(&[FOREIGN]))
            .unwrap();
        assert!(!registry.source_goes().unwrap(), "it is being published");
        registry.aborted(CheckpointId(10));
        assert!(registry.source_goes().unwrap());
        registry.source_reader_came();
        assert!(!registry.source_goes().unwrap());
        registry.source_reader_left();
        assert!(registry.source_goes().unwrap());
        registry.refuse("unreadable".into());
        registry.source_goes().unwrap_err();
    }

    const FOREIGN: u32 = crate::foreign::FOREIGN_ANCHOR;
}
