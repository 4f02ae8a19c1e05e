//! The tree against a map.

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
                tree.insert(&mut arena, place);
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

/// The tree, the arena it names records of, and what it should hold.
struct Pair {
    arena: Arena,
    tree: Tree,
    model: BTreeMap<Vec<u8>, Place>,
}

impl Pair {
    fn new() -> Self {
        Pair {
            arena: Arena::default(),
            tree: Tree::new(),
            model: BTreeMap::new(),
        }
    }

    /// A new record for the key, which may be there.
    fn put(&mut self, key: Vec<u8>) {
        let place = push(&mut self.arena, &key);
        match self.model.insert(key, place) {
            None => self.tree.insert(&mut self.arena, place),
            Some(old) => {
                self.tree.replace(&self.arena, place);
                record::free(&mut self.arena, old);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(place) = self.model.remove(key) {
            self.tree.remove(&mut self.arena, key);
            record::free(&mut self.arena, place);
        }
    }

    /// Nodes in use.
    fn nodes(&self) -> usize {
        let mut free = 0;
        let mut at = self.tree.free;
        while let Some(node) = self.tree.nodes.get(at as usize) {
            (free, at) = (free + 1, node.next);
        }
        self.tree.nodes.len() - free
    }

    fn check(&self, seed: u64, random: &mut Random) {
        let all: Vec<_> = self.model.values().copied().collect();
        assert_eq!(listed(&self.tree, self.tree.first()), all, "seed {seed}");
        assert_eq!(listed_down(&self.tree, self.tree.last()), all, "seed {seed}");
        for key in (0..20)
            .map(|_| deep(random))
            .chain(self.model.keys().take(9).cloned())
        {
            let expected: Vec<_> = self.model.range(key.clone()..).map(|(_, place)| *place).collect();
            let mut at = self.tree.seek(&self.arena, &key);
            assert_eq!(listed(&self.tree, at), expected, "seed {seed}");
            self.tree.retreat(&mut at);
            let expected: Vec<_> = self.model.range(..key.clone()).map(|(_, place)| *place).collect();
            assert_eq!(listed_down(&self.tree, at), expected, "seed {seed}");
        }
        let depth_max = 8;
        assert!(
            self.nodes() <= self.model.len() + depth_max,
            "seed {seed}: a node holds a key at least"
        );
    }
}

#[test]
fn keys_come_and_go_like_those_of_a_map() {
    for seed in 0..12 {
        let mut random = Random::from_seed(seed);
        let mut pair = Pair::new();
        for n in 0..6000_u64 {
            // Times of growth, of balance and of shrinking, down to nothing.
            let puts = [9, 5, 2, 0][(n / 500) as usize % 4];
            let key = match seed % 4 {
                0 => random.below(900).to_be_bytes().to_vec(),
                1 => deep(&mut random),
                2 => [&[7; 60][..], &random.below(400).to_be_bytes()].concat(),
                _ => (0..random.below(10)).map(|_| random.below(3) as u8).collect(),
            };
            if random.below(10) < puts {
                pair.put(key);
            } else {
                let nearest = pair.model.range(key..).next().map(|(key, _)| key.clone());
                let other = pair.model.keys().next().cloned();
                if let Some(key) = nearest.or(other) {
                    pair.remove(&key);
                }
            }
            if random.one_in(150) {
                pair.check(seed, &mut random);
            }
        }
        for key in pair.model.clone().into_keys() {
            pair.remove(&key);
        }
        pair.check(seed, &mut random);
        assert_eq!(pair.nodes(), 1, "seed {seed}: an empty leaf");
        pair.put(deep(&mut random));
        pair.check(seed, &mut random);
    }
}

#[test]
fn a_queue_stays_as_large_as_what_waits_in_it() {
    for seed in 0..3 {
        let mut random = Random::from_seed(seed);
        let mut pair = Pair::new();
        let due = |n: u64, random: &mut Random| {
            let at = n * 10 + [0, random.below(4000), random.below(40)][seed as usize];
            [&b"queue"[..], &at.to_be_bytes(), &n.to_be_bytes()].concat()
        };
        for n in 0..1000 {
            pair.put(due(n, &mut random));
        }
        let mut most = (0, 0);
        for n in 1000..40_000 {
            let first = pair
                .model
                .keys()
                .next()
                .cloned()
                .expect("the queue is never empty");
            pair.remove(&first);
            pair.put(due(n, &mut random));
            if n == 3000 {
                most = (pair.tree.nodes.len(), pair.arena.used());
            }
        }
        pair.check(seed, &mut random);
        let now = (pair.tree.nodes.len(), pair.arena.used());
        assert!(
            now.0 <= most.0 * 5 / 4 + 4,
            "seed {seed}: {now:?} nodes and bytes after {most:?}"
        );
        assert!(
            now.1 <= most.1 * 5 / 4,
            "seed {seed}: {now:?} nodes and bytes after {most:?}"
        );
        assert!(
            pair.nodes() <= 1000 / 4,
            "seed {seed}: {} nodes for 1000 keys",
            pair.nodes()
        );
    }
}
