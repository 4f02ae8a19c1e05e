//! Putting files into a pending checkpoint and reading those of a completed one.

use super::{Shared, source::Outside};
use crate::{
    Anchor, Birth, CheckpointId, FileHandle, ForeignSnapshot, LocalFile, ObjectName, ObjectPath, OpenFiles,
    PutFiles, Scope, part,
};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Result};
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
    fn put_file(&self, scope: Scope, offered: LocalFile<'_>) -> Result<FileHandle> {
        offered.demand_announced()?;
        let handle = self.new_handle(scope, offered.names())?;
        let target = ObjectPath::of_handle(self.checkpoint, &handle)?;
        // Registered before the first byte, so that a crash of this call leaves nothing unknown.
        self.shared
            .registry
            .lock()
            .upload_begins(self.checkpoint, target.clone())?;
        let put = self
            .shared
            .storage
            .put_file(&target, offered.fs, offered.path, offered.bytes);
        self.shared.registry.lock().upload_ends(&target);
        put.map(|()| handle)
    }

    fn adopt(&self, handle: &FileHandle) -> Result<FileHandle> {
        let Anchor::External(anchor) = handle.anchor else {
            return Ok(handle.clone());
        };
        let source = &self.shared.source;
        source.demand(anchor)?;
        if !source.links || handle.offset != 0 {
            return source.open(handle).map(|_| handle.clone());
        }
        // One at a time, I/O included: so that of several subtasks that see a file the first links it, and once.
        let mut adopted = source.adopted.lock();
        if let Some(own) = adopted.get(handle) {
            let path = ObjectPath::of_handle(self.checkpoint, own)?;
            if self.shared.registry.lock().named_again(self.checkpoint, &path)? {
                return Ok(own.clone());
            }
        }
        let own = self.link(handle)?;
        if own.anchor == Anchor::Root {
            adopted.insert(handle.clone(), own.clone());
        }
        Ok(own)
    }
}

impl Putting {
    /// Gives a file of a claimed snapshot a name in `shared/`; its own handle where links are impossible.
    fn link(&self, handle: &FileHandle) -> Result<FileHandle> {
        let outside = self.shared.source.open(handle)?;
        let offered = LocalFile {
            fs: outside.fs(),
            path: outside.path(),
            content: handle.content,
            digest: handle.digest,
            bytes: handle.length,
        };
        offered
            .demand_announced()
            .map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))?;
        let own = self.new_handle(Scope::Shared, offered.names())?;
        let target = ObjectPath::of_handle(self.checkpoint, &own)?;
        self.shared
            .registry
            .lock()
            .upload_begins(self.checkpoint, target.clone())?;
        let storage = &self.shared.storage;
        let linked = storage.link_file(&target, offered.fs, offered.path, offered.bytes);
        let mut registry = self.shared.registry.lock();
        registry.upload_ends(&target);
        if linked? {
            return Ok(own);
        }
        registry.deleted(&target);
        Ok(handle.clone())
    }

    /// A handle of a new object.
    fn new_handle(&self, scope: Scope, (content, digest, length): (u128, u64, u64)) -> Result<FileHandle> {
        let birth = Birth {
            generation: self.shared.generation,
            checkpoint: self.checkpoint,
        };
        let object = ObjectName::of(birth, self.shared.ids.lock().fresh()?);
        let (anchor, folder) = scope.place();
        Ok(FileHandle {
            content,
            anchor,
            folder,
            object,
            offset: 0,
            length,
            digest,
        })
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

/// Reads the snapshot that the job started from, which is not deleted meanwhile. Opens files by translated handles.
#[derive(Debug)]
pub struct SourceReading {
    shared: Arc<Shared>,
    snapshot: ForeignSnapshot,
}

impl SourceReading {
    pub(super) fn open(shared: Arc<Shared>) -> Result<Option<Self>> {
        let Some(source) = shared.source.snapshot.clone() else {
            return Ok(None);
        };
        shared.registry.lock().source_reader_came();
        match source.reopen() {
            Ok(snapshot) => Ok(Some(SourceReading { shared, snapshot })),
            Err(error) => {
                shared.registry.lock().source_reader_left();
                Err(error)
            }
        }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &ForeignSnapshot {
        &self.snapshot
    }
}

impl OpenFiles for SourceReading {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        self.snapshot.open(handle)
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        self.snapshot.fetch(handle, fs, to)
    }

    fn describe(&self, handle: &FileHandle) -> String {
        self.snapshot.describe(handle)
    }
}

impl Drop for SourceReading {
    fn drop(&mut self) {
        self.shared.registry.lock().source_reader_left();
    }
}
