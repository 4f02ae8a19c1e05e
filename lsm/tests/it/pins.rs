//! Without this a checkpoint could name files that are gone, or hold keys of another key-group range.

use crate::support::{Map, content, disk, pinned_content, simulated, tiny};
use keybed_env::{Fs, Random, SimFs};
use keybed_lsm::{FamilyOptions, KeyRange, Store, key::SEQNO_MAX};
use std::{path::Path, sync::Arc};

fn numbers(store: &mut Store, random: &mut Random, count: u64, model: &mut Map) {
    let family = store.family("f").unwrap();
    for _ in 0..count {
        let key = (random.below(1 << 16) as u16).to_be_bytes();
        if random.one_in(5) {
            store.delete(family, &key).unwrap();
            model.remove(&key[..]);
        } else {
            let value = vec![random.u64() as u8; random.index(40)];
            store.put(family, &key, &value).unwrap();
            model.insert(key.to_vec(), value);
        }
    }
}

fn files(fs: &SimFs, dir: &str) -> usize {
    fs.list(Path::new(dir))
        .unwrap()
        .iter()
        .filter(|entry| entry.name.ends_with(".sst"))
        .count()
}

#[test]
fn pinned_files_survive_compactions_and_go_when_unpinned() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let family = store.family("f").unwrap();
    let (mut random, mut model) = (Random::from_seed(1), Map::new());
    numbers(&mut store, &mut random, 2000, &mut model);
    let pinning = store.pin().unwrap();
    let then = model.clone();
    // The store goes on and merges everything away before the pin is finished.
    numbers(&mut store, &mut random, 2000, &mut model);
    store.compact(family).unwrap();
    let pinned = pinning.finish().unwrap();
    numbers(&mut store, &mut random, 2000, &mut model);
    store.compact(family).unwrap();
    store.wait_for_background().unwrap();
    let with_pin = files(&fs, "s");
    for table in pinned.tables() {
        assert_eq!(
            fs.facts(&table.path).unwrap().map(|facts| facts.len),
            Some(table.bytes),
            "{table:?}"
        );
        assert!(table.seqno_max < pinned.next_seqno);
    }
    let mount = pinned_content(&*fs, &pinned, Path::new("m"), |_| FamilyOptions::default());
    let mut mounted = Store::mount("m", simulated(fs.clone(), 2), mount).unwrap();
    let mounted_family = mounted.family("f").unwrap();
    assert_eq!(content(&mounted, mounted_family).unwrap(), then);
    assert!(mounted.next_seqno() >= pinned.next_seqno);
    drop(pinned);
    store.wait_for_background().unwrap();
    let without_pin = files(&fs, "s");
    assert!(
        without_pin < with_pin,
        "{without_pin} of {with_pin} files are left"
    );
    assert_eq!(without_pin as u64, store.stats().tables);
    assert_eq!(content(&store, family).unwrap(), model);
    // The mounted store has links of its own.
    assert_eq!(content(&mounted, mounted_family).unwrap(), then);
    mounted.compact(mounted_family).unwrap();
    assert_eq!(content(&mounted, mounted_family).unwrap(), then);
}

