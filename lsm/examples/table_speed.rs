//! Prints what a read of one table costs:
//! `cargo run --release -p keybed-lsm --example table_speed [ENTRIES] [map|cache]`.
//!
//! CPU nanoseconds of this thread per operation (the machine may be shared), look-ups independent and in random
//! order, every answer checked. Fixed: 16-byte keys, 8-byte values. Varying: 12 to 23, 8 to 99.

use keybed_env::OsFs;
use keybed_format::{Error, Result};
use keybed_lsm::{
    BlockCache, Entry, EntryKind, TableId,
    key::{SEQNO_MAX, hash},
    table::{BlockAccess, TableBuilder, TableFacts, TableIter, TableOptions, TableReader, TableView},
};
use std::{hint::black_box, path::Path, sync::Arc};

/// A small generator with a fixed seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (self.next() % (i as u64 + 1)) as usize;
            items.swap(i, j);
        }
    }
}

/// CPU nanoseconds this thread has used: the first number of its schedstat, which is exact after a sleep.
fn cpu_ns() -> u64 {
    std::thread::sleep(std::time::Duration::from_millis(1));
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn measure(what: &str, operations: usize, work: impl FnOnce() -> Result<u64>) -> Result {
    let start = cpu_ns();
    let sum = black_box(work()?);
    let spent = (cpu_ns() - start) as f64;
    println!(
        "  {what:<40} {:>8.1} ns   ({sum} checked)",
        spent / operations as f64
    );
    Ok(())
}

/// `[key group u16][state u16][random]`, sorted; the last byte is even, so keys with an odd one are strangers.
fn keys(entries: usize, vary: bool, dice: &mut Dice) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..entries)
        .map(|_| {
            let (group, a, b) = ((dice.next() % 128) as u16, dice.next(), dice.next());
            let mut key = [
                &group.to_be_bytes()[..],
                &[0, 1],
                &a.to_be_bytes(),
                &b.to_be_bytes(),
                &[0; 3],
            ]
            .concat();
            key.truncate(if vary { 11 + (b % 12) as usize } else { 15 });
            key.push(b as u8 & 0xfe);
            key
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    // Copies lie in memory in their order, as they do in a sorted memtable.
    keys.iter().map(|key| key.as_slice().into()).collect()
}

fn value_bytes(index: usize, vary: bool) -> usize {
    if vary { 8 + index * 31 % 92 } else { 8 }
}

fn build(path: &Path, keys: &[Vec<u8>], vary: bool) -> Result<TableFacts> {
    let mut builder = TableBuilder::new(&OsFs, path, TableId(1), TableOptions::default())?;
    let mut value = [0; 100];
    for (i, key) in keys.iter().enumerate() {
        value[..8].copy_from_slice(&(i as u64).to_le_bytes());
        let value = &value[..value_bytes(i, vary)];
        builder.add(Entry {
            key,
            seqno: i as u64,
            kind: EntryKind::Put,
            value,
        })?;
    }
    builder.finish(false)
}

/// Keys in the order in which they are asked, one behind the other, as records of a stream come.
struct Queries(Vec<u8>);

impl Queries {
    const WIDTH: usize = 24;

    fn new(keys: &[Vec<u8>], order: &[u32]) -> Self {
        let mut all = Vec::with_capacity(order.len() * Self::WIDTH);
        for &i in order {
            let key = &keys[i as usize];
            all.extend_from_slice(key);
            all.resize(all.len() + Self::WIDTH - 1 - key.len(), 0);
            all.push(key.len() as u8);
        }
        Queries(all)
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .chunks_exact(Self::WIDTH)
            .map(|q| &q[..usize::from(q[Self::WIDTH - 1])])
    }

    fn make_strange(&mut self) {
        for query in self.0.chunks_exact_mut(Self::WIDTH) {
            query[usize::from(query[Self::WIDTH - 1]) - 1] |= 1;
        }
    }
}

fn point_reads(reader: &TableReader, keys: &[Vec<u8>], order: &[u32]) -> Result {
    let mut queries = Queries::new(keys, order);
    let all = |queries: &Queries| -> Result<u64> {
        let mut found = 0;
        for (key, &i) in queries.each().zip(order) {
            if let Some(hit) = reader.get(key, hash(key), SEQNO_MAX)? {
                found += u64::from(hit.value.first_chunk() == Some(&u64::from(i).to_le_bytes()));
            }
        }
        assert_eq!(
            found,
            order.len() as u64,
            "a key was not found or had another value"
        );
        Ok(found)
    };
    measure("get, hit, first touch of blocks included", order.len(), || {
        all(&queries)
    })?;
    measure("get, hit", order.len(), || all(&queries))?;
    measure("get, hit, repeated", order.len(), || all(&queries))?;
    let hot: Vec<u32> = order.iter().copied().filter(|i| *i < 64 * 400).collect();
    let hot = Queries::new(keys, &hot);
    let rounds = (order.len() / hot.each().count().max(1)).max(1);
    measure(
        "get, hit, about 64 hot blocks",
        rounds * hot.each().count(),
        || {
            let mut found = 0;
            for _ in 0..rounds {
                for key in hot.each() {
                    found += u64::from(reader.get(key, hash(key), SEQNO_MAX)?.is_some());
                }
            }
            Ok(found)
        },
    )?;
    queries.make_strange();
    measure("get, miss", order.len(), || {
        let mut missed = 0;
        for key in queries.each() {
            missed += u64::from(reader.get(key, hash(key), SEQNO_MAX)?.is_none());
        }
        assert_eq!(missed, order.len() as u64, "a stranger was found");
        Ok(missed)
    })
}

fn scans(reader: &Arc<TableReader>, keys: &[Vec<u8>], order: &[u32]) -> Result {
    let view = TableView::whole(reader.clone());
    measure("scan, key and value", keys.len(), || {
        let (mut right, mut at) = (0, 0_u64);
        let mut iter = TableIter::new(&view);
        iter.seek_to_first()?;
        while iter.valid() {
            right += u64::from(iter.value().first_chunk() == Some(&at.to_le_bytes()));
            black_box(iter.key());
            at += 1;
            iter.next()?;
        }
        assert_eq!(right, keys.len() as u64, "the scan differs");
        Ok(right)
    })?;
    let mut iter = TableIter::new(&view);
    measure("seek and 10 next", order.len() / 10, || {
        let mut bytes = 0;
        for &i in order.iter().take(order.len() / 10) {
            iter.seek(&keys[i as usize])?;
            for _ in 0..10 {
                bytes += iter.value().len() as u64;
                iter.next()?;
            }
        }
        Ok(bytes)
    })
}

fn main() -> Result {
    let entries: usize = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let only = std::env::args().nth(2);
    let dir = tempfile::tempdir().map_err(|e| Error::io("create", "temporary directory", e))?;
    for vary in [false, true] {
        let mut dice = Dice(7);
        let keys = keys(entries, vary, &mut dice);
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        dice.shuffle(&mut order);
        let path = dir.path().join(format!("{vary}.sst"));
        println!(
            "{} entries, {} widths",
            keys.len(),
            if vary { "varying" } else { "fixed" }
        );
        let mut bytes = 0;
        measure("build, filter included", keys.len(), || {
            let facts = build(&path, &keys, vary)?;
            bytes = facts.bytes;
            Ok(facts.entries)
        })?;
        let raw: usize = keys
            .iter()
            .enumerate()
            .map(|(i, key)| key.len() + value_bytes(i, vary))
            .sum();
        let per_entry = |bytes: f64| bytes / keys.len() as f64;
        println!(
            "  bytes per entry {:.1}, key and value {:.1}",
            per_entry(bytes as f64),
            per_entry(raw as f64)
        );
        let cache = Arc::new(BlockCache::new(1 << 30));
        for (name, access) in [
            ("map", BlockAccess::Map(cache.clone())),
            ("cache", BlockAccess::Cache(cache)),
        ] {
            if only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            println!(" {name}");
            let reader = TableReader::open(&OsFs, &path, TableId(1), access)?;
            point_reads(&reader, &keys, &order)?;
            scans(&reader, &keys, &order)?;
        }
    }
    Ok(())
}
