//! Without this reads would meet ever more runs, or every flush would rewrite the whole store.

use keybed_env::Random;
use keybed_lsm::{
    BOTTOM, KeyRange, TableId,
    compaction::picker::{
        LevelFacts, Merge, PartFacts, PickOptions, Plan, RunFacts, Shape, Wishes, may_be_due, pick,
    },
    version::edit::DRAINING,
};

const OPTIONS: PickOptions = PickOptions {
    fan_in: 4,
    runs_max: 6,
    slice_bytes: 400,
    moved_bytes_min: 1,
};

fn part(id: u128, first: u16, last: u16, bytes: u64) -> PartFacts {
    let key = |n: u16| n.to_be_bytes().to_vec();
    PartFacts {
        id: TableId(id),
        visible_start: key(first),
        first: key(first),
        last: key(last),
        bytes,
        entries: bytes,
        tombstones: 0,
        is_open: false,
        movable: false,
        stamps: None,
        stands_on: None,
    }
}

fn shape(runs: &[RunFacts]) -> Shape {
    let mut shape = Shape::default();
    for run in runs {
        for table in &run.tables {
            if run.tier == BOTTOM {
                shape.bottom_bytes += table.bytes;
                shape.bottom_entries += table.entries;
            } else {
                shape.upper_bytes += table.bytes;
                shape.upper_entries += table.entries;
                shape.upper_tombstones += table.tombstones;
            }
        }
    }
    shape
}

