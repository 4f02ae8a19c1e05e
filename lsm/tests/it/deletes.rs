//! If this fails, keys that were deleted by ranges, floors or whole families come back, or others go with them.

use crate::support::{Chain, Map, content, disk, pinned_content, simulated};
use keybed_env::{Fs, Random, SimFs};
use keybed_format::ErrorKind;
use keybed_lsm::{
    Append, Family, FamilyOptions, Floor, KeyRange, Mount, Store, StoreOptions, Update,
    range_delete::{RANGE_DELETES_MAX, RangeDeletes},
};
use std::{path::Path, sync::Arc};

fn key(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

fn partitioned(_: usize) -> FamilyOptions {
    FamilyOptions {
        partition_prefix: 1,
        ..FamilyOptions::default()
    }
}

/// A store without merges of its own, and a family of it.
fn quiet(fs: &Arc<SimFs>, dir: &str) -> (Store, Family) {
    // Two stores in one directory must not give their tables the same names.
    let options = StoreOptions {
        compaction: false,
        memtable_bytes: 1 << 20,
        ..simulated(fs.clone(), fs.op_count())
    };
    let mut store = Store::open(dir, options).unwrap();
    let family = store.family_with("f", partitioned(0)).unwrap();
    (store, family)
}

fn fill(store: &mut Store, family: Family, model: &mut Map, numbers: std::ops::Range<u16>, value: u8) {
    for number in numbers {
        store.put(family, &key(number), &[value; 20]).unwrap();
        model.insert(key(number).to_vec(), vec![value; 20]);
    }
}

fn mounted(fs: &Arc<SimFs>, mount: Mount, dir: &str) -> (Store, Family) {
    let mut store = Store::mount(dir, simulated(fs.clone(), 99), mount).unwrap();
    let family = store.family("f").unwrap();
    (store, family)
}

#[test]
fn pinned_files_keep_what_they_saw_although_a_clear_comes_before_their_flush() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..50, 1);
    store.flush().unwrap();
    // The tombstones are in a memtable that is not flushed when everything they hide is removed from the store.
    for number in 10..20 {
        store.delete(family, &key(number)).unwrap();
        model.remove(&key(number)[..]);
    }
    store.delete_range(family, &key(30)[..]..&key(40)[..]).unwrap();
    model.retain(|k, _| k[..] < key(30)[..] || k[..] >= key(40)[..]);
    let view = store.view().unwrap();
    let cursor_key = key(45);
    let mut cursor = store.cursor(family, ..).unwrap();
    let pinning = store.pin().unwrap();
    store.clear(family).unwrap();
    assert!(content(&store, family).unwrap().is_empty());
    store.put(family, &cursor_key, b"new").unwrap();
    let pinned = pinning.finish().unwrap();
    store.flush().unwrap();
    store.compact(family).unwrap();
    assert_eq!(content(&store, family).unwrap().len(), 1);
    let seen: Map = view
        .range(family, ..)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(seen, model);
    let mut walked = Map::new();
    while cursor.next(&store).unwrap() {
        walked.insert(cursor.key().to_vec(), cursor.value().to_vec());
    }
    assert_eq!(walked, model);
    let mount = pinned_content(&*fs, &pinned, Path::new("m"), partitioned);
    let (mut other, of_other) = mounted(&fs, mount, "m");
    assert_eq!(content(&other, of_other).unwrap(), model);
    other.compact(of_other).unwrap();
    assert_eq!(content(&other, of_other).unwrap(), model);
    drop((view, cursor, pinned));
    store.close().unwrap();
    let (store, family) = quiet(&fs, "s");
    assert_eq!(content(&store, family).unwrap().len(), 1);
}

