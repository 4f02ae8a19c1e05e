//! A file system in memory that knows what is durable.
//!
//! ```text
//!   process 1   process 2          every change ── log of operations 1 … n
//!        \        /                                        |
//!       live image (what everybody sees)        power loss after operation k
//!                                                          |
//!            durable after k: synced bytes, names of synced directories
//!            pending after k: may survive in part ── one of many images
//! ```
//! The model of a power loss. Bytes that a file's sync covered and names that their directory's sync covered stay.
//! Of the other changes of names any prefix survives, or any subset in which nothing lacks what it needs. Of the
//! other bytes any subset of 512-byte sectors survives; a sector may be torn, read as zeros or, after a
//! truncation, as before. A rename is atomic; across directories it is durable with the sync of its target's
//! directory. Syncing a file does not make its name durable, and syncing a directory not the directory's own name.
//! After a failed sync ([`WriteFile::fail_sync`], called by [`FaultFs`](super::FaultFs)) the bytes stay readable
//! and no later sync writes them.
//!
//! The death of a process alone ([`SimFs::kill`]) loses nothing but its locks.

mod content;
mod crash;
mod disk;
mod durable;
mod handle;
mod tree;

use super::{DirEntry, FileFacts, FileKind, FileLock, Fs, ReadFile, WriteFile};
use crate::Random;
use content::Content;
use disk::Disk;
use handle::{SimLock, SimReadFile, SimWriteFile};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tree::{Inode, Node, Tree};

/// One process's handle of a simulated disk; clones belong to the same process.
///
/// ```
/// use keybed_env::{Fs, Random, WriteFile, fs::SimFs};
/// use std::path::Path;
/// let fs = SimFs::new();
/// let mut file = fs.create(Path::new("a")).unwrap();
/// file.append(b"bytes").unwrap();
/// file.sync().unwrap();
/// assert!(fs.strict_image(fs.op_count()).tree().is_empty(), "the name was not made durable");
/// fs.sync_dir(Path::new(".")).unwrap();
/// assert_eq!(fs.crash_image(fs.op_count(), &mut Random::from_seed(1)).tree()[Path::new("a")], b"bytes");
/// ```
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    process: Arc<Process>,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    killed: AtomicBool,
}

impl Process {
    fn of(pid: u32) -> Arc<Self> {
        Arc::new(Process {
            pid,
            killed: AtomicBool::new(false),
        })
    }

