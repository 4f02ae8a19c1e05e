//! If this fails, some order of checkpoints, savepoints, restores, disposals, crashes and failing calls deletes a file
//! that a snapshot needs, or leaves files behind that nobody ever deletes.
//!
//! Programs of random actions run against an independent ledger of what must exist. A failure prints its seed and the
//! shortest program found that still fails; `KEYBED_INTERLEAVING=<seed>` runs that seed alone,
//! `KEYBED_SCALE` as many times more.

mod action;
mod claims;
mod job;
mod ledger;
mod start;
mod steps;
mod user;
mod world;

use action::{Action, Trouble};
use keybed_env::Random;
use ledger::Violation;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};
use world::World;

/// Actions of one program.
const PROGRAM: usize = 200;
/// Runs that making a failing program shorter may take.
const SHRINK_RUNS_MAX: usize = 3000;

type Counts = BTreeMap<&'static str, u64>;

/// Runs a program in an empty world; the number of the action that went wrong, and why.
fn run(seed: u64, program: &[Action]) -> Result<Counts, (usize, Violation)> {
    let mut world = World::new(seed);
    for (at, action) in program.iter().enumerate() {
        let acted = catch_unwind(AssertUnwindSafe(|| world.act(*action)));
        match acted {
            Ok(acted) => acted.map_err(|why| (at, why))?,
            Err(_) => return Err((at, "a panic".into())),
        }
    }
    world.end().map_err(|why| (program.len(), why))?;
    Ok(world.counts)
}

fn program(seed: u64) -> Vec<Action> {
    let mut random = Random::from_seed(seed);
    (0..PROGRAM).map(|_| Action::draw(&mut random)).collect()
}

/// What a violation is about, whatever it names.
fn kind(why: &str) -> String {
    let words = why.split_whitespace();
    words
        .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
        .collect()
}

/// Leaves actions and troubles out as long as it still fails in that way.
fn shrink(seed: u64, mut program: Vec<Action>, mut why: Violation) -> (Vec<Action>, Violation) {
    let sought = kind(&why);
    let mut runs = 0;
    let mut size = program.len() / 2;
    while size > 0 && runs < SHRINK_RUNS_MAX {
        let (mut at, before) = (0, program.len());
        while at < program.len() && runs < SHRINK_RUNS_MAX {
            let mut shorter = program.clone();
            shorter.drain(at..(at + size).min(program.len()));
            runs += 1;
            match run(seed, &shorter) {
                Err((last, found)) if kind(&found) == sought => {
                    shorter.truncate(last + 1);
                    (program, why) = (shorter, found);
                }
                _ => at += size,
            }
        }
        if program.len() == before {
            size /= 2;
        }
    }
    for at in 0..program.len() {
        let mut calmer = program.clone();
        calmer[at].trouble = Trouble::None;
        if calmer != program
            && let Err((_, found)) = run(seed, &calmer)
            && kind(&found) == sought
        {
            (program, why) = (calmer, found);
        }
    }
    (program, why)
}

fn fail(seed: u64, at: usize, why: Violation) -> ! {
    println!("seed {seed}, action {at}: {why}");
    let mut whole = program(seed);
    whole.truncate(at + 1);
    let (short, why) = shrink(seed, whole, why);
    let lines: Vec<String> = short.iter().map(|action| format!("    {action:?},")).collect();
    panic!(
        "seed {seed}: {why}\n{} actions:\n{}",
        short.len(),
        lines.join("\n")
    );
}

#[test]
fn in_any_order_nothing_needed_goes_and_nothing_else_stays() {
    let one = std::env::var("KEYBED_INTERLEAVING")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let scale = std::env::var("KEYBED_SCALE").map_or(1, |text| text.parse().unwrap());
    let programs = match std::env::var_os("KEYBED_TEST_FULL") {
        Some(_) => 500,
        None => 100 * scale,
    };
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..programs,
    };
    let mut counts = Counts::new();
    for seed in seeds.clone() {
        match run(seed, &program(seed)) {
            Ok(found) => found
                .into_iter()
                .for_each(|(what, n)| *counts.entry(what).or_default() += n),
            Err((at, why)) => fail(seed, at, why),
        }
    }
    println!(
        "{} actions: {counts:#?}",
        PROGRAM as u64 * (seeds.end - seeds.start)
    );
}
