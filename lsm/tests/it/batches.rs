//! If this fails, a batch takes effect in part, in another order, or with other values than its single writes.

use crate::support::{Chain, Map, content, disk, scale, simulated};
use keybed_env::{Random, SimFs};
use keybed_format::Code;
use keybed_lsm::{
    Append, Durability, Family, FamilyOptions, MergeOperator, Store, StoreOptions, SumI64, WriteBatch,
    floor::FLOORS_MAX, key, range_delete::RANGE_DELETES_MAX,
};
use std::sync::Arc;

const FAMILIES: usize = 4;

fn operator(number: usize) -> Option<Arc<dyn MergeOperator>> {
    match number {
        0 => None,
        1 => Some(Arc::new(Append)),
        2 => Some(Arc::new(SumI64)),
        _ => Some(Arc::new(Chain)),
    }
}

fn families(store: &mut Store) -> Vec<Family> {
    (0..FAMILIES)
        .map(|number| {
            let options = FamilyOptions {
                merge: operator(number),
                ..FamilyOptions::default()
            };
            store.family_with(&format!("family {number}"), options).unwrap()
        })
        .collect()
}

/// Adds one random operation to a batch, and does it to the model.
fn add(batch: &mut WriteBatch, tokens: &[Family], models: &mut [Map], random: &mut Random) {
    let number = random.index(FAMILIES);
    let (family, model) = (tokens[number], &mut models[number]);
    let key = vec![b'k', random.below(30) as u8];
    let value = match number {
        2 => random.u64().to_le_bytes().to_vec(),
        _ => vec![random.u64() as u8; random.index(40)],
    };
    match random.below(6) {
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
        _ if number > 0 => {
            batch.merge(family, &key, &value);
            let mut new = Vec::new();
            let operator = operator(number).unwrap();
            operator
                .merge(model.get(&key).map(Vec::as_slice), &value, &mut new)
                .unwrap();
            model.insert(key, new);
        }
        _ => {}
    }
}

#[test]
fn batches_over_families_do_what_their_operations_do() {
    for seed in 0..scale(12) {
        let mut random = Random::from_seed(seed);
        let mut store = Store::open("s", simulated(disk(), seed)).unwrap();
        let tokens = families(&mut store);
        let mut models = vec![Map::new(); FAMILIES];
        let mut batch = WriteBatch::new();
        for round in 0..150 {
            batch.clear();
            for _ in 0..random.index(25) {
                add(&mut batch, &tokens, &mut models, &mut random);
            }
            let before = store.next_seqno();
            store.write(&batch).unwrap();
            assert_eq!(store.next_seqno(), before + batch.len() as u64);
            if random.one_in(10) {
                store.flush().unwrap();
            }
            for (family, model) in tokens.iter().zip(&models) {
                assert_eq!(
                    &content(&store, *family).unwrap(),
                    model,
                    "seed {seed}, round {round}"
                );
            }
        }
    }
}

#[test]
fn a_batch_with_one_bad_operation_changes_nothing() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let tokens = families(&mut store);
    store.put(tokens[0], b"k", b"old").unwrap();
    let strange = Store::open("t", simulated(disk(), 2))
        .and_then(|mut other| (0..9).map(|n| other.family(&format!("f{n}"))).last().unwrap())
        .unwrap();
    let long = vec![0; key::KEY_BYTES_MAX + 1];
    type Bad<'a> = &'a dyn Fn(&mut WriteBatch);
    let bad: [(Bad<'_>, Code); 6] = [
        (
            &|batch| {
                batch.put(tokens[0], &long, b"");
            },
            Code::KeyTooLarge,
        ),
        (
            &|batch| {
                batch.delete(tokens[0], &long);
            },
            Code::KeyTooLarge,
        ),
        (
            &|batch| {
                batch.merge(tokens[0], b"k", b"");
            },
            Code::MergeFailed,
        ),
        (
            &|batch| {
                batch.merge(tokens[2], b"k", b"x");
            },
            Code::MergeFailed,
        ),
        (
            &|batch| {
                batch.append(tokens[3], b"k", b"x");
            },
            Code::InvalidArgument,
        ),
        (
            &|batch| {
                batch.put(strange, b"k", b"");
            },
            Code::InvalidArgument,
        ),
    ];
    for (add, code) in bad {
        let mut batch = WriteBatch::new();
        batch.put(tokens[0], b"k", b"new").append(tokens[1], b"k", b"new");
        add(&mut batch);
        batch.delete(tokens[0], b"k");
        let before = store.next_seqno();
        assert_eq!(store.write(&batch).unwrap_err().code(), code);
        assert_eq!(store.next_seqno(), before);
        assert_eq!(store.get(tokens[0], b"k").unwrap().unwrap(), b"old");
        assert!(store.get(tokens[1], b"k").unwrap().is_none());
    }
    store.write(&WriteBatch::new()).unwrap();
}

