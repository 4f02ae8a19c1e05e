//! Map state: all entries of one user, by prefix.

use super::Bench;
use crate::{
    content::{part, scramble, uniform, user, walk},
    engines::{Engine, Setup},
    measure::{cost, latency},
};

const ENTRIES: u64 = 55;

pub fn run(bench: &Bench) {
    let maps = (bench.keys / ENTRIES).max(100);
    let mut engine = bench.open(&Setup {
        ordered: true,
        prefix_bytes: 10,
        ..bench.setup.clone()
    });
    let engine = engine.as_mut();
    let mut kb = [0; 26];
    cost("map-load", maps * ENTRIES, || {
        for i in walk(maps * ENTRIES) {
            let (map, entry) = (i % maps, i / maps);
            engine.put(part(map, scramble(entry), &mut kb), &i.to_le_bytes());
        }
        engine.settle();
    });
    let sums: Vec<u64> = (0..maps)
        .map(|map| {
            (0..ENTRIES)
                .map(|entry| map + entry * maps)
                .fold(0, u64::wrapping_add)
        })
        .collect();
    let mut iterate = |engine: &mut dyn Engine, op: u64, salt: u64| {
        let map = uniform(op, salt, maps);
        let (mut entries, mut sum) = (0, 0_u64);
        engine.prefix(user(map, &mut kb), &mut |_, v| {
            entries += 1;
            sum = sum.wrapping_add(v.first_chunk().map_or(0, |v| u64::from_le_bytes(*v)));
            true
        });
        assert_eq!((entries, sum), (ENTRIES, sums[map as usize]), "map {map}");
    };
    let iterations = (bench.ops / ENTRIES * 4).max(1000);
    cost("map-iterate", iterations, || {
        (0..iterations).for_each(|op| iterate(engine, op, 1))
    });
    latency("map-iterate", iterations, |op| iterate(engine, op, 2));
    engine.flush();
    engine.settle();
    cost("map-iterate-files", iterations, || {
        (0..iterations).for_each(|op| iterate(engine, op, 3))
    });
    latency("map-iterate-files", iterations, |op| iterate(engine, op, 4));
}
