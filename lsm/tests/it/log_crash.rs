//! If this fails, a crash loses a write that was acknowledged, keeps a later one while it loses an earlier one, or
//! leaves a store that does not open.

use crate::logged::{Logged, Models, Program};
use crate::support::scale;
use keybed_env::{Fs, Random, SimFs};
use keybed_lsm::Durability;
use std::{path::Path, sync::Arc, time::Duration};

const INTERVAL: Durability = Durability::Interval(Duration::from_millis(1));

/// A run of a program: what was written, and when.
struct History {
    sim: Arc<SimFs>,
    /// After 0, 1, 2 … writes.
    models: Vec<Models>,
    /// Operations of the file system before and after each write.
    times: Vec<(u64, u64)>,
    /// Operations after which so many writes were durable.
    durable: Vec<(u64, usize)>,
}

fn run(seed: u64, writes: usize, durability: Durability) -> History {
    let sim = Arc::new(SimFs::new());
    let mut random = Random::from_seed(seed);
    let mut program = Program::default();
    let mut logged = Logged::open(sim.clone(), seed, durability).unwrap();
    let mut history = History {
        sim: sim.clone(),
        models: vec![program.models.clone()],
        times: Vec::new(),
        durable: vec![(0, 0)],
    };
    for round in 0..writes {
        let began = sim.op_count();
        program.step(&mut logged, &mut random).unwrap();
        history.times.push((began, sim.op_count()));
        history.models.push(program.models.clone());
        let is_durable = match random.below(30) {
            0 => logged.store.sync().map(|()| true).unwrap(),
            1 => logged.store.flush().map(|()| true).unwrap(),
            2 => {
                drop(logged);
                logged = Logged::open(sim.clone(), seed + 1000 * (round as u64 + 1), durability).unwrap();
                true
            }
            3 => logged.store.wait_for_background().map(|()| false).unwrap(),
            4 => logged.store.compact(logged.families[0]).map(|()| true).unwrap(),
            5 => {
                logged.store.close().unwrap();
                logged = Logged::open(sim.clone(), seed + 1000 * (round as u64 + 1), durability).unwrap();
                true
            }
            // The system writes some file back when it likes.
            6 => {
                let files: Vec<_> = sim.tree().into_keys().collect();
                let file = &files[random.index(files.len())];
                sim.append(file).unwrap().sync().unwrap();
                false
            }
            7 => sim.sync_dir(Path::new("s")).map(|()| false).unwrap(),
            _ => durability == Durability::Sync,
        };
        if is_durable {
            history.durable.push((sim.op_count(), round + 1));
        }
    }
    history
}

impl History {
    /// Writes begun before the operation `at`.
    fn issued(&self, at: u64) -> usize {
        let begun = self.times.iter().take_while(|(began, _)| *began < at).count();
        // A write that changes nothing calls nobody.
        begun.max(self.acknowledged(at))
    }

    /// Writes that had returned before it.
    fn acknowledged(&self, at: u64) -> usize {
        self.times.iter().take_while(|(_, ended)| *ended <= at).count()
    }

    /// Writes that were durable before it.
    fn durable(&self, at: u64) -> usize {
        self.durable
            .iter()
            .take_while(|(op, _)| *op <= at)
            .last()
            .map_or(0, |(_, writes)| *writes)
    }

    /// After how many of the first writes the content is that of `logged`.
    fn found(&self, logged: &Logged, least: usize, most: usize, what: &str) -> usize {
        let content = logged.content().unwrap_or_else(|e| panic!("{what}: {e}"));
        let after = (least..=most).rev().find(|after| self.models[*after] == content);
        after.unwrap_or_else(|| {
            let ever = self.models.iter().position(|model| *model == content);
            panic!("{what}: not the content after {least} to {most} writes, but after {ever:?}")
        })
    }
}

#[test]
fn the_death_of_the_process_loses_no_write() {
    for durability in [Durability::Buffered, INTERVAL, Durability::Sync] {
        for seed in 0..scale(3) {
            let history = run(seed, 100, durability);
            for at in 0..=history.sim.op_count() {
                let what = format!("{durability:?}, seed {seed}, operation {at}");
                let logged = Logged::open(Arc::new(history.sim.live_image_at(at)), 77, durability)
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                history.found(&logged, history.acknowledged(at), history.issued(at), &what);
            }
        }
    }
}

#[test]
fn a_power_loss_loses_the_last_writes_and_none_that_was_durable() {
    let (mut images, mut torn, mut synced) = (0, 0, 0);
    for durability in [Durability::Buffered, INTERVAL, Durability::Sync] {
        for seed in 0..scale(5) {
            let history = run(seed, 120, durability);
            let mut choice = Random::from_seed(seed);
            images += history.sim.each_crash_image(3, &mut choice, |at, image| {
                let what = format!("{durability:?}, seed {seed}, operation {at}");
                let logged = Logged::open(Arc::new(image.clone()), 77, durability)
                    .unwrap_or_else(|e| panic!("{what}: {e}: {:?}", image.tree().keys()));
                let least = history.durable(at);
                let after = history.found(&logged, least, history.issued(at), &what);
                torn += u64::from(logged.store.stats().torn_bytes > 0);
                synced += u64::from(least > 0 && after > 0);
            });
        }
    }
    println!("{images} distinct images, {torn} with a torn end, {synced} after something was durable");
    assert!(images > 3000 && torn > 100 && synced * 10 > images * 8);
}

#[test]
fn what_was_recovered_stays_and_is_written_on() {
    let mut again = 0;
    for durability in [Durability::Buffered, Durability::Sync] {
        let history = run(7, 60, durability);
        let mut random = Random::from_seed(7);
        for at in (0..=history.sim.op_count()).step_by(2) {
            let what = format!("{durability:?}, operation {at}");
            let first = Arc::new(history.sim.crash_image(at, &mut random));
            let mut logged = Logged::open(first.clone(), 78, durability).unwrap();
            let mut program = Program {
                models: logged.content().unwrap(),
                ..Program::default()
            };
            drop(logged);
            // Power is lost again while the store is opened, at any moment.
            again += first.each_crash_image(2, &mut random, |step, second| {
                let logged = Logged::open(Arc::new(second.clone()), 79, durability)
                    .unwrap_or_else(|e| panic!("{what}, then {step}: {e}"));
                assert_eq!(logged.content().unwrap(), program.models, "{what}, then {step}");
            });
            logged = Logged::open(first.clone(), 80, durability).unwrap();
            for _ in 0..20 {
                program.step(&mut logged, &mut random).unwrap();
            }
            drop(logged);
            logged = Logged::open(first, 81, durability).unwrap();
            assert_eq!(logged.content().unwrap(), program.models, "{what}");
            logged.store.close().unwrap();
        }
    }
    assert!(again > 500, "{again} images");
}
