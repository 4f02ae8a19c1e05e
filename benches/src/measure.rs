//! CPU of the whole process, wall time, and bytes below a directory.

use rustix::time::{ClockId, clock_gettime};
use std::{fs, path::Path, time::Instant};

/// Nanoseconds per operation.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU of all threads of the process.
    pub cpu: f64,
    /// Wall time.
    pub wall: f64,
}

fn process_cpu_ns() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Runs `work`, which does `ops` operations.
pub fn cost(ops: u64, work: impl FnOnce()) -> Cost {
    let (cpu, wall) = (process_cpu_ns(), Instant::now());
    work();
    let n = ops as f64;
    Cost {
        cpu: (process_cpu_ns() - cpu) / n,
        wall: wall.elapsed().as_nanos() as f64 / n,
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

/// The middle value; the lower one of two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}
