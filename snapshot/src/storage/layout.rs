//! Where everything lies below a job root; the one place where paths are joined.
//!
//! ```text
//! <checkpoint root>/<job id>/LOCK                    held by the living owner
//!                            FINISHED                written once, when the job has ended for good
//!                            STOP, STOPPED           the job is ending, or ended, with a savepoint
//!                            owner/<generation>      immutable, created if absent
//!                            claims/<n>              immutable, created if absent: who claimed which checkpoint
//!                            shared/<object>         tables shared by checkpoints
//!                            taskowned/<object>
//!                            chk-<n>/_metadata       publishes checkpoint n
//!                            chk-<n>/<object>        private files of checkpoint n
//!
//! <savepoint target>/savepoint-<job 6>-<random 12>/_metadata, <object> …       page: docs/format/savepoint.md
//! ```
//! Names are typed: a number, a validated [`ObjectName`] or a constant. So no reference leaves its folder. Page:
//! docs/format/job-root.md.

use crate::{Anchor, Birth, CheckpointId, FileHandle, Folder, Generation, JobId, ObjectName};
use keybed_format::{Code, Error, Result, hex};
use std::path::{Path, PathBuf};

/// Name of the document that publishes a snapshot.
pub const METADATA_NAME: &str = "_metadata";
/// Name of the lock file in the job root.
pub const LOCK_NAME: &str = "LOCK";
/// Name of the record in the job root that says that the job has ended for good.
pub const FINISHED_NAME: &str = "FINISHED";
/// Name of the record in the job root that says that the job is to end with a savepoint.
pub const STOP_NAME: &str = "STOP";
/// Name of the record in the job root that says that the savepoint of `STOP` exists.
pub const STOPPED_NAME: &str = "STOPPED";
/// Name that `_metadata` gets while the snapshot is disposed of.
pub const DISPOSING_NAME: &str = "_disposing";
/// Name of the marker in a savepoint's directory that says that a job owns it.
pub const CLAIMED_NAME: &str = "CLAIMED";
const CHECKPOINT_PREFIX: &str = "chk-";
const SAVEPOINT_PREFIX: &str = "savepoint-";
/// Digits of the job id in the name of a savepoint.
const SAVEPOINT_JOB_DIGITS: usize = 6;
/// Random digits in the name of a savepoint.
const SAVEPOINT_RANDOM_DIGITS: usize = 12;

/// A folder of a job root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The job root itself.
    Root,
    /// `owner/`.
    Owner,
    /// `claims/`.
    Claims,
    /// `shared/`.
    Shared,
    /// `taskowned/`.
    TaskOwned,
    /// `chk-<n>/`.
    Checkpoint(CheckpointId),
}

/// An object of a job root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectPath {
    /// `FINISHED`.
    Finished,
    /// `STOP`.
    Stop,
    /// `STOPPED`.
    Stopped,
    /// `owner/<generation>`.
    Owner(Generation),
    /// `claims/<number>`.
    Claims(u64),
    /// `shared/<object>`.
    Shared(ObjectName),
    /// `taskowned/<object>`.
    TaskOwned(ObjectName),
    /// `chk-<n>/_metadata`.
    Metadata(CheckpointId),
    /// `chk-<n>/<object>`.
    Private(CheckpointId, ObjectName),
    /// A temporary name in a folder, left behind by a crash.
    Temporary(Place, ObjectName),
}

