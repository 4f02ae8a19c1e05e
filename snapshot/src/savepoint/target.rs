//! Where savepoints go: the choice of the directory, and the birth of a savepoint in it.

use super::SavepointWriter;
use crate::{
    Birth, JobId,
    storage::{Intake, layout},
};
use keybed_env::{Fs, random::Ids};
use keybed_format::{Code, Error, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Names that are tried for one savepoint: 48 random bits collide once at most, unless somebody makes them.
const NAME_TRIES_MAX: usize = 16;

/// Property of a savepoint with hard links: the directories whose files it was linked from when it was written, one
/// in a line. Absent if every file is a copy.
pub const SHARES_STORAGE_WITH: &str = "shares-storage-with";

/// The directory in which a savepoint is to be created: the one given, else the default.
///
/// # Errors
/// `NoTargetDirectory` if there is neither. An empty path is none.
///
/// ```
/// use keybed_snapshot::savepoint::resolve_target;
/// use std::path::Path;
/// assert_eq!(resolve_target(None, Some(Path::new("/sp"))).unwrap(), Path::new("/sp"));
/// assert_eq!(resolve_target(None, None).unwrap_err().code().as_str(), "NoTargetDirectory");
/// ```
pub fn resolve_target(given: Option<&Path>, default: Option<&Path>) -> Result<PathBuf> {
    let named = |path: &&Path| !path.as_os_str().is_empty();
    given
        .filter(named)
        .or(default.filter(named))
        .map(Path::to_path_buf)
        .ok_or_else(|| {
            Error::new(
                Code::NoTargetDirectory,
                "a savepoint needs a target directory: name one, or configure savepoint-dir",
            )
        })
}

/// A directory that savepoints are created in. Clones are the same target.
#[derive(Clone, Debug)]
pub struct SavepointTarget {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) directory: PathBuf,
    pub(super) hard_links: bool,
    pub(super) intake: Intake,
}

impl SavepointTarget {
    /// A target whose savepoints hold copies (sharing blocks where the file system can). Nothing is touched yet.
    pub fn new(fs: Arc<dyn Fs>, directory: impl Into<PathBuf>) -> Self {
        SavepointTarget {
            fs,
            directory: directory.into(),
            hard_links: false,
            intake: Intake::default(),
        }
    }

    /// Shares what a checkpoint storage remembers of links, because both link the same local files.
    #[must_use]
    pub(crate) fn sharing(mut self, intake: Intake) -> Self {
        self.intake = intake;
        self
    }

    /// Allows hard links in place of copies. Such a savepoint is safe against deletion of the files it was linked
    /// from, not against damage in place; its metadata says so by [`SHARES_STORAGE_WITH`].
    #[must_use]
    pub fn with_hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }

    /// The file system it lies on.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates the directory of a new savepoint of `job`, durably, with its missing parents. `birth` names the
    /// generation and the id under which the snapshot is taken.
    ///
    /// # Errors
    /// `TargetExists` if a file is in the way or every name that was tried is taken; errors of the file system.
    /// Nothing is left behind that can be removed.
    pub fn begin(&self, job: JobId, birth: Birth, ids: Ids) -> Result<Arc<SavepointWriter>> {
        let parents = self.missing_parents()?;
        self.begin_with(job, birth, ids, parents, &mut |_| Ok(()))
    }

    /// As [`SavepointTarget::begin`], for a savepoint that must be found again after a crash: `announce` makes a
    /// record of the directory before it is created. The target, which is durable then, stays in any case.
    ///
    /// # Errors
    /// As [`SavepointTarget::begin`], and those of `announce`.
    pub fn begin_announced(
        &self,
        job: JobId,
        birth: Birth,
        ids: Ids,
        announce: &mut dyn FnMut(&Path) -> Result,
    ) -> Result<Arc<SavepointWriter>> {
        let mut announce_new = |directory: &Path| match self.fs.facts(directory)? {
            None => announce(directory),
            // A record of it could make somebody remove what others put there.
            Some(_) => Err(Error::new(Code::TargetExists, "the name is taken").in_file(directory)),
        };
        self.begin_with(job, birth, ids, Vec::new(), &mut announce_new)
    }

    fn begin_with(
        &self,
        job: JobId,
        birth: Birth,
        mut ids: Ids,
        parents: Vec<PathBuf>,
        announce: &mut dyn FnMut(&Path) -> Result,
    ) -> Result<Arc<SavepointWriter>> {
        match self.create(job, &mut ids, announce) {
            Ok(directory) => Ok(Arc::new(SavepointWriter::new(
                self.clone(),
                directory,
                parents,
                (job, birth, ids),
            ))),
            Err(error) => {
                remove_parents(&*self.fs, &parents);
                Err(error.context("create the savepoint's directory"))
            }
        }
    }

    /// The directories that creating the target will create, outermost last.
    fn missing_parents(&self) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for directory in self.directory.ancestors() {
            if directory.as_os_str().is_empty() || self.fs.facts(directory)?.is_some() {
                break;
            }
            missing.push(directory.to_path_buf());
        }
        Ok(missing)
    }

    fn create(
        &self,
        job: JobId,
        ids: &mut Ids,
        announce: &mut dyn FnMut(&Path) -> Result,
    ) -> Result<PathBuf> {
        for _ in 0..NAME_TRIES_MAX {
            self.fs.create_dir_all(&self.directory)?;
            let directory = layout::savepoint(&self.directory, job, ids.fresh()?);
            match announce(&directory).and_then(|()| self.fs.create_dir(&directory)) {
                Ok(()) => {
                    return self
                        .fs
                        .sync_dir(&self.directory)
                        .map(|()| directory.clone())
                        .inspect_err(|_| {
                            // Ours and empty. The failure is what the caller must hear of.
                            let _ = self.fs.remove_dir(&directory);
                        });
                }
                // Taken; or a savepoint that failed beside us removed the target it had created.
                Err(e) if matches!(e.code(), Code::TargetExists | Code::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Err(
            Error::new(Code::TargetExists, "every name that was tried is taken")
                .in_file(&self.directory)
                .with("limit", NAME_TRIES_MAX),
        )
    }
}

/// Removes directories that a failed savepoint created, innermost first, as far as they are empty.
pub(super) fn remove_parents(fs: &dyn Fs, parents: &[PathBuf]) {
    for directory in parents {
        match fs.remove_dir(directory) {
            Ok(()) => {}
            // It never came to be.
            Err(e) if e.code() == Code::NotFound => {}
            // Somebody else uses it by now.
            Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_target_goes_before_the_default() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        assert_eq!(resolve_target(Some(a), Some(b)).unwrap(), a);
        assert_eq!(resolve_target(None, Some(b)).unwrap(), b);
        for (given, default) in [
            (None, None),
            (Some(Path::new("")), None),
            (None, Some(Path::new(""))),
        ] {
            let error = resolve_target(given, default).unwrap_err();
            assert_eq!((error.code(), error.exit_code()), (Code::NoTargetDirectory, 2));
        }
    }
}
