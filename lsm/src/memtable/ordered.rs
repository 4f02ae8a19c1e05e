//! Order of a memtable's keys: a B+tree of (sixteen bytes of the key, place), for families that are scanned often.
//!
//! ```text
//! inner   common · word[0] place[0] … word[n-1] place[n-1]     separators; child i holds the keys from separator i-1
//!                                                              on, below separator i
//! leaf    common · word[0] place[0] … word[n-1] place[n-1]     next → right neighbour, before → left neighbour
//! ```
//! Places change when a value outgrows its record; [`Tree::replace`] follows. A separator is a record of its own, the
//! shortest that tells the keys on both sides of it apart: it belongs to the tree, and goes with the node behind it.
//! A leaf that loses its last key goes, one that holds few keys is joined with a neighbour that does, and the nodes are
//! used again: a queue, inserted at one end and taken from the other, stays as large as what waits in it.

use super::{
    node::{FANOUT, NO_NODE, Node},
    record::{self, Record},
};
use crate::{
    arena::{Arena, Place},
    budget::Allotment,
};
use std::hint::black_box;

/// The B+tree of one memtable.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: u32,
    /// The first of the nodes that wait to be used again; `next` leads to the others.
    free: u32,
    /// What the nodes take of the budget.
    memory: Allotment,
}

/// Nodes that one insertion adds at most: a leaf, its ancestors, and a root.
const SPLITS_MAX: usize = 8;

/// A node with at most so many entries is joined with a neighbour, if the two have fewer than [`JOINED`] together.
const SPARSE: usize = FANOUT / 4;
const JOINED: usize = FANOUT * 3 / 4;

/// A position in the order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TreeAt {
    leaf: u32,
    at: usize,
}

impl Tree {
    /// Without keys.
    pub(crate) fn new() -> Self {
        Tree {
            nodes: vec![Node::leaf()],
            root: 0,
            free: NO_NODE,
            memory: Allotment::default(),
        }
    }

    /// Pays from `memory` from now on; called before the first insertion.
    pub(super) fn pay_from(&mut self, memory: Allotment) {
        self.memory = memory;
    }

    /// Whether so many keys can be added without more memory.
    pub(super) fn has_room(&self, keys: usize) -> bool {
        // A further key may split a whole path; many keys split less than one leaf per 16.
        self.nodes.len() + SPLITS_MAX + keys / 8 <= self.nodes.capacity()
    }

    /// Pays for the nodes that so many keys more may need; false if the memory is not there.
    pub(super) fn prepare(&mut self, keys: usize) -> bool {
        let nodes = self.grown_nodes().max(self.nodes.len() + SPLITS_MAX + keys / 8);
        self.has_room(keys) || self.memory.prepay(2 * nodes * size_of::<Node>())
    }

    fn grown_nodes(&self) -> usize {
        (self.nodes.capacity() * 2).max(4)
    }

    /// What was paid for.
    pub(super) fn paid_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes of the nodes; the first one, which is always there, is not counted.
    pub(crate) fn bytes(&self) -> usize {
        (self.nodes.len() - 1) * size_of::<Node>()
    }

    #[inline]
    fn rank(&self, arena: &Arena, node: u32, key: &[u8], or_equal: bool) -> usize {
        self.nodes[node as usize].rank(arena, key, or_equal)
    }

    /// Adds a key that is not in the tree.
    pub(crate) fn insert(&mut self, arena: &mut Arena, place: Place) {
        if let Some((separator, right)) = self.insert_below(arena, self.root, place) {
            let mut root = Node::leaf();
            root.insert(arena, 0, separator);
            root.children.extend([self.root, right]);
            self.root = self.push(root);
        }
    }

    /// Inserts; if `node` was split, returns its new right sibling and what separates them.
    fn insert_below(&mut self, arena: &mut Arena, node: u32, place: Place) -> Option<(Place, u32)> {
        let at = self.rank(arena, node, Record::at(arena, place).key(), true);
        match self.nodes[node as usize].children.get(at) {
            None => self.add_key(arena, node, at, place),
            Some(&child) => {
                let (separator, right) = self.insert_below(arena, child, place)?;
                self.add_child(arena, node, at, separator, right)
            }
        }
    }

