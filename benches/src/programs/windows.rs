//! Window state: events add to the accumulator of their window, a window that ends is read and removed key by key.

use super::Bench;
use crate::{
    content::{part, uniform},
    engines::{Add, Engine, Setup},
    measure::{cost, latency},
};

/// Windows that come and go.
const WINDOWS: u64 = 10;
/// Events per user of a window, on average.
const EVENTS: u64 = 3;

struct Window {
    /// Events of each user, the model.
    counts: Vec<u32>,
}

pub fn run(bench: &Bench) {
    let users = (bench.keys / WINDOWS).max(1000);
    let mut engine = bench.open(&Setup {
        ordered: true,
        ..bench.setup.clone()
    });
    let engine = engine.as_mut();
    let events = users * EVENTS;
    let (mut event_cost, mut fire_cost) = (Total::default(), Total::default());
    let mut open: Option<Window> = None;
    for at in 0..=WINDOWS {
        let mut window = Window {
            counts: vec![0; users as usize],
        };
        // The last window has few users, so that a scan has much to skip.
        let (n, among) = if at == WINDOWS {
            (users / 10, users / 10)
        } else {
            (events, users)
        };
        event_cost.add(n, || fill(engine, at, &mut window, n, among));
        if let Some(last) = open.replace(window) {
            let live = last.counts.iter().filter(|n| **n > 0).count() as u64;
            fire_cost.add(live, || fire(engine, at - 1, &last));
        }
    }
    event_cost.say("window-event");
    fire_cost.say("window-fire");
    let live = open.as_ref().expect("the last window is open");
    scan(engine, live, "window-scan", 5);
    engine.settle();
    scan(engine, live, "window-scan-settled", 20);
    let mut kb = [0; 26];
    latency("window-event", bench.ops, |op| {
        engine.add(part(uniform(op, 98, users), WINDOWS + 1, &mut kb), Add::Upsert)
    });
    latency("window-fire", users, |i| {
        let key = part(i, WINDOWS + 1, &mut kb);
        engine.get(key, &mut |_| {});
        engine.delete(key);
    });
}

fn fill(engine: &mut dyn Engine, at: u64, window: &mut Window, events: u64, users: u64) {
    let mut kb = [0; 26];
    for op in 0..events {
        let i = uniform(op, 50 + at, users);
        window.counts[i as usize] += 1;
        engine.add(part(i, at, &mut kb), Add::Upsert);
    }
}

fn fire(engine: &mut dyn Engine, at: u64, window: &Window) {
    let mut kb = [0; 26];
    for (i, count) in (0..).zip(&window.counts).filter(|(_, count)| **count > 0) {
        let key = part(i, at, &mut kb);
        engine.get(key, &mut |v| {
            let found = v
                .and_then(<[u8]>::first_chunk)
                .map(|head| u64::from_le_bytes(*head));
            assert_eq!(found, Some(u64::from(*count)), "user {i} in window {at}");
        });
        engine.delete(key);
    }
}

fn scan(engine: &mut dyn Engine, live: &Window, row: &str, times: u64) {
    let users = live.counts.iter().filter(|n| **n > 0).count() as u64;
    let events: u64 = live.counts.iter().map(|n| u64::from(*n)).sum();
    cost(row, users * times, || {
        for _ in 0..times {
            let (mut entries, mut sum) = (0, 0);
            engine.scan(&[], None, &mut |_, v| {
                entries += 1;
                sum += v.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
                true
            });
            assert_eq!((entries, sum), (users, events), "a scan shows what is live");
        }
    });
}

/// A cost that is measured in pieces.
#[derive(Default)]
struct Total {
    ops: u64,
    cpu: f64,
    wall: f64,
}

impl Total {
    fn add(&mut self, ops: u64, work: impl FnOnce()) {
        let (cpu, wall) = (crate::measure::process_cpu_ns(), std::time::Instant::now());
        work();
        self.ops += ops;
        self.cpu += crate::measure::process_cpu_ns() - cpu;
        self.wall += wall.elapsed().as_nanos() as f64;
    }

    fn say(&self, row: &str) {
        println!("cost {row} {} {:.0} {:.0}", self.ops, self.cpu, self.wall);
    }
}
