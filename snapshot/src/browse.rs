//! Which snapshots lie below a directory, how each stands, and on which directories it depends. Nothing is written and
//! nothing is locked: a living job may go on meanwhile.
//!
//! ```text
//!   any directory ─┬─ _metadata            a snapshot
//!                  ├─ owner/ or chk-<n>/   a job root: its published checkpoints
//!                  ├─ savepoint-… without  being written, or left by a crash
//!                  └─ else                 its directories, at most 8 deep; symbolic links are not followed
//! ```

use crate::{
    Anchor, CheckpointId, ClaimRecord, Folder, Generation, JobId, LocalStorage, Metadata, Place, SnapshotDir,
    SnapshotKind, SnapshotOwner,
    claim::claimed_by,
    gc::job_of,
    inspect::{Sizes, sizes},
    object::ObjectName,
    savepoint::SHARES_STORAGE_WITH,
    storage::layout::{self, DISPOSING_NAME, METADATA_NAME},
    survey::{Found, Survey},
};
use keybed_env::{
    Fs,
    fs::{DirEntry, FileKind},
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How deep below the given directory is looked.
const DEPTH_MAX: usize = 8;
/// Directories that are looked at; more are a mistake in the argument, such as `/`.
const DIRECTORIES_MAX: usize = 100_000;
/// Looks at a root whose owner deletes files meanwhile, before the last error counts.
const LOOKS_MAX: usize = 4;

/// How a snapshot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStanding {
    /// A savepoint: its user decides.
    Savepoint,
    /// A checkpoint that its job continues.
    Timeline,
    /// A checkpoint of a timeline that was given up.
    Abandoned,
    /// A checkpoint that a fenced owner published: never restored.
    Void,
    /// A copied checkpoint with no job root around it.
    Stray,
    /// It cannot be read.
    Unreadable,
    /// A savepoint that is being written, or was when its process died.
    Unfinished,
    /// A savepoint that is being disposed of.
    Disposing,
}

impl SnapshotStanding {
    /// Its name in tables and objects.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotStanding::Savepoint => "savepoint",
            SnapshotStanding::Timeline => "timeline",
            SnapshotStanding::Abandoned => "abandoned",
            SnapshotStanding::Void => "void",
            SnapshotStanding::Stray => "stray",
            SnapshotStanding::Unreadable => "unreadable",
            SnapshotStanding::Unfinished => "unfinished",
            SnapshotStanding::Disposing => "disposing",
        }
    }
}

/// A snapshot that was found.
#[derive(Debug)]
pub struct FoundSnapshot {
    /// Its directory.
    pub directory: PathBuf,
    /// How it stands.
    pub standing: SnapshotStanding,
    /// What it says about itself, if it can be read.
    pub facts: Option<SnapshotFacts>,
    /// Why it cannot be read, or who claimed it cannot be told.
    pub error: Option<Error>,
}

/// What a readable snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// What it is for.
    pub kind: SnapshotKind,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Whose it is.
    pub job: JobId,
    /// The job's name, if it was recorded.
    pub job_name: Option<String>,
    /// Generation of the owner that took it.
    pub generation: Generation,
    /// Milliseconds since 1970-01-01T00:00:00Z at the trigger.
    pub timestamp_ms: u64,
    /// Bytes, those of its own apart from those that others of its root need, too.
    pub sizes: Sizes,
    /// Directories outside of its own that it depends on.
    pub depends_on: Vec<String>,
    /// Directories that its files were hard-linked from.
    pub shares_storage_with: Vec<String>,
    /// Who claimed it.
    pub claimed_by: Option<ClaimRecord>,
}

/// Finds the snapshots at and below `path`, by directory.
///
/// # Errors
/// `NotASnapshot` if nothing is there; `Busy` if there are too many directories; errors of the file system.
pub fn find(fs: &Arc<dyn Fs>, path: &Path) -> Result<Vec<FoundSnapshot>> {
    let mut search = Search {
        fs,
        found: Vec::new(),
        directories: 0,
    };
    match fs.facts(path)?.map(|facts| facts.kind) {
        Some(FileKind::Dir) => search.walk(path, 0)?,
        // A link to a directory, named by hand.
        Some(FileKind::Other) if fs.list(path).is_ok() => search.walk(path, 0)?,
        Some(FileKind::File) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            search.snapshot(
                directory.unwrap_or(Path::new(".")),
                SnapshotDir::open(fs.clone(), path),
            );
        }
        _ => return Err(Error::new(Code::NotASnapshot, "there is no file or directory").in_file(path)),
    }
    search.found.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(search.found)
}

