//! What a snapshot is: the content of `_metadata`.
//!
//! ```text
//! Metadata ─▶ operators ─▶ catalogue of states
//!                     └──▶ subtasks ─▶ handles of files, inline operator state
//! ```
//! Whoever holds the metadata knows every file of the snapshot. Bytes: docs/format/metadata.md.

use crate::{
    CheckpointId, FileHandle, Generation, JobId, OperatorId, OperatorUid, RootId, SnapshotKind,
    StateCatalogue, SubtaskState,
};
use std::collections::BTreeMap;

/// A place outside of the snapshot's directory and the job's root; a hint until its identity is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAnchor {
    /// Number by which [`Anchor::External`](crate::Anchor::External) refers to it.
    pub id: u32,
    /// Where it was; overridden by hand after a move.
    pub url: String,
    /// The job whose snapshot or root it is.
    pub job: JobId,
    /// The root's id.
    pub root: RootId,
}

/// State of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSnapshot {
    /// The user's name of the operator.
    pub uid: OperatorUid,
    /// Number of subtasks that took part.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Its states.
    pub catalogue: StateCatalogue,
    /// What each subtask contributed, by index.
    pub subtasks: Vec<SubtaskState>,
}

impl OperatorSnapshot {
    /// The hash of the uid.
    pub fn id(&self) -> OperatorId {
        self.uid.id()
    }
}

/// A whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Whose snapshot it is.
    pub job: JobId,
    /// The job root to which [`Anchor::Root`](crate::Anchor::Root) references belong.
    pub root: RootId,
    /// Owner generation that published it.
    pub generation: Generation,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// What it is for.
    pub kind: SnapshotKind,
    /// Milliseconds since 1970-01-01T00:00:00Z at the trigger.
    pub timestamp_ms: u64,
    /// Places outside.
    pub externals: Vec<ExternalAnchor>,
    /// All operators with state, in the order of the program.
    pub operators: Vec<OperatorSnapshot>,
    /// Free texts: job name, program version, label.
    pub properties: BTreeMap<String, String>,
}

impl Metadata {
    /// The operator of that uid.
    pub fn operator(&self, uid: &str) -> Option<&OperatorSnapshot> {
        self.operators.iter().find(|o| o.uid.as_str() == uid)
    }

    /// All files; a file seen through several views comes several times.
    pub fn files(&self) -> impl Iterator<Item = &FileHandle> {
        self.operators
            .iter()
            .flat_map(|o| &o.subtasks)
            .flat_map(SubtaskState::files)
    }
}
