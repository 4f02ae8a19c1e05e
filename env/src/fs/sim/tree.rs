//! Names and inodes of a simulated disk at one moment.
//!
//! ```text
//! path ── root directory ── name → inode ── name → inode ── …
//!                                              |
//!                                   directory: names │ file: bytes
//! ```
//! Directories are found by inode, so a directory can hold durable names while its own name is not durable.

use super::content::Content;
use keybed_format::checksum::Hasher;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

pub(super) type Inode = u64;
pub(super) type Name = Arc<str>;

/// The directory that `/` and the working directory stand for.
pub(super) const ROOT: Inode = 0;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Dir(Arc<BTreeMap<Name, Inode>>),
    File(Content),
}

/// Inodes by number; cloning shares names and bytes.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) dir: Inode,
    pub(super) name: Name,
}

impl Tree {
    pub(super) fn new() -> Self {
        Tree {
            nodes: BTreeMap::from([(ROOT, Node::Dir(Arc::default()))]),
        }
    }

    pub(super) fn node(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub(super) fn put_node(&mut self, inode: Inode, node: Node) {
        self.nodes.insert(inode, node);
    }

    pub(super) fn remove_node(&mut self, inode: Inode) {
        self.nodes.remove(&inode);
    }

    pub(super) fn content(&self, inode: Inode) -> Option<&Content> {
        match self.nodes.get(&inode) {
            Some(Node::File(content)) => Some(content),
            _ => None,
        }
    }

    pub(super) fn content_mut(&mut self, inode: Inode) -> Option<&mut Content> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(content)) => Some(content),
            _ => None,
        }
    }

    pub(super) fn names(&self, dir: Inode) -> Option<&BTreeMap<Name, Inode>> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => Some(names),
            _ => None,
        }
    }

    pub(super) fn at(&self, slot: &Slot) -> Option<Inode> {
        self.names(slot.dir)?.get(&slot.name).copied()
    }

    /// Gives a slot an inode or, with `None`, empties it. A directory that is gone has no slots.
    pub(super) fn set(&mut self, slot: &Slot, inode: Option<Inode>) {
        if let Some(Node::Dir(names)) = self.nodes.get_mut(&slot.dir) {
            let names = Arc::make_mut(names);
            match inode {
                Some(inode) => names.insert(slot.name.clone(), inode),
                None => names.remove(&slot.name),
            };
        }
    }

    /// The inode of a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        parts(path)?
            .into_iter()
            .try_fold(ROOT, |dir, name| self.step(dir, name))
    }

    /// The slot of a path, whose directory must exist; the slot may be empty.
    pub(super) fn slot(&self, path: &Path) -> io::Result<Slot> {
        let parts = parts(path)?;
        let Some((name, dirs)) = parts.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = dirs.iter().try_fold(ROOT, |dir, name| self.step(dir, name))?;
        match self.nodes.get(&dir) {
            Some(Node::Dir(_)) => Ok(Slot {
                dir,
                name: (*name).into(),
            }),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn step(&self, dir: Inode, name: &str) -> io::Result<Inode> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => names.get(name).copied().ok_or(io::ErrorKind::NotFound.into()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Every inode that has a name below the root, and the root.
    pub(super) fn reachable(&self) -> BTreeSet<Inode> {
        let mut seen = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            let inodes = self.names(dir).into_iter().flat_map(BTreeMap::values);
            open.extend(inodes.copied().filter(|inode| seen.insert(*inode)));
        }
        seen
    }

    /// Forgets inodes outside of `kept`.
    pub(super) fn retain(&mut self, kept: &BTreeSet<Inode>) {
        self.nodes.retain(|inode, _| kept.contains(inode));
    }

    /// Largest inode number in use.
    pub(super) fn last_inode(&self) -> Inode {
        self.nodes.last_key_value().map_or(ROOT, |(inode, _)| *inode)
    }

    /// Calls `visit` for everything below the root in the order of paths of each directory, with its path.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Path, &Node)) {
        self.visit_dir(ROOT, &mut PathBuf::new(), visit);
    }

    fn visit_dir(&self, dir: Inode, path: &mut PathBuf, visit: &mut dyn FnMut(&Path, &Node)) {
        for (name, inode) in self.names(dir).into_iter().flatten() {
            let Some(node) = self.nodes.get(inode) else {
                continue;
            };
            path.push(&**name);
            visit(path, node);
            self.visit_dir(*inode, path, visit);
            path.pop();
        }
    }

    /// Equal for equal paths and bytes.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = Hasher::new();
        self.visit(&mut |path, node| {
            hasher.update(path.as_os_str().as_encoded_bytes());
            match node {
                Node::Dir(_) => hasher.update(&[0, 0]),
                Node::File(content) => {
                    hasher.update(&[0, 1]);
                    hasher.update(&content.len().to_le_bytes());
                    content.pieces().for_each(|piece| hasher.update(piece));
                }
            }
        });
        hasher.finish()
    }
}

/// Names on the way from the root; `..` goes up, as if there were no links.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}
