//! Without this a program that changes a map while it walks it could see its own changes, miss entries or see them
//! twice: cursors on a store that is written, against copies of a map.

use crate::support::{Chain, Map, disk, scale, simulated};
use keybed_env::Random;
use keybed_lsm::{
    Append, Cursor, Family, FamilyOptions, MemtableKind, MergeOperator, PrefixRule, Store, Update,
};
use std::{ops::Bound, path::Path, sync::Arc};

/// A cursor, the entries it must see, and where it stands: 0 = before the first, n + 1 = behind the last.
struct Walk {
    cursor: Cursor,
    number: usize,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    at: usize,
}

impl Walk {
    fn check(&self, moved: bool, what: &str) {
        let expected = self.at.checked_sub(1).and_then(|at| self.entries.get(at));
        assert_eq!(moved, expected.is_some(), "{what}");
        assert_eq!(moved, self.cursor.valid(), "{what}");
        let empty = (Vec::new(), Vec::new());
        let (key, value) = expected.unwrap_or(&empty);
        assert_eq!(
            (self.cursor.key(), self.cursor.value()),
            (&key[..], &value[..]),
            "{what}"
        );
    }

    fn step(&mut self, random: &mut Random, store: &Store, what: &str) {
        let len = self.entries.len();
        let moved = match random.below(12) {
            0..5 => {
                self.at = (self.at + 1).min(len + 1);
                self.cursor.next(store)
            }
            5..8 => {
                self.at = self.at.saturating_sub(1);
                self.cursor.prev(store)
            }
            8 => {
                self.at = 1;
                self.cursor.seek_to_first(store)
            }
            9 => {
                self.at = len;
                self.cursor.seek_to_last(store)
            }
            10 => {
                let key = key(random);
                self.at = self.entries.partition_point(|(k, _)| *k < key) + 1;
                self.cursor.seek(store, &key)
            }
            _ => {
                let key = key(random);
                self.at = self.entries.partition_point(|(k, _)| *k <= key);
                self.cursor.seek_for_prev(store, &key)
            }
        };
        self.check(moved.unwrap(), what);
    }

    /// From one end to the other and back.
    fn walk(mut self, store: &Store, what: &str) {
        self.at = 1;
        let mut moved = self.cursor.seek_to_first(store).unwrap();
        self.check(moved, what);
        while moved {
            self.at += 1;
            moved = self.cursor.next(store).unwrap();
            self.check(moved, what);
        }
        self.at = self.entries.len();
        moved = self.cursor.prev(store).unwrap();
        self.check(moved, what);
        while moved {
            self.at -= 1;
            moved = self.cursor.prev(store).unwrap();
            self.check(moved, what);
        }
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => vec![0xff; random.index(4)],
        1 => [&[random.below(3) as u8][..], &vec![0; random.index(12)]].concat(),
        _ => random.below(300).to_be_bytes()[6..].to_vec(),
    }
}

fn options(number: usize) -> FamilyOptions {
    let merge: Option<Arc<dyn MergeOperator>> = match number % 3 {
        0 => None,
        1 => Some(Arc::new(Append)),
        _ => Some(Arc::new(Chain)),
    };
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    let kinds = [MemtableKind::Hash, MemtableKind::Ordered, by_prefix];
    let memtable = kinds[(number + number / 3) % 3];
    FamilyOptions {
        merge,
        memtable,
        ..FamilyOptions::default()
    }
}

fn write(random: &mut Random, store: &mut Store, number: usize, family: Family, model: &mut Map) {
    let key = key(random);
    let bytes = if random.one_in(40) { 900 } else { 40 };
    let value = vec![random.u64() as u8; random.index(bytes)];
    match random.below(10) {
        0..4 => {
            store.put(family, &key, &value).unwrap();
            model.insert(key, value);
        }
        4 => {
            store.delete(family, &key).unwrap();
            model.remove(&key);
        }
        5 => {
            store.append(family, &key, &value).unwrap();
            model.entry(key).or_default().extend(value);
        }
        6 => {
            let found = store.update_in_place(family, &key, <[u8]>::reverse).unwrap();
            assert_eq!(found, model.contains_key(&key));
            if let Some(value) = model.get_mut(&key) {
                value.reverse();
            }
        }
        7 => {
            store
                .update(family, &key, |_| Update::Put(value.clone()))
                .unwrap();
            model.insert(key, value);
        }
        _ if number.is_multiple_of(3) => {}
        _ => {
            store.merge(family, &key, &value).unwrap();
            let old = model.remove(&key).unwrap_or_default();
            let new = if number % 3 == 1 {
                [old, value].concat()
            } else {
                [value, b"<".to_vec(), old].concat()
            };
            model.insert(key, new);
        }
    }
}

