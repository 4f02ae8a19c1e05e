//! Checkpoints on a file system.
//!
//! ```text
//! put_new:   create temporary ─ write ─ sync ─ link to the final name ─ unlink temporary ─ sync directory
//!                                               └ visible from here         └ durable from here
//! put_file:  link (else copy) ─ sync file        directory: once per checkpoint, by `sync`
//! ```
//! A crash before the link leaves a temporary name that its birth marks as garbage; after it, the complete object.
//! Link never replaces, so of two processes exactly one wins.
//! Once a sync of a linked file has failed, sources are copied instead, and the copy is checked by its trailer.

use super::{
    CheckpointStorage, Listed, ObjectFacts, ObjectPath, Place, copy_out, layout,
    take::{Intake, linked, links_impossible},
};
use crate::{CheckpointId, JobId, ObjectName};
use keybed_env::{
    Fs, ReadFile,
    fs::{FileKind, FileLock},
};
use keybed_format::{Code, Error, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A job root in a directory of `fs`.
#[derive(Debug)]
pub struct LocalStorage {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    intake: Intake,
}

impl LocalStorage {
    /// The job root `<checkpoint root>/<job id>`, created durably if it is missing.
    ///
    /// # Errors
    /// Errors of the file system; `IoFailed` if one of its folders is no directory (a symbolic link is none).
    pub fn create(fs: Arc<dyn Fs>, checkpoint_root: &Path, job: JobId) -> Result<Self> {
        let storage = LocalStorage {
            fs,
            root: checkpoint_root.join(job.to_string()),
            intake: Intake::default(),
        };
        for place in [Place::Root, Place::Owner, Place::Shared, Place::TaskOwned] {
            storage
                .fs
                .create_dir_all(&layout::directory(&storage.root, place))?;
            storage.directory(place)?;
        }
        Ok(storage)
    }

    /// An existing job root, by its own directory; for reading.
    pub fn at(fs: Arc<dyn Fs>, job_root: impl Into<PathBuf>) -> Self {
        LocalStorage {
            fs,
            root: job_root.into(),
            intake: Intake::default(),
        }
    }

    /// Creates a folder that not every root has, durably, if it is missing.
    pub(crate) fn create_folder(&self, place: Place) -> Result {
        self.fs.create_dir_all(&layout::directory(&self.root, place))?;
        self.directory(place).map(drop)
    }

    /// The directory of the job root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a place, refused if it is a symbolic link or a file, so that no reference leaves the root.
    fn directory(&self, place: Place) -> Result<PathBuf> {
        let dir = layout::directory(&self.root, place);
        match self.fs.facts(&dir)? {
            Some(facts) if facts.kind == FileKind::Dir => Ok(dir),
            Some(_) => {
                Err(Error::new(Code::IoFailed, "a folder of the job root is not a directory").in_file(dir))
            }
            None => Err(Error::new(Code::NotFound, "a folder of the job root is missing").in_file(dir)),
        }
    }

    fn file(&self, path: &ObjectPath) -> Result<PathBuf> {
        self.directory(path.place())?;
        Ok(layout::file(&self.root, path))
    }

    fn same_names(&self, other: &dyn Fs) -> bool {
        self.fs.namespace().is_some() && self.fs.namespace() == other.namespace()
    }

    /// Gives the finished temporary file its final name without replacing anything.
    fn reveal(&self, temporary: &Path, target: &Path) -> Result {
        match self.fs.link(temporary, target) {
            Ok(()) => {
                // A left-over second name is garbage by its birth; the object is complete without this step.
                let _ = self.fs.remove_file(temporary);
                Ok(())
            }
            Err(e) if links_impossible(&e) => {
                // Only reached where the medium has no links: our lock on the root makes check and rename one step.
                if self.fs.facts(target)?.is_some() {
                    return Err(Error::new(Code::TargetExists, "publish: the name is taken").in_file(target));
                }
                self.fs.rename(temporary, target)
            }
            Err(e) => Err(e),
        }
    }
}

impl CheckpointStorage for LocalStorage {
    fn lock(&self) -> Result<Box<dyn FileLock>> {
        self.fs.lock(&layout::lock(&self.root))
    }

    fn hold(&self) -> Result<Box<dyn FileLock>> {
        self.fs.hold(&layout::lock(&self.root))
    }

    fn create_checkpoint(&self, id: CheckpointId) -> Result {
        self.fs
            .create_dir(&layout::directory(&self.root, Place::Checkpoint(id)))?;
        self.fs.sync_dir(&self.root)
    }

    fn remove_checkpoint(&self, id: CheckpointId) -> Result<bool> {
        match self.list(Place::Checkpoint(id))?.len() {
            0 => match self
                .fs
                .remove_dir(&layout::directory(&self.root, Place::Checkpoint(id)))
            {
                Err(e) if e.code() == Code::NotFound => Ok(true),
                other => other.map(|()| true),
            },
            _ => Ok(false),
        }
    }

    fn put_new(&self, path: &ObjectPath, bytes: &[u8], temporary: &ObjectName) -> Result {
        let target = self.file(path)?;
        if self.fs.facts(&target)?.is_some() {
            return Err(Error::new(Code::TargetExists, "create: the name is taken").in_file(target));
        }
        let temporary = layout::file(
            &self.root,
            &ObjectPath::Temporary(path.place(), temporary.clone()),
        );
        let steps = || {
            let mut file = self.fs.create(&temporary)?;
            file.append(bytes)?;
            file.sync()?;
            drop(file);
            self.reveal(&temporary, &target)
        };
        if let Err(error) = steps() {
            // The failure is what the caller must hear of; the name tells that the rest is garbage.
            let _ = self.fs.remove_file(&temporary);
            return Err(error);
        }
        self.sync(path.place())
    }

    fn put_file(&self, path: &ObjectPath, local: &dyn Fs, from: &Path, bytes: u64) -> Result {
        let to = self.file(path)?;
        self.intake
            .take((local, from), bytes, (&*self.fs, &to), true)
            .map(drop)
    }

    fn intake(&self) -> Intake {
        self.intake.clone()
    }

    fn link_file(&self, path: &ObjectPath, local: &dyn Fs, from: &Path, bytes: u64) -> Result<bool> {
        let to = self.file(path)?;
        self.intake.link((local, from), bytes, (&*self.fs, &to))
    }

    fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ReadFile>> {
        self.fs.open(&self.file(path)?)
    }

    fn facts(&self, path: &ObjectPath) -> Result<Option<ObjectFacts>> {
        let facts = self.fs.facts(&layout::file(&self.root, path))?;
        Ok(facts.map(|facts| ObjectFacts {
            bytes: facts.len,
            modified_ms: facts.modified_ms,
        }))
    }

    fn fetch(&self, path: &ObjectPath, fs: &dyn Fs, to: &Path) -> Result {
        let from = self.file(path)?;
        // Opened in any case: refuses what is no regular file.
        let source = self.fs.open(&from)?;
        if self.same_names(fs) && linked(fs, &from, to)? {
            return Ok(());
        }
        copy_out(&*source, fs, to)
    }

    fn list(&self, place: Place) -> Result<Vec<Listed>> {
        let dir = match self.directory(place) {
            Err(e) if e.code() == Code::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let entries = match self.fs.list(&dir) {
            Err(e) if e.code() == Code::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        Ok(entries
            .into_iter()
            .map(|e| Listed {
                name: e.name,
                kind: e.kind,
            })
            .collect())
    }

    fn delete(&self, path: &ObjectPath) -> Result {
        let removed = self.file(path).and_then(|file| self.fs.remove_file(&file));
        match removed {
            Err(e) if e.code() == Code::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync(&self, place: Place) -> Result {
        self.fs.sync_dir(&layout::directory(&self.root, place))
    }

    fn outside(&self) -> Option<Arc<dyn Fs>> {
        Some(self.fs.clone())
    }

    fn describe(&self, path: &ObjectPath) -> String {
        layout::file(&self.root, path).display().to_string()
    }

    fn describe_root(&self) -> String {
        // Whoever reads it later need not stand in the same directory.
        let root = self.fs.absolute(&self.root);
        root.as_ref().unwrap_or(&self.root).display().to_string()
    }
}
