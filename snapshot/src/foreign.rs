//! A snapshot that a job starts from and that is not a checkpoint of its own root.
//!
//! ```text
//!   handle in the snapshot          translated                      names
//!   SELF, ROOT              ─▶      External(1), same folder        the snapshot itself
//!   External(k)             ─▶      External(2, 3, …)               what it referenced: rows travel unchanged
//! ```
//! So every file has one name that the job's own checkpoints may carry on, wherever they lie, and a backend needs no
//! knowledge of claim modes. Numbers depend on the snapshot alone: opening it again gives the same.

use crate::{
    Anchor, ClaimMode, ExternalAnchor, FileHandle, Metadata, OpenFiles, SnapshotDir,
    claim::{self, ClaimRecord},
    external::{Anchors, absolute, inside, url_of},
};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// The number of the snapshot itself among the translated anchors.
pub const FOREIGN_ANCHOR: u32 = 1;

/// An opened snapshot with translated handles. Opens files by those.
#[derive(Debug)]
pub struct ForeignSnapshot {
    opened: SnapshotDir,
    location: PathBuf,
    anchors: Anchors,
    metadata: Metadata,
    /// Translated number of a row of the snapshot → its own number.
    numbers: BTreeMap<u32, u32>,
}

impl ForeignSnapshot {
    /// Opens the snapshot whose directory or metadata file is `path`. Nothing is written.
    ///
    /// # Errors
    /// Those of [`SnapshotDir::open`]; `InvalidArgument` if the path cannot be written down: it is no text, too long, or
    /// goes through a symbolic link and back by `..`.
    pub fn open(fs: Arc<dyn Fs>, path: &Path, anchors: impl Into<Anchors>) -> Result<ForeignSnapshot> {
        let anchors = anchors.into();
        let opened = SnapshotDir::open(fs, path)?.with_anchors(anchors.clone());
        let location = absolute(&**opened.fs(), opened.directory())?;
        demand_same(&opened, &location)?;
        let (metadata, numbers) = translated(&opened, &location)?;
        Ok(ForeignSnapshot {
            opened,
            location,
            anchors,
            metadata,
            numbers,
        })
    }

    /// Opens it again, as a recovery must: it may have been deleted meanwhile.
    ///
    /// # Errors
    /// `SnapshotIncomplete` if it is gone or another one, naming the job that claimed it if that is known; those of
    /// [`ForeignSnapshot::open`].
    pub fn reopen(&self) -> Result<ForeignSnapshot> {
        let fs = self.opened.fs().clone();
        let again = ForeignSnapshot::open(fs, self.opened.directory(), self.anchors.clone());
        let gone = |sentence: &str| {
            let error = Error::new(Code::SnapshotIncomplete, sentence).in_file(&self.location);
            match claim::taken_by(&self.opened) {
                Ok(Some(claim)) => error.with("claimed_by", claim.claimant.job),
                _ => error,
            }
        };
        match again {
            Ok(found) if found.opened.metadata_digest() == self.opened.metadata_digest() => Ok(found),
            Ok(_) => Err(gone("another snapshot lies where the job was started from")),
            Err(e) if e.code() == Code::NotASnapshot => {
                Err(gone("the snapshot that the job was started from is gone"))
            }
            Err(e) => Err(e),
        }
    }

    /// The content, with translated handles and [`Metadata::externals`]; everything else is the snapshot's.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The snapshot as it is.
    pub fn snapshot(&self) -> &SnapshotDir {
        &self.opened
    }

    /// Its directory as an absolute path: what is recorded and told to users.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Checks that it can be restored from here: every file is there with its length. Contents are not read.
    ///
    /// # Errors
    /// Those of [`SnapshotDir::check_complete`].
    pub fn check_complete(&self) -> Result {
        self.opened.check_complete()
    }

    /// Who claimed it; to be told when it is restored without a claim.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a claim cannot be read; errors of the file system.
    pub fn claimed_by(&self) -> Result<Option<ClaimRecord>> {
        claim::claimed_by(&self.opened)
    }

    /// The handle as the snapshot wrote it.
    fn original(&self, handle: &FileHandle) -> Result<FileHandle> {
        match handle.anchor {
            Anchor::External(FOREIGN_ANCHOR) => Ok(inside(handle)),
            Anchor::External(id) if self.numbers.contains_key(&id) => Ok(FileHandle {
                anchor: Anchor::External(self.numbers[&id]),
                ..handle.clone()
            }),
            _ => Err(Error::invalid("the file is not one of this snapshot").with("object", &handle.object)),
        }
    }
}

/// Checks that the path without `.` and `..`, which is what is written down, means the same directory.
fn demand_same(opened: &SnapshotDir, location: &Path) -> Result {
    // Without `..` in it, a path that is made absolute cannot lead elsewhere.
    let goes_back = opened.directory().components().any(|c| c == Component::ParentDir);
    if !goes_back || location == opened.directory() {
        return Ok(());
    }
    match SnapshotDir::open(opened.fs().clone(), location) {
        Ok(found) if found.metadata_digest() == opened.metadata_digest() => Ok(()),
        _ => Err(
            Error::invalid("name the snapshot by an absolute path without `..`").in_file(opened.directory()),
        ),
    }
}

/// Whether later checkpoints may reference files of a snapshot that was restored in this mode.
pub(crate) fn may_be_referenced(mode: ClaimMode) -> bool {
    match mode {
        ClaimMode::NoClaim => false,
        ClaimMode::Claim | ClaimMode::Legacy => true,
    }
}

fn translated(opened: &SnapshotDir, location: &Path) -> Result<(Metadata, BTreeMap<u32, u32>)> {
    let source = opened.metadata();
    let mut externals = vec![ExternalAnchor {
        id: FOREIGN_ANCHOR,
        url: url_of(location)?,
        job: source.job,
        root: source.root,
        checkpoint: source.checkpoint,
        digest: opened.metadata_digest(),
    }];
    let used: BTreeSet<u32> = source
        .files()
        .filter_map(|file| match file.anchor {
            Anchor::External(id) => Some(id),
            Anchor::SelfDir | Anchor::Root => None,
        })
        .collect();
    let mut numbers = BTreeMap::new();
    for (id, own) in (FOREIGN_ANCHOR + 1..).zip(used) {
        // `check` of the metadata demanded the row.
        let row = opened.external(own).ok_or_else(|| {
            Error::new(
                Code::SnapshotCorrupt,
                "a file refers to an anchor that is not declared",
            )
            .with("anchor", own)
        })?;
        externals.push(ExternalAnchor { id, ..row });
        numbers.insert(id, own);
    }
    let anchor_of = |file: &FileHandle| match file.anchor {
        Anchor::SelfDir | Anchor::Root => Anchor::External(FOREIGN_ANCHOR),
        Anchor::External(own) => {
            let renumbered = numbers.iter().find(|(_, known)| **known == own);
            Anchor::External(renumbered.map_or(FOREIGN_ANCHOR, |(id, _)| *id))
        }
    };
    let mut metadata = Metadata {
        externals,
        ..source.clone()
    };
    for file in metadata.files_mut() {
        file.anchor = anchor_of(file);
    }
    Ok((metadata, numbers))
}

impl OpenFiles for ForeignSnapshot {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        self.opened.open(&self.original(handle)?)
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        self.opened.fetch(&self.original(handle)?, fs, to)
    }

    fn describe(&self, handle: &FileHandle) -> String {
        self.original(handle).map_or_else(
            |_| handle.object.to_string(),
            |original| self.opened.describe(&original),
        )
    }
}