fn open_cursor(random: &mut Random, store: &Store, number: usize, family: Family, model: &Map) -> Walk {
    let (a, b) = (key(random), key(random));
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let all = || model.iter().map(|(k, v)| (k.clone(), v.clone()));
    let (cursor, entries) = match random.below(6) {
        0 => {
            let inside = all().filter(|(k, _)| k.starts_with(&low));
            (store.prefix_cursor(family, &low).unwrap(), inside.collect())
        }
        1 => {
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(&low), Bound::Included(&high));
            let inside = all().filter(|(k, _)| *k > low && *k <= high);
            (store.cursor(family, range).unwrap(), inside.collect())
        }
        2 => {
            // Nothing, whichever way round.
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&high), Bound::Excluded(&low));
            (store.cursor(family, range).unwrap(), Vec::new())
        }
        _ => (store.cursor(family, ..).unwrap(), all().collect()),
    };
    Walk {
        cursor,
        number,
        entries,
        at: 0,
    }
}

fn run(seed: u64, steps: usize) -> u64 {
    let mut random = Random::from_seed(seed);
    let mut options_of_store = simulated(disk(), seed);
    options_of_store.memtable_bytes = if seed.is_multiple_of(2) {
        16 << 10
    } else {
        256 << 10
    };
    let mut store = Store::open(Path::new("store"), options_of_store).unwrap();
    let families: Vec<Family> = (0..6)
        .map(|n| store.family_with(&format!("family {n}"), options(n)).unwrap())
        .collect();
    let mut models = vec![Map::new(); families.len()];
    let mut walks: Vec<Walk> = Vec::new();
    let mut kept_max = 0;
    for step in 0..steps {
        let what = format!("seed {seed}, step {step}");
        let number = random.index(families.len());
        match random.below(400) {
            0..250 => write(
                &mut random,
                &mut store,
                number,
                families[number],
                &mut models[number],
            ),
            250..380 if walks.is_empty() => {}
            250..380 => {
                let at = random.index(walks.len());
                walks[at].step(&mut random, &store, &what);
            }
            380..394 => {
                walks.push(open_cursor(
                    &mut random,
                    &store,
                    number,
                    families[number],
                    &models[number],
                ));
                if walks.len() > 8 {
                    let at = random.index(walks.len());
                    walks.swap_remove(at).walk(&store, &what);
                }
            }
            394 => store.flush().unwrap(),
            395 => store.compact(families[number]).unwrap(),
            396 => drop(store.view().unwrap()),
            397 => store.wait_for_background().unwrap(),
            // Everything lets go: the regime ends.
            398 => walks.clear(),
            _ => {
                let found: Map = store
                    .range(families[number], ..)
                    .unwrap()
                    .collect::<keybed_format::Result<_>>()
                    .unwrap();
                assert_eq!(found, models[number], "{what}");
            }
        }
        kept_max = kept_max.max(store.stats().kept_bytes);
    }
    for walk in walks {
        let what = format!("seed {seed}, family {}, at the end", walk.number);
        walk.walk(&store, &what);
    }
    store.close().unwrap();
    kept_max
}

#[test]
fn a_cursor_sees_the_moment_it_was_made() {
    let mut kept_max = 0;
    for seed in 0..scale(16) {
        kept_max = kept_max.max(run(seed, 6000));
    }
    assert!(kept_max > 1000, "versions must have been kept for cursors");
}

