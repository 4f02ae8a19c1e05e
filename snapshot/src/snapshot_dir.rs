//! A snapshot by its path, with no job running: for inspect, verify and restore from elsewhere.
//!
//! The path is the snapshot's directory or its `_metadata`, wherever they were moved or copied to. References resolve
//! below two anchors only: the directory itself, and the job root around it (its parent) if that is the root the
//! snapshot was written for. A savepoint has the first alone: nothing around it is looked at. Files of other snapshots
//! are reached through the declared [anchors](crate::external). Nothing is written.

use crate::{
    Anchor, CheckpointStorage, ExternalAnchor, FileHandle, Folder, LocalStorage, Metadata, ObjectPath,
    OpenFiles, OwnerRecord, Place, SnapshotOwner,
    external::{Anchors, Externals},
    metadata::{METADATA_BYTES_MAX, decode},
    owner::{OWNER_BYTES_MAX, Owners},
    part,
    storage::{copy_out, layout, read_whole},
    verify::check_presence,
};
use keybed_env::{Fs, ReadFile, fs::FileKind};
use keybed_format::{Code, Error, Result, checksum};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An opened snapshot.
#[derive(Debug)]
pub struct SnapshotDir {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    metadata: Metadata,
    metadata_bytes: u64,
    metadata_digest: u64,
    externals: Externals,
}

impl SnapshotDir {
    /// Opens the snapshot whose directory or metadata file is `path`.
    ///
    /// # Errors
    /// `NotASnapshot` if nothing there is one; `UnsupportedFormatVersion`; `SnapshotCorrupt` with file and offset.
    pub fn open(fs: Arc<dyn Fs>, path: &Path) -> Result<SnapshotDir> {
        if path.file_name() == Some(layout::DISPOSING_NAME.as_ref()) {
            return Err(Error::new(Code::NotASnapshot, DISPOSED).in_file(path));
        }
        let kind = fs.facts(path)?.map(|facts| facts.kind);
        let (directory, file) = match kind {
            Some(FileKind::Dir | FileKind::Other) => {
                (path.to_path_buf(), layout::document(path, layout::METADATA_NAME))
            }
            Some(FileKind::File) => (
                path.parent().unwrap_or(Path::new("")).to_path_buf(),
                path.to_path_buf(),
            ),
            _ => return Err(Error::new(Code::NotASnapshot, "there is no file or directory").in_file(path)),
        };
        let read = read_metadata_file(&*fs, &file);
        let document = read.map_err(|e| match e.code() {
            Code::NotFound => no_metadata(&*fs, &directory),
            _ => e,
        })?;
        let metadata = document.metadata;
        // Users name their savepoints as they like.
        let owned = metadata.kind.owner() == SnapshotOwner::Job;
        let name = directory.file_name().and_then(|name| name.to_str());
        if let Some(id) = name
            .filter(|_| owned)
            .and_then(Place::checkpoint_of)
            .filter(|id| *id != metadata.checkpoint)
        {
            return Err(
                Error::new(Code::SnapshotCorrupt, "the metadata is another checkpoint's")
                    .in_file(&file)
                    .at(0)
                    .expected_found(id, metadata.checkpoint),
            );
        }
        Ok(SnapshotDir {
            externals: Externals::new(fs.clone(), &metadata.externals, Anchors::default()),
            fs,
            directory,
            metadata,
            metadata_bytes: document.bytes,
            metadata_digest: document.digest,
        })
    }

    /// As it is, with some of the other snapshots that it references named by hand.
    #[must_use]
    pub fn with_anchors(mut self, anchors: Anchors) -> SnapshotDir {
        self.externals = Externals::new(self.fs.clone(), &self.metadata.externals, anchors);
        self
    }

    /// The content of `_metadata`.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of `_metadata`.
    pub fn metadata_bytes(&self) -> u64 {
        self.metadata_bytes
    }

    /// The row of a referenced snapshot, with the address that is used.
    pub(crate) fn external(&self, id: u32) -> Option<ExternalAnchor> {
        self.externals.row(id)
    }

