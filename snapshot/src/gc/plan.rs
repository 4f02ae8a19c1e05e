//! What a sweep would delete: the decisions of the registry, played through on a copy of it. Pure.

use crate::{CheckpointId, ObjectPath, registry::SharedRegistry};
use keybed_format::Result;

/// What nobody needs, in the order in which it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Checkpoints whose metadata goes.
    pub checkpoints: Vec<CheckpointId>,
    /// Objects that go then.
    pub objects: Vec<ObjectPath>,
    /// Folders that are empty then.
    pub folders: Vec<CheckpointId>,
}

impl Garbage {
    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.checkpoints.is_empty() && self.objects.is_empty() && self.folders.is_empty()
    }

    /// The files that go, metadata first.
    pub fn files(&self) -> impl Iterator<Item = ObjectPath> {
        let metadata = self.checkpoints.iter().copied().map(ObjectPath::Metadata);
        metadata.chain(self.objects.iter().cloned())
    }
}

/// What a cleanup would delete if every deletion succeeded. Changes nothing.
///
/// # Errors
/// `GcRefused` if something unreadable forbids deletions.
pub fn plan(registry: &SharedRegistry) -> Result<Garbage> {
    let mut after = registry.clone();
    let checkpoints = after.doomed()?;
    for id in &checkpoints {
        after.erased(*id);
    }
    let objects = after.condemn()?;
    for path in &objects {
        after.deleted(path);
    }
    Ok(Garbage {
        checkpoints,
        objects,
        folders: after.empty_folders(),
    })
}