impl Place {
    /// Path relative to the job root, empty for the root itself.
    fn relative(self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Owner => "owner".into(),
            Place::Claims => "claims".into(),
            Place::Shared => "shared".into(),
            Place::TaskOwned => "taskowned".into(),
            Place::Checkpoint(id) => format!("{CHECKPOINT_PREFIX}{id}"),
        }
    }

    /// Whether a name in this folder is part of the layout without being an object.
    pub fn is_fixture(self, name: &str) -> bool {
        let folders = [Place::Owner, Place::Claims, Place::Shared, Place::TaskOwned].map(Place::relative);
        self == Place::Root && (name == LOCK_NAME || folders.iter().any(|folder| folder == name))
    }

    /// A name in this folder, relative to the job root, for people.
    pub fn describe(self, name: &str) -> String {
        let folder = self.relative();
        if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        }
    }

    /// The folder of a checkpoint whose directory has this name.
    pub fn checkpoint_of(directory: &str) -> Option<CheckpointId> {
        directory.strip_prefix(CHECKPOINT_PREFIX)?.parse().ok()
    }

    /// The folder of a job root with this name.
    pub fn of_folder(name: &str) -> Option<Place> {
        let fixed = [Place::Owner, Place::Claims, Place::Shared, Place::TaskOwned];
        let fixed = fixed.into_iter().find(|place| place.relative() == name);
        fixed.or_else(|| Self::checkpoint_of(name).map(Place::Checkpoint))
    }

    /// The object that a name in this folder stands for; `None` for names that are not ours.
    pub fn object(self, name: &str) -> Option<ObjectPath> {
        if let Some(temporary) = ObjectName::new(name).ok().filter(ObjectName::is_temporary) {
            return Some(ObjectPath::Temporary(self, temporary));
        }
        match self {
            Place::Root => [ObjectPath::Finished, ObjectPath::Stop, ObjectPath::Stopped]
                .into_iter()
                .find(|path| path.name() == name),
            Place::Owner => name.parse().ok().map(ObjectPath::Owner),
            // Canonical, as all numbers in names.
            Place::Claims => name
                .parse::<Generation>()
                .ok()
                .map(|number| ObjectPath::Claims(number.0)),
            Place::Shared => ObjectName::new(name).ok().map(ObjectPath::Shared),
            Place::TaskOwned => ObjectName::new(name).ok().map(ObjectPath::TaskOwned),
            Place::Checkpoint(id) if name == METADATA_NAME => Some(ObjectPath::Metadata(id)),
            Place::Checkpoint(id) => ObjectName::new(name)
                .ok()
                .map(|name| ObjectPath::Private(id, name)),
        }
    }
}

impl ObjectPath {
    /// The folder in which the object lies.
    pub fn place(&self) -> Place {
        match self {
            ObjectPath::Finished | ObjectPath::Stop | ObjectPath::Stopped => Place::Root,
            ObjectPath::Owner(_) => Place::Owner,
            ObjectPath::Claims(_) => Place::Claims,
            ObjectPath::Shared(_) => Place::Shared,
            ObjectPath::TaskOwned(_) => Place::TaskOwned,
            ObjectPath::Metadata(id) | ObjectPath::Private(id, _) => Place::Checkpoint(*id),
            ObjectPath::Temporary(place, _) => *place,
        }
    }

    /// The name in its folder.
    pub fn name(&self) -> String {
        match self {
            ObjectPath::Finished => FINISHED_NAME.into(),
            ObjectPath::Stop => STOP_NAME.into(),
            ObjectPath::Stopped => STOPPED_NAME.into(),
            ObjectPath::Owner(generation) => generation.to_string(),
            ObjectPath::Claims(number) => number.to_string(),
            ObjectPath::Metadata(_) => METADATA_NAME.into(),
            ObjectPath::Shared(name)
            | ObjectPath::TaskOwned(name)
            | ObjectPath::Private(_, name)
            | ObjectPath::Temporary(_, name) => name.to_string(),
        }
    }

    /// What the name tells about the birth of the object; `None` for records and foreign names.
    pub fn birth(&self) -> Option<Birth> {
        match self {
            ObjectPath::Shared(name)
            | ObjectPath::TaskOwned(name)
            | ObjectPath::Private(_, name)
            | ObjectPath::Temporary(_, name) => name.birth(),
            ObjectPath::Finished
            | ObjectPath::Stop
            | ObjectPath::Stopped
            | ObjectPath::Owner(_)
            | ObjectPath::Claims(_)
            | ObjectPath::Metadata(_) => None,
        }
    }

    /// Where a handle of checkpoint `of` lies in the job root.
    ///
    /// # Errors
    /// `SnapshotIncomplete` for [`Anchor::External`]: it lies elsewhere. `SnapshotCorrupt` for a private file of the
    /// root, which cannot exist.
    pub fn of_handle(of: CheckpointId, handle: &FileHandle) -> Result<ObjectPath> {
        let object = handle.object.clone();
        match (handle.anchor, handle.folder) {
            (Anchor::SelfDir, Folder::Private) => Ok(ObjectPath::Private(of, object)),
            (Anchor::Root, Folder::Shared) => Ok(ObjectPath::Shared(object)),
            (Anchor::Root, Folder::TaskOwned) => Ok(ObjectPath::TaskOwned(object)),
            (Anchor::External(id), _) => Err(Error::new(
                Code::SnapshotIncomplete,
                "the file lies outside of the job root",
            )
            .with("external", id)
            .with("missing", object)),
            _ => Err(
                Error::new(Code::SnapshotCorrupt, "anchor and folder of a file do not fit")
                    .with("object", object),
            ),
        }
    }
}

impl std::fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place().describe(&self.name()))
    }
}

