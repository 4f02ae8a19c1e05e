//! How many moves of sources a scan beside deleted keys costs.

use crate::{Family, FamilyOptions, MemtableKind, PrefixRule, Store, StoreOptions};
use std::cell::Cell;

thread_local! {
    /// Steps and seeks of the sources of merges on this thread.
    pub(super) static MOVES: Cell<u64> = const { Cell::new(0) };
}

const DEAD: u32 = 20_000;
const ALIVE: usize = 10;

/// How the keys beside the living ones went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// They were never there.
    Clean,
    Tombstones,
    Range,
    Floor,
}

/// A store whose prefix `b` holds a few keys between many dead ones below `a` and `c`; `flushes` says what lies in
/// tables: 0 nothing, 1 the keys, 2 also what deleted them.
fn store(dir: &std::path::Path, way: Way, kind: MemtableKind, flushes: u8) -> (Store, Family) {
    let options = StoreOptions {
        compaction: false,
        ..StoreOptions::default()
    };
    let mut store = Store::open(dir, options).unwrap();
    let options = FamilyOptions {
        memtable: kind,
        partition_prefix: 1,
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", options).unwrap();
    let dead = |prefix: u8| (0..DEAD).map(move |n| [&[prefix][..], &n.to_be_bytes()].concat());
    if way != Way::Clean {
        for key in dead(b'a').chain(dead(b'c')) {
            store.put(family, &key, b"v").unwrap();
        }
    }
    for n in 0..ALIVE as u8 {
        store.put(family, &[b'b', n], b"v").unwrap();
    }
    if flushes > 0 {
        store.flush().unwrap();
    }
    match way {
        Way::Clean => {}
        Way::Tombstones => dead(b'a')
            .chain(dead(b'c'))
            .for_each(|key| store.delete(family, &key).unwrap()),
        Way::Range => {
            store.delete_prefix(family, b"a").unwrap();
            store.delete_prefix(family, b"c").unwrap();
        }
        Way::Floor => {
            for partition in [b"a", b"c"] {
                store.raise_floor(family, partition, &[0xff]).unwrap();
            }
        }
    }
    if flushes > 1 {
        store.flush().unwrap();
    }
    (store, family)
}

/// Moves of: a scan of the prefix, up and down, whether it is empty, a scan of everything up and down.
fn moves(store: &Store, family: Family) -> [u64; 5] {
    let counted = |scan: &mut dyn FnMut() -> usize, expected: usize| {
        MOVES.set(0);
        assert_eq!(scan(), expected);
        MOVES.get()
    };
    [
        counted(&mut || store.prefix(family, b"b").unwrap().count(), ALIVE),
        counted(&mut || store.prefix_rev(family, b"b").unwrap().count(), ALIVE),
        counted(&mut || store.prefix(family, b"b").unwrap().take(1).count(), 1),
        counted(&mut || store.range(family, ..).unwrap().count(), ALIVE),
        counted(&mut || store.range_rev(family, ..).unwrap().count(), ALIVE),
    ]
}

#[test]
fn deleted_keys_beside_a_prefix_cost_nothing_and_deleted_ranges_a_seek() {
    let place = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        place.path().join(number.to_string())
    };
    let by_prefix = MemtableKind::Prefix(PrefixRule { bytes: 1, pieces: 0 });
    for kind in [MemtableKind::Hash, MemtableKind::Ordered, by_prefix] {
        for flushes in 0..3 {
            let clean = {
                let (store, family) = store(&fresh(), Way::Clean, kind, flushes);
                moves(&store, family)
            };
            for way in [Way::Tombstones, Way::Range, Way::Floor] {
                let (store, family) = store(&fresh(), way, kind, flushes);
                let found = moves(&store, family);
                // Two sources instead of one, and for each range a step and a seek in each of them.
                let checked = if way == Way::Tombstones { 3 } else { 5 };
                for (found, clean) in found.iter().zip(clean).take(checked) {
                    assert!(
                        *found <= 3 * clean + 8,
                        "{way:?} {kind:?} {flushes}: {found} {clean}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_written_into_a_deleted_range_is_found_among_the_dead() {
    let place = tempfile::tempdir().unwrap();
    for (number, way) in [Way::Range, Way::Floor].into_iter().enumerate() {
        let (mut store, family) = store(&place.path().join(number.to_string()), way, MemtableKind::Hash, 0);
        for n in [7_u32, 9000, DEAD - 1] {
            store
                .put(family, &[&b"a"[..], &n.to_be_bytes()].concat(), b"late")
                .unwrap();
        }
        assert_eq!(store.range(family, ..).unwrap().count(), ALIVE + 3);
        assert_eq!(store.prefix_rev(family, b"a").unwrap().count(), 3);
        store.flush().unwrap();
        assert_eq!(store.range(family, ..).unwrap().count(), ALIVE + 3);
    }
}
