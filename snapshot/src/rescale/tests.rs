//! Rescale against a plain model: which tables, newest first, a key sees before and after.

use super::*;
use crate::{metadata::sample, *};
use proptest::{collection::vec, prelude::*};

/// What a reader of `key` meets in a family: the contents of visible tables, newest first.
fn seen(handle: &KeyedHandle, family: &str, key: &[u8]) -> Vec<u128> {
    let shows = |table: &&TableHandle| {
        table.visible_start.as_slice() <= key && table.visible_end.as_deref().is_none_or(|end| key < end)
    };
    let runs = handle
        .families
        .iter()
        .filter(|f| f.name == family)
        .flat_map(|f| &f.runs);
    runs.flat_map(|run| run.tables.iter().filter(shows))
        .map(|table| table.file.content)
        .collect()
}

fn keys(max: u32) -> impl Iterator<Item = (KeyGroup, Vec<u8>)> {
    (0..max as u16).flat_map(|group| {
        let key = |rest: &[u8]| [&group.to_be_bytes(), rest].concat();
        [key(b""), key(b"k"), key(&[0xff; 9])].map(|key| (KeyGroup(group), key))
    })
}

fn subtasks(assignments: &[Assignment]) -> Vec<SubtaskState> {
    let state = |a: &Assignment| SubtaskState {
        keyed: a.merged(),
        operator: a.operator.clone(),
        finished: a.finished,
        ..SubtaskState::empty(a.index)
    };
    assignments.iter().map(state).collect()
}

/// The owner of every key sees what the owner before saw.
fn same_content(old: &[SubtaskState], new: &[SubtaskState], max: u32) {
    let view = |subtasks: &[SubtaskState], group, key: &[u8]| {
        let owners: Vec<_> = subtasks
            .iter()
            .filter_map(|s| s.keyed.as_ref())
            .filter(|k| k.range.contains(group))
            .collect();
        assert!(owners.len() <= 1, "a key group has one owner");
        owners
            .first()
            .map(|k| (seen(k, "point", key), seen(k, "timer", key)))
            .unwrap_or_default()
    };
    for (group, key) in keys(max) {
        assert_eq!(
            view(old, group, &key),
            view(new, group, &key),
            "group {}",
            group.0
        );
    }
}

fn one_subtask(max: u32, runs: Vec<Vec<u8>>) -> SubtaskState {
    let family = |name: &str, runs: Vec<Vec<u8>>| FamilyHandle {
        name: name.into(),
        runs: runs
            .into_iter()
            .zip(0..)
            .map(|(tables, tier)| RunHandle {
                tier,
                tables: tables.into_iter().map(sample::table).collect(),
            })
            .collect(),
    };
    let keyed = KeyedHandle {
        range: KeyGroupRange::all(max).unwrap(),
        backend: BackendKind::Lsm,
        next_seqno: 100,
        families: vec![family("point", runs), family("timer", vec![vec![90]])],
    };
    SubtaskState {
        keyed: Some(keyed),
        ..SubtaskState::empty(SubtaskIndex(0))
    }
}

#[test]
fn one_seven_128_three_one_is_the_identity() {
    let start = vec![one_subtask(128, vec![vec![1], vec![2], vec![3]])];
    let mut at = start.clone();
    for parallelism in [7, 128, 3, 1] {
        let assigned = rescale(&at, 128, parallelism).unwrap();
        let counts = assigned.iter().map(|a| a.range.count());
        assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
        at = subtasks(&assigned);
        same_content(&start, &at, 128);
    }
    let end = at[0].keyed.as_ref().unwrap();
    assert_eq!(end.families[0].runs.len(), 3);
    assert_eq!(
        end.tables().count(),
        4,
        "views of one file that touch are one view again"
    );
    assert_eq!(end.next_seqno, 100);
    assert_eq!(
        end.files().collect::<Vec<_>>(),
        start[0].files().collect::<Vec<_>>()
    );
}

#[test]
fn a_table_outside_of_the_range_is_dropped() {
    let mut one = one_subtask(128, vec![vec![1, 2]]);
    let tables = &mut one.keyed.as_mut().unwrap().families[0].runs[0].tables;
    tables[0].visible_end = Some(vec![0, 64]);
    tables[1].visible_start = vec![0, 64];
    let halves = rescale(&[one], 128, 2).unwrap();
    for (n, half) in halves.iter().enumerate() {
        let family = &half.keyed[0].families[0];
        assert_eq!(family.runs[0].tables.len(), 1);
        assert_eq!(family.runs[0].tables[0].file.content, n as u128 + 1);
    }
}

#[test]
fn runs_are_aligned_from_the_bottom_and_tiers_ascend() {
    let mut halves = subtasks(&rescale(&[one_subtask(128, vec![vec![1]])], 128, 2).unwrap());
    // The second half took two more flushes and has another bottom.
    let keyed = halves[1].keyed.as_mut().unwrap();
    keyed.next_seqno = 300;
    let clipped = |n| TableHandle {
        visible_start: vec![0, 64],
        ..sample::table(n)
    };
    keyed.families[0].runs = [(0, 5), (1, 6), (9, 7)]
        .map(|(tier, n)| RunHandle {
            tier,
            tables: vec![clipped(n)],
        })
        .to_vec();
    let merged = rescale(&halves, 128, 1).unwrap()[0].merged().unwrap();
    let rows: Vec<(u8, Vec<u128>)> = merged.families[0]
        .runs
        .iter()
        .map(|run| (run.tier, run.tables.iter().map(|t| t.file.content).collect()))
        .collect();
    assert_eq!(rows, [(0, vec![5]), (1, vec![6]), (9, vec![1, 7])]);
    assert_eq!(merged.next_seqno, 300);
}

