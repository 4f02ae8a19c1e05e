//! If this fails, a table answers with something else than was written into it.

use crate::tables::{Version, build, cached, get, mapped, owned, scan, versions};
use keybed_env::OsFs;
use keybed_lsm::{
    EntryKind, KeyRange, TableId,
    key::{SEQNO_MAX, hash},
    table::{Compression, TableIter, TableOptions, TableReader, TableView},
};
use proptest::{prelude::*, sample::select};
use std::path::Path;

/// Keys of one shape per case: fixed width, varying, or with long common prefixes that tie in the fence.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let fixed = (0_usize..20)
        .prop_flat_map(|width| prop::collection::vec(prop::collection::vec(0_u8..4, width), 1..120));
    let varying = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 1..120);
    let tied = (
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(prop::collection::vec(0_u8..2, 0..14), 1..120),
    )
        .prop_map(|(prefix, tails)| {
            tails
                .into_iter()
                .map(|tail| [prefix.clone(), vec![0; 9], tail].concat())
                .collect()
        });
    prop_oneof![fixed, varying, tied]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 60_000_usize..=65_536).prop_map(|(byte, bytes)| vec![byte; bytes]),
    ]
}

type History = Vec<(u64, EntryKind, Vec<u8>)>;

/// Versions of one key, a handful or dozens.
fn history() -> impl Strategy<Value = History> {
    let kind = || {
        select(vec![
            EntryKind::Put,
            EntryKind::Put,
            EntryKind::Put,
            EntryKind::Delete,
            EntryKind::Merge,
        ])
    };
    let version = move || (0..SEQNO_MAX, kind(), values());
    prop_oneof![
        30 => prop::collection::vec(version(), 1..4),
        1 => prop::collection::vec(version(), 30..60),
    ]
}

/// Sorted versions; values fixed or varying, seqnos near each other or not.
fn table() -> impl Strategy<Value = Vec<Version>> {
    (keys(), prop::option::of(0_usize..12), any::<bool>()).prop_flat_map(|(mut keys, width, near)| {
        keys.sort();
        keys.dedup();
        prop::collection::vec(history(), keys.len()).prop_map(move |histories| {
            let mut all = Vec::new();
            for (key, mut history) in keys.iter().zip(histories) {
                for (seqno, kind, value) in &mut history {
                    *seqno = if near { 1_000 + *seqno % 5_000 } else { *seqno };
                    match width {
                        Some(width) => value.resize(width, 7),
                        None if *kind == EntryKind::Delete => value.clear(),
                        None => {}
                    }
                }
                history.sort_by_key(|v| std::cmp::Reverse(v.0));
                history.dedup_by_key(|v| v.0);
                all.extend(
                    history
                        .into_iter()
                        .map(|(seqno, kind, value)| (key.clone(), seqno, kind, value)),
                );
            }
            all
        })
    })
}

fn compressions() -> Vec<Compression> {
    let mut all = vec![Compression::None, Compression::Lz4];
    if cfg!(feature = "zstd") {
        all.push(Compression::Zstd(1));
    }
    all
}

fn options() -> impl Strategy<Value = TableOptions> {
    (
        select(vec![512_usize, 4096, 16 << 10]),
        select(compressions()),
        any::<bool>(),
        0_u16..5,
    )
        .prop_map(|(block_bytes, compression, filter, filter_prefix)| TableOptions {
            block_bytes,
            compression,
            filter,
            partition_prefix: 2,
            filter_prefix,
        })
}