#[test]
fn floors_hold_for_what_is_older_and_travel_with_pinned_files() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..100, 1);
    store.flush().unwrap();
    fill(&mut store, family, &mut model, 50..100, 2);
    let before = store.pin().unwrap();
    let model_before = model.clone();
    assert!(store.raise_floor(family, &[0], &[60]).unwrap());
    model.retain(|k, _| k[..] >= key(60)[..]);
    // A late one.
    fill(&mut store, family, &mut model, 5..6, 3);
    assert_eq!(content(&store, family).unwrap(), model);
    let after = store.pin().unwrap().finish().unwrap();
    let before = before.finish().unwrap();
    assert!(before.families[0].floors.is_empty());
    let floors = &after.families[0].floors;
    assert_eq!((floors.len(), &floors[0].bound[..]), (1, &[60][..]));
    for (pinned, model, dir) in [(&before, &model_before, "m1"), (&after, &model, "m2")] {
        let mount = pinned_content(&*fs, pinned, Path::new(dir), partitioned);
        let (mut other, of_other) = mounted(&fs, mount, dir);
        assert_eq!(content(&other, of_other).unwrap(), *model);
        other.compact(of_other).unwrap();
        assert_eq!(content(&other, of_other).unwrap(), *model);
        other.close().unwrap();
    }
    store.compact(family).unwrap();
    drop((before, after));
    store.close().unwrap();
    // A floor alone, without any write, is flushed, too.
    let (mut store, family) = quiet(&fs, "s");
    assert_eq!(store.floor(family, &[0]).unwrap(), Some(vec![60]));
    assert_eq!(content(&store, family).unwrap(), model);
    assert!(!store.raise_floor(family, &[0], &[59]).unwrap());
    assert!(store.raise_floor(family, &[0], &[60]).unwrap());
    model.retain(|k, _| k[..] >= key(60)[..]);
    store.close().unwrap();
    let (mut store, family) = quiet(&fs, "s");
    assert_eq!(content(&store, family).unwrap(), model);
    assert!(store.raise_floor(family, b"", &[1]).is_err());
    assert!(store.raise_floor(family, b"ab", &[1]).is_err());
}

#[test]
fn floors_that_do_not_fit_the_family_cannot_be_mounted() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..10, 1);
    let pinned = store.pin().unwrap().finish().unwrap();
    let mut mount = pinned_content(&*fs, &pinned, Path::new("m"), partitioned);
    mount.families[0].floors = vec![Floor {
        partition: b"ab".to_vec(),
        bound: vec![1],
        seqno: 3,
    }];
    let error = Store::mount("m", simulated(fs.clone(), 9), mount).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_table_that_is_mounted_with_a_narrower_range_deletes_nothing_outside() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..100, 1);
    store.flush().unwrap();
    fill(&mut store, family, &mut model, 30..31, 2);
    store.delete_range(family, &key(20)[..]..&key(80)[..]).unwrap();
    store.flush().unwrap();
    let pinned = store.pin().unwrap().finish().unwrap();
    for (start, end) in [(0, 50), (50, 200), (25, 60), (80, 100), (90, 95)] {
        let dir = format!("m{start}");
        let mut mount = pinned_content(&*fs, &pinned, Path::new(&dir), partitioned);
        let runs = &mut mount.families[0].runs;
        assert_eq!(runs.len(), 2);
        let visible = KeyRange {
            start: key(start).to_vec(),
            end: Some(key(end).to_vec()),
        };
        runs[0].tables[0].visible = visible.clone();
        let expected: Map = (0..100)
            .map(|number| (key(number).to_vec(), vec![1; 20]))
            .filter(|(k, _)| !visible.contains(k) || k[..] < key(20)[..] || k[..] >= key(80)[..])
            .collect();
        let (mut other, of_other) = mounted(&fs, mount, &dir);
        assert_eq!(content(&other, of_other).unwrap(), expected, "{start}..{end}");
        for number in 0..100 {
            let found = other.get(of_other, &key(number)).unwrap().is_some();
            assert_eq!(found, expected.contains_key(&key(number)[..]), "{number}");
        }
        other.compact(of_other).unwrap();
        assert_eq!(content(&other, of_other).unwrap(), expected, "{start}..{end}");
        other.close().unwrap();
    }
}