/// By directory; checkpoints of one root by number.
fn key(found: &FoundSnapshot) -> (Option<&Path>, Option<CheckpointId>, &Path) {
    let name = found.directory.file_name().and_then(|name| name.to_str());
    let id = name.and_then(Place::checkpoint_of);
    (found.directory.parent(), id, &found.directory)
}

struct Search<'a> {
    fs: &'a Arc<dyn Fs>,
    found: Vec<FoundSnapshot>,
    directories: usize,
}

impl Search<'_> {
    fn walk(&mut self, directory: &Path, depth: usize) -> Result {
        self.directories += 1;
        if self.directories > DIRECTORIES_MAX {
            return Err(Error::new(Code::Busy, "too many directories to look through")
                .in_file(directory)
                .with("limit", DIRECTORIES_MAX));
        }
        let entries = match self.fs.list(directory) {
            // Gone since its parent was listed.
            Err(e) if e.code() == Code::NotFound && depth > 0 => return Ok(()),
            other => other?,
        };
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        if has(METADATA_NAME) {
            self.snapshot(directory, SnapshotDir::open(self.fs.clone(), directory));
        } else if has(DISPOSING_NAME) {
            self.bare(directory, SnapshotStanding::Disposing);
        } else if is_job_root(&entries) {
            self.job_root(directory, &entries);
        } else if is_unfinished(directory, &entries) {
            self.bare(directory, SnapshotStanding::Unfinished);
        } else if depth < DEPTH_MAX {
            for entry in entries.iter().filter(|entry| entry.kind == FileKind::Dir) {
                self.walk(&directory.join(&entry.name), depth + 1)?;
            }
        }
        Ok(())
    }

    fn bare(&mut self, directory: &Path, standing: SnapshotStanding) {
        self.found.push(FoundSnapshot {
            directory: directory.to_path_buf(),
            standing,
            facts: None,
            error: None,
        });
    }

    fn unreadable(&mut self, directory: PathBuf, error: Error) {
        self.found.push(FoundSnapshot {
            directory,
            standing: SnapshotStanding::Unreadable,
            facts: None,
            error: Some(error),
        });
    }

    /// A snapshot that was met without its root, or a savepoint.
    fn snapshot(&mut self, directory: &Path, opened: Result<SnapshotDir>) {
        let snapshot = match opened {
            Ok(snapshot) => snapshot,
            Err(error) => return self.unreadable(directory.to_path_buf(), error),
        };
        let in_root = snapshot.metadata().kind.owner() == SnapshotOwner::Job;
        let root = LocalStorage::at(self.fs.clone(), snapshot.root());
        let id = snapshot.metadata().checkpoint;
        match in_root.then(|| look(&root)) {
            Some(Ok(survey)) if survey.root() == Some(snapshot.metadata().root) => {
                self.checkpoint(&survey, id, &snapshot.root());
            }
            Some(Err(e)) if e.code() != Code::NotASnapshot => self.unreadable(directory.to_path_buf(), e),
            Some(_) => self.readable(&snapshot, SnapshotStanding::Stray, &[]),
            None => self.readable(&snapshot, SnapshotStanding::Savepoint, &[]),
        }
    }

    fn readable(&mut self, snapshot: &SnapshotDir, standing: SnapshotStanding, others: &[Metadata]) {
        let metadata = snapshot.metadata();
        let claim = claimed_by(snapshot);
        let shares = metadata.properties.get(SHARES_STORAGE_WITH);
        let (claimed_by, error) = match claim {
            Ok(claim) => (claim, None),
            Err(error) => (None, Some(error)),
        };
        self.found.push(FoundSnapshot {
            directory: snapshot.directory().to_path_buf(),
            standing,
            facts: Some(SnapshotFacts {
                kind: metadata.kind,
                checkpoint: metadata.checkpoint,
                job: metadata.job,
                job_name: metadata.properties.get("job-name").cloned(),
                generation: metadata.generation,
                timestamp_ms: metadata.timestamp_ms,
                sizes: sizes(metadata, others),
                depends_on: depends_on(snapshot),
                shares_storage_with: shares
                    .iter()
                    .flat_map(|text| text.lines())
                    .map(ToOwned::to_owned)
                    .collect(),
                claimed_by,
            }),
            error,
        });
    }

    fn job_root(&mut self, root: &Path, entries: &[DirEntry]) {
        match look(&LocalStorage::at(self.fs.clone(), root)) {
            Ok(survey) => {
                for id in survey.checkpoints.keys() {
                    self.checkpoint(&survey, *id, root);
                }
            }
            Err(error) => {
                // Nobody can say which checkpoints count; each is listed all the same.
                let ids = entries
                    .iter()
                    .filter_map(|entry| Place::checkpoint_of(&entry.name));
                for id in ids {
                    let directory = layout::directory(root, Place::Checkpoint(id));
                    if error.code() == Code::NotASnapshot {
                        // A copy of checkpoints without their root.
                        self.snapshot(&directory, SnapshotDir::open(self.fs.clone(), &directory));
                    } else {
                        self.unreadable(directory, error.duplicate());
                    }
                }
            }
        }
    }

    /// One checkpoint of a root, if it is published.
    fn checkpoint(&mut self, survey: &Survey, id: CheckpointId, root: &Path) {
        let directory = layout::directory(root, Place::Checkpoint(id));
        let standing = match survey.checkpoints.get(&id) {
            Some(Found::Published(metadata)) => standing_of(survey, metadata),
            Some(Found::Unreadable(error)) => return self.unreadable(directory, error.duplicate()),
            Some(Found::Unpublished) | None => return,
        };
        match SnapshotDir::open(self.fs.clone(), &directory) {
            Ok(snapshot) => {
                let others = survey
                    .checkpoints
                    .iter()
                    .filter_map(|(other, found)| match found {
                        Found::Published(metadata) if *other != id => Some((**metadata).clone()),
                        _ => None,
                    });
                self.readable(&snapshot, standing, &others.collect::<Vec<_>>());
            }
            // Subsumed since.
            Err(e) if e.code() == Code::NotASnapshot => {}
            Err(error) => self.unreadable(directory, error),
        }
    }
}

