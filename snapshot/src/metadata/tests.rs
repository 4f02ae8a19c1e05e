//! The metadata codec: round trips, golden bytes, damage.

use super::{codec::MAGIC, sample, *};
use crate::*;
use keybed_format::{Code, envelope};
use proptest::{collection::vec, option, prelude::*};

fn code(bytes: &[u8]) -> Option<Code> {
    decode(bytes).err().map(|e| e.code())
}

#[test]
fn the_sample_reads_back() {
    let metadata = sample::metadata();
    let bytes = encode(&metadata).unwrap();
    assert_eq!(decode(&bytes).unwrap(), metadata);
}

#[test]
fn golden_bytes_are_as_on_the_page() {
    let page = include_str!("../../../docs/format/metadata.md");
    golden::assert_as_on_page(&encode(&sample::metadata()).unwrap(), page, 0);
    assert_eq!(decode(&golden::example(page, 0)).unwrap(), sample::metadata());
}

#[test]
fn every_flipped_bit_is_corruption() {
    let good = encode(&sample::metadata()).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&bad).expect_err("a flipped bit was not found");
        assert_eq!(error.code(), Code::SnapshotCorrupt, "bit {bit}: {error}");
        assert!(error.offset().is_some(), "bit {bit}: {error}");
    }
}

#[test]
fn every_truncation_is_found() {
    let good = encode(&sample::metadata()).unwrap();
    for n in 0..good.len() {
        assert_eq!(code(&good[..n]), Some(Code::SnapshotCorrupt), "length {n}");
    }
}

#[test]
fn another_file_and_a_newer_format_have_their_codes() {
    assert_eq!(code(b"PK\x03\x04 some archive, surely"), Some(Code::NotASnapshot));
    assert_eq!(
        code(&envelope::write(MAGIC, 2, &[])),
        Some(Code::UnsupportedFormatVersion)
    );
}

#[test]
fn an_unknown_section_is_skipped_only_if_it_may_be() {
    let good = encode(&sample::metadata()).unwrap();
    let with = |tag| {
        let (_, sections) = envelope::read(MAGIC, 1, &good).unwrap();
        let mut sections: Vec<_> = sections.into_iter().map(|(_, section)| section).collect();
        sections.push(envelope::Section {
            tag,
            version: 1,
            bytes: b"news".to_vec(),
        });
        decode(&envelope::write(MAGIC, 1, &sections)).map_err(|e| e.code())
    };
    assert_eq!(with(codec::SKIPPABLE).unwrap(), sample::metadata());
    assert_eq!(with(6), Err(Code::UnsupportedFormatVersion));
    assert_eq!(with(1), Err(Code::SnapshotCorrupt));
}

#[test]
fn snapshots_that_cannot_be_are_refused() {
    let refuse = |change: fn(&mut Metadata)| {
        let mut metadata = sample::metadata();
        change(&mut metadata);
        encode(&metadata).expect_err("accepted").code()
    };
    assert_eq!(
        refuse(|m| m.operators.push(m.operators[0].clone())),
        Code::InvalidArgument
    );
    assert_eq!(refuse(|m| m.operators[0].parallelism = 1), Code::InvalidArgument);
    assert_eq!(
        refuse(|m| m.operators[0].max_parallelism = 100),
        Code::InvalidArgument
    );
    assert_eq!(
        refuse(|m| m.operators[0].parallelism = 129),
        Code::ParallelismExceedsMax
    );
    assert_eq!(
        refuse(|m| m.operators[0].subtasks.swap(0, 1)),
        Code::InvalidArgument
    );
    fn table(m: &mut Metadata) -> &mut TableHandle {
        &mut m.operators[0].subtasks[1].keyed.as_mut().unwrap().families[0].runs[0].tables[0]
    }
    assert_eq!(
        refuse(|m| table(m).visible_end = Some(vec![])),
        Code::InvalidArgument
    );
    assert_eq!(
        refuse(|m| table(m).file.anchor = Anchor::SelfDir),
        Code::InvalidArgument
    );
    assert_eq!(
        refuse(|m| table(m).file.anchor = Anchor::External(9)),
        Code::InvalidArgument
    );
    assert_eq!(refuse(|m| table(m).file.offset = u64::MAX), Code::InvalidArgument);
    let conflict = |m: &mut Metadata| {
        table(m).file = FileHandle {
            content: 99,
            ..sample::file(2)
        }
    };
    assert_eq!(refuse(conflict), Code::RegistryConflict);
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let refuse = |what: &str, change: &dyn Fn(&mut Metadata)| {
        let mut metadata = sample::metadata();
        change(&mut metadata);
        let error = encode(&metadata).map(|_| ()).expect_err(what);
        assert_eq!(error.code(), Code::InvalidArgument, "{what}: {error}");
    };
    let long = |bytes: usize| "x".repeat(bytes + 1);
    refuse("state", &|m| {
        m.operators[0].subtasks[1].operator[0].name = long(operator::NAME_BYTES_MAX);
    });
    refuse("family", &|m| {
        let keyed = m.operators[0].subtasks[1].keyed.as_mut().unwrap();
        keyed.families[0].name = long(operator::NAME_BYTES_MAX);
    });
    refuse("property text", &|m| {
        m.properties.insert("p".into(), long(codec::PROPERTY_BYTES_MAX));
    });
    refuse("property name", &|m| {
        m.properties.insert(long(codec::PROPERTY_BYTES_MAX), "p".into());
    });
    refuse("url", &|m| m.externals[0].url = long(codec::URL_BYTES_MAX));
    refuse("two externals of one number", &|m| {
        m.externals.push(m.externals[0].clone());
    });
}

