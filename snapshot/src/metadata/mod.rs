//! What a snapshot is: the content of `_metadata`.
//!
//! ```text
//! Metadata ─▶ operators ─▶ catalogue of states
//!                     └──▶ subtasks ─▶ handles of files, inline operator state
//! ```
//! Whoever holds the metadata knows every file of the snapshot. Bytes: docs/format/metadata.md.

mod check;
pub mod codec;
pub mod operator;
#[cfg(test)]
mod tests;

pub use check::check;
pub use codec::{METADATA_BYTES_MAX, decode, encode};

use crate::{
    CheckpointId, FileHandle, Generation, JobId, OperatorId, OperatorUid, RootId, SnapshotKind,
    StateCatalogue, SubtaskState,
};
use std::collections::BTreeMap;

/// Another snapshot whose files are referenced: its own directory, and the job root around it. A hint until its
/// identity is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAnchor {
    /// Number by which [`Anchor::External`](crate::Anchor::External) refers to it.
    pub id: u32,
    /// Where its directory was: `file://` and the absolute path, not escaped; overridden by hand after a move.
    pub url: String,
    /// The job whose snapshot it is.
    pub job: JobId,
    /// The root it was written for.
    pub root: RootId,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// xxh3-64 of its whole `_metadata`.
    pub digest: u64,
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

    /// All files, to give them other places; a file seen through several views comes several times.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut FileHandle> {
        let subtasks = self.operators.iter_mut().flat_map(|o| &mut o.subtasks);
        let families = subtasks
            .filter_map(|s| s.keyed.as_mut())
            .flat_map(|k| &mut k.families);
        let tables = families.flat_map(|f| &mut f.runs).flat_map(|r| &mut r.tables);
        tables.map(|table| &mut table.file)
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! A small snapshot that uses every part of the format.

    use super::*;
    use crate::*;

    /// A shared file of content `n`.
    pub(crate) fn file(n: u8) -> FileHandle {
        let birth = Birth {
            generation: Generation(1),
            checkpoint: CheckpointId(u64::from(n)),
        };
        FileHandle {
            content: u128::from(n),
            anchor: Anchor::Root,
            folder: Folder::Shared,
            object: ObjectName::of(birth, u128::from(n)),
            offset: 0,
            length: 1000 + u64::from(n),
            digest: u64::from(n) * 7,
        }
    }

    /// A view of the whole of a file.
    pub(crate) fn table(n: u8) -> TableHandle {
        TableHandle {
            file: file(n),
            visible_start: Vec::new(),
            visible_end: None,
            entries: 10,
        }
    }

    pub(crate) fn metadata() -> Metadata {
        let mut catalogue = StateCatalogue::new();
        let state = StateDeclaration {
            name: "total".into(),
            kind: StateKind::Value,
            order: ComponentOrder::KeyFirst,
            key_schema: "u64".into(),
            namespace_schema: String::new(),
            map_key_schema: String::new(),
            value_schema: "i64".into(),
        };
        let _ = catalogue.declare(&state);
        let narrowed = TableHandle {
            visible_start: vec![0, 64],
            visible_end: Some(vec![0, 128]),
            ..table(2)
        };
        let private = FileHandle {
            anchor: Anchor::SelfDir,
            folder: Folder::Private,
            ..file(3)
        };
        let keyed = KeyedHandle {
            range: KeyGroupRange {
                first: KeyGroup(64),
                last: KeyGroup(127),
            },
            backend: BackendKind::Lsm,
            next_seqno: 77,
            families: vec![FamilyHandle {
                name: "point".into(),
                runs: vec![
                    RunHandle {
                        tier: 0,
                        tables: vec![table(1)],
                    },
                    RunHandle {
                        tier: 9,
                        tables: vec![
                            narrowed,
                            TableHandle {
                                file: private,
                                ..table(3)
                            },
                        ],
                    },
                ],
            }],
        };
        let list = OperatorStateHandle {
            name: "offsets".into(),
            mode: OperatorStateMode::Split,
            items: vec![b"a".to_vec(), Vec::new()],
        };
        Metadata {
            job: JobId(0xa),
            root: RootId(0xb),
            generation: Generation(1),
            checkpoint: CheckpointId(3),
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 1_700_000_000_000,
            externals: vec![ExternalAnchor {
                id: 1,
                url: "file:///x".into(),
                job: JobId(1),
                root: RootId(2),
                checkpoint: CheckpointId(9),
                digest: 5,
            }],
            operators: vec![OperatorSnapshot {
                uid: OperatorUid::new("totals").unwrap_or_else(|e| panic!("{e}")),
                parallelism: 2,
                max_parallelism: 128,
                catalogue,
                subtasks: vec![
                    SubtaskState {
                        finished: true,
                        ..SubtaskState::empty(SubtaskIndex(0))
                    },
                    SubtaskState {
                        index: SubtaskIndex(1),
                        keyed: Some(keyed),
                        operator: vec![list],
                        finished: false,
                        new_bytes: 2000,
                    },
                ],
            }],
            properties: BTreeMap::from([("job-name".into(), "orders".into())]),
        }
    }
}
