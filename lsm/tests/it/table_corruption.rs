//! If this fails, damaged bytes of a table are taken for state.

use crate::tables::{Version, build, get, mapped, open_bytes, scan};
use keybed_env::OsFs;
use keybed_format::{Code, ErrorKind, Result};
use keybed_lsm::{
    EntryKind, TableId,
    table::{Compression, TableOptions, TableReader, TableView},
};
use std::{fs, path::Path, sync::Arc};

const ID: TableId = TableId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

/// A small table of several blocks with every kind of entry.
fn sample() -> Vec<Version> {
    let mut all = Vec::new();
    for i in 0..60_u64 {
        let key = format!("key-{i:03}").into_bytes();
        match i % 5 {
            0 => all.push((key, i, EntryKind::Delete, vec![])),
            1 => {
                all.push((key.clone(), 100 + i, EntryKind::Merge, b"+1".to_vec()));
                all.push((key, i, EntryKind::Put, b"base".to_vec()));
            }
            _ => all.push((key, i, EntryKind::Put, vec![b'v'; i as usize % 9])),
        }
    }
    all
}

fn file(options: &TableOptions, id: TableId, all: &[Version]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sst");
    build(&path, id, options, all).unwrap();
    fs::read(path).unwrap()
}

fn small(compression: Compression) -> TableOptions {
    TableOptions {
        block_bytes: 512,
        compression,
        ..TableOptions::default()
    }
}

/// Every answer is right or an error of the right kind, and the whole check always finds the damage.
fn right_or_refused(opened: Result<Arc<TableReader>>, all: &[Version], what: &str) {
    let refused = |e: keybed_format::Error| {
        assert!(
            e.file().is_some() && e.offset().is_some(),
            "{what}: {e} names no place"
        );
        assert!(
            matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Incompatible),
            "{what}: {e}"
        );
    };
    let reader = match opened {
        Ok(reader) => reader,
        Err(e) => return refused(e),
    };
    match reader.verify_all() {
        Ok(()) => panic!("{what}: the damage is not found"),
        Err(e) => refused(e),
    }
    let view = TableView::whole(reader);
    match scan(&view) {
        Ok(found) => assert_eq!(found, all, "{what}"),
        Err(e) => refused(e),
    }
    for version in all {
        match get(&view, &version.0, version.1) {
            Ok(found) => assert_eq!(found.as_ref(), Some(version), "{what}"),
            Err(e) => refused(e),
        }
    }
}

fn flip_every_bit(compression: Compression) {
    let all = sample();
    let good = file(&small(compression), ID, &all);
    open_bytes(good.clone(), ID).unwrap().verify_all().unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        right_or_refused(open_bytes(bad, ID), &all, &format!("bit {bit}"));
    }
}

#[test]
fn a_flipped_bit_is_found_and_never_answered() {
    flip_every_bit(Compression::None);
}

#[test]
fn a_flipped_bit_of_a_compressed_table_is_found_and_never_answered() {
    flip_every_bit(Compression::Lz4);
    #[cfg(feature = "zstd")]
    flip_every_bit(Compression::Zstd(1));
}

#[test]
fn a_flipped_bit_of_a_mapped_table_is_found_and_never_answered() {
    let all = sample();
    let dir = tempfile::tempdir().unwrap();
    let good = file(&small(Compression::None), ID, &all);
    for bit in (0..good.len() * 8).step_by(7) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let path = dir.path().join("bad.sst");
        fs::write(&path, bad).unwrap();
        right_or_refused(
            TableReader::open(&OsFs, &path, ID, mapped()),
            &all,
            &format!("bit {bit}"),
        );
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_truncated_table_does_not_open() {
    let good = file(&small(Compression::None), ID, &sample());
    for n in 0..good.len() {
        let e = open_bytes(good[..n].to_vec(), ID).unwrap_err();
        assert_eq!(
            (e.code(), e.file()),
            (Code::TableCorrupt, Some(Path::new("bytes.sst"))),
            "length {n}"
        );
    }
}

#[test]
fn a_table_with_anything_appended_does_not_open() {
    let mut long = file(&small(Compression::None), ID, &sample());
    long.push(0);
    assert_eq!(open_bytes(long, ID).unwrap_err().code(), Code::TableCorrupt);
}

fn first_block_bytes(file: &[u8]) -> usize {
    let dump = open_bytes(file.to_vec(), ID).unwrap().dump().to_string();
    dump.split("block 0 at 16 · ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_block_in_the_place_of_another_is_refused() {
    // All blocks are equally long, so that a swap leaves the rest of the file intact.
    let all: Vec<Version> = (0..400_u32)
        .map(|i| (i.to_be_bytes().to_vec(), 5, EntryKind::Put, vec![1; 8]))
        .collect();
    let good = file(&small(Compression::None), ID, &all);
    let stored = open_bytes(good.clone(), ID).unwrap().dump().to_string();
    let bytes: usize = stored
        .split("block 0 at 16 · ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let mut bad = good.clone();
    let (first, second) = bad[16..16 + 2 * bytes].split_at_mut(bytes);
    assert_ne!(first, second);
    first.swap_with_slice(second);
    let reader = open_bytes(bad, ID).unwrap();
    let e = get(&TableView::whole(reader.clone()), &all[0].0, 5).unwrap_err();
    assert_eq!((e.code(), e.offset()), (Code::TableCorrupt, Some(16)));
    right_or_refused(Ok(reader), &all, "swapped blocks");
}

#[test]
fn a_block_of_another_table_is_refused() {
    let all = sample();
    let good = file(&small(Compression::None), ID, &all);
    let other = file(&small(Compression::None), TableId(ID.0 + 1), &all);
    let mut bad = good;
    let end = 16 + first_block_bytes(&bad);
    bad[16..end].copy_from_slice(&other[16..end]);
    right_or_refused(open_bytes(bad, ID), &all, "a block of another table");
}

#[test]
fn another_table_under_this_name_is_refused() {
    let other = file(&small(Compression::None), TableId(1), &sample());
    let e = open_bytes(other, ID).unwrap_err();
    assert_eq!(e.code(), Code::TableCorrupt);
    assert!(
        e.to_string()
            .contains("expected 0123456789abcdef0123456789abcdef"),
        "{e}"
    );
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let mut trailer = keybed_format::trailer::TrailerBuilder::new(ID.0, u32::from_le_bytes(*b"else"));
    trailer.update(&[1; 5000]);
    let (tail, _) = trailer.finish();
    let e = open_bytes([vec![1; 5000], tail].concat(), ID).unwrap_err();
    assert_eq!(e.code(), Code::TableCorrupt);
}
