//! Who owns a file, which snapshots need it, and whether it may go: the question of the person at night, answered for
//! one file. Nothing is written; a file that is missing is answered for by its name.

use crate::{
    Birth, CheckpointStorage, ClaimRecord, Generation, JobId, LocalStorage, Metadata, ObjectName, ObjectPath,
    OpenRoot, Place, RootId, SnapshotDir, SnapshotKind,
    browse::{SnapshotStanding, is_unfinished, look, standing_of},
    claim::claimed_by,
    external::absolute,
    storage::layout::{self, CLAIMED_NAME, DISPOSING_NAME, LOCK_NAME, METADATA_NAME},
    survey::{Found, Survey},
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is known about one file.
#[derive(Debug)]
pub struct FileOwnership {
    /// The file, absolute.
    pub path: PathBuf,
    /// Its bytes; `None` if it is not there.
    pub bytes: Option<u64>,
    /// What it is.
    pub role: FileRole,
    /// The generation and the checkpoint that it was created for, as its name says.
    pub birth: Option<Birth>,
    /// Who owns it.
    pub owner: FileOwner,
    /// Snapshots that need it.
    pub needed_by: Vec<Need>,
    /// Whether it may be deleted, and by which command.
    pub verdict: Verdict,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The document that makes a snapshot exist.
    Metadata,
    /// State of snapshots.
    Object,
    /// A document under a temporary name.
    Temporary,
    /// A record of a job root, the lock, or a mark.
    Record,
    /// None of ours.
    Unknown,
}

/// Who owns a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOwner {
    /// A job, by its root.
    Job {
        /// The directory of the root.
        root: PathBuf,
        /// The job.
        job: JobId,
        /// The id of the root.
        root_id: RootId,
        /// The newest generation.
        generation: Generation,
        /// Process id of the living owner, if there is one.
        live: Option<String>,
    },
    /// The user whose savepoint it belongs to.
    User {
        /// The directory of the savepoint.
        directory: PathBuf,
        /// The job that it was taken of, if that can be read.
        job: Option<JobId>,
    },
}

/// A snapshot that needs a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its directory.
    pub directory: PathBuf,
    /// What it is for.
    pub kind: SnapshotKind,
    /// How it stands.
    pub standing: SnapshotStanding,
    /// Who claimed it.
    pub claimed_by: Option<ClaimRecord>,
}

/// Whether a file may be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a command deletes it now. No file is ever to be deleted by hand.
    pub may_go: bool,
    /// Why, and by which command.
    pub because: String,
}

impl Verdict {
    fn no(because: impl Into<String>) -> Verdict {
        Verdict {
            may_go: false,
            because: because.into(),
        }
    }

    fn yes(because: impl Into<String>) -> Verdict {
        Verdict {
            may_go: true,
            because: because.into(),
        }
    }
}

/// Tells who owns the file `path` and who needs it. The directory of a snapshot stands for its metadata.
///
/// # Errors
/// `NotASnapshot` if it lies neither in a job root nor in the directory of a savepoint; the errors of metadata and records
/// that cannot be read; errors of the file system.
pub fn ownership(fs: &Arc<dyn Fs>, path: &Path) -> Result<FileOwnership> {
    let mut path = absolute(&**fs, path)?;
    let is_dir = |path: &Path| -> Result<bool> {
        Ok(fs.facts(path)?.is_some_and(|facts| facts.kind == FileKind::Dir))
    };
    if is_dir(&path)? {
        path = layout::document(&path, METADATA_NAME);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(nobodys(&path));
    };
    let is_root = |root: &Path| is_dir(&layout::directory(root, Place::Owner));
    let folder = directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let (Some(place), Some(root)) = (Place::of_folder(folder), directory.parent())
        && is_root(root)?
    {
        return in_job_root(fs, &path, (root, place, name));
    }
    if is_root(directory)? {
        return in_job_root(fs, &path, (directory, Place::Root, name));
    }
    in_savepoint(fs, &path, (directory, name))
}