    /// Adds a key at `at` of a leaf, splitting it first if it is full.
    fn add_key(&mut self, arena: &mut Arena, leaf: u32, at: usize, place: Place) -> Option<(Place, u32)> {
        let full = &mut self.nodes[leaf as usize];
        if full.len < FANOUT {
            full.insert(arena, at, place);
            return None;
        }
        // Keys that arrive in order fill their leaves: only the new one moves to the right.
        let mut right = if at == FANOUT && full.next == NO_NODE {
            full.narrow(arena);
            full.leaf_alike()
        } else {
            full.split(arena)
        };
        let keep = full.len;
        if at > keep || right.len == 0 {
            right.insert(arena, at - keep, place);
        } else {
            full.insert(arena, at, place);
        }
        let (last, first) = (full.places[full.len - 1], right.places[0]);
        (right.before, right.next) = (leaf, full.next);
        let number = self.push(right);
        let next = std::mem::replace(&mut self.nodes[leaf as usize].next, number);
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.before = number;
        }
        Some((record::separator(arena, last, first), number))
    }

    /// Adds a separator at `at` of an inner node, and the child behind it, splitting the node first if it is full.
    fn add_child(
        &mut self,
        arena: &Arena,
        node: u32,
        at: usize,
        separator: Place,
        child: u32,
    ) -> Option<(Place, u32)> {
        let full = &mut self.nodes[node as usize];
        if full.len < FANOUT {
            full.insert(arena, at, separator);
            full.children.insert(at + 1, child);
            return None;
        }
        let mut right = full.split(arena);
        let keep = full.len - 1;
        // The separator between the halves moves up.
        let middle = full.places[keep];
        full.remove(keep);
        let (half, at) = if at > keep {
            (&mut right, at - keep - 1)
        } else {
            (full, at)
        };
        half.insert(arena, at, separator);
        half.children.insert(at + 1, child);
        Some((middle, self.push(right)))
    }

    fn push(&mut self, node: Node) -> u32 {
        if let Some(free) = self.nodes.get(self.free as usize) {
            let number = std::mem::replace(&mut self.free, free.next);
            self.nodes[number as usize] = node;
            return number;
        }
        if self.nodes.len() == self.nodes.capacity() {
            let (before, after) = (self.nodes.capacity(), self.grown_nodes());
            self.memory.charge(after * size_of::<Node>());
            self.nodes.reserve_exact(after - self.nodes.len());
            self.memory.refund(before * size_of::<Node>());
        }
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// Keeps a node that nothing names any more for the next one that is needed.
    fn release(&mut self, node: u32) {
        let mut empty = Node::leaf();
        empty.next = std::mem::replace(&mut self.free, node);
        self.nodes[node as usize] = empty;
    }

    /// Removes a key that is in the tree.
    pub(crate) fn remove(&mut self, arena: &mut Arena, key: &[u8]) {
        self.remove_below(arena, self.root, key);
        while let [only] = self.nodes[self.root as usize].children[..] {
            let root = std::mem::replace(&mut self.root, only);
            self.release(root);
        }
    }

    fn remove_below(&mut self, arena: &mut Arena, node: u32, key: &[u8]) {
        if self.nodes[node as usize].children.is_empty() {
            let at = self.rank(arena, node, key, false);
            self.nodes[node as usize].remove(at);
            return;
        }
        let at = self.rank(arena, node, key, true);
        let child = self.nodes[node as usize].children[at];
        self.remove_below(arena, child, key);
        let left = &self.nodes[child as usize];
        if left.len == 0 && left.children.is_empty() {
            self.unlink(child);
            if let Some(separator) = self.drop_child(node, at) {
                record::free(arena, separator);
            }
        } else if left.len <= SPARSE {
            self.join_sparse(arena, node, at);
        }
    }

    /// Takes a leaf out of the row of leaves; an inner node is in none.
    fn unlink(&mut self, leaf: u32) {
        let Node { before, next, .. } = self.nodes[leaf as usize];
        if let Some(before) = self.nodes.get_mut(before as usize) {
            before.next = next;
        }
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.before = before;
        }
    }

    /// Removes child `at` of an inner node; returns the separator that goes with it, unless it was the only child.
    fn drop_child(&mut self, node: u32, at: usize) -> Option<Place> {
        let parent = &mut self.nodes[node as usize];
        let child = parent.children.remove(at);
        let separator = (parent.len > 0).then(|| parent.remove(at.saturating_sub(1)));
        self.release(child);
        separator
    }

    /// Joins child `at` of an inner node, which holds few keys, with a neighbour if that has room for more.
    fn join_sparse(&mut self, arena: &mut Arena, node: u32, at: usize) {
        let parent = &self.nodes[node as usize];
        let left_at = if at < parent.len { at } else { at.saturating_sub(1) };
        let Some(&[left, right]) = parent.children.get(left_at..left_at + 2) else {
            return;
        };
        if self.nodes[left as usize].len + self.nodes[right as usize].len >= JOINED {
            return;
        }
        self.unlink(right);
        let moved = std::mem::replace(&mut self.nodes[right as usize], Node::leaf());
        let separator = self.drop_child(node, left_at + 1);
        let joined = &mut self.nodes[left as usize];
        match separator {
            // It goes on telling the children of the two apart.
            Some(separator) if !moved.children.is_empty() => joined.insert(arena, joined.len, separator),
            Some(separator) => record::free(arena, separator),
            None => {}
        }
        joined.append(arena, &moved);
        joined.children.extend(moved.children);
    }

    /// Follows a key to its new record.
    pub(crate) fn replace(&mut self, arena: &Arena, place: Place) {
        let at = self.seek(arena, Record::at(arena, place).key());
        self.nodes[at.leaf as usize].places[at.at] = place;
    }

    /// The first position whose key is not below `key`.
    pub(crate) fn seek(&self, arena: &Arena, key: &[u8]) -> TreeAt {
        let mut node = self.root;
        while !self.nodes[node as usize].children.is_empty() {
            let rank = self.rank(arena, node, key, true);
            node = self.nodes[node as usize].children[rank];
        }
        let mut at = TreeAt {
            leaf: node,
            at: self.rank(arena, node, key, false),
        };
        self.settle(&mut at);
        at
    }

    /// The first position.
    pub(super) fn first(&self) -> TreeAt {
        let mut node = self.root;
        while let Some(&child) = self.nodes[node as usize].children.first() {
            node = child;
        }
        TreeAt { leaf: node, at: 0 }
    }

    /// The last position.
    pub(crate) fn last(&self) -> TreeAt {
        let mut leaf = self.root;
        while let Some(&child) = self.nodes[leaf as usize].children.last() {
            leaf = child;
        }
        // The position before the first one if there are no keys.
        let at = self.nodes[leaf as usize].len.wrapping_sub(1);
        TreeAt { leaf, at }
    }

    /// The record at a position; `None` behind the last and before the first.
    #[inline]
    pub(crate) fn place(&self, at: TreeAt) -> Option<Place> {
        let node = &self.nodes[at.leaf as usize];
        node.places[..node.len].get(at.at).copied()
    }

    /// The records at a position and behind it, as far as its leaf goes.
    pub(crate) fn places_from(&self, at: TreeAt) -> &[Place] {
        let node = &self.nodes[at.leaf as usize];
        node.places[..node.len].get(at.at..).unwrap_or_default()
    }

    /// The records of a leaf whose first position this is; its neighbour is read ahead.
    #[inline]
    pub(crate) fn entered_leaf(&self, at: TreeAt) -> Option<&[Place]> {
        if at.at != 0 {
            return None;
        }
        let node = &self.nodes[at.leaf as usize];
        if let Some(next) = self.nodes.get(node.next as usize) {
            black_box(next.places[0] ^ next.places[FANOUT / 2] ^ next.next);
        }
        Some(&node.places[..node.len])
    }

    /// The next position.
    #[inline]
    pub(crate) fn advance(&self, at: &mut TreeAt) {
        at.at += 1;
        self.settle(at);
    }

    /// The previous position.
    #[inline]
    pub(crate) fn retreat(&self, at: &mut TreeAt) {
        if at.at > 0 {
            at.at -= 1;
            return;
        }
        let before = self.nodes[at.leaf as usize].before;
        *at = match self.nodes.get(before as usize) {
            Some(node) => TreeAt {
                leaf: before,
                at: node.len - 1,
            },
            None => TreeAt {
                leaf: at.leaf,
                at: usize::MAX,
            },
        };
    }

    /// Moves from the end of a leaf to the start of its neighbour.
    #[inline]
    fn settle(&self, at: &mut TreeAt) {
        let node = &self.nodes[at.leaf as usize];
        if at.at >= node.len && node.next != NO_NODE {
            *at = TreeAt {
                leaf: node.next,
                at: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests;
