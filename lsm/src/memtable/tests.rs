//! The memtable against a map.

use super::*;
use crate::{key::KeyRange, memtable::order::Active};
use keybed_env::Random;
use std::{collections::BTreeMap, sync::Arc};

#[test]
fn a_memtable_of_either_flavour_is_a_map() {
    // Groups of a few keys, of 256, and of all: what does not fit a group moves to the tree.
    let by_prefix = [2, 1, 0].map(|bytes| MemtableKind::Prefix(PrefixRule { bytes, pieces: 0 }));
    let kinds = [MemtableKind::Hash, MemtableKind::Ordered]
        .into_iter()
        .chain(by_prefix);
    for (seed, kind) in (0..6).flat_map(|seed| kinds.clone().map(move |kind| (seed, kind))) {
        let mut random = Random::from_seed(seed);
        let mut active = Active::new(Memtable::new(kind, random.u64()));
        let mut model: BTreeMap<Vec<u8>, (EntryKind, Vec<u8>)> = BTreeMap::new();
        for seqno in 0..4000_u64 {
            let key = random.below(600).to_be_bytes()[6..].to_vec();
            let value = vec![seqno as u8; random.index(40)];
            let memtable = &mut active.memtable;
            let probe = memtable.find(&key, key::hash(&key));
            match (random.below(5), probe) {
                (4, _) => {
                    memtable.remove(probe, &key, seqno);
                    let stays = kind == MemtableKind::Hash && model.contains_key(&key);
                    model.remove(&key);
                    if stays {
                        model.insert(key, (EntryKind::Delete, Vec::new()));
                    }
                }
                (0, _) => {
                    memtable.write(probe, &key, seqno, EntryKind::Delete, b"");
                    model.insert(key, (EntryKind::Delete, Vec::new()));
                }
                (1, Probe::Found { slot, place }) => {
                    memtable.extend(slot, place, &key, seqno, &value);
                    model.get_mut(&key).unwrap().1.extend(value);
                }
                _ => {
                    memtable.write(probe, &key, seqno, EntryKind::Put, &value);
                    model.insert(key, (EntryKind::Put, value));
                }
            }
            if random.one_in(50) {
                check(&active, &model, seed);
            }
        }
        check(&active, &model, seed);
        let sealed = Sealed::new(active.memtable, 0, Arc::default(), &[]);
        let mut iter = sealed.iter();
        for key in model.keys() {
            assert_eq!(iter.entry().key, key);
            iter.advance();
        }
        assert!(!iter.is_valid());
    }
}

fn check(active: &Active, model: &BTreeMap<Vec<u8>, (EntryKind, Vec<u8>)>, seed: u64) {
    let mut iter = MemtableIter::new(
        Held::Borrowed(&active.memtable),
        active.order_in(&KeyRange::all()),
    );
    for (key, (kind, value)) in model {
        let found = active
            .memtable
            .get(key, key::hash(key))
            .map(|(_, kind, value)| (kind, value));
        assert_eq!(found, Some((*kind, value.as_slice())), "seed {seed}");
        let entry = iter.entry();
        assert_eq!(
            (entry.key, entry.kind, entry.value),
            (key.as_slice(), *kind, value.as_slice()),
            "seed {seed}"
        );
        iter.advance();
    }
    assert!(!iter.is_valid());
    if let Some((middle, _)) = model.iter().nth(model.len() / 2) {
        iter.seek(middle);
        assert_eq!(iter.entry().key, middle);
    }
}

#[test]
fn a_chain_is_walked_newest_first_and_cut_by_a_put() {
    for kind in [MemtableKind::Hash, MemtableKind::Ordered] {
        let mut memtable = Memtable::new(kind, 7);
        let hash = key::hash(b"k");
        let probe = memtable.find(b"k", hash);
        memtable.write(probe, b"k", 1, EntryKind::Merge, b"a");
        for (seqno, operand) in [(2, b"b"), (3, b"c")] {
            let Probe::Found { slot, place } = memtable.find(b"k", hash) else {
                panic!("it is there")
            };
            memtable.chain((slot, place), b"k", seqno, EntryKind::Merge, operand);
        }
        let active = Active::new(memtable);
        let mut iter = MemtableIter::new(
            Held::Borrowed(&active.memtable),
            active.order_in(&KeyRange::all()),
        );
        for (seqno, operand) in [(3, b"c"), (2, b"b"), (1, b"a")] {
            assert_eq!((iter.entry().seqno, iter.entry().value), (seqno, &operand[..]));
            iter.advance();
        }
        assert!(!iter.is_valid());
        let Active { mut memtable, .. } = active;
        let probe = memtable.find(b"k", hash);
        memtable.write(probe, b"k", 4, EntryKind::Put, b"d");
        let (place, kind, value) = memtable.get(b"k", hash).unwrap();
        assert_eq!(
            (kind, value, memtable.older(place), memtable.len()),
            (EntryKind::Put, &b"d"[..], 0, 1)
        );
    }
}

