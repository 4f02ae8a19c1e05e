//! Value state: load, look-ups, read-modify-writes; then snapshot and reopen of what there is.

use super::Bench;
use crate::{
    content::{KeyBuffer, Zipf, count_in, key, scramble, uniform, value, value_len, walk},
    engines::{Add, Engine},
    measure::{cost, disk_bytes, latency, number, say_latency, thread_cpu_ns},
};
use std::time::Instant;

/// Keys of one `multi_get`.
const BATCH: u64 = 16;
/// Snapshots taken, each after [`SNAPSHOT_WRITES`] writes.
const SNAPSHOTS: u64 = 20;
const SNAPSHOT_WRITES: u64 = 10_000;

/// What the store must hold, and how it is looked at.
struct Point<'a> {
    bench: &'a Bench,
    /// Names of rows begin with it.
    prefix: &'static str,
    zipf: Zipf,
    expected: Vec<u32>,
}

/// All rows.
pub fn run(bench: &Bench) {
    let mut point = Point::new(bench, "");
    let mut engine = bench.open(&bench.setup);
    let engine = engine.as_mut();
    point.load(engine);
    point.hits(engine);
    point.dependent(engine);
    point.batches(engine);
    point.misses(engine);
    point.full_scan(engine, "full-scan");
    point.adds(engine, Add::InPlace);
    if engine.adds_in_place() {
        point.adds(engine, Add::Plain);
    }
    point.adds_announced(engine);
    point.check(engine);
    engine.flush();
    engine.settle();
    point.full_scan(engine, "full-scan-files");
    point.space(engine);
    point.snapshots(engine);
}

/// The rows of a state that is larger than the cache.
pub fn run_beside_cache(bench: &Bench) {
    let mut point = Point::new(bench, "cached-");
    let mut engine = bench.open(&bench.setup);
    {
        let engine = engine.as_mut();
        point.load(engine);
        point.hits(engine);
        point.misses(engine);
        point.adds(engine, Add::InPlace);
        point.check(engine);
        engine.flush();
        engine.settle();
        point.space(engine);
    }
    if !bench.is_reference() {
        point.reopen(engine);
    }
}

/// Load, look-ups and read-modify-writes where memory is short for everything, page cache included.
pub fn run_confined(bench: &Bench) {
    let mut point = Point::new(bench, "confined-");
    let mut engine = bench.open(&bench.setup);
    let engine = engine.as_mut();
    point.load(engine);
    point.hits(engine);
    point.adds(engine, Add::InPlace);
    point.check(engine);
}

/// Look-ups in a state four times larger than all memory that the process may use.
pub fn run_outside(bench: &Bench) {
    let point = Point::new(bench, "outside-");
    let mut engine = bench.open(&bench.setup);
    let engine = engine.as_mut();
    point.load(engine);
    engine.flush();
    engine.settle();
    point.hits(engine);
    point.batches(engine);
    point.misses(engine);
}

impl<'a> Point<'a> {
    fn new(bench: &'a Bench, prefix: &'static str) -> Self {
        number("harness-bytes", (bench.keys * 4) as f64);
        Point {
            bench,
            prefix,
            zipf: Zipf::new(bench.keys),
            expected: vec![0; bench.keys as usize],
        }
    }