#[test]
fn tables_that_a_range_delete_or_a_floor_covers_go_without_being_read() {
    let fs = disk();
    for by_floor in [false, true] {
        let dir = format!("s{by_floor}");
        let options = StoreOptions {
            memtable_bytes: 1 << 20,
            ..simulated(fs.clone(), 3)
        };
        let mut store = Store::open(&dir, options).unwrap();
        let family = store.family_with("f", partitioned(0)).unwrap();
        let mut model = Map::new();
        // In the bottom, in files of a few kilobytes: two runs of the same keys are merged.
        fill(&mut store, family, &mut model, 0..2000, 0);
        store.flush().unwrap();
        fill(&mut store, family, &mut model, 0..2000, 1);
        store.compact(family).unwrap();
        store.wait_for_background().unwrap();
        let before = store.stats();
        assert!(before.tables > 8, "{}", before.tables);
        if by_floor {
            for partition in 0..6 {
                assert!(store.raise_floor(family, &[partition], &[255]).unwrap());
            }
            model.retain(|k, _| k[0] >= 6 || k[1] == 255);
        } else {
            store.delete_range(family, ..&key(1000)[..]).unwrap();
            model.retain(|k, _| k[..] >= key(1000)[..]);
        }
        store.flush().unwrap();
        // One job only looks for covered tables; merges may follow, of what is left.
        store.wait_for_background().unwrap();
        let after = store.stats();
        assert!(
            after.tables < before.tables * 3 / 4,
            "{} {}",
            before.tables,
            after.tables
        );
        let read = after.compaction_read_bytes - before.compaction_read_bytes;
        let dropped = before.table_bytes - after.table_bytes;
        assert!(read < dropped / 2, "{read} of {dropped}");
        assert_eq!(content(&store, family).unwrap(), model);
        store.close().unwrap();
        let options = StoreOptions {
            memtable_bytes: 1 << 20,
            ..simulated(fs.clone(), 4)
        };
        let mut store = Store::open(&dir, options).unwrap();
        let family = store.family("f").unwrap();
        assert_eq!(content(&store, family).unwrap(), model);
        store.close().unwrap();
    }
}

#[test]
fn a_delete_of_much_that_is_in_tables_is_flushed_at_once() {
    let fs = disk();
    let options = StoreOptions {
        memtable_bytes: 1 << 20,
        ..simulated(fs, 3)
    };
    let mut store = Store::open("s", options).unwrap();
    let family = store.family("f").unwrap();
    fill(&mut store, family, &mut Map::new(), 0..2000, 1);
    store.compact(family).unwrap();
    let before = store.stats();
    store.delete_range(family, ..).unwrap();
    store.wait_for_background().unwrap();
    let after = store.stats();
    assert_eq!(after.seals, before.seals + 1);
    assert!(after.tables <= 1, "{}", after.tables);
    assert!(content(&store, family).unwrap().is_empty());
}

#[test]
fn many_range_deletes_seal_their_memtable_and_all_of_them_hold() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..u16::MAX, 1);
    let mut deleted = 0;
    for number in (0..u16::MAX - 2).step_by(3) {
        store
            .delete_range(family, &key(number)[..]..&key(number + 1)[..])
            .unwrap();
        model.remove(&key(number)[..]);
        deleted += 1;
    }
    assert!(deleted > RANGE_DELETES_MAX);
    assert!(store.stats().seals >= 1);
    assert_eq!(content(&store, family).unwrap(), model);
    store.close().unwrap();
    let (mut store, family) = quiet(&fs, "s");
    assert_eq!(content(&store, family).unwrap(), model);
    store.compact(family).unwrap();
    assert_eq!(content(&store, family).unwrap(), model);
}

#[test]
fn operands_and_updates_stand_on_nothing_below_a_range_delete_or_a_floor() {
    let operators: [Arc<dyn keybed_lsm::MergeOperator>; 2] = [Arc::new(Append), Arc::new(Chain)];
    for (number, operator) in operators.into_iter().enumerate() {
        // 0: nothing is flushed between; 1: the old value is; 2: the delete, too.
        for flushed in 0..3 {
            for by_floor in [false, true] {
                let fs = disk();
                let (mut store, _) = quiet(&fs, "s");
                let options = FamilyOptions {
                    merge: Some(operator.clone()),
                    ..FamilyOptions::default()
                };
                let family = store.family_with("g", options).unwrap();
                for key in [b"a", b"b", b"c", b"d", b"e"] {
                    store.merge(family, key, b"old").unwrap();
                    store.merge(family, key, b"old").unwrap();
                }
                if flushed > 0 {
                    store.flush().unwrap();
                }
                if by_floor {
                    store.raise_floor(family, b"", b"z").unwrap();
                } else {
                    store.delete_prefix(family, b"").unwrap();
                }
                if flushed > 1 {
                    store.flush().unwrap();
                }
                store.merge(family, b"a", b"new").unwrap();
                store.append(family, b"b", b"new").unwrap();
                store
                    .update(family, b"c", |old| {
                        assert_eq!(old, None);
                        Update::Put(b"new")
                    })
                    .unwrap();
                assert!(
                    !store
                        .update_in_place(family, b"d", |_| panic!("it is gone"))
                        .unwrap()
                );
                assert!(!store.contains(family, b"e").unwrap());
                let new = |key: &[u8]| {
                    (
                        key.to_vec(),
                        if number == 1 && key == b"a" {
                            b"new<".to_vec()
                        } else {
                            b"new".to_vec()
                        },
                    )
                };
                let expected: Map = [new(b"a"), new(b"b"), new(b"c")].into();
                for step in 0..3 {
                    let what = format!("{number} {flushed} {by_floor} {step}");
                    assert_eq!(content(&store, family).unwrap(), expected, "{what}");
                    for key in [b"a", b"b", b"c", b"d"] {
                        let found = store.get(family, key).unwrap().map(|value| value.to_vec());
                        assert_eq!(found.as_ref(), expected.get(&key[..]), "{what}");
                    }
                    match step {
                        0 => store.flush().unwrap(),
                        _ => store.compact(family).unwrap(),
                    }
                }
            }
        }
    }
}

