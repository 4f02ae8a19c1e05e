//! List state: elements appended one by one to many lists in turn, then whole lists read.

use super::Bench;
use crate::{
    content::{uniform, user, walk},
    engines::{Engine, Setup},
    measure::{cost, latency},
};

const ELEMENTS: u64 = 30;
const ELEMENT_BYTES: usize = 16;
const LIST_BYTES: usize = ELEMENTS as usize * ELEMENT_BYTES;

fn element(list: u64, n: u64) -> [u8; ELEMENT_BYTES] {
    let mut bytes = [0; ELEMENT_BYTES];
    bytes[..8].copy_from_slice(&list.to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_le_bytes());
    bytes
}

pub fn run(bench: &Bench) {
    let lists = (bench.keys / ELEMENTS).max(100);
    let mut engine = bench.open(&Setup {
        appends: true,
        ..bench.setup.clone()
    });
    let engine = engine.as_mut();
    let mut kb = [0; 26];
    cost("list-append", lists * ELEMENTS, || {
        for n in 0..ELEMENTS {
            for list in walk(lists) {
                engine.append(user(list, &mut kb), &element(list, n));
            }
        }
        engine.settle();
    });
    let mut wanted = Vec::new();
    for list in 0..lists {
        wanted.clear();
        wanted.extend((0..ELEMENTS).flat_map(|n| element(list, n)));
        engine.get(user(list, &mut kb), &mut |v| {
            assert_eq!(v, Some(&wanted[..]), "list {list}")
        });
    }
    let reads = (bench.ops / ELEMENTS * 4).max(1000);
    let mut read = |engine: &mut dyn Engine, op: u64, salt: u64| {
        let list = uniform(op, salt, lists);
        engine.get(user(list, &mut kb), &mut |v| {
            let right = v.is_some_and(|v| v.len() == LIST_BYTES && v.starts_with(&list.to_le_bytes()));
            assert!(right, "list {list}");
        });
    };
    cost("list-read", reads, || {
        (0..reads).for_each(|op| read(engine, op, 1))
    });
    latency("list-read", reads, |op| read(engine, op, 2));
    engine.flush();
    engine.settle();
    cost("list-read-files", reads, || {
        (0..reads).for_each(|op| read(engine, op, 4))
    });
    latency("list-read-files", reads, |op| read(engine, op, 5));
    latency("list-append", bench.ops, |op| {
        engine.append(user(uniform(op, 3, lists), &mut kb), &element(op, 0))
    });
}
