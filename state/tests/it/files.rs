//! A snapshot storage in memory that counts, and that can damage what it holds.

use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{FileHandle, LocalFile, ObjectName, OpenFiles, PutFiles, Scope};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Debug, Default)]
pub(crate) struct TestFiles {
    objects: Mutex<BTreeMap<ObjectName, Arc<Vec<u8>>>>,
    put: AtomicU64,
    read: Arc<AtomicU64>,
}

impl TestFiles {
    pub(crate) fn put_count(&self) -> u64 {
        self.put.load(Ordering::Relaxed)
    }

    pub(crate) fn flip(&self, object: &ObjectName, bit: usize) {
        let mut objects = self.objects.lock().unwrap();
        let bytes = Arc::make_mut(objects.get_mut(object).unwrap());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// Bytes that were read since the last call.
    pub(crate) fn take_bytes_read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self, object: &ObjectName) -> Vec<u8> {
        self.objects.lock().unwrap()[object].to_vec()
    }

    pub(crate) fn replace(&self, object: &ObjectName, bytes: Vec<u8>) {
        let mut objects = self.objects.lock().unwrap();
        *objects.get_mut(object).unwrap() = Arc::new(bytes);
    }

    pub(crate) fn remove(&self, object: &ObjectName) {
        self.objects.lock().unwrap().remove(object).unwrap();
    }

    fn get(&self, handle: &FileHandle) -> Result<Arc<Vec<u8>>> {
        let objects = self.objects.lock().unwrap();
        objects.get(&handle.object).cloned().ok_or_else(|| {
            Error::new(Code::SnapshotIncomplete, "a file is missing").in_file(handle.object.as_str())
        })
    }
}

impl PutFiles for TestFiles {
    fn put_file(&self, scope: Scope, file: LocalFile<'_>) -> Result<FileHandle> {
        let LocalFile {
            fs,
            path,
            content,
            digest,
            bytes,
        } = file;
        let copy = fs.read(path, bytes)?;
        assert_eq!(copy.len() as u64, bytes);
        let n = self.put.fetch_add(1, Ordering::Relaxed);
        let object = ObjectName::new(format!("object-{n}"))?;
        self.objects
            .lock()
            .unwrap()
            .insert(object.clone(), Arc::new(copy));
        let (anchor, folder) = scope.place();
        Ok(FileHandle {
            content,
            anchor,
            folder,
            object,
            offset: 0,
            length: bytes,
            digest,
        })
    }
}

impl OpenFiles for TestFiles {
    fn open(&self, handle: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(TestFile(self.get(handle)?, self.read.clone())))
    }

    fn fetch(&self, handle: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        fs.create(to)?.append(&self.get(handle)?)
    }
}

#[derive(Debug)]
struct TestFile(Arc<Vec<u8>>, Arc<AtomicU64>);

impl ReadFile for TestFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let start = offset as usize;
        let found = start
            .checked_add(buffer.len())
            .and_then(|end| self.0.get(start..end));
        buffer.copy_from_slice(
            found.ok_or_else(|| Error::new(Code::Malformed, "reads past the end").at(offset))?,
        );
        Ok(())
    }
}
