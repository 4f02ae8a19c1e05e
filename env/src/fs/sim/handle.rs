//! Open files and held locks of a simulated process.

use super::{Process, SimFs, content::Content, disk::Disk, tree::Inode};
use crate::fs::{FileLock, ReadFile, WriteFile};
use keybed_format::Result;
use parking_lot::Mutex;
use std::{path::PathBuf, sync::Arc};

#[derive(Debug)]
pub(super) struct SimReadFile {
    pub(super) content: Content,
    pub(super) path: PathBuf,
    pub(super) process: Arc<Process>,
}

impl ReadFile for SimReadFile {
    fn len(&self) -> u64 {
        self.content.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.process.check("read", &self.path)?;
        if self.content.read(buffer, offset) {
            return Ok(());
        }
        Err(crate::fs::ends_too_early(
            &self.path,
            buffer.len(),
            offset,
            self.content.len(),
        ))
    }
}

#[derive(Debug)]
pub(super) struct SimWriteFile {
    pub(super) fs: SimFs,
    pub(super) inode: Inode,
    pub(super) len: u64,
    pub(super) path: PathBuf,
}

impl WriteFile for SimWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result {
        self.fs.call("write", &self.path, |disk| {
            disk.append(self.inode, bytes.into(), &self.path);
            Ok(())
        })?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result {
        self.fs.call("sync", &self.path, |disk| {
            disk.sync(self.inode, true, &self.path);
            Ok(())
        })
    }

    fn fail_sync(&mut self) {
        self.fs.disk.lock().sync(self.inode, false, &self.path);
    }
}

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) inode: Inode,
    pub(super) lock: u64,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let locks = &mut self.disk.lock().locks;
        if locks.get(&self.inode).is_some_and(|(lock, _)| *lock == self.lock) {
            locks.remove(&self.inode);
        }
    }
}
