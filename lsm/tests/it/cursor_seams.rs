//! If this fails, what a cursor sees depends on what happens beside it: keys that it does not see, merges.

use crate::support::{Chain, Map, disk, simulated};
use keybed_lsm::{CompactionFilter, Cursor, FamilyOptions, MemtableKind, Store, StoreOptions, Verdict};
use std::sync::Arc;

/// Everything from the first entry on.
fn all(cursor: &mut Cursor, store: &Store) -> Map {
    let mut found = Map::new();
    let mut is_valid = cursor.seek_to_first(store).unwrap();
    while is_valid {
        found.insert(cursor.key().to_vec(), cursor.value().to_vec());
        is_valid = cursor.next(store).unwrap();
    }
    found
}

#[test]
fn keys_that_a_cursor_does_not_see_do_not_lead_it_out_of_its_bounds() {
    for hidden in [1, 20, 40, 100, 300] {
        let mut store = Store::open(
            "s",
            StoreOptions {
                memtable_bytes: 1 << 20,
                ..simulated(disk(), 1)
            },
        )
        .unwrap();
        let options = FamilyOptions {
            memtable: MemtableKind::Ordered,
            ..FamilyOptions::default()
        };
        let family = store.family_with("f", options).unwrap();
        for n in 0..20 {
            for first in ["a", "k", "z"] {
                store
                    .put(family, format!("{first}{n:02}").as_bytes(), b"v")
                    .unwrap();
            }
        }
        let mut cursor = store.cursor(family, &b"k"[..]..&b"l"[..]).unwrap();
        for n in 0..hidden {
            for first in ["j", "k19x", "m"] {
                store
                    .put(family, format!("{first}{n:03}").as_bytes(), b"w")
                    .unwrap();
            }
        }
        let found = all(&mut cursor, &store);
        assert!(
            found.keys().all(|key| key.starts_with(b"k")),
            "{hidden}: {found:?}"
        );
        assert_eq!(found.len(), 20, "{hidden} hidden keys");
        assert!(cursor.seek_to_last(&store).unwrap());
        assert_eq!(cursor.key(), b"k19");
    }
}

/// Removes values that begin with 0.
#[derive(Debug)]
struct NoZeros;

impl CompactionFilter for NoZeros {
    fn filter(&self, _key: &[u8], value: &[u8], _now_millis: u64) -> Verdict {
        match value.first() {
            Some(0) => Verdict::Remove,
            _ => Verdict::Keep,
        }
    }
}

#[test]
fn a_key_that_a_filter_removed_below_a_cursor_does_not_come_back() {
    let mut store = Store::open("s", simulated(disk(), 1)).unwrap();
    let options = FamilyOptions {
        filter: Some(Arc::new(NoZeros)),
        merge: Some(Arc::new(Chain)),
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", options).unwrap();
    let pause = store.pause_compaction();
    for other in [b"x", b"y"] {
        for key in [b"deleted", b"changed"] {
            store.put(family, key, &[0]).unwrap();
        }
        store.put(family, other, &[1]).unwrap();
        store.flush().unwrap();
    }
    store.delete(family, b"deleted").unwrap();
    store.merge(family, b"changed", b"new").unwrap();
    store.delete_range(family, &b"x"[..]..&b"y"[..]).unwrap();
    let mut cursor = store.cursor(family, ..).unwrap();
    let seen = all(&mut cursor, &store);
    assert_eq!(seen.len(), 2, "{seen:?}");
    drop(pause);
    store.wait_for_background().unwrap();
    store.flush().unwrap();
    assert_eq!(all(&mut cursor, &store), seen);
}
