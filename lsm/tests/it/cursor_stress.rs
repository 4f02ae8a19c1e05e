//! If this fails, memtables of many keys that come and go show cursors or scans something else than a map does.

use crate::support::{Map, content, disk, scale, simulated};
use keybed_env::Random;
use keybed_lsm::{
    Append, Cursor, Durability, Family, FamilyOptions, MemtableKind, PrefixRule, Store, StoreOptions,
    WriteBatch,
};
use std::{ops::Bound, sync::Arc};

fn key(random: &mut Random, spread: u64) -> Vec<u8> {
    let number = random.below(spread);
    let mut key = vec![b'a' + (number % 5) as u8];
    if number.is_multiple_of(7) {
        key.extend_from_slice(b"a rather long beginning that most of the keys of a leaf share, or do not");
    }
    key.extend_from_slice(format!("{:x}", number.wrapping_mul(0x9E37_79B9) % spread).as_bytes());
    key
}

struct Seen {
    cursor: Cursor,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

fn open_cursor(random: &mut Random, store: &Store, family: Family, model: &Map, spread: u64) -> Seen {
    let (a, b) = (key(random, spread), key(random, spread));
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    if random.below(3) == 0 {
        let prefix = &a[..1];
        let entries = model.iter().filter(|(k, _)| k.starts_with(prefix));
        return Seen {
            entries: entries.map(|(k, v)| (k.clone(), v.clone())).collect(),
            cursor: store.prefix_cursor(family, prefix).unwrap(),
        };
    }
    let bounds = (Bound::Included(a.as_slice()), Bound::Excluded(b.as_slice()));
    let entries = model.range::<[u8], _>(bounds);
    Seen {
        entries: entries.map(|(k, v)| (k.clone(), v.clone())).collect(),
        cursor: store.cursor(family, bounds).unwrap(),
    }
}

fn check(random: &mut Random, seen: &mut Seen, store: &Store, what: &str) {
    let Seen { cursor, entries } = seen;
    let at = random.index(entries.len() + 1);
    let (down, steps) = (random.below(2) == 0, random.below(200));
    let start = entries.get(at).map_or_else(|| vec![0xff; 9], |(k, _)| k.clone());
    let mut valid = if down {
        cursor.seek_for_prev(store, &start).unwrap()
    } else {
        cursor.seek(store, &start).unwrap()
    };
    let mut at = if down && at == entries.len() {
        at.wrapping_sub(1)
    } else {
        at
    };
    for _ in 0..=steps {
        let expected = entries.get(at);
        assert_eq!(
            valid.then(|| (cursor.key(), cursor.value())),
            expected.map(|(k, v)| (k.as_slice(), v.as_slice())),
            "{what}"
        );
        if !valid {
            break;
        }
        at = if down { at.wrapping_sub(1) } else { at + 1 };
        valid = if down {
            cursor.prev(store).unwrap()
        } else {
            cursor.next(store).unwrap()
        };
    }
}

fn run(seed: u64) {
    let mut random = Random::from_seed(seed);
    let fs = disk();
    let durability = [Durability::None, Durability::Buffered][random.index(2)];
    let options = StoreOptions {
        memtable_bytes: [8 << 10, 64 << 10, 4 << 20][random.index(3)],
        durability,
        ..simulated(fs.clone(), seed)
    };
    let prefix = PrefixRule {
        bytes: random.below(3) as u16,
        pieces: 0,
    };
    let family_options = FamilyOptions {
        memtable: [
            MemtableKind::Ordered,
            MemtableKind::Prefix(prefix),
            MemtableKind::Ordered,
            MemtableKind::Hash,
        ][random.index(4)],
        merge: (random.below(2) == 0).then(|| Arc::new(Append) as _),
        ..FamilyOptions::default()
    };
    let what = format!("seed {seed}, {:?}, {durability:?}", family_options.memtable);
    let mut store = Store::open("s", options.clone()).unwrap();
    let mut family = store.family_with("f", family_options.clone()).unwrap();
    let spread = [50, 600, 5000][random.index(3)];
    let mut model = Map::new();
    let mut cursors: Vec<Seen> = Vec::new();
    let mut grows = true;
    for step in 0..3000_u64 {
        if random.below(300) == 0 {
            grows = !grows;
        }
        match random.below(100) {
            0..70 => {
                let delete = random.below(10) < if grows { 2 } else { 8 };
                let k = key(&mut random, spread);
                let k = match model.range(k.clone()..).next() {
                    Some((found, _)) if delete || random.below(4) == 0 => found.clone(),
                    _ => k,
                };
                let v = vec![b'0' + (step % 10) as u8; random.below(60) as usize];
                if delete {
                    store.delete(family, &k).unwrap();
                    model.remove(&k);
                } else {
                    store.put(family, &k, &v).unwrap();
                    model.insert(k, v);
                }
            }
            70..78 => {
                let k = key(&mut random, spread);
                store.append(family, &k, b"+").unwrap();
                model.entry(k).or_default().push(b'+');
            }
            78..82 => {
                let k = key(&mut random, spread);
                let found = store.update_in_place(family, &k, <[u8]>::reverse).unwrap();
                assert_eq!(found, model.contains_key(&k), "{what}");
                if let Some(v) = model.get_mut(&k) {
                    v.reverse();
                }
            }
            82..86 => {
                let mut batch = WriteBatch::new();
                for _ in 0..random.below(30) {
                    let k = key(&mut random, spread);
                    match random.below(3) {
                        0 => {
                            batch.put(family, &k, b"batch");
                            model.insert(k, b"batch".to_vec());
                        }
                        1 => {
                            batch.delete(family, &k);
                            model.remove(&k);
                        }
                        _ => {
                            batch.append(family, &k, b"-");
                            model.entry(k).or_default().push(b'-');
                        }
                    }
                }
                store.write(&batch).unwrap();
            }
            86 => {
                let (a, b) = (key(&mut random, spread), key(&mut random, spread));
                if a < b && random.below(4) == 0 {
                    store.delete_range(family, a.as_slice()..b.as_slice()).unwrap();
                    model.retain(|k, _| !(*k >= a && *k < b));
                }
            }
            87..92 if cursors.len() < 5 => {
                cursors.push(open_cursor(&mut random, &store, family, &model, spread));
            }
            92..96 if !cursors.is_empty() => {
                let at = random.index(cursors.len());
                check(
                    &mut random,
                    &mut cursors[at],
                    &store,
                    &format!("{what}, step {step}"),
                );
                if random.below(4) == 0 {
                    cursors.swap_remove(at);
                }
            }
            96 if random.below(4) == 0 => store.flush().unwrap(),
            97 => {
                let p = key(&mut random, spread);
                let p = &p[..1 + random.index(p.len())];
                let expected: Vec<_> = model.iter().filter(|(k, _)| k.starts_with(p)).collect();
                let found: Map = store.prefix(family, p).unwrap().map(Result::unwrap).collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{what}, step {step}");
                let mut found: Vec<_> = store.prefix_rev(family, p).unwrap().map(Result::unwrap).collect();
                found.reverse();
                assert_eq!(
                    found.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(),
                    expected,
                    "{what}, step {step}"
                );
            }
            98 if random.below(6) == 0 => {
                cursors.clear();
                if durability == Durability::Buffered {
                    drop(store);
                } else {
                    store.close().unwrap();
                }
                let reopened = StoreOptions {
                    memtable_bytes: options.memtable_bytes,
                    durability,
                    ..simulated(fs.clone(), seed * 10_000 + step)
                };
                store = Store::open("s", reopened).unwrap();
                family = store.family_with("f", family_options.clone()).unwrap();
                assert_eq!(
                    content(&store, family).unwrap(),
                    model,
                    "{what}, step {step}, reopened"
                );
            }
            _ => {}
        }
        if step.is_multiple_of(500) {
            assert_eq!(content(&store, family).unwrap(), model, "{what}, step {step}");
        }
    }
    for seen in &mut cursors {
        check(&mut random, seen, &store, &what);
    }
    assert_eq!(content(&store, family).unwrap(), model, "{what}");
}

#[test]
fn many_keys_come_and_go_under_cursors() {
    for seed in 0..scale(12) {
        run(seed);
    }
}
