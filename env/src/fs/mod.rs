//! Files and directories as keybed needs them.
//!
//! ```text
//!   engine   checkpoint storage   sinks   sources
//!        \          |               |       /
//!         `--------- dyn Fs --------------'
//!        /        |          |          \
//!     disk      sim        fault       count
//!   (real)  (what is     (fail the   (how many
//!           durable)     n-th call)   of what)
//! ```
//! Rules that every implementation keeps and every caller may rely on:
//! - A file's bytes are durable after [`WriteFile::sync`]; its name is durable after [`Fs::sync_dir`] of its
//!   directory. Nothing else is.
//! - After a failed sync the file's bytes are lost for good: the caller abandons the file.
//! - After a failed write, rename or sync of a directory nobody knows how much of it happened.
//! - [`Fs::create`] never truncates an existing file; [`Fs::rename`] replaces; [`Fs::link`] never replaces.
//! - Symbolic links are never followed in the last component of a path: opening one fails.

#[allow(unsafe_code)]
mod ahead;
mod count;
mod disk;
mod fault;
#[allow(unsafe_code)]
mod map;
mod op;
#[allow(unsafe_code)]
mod reserve;
mod sim;

pub use count::{CountFs, FsCounts};
pub use disk::OsFs;
pub use fault::{Fault, FaultFs, FaultPlan, FsCall, LOG_CALLS_MAX};
pub use map::Map;
pub use op::FsOp;
pub use sim::SimFs;

use keybed_format::{Code, Error, Result};
use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Anything else (symbolic link, socket, device): never followed, never deleted.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name without its directory.
    pub name: String,
    /// What it stands for.
    pub kind: FileKind,
}

/// Facts about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Bytes; 0 for directories.
    pub len: u64,
    /// What the path stands for.
    pub kind: FileKind,
    /// When its content was last changed, in milliseconds since 1970-01-01T00:00:00Z; `None` where nobody knows. By the
    /// clock of the file system, which anybody may have set.
    pub modified_ms: Option<u64>,
}

