//! Without this a flipped bit in a manifest could bring back deleted keys or lose tables without a word.

use crate::support::{Map, content, simulated};
use keybed_env::{Fs, Random, SimFs};
use keybed_format::{Code, ErrorKind, Result};
use keybed_lsm::{
    FamilyOptions, Floor, KeyRange, MemtableKind, PrefixRule, Store, SumI64, TableId,
    expiry::TtlRecord,
    table::TableFacts,
    version::{
        edit::{BOTTOM, Change, Edit, FamilyRecord, Origin, TableRecord},
        manifest::{self, Manifest},
        set::VersionSet,
    },
};
use std::{path::Path, sync::Arc};

/// A disk with a store, the contents it had at its flushes, and the manifest's name.
fn disk() -> (Arc<SimFs>, Vec<Map>, String) {
    let fs = Arc::new(SimFs::without_history());
    let mut store = Store::open("s", simulated(fs.clone(), 1)).unwrap();
    let options = FamilyOptions {
        merge: Some(Arc::new(SumI64)),
        cut_prefix: 1,
        ..FamilyOptions::default()
    };
    let family = store.family_with("f", options).unwrap();
    let (mut model, mut moments) = (Map::new(), vec![Map::new()]);
    for n in 0..4_u64 {
        for key in 0..10_u64 {
            if (key + n) % 4 == 0 {
                store.delete(family, &key.to_be_bytes()).unwrap();
                model.remove(&key.to_be_bytes()[..]);
            } else {
                store.put(family, &key.to_be_bytes(), &n.to_be_bytes()).unwrap();
                model.insert(key.to_be_bytes().to_vec(), n.to_be_bytes().to_vec());
            }
        }
        store.flush().unwrap();
        moments.push(model.clone());
    }
    store.wait_for_background().unwrap();
    store.close().unwrap();
    let name = manifest::read_current(&*fs, Path::new("s")).unwrap().unwrap();
    (fs, moments, name)
}

fn read(fs: Arc<SimFs>) -> Result<Map> {
    let mut store = Store::open("s", simulated(fs, 2))?;
    let family = store.family("f")?;
    content(&store, family)
}

fn check(image: SimFs, moments: &[Map], what: &str, counts: &mut [usize; 2]) {
    match read(Arc::new(image)) {
        Ok(found) => {
            assert!(moments.contains(&found), "{what}: a content that never was");
            counts[0] += 1;
        }
        Err(error) => {
            let known = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Incompatible);
            assert!(known && error.file().is_some(), "{what}: {error}");
            counts[1] += 1;
        }
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_an_error_or_an_older_state() {
    let (fs, moments, name) = disk();
    assert_eq!(&read(Arc::new(fs.live_image())).unwrap(), moments.last().unwrap());
    let mut counts = [0; 2];
    for file in [manifest::CURRENT, name.as_str()] {
        let path = Path::new("s").join(file);
        let bytes = fs.read(&path, 1 << 20).unwrap().len();
        for bit in 0..bytes * 8 {
            let image = fs.live_image();
            image
                .corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))
                .unwrap();
            check(image, &moments, &format!("{file}, bit {bit}"), &mut counts);
        }
        for length in 0..bytes {
            let image = fs.live_image();
            image.corrupt(&path, |bytes| bytes.truncate(length)).unwrap();
            check(image, &moments, &format!("{file}, {length} bytes"), &mut counts);
        }
    }
    assert!(counts[1] > 1000, "{counts:?}");
}

