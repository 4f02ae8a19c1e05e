//! If this fails, tables written by an earlier build can no longer be read, or read otherwise.

use crate::tables::{Version, build, open_bytes, scan};
use keybed_format::checksum;
use keybed_lsm::{
    EntryKind, TableId,
    table::{Compression, TableOptions, TableView},
};
use std::fs;

/// The table of docs/format/table.md.
fn page() -> Vec<Version> {
    vec![
        (b"\0\x01apple".to_vec(), 7, EntryKind::Put, b"red".to_vec()),
        (b"\0\x01apple".to_vec(), 3, EntryKind::Merge, b"+".to_vec()),
        (b"\0\x01pear".to_vec(), 5, EntryKind::Delete, vec![]),
    ]
}

fn bytes(options: &TableOptions, all: &[Version]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    build(&path, TableId(42), options, all).unwrap();
    fs::read(path).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let mut lines = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        let digits: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        lines += &format!("{:04x}  {}\n", i * 16, digits.join(" "));
    }
    lines
}

#[test]
fn golden_bytes_of_the_documented_table() {
    let file = bytes(
        &TableOptions {
            partition_prefix: 2,
            ..TableOptions::default()
        },
        &page(),
    );
    let found = hex(&file);
    let documented = include_str!("../../../docs/format/table.md");
    assert!(
        documented.contains(&found),
        "docs/format/table.md differs from:\n{found}"
    );
    let reader = open_bytes(file, TableId(42)).unwrap();
    assert_eq!(scan(&TableView::whole(reader)).unwrap(), page());
}

/// The table with stamps of docs/format/table.md.
fn stamped() -> Vec<Version> {
    let put = [&1000_u64.to_le_bytes()[..], b"red"].concat();
    let operand = [&2000_u64.to_le_bytes()[..], &1500_u64.to_le_bytes(), b"+"].concat();
    let older = [&700_u64.to_le_bytes()[..], b"old"].concat();
    vec![
        (b"\0\x01apple".to_vec(), 9, EntryKind::PutStamped, put),
        (b"\0\x01apple".to_vec(), 3, EntryKind::PutStamped, older),
        (b"\0\x01fig".to_vec(), 8, EntryKind::Put, b"x".to_vec()),
        (b"\0\x01pear".to_vec(), 7, EntryKind::MergeStamped, operand),
    ]
}

#[test]
fn golden_bytes_of_the_documented_table_with_stamps() {
    let options = TableOptions {
        partition_prefix: 2,
        ..TableOptions::default()
    };
    let file = bytes(&options, &stamped());
    let found = hex(&file);
    let documented = include_str!("../../../docs/format/table.md");
    assert!(
        documented.contains(&found),
        "docs/format/table.md differs from:\n{found}"
    );
    let reader = open_bytes(file, TableId(42)).unwrap();
    let facts = reader.facts();
    // The older value of the apple says nothing of when that key was touched.
    assert_eq!(
        (facts.touched, facts.unstamped, facts.first_touched),
        (Some((1000, 2000)), 1, Some(1500))
    );
    assert_eq!(scan(&TableView::whole(reader)).unwrap(), stamped());
}

#[test]
fn golden_hashes_of_larger_tables() {
    let all: Vec<Version> = (0..5_000_u64)
        .map(|i| {
            (
                (i * i).to_be_bytes().to_vec(),
                i % 300,
                EntryKind::Put,
                (i % 77).to_be_bytes().to_vec(),
            )
        })
        .collect();
    let varying: Vec<Version> = (0..5_000_u64)
        .map(|i| {
            (
                format!("{:07}", i * 3).into_bytes(),
                i << 30,
                EntryKind::Put,
                vec![b'x'; (i % 31) as usize],
            )
        })
        .collect();
    let small = TableOptions {
        block_bytes: 4096,
        ..TableOptions::default()
    };
    // So many keys that the filter is partitioned.
    let many: Vec<Version> = (0..50_000_u64)
        .map(|i| ((i * i).to_be_bytes().to_vec(), i, EntryKind::Put, Vec::new()))
        .collect();
    let prefixed = TableOptions {
        filter_prefix: 6,
        ..TableOptions::default()
    };
    let lz4 = TableOptions {
        compression: Compression::Lz4,
        ..TableOptions::default()
    };
    let found = [
        checksum::hash(&bytes(&TableOptions::default(), &all)),
        checksum::hash(&bytes(&small, &varying)),
        checksum::hash(&bytes(&lz4, &varying)),
        checksum::hash(&bytes(&prefixed, &many)),
    ];
    assert_eq!(
        found.map(|h| format!("{h:016x}")),
        [
            "017f9fdabcc89864",
            "84cc05edee14b37e",
            "177978e24d03865e",
            "39ed066e19ddd55f"
        ]
    );
}