    /// xxh3-64 of `_metadata`, by which references from elsewhere know the snapshot again.
    pub fn metadata_digest(&self) -> u64 {
        self.metadata_digest
    }

    /// The file system it lies on.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// The snapshot's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The job root around the snapshot, if it has any.
    pub fn root(&self) -> PathBuf {
        Self::root_around(&self.directory)
    }

    /// Where the job root of a checkpoint in that directory would be.
    pub(crate) fn root_around(directory: &Path) -> PathBuf {
        match directory.file_name() {
            Some(_) => {
                let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
                parent.unwrap_or(Path::new(".")).to_path_buf()
            }
            None => directory.join(".."),
        }
    }

    /// The owner records of the job root around the snapshot; none if it lies in no job root.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if one is damaged.
    pub fn owners(&self) -> Result<Owners> {
        let storage = LocalStorage::at(self.fs.clone(), self.root());
        let mut records = Vec::new();
        for listed in storage.list(Place::Owner)? {
            if let Some(path @ ObjectPath::Owner(_)) = Place::Owner.object(&listed.name) {
                let record = OwnerRecord::decode(&storage.read(&path, OWNER_BYTES_MAX)?);
                records.push(record.map_err(|e| e.in_file(storage.describe(&path)))?);
            }
        }
        Owners::new(records)
    }

    /// Whether the job root around the snapshot says anything about it: a savepoint may lie anywhere.
    fn has_root(&self) -> bool {
        self.metadata.kind.owner() == SnapshotOwner::Job
    }

    /// Checks that shared files are looked for in the root that the snapshot was written for: a copied checkpoint
    /// must never silently read another root.
    ///
    /// # Errors
    /// `SnapshotIncomplete` if the root around it is another one, naming the files that are not there; `Fenced` if
    /// the snapshot is void.
    pub fn check_root(&self) -> Result {
        if !self.has_root() {
            return Ok(());
        }
        let owners = self.owners()?;
        let foreign: BTreeSet<&FileHandle> = self
            .metadata
            .files()
            .filter(|file| file.anchor == Anchor::Root)
            .collect();
        match owners.newest() {
            Some(owner) if owner.root != self.metadata.root && !foreign.is_empty() => {
                let missing: Vec<_> = foreign.iter().map(|file| self.describe(file)).collect();
                Err(Error::new(
                    Code::SnapshotIncomplete,
                    "the snapshot was written for another root, which has its files",
                )
                .in_file(&self.directory)
                .expected_found(self.metadata.root, owner.root)
                .with("count", missing.len())
                .with("missing", missing.join(", ")))
            }
            Some(owner) if owner.root == self.metadata.root && self.is_void(&owners) => Err(Error::new(
                Code::Fenced,
                "the checkpoint was published by a fenced owner and is void",
            )
            .in_file(&self.directory)),
            _ => Ok(()),
        }
    }

    /// Checks that the snapshot can be restored from here, without reading contents: [`SnapshotDir::check_root`], and
    /// every file is there with its length.
    ///
    /// # Errors
    /// Those of [`SnapshotDir::check_root`]; `SnapshotIncomplete` with field `missing` naming every missing file;
    /// `SnapshotCorrupt`.
    pub fn check_complete(&self) -> Result {
        self.check_root()?;
        check_presence(&self.metadata, self).verdict()
    }

    fn is_void(&self, owners: &Owners) -> bool {
        owners.is_void(self.metadata.generation, self.metadata.checkpoint)
    }

    /// Metadata of the other readable snapshots of the same job root; none for a savepoint, which shares nothing.
    ///
    /// # Errors
    /// Errors of the file system; unreadable siblings are left out.
    pub fn siblings(&self) -> Result<Vec<Metadata>> {
        let mut siblings = Vec::new();
        if !self.has_root() {
            return Ok(siblings);
        }
        let storage = LocalStorage::at(self.fs.clone(), self.root());
        for listed in storage.list(Place::Root)? {
            let Some(id) = Place::checkpoint_of(&listed.name) else {
                continue;
            };
            let bytes = storage.read(&ObjectPath::Metadata(id), METADATA_BYTES_MAX);
            if let Ok(metadata) = bytes.and_then(|bytes| decode(&bytes))
                && metadata.root == self.metadata.root
                && metadata.checkpoint != self.metadata.checkpoint
            {
                siblings.push(metadata);
            }
        }
        Ok(siblings)
    }

