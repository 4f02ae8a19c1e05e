//! If this fails, a program that reads what it is about to write decides on other values than those that are written.

use crate::support::{Chain, Map, content, disk, scale, simulated};
use keybed_env::Random;
use keybed_lsm::{Append, Family, FamilyOptions, IndexedBatch, MergeOperator, Store};
use std::{ops::Bound, path::Path, sync::Arc};

fn operator(number: usize) -> Option<Arc<dyn MergeOperator>> {
    match number {
        0 => None,
        1 => Some(Arc::new(Append)),
        _ => Some(Arc::new(Chain)),
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => vec![0xff; random.index(3)],
        _ => vec![b'k', random.below(40) as u8],
    }
}

/// Does one random operation to the batch, and to the model.
fn add(random: &mut Random, batch: &mut IndexedBatch, number: usize, family: Family, model: &mut Map) {
    let (key, value) = (key(random), vec![random.u64() as u8; random.index(20)]);
    match random.below(8) {
        6 => {
            let other = self::key(random);
            let (low, high) = if key < other { (key, other) } else { (other, key) };
            batch.delete_range(family, &low[..]..&high[..]);
            model.retain(|at, _| *at < low || *at >= high);
        }
        7 => {
            let prefix = &key[..random.index(key.len() + 1).max(1).min(key.len())];
            batch.delete_prefix(family, prefix);
            model.retain(|at, _| !at.starts_with(prefix));
        }
        0..=2 => {
            batch.put(family, &key, &value);
            model.insert(key, value);
        }
        3 => {
            batch.delete(family, &key);
            model.remove(&key);
        }
        4 if number < 2 => {
            batch.append(family, &key, &value);
            model.entry(key).or_default().extend(value);
        }
        _ => {
            let Some(operator) = operator(number) else { return };
            batch.merge(family, &key, &value);
            let mut new = Vec::new();
            let old = model.get(&key).map(Vec::as_slice);
            operator.merge(old, &value, &mut new).unwrap();
            model.insert(key, new);
        }
    }
}

fn check(random: &mut Random, store: &Store, batch: &IndexedBatch, family: Family, model: &Map, what: &str) {
    let wanted = key(random);
    let found = batch
        .get(store, family, &wanted)
        .unwrap()
        .map(|value| value.to_vec());
    assert_eq!(found.as_ref(), model.get(&wanted), "{what}");
    let (a, b) = (key(random), key(random));
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let inside = |at: &Vec<u8>| *at >= low && *at < high;
    let expected: Vec<_> = model.clone().into_iter().filter(|(at, _)| inside(at)).collect();
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&low), Bound::Excluded(&high));
    let up: Vec<_> = batch
        .range(store, family, bounds)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(up, expected, "{what}");
    let down = batch
        .range_rev(store, family, bounds)
        .unwrap()
        .map(Result::unwrap);
    let mut down: Vec<_> = down.collect();
    down.reverse();
    assert_eq!(down, expected, "{what}, downwards");
    let prefix: Map = batch
        .prefix(store, family, b"k")
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected: Map = model
        .clone()
        .into_iter()
        .filter(|(at, _)| at.starts_with(b"k"))
        .collect();
    assert_eq!(prefix, expected, "{what}, prefix");
    let down = batch.prefix_rev(store, family, b"k").unwrap().map(Result::unwrap);
    let mut down: Vec<_> = down.collect();
    down.reverse();
    assert_eq!(
        down,
        expected.into_iter().collect::<Vec<_>>(),
        "{what}, prefix downwards"
    );
    let nothing = (Bound::Included(high.as_slice()), Bound::Excluded(low.as_slice()));
    assert_eq!(batch.range(store, family, nothing).unwrap().count(), 0, "{what}");
    let all: Map = batch
        .range(store, family, ..)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(all, *model, "{what}");
}

#[test]
fn a_batch_reads_what_the_store_will_hold() {
    for seed in 0..scale(10) {
        let mut random = Random::from_seed(seed);
        let mut store = Store::open(Path::new("s"), simulated(disk(), seed)).unwrap();
        let families: Vec<Family> = (0..3)
            .map(|number| {
                let options = FamilyOptions {
                    merge: operator(number),
                    ..FamilyOptions::default()
                };
                store.family_with(&format!("family {number}"), options).unwrap()
            })
            .collect();
        let mut models = vec![Map::new(); 3];
        let mut batch = IndexedBatch::new();
        for round in 0..60 {
            let what = format!("seed {seed}, round {round}");
            let written = models.clone();
            batch.clear();
            for _ in 0..random.index(30) {
                let number = random.index(3);
                add(
                    &mut random,
                    &mut batch,
                    number,
                    families[number],
                    &mut models[number],
                );
                let number = random.index(3);
                check(
                    &mut random,
                    &store,
                    &batch,
                    families[number],
                    &models[number],
                    &what,
                );
            }
            if random.one_in(4) {
                // Thrown away: the store never saw it.
                models = written;
            } else {
                store.write(&batch).unwrap();
                assert_eq!(batch.as_batch().len(), batch.len());
            }
            if random.one_in(8) {
                store.flush().unwrap();
            }
            for (family, model) in families.iter().zip(&models) {
                assert_eq!(content(&store, *family).unwrap(), *model, "{what}");
            }
        }
        store.close().unwrap();
    }
}
