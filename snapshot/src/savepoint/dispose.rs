//! Disposing of a savepoint: exactly its own files, metadata first.
//!
//! ```text
//!  plan ─ `_metadata` → `_disposing`, sync ─ remove files, sync ─ remove `_disposing` ─ remove the empty directory
//!                       └ no snapshot from here        crash anywhere: `_disposing` still lists what is to go
//! ```
//! What goes is decided by [`going`], a pure function. Files that the metadata does not name stay, and the directory
//! with them.

use crate::{
    Anchor, Metadata, ObjectName, Place, SnapshotOwner,
    snapshot_dir::{SnapshotDir, no_metadata, read_metadata_file},
    storage::layout,
};
use keybed_env::{
    Fs,
    fs::{DirEntry, FileKind},
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What disposing of a snapshot removes. Nothing was changed yet.
#[derive(Debug)]
pub struct Disposal {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    metadata: Metadata,
    going: Going,
}

/// What of a directory goes and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Going {
    /// Files of the snapshot that are there, with their bytes by the metadata.
    pub files: BTreeMap<ObjectName, u64>,
    /// Names that are not the snapshot's: they stay, and so does the directory.
    pub staying: Vec<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposed {
    /// Files removed, metadata not counted.
    pub files: usize,
    /// Whether the directory went, too.
    pub directory: bool,
}

/// Decides what of the listed names belongs to the snapshot. Pure.
///
/// An object is its own if it lies in the directory itself, is a regular file, and has a name that tells its birth, as
/// every object that was ever written has. Temporary names go, too. `CLAIMED` is not the snapshot's.
pub fn going(metadata: &Metadata, listed: &[DirEntry]) -> Going {
    let own: BTreeMap<&str, (&ObjectName, u64)> = metadata
        .files()
        .filter(|file| file.anchor == Anchor::SelfDir && file.object.birth().is_some())
        .map(|file| {
            let bytes = file.offset.saturating_add(file.length);
            (file.object.as_str(), (&file.object, bytes))
        })
        .collect();
    let mut going = Going::default();
    for entry in listed {
        let document = [layout::METADATA_NAME, layout::DISPOSING_NAME].contains(&entry.name.as_str());
        match own.get(entry.name.as_str()) {
            Some((object, bytes)) if entry.kind == FileKind::File => {
                going.files.insert((*object).clone(), *bytes);
            }
            _ if document && entry.kind == FileKind::File => {}
            // Left by a crash while a document was written; no snapshot names it.
            _ if entry.kind == FileKind::File && is_temporary(&entry.name) => {
                going
                    .files
                    .extend(ObjectName::new(entry.name.as_str()).map(|name| (name, 0)));
            }
            _ => going.staying.push(entry.name.clone()),
        }
    }
    going
}

fn is_temporary(name: &str) -> bool {
    ObjectName::new(name).is_ok_and(|name| name.is_temporary())
}

impl Disposal {
    /// Looks at the snapshot whose directory or `_metadata` is `path` and decides; one whose disposal was interrupted
    /// is gone on with.
    ///
    /// # Errors
    /// `NotASnapshot` if nothing there is one; the errors of a damaged or newer `_metadata`: what it names is not
    /// known; `SnapshotClaimedByOther`; `GcRefused` for a checkpoint in a job root, whose owner alone decides;
    /// `InvalidArgument` if `path` is a symbolic link or another file than `_metadata`.
    pub fn plan(fs: Arc<dyn Fs>, path: &Path) -> Result<Disposal> {
        let directory = directory_of(&*fs, path)?;
        let metadata = match read_document(&*fs, &directory, layout::METADATA_NAME)? {
            Some(metadata) => metadata,
            None => read_document(&*fs, &directory, layout::DISPOSING_NAME)?
                .ok_or_else(|| no_metadata(&*fs, &directory))?,
        };
        demand_unclaimed(&*fs, &directory)?;
        if metadata.kind.owner() == SnapshotOwner::Job {
            demand_stray(&*fs, &directory)?;
        }
        let going = going(&metadata, &fs.list(&directory)?);
        Ok(Disposal {
            fs,
            directory,
            metadata,
            going,
        })
    }

    /// The snapshot's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The snapshot's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What will go and what will stay.
    pub fn going(&self) -> &Going {
        &self.going
    }

    /// Removes what was planned. May be repeated, also after a failure or a crash in the middle, by this plan or a new
    /// one: what is gone already is success.
    ///
    /// # Errors
    /// `Busy` if the snapshot there is another one by now; `SnapshotClaimedByOther` if it was claimed since; errors of
    /// the file system. From the first change on the directory is no snapshot any more.
    pub fn execute(&self) -> Result<Disposed> {
        let mut disposed = Disposed {
            files: 0,
            directory: true,
        };
        if self.fs.facts(&self.directory)?.is_none() {
            return Ok(disposed);
        }
        self.hide()?;
        for object in self.going.files.keys() {
            disposed.files += usize::from(self.remove(&layout::private(&self.directory, object))?);
        }
        // The list goes after everything on it, for good.
        self.fs.sync_dir(&self.directory)?;
        self.remove(&layout::document(&self.directory, layout::DISPOSING_NAME))?;
        self.fs.sync_dir(&self.directory)?;
        // A directory named by `.` or the like cannot be removed by that name.
        let named = self.directory.file_name().is_some();
        disposed.directory = named && self.fs.list(&self.directory)?.is_empty();
        if disposed.directory {
            match self.fs.remove_dir(&self.directory) {
                Err(e) if e.code() != Code::NotFound => return Err(e),
                _ => {}
            }
            let parent = self.directory.parent().filter(|p| !p.as_os_str().is_empty());
            self.fs.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(disposed)
    }

    /// Takes the snapshot its name, durably: nobody opens it from here.
    fn hide(&self) -> Result {
        let metadata = layout::document(&self.directory, layout::METADATA_NAME);
        let disposing = layout::document(&self.directory, layout::DISPOSING_NAME);
        demand_unclaimed(&*self.fs, &self.directory)?;
        match read_document(&*self.fs, &self.directory, layout::METADATA_NAME)? {
            Some(found) if found == self.metadata => self.fs.rename(&metadata, &disposing)?,
            Some(_) => {
                return Err(
                    Error::new(Code::Busy, "the snapshot there is not the one that was looked at")
                        .in_file(metadata),
                );
            }
            None => {}
        }
        self.fs.sync_dir(&self.directory)?;
        // Whoever claims it marks it first and reads the metadata then, so one of the two sees the other.
        demand_unclaimed(&*self.fs, &self.directory).inspect_err(|_| {
            // If this fails, the next call is refused because of the mark.
            let _ = self.fs.rename(&disposing, &metadata);
        })
    }

    fn remove(&self, file: &Path) -> Result<bool> {
        match self.fs.remove_file(file) {
            Err(e) if e.code() == Code::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// The directory that a path means.
fn directory_of(fs: &dyn Fs, path: &Path) -> Result<PathBuf> {
    let documents = [layout::METADATA_NAME, layout::DISPOSING_NAME];
    let named = documents
        .iter()
        .any(|name| path.file_name() == Some(name.as_ref()));
    match fs.facts(path)?.map(|facts| facts.kind) {
        Some(FileKind::Dir) => Ok(path.to_path_buf()),
        Some(FileKind::File) if named => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(parent.unwrap_or(Path::new(".")).to_path_buf())
        }
        // Half done or done by metadata file: the directory knows.
        None if named => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => directory_of(fs, parent),
            _ => Ok(PathBuf::from(".")),
        },
        None => Err(Error::new(Code::NotASnapshot, "there is no file or directory").in_file(path)),
        Some(_) => {
            Err(Error::invalid("name the snapshot's directory itself, or the _metadata in it").in_file(path))
        }
    }
}

/// A document of the directory, if it is there.
fn read_document(fs: &dyn Fs, directory: &Path, name: &'static str) -> Result<Option<Metadata>> {
    match read_metadata_file(fs, &layout::document(directory, name)) {
        Ok(document) => Ok(Some(document.metadata)),
        Err(e) if e.code() == Code::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn demand_unclaimed(fs: &dyn Fs, directory: &Path) -> Result {
    let marker = layout::document(directory, layout::CLAIMED_NAME);
    match fs.facts(&marker)? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Code::SnapshotClaimedByOther,
            "a job claimed the snapshot and may need its files",
        )
        .in_file(marker)),
    }
}

/// A checkpoint may be disposed of by hand only if no job root is around it: a stray copy.
fn demand_stray(fs: &dyn Fs, directory: &Path) -> Result {
    let root = SnapshotDir::root_around(directory);
    let belongs = |name: &str| Place::Root.is_fixture(name) || Place::Root.object(name).is_some();
    match fs.list(&root)?.into_iter().find(|entry| belongs(&entry.name)) {
        None => Ok(()),
        Some(found) => Err(Error::new(
            Code::GcRefused,
            "the checkpoint lies in a job root: its job decides when it goes",
        )
        .in_file(directory)
        .with("root", root.display())
        .with("found", found.name)),
    }
}