#[test]
fn a_key_that_no_cursor_sees_is_overwritten_in_place() {
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    for memtable in [MemtableKind::Hash, MemtableKind::Ordered, by_prefix] {
        let mut store = Store::open(Path::new("store"), simulated(disk(), 1)).unwrap();
        let options = FamilyOptions {
            memtable,
            ..FamilyOptions::default()
        };
        let family = store.family_with("f", options).unwrap();
        store.put(family, b"k", b"before").unwrap();
        let cursor = store.cursor(family, ..).unwrap();
        let bytes = store.stats().active_bytes;
        // The first write keeps what the cursor sees; the others are newer than every cursor.
        store.put(family, b"k", b"after1").unwrap();
        let kept = store.stats();
        assert!(kept.active_bytes > bytes && kept.kept_bytes > 0);
        for n in 0..100_u8 {
            store.put(family, b"k", &[n; 6]).unwrap();
            store.update_in_place(family, b"k", <[u8]>::reverse).unwrap();
        }
        assert_eq!(store.counts().writes, 202);
        assert_eq!(store.stats().active_bytes, kept.active_bytes);
        // Dropped: nothing is kept any more, although nobody told the store.
        drop(cursor);
        let gone = store.cursor(family, ..).unwrap();
        drop(gone);
        store.put(family, b"k", b"after2").unwrap();
        assert_eq!(store.stats().active_bytes, kept.active_bytes);
        store.close().unwrap();
    }
}

#[test]
fn a_cursor_outlives_its_family_and_refuses_another_store() {
    let disk = disk();
    let mut store = Store::open(Path::new("store"), simulated(disk.clone(), 1)).unwrap();
    let other = Store::open(Path::new("other"), simulated(disk, 2)).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"flushed", b"1").unwrap();
    store.flush().unwrap();
    store.put(family, b"in memory", b"2").unwrap();
    let mut cursor = store.cursor(family, ..).unwrap();
    assert!(cursor.next(&other).is_err());
    assert!(!cursor.valid() && !cursor.next(&store).unwrap());
    store.drop_family(family).unwrap();
    assert!(cursor.seek_to_last(&store).unwrap());
    assert_eq!((cursor.key(), cursor.value()), (&b"in memory"[..], &b"2"[..]));
    assert!(cursor.prev(&store).unwrap());
    assert_eq!(cursor.key(), b"flushed");
    assert!(!cursor.prev(&store).unwrap() && cursor.next(&store).unwrap());
    drop(cursor);
    store.close().unwrap();
    other.close().unwrap();
}

#[test]
fn a_cursor_lets_go_of_flushed_memtables_that_show_what_it_saw() {
    for is_written_later in [false, true] {
        let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
        let family = store.family("f").unwrap();
        let key = |n: u32| n.to_be_bytes();
        for n in 0..2000 {
            store.put(family, &key(n), b"old").unwrap();
        }
        let mut cursor = store.cursor(family, ..).unwrap();
        assert!(cursor.seek_to_first(&store).unwrap());
        if is_written_later {
            for n in 0..2000 {
                store.put(family, &key(n), b"new").unwrap();
            }
        }
        store.flush().unwrap();
        assert!(store.stats().lingering_bytes > 0);
        let mut entries = 1;
        while cursor.next(&store).unwrap() {
            assert_eq!((cursor.key(), cursor.value()), (&key(entries)[..], &b"old"[..]));
            entries += 1;
        }
        assert_eq!(entries, 2000);
        // What its table does not hold any more has to stay in memory; a statistic says so.
        store.wait_for_background().unwrap();
        assert_eq!(store.stats().lingering_bytes > 0, is_written_later);
        assert!(cursor.seek_to_last(&store).unwrap());
        assert_eq!(cursor.value(), b"old");
        drop(cursor);
        assert_eq!(store.stats().lingering_bytes, 0);
        // What is cleared is never flushed, and stays with the cursor all the same.
        store.put(family, &key(0), b"cleared").unwrap();
        let mut cursor = store.cursor(family, ..).unwrap();
        store.clear(family).unwrap();
        assert!(store.stats().lingering_bytes > 0);
        assert!(cursor.next(&store).unwrap());
        assert_eq!(cursor.value(), b"cleared");
    }
}
