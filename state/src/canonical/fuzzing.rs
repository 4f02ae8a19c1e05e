//! What must hold for arbitrary bytes in the place of a canonical file; called by the fuzz target and by the tests that
//! replay its corpus. Panics if a promise is broken. Not part of the API.

use super::{
    CanonicalHeader, CanonicalPart, FOOTER_MAGIC, KIND, MAGIC, VERSION, export::export, frame, handle_of,
    import::stored_entries, layout::Parts, reader::CanonicalFile, separate, sort::Sorter,
    writer::CanonicalWriter,
};
use crate::{ScanEntry, backend::ContentScan, codec::encode_key};
use keybed_env::{Fs, ReadFile, SimFs, random::Ids};
use keybed_format::{Code, Cursor, Error, Result, Sink, checksum, trailer::TrailerBuilder};
use keybed_lsm::table::{BlockPacker, Compression};
use keybed_snapshot::{
    Anchor, BackendKind, ComponentOrder, FileHandle, Folder, KeyGroup, KeyGroupRange, ObjectName, OpenFiles,
    StateCatalogue, StateDeclaration, StateId, StateKind, key_group_of,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    path::Path,
    sync::Arc,
};

const ALL: KeyGroupRange = KeyGroupRange {
    first: KeyGroup(0),
    last: KeyGroup(u16::MAX >> 1),
};

/// Bytes in the place of a whole file, of its sections (checksums right) and of one block are refused by name or
/// understood in exactly one way; state made of the bytes survives a file, and the way through a backend's order.
pub fn canonical_savepoint(bytes: &[u8]) -> bool {
    let mut is_accepted = check(bytes);
    let mut c = Cursor::new(bytes);
    let mut section = || -> Vec<u8> {
        let length = c.u16().map_or(0, usize::from).min(c.remaining());
        c.take(length).unwrap_or_default().to_vec()
    };
    let (header, directory, block) = (section(), section(), section());
    is_accepted |= check(&assembled(&header, &[block], Some(directory)));
    // Random bytes are rarely a header, and a directory follows from the blocks.
    let mut block = 0_u16.to_le_bytes().to_vec();
    block.extend(bytes);
    is_accepted |= check(&assembled(&sample_header().encode(), &[block], None));
    round_trip(bytes);
    is_accepted
}

/// A file with right checksums around whatever it is made of.
fn assembled(header: &[u8], blocks: &[Vec<u8>], directory: Option<Vec<u8>>) -> Vec<u8> {
    let mut packer = BlockPacker::new(Compression::None).expect("no compression is always there");
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 4]);
    let mut pack = |raw: &[u8], id, out: &mut Vec<u8>| {
        let offset = out.len() as u64;
        frame::pack(&mut packer, raw, id, offset, out);
    };
    pack(header, frame::HEADER_ID, &mut out);
    let id = u128::from(checksum::hash(header));
    let start = out.len();
    for block in blocks {
        pack(block, id, &mut out);
    }
    let directory_at = out.len() as u64;
    let directory = directory.unwrap_or_else(|| {
        // One key group that holds as many entries as a reader finds: tried from the block's own bytes.
        let mut one = Sink::new();
        one.count(1).count(out.len() - start).count(entries_in(blocks));
        one.into_vec()
    });
    pack(&directory, id, &mut out);
    let mut footer = Sink::new();
    footer.u64(directory_at).u32(VERSION).u32(0).raw(&FOOTER_MAGIC);
    let sum = checksum::bound(footer.as_slice(), id, out.len() as u64);
    footer.u64(sum);
    out.extend(footer.into_vec());
    let mut trailer = TrailerBuilder::new(7, KIND);
    trailer.update(&out);
    out.extend(trailer.finish().0);
    out
}

/// How many entries the blocks of the sample's header hold, as far as they can be read.
fn entries_in(blocks: &[Vec<u8>]) -> usize {
    let header = sample_header();
    let count = |block: &Vec<u8>| {
        let (mut c, mut key, mut entries) = (Cursor::new(block), Vec::new(), 0);
        if c.u16().is_err() {
            return 0;
        }
        while let Ok(entry) = frame::RawEntry::read(&mut c, &key, |state| header.is_rotated(state)) {
            key.truncate(entry.shared);
            key.extend_from_slice(entry.rest);
            entries += 1;
        }
        entries
    };
    blocks.iter().map(count).sum()
}