#[test]
fn an_update_of_equal_size_takes_no_memory() {
    let mut memtable = Memtable::new(MemtableKind::Hash, 7);
    let probe = memtable.find(b"k", 1);
    memtable.write(probe, b"k", 1, EntryKind::Put, &[1; 50]);
    let bytes = memtable.bytes();
    for seqno in 2..1000 {
        let probe = memtable.find(b"k", 1);
        memtable.write(probe, b"k", seqno, EntryKind::Put, &[seqno as u8; 50]);
    }
    assert_eq!(memtable.bytes(), bytes);
}

#[test]
fn keys_with_much_in_common_are_sorted_like_slices() {
    for seed in 0..40 {
        let mut random = Random::from_seed(seed);
        let mut active = Active::new(Memtable::new(MemtableKind::Hash, 3));
        let mut model = BTreeMap::new();
        for _ in 0..400 {
            let shared = vec![7; random.index(3) * 8 * random.index(20)];
            let zeros = vec![0; random.index(20)];
            let key = [
                &shared[..],
                &zeros,
                &[random.below(3) as u8],
                &zeros[..random.index(zeros.len() + 1)],
            ]
            .concat();
            let memtable = &mut active.memtable;
            let probe = memtable.find(&key, key::hash(&key));
            memtable.write(probe, &key, 1, EntryKind::Put, b"v");
            model.insert(key, (EntryKind::Put, b"v".to_vec()));
        }
        check(&active, &model, seed);
    }
}

#[test]
fn a_range_of_a_large_memtable_is_selected() {
    let mut random = Random::from_seed(5);
    let mut active = Active::new(Memtable::new(MemtableKind::Hash, 3));
    let mut model = BTreeMap::new();
    for seqno in 0..5000_u64 {
        let key = random.below(3000).to_be_bytes()[6..].to_vec();
        let value = vec![1; random.index(60)];
        let probe = active.memtable.find(&key, key::hash(&key));
        active.memtable.write(probe, &key, seqno, EntryKind::Put, &value);
        model.insert(key, value);
    }
    // More often than a selection is made before everything is sorted.
    for round in 0..20 {
        let mut range = KeyRange {
            start: random.below(3000).to_be_bytes()[6..].to_vec(),
            end: Some(random.below(3000).to_be_bytes()[6..].to_vec()),
        };
        if round % 5 == 4 {
            range.end = None;
        }
        let order = active.order_in(&range);
        let bounds = Arc::new(range);
        let mut iter = MemtableIter::within(Held::Borrowed(&active.memtable), order, &bounds, u64::MAX);
        iter.seek(&[]);
        let mut found = Vec::new();
        while iter.is_valid() {
            found.push((iter.key().to_vec(), iter.entry().value.to_vec()));
            iter.next_key();
        }
        let inside = model.iter().filter(|(key, _)| bounds.contains(key));
        let expected: Vec<_> = inside.map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(found, expected, "round {round}");
        iter.seek_before(None);
        let last = iter.is_valid().then(|| iter.key().to_vec());
        assert_eq!(
            last.as_ref(),
            expected.last().map(|(key, _)| key),
            "round {round}"
        );
    }
}

#[test]
fn what_comes_and_goes_takes_no_memory() {
    // Of a prefix each, many to a prefix, and all of one.
    let by_prefix = [8, 7, 0].map(|bytes| MemtableKind::Prefix(PrefixRule { bytes, pieces: 0 }));
    for kind in [MemtableKind::Ordered].into_iter().chain(by_prefix) {
        comes_and_goes(kind);
    }
}

fn comes_and_goes(kind: MemtableKind) {
    let mut memtable = Memtable::new(kind, 7);
    let mut most = 0;
    for n in 0..20_000_u64 {
        let (new, old) = (n.to_be_bytes(), n.wrapping_sub(300).to_be_bytes());
        let probe = memtable.find(&new, key::hash(&new));
        memtable.write(probe, &new, 2 * n, EntryKind::Put, &[1; 20]);
        let probe = memtable.find(&old, key::hash(&old));
        memtable.remove(probe, &old, 2 * n + 1);
        // Groups of 256 have been in the tree, and gone, by then.
        if n == 1000 {
            most = memtable.bytes();
        }
    }
    assert_eq!((memtable.len(), memtable.bytes() <= most), (300, true), "{most}");
    assert_eq!((memtable.is_empty(), memtable.seqnos()), (false, (0, 39_999)));
}

#[test]
fn what_a_cursor_sees_is_not_removed_while_it_lives() {
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    for kind in [MemtableKind::Ordered, by_prefix] {
        is_not_removed_while_it_lives(kind);
    }
}

