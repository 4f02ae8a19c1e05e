//! Files of other snapshots: the declared anchors, and how a reference is resolved below one of them.
//!
//! ```text
//!   External(id) ─▶ row: url, job, root, checkpoint, digest of its `_metadata`
//!                    │ directory given by hand, else the url
//!                    ▼ its `_metadata` has that digest, or nothing there is read: SnapshotIncomplete
//!             <directory>/<object>                    folder 1, the snapshot's own directory
//!             <directory>/../shared/<object>          folder 2 and 3, the job root around it
//! ```
//! A reference never leaves its anchor: object names have no separators, folders are real directories, files are
//! regular files. Nothing is written.

use crate::{Anchor, ExternalAnchor, FileHandle, Folder, SnapshotDir, metadata::codec::URL_BYTES_MAX};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// How an address of the local file system begins; the absolute path follows as it is.
const FILE_SCHEME: &str = "file://";

/// Where the user says that referenced snapshots lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors {
    /// By id in the externals of the snapshot that is opened; goes before the address in the metadata.
    pub given: BTreeMap<u32, PathBuf>,
    /// Addresses in metadata are followed only below one of these; `None` follows them anywhere.
    pub roots: Option<Vec<PathBuf>>,
}

impl From<BTreeMap<u32, PathBuf>> for Anchors {
    fn from(given: BTreeMap<u32, PathBuf>) -> Self {
        Anchors { given, roots: None }
    }
}

/// The absolute form of a path as the file system has it, without `.` and `..`; nothing is looked up.
pub(crate) fn absolute(fs: &dyn Fs, path: &Path) -> Result<PathBuf> {
    let path = fs.absolute(path)?;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Ok(clean)
}

/// The address of an absolute path.
///
/// # Errors
/// `InvalidArgument` if it is no text: it could not be written down.
pub(crate) fn url_of(path: &Path) -> Result<String> {
    match path.to_str().map(|text| format!("{FILE_SCHEME}{text}")) {
        Some(url) if url.len() <= URL_BYTES_MAX => Ok(url),
        _ => Err(
            Error::invalid("the path of a snapshot that is to be referenced is too long, or no UTF-8")
                .in_file(path),
        ),
    }
}

/// The path of an address.
fn path_of(url: &str) -> Result<PathBuf> {
    let Some(path) = url.strip_prefix(FILE_SCHEME).map(Path::new) else {
        return Err(Error::new(
            Code::SnapshotIncomplete,
            "a referenced snapshot has an address of another kind: say where it lies",
        ));
    };
    let plain = |c: Component<'_>| {
        matches!(
            c,
            Component::RootDir | Component::Normal(_) | Component::Prefix(_)
        )
    };
    if path.is_absolute() && path.components().all(plain) && !url.contains("/./") {
        Ok(path.to_path_buf())
    } else {
        Err(Error::new(
            Code::SnapshotCorrupt,
            "the address of a referenced snapshot is no plain absolute path",
        ))
    }
}

/// The anchors of one snapshot or root.
#[derive(Debug)]
pub(crate) struct Externals {
    fs: Arc<dyn Fs>,
    rows: BTreeMap<u32, ExternalAnchor>,
    anchors: Anchors,
    /// Those whose identity was checked. Locked for a look only.
    checked: Mutex<BTreeMap<u32, Arc<SnapshotDir>>>,
}

impl Externals {
    pub(crate) fn new(fs: Arc<dyn Fs>, rows: &[ExternalAnchor], anchors: Anchors) -> Self {
        Externals {
            fs,
            rows: rows.iter().map(|row| (row.id, row.clone())).collect(),
            anchors,
            checked: Mutex::default(),
        }
    }

    /// The row of an id, with the address that is really used.
    pub(crate) fn row(&self, id: u32) -> Option<ExternalAnchor> {
        let mut row = self.rows.get(&id)?.clone();
        if let Some(url) = self
            .anchors
            .given
            .get(&id)
            .and_then(|path| url_of(&absolute(&*self.fs, path).ok()?).ok())
        {
            row.url = url;
        }
        Some(row)
    }

