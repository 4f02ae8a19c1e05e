//! Which files of a foreign job root may go with a claimed checkpoint: pure.
//!
//! ```text
//!   goes  ⇔  the claimed checkpoint names it, and it is an object of this root that tells its birth,
//!            and no other `_metadata` of the root names it
//!   nothing goes while any metadata cannot be read, or a living claim's metadata is not there
//! ```
//! A checkpoint that another job claimed keeps its `_metadata` until that job deletes it, and a claimant's checkpoints
//! elsewhere name nothing here but files of what it claimed. So what the root's own `_metadata` name is all that
//! anybody may need.

use super::ClaimList;
use crate::{CheckpointId, Metadata, ObjectPath, registry::References};
use keybed_format::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What lies in the folder of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Readable metadata.
    Named(&'a Metadata),
    /// Metadata that is hidden: its claimant is deleting the checkpoint and needs nothing of it.
    Hidden,
    /// Something that cannot be read.
    Unreadable,
}

/// The content of a job root.
#[derive(Debug)]
pub struct RootContent<'a> {
    /// The claimed checkpoint.
    pub claimed: &'a Metadata,
    /// All other checkpoints that were ever published and have not gone.
    pub others: BTreeMap<CheckpointId, Left<'a>>,
    /// The claims.
    pub claims: &'a ClaimList,
    /// Every regular file there whose name is ours.
    pub objects: &'a BTreeSet<ObjectPath>,
}

/// The objects that go with the claimed checkpoint; `None` if nothing may go now.
///
/// # Errors
/// `SnapshotCorrupt` if a reference cannot be meant.
pub fn going(content: &RootContent<'_>) -> Result<Option<BTreeSet<ObjectPath>>> {
    let me = content.claimed.checkpoint;
    let known = |id: CheckpointId| content.others.contains_key(&id);
    let mut others = content.claims.all_live().map(|record| record.checkpoint);
    if others.any(|id| id != me && !known(id)) {
        return Ok(None);
    }
    let mut needed = BTreeSet::new();
    for (id, left) in &content.others {
        match left {
            Left::Unreadable => return Ok(None),
            Left::Hidden => {}
            Left::Named(metadata) => needed.extend(References::of(*id, metadata)?.inside),
        }
    }
    let named = References::of(me, content.claimed)?.inside;
    let goes = |path: &ObjectPath| {
        let deletable =
            matches!(path, ObjectPath::Shared(_) | ObjectPath::Private(..)) && path.birth().is_some();
        deletable && content.objects.contains(path) && !needed.contains(path)
    };
    Ok(Some(named.into_iter().filter(goes).collect()))
}

/// The living claim of another job whose files meet those of `metadata`, if there is one. `others` are the readable
/// checkpoints of the root.
///
/// # Errors
/// `SnapshotCorrupt` if a reference cannot be meant.
pub fn overlapping<'a>(
    metadata: &Metadata,
    claims: &'a ClaimList,
    others: &BTreeMap<CheckpointId, &Metadata>,
    is_mine: impl Fn(&super::Claimant) -> bool,
) -> Result<Option<&'a super::ClaimRecord>> {
    let mine = References::of(metadata.checkpoint, metadata)?.inside;
    for record in claims.all_live().filter(|record| !is_mine(&record.claimant)) {
        let theirs = match others.get(&record.checkpoint) {
            Some(other) => References::of(record.checkpoint, other)?.inside,
            None => BTreeSet::new(),
        };
        if record.checkpoint == metadata.checkpoint || !mine.is_disjoint(&theirs) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}
