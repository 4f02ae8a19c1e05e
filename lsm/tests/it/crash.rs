//! If this fails, a store answers wrongly after its process died or the power failed.
//!
//! `Durability::None` promises: after the death of the process alone the store opens with everything that was
//! flushed; after a power loss it opens with an older flushed content, or names the damage. It never answers wrongly.

use crate::simulated::{DIR, Model, Subject, is_damage};
use crate::support::scale;
use keybed_env::{Fs, Random, SimFs};
use keybed_format::Code;
use keybed_lsm::PinnedFiles;
use std::{path::Path, sync::Arc};

/// A content that was flushed: what it was, and when the flush began and ended.
struct State {
    model: Model,
    began: u64,
    ended: u64,
}

struct History {
    sim: Arc<SimFs>,
    states: Vec<State>,
    /// Operations after which a state was durable for sure, and that state: each opening writes and syncs a
    /// manifest, and the system writes everything back now and then.
    durable: Vec<(u64, usize)>,
    /// Operations after which nothing was pending.
    written_back: Vec<u64>,
}

/// What the operating system does with dirty pages after a while.
fn write_back(sim: &SimFs) {
    for path in sim.tree().into_keys() {
        sim.append(&path).unwrap().sync().unwrap();
    }
    for dir in ["/", DIR] {
        sim.sync_dir(Path::new(dir)).unwrap();
    }
}

/// Writes, flushes, merges, pins and reopens at random.
fn run(seed: u64, rounds: u64) -> History {
    let sim = Arc::new(SimFs::new());
    let mut random = Random::from_seed(seed);
    let mut model = Model::default();
    let mut subject = Subject::open(sim.clone(), seed).unwrap();
    let ended = sim.op_count();
    let mut states = vec![State {
        model: model.clone(),
        began: 0,
        ended,
    }];
    let mut durable = vec![(ended, 0)];
    let mut written_back = Vec::new();
    let mut pinned = Vec::new();
    for round in 0..rounds {
        for _ in 0..20 {
            subject.write(&mut model, &mut random).unwrap();
        }
        if random.one_in(8) {
            // Durable without a flush of anything else.
            let family = random.index(2);
            let began = sim.op_count();
            subject.store.clear(subject.families[family]).unwrap();
            model.0[family].clear();
            let mut cleared = states.last().map(|state| state.model.clone()).unwrap_or_default();
            cleared.0[family].clear();
            states.push(State {
                model: cleared,
                began,
                ended: sim.op_count(),
            });
        }
        let began = sim.op_count();
        match random.below(8) {
            0 => pinned.push(subject.store.pin().unwrap().finish().unwrap()),
            1 => subject
                .store
                .compact(subject.families[round as usize % 2])
                .unwrap(),
            _ => subject.store.flush().unwrap(),
        }
        states.push(State {
            model: model.clone(),
            began,
            ended: sim.op_count(),
        });
        match random.below(6) {
            0 => subject.store.wait_for_background().unwrap(),
            1 => {
                for table in pinned.iter().flat_map(PinnedFiles::tables) {
                    assert!(
                        sim.facts(&table.path)
                            .unwrap()
                            .is_some_and(|facts| facts.len == table.bytes)
                    );
                }
                pinned.clear();
            }
            2 => {
                pinned.clear();
                subject.store.close().unwrap();
                subject = Subject::open(sim.clone(), seed + 1000 * (round + 1)).unwrap();
                durable.push((sim.op_count(), states.len() - 1));
            }
            3 => {
                write_back(&sim);
                written_back.push(sim.op_count());
                durable.push((sim.op_count(), states.len() - 1));
            }
            _ => {}
        }
        for family in 0..2 {
            assert!(
                subject.answers(family).agree_with(&model.0[family]),
                "seed {seed}, round {round}"
            );
        }
    }
    History {
        sim,
        states,
        durable,
        written_back,
    }
}

impl History {
    /// States that may be found if everything stopped after operation `at`: from the newest whose flush had ended
    /// to the newest whose flush had begun.
    fn visible(&self, at: u64) -> std::ops::RangeInclusive<usize> {
        let last = |when: fn(&State) -> u64| {
            self.states
                .iter()
                .rposition(|state| when(state) <= at)
                .unwrap_or(0)
        };
        last(|state| state.ended)..=last(|state| state.began)
    }

    /// The oldest state that a power loss after operation `at` may bring back.
    fn oldest(&self, at: u64) -> usize {
        self.durable
            .iter()
            .rev()
            .find(|(op, _)| *op <= at)
            .map_or(0, |(_, state)| *state)
    }
}

#[test]
fn the_death_of_the_process_loses_nothing_that_was_flushed() {
    for seed in 0..6 {
        let history = run(seed, 30);
        for at in 0..=history.sim.op_count() {
            let image = Arc::new(history.sim.live_image_at(at));
            let subject = Subject::open(image, 77)
                .unwrap_or_else(|e| panic!("seed {seed}, operation {at}: {e}: {:?}", history.sim.trace()));
            for family in 0..2 {
                let answers = subject.answers(family);
                let found = history
                    .visible(at)
                    .any(|s| answers.agree_with(&history.states[s].model.0[family]));
                assert!(
                    found && answers.errors().is_empty(),
                    "seed {seed}, operation {at}, family {family}"
                );
            }
        }
    }
}

