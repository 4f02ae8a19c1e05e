//! Writes at half of the peak rate for minutes: does the engine ever make the writer wait?
//!
//! First the peak: the same writes as fast as they go, for as long as it takes that merges set the pace. Then half of
//! it, on a fresh store, paced by spinning. Between two writes the thread only looks at the clock, so the gaps it sees
//! there are those of a bare spinning thread on this machine in this run; a write is as likely to meet one.

use super::{Flags, line, pace::Pace};
use crate::content::{key, uniform, value};
use keybed_lsm::{Histogram, Store, StoreOptions};
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Keys that are written over and over.
const KEYS: u64 = 5_000_000;
/// How long the peak is measured.
const PEAK: Duration = Duration::from_secs(30);
/// What the engine may make a writer wait at a time.
const WAIT_MAX: Duration = Duration::from_millis(10);

pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let flags = Flags(words);
    flags.check(&["--minutes", "--seconds", "--keys", "--dir"])?;
    let keys = flags.number("--keys", KEYS)?;
    let seconds = flags.number("--seconds", flags.number("--minutes", 10)? * 60)?;
    let dir = tempfile::tempdir_in(flags.dir()).map_err(|error| error.to_string())?;
    let peak = peak(
        &dir.path().join("peak"),
        keys,
        PEAK.min(Duration::from_secs(seconds)),
    );
    println!(
        "peak: {:.0} writes/s of {keys} keys, updates and new ones mixed",
        peak
    );
    Ok(half(
        &dir.path().join("half"),
        keys,
        peak / 2.0,
        Duration::from_secs(seconds),
    ))
}

struct Writer {
    store: Store,
    family: keybed_lsm::Family,
    keys: u64,
    op: u64,
}

impl Writer {
    fn open(dir: &Path, keys: u64) -> Self {
        let mut store = Store::open(
            dir,
            StoreOptions {
                durability: keybed_lsm::Durability::None,
                ..StoreOptions::default()
            },
        )
        .expect("keybed opens");
        let family = store.family("bench").expect("keybed makes a family");
        Writer {
            store,
            family,
            keys,
            op: 0,
        }
    }

    fn write(&mut self) {
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        let i = uniform(self.op, 70, self.keys);
        let value = value(i, self.op, &mut vb);
        self.store
            .put(self.family, key(i, &mut kb), value)
            .expect("keybed writes");
        self.op += 1;
    }

    /// Every 997th key has the value of its last write.
    fn check(&self) {
        let mut last = vec![None; self.keys as usize / 997 + 1];
        for op in 0..self.op {
            let i = uniform(op, 70, self.keys);
            if i.is_multiple_of(997) {
                last[(i / 997) as usize] = Some(op);
            }
        }
        let (mut kb, mut vb) = ([0; 26], [0; 128]);
        for (i, op) in (0..).step_by(997).zip(&last) {
            let found = self
                .store
                .get(self.family, key(i, &mut kb))
                .expect("keybed reads");
            let wanted = op.map(|op| value(i, op, &mut vb));
            assert_eq!(found.as_deref(), wanted, "key {i}");
        }
    }
}

fn peak(dir: &Path, keys: u64, time: Duration) -> f64 {
    let mut writer = Writer::open(dir, keys);
    let start = Instant::now();
    while start.elapsed() < time {
        (0..1000).for_each(|_| writer.write());
    }
    writer.store.wait_for_background().expect("keybed merges");
    let rate = writer.op as f64 / start.elapsed().as_secs_f64();
    writer.check();
    drop(writer);
    std::fs::remove_dir_all(dir).expect("the scratch directory can be emptied");
    rate
}

fn half(dir: &Path, keys: u64, rate: f64, time: Duration) -> ExitCode {
    let mut writer = Writer::open(dir, keys);
    let mut pace = Pace::new(rate);
    let (mut service, mut response) = (Histogram::default(), Histogram::default());
    let start = Instant::now();
    let mut minute = 1;
    while start.elapsed() < time {
        let due = pace.next();
        let begun = Instant::now();
        writer.write();
        let ended = Instant::now();
        service.record((ended - begun).as_nanos() as u64);
        response.record((ended - due).as_nanos() as u64);
        if start.elapsed() >= Duration::from_secs(60 * minute) {
            let waits = writer.store.stats().waits.engine_caused();
            println!("minute {minute}: engine-caused waits {}", line(&waits));
            minute += 1;
        }
    }
    let stats = writer.store.stats();
    let waits = stats.waits.engine_caused();
    println!(
        "half of it: {:.0} writes/s for {:.0} s",
        writer.op as f64 / start.elapsed().as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    println!("a write itself:            {}", line(&service));
    println!("from when it was due:      {}", line(&response));
    println!(
        "gaps of the bare thread:   {} in {:.0} s of spinning",
        line(&pace.gaps),
        pace.idle.as_secs_f64()
    );
    println!("engine-caused waits:       {}", line(&waits));
    for (name, waits) in [
        ("delay", &stats.waits.delay),
        ("stop", &stats.waits.stop),
        ("budget", &stats.waits.budget),
        ("lock", &stats.waits.lock),
    ] {
        println!("  {name:<8} {}", line(waits));
    }
    println!(
        "{} flushes, {} merges, {} MiB flushed, {} MiB merged, {} runs at most",
        stats.flushes,
        stats.compactions,
        stats.flush_bytes >> 20,
        stats.compaction_bytes >> 20,
        stats.runs_max
    );
    writer.check();
    let met = waits.max() <= WAIT_MAX.as_nanos() as u64;
    println!(
        "engine-caused waiting never above {} ms at a time: {}",
        WAIT_MAX.as_millis(),
        if met { "met" } else { "MISSED" }
    );
    ExitCode::from(u8::from(!met))
}
