//! If this fails, a view changes under its readers, or keeps write memory for as long as it lives.

use crate::support::{Map, disk, scale, simulated, tiny};
use keybed_env::Random;
use keybed_format::Code;
use keybed_lsm::{Append, Family, FamilyOptions, MemtableKind, PrefixRule, Store, View};
use std::{path::Path, sync::Arc};

fn content(view: &View, family: Family) -> Map {
    view.range(family, ..).unwrap().map(Result::unwrap).collect()
}

fn check(view: &View, family: Family, model: &Map, what: &str) {
    assert_eq!(content(view, family), *model, "{what}");
    let mut down: Vec<_> = view.range_rev(family, ..).unwrap().map(Result::unwrap).collect();
    down.reverse();
    assert!(model.clone().into_iter().eq(down), "{what}, downwards");
    let keys: Vec<&Vec<u8>> = model.keys().take(20).collect();
    for (key, found) in keys.iter().zip(view.multi_get(family, &keys).unwrap()) {
        assert_eq!(found.unwrap().unwrap(), model[*key], "{what}");
        assert_eq!(view.get(family, key).unwrap().unwrap(), model[*key], "{what}");
    }
}

fn write(random: &mut Random, store: &mut Store, family: Family, model: &mut Map) {
    let key = random.below(200).to_be_bytes()[6..].to_vec();
    let value = vec![random.u64() as u8; random.index(30)];
    match random.below(5) {
        0 => {
            store.delete(family, &key).unwrap();
            model.remove(&key);
        }
        1 => {
            store.merge(family, &key, &value).unwrap();
            model.entry(key).or_default().extend(value);
        }
        _ => {
            store.put(family, &key, &value).unwrap();
            model.insert(key, value);
        }
    }
}

fn options(memtable: MemtableKind) -> FamilyOptions {
    FamilyOptions {
        memtable,
        merge: Some(Arc::new(Append)),
        ..FamilyOptions::default()
    }
}

#[test]
fn a_view_lets_go_of_memtables_once_they_are_flushed() {
    let mut store = Store::open(Path::new("s"), simulated(disk(), 3)).unwrap();
    let family = store.family_with("f", options(MemtableKind::Hash)).unwrap();
    store.put(family, b"a", b"1").unwrap();
    store.put(family, b"b", b"2").unwrap();
    let view = store.view().unwrap();
    let held = store.stats().views;
    assert!(held.views == 1 && held.memtable_bytes > 0, "{held:?}");
    // Begun before the flush, read after it; a value found before, too.
    let mut range = view.range(family, ..).unwrap();
    assert_eq!(range.next_entry().unwrap(), Some((&b"a"[..], &b"1"[..])));
    let value = view.get(family, b"b").unwrap().unwrap();
    store.put(family, b"b", b"new").unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().views.memtable_bytes, 0);
    store.compact(family).unwrap();
    store.wait_for_background().unwrap();
    assert_eq!(range.next_entry().unwrap(), Some((&b"b"[..], &b"2"[..])));
    assert_eq!((range.next_entry().unwrap(), &*value), (None, &b"2"[..]));
    drop((range, value));
    assert_eq!(view.get(family, b"b").unwrap().unwrap(), b"2");
    // Only the view needs the table that its memtable became.
    let held = store.stats().views;
    assert!(held.file_bytes > 0 && held.views == 1, "{held:?}");
    let another = view.clone();
    drop(view);
    assert_eq!(store.stats().views.views, 1);
    drop(another);
    assert_eq!(store.stats().views, keybed_lsm::ViewStats::default());
    store.close().unwrap();
}

#[test]
fn views_above_the_bound_are_refused_until_old_ones_are_dropped() {
    let mut options_of_store = simulated(disk(), 4);
    options_of_store.view_bytes_max = 0;
    let mut store = Store::open(Path::new("s"), options_of_store).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"a", b"1").unwrap();
    store.flush().unwrap();
    let view = store.view().unwrap();
    // It holds no more than the store does.
    drop(store.view().unwrap());
    store.put(family, b"a", b"2").unwrap();
    store.compact(family).unwrap();
    store.wait_for_background().unwrap();
    let error = store.view().unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    assert!(error.to_string().contains("view_bytes_max"), "{error}");
    drop(view);
    store.view().unwrap();
    store.close().unwrap();
}

