//! Facts about a snapshot for people and programs: sizes, states, files per subtask. Pure.

use crate::{
    Anchor, FileHandle, Folder, KeyGroupRange, Metadata, OperatorSnapshot, OperatorStateMode, StateId,
    StateKind, SubtaskState, handle::total_bytes, savepoint::SHARES_STORAGE_WITH,
};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of files, each file counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Files that only this snapshot needs: what deleting it would free.
    pub exclusive_bytes: u64,
    /// Files that other snapshots need, too.
    pub shared_bytes: u64,
    /// All files.
    pub total_bytes: u64,
    /// Number of files.
    pub files: usize,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Sizes of the whole snapshot.
    pub sizes: Sizes,
    /// Operators in the order of the program.
    pub operators: Vec<OperatorInspection>,
    /// Every directory outside of its own that the snapshot depends on, as (anchor, folder).
    pub depends_on: Vec<(Anchor, Folder)>,
    /// Directories whose files it was hard-linked from when it was written: safe against their deletion, not against
    /// damage in place. See [`SHARES_STORAGE_WITH`].
    pub shares_storage_with: Vec<String>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInspection {
    /// Its uid.
    pub uid: String,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Bytes of its files, each counted once, and of inline items.
    pub total_bytes: u64,
    /// Its keyed states: id, name, kind, dropped.
    pub states: Vec<(StateId, String, StateKind, bool)>,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskInspection>,
}

/// One subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskInspection {
    /// Its index.
    pub index: u32,
    /// Its key groups, if it has keyed state.
    pub range: Option<KeyGroupRange>,
    /// Bytes of its files and inline items.
    pub total_bytes: u64,
    /// Bytes that this snapshot added.
    pub new_bytes: u64,
    /// Distinct files.
    pub files: usize,
    /// Entries of its tables: an upper bound where tables are seen through a narrower range.
    pub entries: u64,
    /// Operator states: name, mode, items.
    pub operator: Vec<(String, OperatorStateMode, usize)>,
    /// Whether it had ended.
    pub finished: bool,
}

type Place<'a> = (Anchor, Folder, &'a str, u64);

fn place(file: &FileHandle) -> Place<'_> {
    (file.anchor, file.folder, file.object.as_str(), file.offset)
}

/// The facts of `metadata`; `others` are the other snapshots of the same root.
pub fn inspect(metadata: &Metadata, others: &[Metadata]) -> Inspection {
    let depends_on: BTreeSet<(Anchor, Folder)> = metadata
        .files()
        .filter(|file| file.anchor != Anchor::SelfDir)
        .map(|file| (file.anchor, file.folder))
        .collect();
    let shares = metadata
        .properties
        .get(SHARES_STORAGE_WITH)
        .map(String::as_str)
        .into_iter();
    Inspection {
        sizes: sizes(metadata, others),
        operators: metadata.operators.iter().map(inspect_operator).collect(),
        depends_on: depends_on.into_iter().collect(),
        shares_storage_with: shares.flat_map(str::lines).map(ToOwned::to_owned).collect(),
    }
}

/// Sizes of `metadata`, given the other snapshots of the same root.
pub fn sizes(metadata: &Metadata, others: &[Metadata]) -> Sizes {
    let needed: BTreeSet<Place<'_>> = others
        .iter()
        .flat_map(Metadata::files)
        .filter(|file| file.anchor != Anchor::SelfDir)
        .map(place)
        .collect();
    let files: BTreeMap<Place<'_>, u64> = metadata.files().map(|file| (place(file), file.length)).collect();
    let mut sizes = Sizes {
        files: files.len(),
        ..Sizes::default()
    };
    for (place, bytes) in files {
        let part = if needed.contains(&place) {
            &mut sizes.shared_bytes
        } else {
            &mut sizes.exclusive_bytes
        };
        *part = part.saturating_add(bytes);
    }
    sizes.total_bytes = sizes.exclusive_bytes.saturating_add(sizes.shared_bytes);
    sizes
}

fn inspect_operator(operator: &OperatorSnapshot) -> OperatorInspection {
    let states = operator.catalogue.entries().iter();
    OperatorInspection {
        uid: operator.uid.to_string(),
        parallelism: operator.parallelism,
        max_parallelism: operator.max_parallelism,
        total_bytes: total_bytes(&operator.subtasks),
        states: states
            .map(|e| (e.id, e.state.name.clone(), e.state.kind, e.dropped))
            .collect(),
        subtasks: operator.subtasks.iter().map(inspect_subtask).collect(),
    }
}

fn inspect_subtask(subtask: &SubtaskState) -> SubtaskInspection {
    let keyed = subtask.keyed.as_ref();
    let entries: BTreeMap<Place<'_>, u64> = keyed
        .iter()
        .flat_map(|k| k.tables())
        .map(|table| (place(&table.file), table.entries))
        .collect();
    SubtaskInspection {
        index: subtask.index.0,
        range: keyed.map(|keyed| keyed.range),
        total_bytes: subtask.total_bytes(),
        new_bytes: subtask.new_bytes,
        files: entries.len(),
        entries: entries.into_values().fold(0, u64::saturating_add),
        operator: subtask
            .operator
            .iter()
            .map(|o| (o.name.clone(), o.mode, o.items.len()))
            .collect(),
        finished: subtask.finished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::sample;

    #[test]
    fn sizes_count_every_file_once_and_tell_shared_from_exclusive() {
        let metadata = sample::metadata();
        let alone = sizes(&metadata, &[]);
        assert_eq!(
            (alone.files, alone.exclusive_bytes, alone.shared_bytes),
            (3, 1001 + 1002 + 1003, 0)
        );
        let mut other = metadata.clone();
        let keyed = other.operators[0].subtasks[1].keyed.as_mut().unwrap();
        keyed.families[0].runs.remove(0);
        let sizes = sizes(&metadata, &[other]);
        // The private file of the other lies in the other's own directory.
        assert_eq!(
            (sizes.exclusive_bytes, sizes.shared_bytes, sizes.total_bytes),
            (1001 + 1003, 1002, 3006)
        );
    }

    #[test]
    fn an_inspection_names_states_subtasks_and_dependencies() {
        let inspection = inspect(&sample::metadata(), &[]);
        assert_eq!(inspection.depends_on, [(Anchor::Root, Folder::Shared)]);
        let operator = &inspection.operators[0];
        assert_eq!(
            (operator.uid.as_str(), operator.states[0].1.as_str()),
            ("totals", "total")
        );
        let subtask = &operator.subtasks[1];
        assert_eq!(
            (subtask.files, subtask.entries, subtask.total_bytes),
            (3, 30, 3007)
        );
        assert_eq!(
            subtask.operator,
            [("offsets".to_owned(), OperatorStateMode::Split, 2)]
        );
    }
}
