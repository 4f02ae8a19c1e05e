//! What the checkpoints of a root may refer to outside of it: the snapshot it started from and what that refers to.

use crate::{
    Anchors, CheckpointStorage, ClaimMode, ExternalAnchor, FileHandle, ForeignSnapshot, RestoreSource,
    claim::Claim,
    external::Externals,
    foreign::may_be_referenced,
    owner::Owners,
    part,
    storage::copy_out,
    survey::{Found, Survey},
};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The declared anchors of a root.
#[derive(Debug)]
pub(super) struct Source {
    /// What this generation started from.
    pub(super) snapshot: Option<Arc<ForeignSnapshot>>,
    /// Whether files of the snapshot get names of this root, so that it is not needed any more: it was claimed.
    pub(super) links: bool,
    /// What got a name of this root. Locked while one is given.
    pub(super) adopted: Mutex<BTreeMap<FileHandle, FileHandle>>,
    /// The claim, if this job holds one. Locked for a look only.
    pub(super) claim: Mutex<Option<Claim>>,
    rows: BTreeMap<u32, ExternalAnchor>,
    /// `None` if the storage knows no place outside.
    externals: Option<Externals>,
    fs: Option<Arc<dyn Fs>>,
}

/// An opened file of another snapshot.
pub(super) struct Outside<'a> {
    pub(super) file: Arc<dyn ReadFile>,
    path: PathBuf,
    of: &'a dyn Fs,
}

impl Source {
    /// The anchors that the published checkpoints declare, and those of the snapshot that the job starts from.
    ///
    /// # Errors
    /// `RegistryConflict` if one number stands for two snapshots.
    pub(super) fn new(
        storage: &dyn CheckpointStorage,
        survey: &Survey,
        anchors: Anchors,
        started_from: Option<(ForeignSnapshot, ClaimMode)>,
    ) -> Result<Source> {
        let published = survey.checkpoints.values().filter_map(|found| match found {
            Found::Published(metadata) => Some(&metadata.externals),
            _ => None,
        });
        let referenced = started_from.as_ref().filter(|(_, mode)| may_be_referenced(*mode));
        let started = referenced.map(|(source, _)| &source.metadata().externals);
        let mut rows: BTreeMap<u32, ExternalAnchor> = BTreeMap::new();
        for row in published.chain(started).flatten() {
            let identity = |row: &ExternalAnchor| (row.job, row.root, row.checkpoint, row.digest);
            match rows.insert(row.id, row.clone()) {
                Some(other) if identity(&other) != identity(row) => {
                    return Err(Error::new(
                        Code::RegistryConflict,
                        "one number stands for two snapshots outside of the root",
                    )
                    .with("anchor", row.id)
                    .expected_found(other.url, &row.url));
                }
                _ => {}
            }
        }
        let origin = match &started_from {
            Some((_, mode)) => Some(*mode),
            None => origin(&survey.owners).map(|(_, mode)| mode),
        };
        let fs = storage.outside();
        let all: Vec<ExternalAnchor> = rows.values().cloned().collect();
        Ok(Source {
            externals: fs.clone().map(|fs| Externals::new(fs, &all, anchors)),
            snapshot: started_from.map(|(source, _)| Arc::new(source)),
            links: origin == Some(ClaimMode::Claim),
            adopted: Mutex::default(),
            claim: Mutex::default(),
            rows,
            fs,
        })
    }

    /// The row of an anchor that checkpoints of this root may refer to.
    ///
    /// # Errors
    /// `InvalidArgument` if none may: the snapshot was not claimed, say.
    pub(super) fn demand(&self, id: u32) -> Result<ExternalAnchor> {
        let row = self.rows.get(&id).ok_or_else(|| {
            Error::invalid("a checkpoint must not refer to a snapshot that it was only restored from")
                .with("anchor", id)
        })?;
        // The address that is used now is the better hint.
        let used = self.externals.as_ref().and_then(|externals| externals.row(id));
        Ok(used.unwrap_or_else(|| row.clone()))
    }

    /// The rows of some anchors.
    ///
    /// # Errors
    /// As [`Source::demand`].
    pub(super) fn rows(&self, ids: &BTreeSet<u32>) -> Result<Vec<ExternalAnchor>> {
        ids.iter().map(|id| self.demand(*id)).collect()
    }

    /// Opens a file of another snapshot.
    ///
    /// # Errors
    /// `SnapshotIncomplete`, `SnapshotCorrupt`.
    pub(super) fn open(&self, handle: &FileHandle) -> Result<Outside<'_>> {
        let (Some(externals), Some(fs)) = (&self.externals, &self.fs) else {
            return Err(Error::new(
                Code::SnapshotIncomplete,
                "the storage reaches no snapshots outside of the root",
            )
            .with("missing", &handle.object));
        };
        let path = externals.path(handle)?;
        let name = path.display().to_string();
        let file = part::open(&**fs, &path, &name)?;
        Ok(Outside {
            file: part::checked(file, handle, &name)?,
            path,
            of: &**fs,
        })
    }
}

/// The snapshot that the job started from when it last started from one, and how.
pub(super) fn origin(owners: &Owners) -> Option<(&Path, ClaimMode)> {
    owners.all().rev().find_map(|record| match &record.restored {
        RestoreSource::Snapshot { location, mode } => Some((Path::new(location), *mode)),
        RestoreSource::Nothing | RestoreSource::Checkpoint(_) => None,
    })
}

impl Outside<'_> {
    pub(super) fn fs(&self) -> &dyn Fs {
        self.of
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies it; never a link, because the snapshot may be foreign and a link would share its bytes.
    pub(super) fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        part::fetch(handle, &*self.file, fs, to, || {
            let same = self.of.namespace().is_some() && self.of.namespace() == fs.namespace();
            if same {
                fs.copy(&self.path, to)
            } else {
                copy_out(&*self.file, fs, to)
            }
        })
    }
}
