//! What must hold for arbitrary bytes in the place of parts of a table; called by the fuzz targets and by the test
//! that replays their corpora. Each function panics if a promise is broken, and says whether the bytes were accepted by
//! what decodes them: a corpus of which nothing ever is would prove little. Not part of the API.

pub use crate::wal::fuzz::wal_replay;

use crate::{
    cache::BlockCache,
    key::{self, Entry, EntryKind, KeyRange, SEQNO_MAX, TableId},
    table::{BlockAccess, TableFacts, TableIter, TableReader, TableView, inside},
    version::{edit::Edit, manifest, set::VersionSet},
};
use inside::{
    BlockBuilder, BlockView, Compressor, FenceBuilder, Filter, Footer, Geometry, SectionId, Stored,
    build_filter, check_block, encode_properties, head, open_stored, seal,
};
use keybed_env::ReadFile;
use keybed_format::{Code, Error, Result, trailer::TrailerBuilder};
use std::{ops::ControlFlow, path::Path, sync::Arc};

const ID: TableId = TableId(77);

/// Bytes in the place of a block: no panic, no allocation above the limit; a sound one is built again to equal bytes
/// and finds each of its keys. Entries made of the bytes survive a block.
pub fn sst_block(bytes: &[u8]) -> bool {
    let mut is_accepted = raw_block(bytes);
    // As a stored block: payload, codec and length from the fuzzer, the checksum right.
    let sealed = seal(bytes.to_vec(), ID, 16);
    match open_stored(&sealed, ID, 16) {
        Ok(Stored::Raw(raw)) => is_accepted |= raw_block(raw),
        Ok(Stored::Packed(packed)) => {
            if let Ok(raw) = packed.unpack() {
                assert!(
                    raw.len() <= inside::COMPRESSED_FROM_BYTES_MAX,
                    "a block above the limit"
                );
                is_accepted |= raw_block(&raw);
            }
        }
        Err(error) => assert!(known(&error), "{error}"),
    }
    let entries = entries_of(bytes);
    if !entries.is_empty() {
        let raw = block_of(&entries);
        check_block(&raw, 16).expect("a block that was built is sound");
        let geometry = Geometry::parse(&raw, 16).expect("a block that was built has a header");
        let view = BlockView {
            bytes: &raw,
            geometry: &geometry,
        };
        let found: Vec<_> = (0..geometry.entries())
            .map(|i| view.entry(i).expect("an entry"))
            .collect();
        let written: Vec<_> = entries.iter().map(OwnEntry::borrow).collect();
        assert_eq!(found, written, "a block holds something else than was put in");
    }
    is_accepted
}

fn raw_block(raw: &[u8]) -> bool {
    let Ok(geometry) = Geometry::parse(raw, 16) else {
        return false;
    };
    let view = BlockView {
        bytes: raw,
        geometry: &geometry,
    };
    let sound = check_block(raw, 16).is_ok();
    for index in 0..geometry.entries().min(4096) {
        let Some(entry) = view.entry(index) else {
            assert!(!sound, "a sound block has an entry that makes no sense");
            continue;
        };
        let found = view.find_visible(entry.key, key::hash(entry.key), entry.seqno);
        let bound = view.lower_bound(entry.key);
        if sound {
            assert_eq!(
                found.flatten().map(|(at, _)| at),
                Some(index),
                "an entry is not found"
            );
            assert!(
                bound.is_some_and(|at| at <= index),
                "an entry lies before its key"
            );
        }
    }
    for strange in [&b""[..], b"strange", &[0xff; 40]] {
        let _ = view.find_visible(strange, key::hash(strange), SEQNO_MAX);
        let _ = view.lower_bound(strange);
    }
    sound
}

