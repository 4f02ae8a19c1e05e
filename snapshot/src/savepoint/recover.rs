//! Finding out what became of the savepoint that a stop record names, and removing one that never came to be.
//!
//! The record was durable before the directory was created, and the target was durable before the record. So: metadata
//! there – it exists; no metadata, and the target is there – it never did, and nobody else will write it any more.

use crate::{
    Birth, Metadata, ObjectName, SnapshotOwner, StopRecord, snapshot_dir::read_metadata_file, storage::layout,
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result};
use std::path::Path;

/// The metadata of the recorded savepoint, which is durable from here; `None` if it was never published.
///
/// # Errors
/// `SnapshotIncomplete` if its target is not there, so that nobody can tell: it may not be mounted. `SnapshotCorrupt`
/// if another snapshot lies there or it cannot be read; errors of the file system.
pub fn published(fs: &dyn Fs, record: &StopRecord) -> Result<Option<Metadata>> {
    let directory = &record.directory;
    let file = layout::document(directory, layout::METADATA_NAME);
    let metadata = match read_metadata_file(fs, &file) {
        Ok(document) => document.metadata,
        Err(e) if e.code() == Code::NotFound => {
            demand_target(fs, directory)?;
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let found = (
        metadata.job,
        metadata.root,
        metadata.generation,
        metadata.checkpoint,
    );
    if found != (record.job, record.root, record.generation, record.checkpoint)
        || metadata.kind.owner() != SnapshotOwner::User
    {
        let what = "another snapshot lies where the stop put its savepoint";
        return Err(Error::new(Code::SnapshotCorrupt, what)
            .in_file(file)
            .at(0)
            .expected_found(record.checkpoint, found.3));
    }
    // Whoever published it may have died before its name was durable.
    fs.sync_dir(directory)?;
    Ok(Some(metadata))
}

fn demand_target(fs: &dyn Fs, directory: &Path) -> Result {
    let target = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    match target {
        Some(target) if fs.facts(target)?.is_none() => Err(Error::new(
            Code::SnapshotIncomplete,
            "whether the job stopped with a savepoint cannot be told: the savepoint's target is not there",
        )
        .in_file(target)
        .with("missing", directory.display())),
        _ => Ok(()),
    }
}

/// Removes the directory of a recorded savepoint that was never published: the files that were made for it, and the
/// directory if nothing else is in it. May be repeated.
///
/// # Errors
/// `InvalidArgument` if it is published, or no directory that a savepoint was ever given; errors of the file system.
pub fn remove_unpublished(fs: &dyn Fs, record: &StopRecord) -> Result {
    let directory = &record.directory;
    let name = directory.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(layout::is_savepoint_name) {
        return Err(Error::invalid("the name is not that of a savepoint").in_file(directory));
    }
    let listed = match fs.list(directory) {
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        listed => listed?,
    };
    if listed.iter().any(|entry| entry.name == layout::METADATA_NAME) {
        return Err(Error::invalid("the savepoint is published").in_file(directory));
    }
    let birth = Birth {
        generation: record.generation,
        checkpoint: record.checkpoint,
    };
    let (mut left, entries) = (0, listed.into_iter());
    for entry in entries {
        match ObjectName::new(entry.name) {
            Ok(name) if entry.kind == FileKind::File && name.birth() == Some(birth) => {
                match fs.remove_file(&layout::private(directory, &name)) {
                    Err(e) if e.code() != Code::NotFound => return Err(e),
                    _ => {}
                }
            }
            _ => left += 1,
        }
    }
    if left > 0 {
        return Ok(()); // somebody else's
    }
    match fs.remove_dir(directory) {
        Err(e) if e.code() != Code::NotFound => Err(e),
        _ => {
            let target = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs.sync_dir(target.unwrap_or(Path::new(".")))
        }
    }
}
