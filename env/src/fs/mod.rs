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
//! - [`Fs::create`] never truncates an existing file; [`Fs::rename`] replaces; [`Fs::link`] never replaces.
//! - Symbolic links are never followed in the last component of a path: opening one fails.

mod disk;
mod map;

pub use disk::OsFs;
pub use map::Map;

use keybed_format::Result;
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
}

/// A file system.
///
/// All methods take whole paths. Errors are [`Code::IoFailed`](keybed_format::Code::IoFailed), `NotFound`,
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

    /// Cuts an existing file to `len` bytes.
    ///
    /// # Errors
    /// `NotFound` if it is missing.
    fn truncate(&self, path: &Path, len: u64) -> Result;

    /// Gives a file or directory another name, replacing a file of that name. Durable after [`Fs::sync_dir`].
    ///
    /// # Errors
    /// `NotFound` if `from` is missing.
    fn rename(&self, from: &Path, to: &Path) -> Result;

    /// Gives a file a second name; never replaces.
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

    /// Which names this file system sees: two with equal `Some` see the same files under the same paths, so a file
    /// of one can be linked by the other. `None` is never equal to anything.
    fn namespace(&self) -> Option<u64> {
        None
    }

    /// Creates a directory and its missing parents, making every new name durable.
    ///
    /// # Errors
    /// As [`Fs::create_dir`] and [`Fs::sync_dir`].
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
                Err(e) if e.code() == keybed_format::Code::TargetExists => {}
                other => other?,
            }
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    /// Whole content of a file, refused above `bytes_max`.
    ///
    /// # Errors
    /// As [`Fs::open`]; `Malformed` if it is longer than `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = file.len();
        if len > bytes_max {
            return Err(keybed_format::Error::new(keybed_format::Code::Malformed, "the file is too large")
                .in_file(path)
                .expected_found(format_args!("at most {bytes_max}"), len));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes a new file `path` durably and completely or not at all: temporary name, write, sync, rename, sync of
    /// the directory. The rename makes it visible. `temporary` must lie in the same directory.
    ///
    /// # Errors
    /// Any of the steps; the temporary file is removed where that is still possible.
    fn write_atomic(&self, path: &Path, temporary: &Path, bytes: &[u8]) -> Result {
        let steps = || {
            let mut file = self.create(temporary)?;
            file.append(bytes)?;
            file.sync()?;
            drop(file);
            self.rename(temporary, path)
        };
        if let Err(error) = steps() {
            // The failure is what the caller must hear of; a left-over temporary name is swept by its owner.
            let _ = self.remove_file(temporary);
            return Err(error);
        }
        match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(dir) => self.sync_dir(dir),
            None => self.sync_dir(Path::new(".")),
        }
    }
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

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes every appended byte durable (data and length; the name needs [`Fs::sync_dir`]).
    ///
    /// # Errors
    /// `IoFailed`: the file must be abandoned, never synced again.
    fn sync(&mut self) -> Result;
}

/// A held lock; dropping it releases it.
pub trait FileLock: Send + Sync + Debug {}
