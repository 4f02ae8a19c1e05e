//! Order of a memtable's keys: a B+tree of (first eight bytes, place), for families that are scanned often.
//!
//! ```text
//! inner   prefix[0] place[0] … prefix[n-1] place[n-1]     child i holds the keys from separator i on, below i+1
//! leaf    prefix[0] place[0] … prefix[n-1] place[n-1]     next → right neighbour, before → left neighbour
//! ```
//! Keys are compared by their first eight bytes inside the node and read from the arena only on a tie. Keys are
//! never removed (a delete is a record), so nodes only split. Places change when a value outgrows its record;
//! [`Tree::replace`] follows. A separator names the record that was the first of its node when it was split; that
//! record stays readable after its key moved, because the arena frees nothing.

use super::record::Record;
use crate::{
    arena::{Arena, Place},
    key::order_prefix,
};

const FANOUT: usize = 32;

#[derive(Debug)]
struct Node {
    len: usize,
    prefixes: [u64; FANOUT],
    places: [Place; FANOUT],
    /// Inner nodes: child `i`. Empty in leaves.
    children: Vec<u32>,
    /// Leaves: the right neighbour, `u32::MAX` at the end.
    next: u32,
    /// Leaves: the left neighbour, `u32::MAX` at the start.
    before: u32,
}

const NO_NODE: u32 = u32::MAX;

impl Node {
    fn leaf() -> Self {
        Node {
            len: 0,
            prefixes: [0; FANOUT],
            places: [0; FANOUT],
            children: Vec::new(),
            next: NO_NODE,
            before: NO_NODE,
        }
    }

    fn insert(&mut self, at: usize, prefix: u64, place: Place) {
        self.prefixes.copy_within(at..self.len, at + 1);
        self.places.copy_within(at..self.len, at + 1);
        self.prefixes[at] = prefix;
        self.places[at] = place;
        self.len += 1;
    }

    /// Moves the upper half to a new node.
    fn split(&mut self) -> Node {
        let mut right = Node::leaf();
        let keep = self.len / 2;
        right.len = self.len - keep;
        right.prefixes[..right.len].copy_from_slice(&self.prefixes[keep..self.len]);
        right.places[..right.len].copy_from_slice(&self.places[keep..self.len]);
        if !self.children.is_empty() {
            right.children = self.children.split_off(keep);
        }
        self.len = keep;
        right
    }
}

/// The B+tree of one memtable.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: u32,
}

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
        }
    }

    /// Bytes of the nodes; the first one, which is always there, is not counted.
    pub(crate) fn bytes(&self) -> usize {
        (self.nodes.len() - 1) * size_of::<Node>()
    }

    /// Entries of `node` whose key is below `key` (`or_equal`: or equal).
    #[inline]
    fn rank(&self, arena: &Arena, node: u32, prefix: u64, key: &[u8], or_equal: bool) -> usize {
        let node = &self.nodes[node as usize];
        let prefixes = &node.prefixes[..node.len];
        let mut from = prefixes.partition_point(|&p| p < prefix);
        let mut to = from + prefixes[from..].partition_point(|&p| p == prefix);
        while from < to {
            let middle = from.midpoint(to);
            let other = Record::at(arena, node.places[middle]).key();
            if other < key || (or_equal && other == key) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Adds a key that is not in the tree.
    pub(crate) fn insert(&mut self, arena: &Arena, place: Place) {
        let key = Record::at(arena, place).key();
        let prefix = order_prefix(key);
        if let Some((prefix, first, right)) = self.insert_below(arena, self.root, prefix, key, place) {
            let mut root = Node::leaf();
            let left = self.leftmost_entry(self.root);
            root.insert(0, left.0, left.1);
            root.insert(1, prefix, first);
            root.children = vec![self.root, right];
            self.root = self.push(root);
        }
    }

    /// Inserts and returns the new right sibling of `node` if it was split, with its first separator.
    fn insert_below(
        &mut self,
        arena: &Arena,
        node: u32,
        prefix: u64,
        key: &[u8],
        place: Place,
    ) -> Option<(u64, Place, u32)> {
        let rank = self.rank(arena, node, prefix, key, true);
        if self.nodes[node as usize].children.is_empty() {
            return self.add(node, rank, prefix, place, None);
        }
        if rank == 0 {
            // The first separator stays the smallest key below the node, so separators stay in order.
            let node = &mut self.nodes[node as usize];
            (node.prefixes[0], node.places[0]) = (prefix, place);
        }
        let child = self.nodes[node as usize].children[rank.saturating_sub(1)];
        let (prefix, first, right) = self.insert_below(arena, child, prefix, key, place)?;
        self.add(node, rank.max(1), prefix, first, Some(right))
    }

    /// Adds an entry (and child) at `at` of a node, splitting it first if it is full.
    fn add(
        &mut self,
        node: u32,
        mut at: usize,
        prefix: u64,
        place: Place,
        child: Option<u32>,
    ) -> Option<(u64, Place, u32)> {
        let mut target = node;
        let mut split = None;
        if self.nodes[node as usize].len == FANOUT {
            // Keys that arrive in order fill their nodes: only the new entry moves to the right.
            let appended = at == FANOUT && self.nodes[node as usize].next == NO_NODE && child.is_none();
            let right = if appended {
                Node::leaf()
            } else {
                self.nodes[node as usize].split()
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
        node.insert(at, prefix, place);
        if let Some(child) = child {
            node.children.insert(at, child);
        }
        split.map(|number| {
            let right = &self.nodes[number as usize];
            (right.prefixes[0], right.places[0], number)
        })
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    fn leftmost_entry(&self, node: u32) -> (u64, Place) {
        let node = &self.nodes[node as usize];
        (node.prefixes[0], node.places[0])
    }

    /// Follows a key to its new record.
    pub(crate) fn replace(&mut self, arena: &Arena, place: Place) {
        let at = self.seek(arena, Record::at(arena, place).key());
        self.nodes[at.leaf as usize].places[at.at] = place;
    }

    /// The first position whose key is not below `key`.
    pub(crate) fn seek(&self, arena: &Arena, key: &[u8]) -> TreeAt {
        let prefix = order_prefix(key);
        let mut node = self.root;
        while !self.nodes[node as usize].children.is_empty() {
            let rank = self.rank(arena, node, prefix, key, true);
            node = self.nodes[node as usize].children[rank.saturating_sub(1)];
        }
        let mut at = TreeAt {
            leaf: node,
            at: self.rank(arena, node, prefix, key, false),
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
        for seed in 0..8 {
            let mut random = Random::from_seed(seed);
            let (mut arena, mut tree, mut model) = (Arena::default(), Tree::new(), BTreeMap::new());
            for n in 0..4000_u64 {
                let key = match seed % 4 {
                    0 => n.to_be_bytes().to_vec(),
                    1 => (u64::MAX - n).to_be_bytes().to_vec(),
                    2 => [&b"common prefix"[..], &random.below(3000).to_be_bytes()].concat(),
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
            for _ in 0..200 {
                let key = (0..random.below(10))
                    .map(|_| random.below(3) as u8)
                    .collect::<Vec<_>>();
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