    fn check(&self, what: &str, path: &Path) -> Result {
        // SeqCst everywhere: the flag is rare to change and must hold for every call that starts after `kill`.
        if self.killed.load(Ordering::SeqCst) {
            let gone = io::Error::other("the simulated process was killed");
            return Err(Error::io(what, path, gone));
        }
        Ok(())
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty disk that remembers every operation, so that images of any moment can be drawn.
    pub fn new() -> Self {
        Self::on(Disk::of(Tree::new(), true))
    }

    /// An empty disk for long runs: images can be drawn of the present only, and memory stays bounded by what is
    /// on the disk.
    pub fn without_history() -> Self {
        Self::on(Disk::of(Tree::new(), false))
    }

    fn on(disk: Disk) -> Self {
        let pid = disk.last_pid;
        SimFs {
            disk: Arc::new(Mutex::new(disk)),
            process: Process::of(pid),
        }
    }

    /// Another process on the same disk: it sees the same files and conflicts with held locks.
    #[must_use]
    pub fn process(&self) -> SimFs {
        let mut disk = self.disk.lock();
        disk.last_pid += 1;
        SimFs {
            disk: self.disk.clone(),
            process: Process::of(disk.last_pid),
        }
    }

    /// Id of this process, as lock files hold it.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Ends this process as `kill -9` does: its locks are free, the live image stays, and every further call
    /// through its handles, destructors included, fails without effect.
    pub fn kill(&self) {
        self.process.killed.store(true, Ordering::SeqCst);
        self.disk
            .lock()
            .locks
            .retain(|_, (_, pid)| *pid != self.process.pid);
    }

    /// Number of operations so far: everything that changes bytes, names or what is durable.
    pub fn op_count(&self) -> u64 {
        self.disk.lock().op_count()
    }

    /// The remembered operations in words; the k-th (from 0) leads from `op_count` k to k + 1.
    pub fn trace(&self) -> Vec<String> {
        self.disk.lock().trace()
    }

    /// Makes everything durable and starts counting operations anew; for the set-up of a scenario.
    pub fn settle(&self) {
        self.disk.lock().settle();
    }

    /// A disk as a power loss after operation `at_op` may leave it, drawn by `choice`. No locks, no history.
    ///
    /// # Panics
    /// If `at_op` lies outside of the remembered history.
    #[must_use]
    pub fn crash_image(&self, at_op: u64, choice: &mut Random) -> SimFs {
        let durable = self.disk.lock().durable_at(at_op);
        Self::on(Disk::of(crash::image(&durable, 0, 1, choice), true))
    }

    /// The disk that keeps only what is sure to survive a power loss after operation `at_op`.
    ///
    /// # Panics
    /// As [`SimFs::crash_image`].
    #[must_use]
    pub fn strict_image(&self, at_op: u64) -> SimFs {
        let durable = self.disk.lock().durable_at(at_op);
        Self::on(Disk::of(crash::strict(&durable), true))
    }

    /// Draws `draws` disks for each moment of the remembered history and shows every one that differs from the
    /// others of its moment to `visit`, with the number of operations before the power loss. Where at most
    /// log2(`draws`) changes of names are pending, every consistent subset of them is among the draws.
    ///
    /// Returns how many of them differ from all others of the whole history.
    pub fn each_crash_image(
        &self,
        draws: u32,
        choice: &mut Random,
        mut visit: impl FnMut(u64, &SimFs),
    ) -> u64 {
        let mut everywhere = HashSet::new();
        let moments = self.disk.lock().moments();
        for at_op in moments {
            let durable = self.disk.lock().durable_at(at_op);
            let mut here = HashSet::new();
            for draw in 0..draws {
                let tree = crash::image(&durable, draw, draws, choice);
                let hash = tree.hash();
                if here.insert(hash) {
                    everywhere.insert(hash);
                    visit(at_op, &Self::on(Disk::of(tree, true)));
                }
                if !durable.is_pending() {
                    break;
                }
            }
        }
        everywhere.len() as u64
    }

    /// The disk as another process finds it if all processes die after operation `at_op` and the power stays:
    /// nothing is lost. All of it is durable, there are no locks and no history.
    ///
    /// # Panics
    /// As [`SimFs::crash_image`].
    #[must_use]
    pub fn live_image_at(&self, at_op: u64) -> SimFs {
        let durable = self.disk.lock().durable_at(at_op);
        Self::on(Disk::of(crash::everything(&durable), true))
    }

    /// A disk of its own with everything that is visible now, all of it durable. No locks, no history.
    #[must_use]
    pub fn live_image(&self) -> SimFs {
        Self::on(Disk::of(self.disk.lock().live.clone(), true))
    }

    /// Equal for disks with equal names and bytes.
    pub fn image_hash(&self) -> u64 {
        let live = self.disk.lock().live.clone();
        live.hash()
    }

    /// Every file with its bytes; paths without a leading `/`.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.disk.lock().files()
    }

    /// Changes bytes behind everybody's back, in memory and on the medium. Handles opened before keep what they
    /// saw.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn corrupt(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) -> Result {
        let path = path.as_ref();
        let mut disk = self.disk.lock();
        let inode = disk.live.find(path).map_err(|e| Error::io("corrupt", path, e))?;
        let mut bytes = file_content(&disk, inode, "corrupt", path)?.tail(0);
        change(&mut bytes);
        disk.corrupt(inode, bytes, path);
        Ok(())
    }

    /// Runs one call under the disk's lock.
    fn call<T>(&self, what: &str, path: &Path, call: impl FnOnce(&mut Disk) -> io::Result<T>) -> Result<T> {
        self.process.check(what, path)?;
        let mut disk = self.disk.lock();
        call(&mut disk).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::new(Code::TargetExists, format!("{what}: the name is taken")).in_file(path)
            }
            _ => Error::io(what, path, e),
        })
    }

    fn writer(&self, inode: Inode, len: u64, path: &Path) -> Box<dyn WriteFile> {
        Box::new(SimWriteFile {
            fs: self.clone(),
            inode,
            len,
            path: path.into(),
        })
    }
}

fn file_content(disk: &Disk, inode: Inode, what: &str, path: &Path) -> Result<Content> {
    let content = disk.live.content(inode).cloned();
    content.ok_or_else(|| Error::new(Code::IoFailed, format!("{what}: not a regular file")).in_file(path))
}