fn nobodys(path: &Path) -> Error {
    Error::new(
        Code::NotASnapshot,
        "the file lies neither in a job root nor in the directory of a savepoint",
    )
    .in_file(path)
}

fn bytes_of(fs: &dyn Fs, path: &Path) -> Result<Option<u64>> {
    Ok(fs.facts(path)?.map(|facts| facts.len))
}

fn in_job_root(
    fs: &Arc<dyn Fs>,
    path: &Path,
    (root, place, name): (&Path, Place, &str),
) -> Result<FileOwnership> {
    let storage = Arc::new(LocalStorage::at(fs.clone(), root));
    let survey = look(&storage)?;
    let newest = survey.owners.newest().ok_or_else(|| nobodys(path))?;
    let object = place.object(name);
    let mut needed_by = Vec::new();
    for found in survey.checkpoints.values() {
        let Found::Published(metadata) = found else {
            continue;
        };
        if object.as_ref().is_some_and(|object| names(metadata, object)) {
            let directory = layout::directory(root, Place::Checkpoint(metadata.checkpoint));
            let snapshot = SnapshotDir::open(fs.clone(), &directory)?;
            needed_by.push(Need {
                directory,
                kind: metadata.kind,
                standing: standing_of(&survey, metadata),
                claimed_by: claimed_by(&snapshot)?,
            });
        }
    }
    let live = live_owner(&storage)?;
    let role = match &object {
        Some(ObjectPath::Metadata(_)) => FileRole::Metadata,
        Some(ObjectPath::Temporary(..)) => FileRole::Temporary,
        Some(object) if object.birth().is_some() => FileRole::Object,
        Some(ObjectPath::Shared(_) | ObjectPath::TaskOwned(_) | ObjectPath::Private(..)) => FileRole::Unknown,
        Some(_) => FileRole::Record,
        None if place == Place::Root && name == LOCK_NAME => FileRole::Record,
        None => FileRole::Unknown,
    };
    let verdict = match (role, &object) {
        (FileRole::Unknown, _) | (_, None) if role != FileRole::Record => {
            Verdict::no("keybed did not write it and never deletes it")
        }
        (FileRole::Record, _) | (_, None) => Verdict::no("a record of the job root goes with the root"),
        (_, Some(object)) => verdict_of(&storage, &survey, object, &needed_by, live.as_deref()),
    };
    Ok(FileOwnership {
        path: path.to_path_buf(),
        bytes: bytes_of(&**fs, path)?,
        role,
        birth: object.as_ref().and_then(ObjectPath::birth),
        owner: FileOwner::Job {
            root: root.to_path_buf(),
            job: newest.job,
            root_id: newest.root,
            generation: newest.generation,
            live,
        },
        needed_by,
        verdict,
    })
}

/// Whether a snapshot consists of this object among others.
fn names(metadata: &Metadata, object: &ObjectPath) -> bool {
    let id = metadata.checkpoint;
    let referenced = || {
        metadata
            .files()
            .any(|file| ObjectPath::of_handle(id, file).is_ok_and(|path| path == *object))
    };
    *object == ObjectPath::Metadata(id) || referenced()
}

fn verdict_of(
    storage: &Arc<LocalStorage>,
    survey: &Survey,
    object: &ObjectPath,
    needed_by: &[Need],
    live: Option<&str>,
) -> Verdict {
    let root = storage.root().display();
    if needed_by
        .iter()
        .any(|need| need.standing != SnapshotStanding::Void)
    {
        return Verdict::no("snapshots that can be restored need it; it goes after the last of them");
    }
    let unreadable = survey.checkpoints.values().find_map(|found| match found {
        Found::Unreadable(error) => Some(error),
        _ => None,
    });
    if let Some(error) = unreadable {
        return Verdict::no(format!(
            "metadata in the root cannot be read, so nobody knows who needs it: {error}"
        ));
    }
    if let Some(pid) = live {
        return Verdict::no(format!(
            "process {pid} owns the root and decides; it may be writing it just now"
        ));
    }
    let garbage = OpenRoot::look(storage.clone()).and_then(|root| root.garbage());
    match garbage {
        Ok(garbage) if garbage.files().any(|path| path == *object) => Verdict::yes(format!(
            "no snapshot that can be restored needs it: `keybed gc {root}` deletes it"
        )),
        Ok(_) => {
            Verdict::no("no snapshot of this root needs it, but a sweep leaves it: its birth is not over")
        }
        Err(error) => Verdict::no(error.to_string()),
    }
}

