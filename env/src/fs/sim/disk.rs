//! The simulated disk: the live image, the log of operations on it, and the disk as it was after any of them.

use super::{
    content::Content,
    durable::{DataOp, Durable, NameOp, Op},
    tree::{Inode, Node, Slot, Tree},
};
use crate::fs::FsOp;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Operations between two remembered states of the disk: bounds the replay for one crash image.
const REMEMBER_EVERY: u64 = 64;
/// Without a history: operations between two sweeps of inodes that nothing can reach.
const PRUNE_EVERY: u64 = 1024;

#[derive(Debug)]
pub(super) struct Disk {
    /// What running processes see.
    pub(super) live: Tree,
    links: BTreeMap<Inode, u64>,
    next_inode: Inode,
    /// Durable state before the first operation of `log`; `log` starts after operation `start`.
    base: Durable,
    start: u64,
    log: Vec<(Op, String)>,
    history: bool,
    remembered: BTreeMap<u64, Durable>,
    /// Holder of each held lock: lock number and process.
    pub(super) locks: BTreeMap<Inode, (u64, u32)>,
    pub(super) last_lock: u64,
    pub(super) last_pid: u32,
}

impl Disk {
    /// Everything in `tree` is durable.
    pub(super) fn of(tree: Tree, history: bool) -> Self {
        let mut links = BTreeMap::new();
        for dir in tree.reachable() {
            for inode in tree.names(dir).into_iter().flat_map(BTreeMap::values) {
                *links.entry(*inode).or_default() += 1;
            }
        }
        Disk {
            next_inode: tree.last_inode() + 1,
            base: Durable::of(tree.clone()),
            live: tree,
            links,
            start: 0,
            log: Vec::new(),
            history,
            remembered: BTreeMap::new(),
            locks: BTreeMap::new(),
            last_lock: 0,
            last_pid: 1,
        }
    }

    pub(super) fn op_count(&self) -> u64 {
        self.start + self.log.len() as u64
    }

    /// Every number of operations whose state [`Disk::durable_at`] knows.
    pub(super) fn moments(&self) -> std::ops::RangeInclusive<u64> {
        self.start..=self.op_count()
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.log.iter().map(|(_, text)| text.clone()).collect()
    }

    /// The durable state after `at_op` operations.
    pub(super) fn durable_at(&mut self, at_op: u64) -> Durable {
        assert!(
            self.moments().contains(&at_op),
            "operation {at_op} is not in the history {}..={}",
            self.start,
            self.op_count()
        );
        let near = self.remembered.range(..=at_op).next_back();
        let (mut at, mut durable) = match near {
            Some((at, durable)) => (*at, durable.clone()),
            None => (self.start, self.base.clone()),
        };
        while at < at_op {
            durable.apply(&self.log[(at - self.start) as usize].0);
            at += 1;
            if at.is_multiple_of(REMEMBER_EVERY) {
                self.remembered.entry(at).or_insert_with(|| durable.clone());
            }
        }
        durable
    }

    fn record(&mut self, op: Op, text: impl FnOnce() -> String) {
        if self.history {
            self.log.push((op, text()));
            return;
        }
        self.base.apply(&op);
        self.start += 1;
        if self.start.is_multiple_of(PRUNE_EVERY) {
            self.base.prune(&self.live.reachable());
        }
    }

    fn name(&mut self, op: NameOp, text: impl FnOnce() -> String) {
        op.apply(&mut self.live);
        self.record(Op::Name(op), text);
    }

