//! What a child measures about itself and says on its standard output, one fact per line.
//!
//! ```text
//! cost ROW OPS CPU_NS WALL_NS           one pass of a row, background threads included
//! latency ROW P50 P99 P99.9 MAX         of single operations, nanoseconds, from a pass of their own
//! number NAME VALUE                     any other figure
//! facts TEXT                            the engine's own words
//! done                                  all results were right: without it nothing counts
//! ```

use rustix::time::{ClockId, clock_gettime};
use std::{fs, path::Path, time::Instant};

/// One figure that a child said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Cost {
        row: String,
        ops: f64,
        cpu: f64,
        wall: f64,
    },
    Latency {
        row: String,
        /// p50, p99, p99.9, maximum.
        at: [f64; 4],
    },
    Number(String, f64),
    Facts(String),
    Done,
}

/// Operations whose latency is sampled at most in one pass.
pub const SAMPLES_MAX: u64 = 100_000;

fn clock_ns(clock: ClockId) -> f64 {
    let t = clock_gettime(clock);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// CPU of all threads of this process.
pub fn process_cpu_ns() -> f64 {
    clock_ns(ClockId::ProcessCPUTime)
}

/// CPU of this thread.
pub fn thread_cpu_ns() -> f64 {
    clock_ns(ClockId::ThreadCPUTime)
}

/// Runs `work`, which does `ops` operations, and says what a row cost.
pub fn cost(row: &str, ops: u64, work: impl FnOnce()) {
    let (cpu, wall) = (process_cpu_ns(), Instant::now());
    work();
    let (cpu, wall) = (process_cpu_ns() - cpu, wall.elapsed().as_nanos());
    println!("cost {row} {ops} {cpu:.0} {wall}");
}

/// Runs up to `ops` single operations and says how long each took.
pub fn latency(row: &str, ops: u64, mut operation: impl FnMut(u64)) {
    let mut nanos = Vec::with_capacity(ops.min(SAMPLES_MAX) as usize);
    for op in 0..ops.min(SAMPLES_MAX) {
        let start = Instant::now();
        operation(op);
        nanos.push(start.elapsed().as_nanos() as u64);
    }
    say_latency(row, &mut nanos);
}

/// Says the percentiles of `nanos`.
pub fn say_latency(row: &str, nanos: &mut [u64]) {
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    if let Some(max) = nanos.last() {
        println!("latency {row} {} {} {} {max}", at(0.5), at(0.99), at(0.999));
    }
}

/// Says a figure.
pub fn number(name: &str, value: f64) {
    println!("number {name} {value}");
}

/// What a line says; `None` if it is none of ours.
pub fn parse(line: &str) -> Option<Said> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    if kind == "facts" {
        return Some(Said::Facts(line.strip_prefix("facts ")?.to_owned()));
    }
    if kind == "done" {
        return Some(Said::Done);
    }
    let name = words.next()?.to_owned();
    let numbers: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    match (kind, numbers.as_slice()) {
        ("cost", &[ops, cpu, wall]) => Some(Said::Cost {
            row: name,
            ops,
            cpu: cpu / ops,
            wall: wall / ops,
        }),
        ("latency", &[p50, p99, p999, max]) => Some(Said::Latency {
            row: name,
            at: [p50, p99, p999, max],
        }),
        ("number", &[value]) => Some(Said::Number(name, value)),
        _ => None,
    }
}

/// Bytes of all files below `dir`; files that vanish while we look count as 0.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => disk_bytes(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A field of `/proc/PID/status` (kilobytes, given as bytes) or `/proc/PID/io`.
pub fn proc_field(pid: &str, file: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let mut words = line.trim_start_matches(':').split_whitespace();
    let value: f64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") {
        value * 1024.0
    } else {
        value
    })
}

/// The middle value; the lower one of two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}
