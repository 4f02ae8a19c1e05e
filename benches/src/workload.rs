//! Keys, values, phases and the checks that make a figure count.
//!
//! A key is `[key group u16][8 to 16 scrambled bytes]`, a value 8 to 100 bytes whose first eight count increments;
//! both follow from the index alone, so nothing is kept in memory but one expected count per key.

use crate::{
    engine::Engine,
    measure::{Cost, cost, disk_bytes},
};
use std::path::Path;

const KEY_GROUPS: u64 = 128;
/// Skew of the Zipf phases.
const ZIPF_THETA: f64 = 0.99;

/// Names of the phases, in the order they run.
pub const PHASES: [&str; 6] = [
    "load, random order",
    "point get, hit, uniform",
    "point get, hit, Zipf 0.99",
    "point get, miss",
    "read-modify-write, uniform",
    "read-modify-write, Zipf 0.99",
];

/// One programme, the same for every engine.
pub struct Workload {
    pub keys: u64,
    pub ops: u64,
    zipf: Zipf,
}

/// What one engine did in one round.
pub struct Figures {
    /// One per phase.
    pub costs: [Cost; PHASES.len()],
    /// Bytes on disk after the last phase and settling.
    pub disk_bytes: u64,
    /// Bytes of keys and values that are live.
    pub live_bytes: u64,
    /// The engine's own words.
    pub facts: String,
}

/// splitmix64: a bijection, so distinct indexes give distinct scrambled words.
fn scramble(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The key of index `i` in `buffer`; its length follows from the index.
fn key(i: u64, buffer: &mut [u8; 18]) -> &[u8] {
    let word = scramble(i);
    buffer[..2].copy_from_slice(&((word % KEY_GROUPS) as u16).to_be_bytes());
    buffer[2..10].copy_from_slice(&word.to_be_bytes());
    buffer[10..18].copy_from_slice(&scramble(word).to_be_bytes());
    &buffer[..10 + (word >> 32) as usize % 9]
}

fn value_len(i: u64) -> usize {
    8 + (scramble(i ^ 0x5555) % 93) as usize
}

fn value(i: u64, count: u64, buffer: &mut [u8; 100]) -> &[u8] {
    let len = value_len(i);
    buffer[..8].copy_from_slice(&count.to_le_bytes());
    buffer[8..len].fill(i as u8);
    &buffer[..len]
}

fn count_in(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().expect("values have at least eight bytes"))
}

/// Zipf-distributed ranks after Gray et al., "Quickly generating billion-record synthetic databases" (1994).
struct Zipf {
    n: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(n: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| 1.0 / (i as f64).powf(ZIPF_THETA)).sum::<f64>();
        let (zeta_n, zeta_2) = (zeta(n), zeta(2));
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - ZIPF_THETA)) / (1.0 - zeta_2 / zeta_n);
        Zipf {
            n: n as f64,
            alpha: 1.0 / (1.0 - ZIPF_THETA),
            zeta: zeta_n,
            eta,
        }
    }

    /// Rank below n for a random word.
    fn rank(&self, word: u64) -> u64 {
        let u = (word >> 11) as f64 / (1_u64 << 53) as f64;
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(ZIPF_THETA) {
            return 1;
        }
        ((self.n * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64).min(self.n as u64 - 1)
    }
}

impl Workload {
    pub fn new(keys: u64, ops: u64) -> Self {
        Workload {
            keys,
            ops,
            zipf: Zipf::new(keys),
        }
    }

    fn uniform(&self, op: u64, salt: u64) -> u64 {
        scramble(op ^ salt) % self.keys
    }

    /// Index of a Zipf draw; hot ranks are spread over the key space.
    fn skewed(&self, op: u64, salt: u64) -> u64 {
        scramble(self.zipf.rank(scramble(op ^ salt))) % self.keys
    }

    /// Runs all phases on a fresh store in `dir` and checks every result.
    pub fn run(&self, dir: &Path, open: fn(&Path) -> Box<dyn Engine>) -> Figures {
        let mut engine = open(dir);
        let engine = engine.as_mut();
        let (mut kb, mut vb) = ([0; 18], [0; 100]);
        // Load order: a full-period walk over the indexes, so every key is written once, in no key order.
        let stride = (self.keys / 2 + 1..)
            .find(|s| gcd(*s, self.keys) == 1)
            .expect("some stride is coprime");
        let load = cost(self.keys, || {
            let mut i = 0;
            for _ in 0..self.keys {
                engine.put(key(i, &mut kb), value(i, 0, &mut vb));
                i = (i + stride) % self.keys;
            }
            engine.settle();
        });
        let mut hits = 0_u64;
        let mut hit = |engine: &mut dyn Engine, i: u64| {
            engine.get(key(i, &mut kb), &mut |v| {
                hits += u64::from(v.is_some_and(|v| v.len() == value_len(i)))
            });
        };
        let hit_uniform = cost(self.ops, || {
            (0..self.ops).for_each(|op| hit(engine, self.uniform(op, 1 << 40)))
        });
        let hit_zipf = cost(self.ops, || {
            (0..self.ops).for_each(|op| hit(engine, self.skewed(op, 2 << 40)))
        });
        assert_eq!(
            hits,
            2 * self.ops,
            "every key that was loaded is found with its length"
        );
        let mut found = 0_u64;
        let miss = cost(self.ops, || {
            for op in 0..self.ops {
                engine.get(key(self.keys + op, &mut kb), &mut |v| {
                    found += u64::from(v.is_some())
                });
            }
        });
        assert_eq!(found, 0, "no key that was never written is found");

        let mut expected = vec![0_u64; self.keys as usize];
        let rmw_uniform = cost(self.ops, || {
            for op in 0..self.ops {
                let i = self.uniform(op, 3 << 40);
                expected[i as usize] += 1;
                engine.increment(key(i, &mut kb));
            }
            engine.settle();
        });
        let rmw_zipf = cost(self.ops, || {
            for op in 0..self.ops {
                let i = self.skewed(op, 4 << 40);
                expected[i as usize] += 1;
                engine.increment(key(i, &mut kb));
            }
            engine.settle();
        });
        let mut live_bytes = 0;
        for (i, count) in expected.iter().enumerate() {
            let i = i as u64;
            let wanted = value(i, *count, &mut vb);
            let k = key(i, &mut kb);
            live_bytes += (k.len() + wanted.len()) as u64;
            engine.get(k, &mut |v| {
                assert_eq!(v.map(count_in), Some(*count), "count of key {i}");
                assert_eq!(v, Some(wanted), "value of key {i}");
            });
        }
        Figures {
            costs: [load, hit_uniform, hit_zipf, miss, rmw_uniform, rmw_zipf],
            disk_bytes: disk_bytes(dir),
            live_bytes,
            facts: engine.facts(),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