    /// Where a referenced file lies.
    ///
    /// # Errors
    /// `SnapshotIncomplete` naming the file if its snapshot is not where it should be or is another one;
    /// `SnapshotCorrupt` if the reference cannot be meant.
    pub(crate) fn path(&self, handle: &FileHandle) -> Result<PathBuf> {
        let Anchor::External(id) = handle.anchor else {
            return Err(Error::invalid("the file is not one of another snapshot"));
        };
        let row = self.rows.get(&id).ok_or_else(|| {
            Error::new(
                Code::SnapshotCorrupt,
                "a file refers to an anchor that is not declared",
            )
            .with("anchor", id)
            .with("object", &handle.object)
        })?;
        let name = |e: Error| e.with("anchor", id).with("object", &handle.object);
        let directory = self.directory(row).map_err(name)?;
        let opened = self.demand(row, &directory).map_err(|e| match e.code() {
            Code::SnapshotCorrupt | Code::UnsupportedFormatVersion => name(e),
            Code::SnapshotIncomplete | Code::NotASnapshot | Code::NotFound => {
                let file = guess(&directory, handle);
                let missing = file.display().to_string();
                let gone = Error::new(Code::SnapshotIncomplete, e.message().to_owned()).in_file(file);
                let gone = e
                    .fields()
                    .iter()
                    .fold(gone, |gone, (name, text)| gone.with(name, text));
                name(
                    gone.with("missing", missing)
                        .with("directory", directory.display()),
                )
            }
            _ => name(e),
        })?;
        opened.path(&inside(handle))
    }

    fn directory(&self, row: &ExternalAnchor) -> Result<PathBuf> {
        if let Some(given) = self.anchors.given.get(&row.id) {
            return Ok(given.clone());
        }
        let path = path_of(&row.url).map_err(|e| e.with("url", row.url.escape_debug()))?;
        let outside = |roots: &Vec<PathBuf>| !roots.iter().any(|root| path.starts_with(root));
        if self.anchors.roots.as_ref().is_some_and(outside) {
            return Err(Error::new(
                Code::SnapshotIncomplete,
                "a referenced snapshot lies outside of the configured roots: say by hand that it is meant",
            )
            .in_file(path));
        }
        Ok(path)
    }

    /// Opens the snapshot of a row, if it is the one that was meant.
    fn demand(&self, row: &ExternalAnchor, directory: &Path) -> Result<Arc<SnapshotDir>> {
        if let Some(opened) = self.checked.lock().get(&row.id) {
            return Ok(opened.clone());
        }
        let opened = SnapshotDir::open(self.fs.clone(), directory)?;
        let (metadata, digest) = (opened.metadata(), opened.metadata_digest());
        let found = (metadata.job, metadata.root, metadata.checkpoint, digest);
        if found != (row.job, row.root, row.checkpoint, row.digest) {
            let expected = format!(
                "{} of job {}, digest {:016x}",
                row.checkpoint, row.job, row.digest
            );
            let found = format!(
                "{} of job {}, digest {digest:016x}",
                metadata.checkpoint, metadata.job
            );
            return Err(Error::new(
                Code::SnapshotIncomplete,
                "another snapshot lies where the referenced one was",
            )
            .expected_found(expected, found));
        }
        opened.check_root()?;
        let opened = Arc::new(opened);
        self.checked.lock().insert(row.id, opened.clone());
        Ok(opened)
    }
}

/// The handle as its own snapshot would write it.
pub(crate) fn inside(handle: &FileHandle) -> FileHandle {
    FileHandle {
        anchor: match handle.folder {
            Folder::Private => Anchor::SelfDir,
            Folder::Shared | Folder::TaskOwned => Anchor::Root,
        },
        ..handle.clone()
    }
}

/// Where the file would be, for error texts.
fn guess(directory: &Path, handle: &FileHandle) -> PathBuf {
    let root = SnapshotDir::root_around(directory);
    let folder = match handle.folder {
        Folder::Private => directory.to_path_buf(),
        Folder::Shared => root.join("shared"),
        Folder::TaskOwned => root.join("taskowned"),
    };
    folder.join(handle.object.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::OsFs;

    #[test]
    fn addresses_are_plain_absolute_paths() {
        for path in ["/sp/a b", "/Übung/x"] {
            assert_eq!(
                path_of(&url_of(Path::new(path)).unwrap()).unwrap(),
                Path::new(path)
            );
        }
        for bad in [
            "file://",
            "file://x",
            "file:///a/../b",
            "file:///a/./b",
            "file://a/b",
        ] {
            assert_eq!(path_of(bad).unwrap_err().code(), Code::SnapshotCorrupt, "{bad}");
        }
        assert_eq!(path_of("s3://a/b").unwrap_err().code(), Code::SnapshotIncomplete);
        let clean = |path: &str| absolute(&OsFs, Path::new(path)).unwrap();
        assert_eq!(clean("/a/b/../c/./d"), Path::new("/a/c/d"));
    }
}