fn is_not_removed_while_it_lives(kind: MemtableKind) {
    let mut active = Active::new(Memtable::new(kind, 7));
    let write = |active: &mut Active, key: &[u8], seqno: u64, kind: Option<EntryKind>| {
        let probe = active.memtable.find(key, key::hash(key));
        match kind {
            Some(kind) => active.memtable.write(probe, key, seqno, kind, b"v"),
            None => active.memtable.remove(probe, key, seqno),
        }
    };
    let seen = |active: &Active, below: u64| {
        let (order, all) = (active.order_in(&KeyRange::all()), Arc::new(KeyRange::all()));
        let mut iter = MemtableIter::within(Held::Borrowed(&active.memtable), order, &all, below);
        iter.seek(&[]);
        let mut seen = Vec::new();
        while iter.is_valid() {
            seen.push((iter.key().to_vec(), iter.kind()));
            iter.next_key();
        }
        seen
    };
    write(&mut active, b"a", 1, Some(EntryKind::Put));
    write(&mut active, b"b", 2, Some(EntryKind::Put));
    let watch = active.memtable.watch(3);
    write(&mut active, b"a", 3, None);
    write(&mut active, b"c", 4, Some(EntryKind::Put));
    write(&mut active, b"c", 5, None);
    write(&mut active, b"b", 6, Some(EntryKind::Put));
    write(&mut active, b"b", 7, None);
    let both = vec![(b"a".to_vec(), EntryKind::Put), (b"b".to_vec(), EntryKind::Put)];
    assert_eq!(seen(&active, 3), both);
    let tombstones = vec![
        (b"a".to_vec(), EntryKind::Delete),
        (b"b".to_vec(), EntryKind::Delete),
    ];
    assert_eq!(seen(&active, 8), tombstones, "c was gone before anybody saw it");
    drop(watch);
    write(&mut active, b"a", 8, None);
    write(&mut active, b"b", 9, None);
    assert_eq!((seen(&active, 10), active.memtable.len()), (vec![], 0));
}

#[test]
fn ranges_of_groups_are_those_of_a_map() {
    for seed in 0..30 {
        let mut random = Random::from_seed(seed);
        let rule = PrefixRule {
            bytes: random.below(3) as u16,
            pieces: random.below(3) as u8,
        };
        let mut active = Active::new(Memtable::new(MemtableKind::Prefix(rule), random.u64()));
        let mut model = BTreeMap::new();
        let letters = 2 + random.below(2);
        let key = |random: &mut Random| -> Vec<u8> {
            // `00 01` often: keys of many pieces, and of fewer than the prefix has.
            let length = random.below(8);
            (0..length).map(|_| random.below(letters) as u8).collect()
        };
        for seqno in 0..800_u64 {
            let mut key = key(&mut random);
            if random.one_in(3) {
                // Alike behind the words of a group.
                key.extend(vec![1; random.index(20)]);
            }
            let value = vec![1; random.index(30)];
            let probe = active.memtable.find(&key, key::hash(&key));
            if random.below(4) == 0 {
                active.memtable.remove(probe, &key, seqno);
                model.remove(&key);
            } else {
                active.memtable.write(probe, &key, seqno, EntryKind::Put, &value);
                model.insert(key, value);
            }
        }
        for round in 0..400 {
            let range = match round % 4 {
                0 => KeyRange::prefix(&key(&mut random)),
                1 => KeyRange {
                    start: key(&mut random),
                    end: None,
                },
                _ => {
                    let prefix = KeyRange::prefix(&key(&mut random));
                    let mut start = prefix.start.clone();
                    start.extend(key(&mut random));
                    KeyRange { start, ..prefix }
                }
            };
            if range.is_empty() {
                continue;
            }
            let order = active.order_in(&range);
            let bounds = Arc::new(range);
            let mut iter = MemtableIter::within(Held::Borrowed(&active.memtable), order, &bounds, u64::MAX);
            let inside = model.iter().filter(|(key, _)| bounds.contains(key));
            let expected: Vec<_> = inside.map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
            iter.seek(&[]);
            for &(key, value) in &expected {
                assert!(iter.is_valid(), "seed {seed}: {key:?} of {bounds:?} is missing");
                assert_eq!((iter.key(), iter.entry().value), (key, value), "seed {seed}");
                iter.next_key();
            }
            assert!(!iter.is_valid(), "seed {seed}: {bounds:?}");
            iter.seek_before(None);
            for &(key, _) in expected.iter().rev() {
                assert!(iter.is_valid(), "seed {seed}: {key:?} of {bounds:?} is missing");
                assert_eq!(iter.key(), key, "seed {seed}");
                iter.prev_key();
            }
            assert!(!iter.is_valid(), "seed {seed}: {bounds:?}");
        }
    }
}