/// Bytes in the place of a filter: no panic; one built from the bytes denies none of its keys.
pub fn filter_block(bytes: &[u8]) -> bool {
    let probes: Vec<u64> = bytes
        .chunks(8)
        .map(|part| part.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
        .collect();
    let decoded = Filter::decode(bytes, 0);
    if let Ok(filter) = &decoded {
        for &probe in probes.iter().chain(&[0, 1, u64::MAX]) {
            filter.may_contain(bytes, probe);
        }
    }
    let is_accepted = filter_partitions(bytes, &probes) | decoded.is_ok();
    let section = build_filter(probes.clone()).expect("so few keys have a filter");
    let filter = Filter::decode(&section, 0).expect("a filter that was built");
    assert!(
        probes.iter().all(|&hash| filter.may_contain(&section, hash)),
        "a key is denied"
    );
    is_accepted
}

/// Bytes in the place of the directory of partitioned filters, its checksum right, before a section of filters that
/// was built: no panic; what is accepted denies no key unless its filter is another one's.
fn filter_partitions(bytes: &[u8], probes: &[u64]) -> bool {
    let groups = (bytes.len() / 8) as u32;
    let mut directory = bytes[..groups as usize * 8].to_vec();
    directory.extend(groups.to_le_bytes());
    let parts: u64 = directory
        .chunks_exact(8)
        .take(groups as usize)
        .map(|entry| u64::from(u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]])))
        .sum();
    let start = 100;
    // Filters that would lie behind 4 KiB are only claimed.
    let file = vec![0; (start + parts.min(4096)) as usize];
    let at = start + parts.min(4096);
    let file = [file, seal(directory, ID, at)].concat();
    let ends = [(b"k2".as_slice(), b"k3".as_slice()), (b"k4", b"k5")];
    let mut fence = FenceBuilder::default();
    fence.end_block(50);
    for (last, first) in ends {
        fence.start_block(last, first);
        fence.end_block(50);
    }
    let fence = inside::Fence::decode(&fence.encode(16), 0, 166).expect("a fence that was built");
    let end = file.len() as u64;
    let source = inside::Source::read_from(Arc::new(Arc::new(Memory(file.clone())) as Arc<dyn ReadFile>));
    let read = |start: u64, end: u64| Ok(file[start as usize..end as usize].to_vec());
    let found = inside::Filters::partitions((ID, 1 << 40), (start, end), &fence, None, read);
    if let Ok(filters) = &found {
        assert!(filters.verify(&source).is_err(), "zeros are no filters");
        for (&hash, key) in probes.iter().zip([&b"k"[..], b"k3", b"k4x", b"z"].iter().cycle()) {
            assert!(
                filters.may_contain(&source, &fence, key, hash),
                "a damaged filter denies"
            );
        }
    }
    found.is_ok()
}

