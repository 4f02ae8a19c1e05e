//! Checking every file of a snapshot to the byte.

use crate::{FileHandle, Metadata, OpenFiles};
use keybed_env::ReadFile;
use keybed_format::{Code, Error, Result, trailer};
use std::collections::BTreeSet;

/// What a check of a snapshot found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Files read completely and found as they were written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are missing.
    pub missing: Vec<String>,
    /// Everything else that is wrong, one error per file.
    pub problems: Vec<Error>,
}

impl Verification {
    /// The verdict.
    ///
    /// # Errors
    /// `SnapshotCorrupt` naming file and offset of the first damage; else `SnapshotIncomplete` with field `missing`
    /// naming every missing file.
    pub fn verdict(&self) -> Result {
        if let Some(first) = self.problems.first() {
            return Err(first.duplicate());
        }
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => Err(
                Error::new(Code::SnapshotIncomplete, "files of the snapshot are missing")
                    .with("count", missing.len())
                    .with("missing", missing.join(", ")),
            ),
        }
    }
}

/// Reads every byte of every file of a snapshot, each file once.
///
/// The metadata itself was verified when it was decoded.
pub fn verify(metadata: &Metadata, files: &dyn OpenFiles) -> Verification {
    each_file(metadata, |handle| verify_file(handle, files))
}

/// Looks whether every file of a snapshot is there with its length; contents are not read, so
/// [`Verification::bytes`] were only counted.
pub fn check_presence(metadata: &Metadata, files: &dyn OpenFiles) -> Verification {
    each_file(metadata, |handle| files.open(handle).map(drop))
}

fn each_file(metadata: &Metadata, check: impl Fn(&FileHandle) -> Result) -> Verification {
    let mut found = Verification::default();
    let unique: BTreeSet<&FileHandle> = metadata.files().collect();
    for handle in unique {
        match check(handle) {
            Ok(()) => {
                found.files += 1;
                found.bytes = found.bytes.saturating_add(handle.length);
            }
            Err(e) if e.code() == Code::SnapshotIncomplete => {
                found.missing.push(
                    e.file()
                        .map_or_else(|| handle.object.to_string(), |f| f.display().to_string()),
                );
            }
            Err(e) => found.problems.push(e),
        }
    }
    found
}

/// Reads every byte of one file and compares it with its trailer and its handle.
///
/// # Errors
/// `SnapshotIncomplete` if it is missing; `SnapshotCorrupt` at the offset of the damage, to the MiB.
pub fn verify_file(handle: &FileHandle, files: &dyn OpenFiles) -> Result {
    verify_content(handle, &*files.open(handle)?, &files.describe(handle))
}

/// Reads every byte of an opened file, called `name`, and compares it with its trailer and with `handle`.
///
/// # Errors
/// `SnapshotCorrupt` at the offset of the damage, to the MiB.
pub(crate) fn verify_content(handle: &FileHandle, file: &dyn ReadFile, name: &str) -> Result {
    let name = |e: Error| e.recode_malformed(Code::SnapshotCorrupt).in_file(name);
    let found = trailer::verify(file.len(), &mut |offset, buffer| {
        file.read_exact_at(buffer, offset)
    })
    .map_err(name)?;
    if (found.content_id, found.digest) != (handle.content, handle.digest) {
        let tail = file.len().saturating_sub(trailer::TAIL_BYTES as u64);
        return Err(name(
            Error::new(Code::SnapshotCorrupt, "the file is intact but another one")
                .at(tail)
                .expected_found(
                    format_args!("{:032x}, digest {:016x}", handle.content, handle.digest),
                    format_args!("{:032x}, digest {:016x}", found.content_id, found.digest),
                ),
        ));
    }
    Ok(())
}