/// How a published checkpoint of a root stands.
pub(crate) fn standing_of(survey: &Survey, metadata: &Metadata) -> SnapshotStanding {
    let id = metadata.checkpoint;
    if survey.owners.is_void(metadata.generation, id) {
        SnapshotStanding::Void
    } else if survey.owners.timeline(&survey.published()).contains(&id) {
        SnapshotStanding::Timeline
    } else {
        SnapshotStanding::Abandoned
    }
}

/// Reads a root that its owner may change meanwhile.
pub(crate) fn look(storage: &LocalStorage) -> Result<Survey> {
    let mut looks = 0;
    loop {
        looks += 1;
        match job_of(storage).and_then(|job| Survey::read(storage, job)) {
            Err(e) if e.code() == Code::NotFound && looks < LOOKS_MAX => {}
            other => return other,
        }
    }
}

/// Whether these are the names of a job root.
pub(crate) fn is_job_root(entries: &[DirEntry]) -> bool {
    let is_part = |entry: &DirEntry| {
        let owner = Place::Owner.describe("");
        entry.name == owner.trim_end_matches('/') || Place::checkpoint_of(&entry.name).is_some()
    };
    entries
        .iter()
        .any(|entry| entry.kind == FileKind::Dir && is_part(entry))
}

/// Whether this is a savepoint without its metadata: all of its names tell their birth.
pub(crate) fn is_unfinished(directory: &Path, entries: &[DirEntry]) -> bool {
    let name = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let tells_birth =
        |entry: &DirEntry| ObjectName::new(&*entry.name).is_ok_and(|name| name.birth().is_some());
    layout::is_savepoint_name(name) && entries.iter().all(tells_birth)
}

/// The directories other than its own that hold files of a snapshot, by the addresses that are used.
pub fn depends_on(snapshot: &SnapshotDir) -> Vec<String> {
    let files = snapshot.metadata().files();
    let places: BTreeSet<(Anchor, Folder)> = files
        .filter(|file| file.anchor != Anchor::SelfDir)
        .map(|file| (file.anchor, file.folder))
        .collect();
    let directory = |(anchor, folder): (Anchor, Folder)| {
        let (base, around) = match anchor {
            Anchor::SelfDir => (snapshot.directory().to_path_buf(), snapshot.root()),
            Anchor::Root => (snapshot.root(), snapshot.root()),
            Anchor::External(id) => {
                let row = snapshot.external(id);
                let url = row.map_or_else(|| format!("external place {id}"), |row| row.url);
                let base = PathBuf::from(url.strip_prefix("file://").unwrap_or(&url));
                let around = base.parent().map_or_else(PathBuf::new, Path::to_path_buf);
                (base, around)
            }
        };
        let path = match folder {
            Folder::Private => base,
            Folder::Shared => layout::directory(&around, Place::Shared),
            Folder::TaskOwned => layout::directory(&around, Place::TaskOwned),
        };
        path.display().to_string()
    };
    let unique: BTreeSet<String> = places.into_iter().map(directory).collect();
    unique.into_iter().collect()
}