/// A file system.
///
/// All methods take whole paths. Errors are [`Code::IoFailed`], `NotFound`,
/// `ReadOnlyMedium`, `TooManyOpenFiles`; creating what exists is `TargetExists`; a held lock is `Locked`.
pub trait Fs: Send + Sync + Debug + 'static {
    /// Opens an existing regular file for reading at offsets.
    ///
    /// # Errors
    /// `NotFound` if it is missing; `IoFailed` if it is no regular file.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>>;

    /// Creates a file that must not exist and opens it for appending.
    ///
    /// # Errors
    /// `TargetExists` if the name is taken.
    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>>;

    /// Opens an existing regular file for appending after its last byte.
    ///
    /// # Errors
    /// `NotFound` if it is missing.
    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>>;

    /// Cuts an existing file to `len` bytes. Durable after a sync of the file, opened by [`Fs::append`].
    ///
    /// # Errors
    /// `NotFound` if it is missing; `InvalidArgument` if it is shorter than `len`.
    fn truncate(&self, path: &Path, len: u64) -> Result;

    /// Gives a file or directory another name, replacing a file of that name. Durable after [`Fs::sync_dir`].
    ///
    /// # Errors
    /// `NotFound` if `from` is missing.
    fn rename(&self, from: &Path, to: &Path) -> Result;

    /// Gives a regular file a second name; never replaces.
    ///
    /// # Errors
    /// `TargetExists` if `to` is taken; `IoFailed` with `io_kind() == CrossesDevices` or `Unsupported` where links
    /// are impossible.
    fn link(&self, from: &Path, to: &Path) -> Result;

    /// Copies a file to a name that must not exist, sharing blocks where the file system can. Not synced.
    ///
    /// # Errors
    /// `TargetExists` if `to` is taken.
    fn copy(&self, from: &Path, to: &Path) -> Result;

    /// Removes a file's name; never a directory.
    ///
    /// # Errors
    /// `NotFound` if it is missing.
    fn remove_file(&self, path: &Path) -> Result;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound` if it is missing; `IoFailed` if it is not empty.
    fn remove_dir(&self, path: &Path) -> Result;

    /// Creates one directory that must not exist.
    ///
    /// # Errors
    /// `TargetExists` if the name is taken; `NotFound` if the parent is missing.
    fn create_dir(&self, path: &Path) -> Result;

    /// Names in a directory, sorted by name. Names that are not UTF-8 are reported lossily as `FileKind::Other`.
    ///
    /// # Errors
    /// `NotFound` if the directory is missing.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>>;

    /// Facts about a path; `None` if nothing is there. Symbolic links are `Other`.
    ///
    /// # Errors
    /// `IoFailed` if the question cannot be answered.
    fn facts(&self, path: &Path) -> Result<Option<FileFacts>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// `IoFailed`: what is durable is unknown.
    fn sync_dir(&self, dir: &Path) -> Result;

    /// Takes the exclusive lock file `path` (created if missing) for the life of the returned value and writes
    /// this process's id into it. The operating system releases it when the process dies.
    ///
    /// # Errors
    /// `Locked` with field `pid` if another holder (this process or another) has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>>;

    /// As [`Fs::lock`], for who looks and changes nothing: an existing lock file keeps its text, and a read-only
    /// medium will do.
    ///
    /// # Errors
    /// As [`Fs::lock`].
    fn hold(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.lock(path)
    }

    /// Which names this file system sees: two with equal `Some` see the same files under the same paths, so a file
    /// of one can be linked by the other. `None` is never equal to anything.
    fn namespace(&self) -> Option<u64> {
        None
    }

    /// The path under which another process finds what this one calls `path`. Nothing is looked up.
    ///
    /// # Errors
    /// `IoFailed` if the process has no directory that `path` is relative to.
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    /// Creates a directory and its missing parents, and makes the names of all of them durable, also of those that
    /// are there already: who created them may have died before they were. A parent that cannot be synced by nature
    /// (not ours to open, read-only) is passed over.
    ///
    /// # Errors
    /// As [`Fs::create_dir`] and [`Fs::sync_dir`]; `TargetExists` if `dir` is there but no directory.
    fn create_dir_all(&self, dir: &Path) -> Result {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = dir.to_path_buf();
        while !at.as_os_str().is_empty() && self.facts(&at)?.is_none() {
            missing.push(at.clone());
            if !at.pop() {
                break;
            }
        }
        for dir in missing.iter().rev() {
            match self.create_dir(dir) {
                Err(e) if e.code() == Code::TargetExists => {}
                other => other?,
            }
            self.sync_dir(parent_of(dir))?;
        }
        let found = dir.ancestors().skip(missing.len());
        for name in found.filter(|name| name.file_name().is_some()) {
            match self.sync_dir(parent_of(name)) {
                Err(e) if !syncs_impossible(&e) => return Err(e),
                _ => {}
            }
        }
        match self.facts(dir)?.map(|facts| facts.kind) {
            Some(FileKind::Dir) => Ok(()),
            // A link to a directory is as good as one; whoever walks through it finds out.
            Some(FileKind::Other) => self.list(dir).map(drop),
            _ if dir.as_os_str().is_empty() => Ok(()),
            _ => Err(Error::new(Code::TargetExists, "the name of a directory is taken").in_file(dir)),
        }
    }

    /// Whole content of a file, refused above `bytes_max`.
    ///
    /// # Errors
    /// As [`Fs::open`]; `Malformed` if it is longer than `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = file.len();
        if len > bytes_max {
            return Err(Error::new(Code::Malformed, "the file is too large")
                .in_file(path)
                .expected_found(format_args!("at most {bytes_max}"), len));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes `path` durably and completely or not at all, replacing a file of that name: temporary name, write,
    /// sync, rename, sync of the directory. The rename makes it visible; a crash before leaves the old file and
    /// perhaps the temporary one, a crash after it the old or the new one until the directory is synced.
    ///
    /// `temporary` must lie in the same directory and belong to this caller alone: what an earlier crash left
    /// there is removed.
    ///
    /// # Errors
    /// Any of the steps; the temporary file is removed where that is still possible. If only the sync of the
    /// directory failed, the new content is visible.
    fn write_atomic(&self, path: &Path, temporary: &Path, bytes: &[u8]) -> Result {
        let mut file = match self.create(temporary) {
            Err(e) if e.code() == Code::TargetExists => {
                self.remove_file(temporary)?;
                self.create(temporary)?
            }
            created => created?,
        };
        let written = file.append(bytes).and_then(|()| file.sync());
        drop(file);
        if let Err(error) = written.and_then(|()| self.rename(temporary, path)) {
            // The failure is what the caller must hear of; a left-over temporary file is removed next time.
            let _ = self.remove_file(temporary);
            return Err(error);
        }
        self.sync_dir(parent_of(path))
    }
}

