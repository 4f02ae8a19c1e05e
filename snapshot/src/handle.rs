//! Handles: where the state of a subtask lies.
//!
//! ```text
//! SubtaskState ─▶ KeyedHandle ─▶ FamilyHandle ─▶ RunHandle (newest first) ─▶ TableHandle ─▶ FileHandle
//!        └──────▶ OperatorStateHandle (inline items)
//! ```
//! A backend returns handles and obeys a request; it knows no path. A [`FileHandle`] is
//! `(content id, anchor, folder, object name, offset, length, digest)`; a [`TableHandle`] adds the key range
//! through which the table is seen, which rescale narrows and never widens.

use crate::{KeyGroupRange, ObjectName, SubtaskIndex};
use std::collections::BTreeMap;

/// What the folder of a reference is relative to; an anchor travels unchanged with the reference when another
/// snapshot carries it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anchor {
    /// The directory of the snapshot itself. Cannot be carried on by another snapshot.
    SelfDir,
    /// The root of the job.
    Root,
    /// Another snapshot's directory or root, by its id in [`Metadata::externals`](crate::Metadata::externals).
    External(u32),
}

/// Which folder below the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Folder {
    /// Directly in the anchor; with [`Anchor::SelfDir`] only.
    Private,
    /// `shared/`: objects that several checkpoints may reference.
    Shared,
    /// `taskowned/`: objects that tasks delete themselves.
    TaskOwned,
}

/// Who may reference a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This and later checkpoints: it lies in `shared/`.
    Shared,
    /// This snapshot alone: it lies in the snapshot's own directory.
    Exclusive,
}

impl Scope {
    /// Where a job's own root puts a new object of this scope.
    pub fn place(self) -> (Anchor, Folder) {
        match self {
            Scope::Shared => (Anchor::Root, Folder::Shared),
            Scope::Exclusive => (Anchor::SelfDir, Folder::Private),
        }
    }
}

/// One immutable file (or part of a packed one) of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHandle {
    /// Names the bytes: the content id in the file's trailer, equal in all copies.
    pub content: u128,
    /// What the folder is relative to.
    pub anchor: Anchor,
    /// Folder below the anchor.
    pub folder: Folder,
    /// Name of this physical copy.
    pub object: ObjectName,
    /// First byte of the file inside the object; 0 unless packed.
    pub offset: u64,
    /// Bytes of the file, trailer included.
    pub length: u64,
    /// Digest in the file's trailer.
    pub digest: u64,
}

/// A table seen through a key range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableHandle {
    /// The file.
    pub file: FileHandle,
    /// First visible key; empty = from the start. Tighten it to the table's smallest key where that is known: what
    /// does not intersect a new range is not even fetched.
    pub visible_start: Vec<u8>,
    /// First key that is no longer visible; `None` = to the end.
    pub visible_end: Option<Vec<u8>>,
    /// Entries of the whole table: an upper bound for a narrowed view.
    pub entries: u64,
}

impl TableHandle {
    /// Whether no key can be visible.
    pub fn is_empty(&self) -> bool {
        self.visible_end
            .as_ref()
            .is_some_and(|end| *end <= self.visible_start)
    }
}

/// Tables of one sorted run, by key, visible ranges disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RunHandle {
    /// Tier of the run in the store that wrote it.
    pub tier: u8,
    /// The tables in key order.
    pub tables: Vec<TableHandle>,
}

/// Runs of one family of the store, newest first, bottom last. In canonical savepoints one family `canonical` refers to
/// a canonical file instead of tables, seen through a range that cuts between key groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FamilyHandle {
    /// Name of the family.
    pub name: String,
    /// The runs, newest first.
    pub runs: Vec<RunHandle>,
}

/// Which backend wrote keyed state; either can restore the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKind {
    /// The LSM store.
    Lsm,
    /// The heap backend, which writes sorted tables.
    Heap,
}

/// Keyed state of one subtask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyedHandle {
    /// Key groups whose keys it holds.
    pub range: KeyGroupRange,
    /// Who wrote it.
    pub backend: BackendKind,
    /// Above every seqno in the tables.
    pub next_seqno: u64,
    /// Families, by name.
    pub families: Vec<FamilyHandle>,
}

impl KeyedHandle {
    /// All tables, family by family, newest run first.
    pub fn tables(&self) -> impl Iterator<Item = &TableHandle> {
        self.families.iter().flat_map(|f| &f.runs).flat_map(|r| &r.tables)
    }

    /// All files; a file seen through several views comes several times.
    pub fn files(&self) -> impl Iterator<Item = &FileHandle> {
        self.tables().map(|t| &t.file)
    }
}

/// How operator state is dealt to new subtasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperatorStateMode {
    /// The items of all subtasks in order, dealt evenly.
    Split,
    /// Every subtask gets the items of all.
    Union,
    /// Every subtask gets the same copy.
    Broadcast,
}

/// A named list of operator state, inline in the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorStateHandle {
    /// Name of the state, unique in its operator.
    pub name: String,
    /// How it is dealt at restore.
    pub mode: OperatorStateMode,
    /// Encoded items in order.
    pub items: Vec<Vec<u8>>,
}

/// What one subtask contributes to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskState {
    /// Which subtask.
    pub index: SubtaskIndex,
    /// Keyed state, if the operator has any.
    pub keyed: Option<KeyedHandle>,
    /// Operator state by name.
    pub operator: Vec<OperatorStateHandle>,
    /// Whether the subtask had ended when the snapshot was taken; its state is carried on.
    pub finished: bool,
    /// Bytes that this snapshot added to the storage for this subtask.
    pub new_bytes: u64,
}

impl SubtaskState {
    /// A subtask without state.
    pub fn empty(index: SubtaskIndex) -> Self {
        SubtaskState {
            index,
            keyed: None,
            operator: Vec::new(),
            finished: false,
            new_bytes: 0,
        }
    }

    /// All files of the subtask; a file seen through several views comes several times.
    pub fn files(&self) -> impl Iterator<Item = &FileHandle> {
        self.keyed.iter().flat_map(KeyedHandle::files)
    }

    /// Bytes of all files, each counted once, and of inline items.
    pub fn total_bytes(&self) -> u64 {
        total_bytes([self])
    }
}

/// Bytes of all files of some subtasks, each counted once however many of them see it, and of inline items.
pub fn total_bytes<'a>(subtasks: impl IntoIterator<Item = &'a SubtaskState>) -> u64 {
    let mut files = BTreeMap::new();
    let mut inline = 0_u64;
    for subtask in subtasks {
        files.extend(
            subtask
                .files()
                .map(|f| ((f.anchor, f.folder, &f.object, f.offset), f.length)),
        );
        let items = subtask
            .operator
            .iter()
            .flat_map(|o| &o.items)
            .map(|i| i.len() as u64);
        inline = items.fold(inline, u64::saturating_add);
    }
    files.into_values().fold(inline, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::sample;

    #[test]
    fn a_file_that_two_subtasks_see_counts_once() {
        let subtasks = sample::metadata().operators.remove(0).subtasks;
        let once = total_bytes(&subtasks);
        assert_eq!(once, subtasks.iter().map(SubtaskState::total_bytes).sum::<u64>());
        let inline: u64 = subtasks[1]
            .operator
            .iter()
            .flat_map(|o| &o.items)
            .map(|i| i.len() as u64)
            .sum();
        let twice = [&subtasks[0], &subtasks[1], &subtasks[1]];
        assert_eq!(total_bytes(twice), once + inline);
    }
}
