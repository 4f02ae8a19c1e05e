//! Ten million values of 1 KiB within a memory budget of 256 MiB, paced to 70 % of what the device can write.
//!
//! The engine runs in a child that paces itself by the bytes its whole process hands to the kernel, merges included;
//! the parent measures the device before, and watches memory and space from outside.

use super::{Flags, line};
use crate::{
    children,
    content::{scramble, walk},
    measure::{number, proc_field},
};
use keybed_lsm::{Family, MemoryBudget, Store, StoreOptions};
use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

const VALUE_BYTES: usize = 1024;
const KEY_BYTES: usize = 18;
const BUDGET: usize = 256 << 20;
/// Share of the device's rate.
const SHARE: f64 = 0.7;
/// What the engine may make a writer wait at a time.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Disk that must stay free, in multiples of what is written.
const ROOM: f64 = 2.2;

pub fn run(words: &[String]) -> Result<ExitCode, String> {
    if let [first, dir, values, rate] = words
        && first == "child"
    {
        let rate: f64 = rate.parse().map_err(|_| format!("{rate}: not a rate"))?;
        child(dir.as_ref(), crate::arguments::positive(values)?, rate);
        return Ok(ExitCode::SUCCESS);
    }
    let flags = Flags(words);
    flags.check(&["--gigabytes", "--megabytes", "--dir"])?;
    let bytes = flags.number("--megabytes", flags.number("--gigabytes", 10)? * 1000)? * 1_000_000;
    let values = bytes / (VALUE_BYTES + KEY_BYTES) as u64;
    let parent = flags.dir();
    let free = free_bytes(&parent);
    if (free as f64) < bytes as f64 * ROOM {
        return Err(format!(
            "{}: {} GB are free, {:.0} are needed; see --dir and --gigabytes",
            parent.display(),
            free / 1_000_000_000,
            bytes as f64 * ROOM / 1e9
        ));
    }
    let dir = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    let device = device_rate(&dir.path().join("device"), (bytes / 10).min(1_000_000_000));
    println!("device: {:.0} MB/s written and synced", device / 1e6);
    let store = dir.path().join("store");
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["big", "child"])
        .arg(&store)
        .args([values.to_string(), (device * SHARE).to_string()]);
    let outcome = children::watch(&mut command, &store);
    if let Some(why) = &outcome.failure {
        println!("FAILED: {why}");
        return Ok(ExitCode::FAILURE);
    }
    let of = |name: &str| outcome.number(name).unwrap_or(f64::NAN);
    let live = (values * (VALUE_BYTES + KEY_BYTES) as u64) as f64;
    println!(
        "{values} values of {VALUE_BYTES} bytes in {:.0} s: {:.0} MB/s, write amplification {:.2}",
        of("seconds"),
        live / of("seconds") / 1e6,
        outcome.written / live
    );
    let limit = BUDGET as f64 * 1.1;
    let mut met = true;
    let mut hold = |what: &str, value: f64, limit: f64, unit: &str| {
        let verdict = if value <= limit { "met" } else { "MISSED" };
        met &= value <= limit;
        println!("{what}: {value:.2} {unit}, at most {limit:.2}: {verdict}");
    };
    const MIB: f64 = 1048576.0;
    hold(
        "peak anonymous memory",
        outcome.anonymous_max / MIB,
        limit / MIB,
        "MiB",
    );
    hold(
        "longest engine-caused wait",
        of("wait-max") / 1e6,
        WAIT_MAX.as_secs_f64() * 1e3,
        "ms",
    );
    hold(
        "space during the run",
        outcome.disk_max / live,
        1.6,
        "× live bytes",
    );
    hold(
        "space after settling",
        of("settled-bytes") / live,
        1.3,
        "× live bytes",
    );
    println!("mapped files at most {:.0} MiB", outcome.mapped_max / MIB);
    println!("{}", outcome.facts());
    Ok(ExitCode::from(u8::from(!met)))
}

fn free_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |at| at.f_bavail * at.f_frsize)
}

/// Bytes per second of one sequential file, synced at the end.
fn device_rate(path: &Path, bytes: u64) -> f64 {
    let chunk: Vec<u8> = (0..1 << 17)
        .flat_map(|i: u64| scramble(i).to_le_bytes())
        .collect();
    let mut file = File::create(path).expect("the scratch directory takes a file");
    let start = Instant::now();
    for _ in 0..(bytes / chunk.len() as u64).max(1) {
        file.write_all(&chunk).expect("the device has room");
    }
    file.sync_all().expect("the file can be synced");
    let rate =
        (bytes / chunk.len() as u64).max(1) as f64 * chunk.len() as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("the file can go");
    rate
}

fn key(i: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let word = scramble(i);
    key[..2].copy_from_slice(&((word % 128) as u16).to_be_bytes());
    key[2..10].copy_from_slice(&word.to_be_bytes());
    key[10..].copy_from_slice(&i.to_be_bytes());
    key
}

fn value(i: u64, buffer: &mut [u8; VALUE_BYTES]) {
    for (at, chunk) in buffer.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&scramble(i ^ ((at as u64) << 48)).to_le_bytes());
    }
}

fn child(dir: &Path, values: u64, rate: f64) {
    let options = StoreOptions {
        budget: Some(MemoryBudget::new(BUDGET)),
        durability: keybed_lsm::Durability::None,
        ..StoreOptions::default()
    };
    let mut store = Store::open(dir, options).expect("keybed opens");
    let family = store.family("bench").expect("keybed makes a family");
    let start = Instant::now();
    let mut buffer = [0; VALUE_BYTES];
    for (n, i) in walk(values).enumerate() {
        value(i, &mut buffer);
        store.put(family, &key(i), &buffer).expect("keybed writes");
        if n % 256 == 0 {
            // What lies in memory is as good as written: it will be.
            let stats = store.stats();
            let waiting = (stats.active_bytes + stats.sealed_bytes) as f64;
            let written = proc_field("self", "io", "wchar").unwrap_or(0.0) + waiting;
            let due = Duration::from_secs_f64(written / rate);
            if let Some(early) = due.checked_sub(start.elapsed()) {
                std::thread::sleep(early);
            }
        }
    }
    store.flush().expect("keybed flushes");
    number("seconds", start.elapsed().as_secs_f64());
    let waits = store.stats().waits.engine_caused();
    number("wait-max", waits.max() as f64);
    store.wait_for_background().expect("keybed merges");
    number("settled-bytes", crate::measure::disk_bytes(dir) as f64);
    check(&store, family, values);
    let stats = store.stats();
    println!(
        "facts engine-caused waits {}; {} flushes, {} merges, {} runs at most",
        line(&waits),
        stats.flushes,
        stats.compactions,
        stats.runs_max
    );
    store.close().expect("keybed closes");
    println!("done");
}

fn check(store: &Store, family: Family, values: u64) {
    let mut buffer = [0; VALUE_BYTES];
    for i in (0..values).step_by(101) {
        value(i, &mut buffer);
        let found = store.get(family, &key(i)).expect("keybed reads");
        assert_eq!(found.as_deref(), Some(&buffer[..]), "value {i}");
    }
}
