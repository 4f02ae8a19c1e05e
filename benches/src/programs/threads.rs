//! One store, one, two and four threads: each reads keys of all and writes keys of its own.

use super::Bench;
use crate::{
    content::{count_in, key, uniform, value, value_len, walk},
    engines::SharedEngine,
    measure::{cost, number},
};
use std::thread;

const THREADS: [u64; 3] = [1, 2, 4];
/// Keys of a thread are those whose index leaves its number.
const OWNERS: u64 = 4;
/// One operation of so many is a write where both are mixed.
const WRITE_EVERY: u64 = 10;

pub fn run(bench: &Bench) {
    let Some(open) = bench.contender.shared else {
        return;
    };
    number("harness-bytes", (bench.keys * 4) as f64);
    let dir = bench.store_dir();
    std::fs::create_dir_all(&dir).expect("the scratch directory takes a directory");
    let store = open(&dir, &bench.setup);
    let (mut kb, mut vb) = ([0; 26], [0; 128]);
    for i in walk(bench.keys) {
        store.put(key(i, &mut kb), value(i, 0, &mut vb));
    }
    store.settle();
    // Counts of the values, by thread.
    let share = (bench.keys / OWNERS) as usize;
    let mut counts = vec![vec![0_u32; share]; OWNERS as usize];
    for (at, threads) in (0..).zip(THREADS) {
        for (kind, salt) in [(Kind::Get, 200), (Kind::Put, 220), (Kind::Mixed, 240)] {
            let ops = bench.ops / threads * threads;
            cost(&format!("shared-{}-{threads}", kind.name()), ops, || {
                thread::scope(|scope| {
                    for (owner, counts) in (0..threads).zip(&mut counts) {
                        let work = Work {
                            store: store.handle(),
                            keys: bench.keys,
                            owner,
                            kind,
                            salt: salt + at * 4 + owner,
                        };
                        scope.spawn(move || work.run(ops / threads, counts));
                    }
                });
                if kind != Kind::Get {
                    store.settle();
                }
            });
        }
    }
    for (owner, counts) in (0..).zip(&counts) {
        for (n, count) in (0..).zip(counts) {
            let i = n * OWNERS + owner;
            store.get(key(i, &mut kb), &mut |v| {
                assert_eq!(v.map(count_in), Some(u64::from(*count)), "value of key {i}");
            });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Put,
    Mixed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Mixed => "mixed",
        }
    }
}

struct Work {
    store: Box<dyn SharedEngine>,
    keys: u64,
    owner: u64,
    kind: Kind,
    salt: u64,
}

impl Work {
    fn run(&self, ops: u64, counts: &mut [u32]) {
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        for op in 0..ops {
            let writes = match self.kind {
                Kind::Get => false,
                Kind::Put => true,
                Kind::Mixed => op % WRITE_EVERY == 0,
            };
            if writes {
                let n = uniform(op, self.salt, counts.len() as u64);
                let i = n * OWNERS + self.owner;
                counts[n as usize] += 1;
                let value = value(i, u64::from(counts[n as usize]), &mut vb);
                self.store.put(key(i, &mut kb), value);
            } else {
                let i = uniform(op, self.salt, self.keys);
                self.store.get(key(i, &mut kb), &mut |v| {
                    assert_eq!(v.map(<[u8]>::len), Some(value_len(i)), "key {i}");
                });
            }
        }
    }
}
