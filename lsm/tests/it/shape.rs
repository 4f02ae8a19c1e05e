//! Without this reads would meet ever more runs, or every flush would rewrite the whole store.

use keybed_env::Random;
use keybed_lsm::{
    BOTTOM, KeyRange, TableId,
    compaction::picker::{LevelFacts, PartFacts, PickOptions, Plan, RunFacts, may_be_due, pick},
    version::edit::DRAINING,
};

const OPTIONS: PickOptions = PickOptions {
    fan_in: 4,
    runs_max: 6,
    slice_bytes: 400,
};

fn part(id: u128, first: u16, last: u16, bytes: u64) -> PartFacts {
    let key = |n: u16| n.to_be_bytes().to_vec();
    PartFacts {
        id: TableId(id),
        visible_start: key(first),
        first: key(first),
        last: key(last),
        bytes,
    }
}

fn run(number: u64, tier: u8, bytes: u64) -> RunFacts {
    RunFacts {
        number,
        tier,
        tables: vec![part(u128::from(number), 0, 1000, bytes)],
    }
}

fn bottom(files: u16, bytes: u64) -> RunFacts {
    let tables = (0..files)
        .map(|n| part(1000 + u128::from(n), n * 100, n * 100 + 99, bytes))
        .collect();
    RunFacts {
        number: 0,
        tier: BOTTOM,
        tables,
    }
}

fn picked(runs: Vec<RunFacts>) -> Option<Plan> {
    plan(&LevelFacts {
        runs,
        requested: false,
    })
}

/// What is picked; the tiers alone must have said that something may be.
fn plan(facts: &LevelFacts) -> Option<Plan> {
    let plan = pick(facts, &OPTIONS);
    let tiers = facts.runs.iter().map(|run| run.tier);
    assert_eq!(may_be_due(tiers, facts.requested, &OPTIONS), plan.is_some());
    plan
}

#[test]
fn three_runs_of_a_tier_wait_for_the_fourth() {
    assert_eq!(picked(vec![]), None);
    assert_eq!(
        picked(vec![run(3, 0, 10), run(2, 0, 10), run(1, 0, 10), bottom(1, 1000)]),
        None
    );
    let plan = picked(vec![
        run(4, 0, 10),
        run(3, 0, 10),
        run(2, 0, 10),
        run(1, 0, 10),
        bottom(1, 1000),
    ])
    .unwrap();
    assert_eq!(
        (plan.runs, plan.output_run, plan.output_tier),
        (vec![4, 3, 2, 1], 4, 1)
    );
    assert!(plan.slice.is_all() && plan.bottom.is_empty());
}

#[test]
fn without_a_bottom_or_with_a_small_one_the_runs_drain() {
    let young = || vec![run(4, 0, 10), run(3, 0, 10), run(2, 0, 10), run(1, 0, 10)];
    let plan = picked(young()).unwrap();
    assert_eq!(
        (plan.output_run, plan.output_tier, plan.bottom.len()),
        (0, BOTTOM, 0)
    );
    assert_eq!(
        plan.slice,
        KeyRange {
            start: vec![0, 0],
            end: None
        }
    );
    let mut runs = young();
    runs.push(bottom(1, 160));
    assert_eq!(picked(runs).unwrap().output_tier, BOTTOM);
    let mut runs = young();
    runs.push(bottom(1, 161));
    assert_eq!(picked(runs).unwrap().output_tier, 1);
}

#[test]
fn a_slice_takes_whole_bottom_files_up_to_its_size_and_the_next_goes_on() {
    let plan = picked(vec![run(9, DRAINING, 500), bottom(10, 150)]).unwrap();
    let taken: Vec<_> = plan.bottom.iter().map(|(id, _)| id.0).collect();
    assert_eq!(taken, [1000, 1001]);
    assert_eq!(
        plan.slice,
        KeyRange {
            start: vec![0, 0],
            end: Some(200_u16.to_be_bytes().to_vec())
        }
    );
    let rest = RunFacts {
        number: 9,
        tier: DRAINING,
        tables: vec![part(9, 200, 1000, 400)],
    };
    let plan = picked(vec![run(10, 0, 1), rest, bottom(10, 150)]).unwrap();
    assert_eq!(
        (plan.runs, plan.slice.start),
        (vec![9], 200_u16.to_be_bytes().to_vec())
    );
    // A file larger than a slice is taken alone.
    assert_eq!(
        picked(vec![run(9, DRAINING, 500), bottom(3, 9000)])
            .unwrap()
            .bottom
            .len(),
        1
    );
}