    /// Where a file lies.
    pub(crate) fn path(&self, handle: &FileHandle) -> Result<PathBuf> {
        match (handle.anchor, handle.folder) {
            (Anchor::External(_), _) => self.externals.path(handle),
            (Anchor::SelfDir, Folder::Private) => Ok(layout::private(&self.directory, &handle.object)),
            (Anchor::Root, _) => {
                let path = ObjectPath::of_handle(self.metadata.checkpoint, handle)?;
                let folder = layout::directory(&self.root(), path.place());
                match self.fs.facts(&folder)?.map(|facts| facts.kind) {
                    Some(FileKind::Dir) => Ok(layout::file(&self.root(), &path)),
                    Some(_) => Err(
                        Error::new(Code::SnapshotCorrupt, "a folder of the root is no directory")
                            .in_file(folder),
                    ),
                    None => Err(part::missing(
                        Error::new(Code::NotFound, "missing"),
                        &layout::file(&self.root(), &path).display().to_string(),
                    )),
                }
            }
            _ => Err(ObjectPath::of_handle(self.metadata.checkpoint, handle)
                .err()
                .unwrap_or_else(|| {
                    Error::new(Code::SnapshotCorrupt, "anchor and folder of a file do not fit")
                        .with("object", &handle.object)
                })),
        }
    }

    fn locate(&self, handle: &FileHandle) -> Result<(PathBuf, Arc<dyn ReadFile>)> {
        let path = self.path(handle)?;
        let name = path.display().to_string();
        let object = part::open(&*self.fs, &path, &name)?;
        Ok((path, part::checked(object, handle, &name)?))
    }
}

const DISPOSED: &str = "the snapshot was being disposed of";

/// A metadata file that was read.
pub(crate) struct Document {
    pub(crate) metadata: Metadata,
    pub(crate) bytes: u64,
    pub(crate) digest: u64,
}

/// Reads a metadata file.
///
/// # Errors
/// `NotFound`; those of [`decode`] with the file's name.
pub(crate) fn read_metadata_file(fs: &dyn Fs, file: &Path) -> Result<Document> {
    let opened = fs.open(file)?;
    let read = read_whole(&*opened, METADATA_BYTES_MAX).and_then(|bytes| {
        let metadata = decode(&bytes)?;
        Ok((metadata, checksum::hash(&bytes)))
    });
    let (metadata, digest) = read.map_err(|e| e.recode_malformed(Code::SnapshotCorrupt).in_file(file))?;
    Ok(Document {
        metadata,
        bytes: opened.len(),
        digest,
    })
}

/// What a directory without `_metadata` is.
pub(crate) fn no_metadata(fs: &dyn Fs, directory: &Path) -> Error {
    // If the question cannot be answered, the shorter sentence is true all the same.
    let disposed = fs.facts(&layout::document(directory, layout::DISPOSING_NAME));
    let sentence = match disposed {
        Ok(Some(_)) => DISPOSED,
        _ => "the directory holds no _metadata",
    };
    Error::new(Code::NotASnapshot, sentence).in_file(directory)
}

impl OpenFiles for SnapshotDir {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        Ok(self.locate(handle)?.1)
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        // Never a link: the snapshot may be foreign, and a link would share its bytes.
        let (path, file) = self.locate(handle)?;
        part::fetch(handle, &*file, fs, to, || {
            let same = self.fs.namespace().is_some() && self.fs.namespace() == fs.namespace();
            if same {
                fs.copy(&path, to)
            } else {
                copy_out(&*file, fs, to)
            }
        })
    }

    fn describe(&self, handle: &FileHandle) -> String {
        self.path(handle)
            .map_or_else(|_| handle.object.to_string(), |path| path.display().to_string())
    }
}