#[test]
fn a_store_without_its_root_is_not_taken_for_an_empty_one() {
    let (fs, moments, name) = disk();
    for file in [manifest::CURRENT, name.as_str()] {
        let image = fs.live_image();
        image.remove_file(&Path::new("s").join(file)).unwrap();
        let error = read(Arc::new(image)).unwrap_err();
        assert_eq!(error.code(), Code::ManifestCorrupt, "{error}");
    }
    let image = fs.live_image();
    let table = image
        .list(Path::new("s"))
        .unwrap()
        .into_iter()
        .find(|e| e.name.ends_with(".sst"))
        .unwrap();
    image.remove_file(&Path::new("s").join(&table.name)).unwrap();
    let error = read(Arc::new(image)).unwrap_err();
    assert_eq!(error.code(), Code::TableMissing, "{error}");
    assert!(
        error.file().is_some_and(|file| file.ends_with(&table.name)),
        "{error}"
    );
    // Left-overs of a crash are nobody's; other people's files are not touched.
    let image = Arc::new(fs.live_image());
    for stray in [
        "CURRENT.tmp",
        "MANIFEST-000099",
        "00000000000000000000000000000001.sst",
        "notes.txt",
    ] {
        image
            .create(&Path::new("s").join(stray))
            .unwrap()
            .append(b"x")
            .unwrap();
    }
    assert_eq!(&read(image.clone()).unwrap(), moments.last().unwrap());
    let names: Vec<_> = image
        .list(Path::new("s"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert!(names.contains(&"notes.txt".to_owned()), "{names:?}");
    assert!(
        !names
            .iter()
            .any(|name| name.contains("99") || name.starts_with("0000") || name.ends_with("tmp"))
    );
}

fn golden_set() -> VersionSet {
    let family = FamilyRecord {
        id: 3,
        name: "f".into(),
        merge: Some("keybed.append".into()),
        memtable: MemtableKind::Ordered,
        partition_prefix: 4,
        cut_prefix: 2,
        prefix_bytes: 300,
        bottom_filter: false,
    };
    let table = TableRecord {
        run: 7,
        tier: 1,
        origin: Origin::Mounted,
        facts: Arc::new(TableFacts {
            bytes: 4096,
            digest: 0xd1,
            entries: 10,
            keys: 9,
            smallest: b"b".to_vec(),
            largest: b"y".to_vec(),
            seqno_min: 0,
            seqno_max: 99,
            ..TableFacts::new(TableId(0x0123))
        }),
        seqno_base: 40,
        visible: KeyRange {
            start: b"a".to_vec(),
            end: Some(b"m".to_vec()),
        },
    };
    let rest = KeyRange {
        start: b"m".to_vec(),
        end: None,
    };
    let bottom = TableRecord {
        run: 0,
        tier: BOTTOM,
        origin: Origin::Own,
        visible: KeyRange::all(),
        ..table.clone()
    };
    let changes = vec![
        Change::NextSeqno(100),
        Change::CreateFamily(family),
        Change::AddTable(3, table.clone()),
        Change::AddTable(
            3,
            TableRecord {
                visible: rest,
                ..table
            },
        ),
        Change::AddTable(3, bottom),
    ];
    let mut set = VersionSet::default();
    set.apply(&Edit { changes }).unwrap();
    set
}

#[test]
fn golden_bytes_pin_the_format() {
    let fs = SimFs::new();
    let dir = Path::new("");
    let mut log = Manifest::create(&fs, dir, 12, 0xabcd, golden_set()).unwrap();
    let remove = Change::RemoveTable {
        family: 3,
        run: 7,
        id: TableId(0x0123),
        visible_start: b"m".to_vec(),
    };
    let floor = Change::RaiseFloor(
        3,
        Floor {
            partition: b"part".to_vec(),
            bound: b"b".to_vec(),
            seqno: 120,
        },
    );
    log.append(&Edit {
        changes: vec![remove, Change::NextSeqno(130), floor],
    })
    .unwrap();
    log.append(&Edit {
        changes: vec![Change::ClearFamily(3, 140), Change::DropFamily(3)],
    })
    .unwrap();
    let bytes = fs.read(Path::new("MANIFEST-000012"), 1 << 20).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let current = String::from_utf8(fs.read(Path::new("CURRENT"), 100).unwrap()).unwrap();
    assert_eq!(
        format!("{current}{hex}\n"),
        include_str!("manifest.golden"),
        "\n{current}{hex}"
    );
    let found = manifest::decode(12, &bytes).unwrap();
    assert_eq!((found.store_id, found.torn_bytes), (0xabcd, 0));
    assert_eq!((found.set.next_seqno, found.set.families().count()), (140, 0));
}

#[test]
fn golden_bytes_of_families_by_prefix_and_of_expiry() {
    let family = FamilyRecord {
        id: 3,
        name: "f".into(),
        merge: None,
        memtable: MemtableKind::Prefix(PrefixRule {
            bytes: 0x0102,
            pieces: 2,
        }),
        partition_prefix: 4,
        cut_prefix: 2,
        prefix_bytes: 300,
        bottom_filter: true,
    };
    let record = TtlRecord {
        ttl_millis: 60_000,
        since_millis: 0x0198_7654_3210,
    };
    let changes = vec![
        Change::CreateFamily(family),
        Change::Expire(3, Some(record)),
        Change::Time(0x0198_7654_3211),
        Change::Expire(3, None),
    ];
    let edit = Edit { changes };
    let bytes = edit.encode();
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let page = include_str!("../../../docs/format/manifest.md");
    assert!(page.contains(&hex.join(" ")), "{}", hex.join(" "));
    assert_eq!(Edit::decode(&bytes, 0).unwrap(), edit);
    // A time to live of 0 would be none at all.
    let at = bytes
        .windows(8)
        .position(|eight| eight == 60_000_u64.to_le_bytes());
    let mut zero = bytes.clone();
    zero[at.unwrap()..][..8].fill(0);
    assert_eq!(Edit::decode(&zero, 0).unwrap_err().code(), Code::Malformed);
}

#[test]
fn a_full_edit_remembers_expiry_and_time() {
    let mut set = golden_set();
    let record = TtlRecord {
        ttl_millis: 5,
        since_millis: 7,
    };
    let changes = vec![Change::Expire(3, Some(record)), Change::Time(9), Change::Time(8)];
    set.apply(&Edit { changes }).unwrap();
    let mut again = VersionSet::default();
    let edit = Edit::decode(&set.full_edit().encode(), 0).unwrap();
    again.apply(&edit).unwrap();
    assert_eq!(again, set);
    assert!(
        edit.changes.contains(&Change::Time(9)),
        "a time went back: {edit:?}"
    );
    assert!(
        edit.changes.contains(&Change::Expire(3, Some(record))),
        "{edit:?}"
    );
}

#[test]
fn a_full_edit_builds_the_same_set() {
    let set = golden_set();
    let edit = set.full_edit();
    assert_eq!(Edit::decode(&edit.encode(), 0).unwrap(), edit);
    let mut again = VersionSet::default();
    again.apply(&edit).unwrap();
    assert_eq!(again, set);
}

#[test]
fn edits_that_contradict_the_set_are_refused_and_change_nothing() {
    let set = golden_set();
    let Some(Change::AddTable(_, table)) = set
        .full_edit()
        .changes
        .into_iter()
        .find(|change| matches!(change, Change::AddTable(..)))
    else {
        panic!("there are tables")
    };
    let add = |change: &dyn Fn(&mut TableRecord)| {
        let mut table = TableRecord {
            facts: Arc::new(TableFacts {
                id: TableId(9),
                ..(*table.facts).clone()
            }),
            run: 8,
            tier: 0,
            visible: KeyRange::all(),
            ..table.clone()
        };
        change(&mut table);
        vec![Change::AddTable(3, table)]
    };
    let remove = Change::RemoveTable {
        family: 3,
        run: 7,
        id: TableId(9),
        visible_start: vec![],
    };
    let wrong = [
        vec![Change::DropFamily(4)],
        vec![Change::AddTable(4, table.clone())],
        vec![remove],
        add(&|table| (table.run, table.tier) = (7, 1)),
        add(&|table| (table.run, table.tier) = (0, 0)),
        add(&|table| table.tier = BOTTOM),
        vec![Change::NextSeqno(500), Change::DropFamily(4)],
    ];
    for changes in wrong {
        let mut changed = set.clone();
        assert!(
            changed
                .apply(&Edit {
                    changes: changes.clone()
                })
                .is_err(),
            "{changes:?}"
        );
        assert_eq!(changed, set);
    }
}

#[test]
fn damaged_edits_with_right_checksums_keep_the_promises() {
    let edit = golden_set().full_edit().encode();
    let mut random = Random::from_seed(9);
    for _ in 0..crate::support::scale(20_000) {
        let mut bytes = Vec::new();
        for _ in 0..1 + random.index(3) {
            let mut payload = edit.clone();
            for _ in 0..random.index(4) {
                let at = random.index(payload.len());
                match random.below(3) {
                    0 => payload[at] = random.u64() as u8,
                    1 => payload[at] = payload[at].wrapping_add(1),
                    _ => drop(payload.remove(at)),
                }
            }
            bytes.push(payload.len() as u8);
            bytes.extend(payload);
        }
        keybed_lsm::fuzzing::manifest(&bytes);
    }
}
