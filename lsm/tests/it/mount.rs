//! If this fails, a restored job does not see keys that are in its tables.

use crate::support::{pinned_content, tiny};
use keybed_format::Code;
use keybed_lsm::{FamilyOptions, KeyRange, Mount, MountRun, Store, TableId, key::SEQNO_MAX};

#[test]
fn a_view_that_shows_nothing_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("old"), tiny()).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"A", b"low").unwrap();
    store.flush().unwrap();
    for n in 0..10_u8 {
        store.put(family, &[b'a', n], &[n]).unwrap();
    }
    let pinned = store.pin().unwrap().finish().unwrap();
    let target = dir.path().join("new");
    let mut mount = pinned_content(&keybed_env::OsFs, &pinned, &target, |_| FamilyOptions::default());
    // Only one run, newest table first, then the older one seen through ranges in which it has no key.
    let mut run: Vec<_> = mount.families[0]
        .runs
        .drain(..)
        .flat_map(|run| run.tables)
        .collect();
    assert_eq!(run.len(), 2);
    run.push(run[1].clone());
    for (table, (start, end)) in run.iter_mut().zip([(b"a", b"b"), (b"c", b"d"), (b"d", b"e")]) {
        table.visible = KeyRange {
            start: start.to_vec(),
            end: Some(end.to_vec()),
        };
    }
    mount.families[0].runs.push(MountRun { tier: 0, tables: run });

    let mut store = Store::mount(&target, tiny(), mount).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..10_u8 {
        assert_eq!(store.get(family, &[b'a', n]).unwrap().unwrap(), [n]);
        assert_eq!(
            store.range(family, &[b'a', n][..]..).unwrap().count(),
            10 - usize::from(n)
        );
    }
    assert!(store.get(family, b"c").unwrap().is_none());
    store.compact(family).unwrap();
    assert_eq!(store.prefix(family, b"").unwrap().count(), 10);
}

#[test]
fn parts_of_one_table_that_touch_are_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("old"), tiny()).unwrap();
    let family = store.family("f").unwrap();
    for n in 0..20_u8 {
        store.put(family, &[n], &[n]).unwrap();
    }
    let pinned = store.pin().unwrap().finish().unwrap();
    let target = dir.path().join("new");
    let mut mount = pinned_content(&keybed_env::OsFs, &pinned, &target, |_| FamilyOptions::default());
    let whole = mount.families[0].runs[0].tables[0].clone();
    let part = |start: u8, end: Option<u8>| {
        let visible = KeyRange {
            start: vec![start],
            end: end.map(|end| vec![end]),
        };
        keybed_lsm::MountTable {
            visible,
            ..whole.clone()
        }
    };
    mount.families[0].runs[0].tables = vec![
        part(15, None),
        part(3, Some(7)),
        part(7, Some(10)),
        part(12, Some(15)),
    ];
    let mut store = Store::mount(&target, tiny(), mount).unwrap();
    assert_eq!(store.stats().tables, 2);
    let family = store.family("f").unwrap();
    let keys: Vec<u8> = store
        .range(family, ..)
        .unwrap()
        .map(|entry| entry.unwrap().0[0])
        .collect();
    assert_eq!(keys, (3..10).chain(12..20).collect::<Vec<_>>());
}

#[test]
fn a_bottom_that_claims_more_than_its_keys_takes_merges_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("old"), tiny()).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"c", b"old").unwrap();
    let pinned = store.pin().unwrap().finish().unwrap();
    let target = dir.path().join("new");
    let mut mount = pinned_content(&keybed_env::OsFs, &pinned, &target, |_| FamilyOptions::default());
    // As a rescale makes it of a part that has no bottom and one that has: the flushed table shows all its part owns.
    mount.families[0].runs[0].tier = keybed_lsm::BOTTOM;
    let mut store = Store::mount(&target, tiny(), mount).unwrap();
    let family = store.family("f").unwrap();
    for key in [b"a", b"x"] {
        store.put(family, key, b"new").unwrap();
        store.compact(family).unwrap();
    }
    let keys: Vec<_> = store
        .range(family, ..)
        .unwrap()
        .map(|entry| entry.unwrap().0)
        .collect();
    assert_eq!(keys, [b"a", b"c", b"x"]);
}

#[test]
fn what_could_not_be_opened_again_is_not_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path().join("old"), tiny()).unwrap();
    let family = store.family("f").unwrap();
    store.put(family, b"k", b"v").unwrap();
    let pinned = store.pin().unwrap().finish().unwrap();
    let spoils: [fn(&mut Mount); 4] = [
        |mount| mount.next_seqno = SEQNO_MAX + 1,
        |mount| mount.families[0].name = "f".repeat(256),
        |mount| mount.families[0].runs[0].tables[0].visible.end = Some(vec![b'z'; 70_000]),
        |_| {},
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let target = dir.path().join(number.to_string());
        let mut mount = pinned_content(&keybed_env::OsFs, &pinned, &target, |_| FamilyOptions::default());
        spoil(&mut mount);
        // Foreign directories are not touched, whatever they are called.
        let foreign = Store::table_path(&target, TableId(7));
        std::fs::create_dir(&foreign).unwrap();
        let mounted = Store::mount(&target, tiny(), mount);
        if number < 3 {
            let code = mounted.map(drop).unwrap_err().code();
            assert_eq!(code, Code::InvalidArgument, "{number}");
        } else {
            mounted.unwrap().close().unwrap();
            let mut store = Store::open(&target, tiny()).unwrap();
            let family = store.family("f").unwrap();
            assert_eq!(store.get(family, b"k").unwrap().unwrap(), b"v");
        }
        assert!(foreign.is_dir(), "{number}");
    }
}
