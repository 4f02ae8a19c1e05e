//! Checkpoints and savepoints: identity, metadata, storage, ownership, retention, rescale.
//!
//! | file | idea |
//! |---|---|
//! | [`id`] | names of jobs, roots, checkpoints, generations, operators, subtasks |
//! | [`key_group`] | which subtask owns which keys, for ever |
//! | [`kind`] | kinds of snapshots, sharing of files, what a backend is asked for |
//! | [`object`] | names of physical copies; they tell their birth |
//! | [`handle`] | where the state of a subtask lies |
//! | [`catalogue`] | an operator's states: name → id, kind, layout, schemas |
//! | [`schema`] | what bytes of keys and values are, without the program's types; compatibility of two schemas |
//! | [`metadata`] | what a snapshot is: the content of `_metadata` |
//! | [`storage`] | object-level verbs over one job root: in memory, on a file system |
//! | [`conformance`] | the suite that every storage passes (test support) |
//! | [`mod@rescale`] | restore at another parallelism, as metadata |
//! | [`owner`] | owner records: generations, void checkpoints, the timeline |
//! | [`registry`] | which objects are needed and which may go |
//! | [`claim`] | claims: a job owns a snapshot that it did not write |
//! | [`external`] | declared anchors of files in other snapshots, and their identity |
//! | [`foreign`] | a snapshot that a job starts from and did not write |
//! | [`survey`] | what lies in a job root |
//! | [`root`] | the checkpoints of one job: take over, allocate, publish, clean up |
//! | [`gc`] | sweeping a job root, by its owner or without one |
//! | [`savepoint`] | savepoints: self-contained directories that belong to the user |
//! | [`held`] | the files of a snapshot held open while its owner may delete them |
//! | [`snapshot_dir`] | a snapshot by its path, with no job running |
//! | [`mod@verify`] | every file of a snapshot to the byte |
//! | [`browse`] | which snapshots lie below a directory |
//! | [`mod@ownership`] | who owns a file, who needs it, whether it may go |
//! | [`mod@inspect`] | facts about a snapshot for people and programs |
//! | [`finished`] | the record that a job has ended for good |
//! | [`stop`] | the record that a job is to end, or ended, with a savepoint |
//! | [`files`] | the two verbs of the state layer: put this file, open this handle |
//!
//! The crate knows nothing of tables, codecs, operators, threads and channels. Decisions are pure functions over
//! facts; whatever deletes takes a list that was decided and tested elsewhere.
#![forbid(unsafe_code)]

pub mod browse;
pub mod catalogue;
pub mod claim;
pub mod conformance;
pub mod external;
pub mod files;
pub mod finished;
pub mod foreign;
pub mod gc;
#[cfg(test)]
mod golden;
pub mod handle;
pub mod held;
pub mod id;
pub mod inspect;
pub mod key_group;
pub mod kind;
pub mod metadata;
pub mod object;
pub mod owner;
pub mod ownership;
mod part;
pub mod registry;
pub mod rescale;
pub mod root;
pub mod savepoint;
pub mod schema;
pub mod snapshot_dir;
pub mod stop;
pub mod storage;
pub mod survey;
pub mod verify;

pub use browse::{FoundSnapshot, SnapshotStanding};
pub use catalogue::{CatalogueEntry, ComponentOrder, StateCatalogue, StateDeclaration, StateId, StateKind};
pub use claim::{ClaimRecord, Claimant};
pub use external::Anchors;
pub use files::{LocalFile, OpenFiles, PutFiles};
pub use finished::FinishedRecord;
pub use foreign::ForeignSnapshot;
pub use gc::{GcOptions, GcReport};
pub use handle::{
    Anchor, BackendKind, FamilyHandle, FileHandle, Folder, KeyedHandle, OperatorStateHandle,
    OperatorStateMode, RunHandle, Scope, SubtaskState, TableHandle,
};
pub use held::HeldSnapshot;
pub use id::{CheckpointId, Generation, JobId, OperatorId, OperatorUid, RootId, SubtaskIndex};
pub use inspect::{Inspection, inspect};
pub use key_group::{KeyGroup, KeyGroupRange, check_parallelism, key_group_of, max_parallelism_default};
pub use kind::{FileSharing, SnapshotKind, SnapshotOwner, SnapshotRequest};
pub use metadata::{ExternalAnchor, Metadata, OperatorSnapshot};
pub use object::{Birth, ObjectName};
pub use owner::{ClaimMode, OwnerRecord, RestoreSource};
pub use ownership::{FileOwnership, ownership};
pub use rescale::{Assignment, rescale};
pub use root::{Candidate, CandidateStanding, CheckpointRoot, CleanupReport, OpenRoot, StartOptions};
pub use savepoint::{SavepointTarget, SavepointWriter};
pub use schema::Schema;
pub use snapshot_dir::SnapshotDir;
pub use stop::StopRecord;
pub use storage::{CheckpointStorage, Listed, LocalStorage, MemoryStorage, ObjectPath, Place};
pub use verify::{Verification, verify};