fn known(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::Malformed | Code::SnapshotCorrupt | Code::UnsupportedFormatVersion
    )
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnEntry {
    group: KeyGroup,
    state: StateId,
    components: Vec<u8>,
    parts: Option<Parts>,
    value: Vec<u8>,
}

fn read(bytes: &[u8]) -> Result<(CanonicalHeader, Vec<OwnEntry>)> {
    let file = CanonicalFile::parse(Arc::new(InMemory(bytes.to_vec())), "fuzzed".into())?;
    let mut entries = Vec::new();
    file.read(ALL, &mut |entry| {
        entries.push(OwnEntry {
            group: entry.group,
            state: entry.state,
            components: entry.components.to_vec(),
            parts: entry.parts,
            value: entry.value.to_vec(),
        });
        Ok(())
    })?;
    Ok((file.header().clone(), entries))
}

/// True if it was read.
fn check(bytes: &[u8]) -> bool {
    let (header, entries) = match read(bytes) {
        Ok(read) => read,
        Err(error) => {
            assert!(known(&error), "{error}");
            return false;
        }
    };
    assert_eq!(
        CanonicalHeader::decode(&header.encode()).expect("what was read can be written"),
        header
    );
    let written = write(&header, &entries);
    assert_eq!(
        read(&written).expect("what was written can be read"),
        (header.clone(), entries.clone())
    );
    through_a_backend(&header, &entries, &written);
    true
}

fn write(header: &CanonicalHeader, entries: &[OwnEntry]) -> Vec<u8> {
    let (fs, path) = (SimFs::without_history(), Path::new("/file"));
    let mut writer = CanonicalWriter::create(&fs, path, header, Compression::Lz4).expect("a new disk");
    for entry in entries {
        writer
            .add(
                entry.group,
                entry.state,
                &entry.components,
                entry.parts,
                &entry.value,
            )
            .expect("entries that were read are in order");
    }
    writer.finish().expect("a disk without faults");
    fs.read(path, u64::MAX).expect("it was written")
}

/// The entries as a backend stores them, and written again from there.
fn through_a_backend(header: &CanonicalHeader, entries: &[OwnEntry], written: &[u8]) {
    let files = OneFile(written.to_vec());
    let handle = handle_of(
        files.handle(),
        header.range,
        BackendKind::Heap,
        entries.len() as u64,
    );
    let (_, parts): (_, Vec<CanonicalPart>) =
        separate(std::slice::from_ref(&handle), header.range).expect("a handle of one file");
    let mut families = [(); 4].map(|()| BTreeMap::new());
    let stored = stored_entries(&header.catalogue, &parts, &files, &mut |family, key, value| {
        let old = families[family.index()].insert(key.to_vec(), value.to_vec());
        assert_eq!(old, None, "two entries became one");
        Ok(())
    });
    if let Err(error) = stored {
        return assert!(known(&error), "{error}");
    }
    let again = CanonicalHeader::new(header.range, header.max_parallelism, header.catalogue.clone());
    if again != *header {
        return; // Layouts that this version would not choose.
    }
    let (fs, path) = (SimFs::without_history(), Path::new("/file"));
    let mut writer = CanonicalWriter::create(&fs, path, header, Compression::Lz4).expect("a new disk");
    let mut sorter = Sorter::new(&fs, Path::new("/"), Ids::Entropy, 256);
    let scans = families
        .each_ref()
        .map(|family| Box::new(MapScan(family.iter(), None)) as Box<dyn ContentScan>);
    export(header, scans, &mut sorter, &mut writer).expect("what was imported can be exported");
    writer.finish().expect("a disk without faults");
    assert_eq!(
        fs.read(path, u64::MAX).expect("it was written"),
        written,
        "another file"
    );
}

/// A value, a list, a map, a window's map and a window's list.
fn sample_header() -> CanonicalHeader {
    let mut catalogue = StateCatalogue::new();
    let kinds = [
        StateKind::Value,
        StateKind::List,
        StateKind::Map,
        StateKind::Map,
        StateKind::List,
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let window = n > 2;
        let state = StateDeclaration {
            name: format!("state-{n}"),
            kind,
            order: if window {
                ComponentOrder::NamespaceFirst
            } else {
                ComponentOrder::KeyFirst
            },
            key_schema: "string".into(),
            namespace_schema: if window { "i64" } else { "" }.into(),
            map_key_schema: if kind == StateKind::Map { "bytes" } else { "" }.into(),
            value_schema: "bytes".into(),
        };
        catalogue.declare(&state).expect("it is declared well");
    }
    let one = KeyGroupRange::new(0, 0).expect("one group");
    CanonicalHeader::new(one, 1, catalogue)
}

