//! If this fails, what a cursor sees depends on what happens beside it: keys that it does not see.

use crate::support::{Map, disk, simulated};
use keybed_lsm::{Cursor, FamilyOptions, MemtableKind, Store, StoreOptions};

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