/// Compares every answer of a view with the plain list.
fn agrees(view: &TableView, all: &[Version], probes: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let visible: Vec<&Version> = all.iter().filter(|v| view.visible.contains(&v.0)).collect();
    for (key, ..) in &visible {
        for bytes in 0..=key.len() {
            prop_assert!(view.may_contain_prefix(&key[..bytes]), "a prefix is denied");
        }
    }
    prop_assert_eq!(
        scan(view).unwrap(),
        visible.iter().map(|v| (*v).clone()).collect::<Vec<_>>()
    );
    let own_keys = all.iter().map(|v| &v.0);
    for key in own_keys.chain(probes) {
        let of_key: Vec<&Version> = visible.iter().filter(|v| v.0 == *key).copied().collect();
        let seqno_max = of_key.get(of_key.len() / 2).map_or(SEQNO_MAX, |v| v.1);
        for seqno_max in [SEQNO_MAX, seqno_max, seqno_max.saturating_sub(1), 0] {
            let seen: Vec<Version> = of_key
                .iter()
                .filter(|v| v.1 <= seqno_max)
                .map(|v| (*v).clone())
                .collect();
            prop_assert_eq!(get(view, key, seqno_max).unwrap(), seen.first().cloned());
            prop_assert_eq!(versions(view, key, seqno_max).unwrap(), seen);
        }
        if !view.visible.contains(key) {
            prop_assert!(!view.may_contain(key, hash(key)));
        }
        prop_assert!(of_key.is_empty() || view.may_contain(key, hash(key)));
        let mut iter = TableIter::new(view);
        iter.seek(key).unwrap();
        for expected in visible.iter().filter(|v| v.0 >= *key).take(5) {
            prop_assert!(iter.valid());
            prop_assert_eq!(&owned(iter.entry()), *expected);
            iter.next().unwrap();
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_question_is_answered_like_a_plain_list(
        all in table(),
        options in options(),
        ranges in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 3),
        probes in prop::collection::vec(prop::collection::vec(0_u8..4, 0..20), 6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sst");
        let facts = build(&path, TableId(7), &options, &all).unwrap();
        prop_assert_eq!(facts.entries, all.len() as u64);
        prop_assert_eq!(&facts.smallest, &all[0].0);
        prop_assert_eq!(&facts.largest, &all[all.len() - 1].0);
        prop_assert_eq!(facts.bytes, std::fs::metadata(&path).unwrap().len());
        for access in [mapped(), cached()] {
            let reader = TableReader::open(&OsFs, &path, TableId(7), access).unwrap();
            prop_assert_eq!(reader.facts(), &facts);
            reader.verify_all().unwrap();
            agrees(&TableView::whole(reader.clone()), &all, &probes)?;
            for (a, b, open) in &ranges {
                let (a, b) = (&a.get(&all).0, &b.get(&all).0);
                let end = if *open { None } else { Some(a.max(b).clone()) };
                let visible = KeyRange { start: a.min(b).clone(), end };
                agrees(&TableView::new(reader.clone(), visible), &all, &probes)?;
            }
        }
    }
}

fn put(key: impl Into<Vec<u8>>, seqno: u64, value: impl Into<Vec<u8>>) -> Version {
    (key.into(), seqno, EntryKind::Put, value.into())
}

fn check(all: &[Version], options: &TableOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    build(&path, TableId(1), options, all).unwrap();
    for access in [mapped(), cached()] {
        let reader = TableReader::open(&OsFs, &path, TableId(1), access).unwrap();
        reader.verify_all().unwrap();
        assert_eq!(scan(&TableView::whole(reader.clone())).unwrap(), all);
        let view = TableView::whole(reader);
        for version in all.iter().step_by(1 + all.len() / 500) {
            assert_eq!(get(&view, &version.0, version.1).unwrap().as_ref(), Some(version));
        }
    }
}

#[test]
fn a_key_with_thousands_of_versions_stays_in_one_block() {
    let all: Vec<Version> = (0..6_000_u64)
        .rev()
        .map(|seqno| put("key", seqno * 1_000_000, seqno.to_string()))
        .collect();
    for compression in compressions() {
        check(
            &all,
            &TableOptions {
                compression,
                ..TableOptions::default()
            },
        );
    }
}

#[test]
fn blocks_of_many_tiny_entries_use_long_slots() {
    let all: Vec<Version> = (0..100_000_u32)
        .map(|i| put(&i.to_be_bytes()[1..], 5, ""))
        .collect();
    check(
        &all,
        &TableOptions {
            block_bytes: 256 << 10,
            ..TableOptions::default()
        },
    );
}

#[test]
fn values_of_megabytes_use_wide_offsets() {
    let all = vec![
        put("a", 3, vec![1; 3 << 20]),
        put("b", 2, vec![2; 20 << 20]),
        put("bb", 1, ""),
    ];
    for compression in compressions() {
        check(
            &all,
            &TableOptions {
                compression,
                ..TableOptions::default()
            },
        );
    }
}

#[test]
fn the_empty_key_alone_is_a_table() {
    check(&[put("", 0, "")], &TableOptions::default());
}

#[test]
fn a_filter_lets_fewer_than_one_in_a_hundred_strangers_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    let all: Vec<Version> = (0..20_000_u64)
        .map(|i| put((i * 2).to_be_bytes(), 5, "v"))
        .collect();
    build(&path, TableId(1), &TableOptions::default(), &all).unwrap();
    let reader = TableReader::open(&OsFs, &path, TableId(1), cached()).unwrap();
    assert!(all.iter().all(|v| reader.may_contain(&v.0, hash(&v.0))));
    let passed = (0..20_000_u64)
        .filter(|i| reader.may_contain(&(i * 2 + 1).to_be_bytes(), hash(&(i * 2 + 1).to_be_bytes())))
        .count();
    assert!((20..200).contains(&passed), "{passed} of 20000");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    use keybed_format::Code;
    let dir = tempfile::tempdir().unwrap();
    let code = |all: &[Version], options: &TableOptions, name: &str| {
        build(&dir.path().join(name), TableId(1), options, all)
            .unwrap_err()
            .code()
    };
    let plain = TableOptions::default();
    assert_eq!(code(&[], &plain, "empty"), Code::InvalidArgument);
    assert_eq!(
        code(&[put("b", 1, ""), put("a", 1, "")], &plain, "order"),
        Code::InvalidArgument
    );
    assert_eq!(
        code(&[put("a", 1, ""), put("a", 1, "")], &plain, "same"),
        Code::InvalidArgument
    );
    assert_eq!(
        code(&[put("a", SEQNO_MAX + 1, "")], &plain, "seqno"),
        Code::InvalidArgument
    );
    assert_eq!(
        code(&[put(vec![0; 65_536], 1, "")], &plain, "key"),
        Code::KeyTooLarge
    );
    assert_eq!(
        code(&[put("a", 1, vec![0; (64 << 20) + 1])], &plain, "value"),
        Code::ValueTooLarge
    );
    let tiny = TableOptions {
        block_bytes: 1,
        ..plain.clone()
    };
    assert_eq!(code(&[put("a", 1, "")], &tiny, "tiny"), Code::InvalidArgument);
    let level = TableOptions {
        compression: Compression::Zstd(99),
        ..plain.clone()
    };
    assert_eq!(code(&[put("a", 1, "")], &level, "level"), Code::InvalidArgument);
    let wide = TableOptions {
        partition_prefix: 9,
        ..plain
    };
    assert_eq!(code(&[put("a", 1, "")], &wide, "wide"), Code::InvalidArgument);
}

#[test]
fn what_is_known_about_a_table_survives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    let all = vec![
        put("aa1", 9, "xyz"),
        ("aa1".into(), 4, EntryKind::Merge, b"m".to_vec()),
        ("bb2".into(), 7, EntryKind::Delete, vec![]),
    ];
    let options = TableOptions {
        partition_prefix: 2,
        ..TableOptions::default()
    };
    build(&path, TableId(1), &options, &all).unwrap();
    let reader = TableReader::open(&OsFs, &path, TableId(1), cached()).unwrap();
    let f = reader.facts();
    assert_eq!(
        (f.entries, f.keys, f.tombstones, f.merges, f.blocks),
        (3, 2, 1, 1, 1)
    );
    assert_eq!(
        (f.seqno_min, f.seqno_max, f.key_bytes, f.value_bytes),
        (4, 9, 9, 4)
    );
    assert_eq!(f.partitions(), Some((&b"aa"[..], &b"bb"[..])));
    assert_eq!(reader.path(), Path::new(&path));
    let dump = reader.dump().to_string();
    assert!(
        dump.contains("entries 3 · keys 2 · tombstones 1 · merges 1 · seqnos 4..=9"),
        "{dump}"
    );
    assert!(dump.contains("block 0 at 16 · "), "{dump}");
}

#[test]
fn bytes_of_a_range_add_up_to_those_of_the_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    let all: Vec<Version> = (0..10_000_u64)
        .map(|i| put(i.to_be_bytes(), 5, "value"))
        .collect();
    let facts = build(&path, TableId(1), &TableOptions::default(), &all).unwrap();
    let reader = TableReader::open(&OsFs, &path, TableId(1), cached()).unwrap();
    let whole = reader.bytes_in(&KeyRange::all());
    assert!(whole < facts.bytes && whole > facts.bytes * 9 / 10);
    let half = reader.bytes_in(&KeyRange {
        start: vec![],
        end: Some(5_000_u64.to_be_bytes().to_vec()),
    });
    assert!(
        half > whole * 4 / 10 && half < whole * 6 / 10,
        "{half} of {whole}"
    );
    assert_eq!(
        reader.bytes_in(&KeyRange {
            start: vec![5],
            end: Some(vec![5])
        }),
        0
    );
}
