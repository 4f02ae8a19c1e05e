//! A handle's bytes inside its object: the whole object, or a part of a packed one.

use crate::{FileHandle, storage::copy_out};
use keybed_env::{Fs, ReadFile, fs::FileKind};
use keybed_format::{Code, Error, Result};
use std::{path::Path, sync::Arc};

/// The file of `handle` inside the opened object called `name`.
///
/// # Errors
/// `SnapshotCorrupt` at the offset where the object ends too early or has bytes that nothing names.
pub(crate) fn checked(
    object: Arc<dyn ReadFile>,
    handle: &FileHandle,
    name: &str,
) -> Result<Arc<dyn ReadFile>> {
    let end = handle.offset.saturating_add(handle.length);
    // An object that starts with this file holds nothing else: packed ones start with a header.
    let whole = handle.offset == 0;
    if object.len() < end || (whole && object.len() != end) {
        return Err(Error::new(
            Code::SnapshotCorrupt,
            "the file has another length than the snapshot says",
        )
        .in_file(name)
        .at(object.len().min(end))
        .expected_found(end, object.len()));
    }
    if whole {
        Ok(object)
    } else {
        Ok(Arc::new(Part {
            object,
            offset: handle.offset,
            length: handle.length,
        }))
    }
}

/// Names a missing object as what it is to a snapshot.
pub(crate) fn missing(error: Error, name: &str) -> Error {
    match error.code() {
        Code::NotFound => Error::new(Code::SnapshotIncomplete, "a file of the snapshot is missing")
            .in_file(name)
            .with("missing", name),
        _ => error.in_file(name),
    }
}

/// Opens the object at `path`, called `name`; what is no regular file is no object, so that no reference leaves its
/// folder by a symbolic link.
///
/// # Errors
/// `SnapshotIncomplete`, `SnapshotCorrupt`; errors of the file system.
pub(crate) fn open(fs: &dyn Fs, path: &Path, name: &str) -> Result<Arc<dyn ReadFile>> {
    // If the question cannot be answered, the first error is true all the same.
    fs.open(path).map_err(
        |error| match fs.facts(path).ok().flatten().map(|facts| facts.kind) {
            Some(FileKind::Dir | FileKind::Other) => Error::new(
                Code::SnapshotCorrupt,
                "no regular file, as every file of a snapshot is",
            )
            .in_file(path),
            _ => missing(error, name),
        },
    )
}

/// Makes the file available elsewhere: `whole` moves the whole object, a part is copied.
pub(crate) fn fetch(
    handle: &FileHandle,
    file: &dyn ReadFile,
    fs: &dyn Fs,
    to: &Path,
    whole: impl FnOnce() -> Result,
) -> Result {
    if handle.offset == 0 {
        whole()
    } else {
        copy_out(file, fs, to)
    }
}

#[derive(Debug)]
struct Part {
    object: Arc<dyn ReadFile>,
    offset: u64,
    length: u64,
}

impl ReadFile for Part {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.length {
            return Err(Error::new(Code::Malformed, "the part ends too early")
                .at(offset)
                .expected_found(end, self.length));
        }
        self.object.read_exact_at(buffer, self.offset + offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        let bytes = bytes.min(self.length.saturating_sub(offset));
        self.object.will_read(self.offset.saturating_add(offset), bytes);
    }
}
