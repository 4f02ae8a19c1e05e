//! Twenty kills, each followed by a resume with another parallelism: the output is the fold's, byte for byte.

use crate::{
    fold,
    place::{Place, Run},
};
use serde_json::Value;
use std::{
    process::Child,
    time::{Duration, Instant},
};

const KILLS: usize = 20;
const PARALLELISM: [&str; 4] = ["1", "3", "2", "7"];
/// Records per second; with this the kills are about a second of work apart.
const THROTTLE: &str = "24000";
/// Kills that must fall inside a checkpoint.
const INSIDE_MIN: usize = 3;
const RECORDS: u64 = 336_776;

/// Draws from a seed, without a crate: the next of a linear congruential sequence.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn starts(events: &[Value]) -> usize {
    events.iter().filter(|e| e["event"] == "started").count()
}

fn offset_completed(events: &[Value]) -> u64 {
    events
        .iter()
        .rev()
        .find(|e| e["event"] == "completed")
        .map_or(0, |e| e["offset"].as_u64().unwrap())
}

/// Whether a checkpoint was triggered last, and neither completed nor failed.
fn inside_a_checkpoint(events: &[Value]) -> bool {
    let of_checkpoints = ["triggered", "completed", "failed"];
    let last = events
        .iter()
        .rev()
        .find(|e| of_checkpoints.iter().any(|name| e["event"] == *name));
    last.is_some_and(|e| e["event"] == "triggered")
}

/// Lets the run start (the `nth` start in the log), come to `offset`, and a little further; then kills it. If
/// `inside`, it waits for the next checkpoint to begin.
fn kill_after(place: &Place, child: &mut Child, nth: usize, offset: u64, inside: bool, draw: &mut Draw) {
    place.wait_for(child, "progress up to the next kill", |events| {
        starts(events) >= nth && offset_completed(events) >= offset
    });
    let further = Duration::from_millis(draw.below(100));
    let start = Instant::now();
    while start.elapsed() < further && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    if inside {
        let met = Instant::now();
        while !inside_a_checkpoint(&place.last_events(4)) && met.elapsed() < Duration::from_secs(1) {
            std::thread::yield_now();
        }
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

#[test]
fn twenty_kills_with_changing_parallelism_leave_the_output_byte_identical() {
    // A crash would lose or double records, or a resume at another parallelism would mix up state.
    let seed = 20_131_231;
    println!("seed {seed}");
    let mut draw = Draw(seed);
    let place = Place::new();
    let mut inside_so_far = 0;
    let mut killed_at = Vec::new(); // number of events in the log when the process had died
    for kill in 0..KILLS {
        let mut words = vec![
            "-p",
            PARALLELISM[kill % 4],
            "--throttle",
            THROTTLE,
            "--checkpoint-interval",
            "100ms",
        ];
        if kill > 0 {
            words.push("--resume");
        }
        let mut child = place.flights(&words).spawn().unwrap();
        // Uniform over the run: one kill in each of its twentieths, the last one before the end.
        let twentieth = RECORDS * 19 / 20 / KILLS as u64;
        let target = twentieth * kill as u64 + 1 + draw.below(twentieth);
        let inside = kill % 2 == 1 || (kill > KILLS / 2 && inside_so_far < INSIDE_MIN);
        kill_after(&place, &mut child, kill + 1, target, inside, &mut draw);
        let events = place.events();
        inside_so_far += usize::from(inside_a_checkpoint(&events));
        killed_at.push(events.len());
    }
    let last = Run::of(place.flights(&["-p", "2", "--resume"]).output().unwrap()).summary();
    assert_eq!(last["state"], "finished");

    place.assert_output(&fold::expected());
    assert_kills_were_real(&place.events(), &killed_at);
    let again = place.run(&["--resume"]).summary();
    assert_eq!(again["state"], "already-finished");
    place.assert_output(&fold::expected());
}

/// From the log alone: where the kills fell, and that every resume went on from somewhere.
fn assert_kills_were_real(events: &[Value], killed_at: &[usize]) {
    let completions: Vec<usize> = (0..events.len())
        .filter(|i| events[*i]["event"] == "completed")
        .collect();
    let (first, last) = (completions[0], *completions.last().unwrap());
    let between = killed_at.iter().filter(|at| first < **at && **at <= last).count();
    assert!(
        between >= 15,
        "{between} kills fell between the first and the last checkpoint"
    );
    let inside = killed_at
        .iter()
        .filter(|at| inside_a_checkpoint(&events[..**at]))
        .count();
    assert!(inside >= INSIDE_MIN, "{inside} kills fell inside a checkpoint");
    let starts: Vec<&Value> = events.iter().filter(|e| e["event"] == "started").collect();
    assert_eq!(starts.len(), KILLS + 1, "one start per process");
    assert_eq!(starts[0]["offset"], 0);
    for start in &starts[1..] {
        assert!(start["offset"].as_u64().unwrap() > 0, "{start}");
    }
    println!(
        "{between} kills between checkpoints, {inside} inside one, {} checkpoints",
        completions.len()
    );
}