/// The directory that holds a path's name.
fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Whether a directory cannot be synced by nature: we may not open it, its file system knows no such thing, or it was
/// removed beside us, which creating something in it will tell.
fn syncs_impossible(error: &Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(
        error.io_kind(),
        Some(InvalidInput | NotFound | PermissionDenied | ReadOnlyFilesystem | Unsupported)
    )
}

fn check_truncate(now: u64, len: u64, path: &Path) -> Result {
    if len <= now {
        return Ok(());
    }
    Err(Error::invalid("a file cannot be cut to more than it has")
        .in_file(path)
        .expected_found(now, len))
}

#[cold]
fn ends_too_early(path: &Path, wanted: usize, offset: u64, len: u64) -> Error {
    Error::new(Code::Malformed, "the file ends too early")
        .in_file(path)
        .at(offset)
        .expected_found(offset.saturating_add(wanted as u64), len)
}

/// A file open for reading.
pub trait ReadFile: Send + Sync + Debug {
    /// Bytes of the file when it was opened.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `Malformed` (with offset) if the file ends before; `IoFailed` otherwise.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result;

    /// Tells that `bytes` from `offset` will be read soon, so that several reads can be under way at the same time.
    /// Returns at once, changes nothing, and where nothing can be done ahead nothing is.
    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// The whole file mapped into memory, where that is possible. Only for files this process wrote in a directory
    /// it has locked: a mapping of a file that somebody truncates kills the process.
    ///
    /// # Errors
    /// `IoFailed` if mapping was possible but failed.
    fn map(&self) -> Result<Option<Map>> {
        Ok(None)
    }
}

/// A file open for appending.
pub trait WriteFile: Send + Debug {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// `IoFailed`: any prefix may have been written.
    fn append(&mut self, bytes: &[u8]) -> Result;

    /// Bytes appended plus bytes there when it was opened.
    fn len(&self) -> u64;

    /// Sets space aside for `bytes` more bytes, so that appending them does not meet a full medium. The file's length
    /// stays. Where the medium knows no such thing nothing happens.
    ///
    /// # Errors
    /// `IoFailed`, usually because there is not so much space: the file is as it was and may be appended to.
    fn reserve(&mut self, bytes: u64) -> Result {
        let _ = bytes;
        Ok(())
    }

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes every appended byte durable (data and length; the name needs [`Fs::sync_dir`]).
    ///
    /// # Errors
    /// `IoFailed`: the file must be abandoned, never synced again.
    fn sync(&mut self) -> Result;

    /// Does to the file what a failing sync does: bytes appended since the last sync stay readable and are never
    /// written. [`FaultFs`] calls it; only [`SimFs`] does something.
    fn fail_sync(&mut self) {}
}

/// A held lock; dropping it releases it.
pub trait FileLock: Send + Sync + Debug {}