#[test]
fn bottom_files_outside_of_the_upper_keys_are_left_alone() {
    let upper = RunFacts {
        number: 5,
        tier: DRAINING,
        tables: vec![part(5, 310, 390, 50)],
    };
    let plan = picked(vec![upper, bottom(10, 150)]).unwrap();
    assert_eq!(plan.bottom.len(), 1);
    // The slice starts with the file that is rewritten, and ends with the upper keys.
    assert_eq!(
        plan.slice,
        KeyRange {
            start: 300_u16.to_be_bytes().to_vec(),
            end: None
        }
    );
}

#[test]
fn too_many_runs_are_merged_though_no_tier_is_full() {
    let runs = vec![
        run(9, 0, 1),
        run(8, 0, 1),
        run(7, 0, 1),
        run(6, 1, 4),
        run(5, 1, 4),
        run(4, 2, 16),
        bottom(1, 100_000),
    ];
    let plan = picked(runs).unwrap();
    assert_eq!((plan.runs, plan.output_tier), (vec![9, 8, 7, 6, 5], 2));
}

#[test]
fn a_request_drains_what_no_rule_would() {
    let facts = LevelFacts {
        runs: vec![run(1, 0, 1), bottom(1, 1000)],
        requested: true,
    };
    assert_eq!(plan(&facts).unwrap().output_tier, BOTTOM);
    let facts = LevelFacts {
        runs: vec![bottom(1, 1000)],
        requested: true,
    };
    assert_eq!(plan(&facts), None);
}

/// Does to facts what a job does to tables.
fn apply(facts: &mut LevelFacts, plan: &Plan, next_id: &mut u128) {
    let drains = plan.output_tier == BOTTOM;
    let mut bytes = 0;
    let (mut first, mut last) = (u16::MAX, 0);
    let number = |key: &[u8]| u16::from_be_bytes(key.try_into().unwrap());
    let end = plan.slice.end.as_deref().map(number);
    for run in facts
        .runs
        .iter_mut()
        .filter(|run| plan.runs.contains(&run.number))
    {
        for table in &mut run.tables {
            let (low, high) = (number(&table.first), number(&table.last));
            let width = u64::from(high - low) + 1;
            let cut = end.map_or(high + 1, |end| end.clamp(low, high + 1));
            let inside = table.bytes * u64::from(cut - low) / width;
            bytes += inside;
            (first, last) = (first.min(low), last.max(cut.max(1) - 1));
            *table = part(table.id.0, cut, high, table.bytes - inside);
        }
        run.tables
            .retain(|table| number(&table.first) <= number(&table.last));
        run.tier = DRAINING;
    }
    facts.runs.retain(|run| !run.tables.is_empty());
    for run in facts.runs.iter_mut().filter(|run| drains && run.tier == BOTTOM) {
        run.tables.retain(|table| {
            let taken = plan.bottom.iter().any(|(id, _)| *id == table.id);
            if taken {
                (first, last) = (first.min(number(&table.first)), last.max(number(&table.last)));
                // Mostly overwrites: the merged size is that of the larger input.
                bytes = bytes.max(table.bytes);
            }
            !taken
        });
    }
    *next_id += 1;
    let table = part(*next_id, first, last, bytes);
    match facts.runs.iter_mut().find(|run| drains && run.tier == BOTTOM) {
        Some(run) => {
            run.tables.push(table);
            run.tables.sort_by(|a, b| a.first.cmp(&b.first));
        }
        None => {
            facts.runs.push(RunFacts {
                number: plan.output_run,
                tier: plan.output_tier,
                tables: vec![table],
            });
            facts.runs.sort_by_key(|run| std::cmp::Reverse(run.number));
        }
    }
}

#[test]
fn any_sequence_of_flushes_comes_to_rest_within_the_bound_on_runs() {
    for seed in 0..50 {
        let mut random = Random::from_seed(seed);
        let (mut facts, mut next_id, mut merges) = (LevelFacts::default(), 1 << 20, 0);
        for flush in 1..200_u64 {
            let (a, b) = (random.below(1000) as u16, random.below(1000) as u16);
            let table = part(u128::from(flush), a.min(b), a.max(b), 1 + random.below(100));
            facts.runs.insert(
                0,
                RunFacts {
                    number: flush,
                    tier: 0,
                    tables: vec![table],
                },
            );
            let mut steps = 0;
            while let Some(plan) = plan(&facts) {
                apply(&mut facts, &plan, &mut next_id);
                steps += 1;
                assert!(steps < 100, "seed {seed}: merging never ends: {plan:?}");
            }
            merges += steps;
            assert!(
                facts.runs.len() <= OPTIONS.runs_max,
                "seed {seed}: {} runs",
                facts.runs.len()
            );
            let tables = facts
                .runs
                .last()
                .map(|run| run.tables.as_slice())
                .unwrap_or_default();
            assert!(
                tables.windows(2).all(|pair| pair[0].last < pair[1].first),
                "seed {seed}: {tables:?}"
            );
        }
        assert!(merges > 20, "seed {seed}");
    }
}
