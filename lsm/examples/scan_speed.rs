//! Nanoseconds of processor time per entry or scan, for finding waste: `cargo run --release -p keybed-lsm --example scan_speed
//! [PREFIXES] [ROW]`. Keys are `[u16][u64 prefix][u32]`, 55 to a prefix, values 8 to 40 bytes. With a row's number
//! only that row is repeated, for a profiler. The comparison with other engines is in `benches/`.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use keybed_env::Random;
use keybed_format::{Result, checksum};
use keybed_lsm::{Durability, Family, FamilyOptions, MemtableKind, PrefixRule, Range, Store, StoreOptions};
use std::time::{Duration, Instant};

const PER_PREFIX: u64 = 55;

fn prefix(number: u64) -> [u8; 10] {
    let scrambled = checksum::hash(&number.to_le_bytes());
    let mut key = [0; 10];
    key[..2].copy_from_slice(&((scrambled >> 57) as u16).to_be_bytes());
    key[2..].copy_from_slice(&scrambled.to_be_bytes());
    key
}

fn load(store: &mut Store, family: Family, prefixes: u64, share: (u64, u64)) -> Result {
    let payload = [7_u8; 64];
    for entry in 0..PER_PREFIX {
        for number in (0..prefixes).filter(|n| n % share.1 < share.0) {
            let key = [&prefix(number)[..], &(entry as u32).to_be_bytes()].concat();
            store.put(family, &key, &payload[..8 + (number % 33) as usize])?;
        }
    }
    Ok(())
}

fn count(mut range: Range<'_>) -> Result<u64> {
    let (mut entries, mut bytes) = (0, 0);
    while let Some((key, value)) = range.next_entry()? {
        entries += 1;
        bytes += key.len() + value.len();
    }
    std::hint::black_box(bytes);
    Ok(entries)
}

/// Time this thread was on a processor, where the system says so; else time that passed since `start`.
fn on_processor(start: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|text| text.parse().ok());
    nanos.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// Rounds are many only for a profiler.
fn measure(name: &str, rounds: u64, mut work: impl FnMut() -> Result<u64>) -> Result {
    let start = Instant::now();
    let before = on_processor(start);
    let mut units = 0;
    for _ in 0..rounds {
        units += work()?;
    }
    println!(
        "{name:<44} {:>8.1} ns",
        (on_processor(start) - before).as_nanos() as f64 / units as f64
    );
    Ok(())
}

fn rows(store: &Store, family: Family, prefixes: u64, what: &str, only: Option<&str>) -> Result {
    let wanted = |row: &str| only.is_none_or(|only| what.starts_with(&only[..1]) && only[1..] == *row);
    let rounds = if only.is_some() { 20 } else { 2 };
    if wanted("0") {
        measure(&format!("{what}: up, per entry"), rounds, || {
            count(store.range(family, ..)?)
        })?;
    }
    if wanted("1") {
        measure(&format!("{what}: down, per entry"), rounds, || {
            count(store.range_rev(family, ..)?)
        })?;
    }
    let mut random = Random::from_seed(1);
    if wanted("2") {
        measure(
            &format!("{what}: prefix of 55, per scan"),
            20_000 * rounds,
            || {
                let found = count(store.prefix(family, &prefix(random.below(prefixes)))?)?;
                assert_eq!(found, PER_PREFIX, "the store lost a key");
                Ok(1)
            },
        )?;
    }
    if wanted("3") {
        measure(
            &format!("{what}: cursor over 55, per scan"),
            20_000 * rounds,
            || {
                let mut cursor = store.prefix_cursor(family, &prefix(random.below(prefixes)))?;
                let mut found = 0;
                while cursor.next(store)? {
                    found += 1;
                }
                assert_eq!(found, PER_PREFIX, "the store lost a key");
                Ok(1)
            },
        )?;
    }
    if wanted("4") {
        measure(
            &format!("{what}: first of a prefix, per scan"),
            20_000 * rounds,
            || {
                let mut range = store.prefix(family, &prefix(random.below(prefixes)))?;
                assert!(range.next_entry()?.is_some(), "the store lost a key");
                Ok(1)
            },
        )?;
    }
    Ok(())
}

fn main() -> Result {
    let prefixes: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    let only = std::env::args().nth(2);
    let only = only.as_deref();
    let dir = tempfile::tempdir().map_err(|e| keybed_format::Error::io("create", "a directory", e))?;
    let mut store = Store::open(
        dir.path().join("scan"),
        StoreOptions {
            memtable_bytes: 1 << 30,
            durability: Durability::None,
            compaction: false,
            ..StoreOptions::default()
        },
    )?;
    let one = store.family("one")?;
    load(&mut store, one, prefixes, (1, 1))?;
    store.compact(one)?;
    rows(&store, one, prefixes, "1 run", only)?;
    let four = store.family("four")?;
    for part in 0..4 {
        load(&mut store, four, prefixes, (4 - part, 4))?;
        store.flush()?;
    }
    rows(&store, four, prefixes, "4 runs", only)?;
    let by_prefix = PrefixRule { bytes: 10, pieces: 0 };
    for (name, memtable) in [
        ("hash", MemtableKind::Hash),
        ("ordered", MemtableKind::Ordered),
        ("prefix", MemtableKind::Prefix(by_prefix)),
    ] {
        if only.is_some_and(|only| only[..1] != name[..1]) {
            continue;
        }
        let options = FamilyOptions {
            memtable,
            ..FamilyOptions::default()
        };
        let family = store.family_with(name, options)?;
        let before = store.stats().active_bytes;
        measure(&format!("{name} memtable: load, per entry"), 1, || {
            load(&mut store, family, prefixes, (1, 1))?;
            Ok(prefixes * PER_PREFIX)
        })?;
        let taken = store.stats().active_bytes - before;
        let (bytes, entries) = (taken as f64, (prefixes * PER_PREFIX) as f64);
        println!("{name} memtable: bytes per entry {:>24.1}", bytes / entries);
        rows(&store, family, prefixes, &format!("{name} memtable"), only)?;
        let mut random = Random::from_seed(2);
        if only.is_none() {
            measure(
                &format!("{name} memtable: new key and prefix of 55"),
                2000,
                || {
                    let number = random.below(prefixes);
                    store.put(family, &random.u64().to_be_bytes(), b"stranger")?;
                    let found = count(store.prefix(family, &prefix(number))?)?;
                    assert_eq!(found, PER_PREFIX, "the store lost a key");
                    Ok(1)
                },
            )?;
        }
    }
    store.close()
}