/// The only join: `root`, a typed folder, and the typed name of a file in it.
fn join(root: &Path, place: Place, name: Option<&str>) -> PathBuf {
    let mut path = root.to_path_buf();
    for part in [place.relative().as_str(), name.unwrap_or_default()] {
        if !part.is_empty() {
            path.push(part);
        }
    }
    path
}

/// The directory of a folder.
pub fn directory(root: &Path, place: Place) -> PathBuf {
    join(root, place, None)
}

/// The file of an object.
pub fn file(root: &Path, path: &ObjectPath) -> PathBuf {
    join(root, path.place(), Some(&path.name()))
}

/// A private file in a snapshot's own directory.
pub fn private(directory: &Path, object: &ObjectName) -> PathBuf {
    join(directory, Place::Root, Some(object.as_str()))
}

/// A document of ours in a snapshot's own directory: [`METADATA_NAME`], [`DISPOSING_NAME`], [`CLAIMED_NAME`].
pub(crate) fn document(directory: &Path, name: &'static str) -> PathBuf {
    join(directory, Place::Root, Some(name))
}

/// A directory in a savepoint target, for a savepoint of `job`: `savepoint-<6 digits of the job>-<12 random digits>`.
pub fn savepoint(target: &Path, job: JobId, random: u128) -> PathBuf {
    let digits = |number: u128, count| hex::encode(number).chars().take(count).collect::<String>();
    let (job, random) = (
        digits(job.0, SAVEPOINT_JOB_DIGITS),
        digits(random, SAVEPOINT_RANDOM_DIGITS),
    );
    join(
        target,
        Place::Root,
        Some(&format!("{SAVEPOINT_PREFIX}{job}-{random}")),
    )
}

/// Whether a directory has a name of [`savepoint`]: together with object names that tell their birth and no
/// `_metadata`, it is a savepoint that is being written or was abandoned by a crash.
pub fn is_savepoint_name(name: &str) -> bool {
    let digits = |text: &str, count| {
        text.len() == count && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    name.strip_prefix(SAVEPOINT_PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(job, random)| {
            digits(job, SAVEPOINT_JOB_DIGITS) && digits(random, SAVEPOINT_RANDOM_DIGITS)
        })
}

/// The lock file of the root.
pub fn lock(root: &Path) -> PathBuf {
    join(root, Place::Root, Some(LOCK_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_what_they_were() {
        let object = ObjectName::new("g1-c2-00000000000000000000000000000003").unwrap();
        let id = CheckpointId(2);
        let temporary = ObjectName::temporary(object.birth().unwrap(), 5);
        for path in [
            ObjectPath::Finished,
            ObjectPath::Stop,
            ObjectPath::Stopped,
            ObjectPath::Owner(Generation(1)),
            ObjectPath::Claims(1),
            ObjectPath::Shared(object.clone()),
            ObjectPath::TaskOwned(object.clone()),
            ObjectPath::Metadata(id),
            ObjectPath::Private(id, object),
            ObjectPath::Temporary(Place::Owner, temporary.clone()),
            ObjectPath::Temporary(Place::Checkpoint(id), temporary),
        ] {
            assert_eq!(path.place().object(&path.name()), Some(path));
        }
        assert_eq!(Place::checkpoint_of("chk-2"), Some(id));
        for odd in ["chk-02", "chk-", "chk--1", "chk-x", "shared"] {
            assert_eq!(Place::checkpoint_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn paths_are_those_of_the_format_page() {
        let root = Path::new("/r/j");
        assert_eq!(
            file(root, &ObjectPath::Metadata(CheckpointId(7))),
            Path::new("/r/j/chk-7/_metadata")
        );
        assert_eq!(
            file(root, &ObjectPath::Owner(Generation(3))),
            Path::new("/r/j/owner/3")
        );
        assert_eq!(lock(root), Path::new("/r/j/LOCK"));
        assert_eq!(directory(root, Place::Root), root);
        assert_eq!(
            ObjectPath::Metadata(CheckpointId(7)).to_string(),
            "chk-7/_metadata"
        );
    }

    #[test]
    fn a_savepoint_is_named_after_its_job_and_chance() {
        let job = JobId(0xabcd_ef01 << 96);
        let path = savepoint(Path::new("/sp"), job, 0x0123_4567_89ab_cdef << 64);
        assert_eq!(path, Path::new("/sp/savepoint-abcdef-0123456789ab"));
        assert!(is_savepoint_name("savepoint-abcdef-0123456789ab"));
        for odd in [
            "savepoint-abcdef-0123456789a",
            "savepoint-abcdeF-0123456789ab",
            "savepoint-abcdef-0123456789ab-copy",
            "savepoint-abcdef",
            "chk-1",
        ] {
            assert!(!is_savepoint_name(odd), "{odd}");
        }
    }
}
