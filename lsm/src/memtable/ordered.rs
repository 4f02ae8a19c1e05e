//! Order of a memtable's keys: a B+tree of (sixteen bytes of the key, place), for families that are scanned often.
//!
//! ```text
//! inner   common · word[0] place[0] … word[n-1] place[n-1]     child i holds the keys from separator i on, below i+1
//! leaf    common · word[0] place[0] … word[n-1] place[n-1]     next → right neighbour, before → left neighbour
//! ```
//! Keys are never removed (a delete is a record), so nodes only split. Places change when a value outgrows its
//! record; [`Tree::replace`] follows. A separator names the record that was the first of its node when it was split;
//! that record stays readable after its key moved, because the arena frees nothing.

use super::{
    node::{FANOUT, NO_NODE, Node},
    record::Record,
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
    /// What the nodes take of the budget.
    memory: Allotment,
}

/// Nodes that one insertion adds at most: a leaf, its ancestors, and a root.
const SPLITS_MAX: usize = 8;

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
    pub(crate) fn insert(&mut self, arena: &Arena, place: Place) {
        let key = Record::at(arena, place).key();
        if let Some(right) = self.insert_below(arena, self.root, key, place) {
            let mut root = Node::leaf();
            for (at, child) in [self.root, right].into_iter().enumerate() {
                let first = self.nodes[child as usize].places[0];
                root.insert(arena, at, Record::at(arena, first).key(), first);
                root.children.push(child);
            }
            self.root = self.push(root);
        }
    }

    /// Inserts and returns the new right sibling of `node` if it was split; its first entry is its separator.
    fn insert_below(&mut self, arena: &Arena, node: u32, key: &[u8], place: Place) -> Option<u32> {
        let rank = self.rank(arena, node, key, true);
        if self.nodes[node as usize].children.is_empty() {
            return self.add(arena, node, rank, key, place, None);
        }
        if rank == 0 {
            // The first separator stays the smallest key below the node, so separators stay in order.
            let node = &mut self.nodes[node as usize];
            node.replace_first(arena, key, place);
        }
        let child = self.nodes[node as usize].children[rank.saturating_sub(1)];
        let right = self.insert_below(arena, child, key, place)?;
        let first = self.nodes[right as usize].places[0];
        self.add(
            arena,
            node,
            rank.max(1),
            Record::at(arena, first).key(),
            first,
            Some(right),
        )
    }

    /// Adds an entry (and child) at `at` of a node, splitting it first if it is full.
    fn add(
        &mut self,
        arena: &Arena,
        node: u32,
        mut at: usize,
        key: &[u8],
        place: Place,
        child: Option<u32>,
    ) -> Option<u32> {
        let mut target = node;
        let mut split = None;
        if self.nodes[node as usize].len == FANOUT {
            // Keys that arrive in order fill their nodes: only the new entry moves to the right.
            let appended = at == FANOUT && self.nodes[node as usize].next == NO_NODE && child.is_none();
            let full = &mut self.nodes[node as usize];
            let right = if appended {
                full.narrow(arena);
                full.leaf_alike()
            } else {
                full.split(arena)
            };
            let number = self.push(right);
            let keep = self.nodes[node as usize].len;
            if child.is_none() {
                let next = std::mem::replace(&mut self.nodes[node as usize].next, number);
                self.nodes[number as usize].next = next;
                self.nodes[number as usize].before = node;
                if let Some(next) = self.nodes.get_mut(next as usize) {
                    next.before = number;
                }
            }
            if at > keep || appended {
                target = number;
                at -= keep;
            }
            split = Some(number);
        }
        let node = &mut self.nodes[target as usize];
        node.insert(arena, at, key, place);
        if let Some(child) = child {
            node.children.insert(at, child);
        }
        split
    }

    fn push(&mut self, node: Node) -> u32 {
        if self.nodes.len() == self.nodes.capacity() {
            let (before, after) = (self.nodes.capacity(), self.grown_nodes());
            self.memory.charge(after * size_of::<Node>());
            self.nodes.reserve_exact(after - self.nodes.len());
            self.memory.refund(before * size_of::<Node>());
        }
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
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
            node = self.nodes[node as usize].children[rank.saturating_sub(1)];
        }
        let mut at = TreeAt {
            leaf: node,
            at: self.rank(arena, node, key, false),
        };
        self.settle(&mut at);
        at
    }

    /// The first position.
    #[cfg(test)]
    fn first(&self) -> TreeAt {
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
mod tests {
    use super::{super::record, *};
    use crate::key::EntryKind;
    use keybed_env::Random;
    use std::collections::BTreeMap;

    fn push(arena: &mut Arena, key: &[u8]) -> Place {
        record::push(
            arena,
            key,
            b"",
            record::Head {
                seqno: 1,
                kind: EntryKind::Put,
                prev: 0,
                replaces: false,
                depth: 0,
                slack: 0,
            },
        )
    }

    /// Keys that share beginnings of many lengths, some being the beginning of others.
    fn deep(random: &mut Random) -> Vec<u8> {
        let mut key = Vec::new();
        for _ in 0..random.below(5) {
            key.resize(key.len() + random.index(30), random.below(2) as u8);
        }
        key
    }

    fn listed(tree: &Tree, mut at: TreeAt) -> Vec<Place> {
        let mut places = Vec::new();
        while let Some(place) = tree.place(at) {
            places.push(place);
            tree.advance(&mut at);
        }
        places
    }

    fn listed_down(tree: &Tree, mut at: TreeAt) -> Vec<Place> {
        let mut places = Vec::new();
        while let Some(place) = tree.place(at) {
            places.push(place);
            tree.retreat(&mut at);
        }
        places.reverse();
        places
    }

    #[test]
    fn the_tree_orders_like_a_map() {
        for seed in 0..12 {
            let mut random = Random::from_seed(seed);
            let (mut arena, mut tree, mut model) = (Arena::default(), Tree::new(), BTreeMap::new());
            for n in 0..4000_u64 {
                let key = match seed % 6 {
                    0 => n.to_be_bytes().to_vec(),
                    1 => (u64::MAX - n).to_be_bytes().to_vec(),
                    2 => [&b"common prefix"[..], &random.below(3000).to_be_bytes()].concat(),
                    3 => deep(&mut random),
                    4 => [&[7; 60][..], &(n / 7).to_be_bytes(), &n.to_le_bytes()[..2]].concat(),
                    _ => (0..random.below(10)).map(|_| random.below(3) as u8).collect(),
                };
                let place = push(&mut arena, &key);
                if model.insert(key, place).is_none() {
                    tree.insert(&arena, place);
                } else {
                    tree.replace(&arena, place);
                }
            }
            assert_eq!(
                listed(&tree, tree.first()),
                model.values().copied().collect::<Vec<_>>(),
                "seed {seed}"
            );
            assert_eq!(
                listed_down(&tree, tree.last()),
                model.values().copied().collect::<Vec<_>>(),
                "seed {seed}"
            );
            for n in 0..200 {
                let key = match n % 2 {
                    0 => deep(&mut random),
                    _ => (0..random.below(10)).map(|_| random.below(3) as u8).collect(),
                };
                let expected: Vec<_> = model.range(key.clone()..).map(|(_, place)| *place).collect();
                let mut at = tree.seek(&arena, &key);
                assert_eq!(listed(&tree, at), expected, "seed {seed}");
                tree.retreat(&mut at);
                let expected: Vec<_> = model.range(..key.clone()).map(|(_, place)| *place).collect();
                assert_eq!(listed_down(&tree, at), expected, "seed {seed}");
            }
        }
    }
}
