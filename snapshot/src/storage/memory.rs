//! Checkpoints in memory: for tests and for jobs that need no durability. Clones share one root.

use super::{CheckpointStorage, Listed, ObjectPath, Place, copy_out, read_whole};
use crate::{CheckpointId, ObjectName};
use keybed_env::{
    Fs, ReadFile,
    fs::{FileKind, FileLock},
};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// Largest file that memory storage takes, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// A job root in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    root: Arc<Mutex<Root>>,
}

#[derive(Debug, Default)]
struct Root {
    objects: BTreeMap<ObjectPath, Arc<[u8]>>,
    checkpoints: BTreeSet<CheckpointId>,
    locked: bool,
}

impl MemoryStorage {
    /// An empty root.
    pub fn new() -> Self {
        Self::default()
    }

    fn insert(&self, path: &ObjectPath, bytes: Arc<[u8]>) -> Result {
        let mut root = self.root.lock();
        if let Place::Checkpoint(id) = path.place()
            && !root.checkpoints.contains(&id)
        {
            return Err(
                Error::new(Code::NotFound, "the checkpoint's folder is missing").in_file(self.describe(path))
            );
        }
        if root.objects.contains_key(path) {
            return Err(Error::new(Code::TargetExists, "the name is taken").in_file(self.describe(path)));
        }
        root.objects.insert(path.clone(), bytes);
        Ok(())
    }

    fn get(&self, path: &ObjectPath) -> Result<Arc<dyn ReadFile>> {
        match self.root.lock().objects.get(path) {
            Some(bytes) => Ok(Arc::new(MemoryFile(bytes.clone()))),
            None => Err(Error::new(Code::NotFound, "there is no such object").in_file(self.describe(path))),
        }
    }
}

impl CheckpointStorage for MemoryStorage {
    fn lock(&self) -> Result<Box<dyn FileLock>> {
        let mut root = self.root.lock();
        if std::mem::replace(&mut root.locked, true) {
            return Err(
                Error::new(Code::Locked, "another owner uses the root").with("pid", std::process::id())
            );
        }
        Ok(Box::new(MemoryLock {
            root: self.root.clone(),
        }))
    }

    fn create_checkpoint(&self, id: CheckpointId) -> Result {
        if self.root.lock().checkpoints.insert(id) {
            Ok(())
        } else {
            Err(Error::new(Code::TargetExists, "the checkpoint's folder exists").with("checkpoint", id))
        }
    }

    fn remove_checkpoint(&self, id: CheckpointId) -> Result<bool> {
        let mut root = self.root.lock();
        let empty = !root
            .objects
            .keys()
            .any(|path| path.place() == Place::Checkpoint(id));
        if empty {
            root.checkpoints.remove(&id);
        }
        Ok(empty)
    }

    fn put_new(&self, path: &ObjectPath, bytes: &[u8], _temporary: &ObjectName) -> Result {
        self.insert(path, bytes.into())
    }

    fn put_file(&self, path: &ObjectPath, local: &dyn Fs, from: &Path, bytes: u64) -> Result {
        let content = read_whole(&*local.open(from)?, FILE_BYTES_MAX)?;
        if content.len() as u64 != bytes {
            return Err(
                Error::new(Code::Malformed, "the file has another length than announced")
                    .in_file(from)
                    .expected_found(bytes, content.len()),
            );
        }
        self.insert(path, content.into())
    }

    fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ReadFile>> {
        self.get(path)
    }

    fn fetch(&self, path: &ObjectPath, fs: &dyn Fs, to: &Path) -> Result {
        copy_out(&*self.get(path)?, fs, to)
    }

    fn list(&self, place: Place) -> Result<Vec<Listed>> {
        let root = self.root.lock();
        let file = |path: &ObjectPath| Listed {
            name: path.name(),
            kind: FileKind::File,
        };
        let mut names: Vec<Listed> = root
            .objects
            .keys()
            .filter(|p| p.place() == place)
            .map(file)
            .collect();
        if place == Place::Root {
            let folder = |id: &CheckpointId| Listed {
                name: format!("chk-{id}"),
                kind: FileKind::Dir,
            };
            names.extend(root.checkpoints.iter().map(folder));
        }
        names.sort();
        Ok(names)
    }

    fn delete(&self, path: &ObjectPath) -> Result {
        self.root.lock().objects.remove(path);
        Ok(())
    }

    fn sync(&self, _place: Place) -> Result {
        Ok(())
    }

    fn describe(&self, path: &ObjectPath) -> String {
        format!("memory:{path}")
    }
}

#[derive(Debug)]
struct MemoryFile(Arc<[u8]>);

impl ReadFile for MemoryFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.0.get(start..).and_then(|rest| rest.get(..buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(Code::Malformed, "the object ends too early").at(offset)),
        }
    }
}

#[derive(Debug)]
struct MemoryLock {
    root: Arc<Mutex<Root>>,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.root.lock().locked = false;
    }
}
