//! Nanoseconds per operation of the store, for finding waste: `cargo run --release -p keybed-lsm --example
//! store_speed [KEYS] [DIR]`. Keys are `[u16][u64][6 bytes]`, values 8 to 100 bytes. The comparison with other
//! engines is in `benches/`.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_env::Random;
use keybed_format::{Result, checksum};
use keybed_lsm::{Store, StoreOptions, Update};
use std::time::Instant;

/// CPU time in nanoseconds of the whole process, background threads included, and of this thread.
fn cpu_ns() -> (u64, u64) {
    let parse = |stat: String| {
        stat.split(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let read = |path: &std::path::Path| std::fs::read_to_string(path).map_or(0, parse);
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let all = tasks.map(|task| read(&task.path().join("schedstat"))).sum();
    (all, read(std::path::Path::new("/proc/thread-self/schedstat")))
}

fn key(number: u64) -> [u8; 16] {
    let scrambled = checksum::hash(&number.to_le_bytes());
    let mut key = [0; 16];
    key[..2].copy_from_slice(&((scrambled >> 57) as u16).to_be_bytes());
    key[2..10].copy_from_slice(&scrambled.to_be_bytes());
    key[10..].copy_from_slice(&number.to_be_bytes()[2..]);
    key
}

fn value_bytes(number: u64) -> usize {
    8 + (checksum::hash(&(number ^ 0x55).to_le_bytes()) % 93) as usize
}

struct Meter {
    ops: u64,
}

impl Meter {
    fn run(&self, name: &str, work: impl FnOnce() -> Result) -> Result {
        let (wall, (all, own)) = (Instant::now(), cpu_ns());
        work()?;
        let (wall, (all_after, own_after)) = (wall.elapsed().as_nanos() as u64, cpu_ns());
        let per = |ns: u64| ns / self.ops;
        let (wall, all, own) = (per(wall), per(all_after - all), per(own_after - own));
        println!("{name:<34} {wall:>7} ns wall {all:>7} ns cpu {own:>7} ns cpu of the owner");
        Ok(())
    }
}

fn main() -> Result {
    let keys: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let temporary = tempfile::tempdir().map_err(|e| keybed_format::Error::io("create", "a directory", e))?;
    let dir = std::env::args()
        .nth(2)
        .map_or_else(|| temporary.path().to_path_buf(), Into::into)
        .join("speed");
    let mut store = Store::open(&dir, StoreOptions::default())?;
    let family = store.family("speed")?;
    let mut random = Random::from_seed(1);
    let meter = Meter { ops: keys };
    let payload = [7_u8; 128];

    meter.run("load, flushes included", || {
        for n in 0..keys {
            store.put(family, &key(n), &payload[..value_bytes(n)])?;
        }
        store.flush()
    })?;
    let get = |store: &Store, random: &mut Random, from: u64, expected: bool| {
        let mut bytes = 0;
        for _ in 0..keys {
            let found = store.get(family, &key(from + random.below(keys)))?;
            assert_eq!(
                found.is_some(),
                expected,
                "the store lost a key or found a stranger"
            );
            bytes += found.map_or(0, |value| value.len());
        }
        std::hint::black_box(bytes);
        Ok(())
    };
    let batches = |store: &Store, family, random: &mut Random, from: u64, keys: u64, rounds: u64| {
        let mut bytes = 0;
        for _ in 0..rounds / 16 {
            let wanted: [_; 16] = std::array::from_fn(|_| key(from + random.below(keys)));
            for value in store.multi_get(family, &wanted)? {
                bytes += value?.map_or(0, |value| value.len());
            }
        }
        std::hint::black_box(bytes);
        Ok(())
    };
    println!("runs {}, tables {}", store.stats().runs_max, store.stats().tables);
    meter.run("get hit, tables (first touch)", || {
        get(&store, &mut random, 0, true)
    })?;
    meter.run("get hit, tables", || get(&store, &mut random, 0, true))?;
    meter.run("multi_get of 16, tables", || {
        batches(&store, family, &mut random, 0, keys, keys)
    })?;
    meter.run("multi_get of 16, miss", || {
        batches(&store, family, &mut random, keys, keys, keys)
    })?;
    meter.run("get miss", || get(&store, &mut random, keys, false))?;
    meter.run("compact", || store.compact(family))?;
    meter.run("get hit, bottom (first touch)", || {
        get(&store, &mut random, 0, true)
    })?;
    meter.run("get hit, bottom", || get(&store, &mut random, 0, true))?;
    meter.run("multi_get of 16, bottom", || {
        batches(&store, family, &mut random, 0, keys, keys)
    })?;
    meter.run("get miss, bottom", || get(&store, &mut random, keys, false))?;
    let scan = |store: &Store| {
        let mut range = store.range(family, ..)?;
        let mut entries = 0;
        while range.next_entry()?.is_some() {
            entries += 1;
        }
        assert_eq!(entries, keys, "the store lost a key in a scan");
        Ok(())
    };
    meter.run("scan, bottom", || scan(&store))?;
    let update = |store: &mut Store, random: &mut Random, ops: u64| -> Result {
        for _ in 0..ops {
            store.update(family, &key(random.below(keys)), |old| {
                let mut value = [0; 128];
                let old = old.unwrap_or_default();
                value[..old.len()].copy_from_slice(old);
                value[0] = value[0].wrapping_add(1);
                Update::Put(Prefix(value, old.len()))
            })?;
        }
        Ok(())
    };
    meter.run("update, tables below", || update(&mut store, &mut random, keys))?;
    meter.run("update, mixed", || update(&mut store, &mut random, keys))?;
    meter.run("update, mixed", || update(&mut store, &mut random, keys))?;
    meter.run("update in place, mixed", || {
        for _ in 0..keys {
            let found = store.update_in_place(family, &key(random.below(keys)), |value| value[0] ^= 1)?;
            assert!(found, "the store lost a key");
        }
        Ok(())
    })?;
    meter.run("get hit, mixed", || get(&store, &mut random, 0, true))?;
    meter.run("scan, mixed", || scan(&store))?;
    let few = (keys / 10).max(1);
    let hot = Meter { ops: 4 * few };
    let mut small = Store::open(dir.with_extension("small"), StoreOptions::default())?;
    let family_small = small.family("small")?;
    for n in 0..few {
        small.put(family_small, &key(n), &payload[..value_bytes(n)])?;
    }
    hot.run("put existing, memtable", || {
        for _ in 0..4 * few {
            let n = random.below(few);
            small.put(family_small, &key(n), &payload[..value_bytes(n)])?;
        }
        Ok(())
    })?;
    hot.run("get hit, memtable", || {
        for _ in 0..4 * few {
            let found = small.get(family_small, &key(random.below(few)))?;
            assert!(found.is_some(), "the store lost a key");
        }
        Ok(())
    })?;
    hot.run("multi_get of 16, memtable", || {
        batches(&small, family_small, &mut random, 0, few, 4 * few)
    })?;
    hot.run("update in place, memtable", || {
        for _ in 0..4 * few {
            small.update_in_place(family_small, &key(random.below(few)), |value| value[0] ^= 1)?;
        }
        Ok(())
    })?;
    // All keys in one memtable.
    let options = StoreOptions {
        memtable_bytes: 4 << 30,
        ..StoreOptions::default()
    };
    let mut large = Store::open(dir.with_extension("large"), options)?;
    let family_large = large.family("large")?;
    meter.run("load, one memtable", || {
        for n in 0..keys {
            large.put(family_large, &key(n), &payload[..value_bytes(n)])?;
        }
        Ok(())
    })?;
    meter.run("get hit, one memtable", || {
        for _ in 0..keys {
            let found = large.get(family_large, &key(random.below(keys)))?;
            assert!(found.is_some(), "the store lost a key");
        }
        Ok(())
    })?;
    meter.run("get hit, each after the last", || {
        let mut last = 0;
        for _ in 0..keys {
            let found = large.get(family_large, &key((random.below(keys) ^ last) % keys))?;
            last = found.map_or(0, |value| u64::from(value[0] & 1));
        }
        Ok(())
    })?;
    meter.run("multi_get of 16, one memtable", || {
        batches(&large, family_large, &mut random, 0, keys, keys)
    })?;
    meter.run("prefetch of 16, then update in place", || {
        for _ in 0..keys / 16 {
            let wanted: [_; 16] = std::array::from_fn(|_| key(random.below(keys)));
            large.prefetch(family_large, &wanted)?;
            for key in &wanted {
                large.update_in_place(family_large, key, |value| value[0] ^= 2)?;
            }
        }
        Ok(())
    })?;
    drop(large);
    let mut pins = Vec::new();
    for round in 0..100 {
        for n in 0..500 {
            store.put(family, &key(round * 500 + n), &payload[..value_bytes(n)])?;
        }
        let (wall, (_, own)) = (Instant::now(), cpu_ns());
        let pinning = store.pin()?;
        pins.push((wall.elapsed().as_micros(), (cpu_ns().1 - own) / 1000));
        drop(pinning.finish()?);
    }
    pins.sort_unstable();
    println!(
        "pin of {keys} keys, wall µs: median {}, worst {}; cpu µs with the clock's own: {}",
        pins[50].0, pins[99].0, pins[50].1
    );
    println!("runs {} while merges go on", store.stats().runs_max);
    Meter { ops: 1_000_000 }.run("merges to the end, per ms", || store.wait_for_background())?;
    println!("{:?}", store.stats());
    small.close()?;
    store.close()
}

struct Prefix([u8; 128], usize);

impl AsRef<[u8]> for Prefix {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}