fn facts(runs: Vec<RunFacts>) -> LevelFacts {
    LevelFacts {
        shape: shape(&runs),
        wishes: Wishes::default(),
        runs,
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

fn picked(runs: Vec<RunFacts>) -> Option<Merge> {
    merge(&facts(runs))
}

/// The merge that is picked.
fn merge(facts: &LevelFacts) -> Option<Merge> {
    match plan(facts, &OPTIONS) {
        Some(Plan::Merge(merge)) => Some(merge),
        None => None,
        Some(other) => panic!("{other:?}"),
    }
}

/// What is picked; tiers and sizes alone must have said that something may be.
fn plan(facts: &LevelFacts, options: &PickOptions) -> Option<Plan> {
    let plan = pick(facts, options);
    let tiers = facts.runs.iter().map(|run| run.tier);
    let may_be = may_be_due(tiers, &facts.shape, &facts.wishes, options);
    assert!(may_be || plan.is_none(), "{plan:?}");
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

fn requested(runs: Vec<RunFacts>, range: KeyRange) -> Option<Merge> {
    let mut facts = facts(runs);
    facts.wishes.requested = Some(range);
    merge(&facts)
}

#[test]
fn a_request_drains_what_no_rule_would() {
    let plan = requested(vec![run(1, 0, 1), bottom(1, 1000)], KeyRange::all()).unwrap();
    assert_eq!((plan.output_tier, plan.drains), (BOTTOM, true));
    assert_eq!(requested(vec![bottom(1, 1000)], KeyRange::all()), None);
}

#[test]
fn a_request_for_a_range_takes_that_range_and_whole_bottom_files() {
    let key = |n: u16| n.to_be_bytes().to_vec();
    let range = |a: u16, b: u16| KeyRange {
        start: key(a),
        end: Some(key(b)),
    };
    let runs = || vec![run(2, 0, 1), run(1, 0, 1), bottom(10, 150)];
    let plan = requested(runs(), range(250, 260)).unwrap();
    let taken: Vec<_> = plan.bottom.iter().map(|(id, _)| id.0).collect();
    assert_eq!((plan.runs, taken, plan.drains), (vec![2, 1], vec![1002], false));
    assert_eq!(
        (plan.slice.start, plan.slice.end),
        (key(200), Some([&key(299)[..], &[0]].concat()))
    );
    // Two files are a slice; the rest of the range comes next.
    let plan = requested(runs(), range(250, 700)).unwrap();
    assert_eq!(plan.slice, range(200, 400));
    // Above all bottom files nothing of the bottom takes part.
    let mut high = runs();
    high[0].tables = vec![part(2, 0, 2000, 5)];
    let plan = requested(high, range(1500, 1600)).unwrap();
    assert_eq!((plan.runs, plan.slice), (vec![2], range(1500, 1600)));
    assert!(plan.bottom.is_empty());
    assert_eq!(
        requested(vec![run(1, 0, 1), bottom(1, 9)], range(5000, 6000)),
        None
    );
}

#[test]
fn at_rest_what_hides_much_of_the_bottom_drains() {
    let at_rest = |runs| {
        let mut facts = facts(runs);
        facts.wishes.at_rest = true;
        merge(&facts)
    };
    assert!(at_rest(vec![run(1, 0, 26), bottom(1, 100)]).is_some());
    assert!(at_rest(vec![run(1, 0, 25), bottom(1, 100)]).is_none());
    assert!(picked(vec![run(1, 0, 26), bottom(1, 100)]).is_none());
    assert!(at_rest(vec![run(2, 0, 1), run(1, 0, 1)]).is_some());
    assert!(at_rest(vec![run(1, 0, 1)]).is_none());
    // While writes go on, half of the bottom is too much, too.
    assert!(picked(vec![run(2, 0, 25), run(1, 0, 25), bottom(1, 100)]).is_some());
    assert!(picked(vec![run(2, 0, 25), run(1, 0, 24), bottom(1, 100)]).is_none());
}

#[test]
fn tombstones_that_hide_much_of_the_bottom_drain() {
    let with = |tombstones| {
        let mut young = run(1, 0, 20);
        young.tables[0].tombstones = tombstones;
        picked(vec![young, bottom(1, 100)])
    };
    assert!(with(12).is_none());
    assert!(with(13).is_some());
}

#[test]
fn expired_files_go_unread_unless_they_hide_what_lives() {
    let stamped = |number, tier, stamps| {
        let mut run = run(number, tier, 10);
        run.tables[0].stamps = Some(stamps);
        run
    };
    let dropped = |runs, expired| {
        let mut facts = facts(runs);
        facts.wishes.expired = Some(expired);
        match plan(&facts, &OPTIONS) {
            Some(Plan::Drop(parts)) => parts.iter().map(|part| part.run).collect(),
            None => Vec::new(),
            other => panic!("{other:?}"),
        }
    };
    let runs = || {
        vec![
            stamped(3, 0, (50, 60)),
            stamped(2, 0, (10, 30)),
            stamped(1, 1, (5, 20)),
        ]
    };
    assert_eq!(dropped(runs(), 19), Vec::<u64>::new());
    assert_eq!(dropped(runs(), 20), [1]);
    assert_eq!(dropped(runs(), 59), [1, 2]);
    assert_eq!(dropped(runs(), 60), [1, 2, 3]);
    // Its keys would be seen again in the older run.
    assert_eq!(
        dropped(vec![stamped(2, 0, (1, 2)), stamped(1, 0, (1, 9))], 5),
        Vec::<u64>::new()
    );
}

#[test]
fn files_with_overdue_entries_are_rewritten() {
    let stamped = |number: u64, tier, stamps| {
        let mut run = run(number, tier, 10);
        run.tables[0].stamps = Some(stamps);
        run
    };
    let overdue = |runs| {
        let mut facts = facts(runs);
        facts.wishes.overdue = Some(10);
        merge(&facts)
    };
    assert_eq!(overdue(vec![stamped(0, BOTTOM, (11, 90))]), None);
    let plan = overdue(vec![stamped(0, BOTTOM, (10, 90))]).unwrap();
    assert_eq!(
        (plan.runs.len(), plan.bottom.len(), plan.output_tier),
        (0, 1, BOTTOM)
    );
    let plan = overdue(vec![stamped(5, 0, (50, 60)), stamped(0, BOTTOM, (10, 90))]).unwrap();
    assert_eq!((plan.runs, plan.bottom.len()), (vec![5], 1));
    let plan = overdue(vec![stamped(5, 0, (9, 60)), stamped(0, BOTTOM, (70, 90))]).unwrap();
    assert_eq!((plan.runs, plan.drains), (vec![5], true));
}

#[test]
fn files_that_touch_no_other_are_moved_not_rewritten() {
    let file = |number: u64, first: u16, last: u16| RunFacts {
        number,
        tier: 0,
        tables: vec![PartFacts {
            movable: true,
            ..part(u128::from(number), first, last, 10)
        }],
    };
    let moved = |runs| match plan(&facts(runs), &OPTIONS) {
        Some(Plan::Move(parts)) => parts.iter().map(|part| part.run).collect(),
        Some(Plan::Merge(_)) => vec![],
        other => panic!("{other:?}"),
    };
    let sorted = || {
        vec![
            file(4, 3000, 3999),
            file(3, 2000, 2999),
            file(2, 1500, 1999),
            file(1, 1000, 1499),
        ]
    };
    assert_eq!(moved(sorted()), [4, 3, 2, 1]);
    let mut with_bottom = sorted();
    with_bottom.push(bottom(11, 100_000));
    assert_eq!(moved(with_bottom), [4, 3, 2]);
    let mut overlapping = sorted();
    overlapping[1] = file(3, 1900, 2999);
    assert_eq!(moved(overlapping), [4, 1]);
    let mut small = sorted();
    small.iter_mut().for_each(|run| run.tables[0].bytes = 0);
    assert_eq!(moved(small), Vec::<u64>::new());
}

/// Does to facts what a job does to tables.
fn apply(facts: &mut LevelFacts, plan: &Merge, next_id: &mut u128) {
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
    facts.shape = shape(&facts.runs);
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
            facts.shape = shape(&facts.runs);
            while let Some(plan) = merge(&facts) {
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
