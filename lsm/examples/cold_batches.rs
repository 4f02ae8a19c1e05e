//! Microseconds per key of look-ups whose blocks are not in memory, one by one and in batches:
//! `cargo run --release -p keybed-lsm --example cold_batches [MEGABYTES] [DIR]`. Empties the page cache of the system
//! before each row, for which it needs to be root; without that the rows are of a warm page cache, and it says so.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_format::{Result, checksum};
use keybed_lsm::{Access, Durability, Family, Store, StoreOptions};
use std::time::Instant;

/// Look-ups of a row.
const GETS: u64 = 3_200;
const BATCH: u64 = 16;
const VALUE_BYTES: usize = 100;
/// Rows of each kind: the machine is not alone with us.
const ROUNDS: u64 = 3;

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&checksum::hash(&number.to_le_bytes()).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn open(dir: &str, access: Access) -> Result<(Store, Family)> {
    let mut store = Store::open(
        dir,
        StoreOptions {
            access,
            cache_bytes: 16 << 20,
            durability: Durability::None,
            ..StoreOptions::default()
        },
    )?;
    let family = store.family("f")?;
    Ok((store, family))
}

/// Writes back what is dirty and empties the page cache.
fn drop_page_cache() -> bool {
    let _ = std::process::Command::new("sync").status();
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

fn row(name: &str, work: impl FnOnce() -> Result) -> Result {
    let start = Instant::now();
    work()?;
    let micros = start.elapsed().as_micros() as f64 / GETS as f64;
    println!("{name:<40} {micros:>8.1} µs per key");
    Ok(())
}

fn main() -> Result {
    let mut words = std::env::args().skip(1);
    let megabytes: u64 = words.next().and_then(|text| text.parse().ok()).unwrap_or(400);
    let dir = words.next().unwrap_or_else(|| "cold_batches.tmp".into());
    let keys = (megabytes << 20) / (VALUE_BYTES as u64 + 16);
    for (access, how) in [(Access::Cache, "unmapped"), (Access::Map, "mapped")] {
        let dir = format!("{dir}-{how}");
        let (mut store, family) = open(&dir, access)?;
        for number in 0..keys {
            store.put(family, &key(number), &[number as u8; VALUE_BYTES])?;
        }
        store.flush()?;
        store.compact(family)?;
        store.close()?;
        let mut salt = 0;
        for _ in 0..ROUNDS {
            for is_batch in [false, true] {
                let is_cold = drop_page_cache();
                let (store, family) = open(&dir, access)?;
                // Filters are read first: they are few.
                for number in 0..keys / 2_000 {
                    store.contains(family, &[&key(number)[..], b"-"].concat())?;
                }
                salt += 1;
                let wanted = |op: u64| key(checksum::hash(&(op << 8 | salt).to_le_bytes()) % keys);
                let temperature = if is_cold { "cold" } else { "warm" };
                let kind = if is_batch { "multi_get of 16" } else { "get" };
                row(&format!("{how}, {temperature}: {kind}"), || {
                    for batch in 0..GETS / BATCH {
                        let keys: Vec<_> = (0..BATCH).map(|n| wanted(batch * BATCH + n)).collect();
                        if is_batch {
                            for value in store.multi_get(family, &keys)? {
                                assert!(value?.is_some());
                            }
                        } else {
                            for key in &keys {
                                assert!(store.contains(family, key)?);
                            }
                        }
                    }
                    Ok(())
                })?;
                store.close()?;
            }
        }
        println!("{how}: left in {dir}, {keys} keys");
    }
    Ok(())
}