#[test]
fn golden_bytes_of_the_documented_range_deletes() {
    let mut deletes = RangeDeletes::new();
    deletes.insert(&KeyRange::prefix(b"ab"), 9);
    let rest = KeyRange {
        start: b"x".to_vec(),
        end: None,
    };
    deletes.insert(&rest, 300);
    let hex: Vec<String> = deletes
        .encode()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let page = include_str!("../../../docs/format/table.md");
    assert!(page.contains(&hex.join(" ")), "{}", hex.join(" "));
}

#[test]
fn every_flipped_bit_of_range_deletes_in_tables_is_an_error_or_changes_nothing() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let mut model = Map::new();
    fill(&mut store, family, &mut model, 0..40, 1);
    store.flush().unwrap();
    store.delete_range(family, &key(3)[..]..&key(9)[..]).unwrap();
    store.delete_range(family, &key(20)[..]..).unwrap();
    store.put(family, &key(5), b"x").unwrap();
    model.retain(|k, _| k[..] < key(20)[..] && !(3..9).contains(&k[1]));
    model.insert(key(5).to_vec(), b"x".to_vec());
    assert_eq!(content(&store, family).unwrap(), model);
    let pinned = store.pin().unwrap().finish().unwrap();
    let path = pinned.families[0].runs[0].tables[0].path.clone();
    drop(pinned);
    store.close().unwrap();
    let bytes = fs.read(&path, 1 << 20).unwrap().len();
    let (mut right, mut refused) = (0, 0);
    for bit in 0..bytes * 8 {
        let image = Arc::new(fs.live_image());
        image
            .corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))
            .unwrap();
        let options = StoreOptions {
            compaction: false,
            ..simulated(image, 7)
        };
        let mut store = Store::open("s", options).unwrap();
        let family = store.family("f").unwrap();
        match content(&store, family) {
            Ok(found) => {
                assert_eq!(found, model, "bit {bit}");
                right += 1;
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Incompatible)
                        && error.file().is_some(),
                    "bit {bit}: {error}"
                );
                refused += 1;
            }
        }
        for number in 0..40 {
            if let Ok(value) = store.get(family, &key(number)) {
                let value = value.map(|value| value.to_vec());
                assert_eq!(value.as_ref(), model.get(&key(number)[..]), "bit {bit}");
            }
        }
    }
    assert!(refused > right, "{right} {refused}");
}

#[test]
fn a_clear_is_whole_and_leaves_other_families_alone() {
    let fs = disk();
    let (mut store, family) = quiet(&fs, "s");
    let other = store.family("other").unwrap();
    let mut random = Random::from_seed(5);
    let (mut model, mut of_other) = (Map::new(), Map::new());
    for round in 0..20 {
        let from = random.below(500) as u16;
        fill(&mut store, family, &mut model, from..from + 50, round);
        fill(&mut store, other, &mut of_other, from..from + 10, round);
        match random.below(4) {
            0 => store.flush().unwrap(),
            1 => drop(store.view().unwrap()),
            2 => {
                store.raise_floor(family, &[0], &[200]).unwrap();
            }
            _ => {}
        }
        if random.one_in(3) {
            store.clear(family).unwrap();
            model.clear();
            assert_eq!(store.floor(family, &[0]).unwrap(), None);
        } else if store.floor(family, &[0]).unwrap().is_some() {
            store.clear(family).unwrap();
            model.clear();
        }
        assert_eq!(content(&store, family).unwrap(), model, "round {round}");
        assert_eq!(content(&store, other).unwrap(), of_other, "round {round}");
        if random.one_in(4) {
            store.close().unwrap();
            let (again, token) = quiet(&fs, "s");
            assert_eq!(token, family);
            store = again;
        }
    }
}