#[test]
fn growth_beyond_the_limit_of_a_value_is_refused_before_anything_changes() {
    let options = StoreOptions {
        memtable_bytes: 400 << 20,
        ..simulated(disk(), 1)
    };
    let mut store = Store::open("s", options).unwrap();
    let tokens = families(&mut store);
    let half = vec![1; key::VALUE_BYTES_MAX / 2];
    store.put(tokens[0], b"k", &half).unwrap();
    let mut batch = WriteBatch::new();
    batch
        .put(tokens[1], b"other", b"v")
        .append(tokens[0], b"k", &half);
    store.write(&batch).unwrap();
    batch.clear();
    batch.put(tokens[1], b"other", b"w").append(tokens[0], b"k", b"x");
    assert_eq!(store.write(&batch).unwrap_err().code(), Code::ValueTooLarge);
    assert_eq!(store.get(tokens[1], b"other").unwrap().unwrap(), b"v");
    // Together more than one value may have, but no single one.
    batch.clear();
    batch
        .append(tokens[1], b"a", &half)
        .append(tokens[1], b"b", &half)
        .append(tokens[1], b"c", b"x");
    store.write(&batch).unwrap();
    assert_eq!(store.get(tokens[1], b"b").unwrap().unwrap().len(), half.len());
    batch.clear();
    batch
        .put(tokens[0], b"k", b"short")
        .append(tokens[0], b"k", b"er");
    store.write(&batch).unwrap();
    assert_eq!(store.get(tokens[0], b"k").unwrap().unwrap(), b"shorter");
}

#[test]
fn appending_behind_a_range_delete_of_the_same_batch_begins_anew() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let tokens = families(&mut store);
    store.put(tokens[0], b"k", b"old").unwrap();
    store.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch
        .delete_range(tokens[0], ..)
        .append(tokens[0], b"k", b"new")
        .put(tokens[0], b"l", b"v");
    store.write(&batch).unwrap();
    assert_eq!(store.get(tokens[0], b"k").unwrap().unwrap(), b"new");
    batch.clear();
    batch
        .delete_range(tokens[0], &b"l"[..]..&b"l"[..])
        .delete_range(tokens[0], &b"k"[..]..&b"l"[..]);
    assert_eq!(batch.len(), 1, "an empty range adds nothing");
    store.write(&batch).unwrap();
    assert!(store.get(tokens[0], b"k").unwrap().is_none());
    assert_eq!(store.get(tokens[0], b"l").unwrap().unwrap(), b"v");
}

