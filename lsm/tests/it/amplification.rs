//! Without this a store would write every byte ten times, or take three times the space of its content, and nobody
//! would see it before it is large.
//!
//! The picker alone, driven by workloads: keys are numbers, files are lists of them, nothing is read or written. What
//! takes time in the engine takes time here, too: a writer at full speed, flushes and merges on one thread, and the
//! delays by which the writer is slowed down. So the figures hold for a writer that never rests.
//! Page: docs/decisions/slices-of-the-bottom.md.

mod model;

use keybed_env::Random;
use model::{Figures, MEMTABLE, Model, RUNS_MAX};

/// Runs a workload three times with other keys; the worst figures.
fn worst(seed: u64, measured_from: usize, work: impl Fn(&mut Model, &mut Random)) -> Figures {
    let mut worst = Figures::default();
    for seed in seed..seed + 3 {
        let mut model = Model::new(measured_from);
        work(&mut model, &mut Random::from_seed(seed));
        let got = model.end();
        println!("seed {seed}: {got:.2?}");
        worst = Figures {
            space_max: worst.space_max.max(got.space_max),
            space_settled: worst.space_settled.max(got.space_settled),
            write_amplification: worst.write_amplification.max(got.write_amplification),
            runs_max: worst.runs_max.max(got.runs_max),
            slowed: worst.slowed.max(got.slowed),
        };
    }
    worst
}

/// Keys of a state that is this many memtables large.
fn keys(memtables: usize) -> u32 {
    (memtables * MEMTABLE) as u32
}

fn load(model: &mut Model, random: &mut Random, keys: u32) {
    let mut all: Vec<u32> = (0..keys).map(|n| n * 7).collect();
    for at in (1..all.len()).rev() {
        all.swap(at, random.index(at + 1));
    }
    all.into_iter().for_each(|key| model.put(key));
}

fn overwrites(memtables: usize, skew: i32) -> Figures {
    let keys = keys(memtables);
    worst(100, keys as usize, |model, random| {
        load(model, random, keys);
        for _ in 0..4 * keys {
            let at = (random.u64() >> 11) as f64 / (1_u64 << 53) as f64;
            // Scrambled, so that what is written often lies everywhere.
            let nth = (at.powi(skew) * f64::from(keys)) as u64;
            model.put((nth * 7919 % u64::from(keys)) as u32 * 7);
        }
    })
}

/// Asserts bounds on the space during the run, the space after settling, and the write amplification.
fn hold(what: &str, got: &Figures, [space_max, settled, written]: [f64; 3]) {
    println!("{what}: {got:.2?}");
    let within = got.space_max <= space_max
        && got.space_settled <= settled
        && got.write_amplification <= written
        && got.runs_max <= 2 * RUNS_MAX;
    assert!(
        within,
        "{what}: {got:.2?}, at most {space_max}, {settled}, {written}"
    );
}

#[test]
fn overwrites_of_a_large_state_stay_within_their_space() {
    hold("16 memtables, uniform", &overwrites(16, 1), [1.75, 1.3, 5.0]);
    hold("16 memtables, skewed", &overwrites(16, 4), [1.75, 1.3, 5.0]);
    hold("32 memtables, uniform", &overwrites(32, 1), [1.6, 1.3, 5.5]);
    hold("32 memtables, skewed", &overwrites(32, 4), [1.6, 1.3, 5.5]);
}

/// The upper runs alone, which must grow to `FAN_IN` before a merge pays, are as large as such a state.
#[test]
fn overwrites_of_a_state_of_few_memtables_are_written_seldom_rather_than_stored_tight() {
    hold("4 memtables, uniform", &overwrites(4, 1), [3.0, 1.3, 3.0]);
    hold("4 memtables, skewed", &overwrites(4, 4), [3.0, 1.3, 3.0]);
}

#[test]
fn what_comes_in_order_is_written_once() {
    let got = worst(200, keys(8) as usize, |model, _| {
        (0..keys(40)).for_each(|n| model.put(n));
    });
    hold("appended", &got, [1.01, 1.01, 1.01]);
}

#[test]
fn a_load_in_no_order_takes_little_more_space_than_its_content() {
    let got = worst(250, keys(8) as usize, |model, random| {
        load(model, random, keys(48));
    });
    hold("loaded", &got, [1.5, 1.01, 5.5]);
}

#[test]
fn windows_that_go_in_their_order_cost_little() {
    let got = worst(300, 2 * MEMTABLE, |model, _| {
        for n in 0..keys(40) {
            model.put(n);
            if let Some(old) = n.checked_sub(keys(4)) {
                model.delete(old);
            }
        }
    });
    hold("windows", &got, [2.6, 1.3, 2.0]);
}

#[test]
fn tombstones_of_scattered_keys_do_not_pile_up() {
    let got = worst(400, keys(8) as usize, |model, random| {
        load(model, random, keys(16));
        for _ in 0..keys(48) {
            model.put(random.below(u64::from(keys(16))) as u32 * 7);
            model.delete(random.below(u64::from(keys(16))) as u32 * 7);
        }
    });
    hold("churned", &got, [2.4, 1.35, 4.5]);
}
