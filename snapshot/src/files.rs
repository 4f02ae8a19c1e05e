//! The two verbs through which the state layer sees snapshot storage: put this file, open this handle.
//!
//! A backend never learns of a directory, a bucket or a generation.

use crate::{FileHandle, Scope};
use keybed_env::{Fs, ReadFile};
use keybed_format::Result;
use std::{path::Path, sync::Arc};

/// A file on this machine that is offered to a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct LocalFile<'a> {
    /// Where it lies.
    pub fs: &'a dyn Fs,
    /// Its name there.
    pub path: &'a Path,
    /// Content id of its trailer.
    pub content: u128,
    /// Digest of its trailer.
    pub digest: u64,
    /// Bytes of the whole file.
    pub bytes: u64,
}

/// Takes files of one subtask into one snapshot.
///
/// A handle may be referenced by the snapshot it was made for and, if it is [`Scope::Shared`], by later
/// checkpoints as long as it is in the last completed checkpoint; or, if its own checkpoint failed, until the next
/// checkpoint completes without it. Then it is swept.
pub trait PutFiles: Send + Sync {
    /// Takes a finished, immutable file in: linked where that is possible, else copied. Its bytes are durable on
    /// return, its name before any metadata names it. The local file may be deleted afterwards, never changed.
    ///
    /// # Errors
    /// `CheckpointDeclined` if the checkpoint was aborted or subsumed meanwhile; `Malformed` if the file is not the one
    /// announced; errors of either side.
    fn put_file(&self, scope: Scope, file: LocalFile<'_>) -> Result<FileHandle>;

    /// Names a file of the last completed checkpoint or of the restored snapshot again, and returns the handle to name
    /// it by: the root decides. Called for every file that is not put. A file of the job's own root keeps its handle;
    /// one of a claimed snapshot gets an own name in `shared/` where links are possible.
    ///
    /// # Errors
    /// As [`PutFiles::put_file`]; `InvalidArgument` if the snapshot the file belongs to may not be referenced;
    /// `SnapshotIncomplete` if the file is gone.
    fn adopt(&self, handle: &FileHandle) -> Result<FileHandle> {
        Ok(handle.clone())
    }

    /// Where the snapshot itself will lie, for people; only savepoints have a place of their own.
    fn location(&self) -> Option<&Path> {
        None
    }

    /// As [`PutFiles::put_file`], for a file of which the caller removes its own name as soon as this returns: it is
    /// linked where that is possible even in a snapshot that shares no files, since nobody else is left to share it.
    ///
    /// # Errors
    /// As [`PutFiles::put_file`].
    fn give_file(&self, scope: Scope, file: LocalFile<'_>) -> Result<FileHandle> {
        self.put_file(scope, file)
    }
}

/// Opens files of one snapshot.
pub trait OpenFiles: Send + Sync {
    /// Opens the file for reading; offsets count from the file's own first byte, packed or not.
    ///
    /// # Errors
    /// `SnapshotIncomplete` if it is missing; `SnapshotCorrupt` if it has another length.
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>>;

    /// Makes the file available as `to` of `fs`, which must not exist: linked where that is possible, else copied.
    /// Not synced.
    ///
    /// # Errors
    /// As [`OpenFiles::open`]; `TargetExists`; errors of `fs`.
    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result;

    /// How people find the file: a path or an address, for error texts.
    fn describe(&self, handle: &FileHandle) -> String {
        handle.object.to_string()
    }
}