#[test]
fn two_mounts_of_halves_are_disjoint_and_complete() {
    for seed in (0..8).map(|seed| seed * 1000) {
        let fs = disk();
        let mut store = Store::open("s", simulated(fs.clone(), seed)).unwrap();
        let (mut random, mut model) = (Random::from_seed(seed), Map::new());
        numbers(&mut store, &mut random, 3000, &mut model);
        let pinned = store.pin().unwrap().finish().unwrap();
        let middle = (random.below(1 << 16) as u16).to_be_bytes().to_vec();
        let halves = [
            KeyRange {
                start: Vec::new(),
                end: Some(middle.clone()),
            },
            KeyRange {
                start: middle.clone(),
                end: None,
            },
        ];
        let mut both = Map::new();
        let mut stores = Vec::new();
        for (number, half) in (0..).zip(&halves) {
            // Stores of one world must not share a seed: it names their tables.
            let ids = seed + 10 * number;
            let dir = format!("half-{number}");
            let mut mount = pinned_content(&*fs, &pinned, Path::new(&dir), |_| FamilyOptions::default());
            for table in mount
                .families
                .iter_mut()
                .flat_map(|f| &mut f.runs)
                .flat_map(|run| &mut run.tables)
            {
                table.visible = table.visible.clip(half);
            }
            let mut mounted = Store::mount(&dir, simulated(fs.clone(), ids + 1), mount).unwrap();
            let family = mounted.family("f").unwrap();
            let part = content(&mounted, family).unwrap();
            assert!(part.keys().all(|key| half.contains(key)), "seed {seed}");
            for key in model.keys() {
                let expected = model.get(key).filter(|_| half.contains(key)).cloned();
                assert_eq!(
                    mounted.get(family, key).unwrap().map(|value| value.to_vec()),
                    expected,
                    "seed {seed}"
                );
            }
            // A merge makes the narrowing real; a reopened store still sees the same.
            if seed % 2000 == 0 {
                mounted.compact(family).unwrap();
            }
            mounted.close().unwrap();
            let mut mounted = Store::open(&dir, simulated(fs.clone(), ids + 2)).unwrap();
            let family = mounted.family("f").unwrap();
            assert_eq!(content(&mounted, family).unwrap(), part, "seed {seed}");
            both.extend(part);
            stores.push(mounted);
        }
        assert_eq!(both, model, "seed {seed}");
        // Back to one: the same table may be there twice with disjoint parts.
        let pins: Vec<_> = stores
            .iter_mut()
            .map(|store| store.pin().unwrap().finish().unwrap())
            .collect();
        let mut one = pinned_content(&*fs, &pins[0], Path::new("one"), |_| FamilyOptions::default());
        let other = pinned_content(&*fs, &pins[1], Path::new("one"), |_| FamilyOptions::default());
        let other_runs = other.families.into_iter().flat_map(|family| family.runs);
        // Runs of disjoint origins may stand in any order.
        one.families[0].runs.splice(0..0, other_runs);
        one.next_seqno = one.next_seqno.max(other.next_seqno);
        let mut merged = Store::mount("one", simulated(fs.clone(), seed + 300), one).unwrap();
        let family = merged.family("f").unwrap();
        assert_eq!(content(&merged, family).unwrap(), model, "seed {seed}");
        numbers(&mut merged, &mut random, 1000, &mut model);
        merged.compact(family).unwrap();
        assert_eq!(content(&merged, family).unwrap(), model, "seed {seed}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test is about threads")]
fn pinning_while_threads_flush_and_merge_gives_the_content_of_its_moment() {
    let place = tempfile::tempdir().unwrap();
    let mut store = Store::open(place.path().join("s"), tiny()).unwrap();
    let (mut random, mut model) = (Random::from_seed(3), Map::new());
    let mut helpers = Vec::new();
    for round in 0..20 {
        numbers(&mut store, &mut random, 300, &mut model);
        let (pinning, then) = (store.pin().unwrap(), model.clone());
        let target = place.path().join(format!("m{round}"));
        helpers.push(std::thread::spawn(move || {
            let pinned = pinning.finish().unwrap();
            let options = tiny();
            let mount = pinned_content(&*options.fs, &pinned, &target, |_| FamilyOptions::default());
            drop(pinned);
            let mut mounted = Store::mount(&target, options, mount).unwrap();
            let family = mounted.family("f").unwrap();
            assert_eq!(content(&mounted, family).unwrap(), then, "round {round}");
        }));
    }
    for helper in helpers {
        helper.join().unwrap();
    }
    store.close().unwrap();
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let mut model = Map::new();
    numbers(&mut store, &mut Random::from_seed(1), 500, &mut model);
    let pinned = store.pin().unwrap().finish().unwrap();
    let mount = |dir: &str| pinned_content(&*fs, &pinned, Path::new(dir), |_| FamilyOptions::default());
    let code = |dir: &str, mount| {
        Store::mount(dir, simulated(fs.clone(), 2), mount)
            .map(|_| ())
            .unwrap_err()
            .code()
    };
    assert_eq!(code("s", mount("elsewhere")), keybed_format::Code::Locked);
    let mut outside = mount("a");
    outside.families[0].runs[0].tables[0].path = "s/x.sst".into();
    assert_eq!(code("a", outside), keybed_format::Code::InvalidArgument);
    let mut twice = mount("b");
    let table = twice.families[0].runs[0].tables[0].clone();
    twice.families[0].runs[0].tables.push(table);
    assert_eq!(code("b", twice), keybed_format::Code::InvalidArgument);
    for (dir, next_seqno) in [("b1", SEQNO_MAX + 1), ("b2", u64::MAX)] {
        let mut used_up = mount(dir);
        used_up.next_seqno = next_seqno;
        assert_eq!(code(dir, used_up), keybed_format::Code::InvalidArgument);
    }
    let missing = mount("c");
    fs.remove_file(&missing.families[0].runs[0].tables[0].path)
        .unwrap();
    assert_eq!(code("c", missing), keybed_format::Code::TableMissing);
    let swapped = mount("d");
    let tables: Vec<_> = swapped.families[0]
        .runs
        .iter()
        .flat_map(|run| &run.tables)
        .collect();
    assert!(tables.len() > 1, "the test needs two tables");
    fs.remove_file(&tables[0].path).unwrap();
    fs.copy(&tables[1].path, &tables[0].path).unwrap();
    assert_eq!(code("d", swapped), keybed_format::Code::TableCorrupt);
    let good = Store::mount("e", simulated(fs.clone(), 3), mount("e")).unwrap();
    good.close().unwrap();
    assert_eq!(code("e", mount("e")), keybed_format::Code::TargetExists);
    let _: Arc<SimFs> = fs;
}

#[test]
fn a_clone_of_a_pinned_table_keeps_its_file() {
    let fs = disk();
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let (mut random, mut model) = (Random::from_seed(1), Map::new());
    numbers(&mut store, &mut random, 500, &mut model);
    let pinned = store.pin().unwrap().finish().unwrap();
    let table = pinned.tables().next().unwrap().clone();
    drop(pinned);
    let family = store.family("f").unwrap();
    store.compact(family).unwrap();
    store.close().unwrap();
    let again = Store::open("s", simulated(fs.clone(), 2)).map(drop);
    assert_eq!(again.unwrap_err().code(), keybed_format::Code::Locked);
    assert!(fs.facts(&table.path).unwrap().is_some());
    drop(table);
    let mut store = Store::open("s", simulated(fs.clone(), 3)).unwrap();
    let family = store.family("f").unwrap();
    assert_eq!(content(&store, family).unwrap(), model);
}
