//! If this fails, scans step over the same tombstones forever, or ask for merges that cost more than they spare.

use crate::support::{disk, simulated};
use keybed_lsm::{
    BOTTOM, Family, IndexedBatch, KeyRange, Store, StoreOptions, TableId,
    compaction::{
        density::{Density, InRange},
        picker::{
            LevelFacts, Merge, PartFacts, PickOptions, Plan, RunFacts, Shape, Wishes, may_be_due, pick,
        },
    },
};

fn range(start: u16, end: u16) -> KeyRange {
    KeyRange {
        start: start.to_be_bytes().to_vec(),
        end: Some(end.to_be_bytes().to_vec()),
    }
}

fn held(entries: u64, upper_tombstones: u64) -> InRange {
    InRange {
        entries,
        upper_tombstones,
    }
}

#[test]
fn a_merge_is_worth_a_quarter_of_the_entries_it_looks_at() {
    let mut density = Density::default();
    assert_eq!(density.range(), None);
    density.note(&range(10, 20), 100);
    assert_eq!(density.range(), Some(&range(10, 20)));
    assert!(density.is_worth(&held(400, 100), 100));
    assert!(!density.is_worth(&held(401, 100), 100));
    // The same tombstones again, and their neighbours.
    density.note(&range(10, 20), 100);
    assert!(density.is_worth(&held(800, 100), 100));
    density.note(&range(20, 30), 100);
    assert_eq!(density.range(), Some(&range(10, 30)));
    assert!(density.is_worth(&held(1200, 100), 100));
}

#[test]
fn tombstones_that_are_not_in_upper_runs_are_not_merged_again() {
    let mut density = Density::default();
    density.note(&range(10, 20), 1_000_000);
    assert!(!density.is_worth(&held(500, 0), 64));
    assert!(!density.is_worth(&held(500, 31), 64));
    assert!(!density.is_worth(&held(0, 0), 0));
    assert!(density.is_worth(&held(500, 32), 64));
}

#[test]
fn of_ranges_apart_the_one_with_more_steps_is_remembered_and_fades() {
    let mut density = Density::default();
    density.note(&range(10, 20), 1000);
    density.note(&range(50, 60), 100);
    assert_eq!(density.range(), Some(&range(10, 20)));
    density.note(&range(50, 60), 100);
    density.note(&range(50, 60), 100);
    assert_eq!(density.range(), Some(&range(10, 20)));
    density.note(&range(50, 60), 100);
    assert_eq!(density.range(), Some(&range(50, 60)));
    assert!(density.is_worth(&held(400, 100), 100) && !density.is_worth(&held(401, 100), 100));
}

fn part(id: u128, first: u16, last: u16, tombstones: u64) -> PartFacts {
    PartFacts {
        id: TableId(id),
        visible_start: first.to_be_bytes().to_vec(),
        first: first.to_be_bytes().to_vec(),
        last: last.to_be_bytes().to_vec(),
        is_open: false,
        bytes: 100,
        entries: 100,
        tombstones,
        movable: false,
        stamps: None,
        stands_on: None,
    }
}

/// A run with these tombstones over ten bottom files of a hundred keys each.
fn facts(tombstones: u64, wishes: Wishes) -> LevelFacts {
    let bottom = (0..10).map(|n| part(100 + u128::from(n), n * 100, n * 100 + 99, 0));
    let run = |number, tier, tables| RunFacts { number, tier, tables };
    LevelFacts {
        runs: vec![
            run(1, 0, vec![part(1, 100, 899, tombstones)]),
            run(0, BOTTOM, bottom.collect()),
        ],
        shape: Shape {
            bottom_bytes: 1000,
            bottom_entries: 1000,
            upper_bytes: 100,
            upper_entries: 100,
            upper_tombstones: tombstones,
        },
        wishes,
    }
}

