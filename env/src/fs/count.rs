//! A file system that counts: how many calls of each kind, how many bytes read, written and made durable.
//!
//! Tests assert on it that a path costs what its design says (a miss reads no block, an incremental checkpoint
//! syncs only new tables). Counting costs one relaxed addition per call.

use super::{DirEntry, FileFacts, FileLock, Fs, FsOp, Map, ReadFile, WriteFile};
use keybed_format::Result;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Counts the calls into another file system; clones share their counters.
#[derive(Clone, Debug)]
pub struct CountFs {
    inner: Arc<dyn Fs>,
    counters: Arc<Counters>,
}

// Independent statistics: no reader concludes anything from the order of two counters, hence Relaxed throughout.
#[derive(Debug, Default)]
struct Counters {
    calls: [AtomicU64; FsOp::ALL.len()],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    bytes_synced: AtomicU64,
}

impl Counters {
    fn call(&self, op: FsOp) {
        self.calls[op as usize].fetch_add(1, Relaxed);
    }
}

/// What was counted up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsCounts {
    calls: [u64; FsOp::ALL.len()],
    /// Bytes returned by positioned reads; mapped reads are not seen.
    pub bytes_read: u64,
    /// Bytes appended to files and bytes of copied files.
    pub bytes_written: u64,
    /// Appended bytes that a successful sync of their file made durable.
    pub bytes_synced: u64,
}

impl FsCounts {
    /// Calls of one kind, failed ones included.
    pub fn of(&self, op: FsOp) -> u64 {
        self.calls[op as usize]
    }

    /// Calls of every kind.
    pub fn total(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// What was added since `earlier` was taken.
    #[must_use]
    pub fn since(&self, earlier: &FsCounts) -> FsCounts {
        let mut calls = self.calls;
        for (now, before) in calls.iter_mut().zip(earlier.calls) {
            *now -= before;
        }
        FsCounts {
            calls,
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
            bytes_synced: self.bytes_synced - earlier.bytes_synced,
        }
    }
}

impl CountFs {
    /// Counts calls into `inner`, from zero.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        CountFs {
            inner,
            counters: Arc::default(),
        }
    }

    /// The counters now.
    pub fn counts(&self) -> FsCounts {
        let c = &self.counters;
        FsCounts {
            calls: std::array::from_fn(|i| c.calls[i].load(Relaxed)),
            bytes_read: c.bytes_read.load(Relaxed),
            bytes_written: c.bytes_written.load(Relaxed),
            bytes_synced: c.bytes_synced.load(Relaxed),
        }
    }

    fn count(&self, op: FsOp) -> &dyn Fs {
        self.counters.call(op);
        &*self.inner
    }

    fn writer(&self, inner: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        let synced = inner.len();
        Box::new(CountWriteFile {
            inner,
            synced,
            counters: self.counters.clone(),
        })
    }
}

impl Fs for CountFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let inner = self.count(FsOp::Open).open(path)?;
        Ok(Arc::new(CountReadFile {
            inner,
            counters: self.counters.clone(),
        }))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        Ok(self.writer(self.count(FsOp::Create).create(path)?))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        Ok(self.writer(self.count(FsOp::OpenAppend).append(path)?))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result {
        self.count(FsOp::Truncate).truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        self.count(FsOp::Rename).rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> Result {
        self.count(FsOp::Link).link(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result {
        self.count(FsOp::Copy).copy(from, to)?;
        let bytes = self.inner.facts(to)?.map_or(0, |facts| facts.len);
        self.counters.bytes_written.fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result {
        self.count(FsOp::RemoveFile).remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result {
        self.count(FsOp::RemoveDir).remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> Result {
        self.count(FsOp::CreateDir).create_dir(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.count(FsOp::List).list(dir)
    }

    fn facts(&self, path: &Path) -> Result<Option<FileFacts>> {
        self.count(FsOp::Facts).facts(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result {
        self.count(FsOp::SyncDir).sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.count(FsOp::Lock).lock(path)
    }

    fn hold(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.count(FsOp::Lock).hold(path)
    }

    fn namespace(&self) -> Option<u64> {
        self.inner.namespace()
    }

    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.inner.absolute(path)
    }
}

#[derive(Debug)]
struct CountReadFile {
    inner: Arc<dyn ReadFile>,
    counters: Arc<Counters>,
}

impl ReadFile for CountReadFile {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.counters.call(FsOp::Read);
        self.inner.read_exact_at(buffer, offset)?;
        self.counters.bytes_read.fetch_add(buffer.len() as u64, Relaxed);
        Ok(())
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.counters.call(FsOp::WillRead);
        self.inner.will_read(offset, bytes);
    }

    fn map(&self) -> Result<Option<Map>> {
        self.counters.call(FsOp::Map);
        self.inner.map()
    }
}

#[derive(Debug)]
struct CountWriteFile {
    inner: Box<dyn WriteFile>,
    synced: u64,
    counters: Arc<Counters>,
}

impl WriteFile for CountWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result {
        self.counters.call(FsOp::Write);
        self.inner.append(bytes)?;
        self.counters.bytes_written.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn reserve(&mut self, bytes: u64) -> Result {
        self.counters.call(FsOp::Reserve);
        self.inner.reserve(bytes)
    }

    fn sync(&mut self) -> Result {
        self.counters.call(FsOp::Sync);
        self.inner.sync()?;
        let len = self.inner.len();
        self.counters.bytes_synced.fetch_add(len - self.synced, Relaxed);
        self.synced = len;
        Ok(())
    }

    fn fail_sync(&mut self) {
        self.inner.fail_sync();
    }
}