/// Bytes in the place of a manifest, and of the edits in one whose checksums are right: no panic, no allocation above
/// the bytes; what is read is written again to equal bytes, and one full edit builds the same set.
pub fn manifest(bytes: &[u8]) -> bool {
    let number = bytes
        .get(12..20)
        .and_then(|number| number.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let decoded = manifest::decode(number, bytes);
    if let Ok(found) = &decoded {
        rebuilt(&found.set);
    }
    let mut is_accepted = decoded.is_ok();
    // As edits, each after its length: what contradicts the set is refused and changes nothing.
    let mut set = VersionSet::default();
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        let (payload, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        let Ok(edit) = Edit::decode(payload, 0) else {
            continue;
        };
        // Properties of tables that this version does not know are not kept.
        let again = Edit::decode(&edit.encode(), 0).expect("an edit that was written");
        assert_eq!(again, edit, "an edit is read otherwise than it was written");
        let before = set.clone();
        match set.apply(&edit) {
            Ok(()) => is_accepted |= !edit.changes.is_empty(),
            Err(_) => assert_eq!(set, before, "a refused edit changed the set"),
        }
    }
    rebuilt(&set);
    is_accepted
}

fn rebuilt(set: &VersionSet) {
    let mut again = VersionSet::default();
    again
        .apply(&set.full_edit())
        .expect("a full edit never contradicts the empty set");
    assert_eq!(
        again.full_edit(),
        set.full_edit(),
        "a full edit builds another set"
    );
}

/// A file from anywhere, opened as a table: refused, or iterated without a panic; if it verifies, it is in order and
/// point reads equal the scan.
///
/// Checksums would keep a fuzzer outside, so bytes that do not start with the magic number are damage done to the
/// parts of a sound table before the checksums are computed: `(part u8, offset u16, xor u8)…`.
pub fn sst_footer_index(bytes: &[u8]) -> bool {
    let file = if bytes.starts_with(&head()[..8]) {
        bytes.to_vec()
    } else {
        damaged_table(bytes)
    };
    let cache = Arc::new(BlockCache::new(1 << 20));
    let opened = TableReader::open_file(
        Arc::new(Memory(file)),
        Path::new("fuzz.sst"),
        ID,
        BlockAccess::Cache(cache),
    );
    let reader = match opened {
        Ok(reader) => reader,
        Err(error) => {
            assert!(known(&error), "{error}");
            return false;
        }
    };
    let sound = match reader.verify_all() {
        Ok(()) => true,
        Err(error) => {
            assert!(known(&error), "{error}");
            false
        }
    };
    let _ = reader.dump().to_string();
    let part = KeyRange {
        start: b"k1".to_vec(),
        end: Some(b"k3".to_vec()),
    };
    for view in [
        TableView::whole(reader.clone()),
        TableView::new(reader.clone(), part),
    ] {
        let scanned = walk(&view, sound);
        if sound && view.visible.is_all() {
            let entries = scanned.expect("a sound table is scanned");
            assert_eq!(
                entries as u64,
                reader.facts().entries,
                "the scan left something out"
            );
        }
    }
    sound
}

/// Scans a view, asks for each version by key. Bounded: damage may make blocks refer to each other's keys, never
/// make them longer.
fn walk(view: &TableView, sound: bool) -> Result<usize> {
    let mut iter = TableIter::new(view);
    iter.seek_to_first()?;
    let mut last: Option<OwnEntry> = None;
    let mut entries = 0;
    while iter.valid() {
        let entry = iter.entry();
        let found = view.get(entry.key, key::hash(entry.key), entry.seqno);
        let mut versions = 0;
        let all = view.versions(entry.key, key::hash(entry.key), entry.seqno, &mut |_| {
            versions += 1;
            ControlFlow::Continue(())
        });
        if sound {
            assert!(
                view.visible.contains(entry.key),
                "a key outside of the visible range"
            );
            let found = found
                .expect("a sound table is read")
                .expect("a key of the scan is found");
            assert_eq!(
                (found.seqno, found.kind, &*found.value),
                (entry.seqno, entry.kind, entry.value)
            );
            assert!(all.is_ok() && versions > 0, "versions differ from get");
            let ordered = last
                .as_ref()
                .is_none_or(|last| last.borrow().order(&entry).is_lt());
            assert!(ordered, "the scan is not in order");
            last = Some(OwnEntry::of(entry));
        }
        entries += 1;
        iter.next()?;
    }
    Ok(entries)
}

fn known(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::Malformed | Code::TableCorrupt | Code::UnsupportedFormatVersion
    )
}

/// A file in memory.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl ReadFile for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        let part = rest.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(
            part.ok_or_else(|| Error::new(Code::Malformed, "the file ends too early").at(offset))?,
        );
        Ok(())
    }
}

struct OwnEntry {
    key: Vec<u8>,
    seqno: u64,
    kind: EntryKind,
    value: Vec<u8>,
}

impl OwnEntry {
    fn of(entry: Entry<'_>) -> Self {
        OwnEntry {
            key: entry.key.to_vec(),
            seqno: entry.seqno,
            kind: entry.kind,
            value: entry.value.to_vec(),
        }
    }

    fn borrow(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            seqno: self.seqno,
            kind: self.kind,
            value: &self.value,
        }
    }
}