#[test]
fn views_stay_as_they_were_while_they_are_re_based() {
    for seed in 0..scale(8) {
        let mut random = Random::from_seed(seed);
        let mut store = Store::open(Path::new("s"), simulated(disk(), seed)).unwrap();
        let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
        let kind = [MemtableKind::Hash, MemtableKind::Ordered, by_prefix][(seed % 3) as usize];
        let family = store.family_with("f", options(kind)).unwrap();
        let mut model = Map::new();
        let mut views: Vec<(View, Map)> = Vec::new();
        for step in 0..3_000 {
            let what = format!("seed {seed}, step {step}");
            write(&mut random, &mut store, family, &mut model);
            match random.below(300) {
                0..6 => views.push((store.view().unwrap(), model.clone())),
                6..8 => store.flush().unwrap(),
                8 => store.compact(family).unwrap(),
                9 => store.wait_for_background().unwrap(),
                10..20 if !views.is_empty() => {
                    let (view, model) = &views[random.index(views.len())];
                    check(view, family, model, &what);
                }
                20..26 if views.len() > 3 => {
                    let at = random.index(views.len());
                    let (view, model) = views.swap_remove(at);
                    check(&view, family, &model, &what);
                }
                _ => {}
            }
        }
        store.wait_for_background().unwrap();
        assert_eq!(store.stats().views.memtable_bytes, 0, "seed {seed}");
        for (view, model) in &views {
            check(view, family, model, &format!("seed {seed}, at the end"));
        }
        drop(views);
        store.close().unwrap();
    }
}

#[test]
fn threads_read_views_while_they_are_re_based() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("s"), tiny()).unwrap();
    let family = store.family_with("f", options(MemtableKind::Hash)).unwrap();
    let mut random = Random::from_seed(9);
    let mut model = Map::new();
    std::thread::scope(|scope| {
        for round in 0..40 {
            for _ in 0..100 {
                write(&mut random, &mut store, family, &mut model);
            }
            let (view, seen) = (store.view().unwrap(), model.clone());
            scope.spawn(move || {
                for again in 0..5 {
                    check(&view, family, &seen, &format!("round {round}, read {again}"));
                    std::thread::yield_now();
                }
            });
        }
    });
    store.wait_for_background().unwrap();
    assert_eq!(store.stats().views.views, 0);
    store.close().unwrap();
}

#[test]
fn a_view_keeps_what_it_saw_of_families_that_are_dropped_or_cleared() {
    for flushed in [false, true] {
        let mut store = Store::open(Path::new("s"), simulated(disk(), 5)).unwrap();
        let (gone, cleared) = (store.family("gone").unwrap(), store.family("cleared").unwrap());
        for family in [gone, cleared] {
            store.put(family, b"a", b"1").unwrap();
            store.put(family, b"b", b"1").unwrap();
        }
        if flushed {
            store.flush().unwrap();
        }
        for family in [gone, cleared] {
            store.put(family, b"b", b"2").unwrap();
        }
        let view = store.view().unwrap();
        store.drop_family(gone).unwrap();
        store.clear(cleared).unwrap();
        // The name is free again; what comes under it is not the view's.
        let again = store.family("gone").unwrap();
        store.put(again, b"a", b"another").unwrap();
        store.wait_for_background().unwrap();
        assert!(store.get(gone, b"a").is_err());
        for name in ["gone", "cleared"] {
            let family = view.family(name).unwrap();
            let seen: Vec<_> = view.range(family, ..).unwrap().map(Result::unwrap).collect();
            let expected = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
            assert_eq!(seen, expected, "{name}, flushed {flushed}");
            assert_eq!(view.get(family, b"b").unwrap().unwrap(), b"2");
            assert_eq!(view.multi_get(family, &[b"a"]).unwrap().len(), 1);
        }
        let files = |store: &Store| store.stats().views.file_bytes;
        assert!(files(&store) > 0, "flushed {flushed}");
        drop(view);
        assert_eq!(files(&store), 0);
        store.close().unwrap();
    }
}