/// The process that owns a root, if one lives.
fn live_owner(storage: &LocalStorage) -> Result<Option<String>> {
    if storage
        .outside()
        .map(|fs| fs.facts(&layout::lock(storage.root())))
        .transpose()?
        .flatten()
        .is_none()
    {
        return Ok(None);
    }
    match storage.hold() {
        Err(e) if e.code() == Code::Locked => {
            let pid = e.fields().iter().find(|(name, _)| *name == "pid");
            Ok(Some(pid.map_or_else(|| "unknown".into(), |(_, pid)| pid.clone())))
        }
        Err(e) => Err(e),
        Ok(_) => Ok(None),
    }
}

fn in_savepoint(fs: &Arc<dyn Fs>, path: &Path, (directory, name): (&Path, &str)) -> Result<FileOwnership> {
    let birth = ObjectName::new(name).ok().and_then(|name| name.birth());
    let opened = match SnapshotDir::open(fs.clone(), directory) {
        Ok(snapshot) => Some(snapshot),
        Err(e) if e.code() == Code::NotASnapshot => None,
        Err(e) => return Err(e),
    };
    let role = match name {
        METADATA_NAME | DISPOSING_NAME => FileRole::Metadata,
        CLAIMED_NAME => FileRole::Record,
        _ if birth.is_some() => FileRole::Object,
        _ => FileRole::Unknown,
    };
    let shown = directory.display();
    let mut needed_by = Vec::new();
    let verdict = match &opened {
        None => {
            let entries = fs.list(directory).map_err(|_| nobodys(path))?;
            let disposing = entries.iter().any(|entry| entry.name == DISPOSING_NAME);
            if disposing {
                Verdict::yes(format!(
                    "its savepoint is being disposed of: `keybed snapshot dispose {shown}` goes on"
                ))
            } else if is_unfinished(directory, &entries) {
                Verdict::no("a savepoint that is being written, or was when its process died")
            } else {
                return Err(nobodys(path));
            }
        }
        Some(snapshot) => {
            let metadata = snapshot.metadata();
            let named = metadata.files().any(|file| file.object.as_str() == name);
            let claim = claimed_by(snapshot)?;
            if named || role == FileRole::Metadata {
                needed_by.push(Need {
                    directory: directory.to_path_buf(),
                    kind: metadata.kind,
                    standing: SnapshotStanding::Savepoint,
                    claimed_by: claim.clone(),
                });
            }
            match claim {
                Some(claim) => Verdict::no(format!(
                    "job {} claimed the snapshot and deletes it itself",
                    claim.claimant.job
                )),
                None if needed_by.is_empty() => {
                    Verdict::no("no file of the savepoint; keybed never deletes it")
                }
                None => Verdict::no(format!(
                    "the savepoint goes as a whole, when its user says so: `keybed snapshot dispose {shown}`"
                )),
            }
        }
    };
    Ok(FileOwnership {
        path: path.to_path_buf(),
        bytes: bytes_of(&**fs, path)?,
        role: if needed_by.is_empty() && role == FileRole::Object && opened.is_some() {
            FileRole::Unknown
        } else {
            role
        },
        birth,
        owner: FileOwner::User {
            directory: directory.to_path_buf(),
            job: opened.map(|snapshot| snapshot.metadata().job),
        },
        needed_by,
        verdict,
    })
}