impl SimFs {
    /// Takes a lock; `sign` replaces the text of the file.
    fn take_lock(&self, path: &Path, sign: bool) -> Result<Box<dyn FileLock>> {
        let lock = self.call("lock", path, |disk| {
            let inode = match disk.live.find(path) {
                Ok(inode) => inode,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    disk.create(path, Node::File(Content::default()))?
                }
                Err(e) => return Err(e),
            };
            let Some(len) = disk.live.content(inode).map(Content::len) else {
                return Err(io::ErrorKind::IsADirectory.into());
            };
            if let Some((_, holder)) = disk.locks.get(&inode) {
                return Ok(Err(*holder));
            }
            disk.last_lock += 1;
            let lock = disk.last_lock;
            disk.locks.insert(inode, (lock, self.process.pid));
            if sign && len > 0 {
                disk.truncate(inode, 0, path);
            }
            if sign {
                disk.append(inode, format!("{}\n", self.process.pid).into_bytes().into(), path);
            }
            Ok(Ok(SimLock {
                disk: self.disk.clone(),
                inode,
                lock,
            }))
        })?;
        match lock {
            Ok(lock) => Ok(Box::new(lock)),
            Err(holder) => Err(Error::new(Code::Locked, "another process uses the directory")
                .in_file(path)
                .with("pid", holder)),
        }
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.process.check("open", path)?;
        let disk = self.disk.lock();
        let inode = disk.live.find(path).map_err(|e| Error::io("open", path, e))?;
        let content = file_content(&disk, inode, "open", path)?;
        Ok(Arc::new(SimReadFile {
            content,
            path: path.into(),
            process: self.process.clone(),
        }))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        let inode = self.call("create", path, |disk| {
            disk.create(path, Node::File(Content::default()))
        })?;
        Ok(self.writer(inode, 0, path))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.process.check("open to append", path)?;
        let disk = self.disk.lock();
        let inode = disk
            .live
            .find(path)
            .map_err(|e| Error::io("open to append", path, e))?;
        let len = file_content(&disk, inode, "open to append", path)?.len();
        Ok(self.writer(inode, len, path))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result {
        self.process.check("truncate", path)?;
        let mut disk = self.disk.lock();
        let inode = disk.live.find(path).map_err(|e| Error::io("truncate", path, e))?;
        super::check_truncate(file_content(&disk, inode, "truncate", path)?.len(), len, path)?;
        disk.truncate(inode, len, path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        self.call("rename", from, |disk| disk.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> Result {
        self.call("link", to, |disk| disk.link(from, to))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result {
        let content = {
            self.process.check("copy", from)?;
            let disk = self.disk.lock();
            let inode = disk
                .live
                .find(from)
                .map_err(|e| Error::io("open to copy", from, e))?;
            file_content(&disk, inode, "open to copy", from)?
        };
        self.call("create copy", to, |disk| {
            let inode = disk.create(to, Node::File(Content::default()))?;
            disk.append(inode, content.tail(0).into(), to);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result {
        self.call("remove", path, |disk| disk.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> Result {
        self.call("remove directory", path, |disk| disk.remove_dir(path))
    }

    fn create_dir(&self, path: &Path) -> Result {
        self.call("create directory", path, |disk| {
            disk.create(path, Node::Dir(Arc::default())).map(drop)
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.call("list", dir, |disk| {
            let inode = disk.live.find(dir)?;
            let names = disk.live.names(inode).ok_or(io::ErrorKind::NotADirectory)?;
            let kind = |inode| {
                if disk.live.names(inode).is_some() {
                    FileKind::Dir
                } else {
                    FileKind::File
                }
            };
            Ok(names
                .iter()
                .map(|(name, inode)| DirEntry {
                    name: (**name).into(),
                    kind: kind(*inode),
                })
                .collect())
        })
    }

    fn facts(&self, path: &Path) -> Result<Option<FileFacts>> {
        self.call("stat", path, |disk| match disk.live.find(path) {
            Ok(inode) => Ok(disk.live.node(inode).map(|node| match node {
                Node::Dir(_) => FileFacts {
                    len: 0,
                    kind: FileKind::Dir,
                    modified_ms: None,
                },
                Node::File(content) => FileFacts {
                    len: content.len(),
                    kind: FileKind::File,
                    modified_ms: None,
                },
            })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        })
    }

    fn sync_dir(&self, dir: &Path) -> Result {
        self.call("sync directory", dir, |disk| {
            let inode = disk.live.find(dir)?;
            disk.live.names(inode).ok_or(io::ErrorKind::NotADirectory)?;
            disk.sync_dir(inode, dir);
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.take_lock(path, true)
    }

    fn hold(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.take_lock(path, false)
    }

    /// The disk's address, odd so that no small number of another file system equals it.
    fn namespace(&self) -> Option<u64> {
        Some(Arc::as_ptr(&self.disk) as u64 | 1)
    }
}
