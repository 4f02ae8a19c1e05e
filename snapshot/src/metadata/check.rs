//! What must hold of every snapshot, before it is written and after it was read.

use super::{Metadata, OperatorSnapshot};
use crate::{Anchor, FileHandle, Folder, key_group::check_parallelism};
use keybed_format::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Checks that the parts of a snapshot fit each other.
///
/// # Errors
/// `RegistryConflict` if one place holds two contents; `InvalidArgument` for everything else: uids that occur twice,
/// subtasks or key groups out of range or order, references that cannot exist, empty views.
pub fn check(metadata: &Metadata) -> Result {
    let mut uids = BTreeSet::new();
    for operator in &metadata.operators {
        if !uids.insert(&operator.uid) {
            return Err(Error::invalid("a uid occurs twice").with("uid", &operator.uid));
        }
        check_operator(operator).map_err(|e| e.with("uid", &operator.uid))?;
    }
    let mut places = BTreeMap::new();
    for file in metadata.files() {
        check_file(metadata, file)?;
        let place = (file.anchor, file.folder, &file.object, file.offset);
        if *places.entry(place).or_insert(file) != file {
            return Err(
                Error::new(Code::RegistryConflict, "one object holds two contents")
                    .with("object", &file.object),
            );
        }
    }
    Ok(())
}

fn check_operator(operator: &OperatorSnapshot) -> Result {
    check_parallelism(operator.max_parallelism, operator.parallelism)?;
    let mut index_min = 0;
    let mut ranges = Vec::new();
    for subtask in &operator.subtasks {
        if subtask.index.0 < index_min || subtask.index.0 >= operator.parallelism {
            return Err(Error::invalid("subtasks are out of range or order").with("subtask", subtask.index));
        }
        index_min = subtask.index.0 + 1;
        let mut names = BTreeSet::new();
        if let Some(twice) = subtask.operator.iter().find(|state| !names.insert(&state.name)) {
            return Err(
                Error::invalid("an operator state occurs twice").with("state", twice.name.escape_debug())
            );
        }
        let Some(keyed) = &subtask.keyed else { continue };
        ranges.push(keyed.range);
        let mut names = BTreeSet::new();
        if let Some(twice) = keyed.families.iter().find(|family| !names.insert(&family.name)) {
            return Err(Error::invalid("a family occurs twice").with("family", twice.name.escape_debug()));
        }
        if let Some(table) = keyed.tables().find(|table| table.is_empty()) {
            return Err(Error::invalid("a view shows nothing").with("object", &table.file.object));
        }
    }
    ranges.sort_unstable();
    let overlap = ranges
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.last >= b.first));
    let too_high = ranges
        .last()
        .is_some_and(|range| u32::from(range.last.0) >= operator.max_parallelism);
    if overlap || too_high {
        return Err(Error::invalid("key groups are owned twice or do not exist"));
    }
    Ok(())
}

fn check_file(metadata: &Metadata, file: &FileHandle) -> Result {
    let fits = match (file.anchor, file.folder) {
        (Anchor::SelfDir, Folder::Private) => true,
        (Anchor::Root, folder) => folder != Folder::Private,
        (Anchor::External(id), _) => metadata.externals.iter().any(|external| external.id == id),
        (Anchor::SelfDir, _) => false,
    };
    if fits && file.offset.checked_add(file.length).is_some() && file.object.as_str() != "_metadata" {
        Ok(())
    } else {
        Err(Error::invalid("a reference cannot exist").with("object", &file.object))
    }
}
