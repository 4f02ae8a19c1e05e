//! Timers: the smallest of a queue is taken and another one is set, over and over.
//!
//! Four ways, for every engine alike: seeking from the start of the queue; seeking from the last timer that was taken
//! (a hint that only the program can give); with the first [`HEAD`] timers kept in memory, as Flink's RocksDB backend
//! does; and so that what was taken from there leaves the store in one go (a floor in keybed, a range delete in RocksDB).

use super::Bench;
use crate::{
    content::{scramble, walk},
    engines::{Engine, Setup},
    measure::{SAMPLES_MAX, latency, number, process_cpu_ns},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const QUEUE: u64 = 100_000;
const HEAD: usize = 128;
/// A way that is slow is given up after this time.
const TIME_MAX: Duration = Duration::from_secs(2);

type Timer = [u8; 18];
/// The key group of the queue, and what lies behind it.
const GROUP: [u8; 2] = [0, 7];
const END: [u8; 2] = [0, 8];
/// Latencies sampled at least.
const SAMPLES_MIN: u64 = 50;

fn timer(at: u64, i: u64) -> Timer {
    let mut key = [0; 18];
    key[..2].copy_from_slice(&GROUP);
    key[2..10].copy_from_slice(&at.to_be_bytes());
    key[10..].copy_from_slice(&scramble(i).to_be_bytes());
    key
}

fn time_of(timer: &Timer) -> u64 {
    let (_, rest) = timer.split_at(2);
    rest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// How the smallest timer is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FromStart,
    Hinted,
    HeadCache,
    /// As `HeadCache`; what was taken is removed from the store in one go when the head is filled again.
    HeadBatched,
}

struct Queue<'a> {
    engine: &'a mut dyn Engine,
    way: Way,
    head: BTreeSet<Timer>,
    /// Taken and still in the store.
    taken: Vec<Timer>,
    /// The last timer that was taken.
    last: Timer,
    /// What must be taken, in order; from a B-tree that did the same steps before.
    wanted: &'a [Timer],
    steps: u64,
}

/// The timer that is set when `first` was taken in step `step`.
fn follower(first: &Timer, step: u64) -> Timer {
    let delay = 1 + scramble(step) % (2 * QUEUE * 10);
    timer(time_of(first) + delay, QUEUE + step)
}

/// The queue at the beginning, in no order.
fn initial() -> impl Iterator<Item = Timer> {
    walk(QUEUE).map(|i| timer(QUEUE * 10 + scramble(i) % (QUEUE * 10), i))
}

impl Queue<'_> {
    fn first(&mut self) -> Timer {
        let mut found = None;
        match self.way {
            Way::FromStart => self.engine.prefix(&GROUP, &mut |key, _| {
                found = key.try_into().ok();
                false
            }),
            Way::Hinted => self.engine.scan(&self.last, Some(&END), &mut |key, _| {
                found = key.try_into().ok();
                false
            }),
            Way::HeadCache | Way::HeadBatched => {
                if self.head.is_empty() {
                    if !self.taken.is_empty() {
                        self.engine.pop_through(&GROUP, &self.last, &self.taken);
                        self.taken.clear();
                    }
                    let head = &mut self.head;
                    self.engine.scan(&self.last, Some(&END), &mut |key, _| {
                        head.extend(Timer::try_from(key));
                        head.len() < HEAD
                    });
                }
                found = self.head.pop_first();
            }
        }
        found.expect("the queue is never empty")
    }

    /// Takes the smallest and sets another one at some time after it.
    fn step(&mut self) {
        let first = self.first();
        assert_eq!(
            first, self.wanted[self.steps as usize],
            "the smallest timer comes first"
        );
        match self.way {
            Way::HeadBatched => self.taken.push(first),
            _ => self.engine.pop(&GROUP, &first),
        }
        self.last = first;
        let new = follower(&first, self.steps);
        self.steps += 1;
        self.engine.put(&new, &[]);
        if self.head.last().is_some_and(|last| new < *last) {
            self.head.insert(new);
            if self.head.len() > HEAD {
                self.head.pop_last();
            }
        }
    }
}

pub fn run(bench: &Bench) {
    let steps = bench.ops + SAMPLES_MAX.min(bench.ops).max(SAMPLES_MIN);
    let mut model: BTreeSet<Timer> = initial().collect();
    let wanted: Vec<Timer> = (0..steps)
        .map(|step| {
            let first = model.pop_first().expect("the queue is never empty");
            model.insert(follower(&first, step));
            first
        })
        .collect();
    drop(model);
    number("harness-bytes", (wanted.len() * size_of::<Timer>()) as f64);
    let setup = Setup {
        ordered: true,
        queue_bytes: GROUP.len() as u8,
        ..bench.setup.clone()
    };
    for (way, row) in [
        (Way::HeadCache, "timers-head"),
        (Way::HeadBatched, "timers-batched"),
        (Way::Hinted, "timers-hinted"),
        (Way::FromStart, "timers-start"),
    ] {
        let dir = bench.beside(row);
        std::fs::create_dir_all(&dir).expect("the scratch directory takes a directory");
        let mut engine = (bench.contender.open)(&dir, &setup);
        let mut queue = Queue {
            engine: engine.as_mut(),
            way,
            head: BTreeSet::new(),
            taken: Vec::new(),
            last: timer(0, 0),
            wanted: &wanted,
            steps: 0,
        };
        initial().for_each(|new| queue.engine.put(&new, &[]));
        let (cpu, wall) = (process_cpu_ns(), Instant::now());
        let mut ops = 0;
        while ops < bench.ops && (ops % 64 != 0 || wall.elapsed() < TIME_MAX) {
            queue.step();
            ops += 1;
        }
        let (cpu, wall) = (process_cpu_ns() - cpu, wall.elapsed().as_nanos());
        println!("cost {row} {ops} {cpu:.0} {wall}");
        let slow = ops < bench.ops;
        latency(row, if slow { ops / 10 } else { ops }.max(SAMPLES_MIN), |_| {
            queue.step()
        });
        engine.settle();
    }
}
