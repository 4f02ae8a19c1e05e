//! What a simulated disk is sure to keep, and what it may keep, as operations go by.

use super::{
    content::Content,
    tree::{Inode, Node, Slot, Tree},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One logged operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A new file or directory.
    Create(Slot, Inode, Node),
    /// Any other change of names.
    Name(NameOp),
    /// A change of a file's bytes.
    Data(Inode, DataOp),
    /// A successful sync of a file.
    Sync(Inode),
    /// A failed one.
    FailSync(Inode),
    /// A successful sync of a directory.
    SyncDir(Inode),
    /// The medium itself changed, in memory and on the platter.
    Corrupt(Inode, Content),
}

/// A change of names; atomic.
#[derive(Clone, Debug)]
pub(super) enum NameOp {
    /// Create, mkdir, link.
    Add(Slot, Inode),
    /// Unlink, or rmdir with the directory removed.
    Remove(Slot, Option<Inode>),
    /// Rename.
    Move {
        from: Slot,
        to: Slot,
        inode: Inode,
        is_dir: bool,
    },
}

impl NameOp {
    /// The directory whose sync makes it durable.
    fn home(&self) -> Inode {
        match self {
            NameOp::Add(slot, _) | NameOp::Remove(slot, _) | NameOp::Move { to: slot, .. } => slot.dir,
        }
    }

    pub(super) fn slots(&self) -> [Option<&Slot>; 2] {
        match self {
            NameOp::Add(slot, _) | NameOp::Remove(slot, _) => [Some(slot), None],
            NameOp::Move { from, to, .. } => [Some(from), Some(to)],
        }
    }

    /// Whether this cannot be on disk without `earlier`: both change one slot; or this removes a directory in
    /// which `earlier` changed something; or this moves a directory (which journals order strictly, lest cycles
    /// arise).
    pub(super) fn needs(&self, earlier: &NameOp) -> bool {
        let theirs = || earlier.slots().into_iter().flatten();
        let same = self
            .slots()
            .into_iter()
            .flatten()
            .any(|mine| theirs().any(|other| other == mine));
        same || match self {
            NameOp::Remove(_, Some(dir)) => theirs().any(|slot| slot.dir == *dir),
            NameOp::Move { is_dir, .. } => *is_dir,
            _ => false,
        }
    }

    pub(super) fn apply(&self, tree: &mut Tree) {
        match self {
            NameOp::Add(slot, inode) => tree.set(slot, Some(*inode)),
            NameOp::Remove(slot, _) => tree.set(slot, None),
            NameOp::Move { from, to, inode, .. } => {
                tree.set(from, None);
                tree.set(to, Some(*inode));
            }
        }
    }
}

/// A change of a file's bytes that no sync has covered yet.
#[derive(Clone, Debug)]
pub(super) enum DataOp {
    Append {
        bytes: Arc<[u8]>,
        /// A failed sync has marked the bytes clean without writing them: no later sync writes them either.
        dropped: bool,
    },
    Truncate(u64),
}

/// The durable tree and what is pending on top of it.
///
/// Nodes are in the tree from their creation; without a durable name they cannot be reached.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub(super) tree: Tree,
    /// In the order they were called.
    pub(super) names: Vec<NameOp>,
    pub(super) data: BTreeMap<Inode, Vec<DataOp>>,
}

impl Durable {
    pub(super) fn of(tree: Tree) -> Self {
        Durable {
            tree,
            names: Vec::new(),
            data: BTreeMap::new(),
        }
    }

    /// Whether a power loss has a choice.
    pub(super) fn is_pending(&self) -> bool {
        !self.names.is_empty() || !self.data.is_empty()
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(slot, inode, node) => {
                self.tree.put_node(*inode, node.clone());
                self.names.push(NameOp::Add(slot.clone(), *inode));
            }
            Op::Name(op) => self.names.push(op.clone()),
            Op::Data(inode, op) => self.data.entry(*inode).or_default().push(op.clone()),
            Op::Sync(inode) => self.sync(*inode),
            Op::FailSync(inode) => {
                for op in self.data.get_mut(inode).into_iter().flatten() {
                    if let DataOp::Append { dropped, .. } = op {
                        *dropped = true;
                    }
                }
            }
            Op::SyncDir(dir) => self.sync_dir(*dir),
            Op::Corrupt(inode, content) => {
                self.data.remove(inode);
                self.tree.put_node(*inode, Node::File(content.clone()));
            }
        }
    }

    fn sync(&mut self, inode: Inode) {
        let (Some(ops), Some(content)) = (self.data.remove(&inode), self.tree.content_mut(inode)) else {
            return;
        };
        for op in ops {
            match op {
                DataOp::Append {
                    bytes,
                    dropped: false,
                } => content.push(bytes),
                DataOp::Append { bytes, dropped: true } => content.push(vec![0; bytes.len()].into()),
                DataOp::Truncate(len) => content.truncate(len),
            }
        }
    }

    fn sync_dir(&mut self, dir: Inode) {
        let mut durable = vec![false; self.names.len()];
        for i in (0..self.names.len()).rev() {
            durable[i] = self.names[i].home() == dir
                || (i + 1..self.names.len()).any(|j| durable[j] && self.names[j].needs(&self.names[i]));
        }
        let mut at = 0;
        let tree = &mut self.tree;
        self.names.retain(|op| {
            let now = durable[at];
            at += 1;
            if now {
                op.apply(tree);
            }
            !now
        });
    }

    /// Forgets inodes that neither a durable name, nor a pending one, nor `live` can reach.
    pub(super) fn prune(&mut self, live: &BTreeSet<Inode>) {
        let mut kept = self.tree.reachable();
        kept.extend(live);
        for op in &self.names {
            match op {
                NameOp::Add(_, inode) | NameOp::Move { inode, .. } => _ = kept.insert(*inode),
                NameOp::Remove(..) => {}
            }
        }
        self.tree.retain(&kept);
        self.data.retain(|inode, _| kept.contains(inode));
    }
}