#[test]
fn a_power_loss_brings_back_an_older_content_or_names_the_damage() {
    let (mut distinct, mut whole, mut refused, mut damaged) = (0, 0, 0, 0);
    for seed in 0..scale(9) {
        let history = run(seed, 30);
        distinct += history
            .sim
            .each_crash_image(4, &mut Random::from_seed(seed), |at, image| {
                let subject = match Subject::open(Arc::new(image.clone()), 77) {
                    Ok(subject) => subject,
                    Err(e) => {
                        // Only tables may be lost: manifests are synced before CURRENT names them, and torn tails end them.
                        let table_lost = matches!(e.code(), Code::TableMissing | Code::TableCorrupt);
                        assert!(
                            table_lost && e.file().is_some(),
                            "seed {seed}, operation {at}: {e}"
                        );
                        assert!(
                            !history.written_back.contains(&at),
                            "seed {seed}, operation {at}: {e}"
                        );
                        refused += 1;
                        return;
                    }
                };
                let mut errors = 0;
                for family in 0..2 {
                    let answers = subject.answers(family);
                    let mut possible = history.oldest(at)..=*history.visible(at).end();
                    let found = possible.any(|s| answers.agree_with(&history.states[s].model.0[family]));
                    assert!(
                        found,
                        "seed {seed}, operation {at}: family {family} has a content that never was"
                    );
                    errors += answers.errors().len();
                    assert!(
                        answers.errors().into_iter().all(is_damage),
                        "seed {seed}, operation {at}"
                    );
                }
                assert!(
                    errors == 0 || !history.written_back.contains(&at),
                    "seed {seed}, operation {at}"
                );
                *(if errors == 0 { &mut whole } else { &mut damaged }) += 1;
            });
    }
    println!("{distinct} distinct images: {whole} whole, {damaged} damaged in part, {refused} refused");
    assert!(distinct >= scale(5000), "{distinct} images");
    assert!(
        whole > 500 && refused + damaged > 500,
        "{whole} whole, {damaged} damaged, {refused} refused"
    );
}

#[test]
fn a_recovered_store_lives_on() {
    let history = run(9, 20);
    let mut lived = 0;
    let mut random = Random::from_seed(1);
    for at in 0..=history.sim.op_count() {
        let image = Arc::new(history.sim.crash_image(at, &mut random));
        let Ok(mut subject) = Subject::open(image.clone(), 78) else {
            continue;
        };
        if subject.answers(0).errors().len() + subject.answers(1).errors().len() > 0 {
            continue;
        }
        let read = |subject: &Subject, family: usize| -> crate::simulated::Content {
            subject
                .store
                .range(subject.families[family], ..)
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap()
        };
        let mut model = Model([read(&subject, 0), read(&subject, 1)]);
        for _ in 0..50 {
            subject.write(&mut model, &mut random).unwrap();
        }
        subject.store.compact(subject.families[0]).unwrap();
        subject.store.close().unwrap();
        let again = Subject::open(image, 79).unwrap();
        for family in 0..2 {
            let answers = again.answers(family);
            assert!(
                answers.errors().is_empty() && answers.agree_with(&model.0[family]),
                "operation {at}"
            );
        }
        lived += 1;
    }
    assert!(lived > 20, "{lived} stores lived on");
}

#[test]
fn two_processes_cannot_own_one_store() {
    let sim = Arc::new(SimFs::new());
    let first = Subject::open(sim.clone(), 1).unwrap();
    let other = Arc::new(sim.process());
    let error = Subject::open(other.clone(), 2).map(drop).unwrap_err();
    assert_eq!(
        (error.code(), error.fields()),
        (Code::Locked, &[("pid", sim.pid().to_string())][..])
    );
    sim.kill();
    Subject::open(other, 3).unwrap();
    drop(first);
}

#[test]
fn power_lost_again_while_opening_changes_nothing() {
    let history = run(11, 20);
    let (mut random, mut again) = (Random::from_seed(2), 0);
    for at in 0..=history.sim.op_count() {
        let first = Arc::new(history.sim.crash_image(at, &mut random));
        let Ok(subject) = Subject::open(first.clone(), 78) else {
            continue;
        };
        let answers = [subject.answers(0), subject.answers(1)];
        drop(subject);
        // All that was there before is durable now; opening only writes a manifest and sweeps.
        again += first.each_crash_image(2, &mut random, |step, second| {
            let subject = Subject::open(Arc::new(second.clone()), 79)
                .unwrap_or_else(|e| panic!("operation {at}, then {step}: {e}: {:?}", first.trace()));
            for (family, before) in answers.iter().enumerate() {
                assert!(
                    subject.answers(family).same(before),
                    "operation {at}, then {step}, family {family}"
                );
            }
        });
    }
    assert!(again > 500, "{again} images");
}