#[test]
fn a_batch_that_fills_memtables_appends_to_what_it_wrote_itself() {
    // The memtable is full with the last of these, or with the one before it.
    for (seed, fillers) in [(1, RANGE_DELETES_MAX - 1), (2, RANGE_DELETES_MAX)] {
        let mut store = Store::open("s", simulated(disk(), seed)).unwrap();
        let family = store.family("plain").unwrap();
        for key in [b"a", b"b", b"c", b"d"] {
            store.put(family, key, b"old").unwrap();
        }
        store.flush().unwrap();
        let mut batch = WriteBatch::new();
        batch.put(family, b"a", b"new").delete(family, b"b");
        batch.delete_range(family, &b"c"[..]..&b"d"[..]);
        for number in 0..fillers as u32 {
            let key = [&b"z"[..], &(2 * number).to_be_bytes()].concat();
            batch.delete_range(family, &key[..]..=&key[..]);
        }
        for key in [b"a", b"b", b"c", b"d"] {
            batch.append(family, key, b"+");
        }
        store.write(&batch).unwrap();
        assert!(store.stats().seals > 1, "no memtable was sealed by the batch");
        let found = content(&store, family).unwrap();
        let values: Vec<&[u8]> = found.values().map(Vec::as_slice).collect();
        assert_eq!(values, [&b"new+"[..], b"+", b"+", b"old+"], "{fillers} fillers");
    }
}

fn logged(fs: Arc<SimFs>, seed: u64) -> StoreOptions {
    StoreOptions {
        durability: Durability::Buffered,
        ..simulated(fs, seed)
    }
}

#[test]
fn a_batch_raises_floors_beside_its_other_writes() {
    let fs = disk();
    let options = FamilyOptions {
        partition_prefix: 1,
        ..FamilyOptions::default()
    };
    let mut store = Store::open("s", logged(fs.clone(), 1)).unwrap();
    let family = store.family_with("timers", options.clone()).unwrap();
    for key in [b"p1", b"p3", b"p5", b"q1"] {
        store.put(family, key, b"old").unwrap();
    }
    store.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch
        .put(family, b"p0", b"gone")
        .raise_floor(family, b"p", b"4")
        .append(family, b"p1", b"+")
        .put(family, b"p2", b"new")
        // Lies below the one before: nothing happens.
        .raise_floor(family, b"p", b"3")
        .delete_prefix(family, b"q");
    let seqno = store.next_seqno();
    store.write(&batch).unwrap();
    assert_eq!(store.next_seqno(), seqno + 6);
    let expected: Map = [(&b"p1"[..], &b"+"[..]), (b"p2", b"new"), (b"p5", b"old")]
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .into();
    assert_eq!(content(&store, family).unwrap(), expected);
    assert_eq!(store.floor(family, b"p").unwrap().unwrap(), b"4");

    let mut wrong = WriteBatch::new();
    wrong.put(family, b"x", b"x").raise_floor(family, b"pp", b"4");
    assert_eq!(store.write(&wrong).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(content(&store, family).unwrap(), expected, "all or nothing");

    // The process dies; the log has all of it.
    drop(store);
    let mut store = Store::open("s", logged(fs, 2)).unwrap();
    let family = store.family_with("timers", options).unwrap();
    assert_eq!(content(&store, family).unwrap(), expected);
    assert_eq!(store.floor(family, b"p").unwrap().unwrap(), b"4");
    store.flush().unwrap();
    assert_eq!(content(&store, family).unwrap(), expected);
}

#[test]
fn a_batch_of_too_many_floors_is_refused_before_anything_is_written() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let options = FamilyOptions {
        partition_prefix: 4,
        ..FamilyOptions::default()
    };
    let family = store.family_with("timers", options).unwrap();
    let raise = |count: u32| {
        let mut batch = WriteBatch::new();
        for number in 0..count {
            batch.raise_floor(family, &number.to_be_bytes(), b"x");
        }
        // Twice the same partition, and floors that forbid nothing, take no room.
        batch
            .raise_floor(family, &[0; 4], b"y")
            .raise_floor(family, &[0xff; 4], b"");
        batch
    };
    let many = FLOORS_MAX as u32;
    assert_eq!(
        store.write(&raise(many + 1)).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert!(store.floor(family, &[0; 4]).unwrap().is_none());
    store.write(&raise(many)).unwrap();
    assert_eq!(store.floor(family, &[0; 4]).unwrap().unwrap(), b"y");
    assert_eq!(
        store.write(&raise(many + 1)).unwrap_err().code(),
        Code::InvalidArgument
    );
}
