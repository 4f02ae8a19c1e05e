//! What must hold of every snapshot, before it is written and after it was read.

use super::{
    Metadata, OperatorSnapshot,
    codec::{PROPERTY_BYTES_MAX, URL_BYTES_MAX},
    operator::NAME_BYTES_MAX,
};
use crate::{
    Anchor, FileHandle, FileSharing, Folder, ObjectName,
    key_group::check_parallelism,
    storage::layout::{DISPOSING_NAME, METADATA_NAME},
};
use keybed_format::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Checks that the parts of a snapshot fit each other.
///
/// # Errors
/// `RegistryConflict` if one place holds two contents; `InvalidArgument` for everything else: uids that occur twice,
/// subtasks or key groups out of range or order, references that cannot exist, empty views, texts that a reader would
/// refuse as too long.
pub fn check(metadata: &Metadata) -> Result {
    for (name, text) in &metadata.properties {
        check_text("a property's name is too long", name, PROPERTY_BYTES_MAX)?;
        check_text("a property is too long", text, PROPERTY_BYTES_MAX)?;
    }
    let mut externals = BTreeSet::new();
    for external in &metadata.externals {
        check_text("an address is too long", &external.url, URL_BYTES_MAX)?;
        if !externals.insert(external.id) {
            return Err(Error::invalid("two places outside have one number").with("external", external.id));
        }
    }
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

fn check_text(message: &'static str, text: &str, bytes_max: usize) -> Result {
    if text.len() <= bytes_max {
        Ok(())
    } else {
        Err(Error::invalid(message).expected_found(format_args!("at most {bytes_max} bytes"), text.len()))
    }
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
        for state in &subtask.operator {
            check_text(
                "the name of an operator state is too long",
                &state.name,
                NAME_BYTES_MAX,
            )?;
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = subtask.operator.iter().find(|state| !names.insert(&state.name)) {
            return Err(
                Error::invalid("an operator state occurs twice").with("state", twice.name.escape_debug())
            );
        }
        let Some(keyed) = &subtask.keyed else { continue };
        ranges.push(keyed.range);
        for family in &keyed.families {
            check_text("the name of a family is too long", &family.name, NAME_BYTES_MAX)?;
        }
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
    if metadata.kind.sharing() == FileSharing::NoSharing && file.anchor != Anchor::SelfDir {
        return Err(
            Error::invalid("a savepoint references a file outside of its directory")
                .with("object", &file.object),
        );
    }
    let fits = match (file.anchor, file.folder) {
        (Anchor::SelfDir, Folder::Private) => true,
        (Anchor::Root, folder) => folder != Folder::Private,
        (Anchor::External(id), _) => metadata.externals.iter().any(|external| external.id == id),
        (Anchor::SelfDir, _) => false,
    };
    let ours = |name: &ObjectName| {
        // What has a temporary name is swept without a look at references.
        [METADATA_NAME, DISPOSING_NAME].contains(&name.as_str()) || name.is_temporary()
    };
    if fits && file.offset.checked_add(file.length).is_some() && !ours(&file.object) {
        Ok(())
    } else {
        Err(Error::invalid("a reference cannot exist").with("object", &file.object))
    }
}
