//! Storage of the checkpoints of one job: object-level verbs over one job root.
//!
//! ```text
//!            CheckpointRoot (who owns, what is published, what may go)
//!                  │ verbs: create checkpoint, put new, put file, open, fetch, list, delete, sync
//!        ┌─────────┴─────────┐
//!   LocalStorage        MemoryStorage            one suite proves both: `conformance`
//!  (any `dyn Fs`)       (tests, small jobs)
//! ```
//! Rules that every storage keeps:
//! - [`CheckpointStorage::put_new`] and [`CheckpointStorage::create_checkpoint`] create if absent, atomically: of two
//!   writers exactly one wins; whoever returns `Ok` has made it durable.
//! - A file put by [`CheckpointStorage::put_file`] has durable bytes; its name is durable after
//!   [`CheckpointStorage::sync`] of its place, or a `put_new` there.
//! - Deleting what is missing is success. Nothing is ever replaced.

pub mod layout;
mod local;
mod memory;
pub(crate) mod take;

pub use layout::{ObjectPath, Place};
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use take::Intake;

use crate::{CheckpointId, ObjectName};
use keybed_env::{
    Fs, ReadFile,
    fs::{FileKind, FileLock},
};
use keybed_format::{Code, Error, Result};
use std::{fmt::Debug, path::Path, sync::Arc};

/// One name in a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// What it stands for; only files and directories are ever touched.
    pub kind: FileKind,
}

/// Facts about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970-01-01T00:00:00Z, by the clock of the storage; `None` where
    /// nobody knows.
    pub modified_ms: Option<u64>,
}

/// The verbs.
pub trait CheckpointStorage: Send + Sync + Debug + 'static {
    /// Makes this process the only owner of the root for the life of the returned value.
    ///
    /// # Errors
    /// `Locked` with field `pid` if another holder lives.
    fn lock(&self) -> Result<Box<dyn FileLock>>;

    /// As [`CheckpointStorage::lock`], for who looks and changes nothing: the lock is not signed.
    ///
    /// # Errors
    /// As [`CheckpointStorage::lock`].
    fn hold(&self) -> Result<Box<dyn FileLock>> {
        self.lock()
    }

    /// Creates the folder of a checkpoint, durably.
    ///
    /// # Errors
    /// `TargetExists` if it is there already.
    fn create_checkpoint(&self, id: CheckpointId) -> Result;

    /// Removes the folder of a checkpoint if it is empty; `false` if something is left in it. Missing is success.
    ///
    /// # Errors
    /// `IoFailed`.
    fn remove_checkpoint(&self, id: CheckpointId) -> Result<bool>;

    /// Writes a new object of these bytes: durable, complete or not at all, never replacing. `temporary` is a fresh
    /// name that the storage may use in the same place meanwhile; a crash may leave it behind.
    ///
    /// # Errors
    /// `TargetExists` if the object exists (nothing was changed). Any other error leaves open whether the object
    /// exists: read it again.
    fn put_new(&self, path: &ObjectPath, bytes: &[u8], temporary: &ObjectName) -> Result;

    /// Takes a finished immutable file of `bytes` bytes in, by link where that is possible, else by copy; its bytes
    /// are durable on return.
    ///
    /// # Errors
    /// `TargetExists`; `Malformed` if the file has another length; errors of either side. On error the object does
    /// not exist or is garbage by its name.
    fn put_file(&self, path: &ObjectPath, local: &dyn Fs, from: &Path, bytes: u64) -> Result;

    /// As [`CheckpointStorage::put_file`], by link alone: `false`, with nothing changed, where that is impossible.
    ///
    /// # Errors
    /// As [`CheckpointStorage::put_file`].
    fn link_file(&self, _path: &ObjectPath, _local: &dyn Fs, _from: &Path, _bytes: u64) -> Result<bool> {
        Ok(false)
    }

    /// Opens an object.
    ///
    /// # Errors
    /// `NotFound`.
    fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ReadFile>>;

    /// Bytes and age of an object; `None` if it is not there. A default asks by opening it and knows no age.
    ///
    /// # Errors
    /// `IoFailed`.
    fn facts(&self, path: &ObjectPath) -> Result<Option<ObjectFacts>> {
        match self.open(path) {
            Ok(file) => Ok(Some(ObjectFacts {
                bytes: file.len(),
                modified_ms: None,
            })),
            Err(e) if e.code() == Code::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes an object available as the new file `to` of `fs`, by link where that is possible, else by copy. Not
    /// synced.
    ///
    /// # Errors
    /// `NotFound`; `TargetExists`.
    fn fetch(&self, path: &ObjectPath, fs: &dyn Fs, to: &Path) -> Result;

    /// Names in a place, sorted; of a missing place none.
    ///
    /// # Errors
    /// `IoFailed`.
    fn list(&self, place: Place) -> Result<Vec<Listed>>;

    /// Deletes an object; missing is success. Durable after [`CheckpointStorage::sync`].
    ///
    /// # Errors
    /// `IoFailed`, `ReadOnlyMedium`.
    fn delete(&self, path: &ObjectPath) -> Result;

    /// Makes the names in a place durable.
    ///
    /// # Errors
    /// `IoFailed`: what is durable is unknown.
    fn sync(&self, place: Place) -> Result;

    /// The file system on which other snapshots lie; `None` if they cannot be reached.
    fn outside(&self) -> Option<Arc<dyn Fs>> {
        None
    }

    /// How people find the object: a path or an address.
    fn describe(&self, path: &ObjectPath) -> String;

    /// What it remembers of links, for savepoints that link the same local files.
    fn intake(&self) -> Intake {
        Intake::default()
    }

    /// How people find the root: an absolute path or an address.
    fn describe_root(&self) -> String {
        let finished = self.describe(&ObjectPath::Finished);
        let root = finished.strip_suffix(layout::FINISHED_NAME).unwrap_or(&finished);
        match root.trim_end_matches('/') {
            "" => root.to_owned(),
            trimmed => trimmed.to_owned(),
        }
    }

    /// Whole content of an object, refused above `bytes_max`.
    ///
    /// # Errors
    /// `NotFound`; `Malformed` if it is longer.
    fn read(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>> {
        read_whole(&*self.open(path)?, bytes_max).map_err(|e| e.in_file(self.describe(path)))
    }
}

/// Whole content of a file, refused above `bytes_max` before anything is allocated.
pub(crate) fn read_whole(file: &dyn ReadFile, bytes_max: u64) -> Result<Vec<u8>> {
    if file.len() > bytes_max {
        return Err(Error::new(Code::Malformed, "the document is too large")
            .expected_found(format_args!("at most {bytes_max}"), file.len()));
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Bytes moved at once by [`copy_out`].
const COPY_BYTES: usize = 1 << 20;

/// Copies a file into a new one of another file system; a partial copy is removed.
pub(crate) fn copy_out(from: &dyn ReadFile, fs: &dyn Fs, to: &Path) -> Result {
    let mut target = fs.create(to)?;
    let mut copy = || {
        let mut buffer = vec![0; COPY_BYTES.min(from.len() as usize)];
        let mut at = 0;
        while at < from.len() {
            let n = (from.len() - at).min(COPY_BYTES as u64) as usize;
            let piece = &mut buffer[..n];
            from.read_exact_at(piece, at)?;
            target.append(piece)?;
            at += n as u64;
        }
        Ok(())
    };
    let copied = copy();
    if copied.is_err() {
        // The failure is what the caller must hear of; the name tells that the rest is garbage.
        let _ = fs.remove_file(to);
    }
    copied
}