/// Entries made of bytes, in order: `key length u8 · value length u8 · kind u8 · seqno u8 · key · value`, lengths and
/// kind wrapped to what is possible.
fn entries_of(mut bytes: &[u8]) -> Vec<OwnEntry> {
    let mut all = Vec::new();
    while let Some((&[key, value, kind, seqno], rest)) = bytes.split_first_chunk() {
        let (key, rest) = rest.split_at(usize::from(key % 24).min(rest.len()));
        let (value, rest) = rest.split_at(usize::from(value).min(rest.len()));
        let kind = [EntryKind::Put, EntryKind::Delete, EntryKind::Merge][usize::from(kind % 3)];
        let seqno = u64::from(seqno) << (u32::from(seqno) % 48);
        all.push(OwnEntry {
            key: key.to_vec(),
            seqno,
            kind,
            value: value.to_vec(),
        });
        bytes = rest;
    }
    all.sort_by(|a, b| a.borrow().order(&b.borrow()));
    all.dedup_by(|a, b| a.borrow().order(&b.borrow()).is_eq());
    all
}

fn block_of(entries: &[OwnEntry]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    let mut last: Option<&[u8]> = None;
    for entry in entries {
        let new_key = last != Some(&entry.key);
        builder
            .add(entry.borrow(), key::hash(&entry.key), new_key)
            .expect("small entries fit");
        last = Some(&entry.key);
    }
    let mut raw = Vec::new();
    builder.finish(&mut raw);
    raw
}

/// A sound table of four blocks, damaged before its checksums are computed.
fn damaged_table(damage: &[u8]) -> Vec<u8> {
    let entry = |i: u64, seqno, kind, value: &[u8]| {
        let key = format!("k{}{}", i / 8, "x".repeat((i % 8) as usize)).into_bytes();
        OwnEntry {
            key,
            seqno,
            kind,
            value: value.to_vec(),
        }
    };
    let blocks: Vec<Vec<OwnEntry>> = (0..4)
        .map(|block| {
            let keys = block * 8..block * 8 + 8;
            keys.flat_map(|i| {
                [
                    entry(i, i + 100, EntryKind::Merge, b"+"),
                    entry(i, i, EntryKind::Put, &[7; 3][..(i % 4) as usize]),
                ]
            })
            .collect()
        })
        .collect();
    let hashes = blocks
        .iter()
        .flatten()
        .step_by(2)
        .map(|e| key::hash(&e.key))
        .collect();
    let mut raw: Vec<Vec<u8>> = blocks.iter().map(|entries| block_of(entries)).collect();
    let mut fence = FenceBuilder::default();
    for (i, block) in raw.iter().enumerate() {
        if let Some(before) = i.checked_sub(1).and_then(|i| blocks[i].last()) {
            fence.start_block(&before.key, &blocks[i][0].key);
        }
        fence.end_block((block.len() + inside::TAIL_BYTES) as u64);
    }
    let all = || blocks.iter().flatten();
    let facts = TableFacts {
        entries: 64,
        keys: 32,
        merges: 32,
        smallest: blocks[0][0].key.clone(),
        largest: all().last().map(|e| e.key.clone()).unwrap_or_default(),
        seqno_min: 0,
        seqno_max: 131,
        key_bytes: all().map(|e| e.key.len() as u64).sum(),
        value_bytes: all().map(|e| e.value.len() as u64).sum(),
        blocks: 4,
        partition_prefix: 2,
        filter_prefix: 2,
        ..TableFacts::new(ID)
    };
    let prefixes = (0..4_u8).map(|i| key::hash(&[b'k', b'0' + i])).collect();
    let mut sections = vec![
        build_filter(hashes).expect("a filter"),
        build_filter(prefixes).expect("a filter of prefixes"),
        fence.encode(inside::HEAD_BYTES),
        encode_properties(&facts),
    ];
    for hit in damage.chunks_exact(4) {
        let (part, at) = (
            usize::from(hit[0]),
            usize::from(u16::from_le_bytes([hit[1], hit[2]])),
        );
        let part = match part % 8 {
            block @ 0..4 => &mut raw[block],
            section => &mut sections[section - 4],
        };
        let at = at % part.len();
        part[at] ^= hit[3];
    }
    assemble(&raw, sections)
}

