//! Two file systems under one tree of names: whatever lies below `/far` cannot be linked to or from elsewhere.

use keybed_env::{
    Fs, ReadFile, WriteFile,
    fs::{DirEntry, FileFacts, FileLock},
};
use keybed_format::{Error, Result};
use std::{io, path::Path, sync::Arc};

/// Where the other file system is mounted.
pub(crate) const FAR: &str = "/far";

#[derive(Debug)]
pub(crate) struct Mounts(pub(crate) Arc<dyn Fs>);

fn cross(what: &str, from: &Path, to: &Path) -> Result {
    if from.starts_with(FAR) == to.starts_with(FAR) {
        return Ok(());
    }
    Err(Error::io(
        what,
        to,
        io::Error::from(io::ErrorKind::CrossesDevices),
    ))
}

impl Fs for Mounts {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.0.open(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.0.create(path)
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.0.append(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> Result {
        self.0.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        cross("rename", from, to)?;
        self.0.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> Result {
        cross("link", from, to)?;
        self.0.link(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result {
        self.0.copy(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result {
        self.0.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result {
        self.0.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> Result {
        self.0.create_dir(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn facts(&self, path: &Path) -> Result<Option<FileFacts>> {
        self.0.facts(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.0.lock(path)
    }

    fn namespace(&self) -> Option<u64> {
        self.0.namespace()
    }
}