fn file() -> impl Strategy<Value = FileHandle> {
    (1_u8..20, 0_u8..3).prop_map(|(n, place)| {
        let (anchor, folder) = [
            (Anchor::Root, Folder::Shared),
            (Anchor::SelfDir, Folder::Private),
            (Anchor::External(4), Folder::TaskOwned),
        ][usize::from(place)];
        FileHandle {
            anchor,
            folder,
            ..sample::file(n)
        }
    })
}

fn table() -> impl Strategy<Value = TableHandle> {
    let end = option::of(vec(any::<u8>(), 3..5));
    (file(), vec(0_u8..1, 0..3), end, any::<u64>()).prop_map(|(file, visible_start, visible_end, entries)| {
        let visible_end = visible_end.filter(|end| *end > visible_start);
        TableHandle {
            file,
            visible_start,
            visible_end,
            entries,
        }
    })
}

fn keyed(index: u32) -> impl Strategy<Value = KeyedHandle> {
    let runs = || vec((any::<u8>(), vec(table(), 0..3)), 0..3);
    (runs(), runs(), any::<u64>(), any::<bool>()).prop_map(move |(a, b, next_seqno, heap)| {
        let family = |name: &str, runs: Vec<(u8, Vec<TableHandle>)>| FamilyHandle {
            name: name.into(),
            runs: runs
                .into_iter()
                .map(|(tier, tables)| RunHandle { tier, tables })
                .collect(),
        };
        KeyedHandle {
            range: KeyGroupRange::of_subtask(64, 4, index).unwrap(),
            backend: if heap { BackendKind::Heap } else { BackendKind::Lsm },
            next_seqno,
            families: vec![family("point", a), family("timer", b)],
        }
    })
}

fn subtask(index: u32) -> impl Strategy<Value = SubtaskState> {
    let items = vec(vec(any::<u8>(), 0..10), 0..4);
    (
        option::of(keyed(index)),
        items,
        0_u8..3,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(move |(keyed, items, mode, finished, new_bytes)| {
            let modes = [
                OperatorStateMode::Split,
                OperatorStateMode::Union,
                OperatorStateMode::Broadcast,
            ];
            let operator = OperatorStateHandle {
                name: "o".into(),
                mode: modes[usize::from(mode)],
                items,
            };
            SubtaskState {
                index: SubtaskIndex(index),
                keyed,
                operator: vec![operator],
                finished,
                new_bytes,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(
        subtasks in (subtask(0), subtask(2), subtask(3)),
        uid in "[a-zä]{1,20}",
        ids: (u128, u128, u64, u64, u64),
        properties in proptest::collection::btree_map(".{0,9}", ".{0,9}", 0..4),
    ) {
        let mut metadata = sample::metadata();
        metadata.externals[0].id = 4;
        metadata.job = JobId(ids.0);
        metadata.root = RootId(ids.1);
        metadata.generation = Generation(ids.2);
        metadata.checkpoint = CheckpointId(ids.3);
        metadata.timestamp_ms = ids.4;
        metadata.properties = properties;
        let operator = &mut metadata.operators[0];
        operator.uid = OperatorUid::new(uid).unwrap();
        operator.parallelism = 4;
        operator.subtasks = vec![subtasks.0, subtasks.1, subtasks.2];
        let bytes = encode(&metadata).unwrap();
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(&read, &metadata);
        prop_assert_eq!(encode(&read).unwrap(), bytes);
    }

    #[test]
    fn arbitrary_sections_never_panic(head in vec(any::<u8>(), 0..80), files in vec(any::<u8>(), 0..120), ops in vec(any::<u8>(), 0..200)) {
        let good = encode(&sample::metadata()).unwrap();
        let (_, sections) = envelope::read(MAGIC, 1, &good).unwrap();
        for (i, bytes) in [(0, head), (3, files), (4, ops)] {
            let mut sections: Vec<_> = sections.iter().map(|(_, section)| section.clone()).collect();
            sections[i].bytes = bytes;
            let _ = decode(&envelope::write(MAGIC, 1, &sections));
        }
    }

    #[test]
    fn a_changed_byte_behind_right_checksums_is_refused_or_canonical(at in 0_usize..400, to: u8) {
        let good = encode(&sample::metadata()).unwrap();
        let (_, sections) = envelope::read(MAGIC, 1, &good).unwrap();
        let mut sections: Vec<_> = sections.into_iter().map(|(_, section)| section).collect();
        let total: usize = sections.iter().map(|s| s.bytes.len()).sum();
        let mut at = at % total;
        for section in &mut sections {
            if at < section.bytes.len() {
                section.bytes[at] = to;
                break;
            }
            at -= section.bytes.len();
        }
        let bytes = envelope::write(MAGIC, 1, &sections);
        if let Ok(metadata) = decode(&bytes) {
            prop_assert_eq!(encode(&metadata).unwrap(), bytes);
        }
    }
}