/// A file of these blocks and sections (filter, prefix filter, index, properties), all checksums right.
fn assemble(blocks: &[Vec<u8>], sections: Vec<Vec<u8>>) -> Vec<u8> {
    let mut file = head();
    let mut compressor = Compressor::None;
    for block in blocks {
        let start = file.len();
        file.extend_from_slice(block);
        compressor.store(&mut file, start, ID, start as u64);
    }
    let mut footer = Footer::default();
    let ids = [
        SectionId::FILTER,
        SectionId::PREFIX_FILTER,
        SectionId::INDEX,
        SectionId::PROPERTIES,
    ];
    for (id, payload) in ids.into_iter().zip(sections) {
        let start = file.len() as u64;
        let sealed = seal(payload, ID, start);
        file.extend(sealed);
        footer.push(id, start, file.len() as u64);
    }
    let footer = footer.encode(ID, file.len() as u64);
    file.extend(footer);
    let mut trailer = TrailerBuilder::new(ID.0, inside::KIND);
    trailer.update(&file);
    file.extend(trailer.finish().0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_is_damaged_is_sound_without_damage() {
        let file = Arc::new(Memory(damaged_table(&[])));
        let cache = BlockAccess::Cache(Arc::new(BlockCache::new(0)));
        let reader = TableReader::open_file(file, Path::new("fuzz.sst"), ID, cache).unwrap();
        reader.verify_all().unwrap();
        assert_eq!(walk(&TableView::whole(reader), true).unwrap(), 64);
    }

    #[test]
    fn damage_below_right_checksums_is_survived_everywhere() {
        for part in 0..8_u8 {
            for at in 0..400_u16 {
                for xor in [1, 0x80, 0xff] {
                    let [low, high] = at.to_le_bytes();
                    sst_footer_index(&[part, low, high, xor]);
                }
            }
        }
    }

    #[test]
    fn arbitrary_entries_survive_a_block() {
        let mut bytes = Vec::new();
        for i in 0..3_000_u32 {
            bytes.push((i.wrapping_mul(0x9E37_79B9) >> 24) as u8);
            if i % 300 == 0 {
                sst_block(&bytes);
                filter_block(&bytes);
            }
        }
    }

    #[test]
    fn headers_and_ends_of_any_value_are_survived() {
        for seed in 0..6_000 {
            let mut dice = keybed_env::Random::from_seed(seed);
            let bytes: Vec<u8> = (0..dice.below(300)).map(|_| dice.u64() as u8).collect();
            let mut raw = match entries_of(&bytes) {
                entries if entries.is_empty() => continue,
                entries => block_of(&entries),
            };
            println!("seed {seed}"); // the last one printed is the culprit
            for _ in 0..=dice.below(4) {
                let at = dice.below(raw.len() as u64) as usize;
                raw[at] = [0, 1, 2, 4, 0x7f, 0x80, 0xff, dice.u64() as u8][dice.below(8) as usize];
            }
            raw_block(&raw);
            // Any block becomes one with wide ends, its parts still filling it.
            let rows = raw.len().saturating_sub(32 + 4) / 8;
            if let Some(header) = raw.first_chunk_mut::<32>().filter(|_| rows > 0) {
                let entries = 1 + dice.below(rows as u64) as u32;
                header[..4].copy_from_slice(&[2, 0, 4, 4]);
                header[4..8].copy_from_slice(&entries.to_le_bytes());
                header[8..12].copy_from_slice(&2_u32.to_le_bytes());
                header[12..20].fill(0);
                let heap = raw.len() as u32 - 32 - 4 - entries * 8;
                raw[20..24].copy_from_slice(&heap.to_le_bytes());
                for _ in 0..4 {
                    let field = 32 + dice.below(u64::from(entries) * 2) as usize * 4;
                    let end = [0, 1, heap, heap + 1, u32::MAX, u32::MAX - 40][dice.below(6) as usize];
                    raw[field..field + 4].copy_from_slice(&end.to_le_bytes());
                }
                raw_block(&raw);
            }
        }
    }
}