    fn row(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Every key once in no order. One write in sixteen is timed on its own meanwhile.
    fn load(&self, engine: &mut dyn Engine) {
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        let mut nanos = Vec::with_capacity(self.bench.keys as usize / 16 + 1);
        cost(&self.row("load"), self.bench.keys, || {
            for (op, i) in walk(self.bench.keys).enumerate() {
                let (key, value) = (key(i, &mut kb), value(i, 0, &mut vb));
                if op % 16 == 0 {
                    let start = Instant::now();
                    engine.put(key, value);
                    nanos.push(start.elapsed().as_nanos() as u64);
                } else {
                    engine.put(key, value);
                }
            }
            engine.settle();
        });
        say_latency(&self.row("load"), &mut nanos);
    }

    fn hits(&self, engine: &mut dyn Engine) {
        let ops = self.bench.ops;
        let mut kb: KeyBuffer = [0; 26];
        let mut hits = 0_u64;
        let mut look = |engine: &mut dyn Engine, i: u64| {
            engine.get(key(i, &mut kb), &mut |v| {
                hits += u64::from(v.is_some_and(|v| v.len() == value_len(i)))
            });
        };
        let keys = self.bench.keys;
        cost(&self.row("get-uniform"), ops, || {
            (0..ops).for_each(|op| look(engine, uniform(op, 1, keys)))
        });
        cost(&self.row("get-zipf"), ops, || {
            (0..ops).for_each(|op| look(engine, self.zipf.draw(op, 2)))
        });
        latency(&self.row("get-uniform"), ops, |op| {
            look(engine, uniform(op, 3, keys))
        });
        latency(&self.row("get-zipf"), ops, |op| {
            look(engine, self.zipf.draw(op, 4))
        });
        let sampled = ops.min(crate::measure::SAMPLES_MAX);
        assert_eq!(
            hits,
            2 * (ops + sampled),
            "every loaded key is found with its length"
        );
    }

    /// Each key follows from the value of the last one.
    fn dependent(&self, engine: &mut dyn Engine) {
        let (ops, keys) = (self.bench.ops, self.bench.keys);
        let mut kb: KeyBuffer = [0; 26];
        let (mut next, mut wanted) = (0, 0);
        let mut step = |engine: &mut dyn Engine, op: u64| {
            let i = next;
            engine.get(key(i, &mut kb), &mut |v| {
                let v = v.expect("a loaded key is found");
                next = scramble(count_in(v) ^ u64::from(v[v.len() - 1]) ^ (op << 8)) % keys;
            });
            wanted ^= i;
        };
        cost(&self.row("get-dependent"), ops, || {
            (0..ops).for_each(|op| step(engine, op))
        });
        std::hint::black_box(wanted);
    }

    fn batches(&self, engine: &mut dyn Engine) {
        let (ops, keys) = (self.bench.ops / BATCH * BATCH, self.bench.keys);
        let mut buffers = [[0; 26]; BATCH as usize];
        let mut hits = 0_u64;
        let mut batch = |engine: &mut dyn Engine, at: u64| {
            let mut wanted: [&[u8]; BATCH as usize] = [&[]; BATCH as usize];
            let mut lens = [0; BATCH as usize];
            for (n, buffer) in buffers.iter_mut().enumerate() {
                let i = uniform(at * BATCH + n as u64, 5, keys);
                lens[n] = value_len(i);
                wanted[n] = key(i, buffer);
            }
            engine.multi_get(&wanted, &mut |n, v| {
                hits += u64::from(v.is_some_and(|v| v.len() == lens[n]))
            });
        };
        cost(&self.row("multi-get"), ops, || {
            (0..ops / BATCH).for_each(|at| batch(engine, at))
        });
        assert_eq!(hits, ops, "every key of every batch is found");
    }

    fn misses(&self, engine: &mut dyn Engine) {
        let (ops, keys) = (self.bench.ops, self.bench.keys);
        let mut kb: KeyBuffer = [0; 26];
        let mut found = 0_u64;
        let mut look = |engine: &mut dyn Engine, op: u64| {
            engine.get(key(keys + op, &mut kb), &mut |v| found += u64::from(v.is_some()));
        };
        cost(&self.row("get-miss"), ops, || {
            (0..ops).for_each(|op| look(engine, op))
        });
        latency(&self.row("get-miss"), ops, |op| look(engine, op));
        assert_eq!(found, 0, "no key that was never written is found");
    }

    fn full_scan(&self, engine: &mut dyn Engine, row: &str) {
        let (mut entries, mut bytes) = (0_u64, 0);
        cost(row, self.bench.keys, || {
            engine.scan(&[], None, &mut |_, v| {
                entries += 1;
                bytes += v.len();
                true
            });
        });
        assert_eq!(entries, self.bench.keys, "a scan shows every key once");
        let wanted: usize = (0..self.bench.keys).map(value_len).sum();
        assert_eq!(bytes, wanted, "a scan shows every value");
    }

    fn adds(&mut self, engine: &mut dyn Engine, how: Add) {
        let (ops, keys) = (self.bench.ops, self.bench.keys);
        let suffix = if how == Add::Plain { "-plain" } else { "" };
        let mut kb: KeyBuffer = [0; 26];
        let (uniform_row, zipf_row) = (
            format!("{}rmw-uniform{suffix}", self.prefix),
            format!("{}rmw-zipf{suffix}", self.prefix),
        );
        let salt = if how == Add::Plain { 20 } else { 10 };
        let (expected, zipf) = (&mut self.expected, &self.zipf);
        let mut add = |engine: &mut dyn Engine, i: u64| {
            expected[i as usize] += 1;
            engine.add(key(i, &mut kb), how);
        };
        cost(&uniform_row, ops, || {
            (0..ops).for_each(|op| add(engine, uniform(op, salt, keys)));
            engine.settle();
        });
        latency(&uniform_row, ops, |op| add(engine, uniform(op, salt + 1, keys)));
        engine.settle();
        cost(&zipf_row, ops, || {
            (0..ops).for_each(|op| add(engine, zipf.draw(op, salt + 2)));
            engine.settle();
        });
        latency(&zipf_row, ops, |op| add(engine, zipf.draw(op, salt + 3)));
        engine.settle();
    }

    /// Read-modify-writes of sixteen keys that are known in advance, as those of a network buffer are.
    fn adds_announced(&mut self, engine: &mut dyn Engine) {
        let (ops, keys) = (self.bench.ops / BATCH * BATCH, self.bench.keys);
        let mut buffers = [[0; 26]; BATCH as usize];
        let expected = &mut self.expected;
        cost("rmw-announced", ops, || {
            for at in 0..ops / BATCH {
                let mut wanted: [&[u8]; BATCH as usize] = [&[]; BATCH as usize];
                for (n, buffer) in (0..).zip(&mut buffers) {
                    let i = uniform(at * BATCH + n, 30, keys);
                    expected[i as usize] += 1;
                    wanted[n as usize] = key(i, buffer);
                }
                engine.announce(&wanted);
                for key in wanted {
                    engine.add(key, Add::InPlace);
                }
            }
            engine.settle();
        });
    }

    /// Every value, byte by byte.
    fn check(&self, engine: &mut dyn Engine) {
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        for (i, count) in (0..).zip(&self.expected) {
            let wanted = value(i, u64::from(*count), &mut vb);
            engine.get(key(i, &mut kb), &mut |v| {
                assert_eq!(v, Some(wanted), "value of key {i}")
            });
        }
    }

    fn space(&self, engine: &mut dyn Engine) {
        let mut kb = [0; 26];
        let live: usize = (0..self.bench.keys)
            .map(|i| key(i, &mut kb).len() + value_len(i))
            .sum();
        number(&self.row("live-bytes"), live as f64);
        number(
            &self.row("disk-bytes"),
            disk_bytes(&self.bench.store_dir()) as f64,
        );
        println!("facts {}", engine.facts());
    }

    /// What blocks the caller: CPU of its thread, and wall time.
    fn snapshots(&self, engine: &mut dyn Engine) {
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        let (mut walls, mut cpus, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..SNAPSHOTS {
            for op in 0..SNAPSHOT_WRITES {
                let i = uniform(op, 40 + round, self.bench.keys);
                engine.put(key(i, &mut kb), value(i, 1, &mut vb));
            }
            let to = self.bench.beside(&format!("snapshot-{round}"));
            let (cpu, wall) = (thread_cpu_ns(), Instant::now());
            let Some(rest) = engine.snapshot(&to) else { return };
            walls.push(wall.elapsed().as_nanos() as u64);
            cpus.push((thread_cpu_ns() - cpu) as u64);
            rest();
            whole.push(wall.elapsed().as_nanos() as u64);
            let _ = std::fs::remove_dir_all(&to);
        }
        say_latency("snapshot-wall", &mut walls);
        say_latency("snapshot-cpu", &mut cpus);
        say_latency("snapshot-whole", &mut whole);
    }

    /// Closes and opens again, five times.
    fn reopen(&self, mut engine: Box<dyn Engine>) {
        let mut nanos = Vec::new();
        for _ in 0..5 {
            engine.close();
            let start = Instant::now();
            engine = self.bench.open(&self.bench.setup);
            nanos.push(start.elapsed().as_nanos() as u64);
            let (mut kb, mut vb) = ([0; 26], [0; 128]);
            let i = self.bench.keys / 3;
            let wanted = value(i, u64::from(self.expected[i as usize]), &mut vb);
            engine.get(key(i, &mut kb), &mut |v| {
                assert_eq!(v, Some(wanted), "after reopening")
            });
        }
        say_latency("reopen", &mut nanos);
    }
}
