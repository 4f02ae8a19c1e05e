//! Wall time, CPU of the whole process, and the memory that some work takes beyond what is taken already.

use crate::Answer;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Seconds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: f64,
    /// CPU of all threads of the process and of `cp`, and of the kernel on their behalf.
    pub cpu: f64,
}

fn process_cpu() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9 + children_cpu()
}

/// CPU of the child processes that have ended (`cp`), to the hundredth of a second.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which is in brackets: the state, 10 numbers, own user and system time, that of the children.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields
        .skip(13)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Runs `work`.
pub fn cost<T>(work: impl FnOnce() -> Answer<T>) -> Answer<(Cost, T)> {
    let (cpu, wall) = (process_cpu(), Instant::now());
    let answer = work()?;
    let cost = Cost {
        wall: wall.elapsed().as_secs_f64(),
        cpu: process_cpu() - cpu,
    };
    Ok((cost, answer))
}

/// Anonymous memory of this process now, in bytes. Mapped files are the kernel's to give back, so they do not count.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Most anonymous memory that `work` took beyond what the process held before, sampled every millisecond.
pub fn memory<T>(work: impl FnOnce() -> Answer<T>) -> Answer<(u64, T)> {
    let before = anonymous_bytes();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(anonymous_bytes());
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let answer = work();
        done.store(true, Ordering::Relaxed);
        let most = sampler.join().unwrap_or(0);
        Ok((most.saturating_sub(before), answer?))
    })
}

/// The middle value; the lower one of two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(f64::NAN)
}
