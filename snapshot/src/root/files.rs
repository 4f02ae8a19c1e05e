//! Putting files into a pending checkpoint and reading those of a completed one.

use super::{Shared, source::Outside};
use crate::{
    Anchor, Birth, CheckpointId, FileHandle, Folder, ObjectName, ObjectPath, OpenFiles, PutFiles, Scope,
    part, storage::take::Offered,
};
use keybed_env::{Fs, ReadFile};
use keybed_format::Result;
use std::{path::Path, sync::Arc};

#[derive(Debug)]
pub(super) struct Putting {
    shared: Arc<Shared>,
    checkpoint: CheckpointId,
}

impl Putting {
    pub(super) fn new(shared: Arc<Shared>, checkpoint: CheckpointId) -> Self {
        Putting { shared, checkpoint }
    }
}

impl PutFiles for Putting {
    fn put_file(
        &self,
        scope: Scope,
        content: u128,
        local: &dyn Fs,
        path: &Path,
        digest: u64,
        bytes: u64,
    ) -> Result<FileHandle> {
        let offered = Offered {
            fs: local,
            path,
            content,
            digest,
            bytes,
        };
        offered.demand_announced()?;
        let birth = Birth {
            generation: self.shared.generation,
            checkpoint: self.checkpoint,
        };
        let object = ObjectName::of(birth, self.shared.ids.lock().fresh()?);
        let (anchor, folder) = match scope {
            Scope::Shared => (Anchor::Root, Folder::Shared),
            Scope::Exclusive => (Anchor::SelfDir, Folder::Private),
        };
        let handle = FileHandle {
            content,
            anchor,
            folder,
            object,
            offset: 0,
            length: bytes,
            digest,
        };
        let target = ObjectPath::of_handle(self.checkpoint, &handle)?;
        // Registered before the first byte, so that a crash of this call leaves nothing unknown.
        self.shared
            .registry
            .lock()
            .upload_begins(self.checkpoint, target.clone())?;
        let put = self.shared.storage.put_file(&target, local, path, bytes);
        self.shared.registry.lock().upload_ends(&target);
        put.map(|()| handle)
    }

    fn adopt(&self, handle: &FileHandle) -> Result<FileHandle> {
        match handle.anchor {
            Anchor::SelfDir | Anchor::Root => Ok(handle.clone()),
            Anchor::External(id) => self.shared.source.demand(id).map(|_| handle.clone()),
        }
    }
}

/// Reads the files of one completed checkpoint, which is not deleted meanwhile.
#[derive(Debug)]
pub struct Reading {
    shared: Arc<Shared>,
    checkpoint: CheckpointId,
}

impl Reading {
    pub(super) fn new(shared: Arc<Shared>, checkpoint: CheckpointId) -> Self {
        shared.registry.lock().reader_came(checkpoint);
        Reading { shared, checkpoint }
    }

    /// A file of another snapshot that the checkpoint refers to.
    fn outside(&self, handle: &FileHandle) -> Result<Option<Outside<'_>>> {
        match handle.anchor {
            Anchor::External(_) => self.shared.source.open(handle).map(Some),
            Anchor::SelfDir | Anchor::Root => Ok(None),
        }
    }

    fn locate(&self, handle: &FileHandle) -> Result<(ObjectPath, Arc<dyn ReadFile>)> {
        let path = ObjectPath::of_handle(self.checkpoint, handle)?;
        let name = self.shared.storage.describe(&path);
        let file = self
            .shared
            .storage
            .open(&path)
            .map_err(|e| part::missing(e, &name))?;
        Ok((path, part::checked(file, handle, &name)?))
    }
}

impl OpenFiles for Reading {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        match self.outside(handle)? {
            Some(outside) => Ok(outside.file),
            None => Ok(self.locate(handle)?.1),
        }
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        if let Some(outside) = self.outside(handle)? {
            return outside.fetch(handle, fs, to);
        }
        let (path, file) = self.locate(handle)?;
        part::fetch(handle, &*file, fs, to, || {
            self.shared.storage.fetch(&path, fs, to)
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.shared.registry.lock().reader_left(self.checkpoint);
    }
}