fn with_items(mode: OperatorStateMode, items: &[&[u8]]) -> Vec<SubtaskState> {
    let handle = |items: &[u8]| OperatorStateHandle {
        name: "s".into(),
        mode,
        items: items.iter().map(|i| vec![*i]).collect(),
    };
    let state = |(n, items): (usize, &&[u8])| SubtaskState {
        operator: vec![handle(items)],
        ..SubtaskState::empty(SubtaskIndex(n as u32))
    };
    items.iter().enumerate().map(state).collect()
}

fn dealt(old: &[SubtaskState], parallelism: u32) -> Vec<Vec<u8>> {
    let assigned = rescale(old, 128, parallelism).unwrap();
    assigned
        .iter()
        .map(|a| a.operator[0].items.iter().map(|i| i[0]).collect())
        .collect()
}

#[test]
fn operator_state_is_split_united_and_copied() {
    let split = with_items(OperatorStateMode::Split, &[&[1, 2, 3, 4], &[], &[5]]);
    assert_eq!(dealt(&split, 2), [vec![1, 2], vec![3, 4, 5]]);
    assert_eq!(
        dealt(&split, 3),
        [vec![1, 2, 3, 4], vec![], vec![5]],
        "unchanged parallelism moves nothing"
    );
    assert_eq!(dealt(&split, 7).concat(), [1, 2, 3, 4, 5]);
    let union = with_items(OperatorStateMode::Union, &[&[1], &[2, 3]]);
    assert_eq!(dealt(&union, 3), [[1, 2, 3], [1, 2, 3], [1, 2, 3]]);
    let broadcast = with_items(OperatorStateMode::Broadcast, &[&[1, 2], &[1, 2]]);
    assert_eq!(dealt(&broadcast, 3), [[1, 2], [1, 2], [1, 2]]);
}

#[test]
fn finished_subtasks_stay_finished() {
    let mut old = with_items(OperatorStateMode::Split, &[&[1], &[2]]);
    old[0].finished = true;
    let flags = |old: &[SubtaskState], p| {
        rescale(old, 128, p)
            .unwrap()
            .iter()
            .map(|a| a.finished)
            .collect::<Vec<_>>()
    };
    assert_eq!(flags(&old, 2), [true, false]);
    assert_eq!(flags(&old, 3), [false, false, false]);
    old[1].finished = true;
    assert_eq!(flags(&old, 3), [true, true, true]);
    assert_eq!(flags(&[], 2), [false, false]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_or_doubled(
        max in 1_u32..200,
        steps in vec((1_u32..40, vec((0_u32..40, 1_u8..80), 0..6)), 1..6),
        runs in vec(vec(1_u8..80, 1..2), 0..4),
    ) {
        let mut at = vec![one_subtask(max, runs)];
        let mut flushed = 100;
        for (parallelism, flushes) in steps {
            let parallelism = parallelism.min(max);
            let assigned = rescale(&at, max, parallelism).unwrap();
            prop_assert_eq!(assigned.len(), parallelism as usize);
            prop_assert_eq!(assigned.iter().map(|a| a.range.count()).sum::<u32>(), max);
            let mut new = subtasks(&assigned);
            same_content(&at, &new, max);
            prop_assert_eq!(split_then_parts_are_disjoint(&assigned), true);
            // Some subtasks flush before the next step.
            for (subtask, n) in flushes {
                let index = subtask as usize % new.len();
                let Some(keyed) = new[index].keyed.as_mut() else { continue };
                flushed += 1;
                keyed.next_seqno = flushed;
                let whole = sample::table(n);
                let mut table = clip(&KeyedHandle { families: vec![FamilyHandle { name: "point".into(), runs: vec![RunHandle { tier: 0, tables: vec![whole] }] }], ..keyed.clone() }, keyed.range);
                let run = table.families.remove(0).runs.remove(0);
                match keyed.families.iter_mut().find(|f| f.name == "point") {
                    Some(family) => family.runs.insert(0, run),
                    None => keyed.families.push(FamilyHandle { name: "point".into(), runs: vec![run] }),
                }
            }
            at = new;
        }
        let all: Vec<_> = at.iter().filter_map(|s| s.keyed.as_ref()).map(|k| k.next_seqno).collect();
        prop_assert!(all.iter().all(|seqno| *seqno <= flushed));
    }

    #[test]
    fn a_split_list_keeps_its_order(sizes in vec(0_u8..9, 1..6), parallelism in 1_u32..9) {
        let mut next = 0;
        let lists: Vec<Vec<u8>> = sizes.iter().map(|n| { let start = next; next += n; (start..next).collect() }).collect();
        let refs: Vec<&[u8]> = lists.iter().map(Vec::as_slice).collect();
        let dealt = dealt(&with_items(OperatorStateMode::Split, &refs), parallelism);
        prop_assert_eq!(dealt.concat(), (0..next).collect::<Vec<u8>>());
        if parallelism as usize != sizes.len() {
            let sizes = dealt.iter().map(Vec::len);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}

fn split_then_parts_are_disjoint(assigned: &[Assignment]) -> bool {
    let ranges: Vec<KeyGroupRange> = assigned
        .iter()
        .flat_map(|a| &a.keyed)
        .map(|part| part.range)
        .collect();
    ranges.windows(2).all(|pair| pair[0].last < pair[1].first)
        && assigned.iter().all(|a| {
            a.keyed
                .iter()
                .all(|part| part.range.intersection(a.range) == Some(part.range))
        })
}
