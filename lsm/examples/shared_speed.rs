//! Nanoseconds per operation of a shared store with 1, 2 and 4 threads: `cargo run --release -p keybed-lsm --example
//! shared_speed [KEYS]`. The keys lie in the memtable, where the lock matters most.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_env::Random;
use keybed_format::{Result, checksum};
use keybed_lsm::{Family, SharedStore, Store, StoreOptions};
use std::time::Instant;

/// Operations of one thread in one round; the best of the rounds counts, so that neighbours disturb less.
const OPERATIONS: u64 = 100_000;
const ROUNDS: usize = 20;
const VALUE: [u8; 32] = [7; 32];

fn key(number: u64) -> [u8; 16] {
    let scrambled = checksum::hash(&number.to_le_bytes());
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scrambled.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Shortest of several rounds in nanoseconds.
fn best(mut round: impl FnMut() -> Result) -> Result<u64> {
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        round()?;
        best = best.min(started.elapsed().as_nanos() as u64);
    }
    Ok(best)
}

/// Writes `writes` of 100 operations, reads otherwise.
fn work(store: &SharedStore, family: Family, keys: u64, seed: u64, writes: u64) -> Result {
    let mut random = Random::from_seed(seed);
    let mut bytes = 0;
    for _ in 0..OPERATIONS {
        let key = key(random.below(keys));
        if writes > 0 && random.below(100) < writes {
            store.put(family, &key, &VALUE)?;
        } else {
            bytes += store.get_with(family, &key, <[u8]>::len)?.unwrap_or(0);
        }
    }
    std::hint::black_box(bytes);
    Ok(())
}

fn main() -> Result {
    let keys = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(200_000);
    let place = tempfile::tempdir().map_err(|e| keybed_format::Error::io("create", "a directory", e))?;
    let mut store = Store::open(place.path().join("shared"), StoreOptions::default())?;
    let family = store.family("speed")?;
    for n in 0..keys {
        store.put(family, &key(n), &VALUE)?;
    }
    let mut random = Random::from_seed(1);
    let reads = best(|| {
        let mut bytes = 0;
        for _ in 0..OPERATIONS {
            bytes += store
                .get(family, &key(random.below(keys)))?
                .map_or(0, |value| value.len());
        }
        std::hint::black_box(bytes);
        Ok(())
    })?;
    let writes =
        best(|| (0..OPERATIONS).try_for_each(|_| store.put(family, &key(random.below(keys)), &VALUE)))?;
    println!(
        "the owner alone: read {} ns, write {} ns",
        reads / OPERATIONS,
        writes / OPERATIONS
    );
    let store = SharedStore::from(store);
    println!("ns from the end of one operation to the end of the next, of all threads together");
    println!("          1 thread  2 threads  4 threads");
    for (name, writes) in [("reads", 0), ("90:10", 10), ("50:50", 50), ("writes", 100)] {
        print!("{name:<8}");
        for threads in [1, 2, 4] {
            let wall = best(|| {
                std::thread::scope(|scope| {
                    let spawn = |thread| {
                        let store = store.clone();
                        scope.spawn(move || work(&store, family, keys, thread, writes))
                    };
                    let running: Vec<_> = (0..threads).map(spawn).collect();
                    running
                        .into_iter()
                        .try_for_each(|thread| thread.join().expect("a worker of the benchmark"))
                })
            })?;
            print!("{:>10}", wall / OPERATIONS / threads);
        }
        println!();
    }
    let waits = store.stats().waits.lock;
    println!(
        "waits for the lock: {} of at most {} µs",
        waits.count(),
        waits.max() / 1000
    );
    store.close()
}