fn merge(facts: &LevelFacts) -> Option<Merge> {
    let options = PickOptions {
        fan_in: 4,
        runs_max: 6,
        slice_bytes: 200,
        moved_bytes_min: 1,
    };
    let plan = pick(facts, &options);
    let tiers = facts.runs.iter().map(|run| run.tier);
    assert!(plan.is_none() || may_be_due(tiers, &facts.shape, &facts.wishes, &options));
    match plan {
        Some(Plan::Merge(merge)) => Some(merge),
        None => None,
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_scans_met_is_merged_once_slice_by_slice() {
    let dense = |range: Option<KeyRange>| Wishes {
        dense: range.map(Box::new),
        ..Wishes::default()
    };
    assert_eq!(merge(&facts(90, dense(None))), None);
    assert_eq!(merge(&facts(0, dense(Some(range(150, 450))))), None, "none left");
    assert_eq!(merge(&facts(90, dense(Some(range(900, 999))))), None, "elsewhere");
    let mut wishes = dense(Some(range(150, 450)));
    let mut slices = Vec::new();
    while let Some(merge) = merge(&facts(90, wishes.clone())) {
        assert_eq!((merge.output_tier, merge.drains), (BOTTOM, false));
        wishes.begin(&Plan::Merge(merge.clone()));
        slices.push(merge.slice);
    }
    // Whole bottom files, and the last only as far as it reaches.
    let last = KeyRange {
        end: Some([&499_u16.to_be_bytes()[..], &[0]].concat()),
        ..range(300, 499)
    };
    assert_eq!(slices, [range(100, 300), last]);
    assert_eq!(wishes, Wishes::default());
}

const KEYS: u64 = 20_000;
const DEAD: std::ops::Range<u64> = 4_000..6_000;

fn key(n: u64) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// A store whose bottom holds many entries, a few of them below tombstones of a run above it: not so many that anything
/// else lets the run drain.
fn store(options: StoreOptions) -> (Store, Family) {
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..KEYS {
        store.put(family, &key(n), &[7; 40]).unwrap();
    }
    store.compact(family).unwrap();
    let pause = store.pause_compaction();
    for n in DEAD {
        store.delete(family, &key(n)).unwrap();
    }
    store.flush().unwrap();
    drop(pause);
    store.wait_for_background().unwrap();
    (store, family)
}

/// Memtables and files of a size between those of tests and of programs.
fn options(seed: u64) -> StoreOptions {
    StoreOptions {
        memtable_bytes: 1 << 20,
        target_file_bytes: 64 << 10,
        fan_in: 4,
        runs_max: 8,
        ..simulated(disk(), seed)
    }
}

fn entries(store: &Store) -> u64 {
    store.stats().families[0].runs.iter().map(|run| run.entries).sum()
}

#[test]
fn tombstones_that_scans_step_over_go_without_being_asked_for() {
    type Scan = fn(&mut Store, Family);
    let probe = |store: &mut Store, f: Family| {
        let found = store.range(f, &key(DEAD.start)[..]..).unwrap().next().unwrap();
        assert_eq!(found.unwrap().0, key(DEAD.end));
    };
    let down: Scan = |store, f| {
        let end = key(DEAD.end);
        let found = store.range_rev(f, ..&end[..]).unwrap().next().unwrap();
        assert_eq!(found.unwrap().0, key(DEAD.start - 1));
    };
    let all: Scan = |store, f| assert_eq!(store.range(f, ..).unwrap().count(), (KEYS - 2_000) as usize);
    let view: Scan = |store, f| {
        let view = store.view().unwrap();
        assert_eq!(view.range(f, ..).unwrap().count(), (KEYS - 2_000) as usize);
    };
    let cursor: Scan = |store, f| {
        let mut cursor = store.cursor(f, &key(DEAD.start)[..]..).unwrap();
        assert!(cursor.next(store).unwrap());
    };
    let batch: Scan = |store, f| {
        let batch = IndexedBatch::new();
        let start = key(DEAD.start);
        let mut range = batch.range(store, f, &start[..]..).unwrap();
        assert!(range.next_entry().unwrap().is_some());
    };
    let ways: [(&str, Scan); 6] = [
        ("probe", probe),
        ("down", down),
        ("all", all),
        ("view", view),
        ("cursor", cursor),
        ("batch", batch),
    ];
    for (seed, (way, scan)) in ways.into_iter().enumerate() {
        let (mut store, family) = store(options(seed as u64));
        let before = store.stats().compactions;
        assert_eq!(entries(&store), KEYS + 2_000, "{way}: they are there");
        for _ in 0..4 {
            scan(&mut store, family);
            store.wait_for_background().unwrap();
        }
        let left = entries(&store);
        assert!(left < KEYS - 2_000 + 100, "{way}: {left}");
        let merges = store.stats().compactions - before;
        assert!((1..=16).contains(&merges), "{way}: {merges}");
        assert_eq!(store.range(family, ..).unwrap().count() as u64, KEYS - 2_000);
    }
}

#[test]
fn a_view_of_tombstones_that_are_gone_asks_for_nothing() {
    let (mut store, family) = store(options(11));
    let view = store.view().unwrap();
    store.compact(family).unwrap();
    // What lies there now are a few living entries.
    for n in DEAD.step_by(100) {
        store.put(family, &key(n), b"new").unwrap();
    }
    store.flush().unwrap();
    store.wait_for_background().unwrap();
    let before = store.stats().compactions;
    for _ in 0..50 {
        assert_eq!(view.range(family, ..).unwrap().count() as u64, KEYS - 2_000);
        store.wait_for_background().unwrap();
    }
    assert_eq!(store.stats().compactions, before);
}

#[test]
fn where_nothing_may_be_merged_scans_change_nothing() {
    let (mut store, family) = store(options(12));
    let before = store.stats().compactions;
    let pause = store.pause_compaction();
    for _ in 0..5 {
        assert_eq!(store.range(family, ..).unwrap().count() as u64, KEYS - 2_000);
        store.wait_for_background().unwrap();
    }
    assert_eq!(store.stats().compactions, before);
    drop(pause);
    store.wait_for_background().unwrap();
    assert!(
        store.stats().compactions > before,
        "what they asked for is done later"
    );
}
