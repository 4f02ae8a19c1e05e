//! The files of a snapshot held open, so that its owner may delete them while they are read.
//!
//! A checkpoint in the root of a living job can be subsumed at any time, and a reader in another process has no lease
//! there. What it has opened it can read to the end, because a file lives on without its name. So a long reading begins
//! by opening everything; after that only a copy by name can fail, and falls back to the open file. Why this and no
//! lease file: docs/decisions/readers-hold-files.md.

use crate::{FileHandle, OpenFiles, SnapshotDir, part, storage::copy_out};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// Files that are held at once, well below the 1,024 descriptors that a process usually has. Further ones are opened
/// when they are read, as if nothing were held.
const HELD_MAX: usize = 512;

/// A snapshot whose files are open.
#[derive(Debug)]
pub struct HeldSnapshot<'a> {
    snapshot: &'a SnapshotDir,
    files: BTreeMap<FileHandle, Arc<dyn ReadFile>>,
}

impl SnapshotDir {
    /// Opens the files of the snapshot, at most 512, after [`SnapshotDir::check_complete`].
    ///
    /// # Errors
    /// Those of [`SnapshotDir::check_complete`]; `SnapshotIncomplete` saying so if its job deleted it meanwhile.
    pub fn hold(&self) -> Result<HeldSnapshot<'_>> {
        let hold = || -> Result<_> {
            self.check_complete()?;
            let handles: BTreeSet<&FileHandle> = self.metadata().files().collect();
            let open = |handle: &FileHandle| Ok((handle.clone(), self.open(handle)?));
            handles.into_iter().take(HELD_MAX).map(open).collect()
        };
        Ok(HeldSnapshot {
            snapshot: self,
            files: hold().map_err(|e| self.explain(e))?,
        })
    }

    /// Says so if files are missing because the snapshot was deleted since it was opened.
    fn explain(&self, error: Error) -> Error {
        let gone = || matches!(SnapshotDir::open(self.fs().clone(), self.directory()), Err(e) if e.code() == Code::NotASnapshot);
        if error.code() == Code::SnapshotIncomplete && gone() {
            error.context("the snapshot was deleted while it was read")
        } else {
            error
        }
    }
}

impl HeldSnapshot<'_> {
    /// The snapshot.
    pub fn snapshot(&self) -> &SnapshotDir {
        self.snapshot
    }
}

impl OpenFiles for HeldSnapshot<'_> {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        match self.files.get(handle) {
            Some(file) => Ok(file.clone()),
            None => self.snapshot.open(handle).map_err(|e| self.snapshot.explain(e)),
        }
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        match (self.snapshot.fetch(handle, fs, to), self.files.get(handle)) {
            // Its name is gone, or went between the look and the copy.
            (Err(e), Some(file)) if matches!(e.code(), Code::SnapshotIncomplete | Code::NotFound) => {
                part::fetch(handle, &**file, fs, to, || copy_out(&**file, fs, to))
            }
            (fetched, _) => fetched.map_err(|e| self.snapshot.explain(e)),
        }
    }

    fn describe(&self, handle: &FileHandle) -> String {
        self.snapshot.describe(handle)
    }
}