    /// Creates a file or directory.
    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<Inode> {
        let slot = self.free_slot(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let what = if matches!(node, Node::Dir(_)) {
            FsOp::CreateDir
        } else {
            FsOp::Create
        };
        self.live.put_node(inode, node.clone());
        self.live.set(&slot, Some(inode));
        self.links.insert(inode, 1);
        self.record(Op::Create(slot, inode, node), || one(what, path));
        Ok(inode)
    }

    fn free_slot(&self, path: &Path) -> io::Result<Slot> {
        let slot = self.live.slot(path)?;
        match self.live.at(&slot) {
            None => Ok(slot),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn taken_slot(&self, path: &Path) -> io::Result<(Slot, Inode)> {
        let slot = self.live.slot(path)?;
        let inode = self.live.at(&slot).ok_or(io::ErrorKind::NotFound)?;
        Ok((slot, inode))
    }

    fn is_dir(&self, inode: Inode) -> bool {
        self.live.names(inode).is_some()
    }

    fn unlink(&mut self, inode: Inode) {
        let links = self.links.entry(inode).or_insert(1);
        *links -= 1;
        if *links == 0 {
            self.links.remove(&inode);
            self.live.remove_node(inode);
        }
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (_, inode) = self.taken_slot(from)?;
        if self.is_dir(inode) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let slot = self.free_slot(to)?;
        *self.links.entry(inode).or_default() += 1;
        self.name(NameOp::Add(slot, inode), || two(FsOp::Link, from, to));
        Ok(())
    }

    pub(super) fn rename(&mut self, from_path: &Path, to_path: &Path) -> io::Result<()> {
        // Both directories are looked up before both names, as kernels do.
        let (from, to) = (self.live.slot(from_path)?, self.live.slot(to_path)?);
        let inode = self.live.at(&from).ok_or(io::ErrorKind::NotFound)?;
        let is_dir = self.is_dir(inode);
        if is_dir && self.below(inode, to.dir) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let replaced = self.live.at(&to);
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (is_dir, self.live.names(replaced)) {
                (false, Some(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (true, None) => return Err(io::ErrorKind::NotADirectory.into()),
                (true, Some(names)) if !names.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        self.name(
            NameOp::Move {
                from,
                to,
                inode,
                is_dir,
            },
            || two(FsOp::Rename, from_path, to_path),
        );
        if let Some(replaced) = replaced {
            self.unlink(replaced);
        }
        Ok(())
    }

    /// Whether `inode` is `top` or lies below it.
    fn below(&self, top: Inode, inode: Inode) -> bool {
        top == inode
            || self
                .live
                .names(top)
                .is_some_and(|names| names.values().any(|next| self.below(*next, inode)))
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (slot, inode) = self.taken_slot(path)?;
        if self.is_dir(inode) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.name(NameOp::Remove(slot, None), || one(FsOp::RemoveFile, path));
        self.unlink(inode);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (slot, inode) = self.taken_slot(path)?;
        match self.live.names(inode) {
            None => return Err(io::ErrorKind::NotADirectory.into()),
            Some(names) if !names.is_empty() => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => {}
        }
        self.name(NameOp::Remove(slot, Some(inode)), || one(FsOp::RemoveDir, path));
        self.unlink(inode);
        Ok(())
    }

    /// Appends to a file, which may have lost its last name meanwhile: then nobody will ever read the bytes.
    pub(super) fn append(&mut self, inode: Inode, bytes: Arc<[u8]>, path: &Path) {
        if let Some(content) = self.live.content_mut(inode).filter(|_| !bytes.is_empty()) {
            content.push(bytes.clone());
            let length = bytes.len();
            let op = DataOp::Append {
                bytes,
                dropped: false,
            };
            self.record(Op::Data(inode, op), || {
                format!("{} {} +{length}", FsOp::Write, path.display())
            });
        }
    }

    pub(super) fn truncate(&mut self, inode: Inode, len: u64, path: &Path) {
        if let Some(content) = self.live.content_mut(inode) {
            content.truncate(len);
            let op = DataOp::Truncate(len);
            self.record(Op::Data(inode, op), || {
                format!("{} {} ={len}", FsOp::Truncate, path.display())
            });
        }
    }

    pub(super) fn sync(&mut self, inode: Inode, succeeds: bool, path: &Path) {
        let op = if succeeds {
            Op::Sync(inode)
        } else {
            Op::FailSync(inode)
        };
        let how = if succeeds { "" } else { " (failed)" };
        self.record(op, || format!("{}{how}", one(FsOp::Sync, path)));
    }

    pub(super) fn sync_dir(&mut self, dir: Inode, path: &Path) {
        self.record(Op::SyncDir(dir), || one(FsOp::SyncDir, path));
    }

    pub(super) fn corrupt(&mut self, inode: Inode, bytes: Vec<u8>, path: &Path) {
        let content = Content::of(bytes);
        self.live.put_node(inode, Node::File(content.clone()));
        self.record(Op::Corrupt(inode, content), || {
            format!("corrupt {}", path.display())
        });
    }

    /// Makes everything durable and forgets the history.
    pub(super) fn settle(&mut self) {
        self.base = Durable::of(self.live.clone());
        self.base.prune(&self.live.reachable());
        self.start = 0;
        self.log.clear();
        self.remembered.clear();
    }

    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        self.live.visit(&mut |path, node| {
            if let Node::File(content) = node {
                files.insert(path.to_path_buf(), content.tail(0));
            }
        });
        files
    }
}

fn one(op: FsOp, path: &Path) -> String {
    format!("{op} {}", path.display())
}

fn two(op: FsOp, from: &Path, to: &Path) -> String {
    format!("{op} {} → {}", from.display(), to.display())
}
