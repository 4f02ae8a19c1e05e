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