/// State made of the bytes, `(state u8, key byte, second byte, length)…`, written and read.
fn round_trip(bytes: &[u8]) {
    let header = sample_header();
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    for piece in bytes.chunks_exact(4) {
        let [state, key, second, length] = *piece else {
            continue;
        };
        let state = StateId(u16::from(state % 6));
        let key = encode_key(&String::from_utf8_lossy(&[b'k', key % 0x80, 0]).into_owned());
        let namespace = encode_key(&(i64::from(second % 16) - 8));
        let map_key = encode_key(&vec![second; usize::from(second % 3)]);
        let (components, namespace_bytes) = match state.0 {
            0 => ([key.as_slice(), &map_key, &namespace].concat(), map_key.len()),
            1 | 2 => (key.clone(), 0),
            3 => ([key.as_slice(), &map_key].concat(), 0),
            4 => ([key.as_slice(), &namespace, &map_key].concat(), namespace.len()),
            _ => ([key.as_slice(), &namespace].concat(), namespace.len()),
        };
        let is_list = matches!(state.0, 2 | 5);
        if !seen.insert((state, components.clone())) && !is_list {
            continue;
        }
        let parts = header.is_rotated(state).then_some(Parts {
            key: key.len(),
            namespace: namespace_bytes,
        });
        let value = if state.0 == 0 {
            Vec::new()
        } else {
            vec![second; usize::from(length) * 9]
        };
        entries.push(OwnEntry {
            group: key_group_of(&key, 1),
            state,
            components,
            parts,
            value,
        });
    }
    // Stable, so the elements of a list stay in order.
    entries.sort_by(|a, b| (a.state, &a.components).cmp(&(b.state, &b.components)));
    let written = write(&header, &entries);
    assert_eq!(
        read(&written).expect("what was written can be read"),
        (header.clone(), entries.clone())
    );
    through_a_backend(&header, &entries, &written);
}

#[derive(Debug)]
struct InMemory(Vec<u8>);

impl ReadFile for InMemory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start
            .checked_add(buffer.len())
            .and_then(|end| self.0.get(start..end));
        let found = found.ok_or_else(|| Error::new(Code::Malformed, "the file ends too early").at(offset))?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

struct OneFile(Vec<u8>);

impl OneFile {
    fn handle(&self) -> FileHandle {
        let mut read_at = |at: u64, buffer: &mut [u8]| InMemory(self.0.clone()).read_exact_at(buffer, at);
        let trailer = keybed_format::trailer::read(self.0.len() as u64, &mut read_at).expect("it is whole");
        FileHandle {
            content: trailer.content_id,
            anchor: Anchor::SelfDir,
            folder: Folder::Private,
            object: ObjectName::new("fuzzed").expect("a name"),
            offset: 0,
            length: self.0.len() as u64,
            digest: trailer.digest,
        }
    }
}

impl OpenFiles for OneFile {
    fn open(&self, _: &FileHandle) -> Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(InMemory(self.0.clone())))
    }

    fn fetch(&self, _: &FileHandle, fs: &dyn Fs, to: &Path) -> Result {
        fs.create(to)?.append(&self.0)
    }
}

struct MapScan<'a>(
    btree_map::Iter<'a, Vec<u8>, Vec<u8>>,
    Option<(&'a Vec<u8>, &'a Vec<u8>)>,
);

impl ContentScan for MapScan<'_> {
    fn advance(&mut self) -> Result<bool> {
        self.1 = self.0.next();
        Ok(self.1.is_some())
    }

    fn entry(&self) -> ScanEntry<'_> {
        self.1.map_or((&[], &[]), |(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_reaches_what_it_is_meant_to_reach() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/canonical_savepoint");
        let input = |name| std::fs::read(corpus.join(name)).expect("it is committed");
        assert_eq!(read(&input("golden")).expect("a file").1.len(), 6);
        let mut block = vec![0, 0];
        block.extend(input("block"));
        let whole = assembled(&sample_header().encode(), &[block], None);
        let (header, entries) = read(&whole).expect("a block of every kind of entry");
        assert_eq!((header, entries.len()), (sample_header(), 7));
    }
}
