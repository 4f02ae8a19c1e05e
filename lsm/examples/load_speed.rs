//! What writing costs, merges included, and what it leaves: `cargo run --release -p keybed-lsm --example load_speed
//! [KEYS] [MEMTABLE_MIB] [DIR]`. Loads in random and in sorted order, then overwrites at random; prints CPU per
//! write, amplification of writes and space, and how long writes were kept waiting.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_env::Random;
use keybed_format::{Result, checksum};
use keybed_lsm::{Family, Store, StoreOptions};
use std::time::Instant;

/// CPU time in nanoseconds of the whole process, background threads included.
fn cpu_ns() -> u64 {
    let parse = |stat: String| stat.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok().and_then(parse);
    tasks.filter_map(|task| read(task.path().join("schedstat"))).sum()
}

fn key(number: u64, sorted: bool) -> [u8; 16] {
    let order = if sorted {
        number << 20
    } else {
        checksum::hash(&number.to_le_bytes())
    };
    let mut key = [0; 16];
    key[..2].copy_from_slice(&((order >> 57) as u16).to_be_bytes());
    key[2..10].copy_from_slice(&order.to_be_bytes());
    key[10..].copy_from_slice(&number.to_be_bytes()[2..]);
    key
}

fn value_bytes(number: u64) -> usize {
    8 + (checksum::hash(&(number ^ 0x55).to_le_bytes()) % 93) as usize
}

fn measure(store: &mut Store, name: &str, ops: u64, work: impl FnOnce(&mut Store) -> Result) -> Result {
    let before = store.stats();
    let (wall, cpu) = (Instant::now(), cpu_ns());
    work(store)?;
    let (wall, cpu) = (wall.elapsed().as_nanos() as u64, cpu_ns() - cpu);
    let then = store.stats();
    println!(
        "{name:<22} {:>6} ns wall {:>6} ns cpu  wrote {:>5} MiB by flushes, {:>5} MiB by merges, moved {} files",
        wall / ops,
        cpu / ops,
        (then.flush_bytes - before.flush_bytes) >> 20,
        (then.compaction_bytes - before.compaction_bytes) >> 20,
        then.moved_files - before.moved_files,
    );
    let waits = then.waits.engine_caused();
    println!(
        "  {} runs, {} tables, {} MiB; waits {}, together {} ms, longest {} µs",
        then.runs_max,
        then.tables,
        then.table_bytes >> 20,
        waits.count(),
        waits.sum() / 1_000_000,
        waits.max() / 1000,
    );
    Ok(())
}

/// Lets the background come to rest, and prints how large the store is then, per live byte.
fn settle(store: &mut Store, keys: u64) -> Result {
    let busy = store.stats().table_bytes;
    measure(store, "  settling", keys, Store::wait_for_background)?;
    let settled = store.stats().table_bytes;
    println!("  {:.2} times as large before", busy as f64 / settled as f64);
    Ok(())
}

fn load(store: &mut Store, family: Family, keys: u64, sorted: bool) -> Result {
    let payload = [7_u8; 128];
    for n in 0..keys {
        store.put(family, &key(n, sorted), &payload[..value_bytes(n)])?;
    }
    store.flush()
}

fn main() -> Result {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (keys, memtable_mib): (u64, u64) = (number(1_000_000), number(64));
    let temporary = tempfile::tempdir().map_err(|e| keybed_format::Error::io("create", "a directory", e))?;
    let dir = arguments
        .next()
        .map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let options = || StoreOptions {
        memtable_bytes: (memtable_mib as usize) << 20,
        ..StoreOptions::default()
    };
    let mut store = Store::open(dir.join("sorted"), options())?;
    let family = store.family("f")?;
    measure(&mut store, "sorted load", keys, |store| {
        load(store, family, keys, true)
    })?;
    settle(&mut store, keys)?;
    store.close()?;
    let mut store = Store::open(dir.join("random"), options())?;
    let family = store.family("f")?;
    measure(&mut store, "random load", keys, |store| {
        load(store, family, keys, false)
    })?;
    settle(&mut store, keys)?;
    let mut random = Random::from_seed(1);
    let mut largest = 0;
    measure(&mut store, "random overwrites", 2 * keys, |store| {
        let payload = [8_u8; 128];
        for n in 0..2 * keys {
            let number = random.below(keys);
            store.put(family, &key(number, false), &payload[..value_bytes(number)])?;
            if n % 100_000 == 0 {
                largest = store.stats().table_bytes.max(largest);
            }
        }
        Ok(())
    })?;
    settle(&mut store, keys)?;
    store.compact(family)?;
    let (settled, live) = (largest as f64, store.stats().table_bytes as f64);
    println!("at most {:.2} times the live bytes", settled / live);
    store.close()
}
