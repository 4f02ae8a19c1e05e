//! Bytes of `_metadata`. Page: docs/format/metadata.md.
//!
//! ```text
//! envelope "KBSNAP\0\1"
//!   1 head        job · root · generation · checkpoint · kind · time · key hash
//!   2 properties  name, text …
//!   3 externals   places outside
//!   4 files       every file once, sorted; handles refer to rows of this table
//!   5 operators   catalogue and subtasks
//! ```
//! One content has one encoding: maps and files are sorted, varints are shortest, nothing is left over. Everything
//! read here is hostile: no length is believed before the bytes are there, and [`check`](super::check()) runs on the
//! result. A section of an unknown tag below [`SKIPPABLE`] is refused, because ignoring it could lose state.

use super::{ExternalAnchor, Metadata, check, operator};
use crate::{
    Anchor, CheckpointId, FileHandle, Folder, Generation, JobId, ObjectName, RootId, SnapshotKind,
    key_group::KEY_HASH_ID,
};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};
use std::collections::BTreeMap;

/// First bytes of `_metadata`.
pub const MAGIC: [u8; 8] = *b"KBSNAP\0\x01";
/// Newest version that is written and read.
pub const VERSION: u32 = 1;
/// Largest `_metadata` that is read, in bytes.
pub const METADATA_BYTES_MAX: u64 = 1 << 30;
/// Sections of tags from here on may be skipped by a reader that does not know them.
pub const SKIPPABLE: u32 = 1 << 31;

const HEAD: u32 = 1;
const PROPERTIES: u32 = 2;
const EXTERNALS: u32 = 3;
const FILES: u32 = 4;
const OPERATORS: u32 = 5;
const SECTION_VERSION: u32 = 1;
/// Longest name or text of a property, in bytes.
pub(super) const PROPERTY_BYTES_MAX: usize = 64 << 10;
/// Longest address of an external place, in bytes.
pub(crate) const URL_BYTES_MAX: usize = 4096;
/// Bytes of a file row at least: content, anchor, folder, name, offset, length, digest.
const FILE_ROW_BYTES_MIN: usize = 16 + 1 + 1 + 2 + 1 + 1 + 8;

/// Encodes a snapshot.
///
/// # Errors
/// `InvalidArgument` or `RegistryConflict` if [`check`](super::check()) refuses it, or if it exceeds
/// [`METADATA_BYTES_MAX`].
pub fn encode(metadata: &Metadata) -> Result<Vec<u8>> {
    check(metadata)?;
    let files = FileTable::of(metadata);
    let section = |tag, bytes: Sink| Section {
        tag,
        version: SECTION_VERSION,
        bytes: bytes.into_vec(),
    };
    let mut operators = Sink::new();
    operators.count(metadata.operators.len());
    for snapshot in &metadata.operators {
        operator::encode(snapshot, &files, &mut operators);
    }
    let bytes = envelope::write(
        MAGIC,
        VERSION,
        &[
            section(HEAD, head(metadata)),
            section(PROPERTIES, properties(&metadata.properties)),
            section(EXTERNALS, externals(&metadata.externals)),
            section(FILES, files.encode()),
            section(OPERATORS, operators),
        ],
    );
    if bytes.len() as u64 > METADATA_BYTES_MAX {
        // A reader would refuse it, when it is too late.
        return Err(Error::invalid("the metadata of the snapshot is too large")
            .expected_found(format_args!("at most {METADATA_BYTES_MAX} bytes"), bytes.len()));
    }
    Ok(bytes)
}

/// Decodes and checks a snapshot.
///
/// # Errors
/// `NotASnapshot` if the magic number is another one; `UnsupportedFormatVersion`; `SnapshotCorrupt` with the offset.
pub fn decode(bytes: &[u8]) -> Result<Metadata> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes).map_err(|e| name_damage(bytes, e))?;
    parse(&sections).map_err(|e| match e.code() {
        Code::UnsupportedFormatVersion => e,
        _ => e.recode(Code::SnapshotCorrupt),
    })
}

/// Tells damage in magic and version from another kind of file and a newer format: if the document verifies with
/// the right words in their places, it is ours and only those words are broken.
fn name_damage(bytes: &[u8], error: Error) -> Error {
    let ours = bytes.get(..8) == Some(&MAGIC[..]);
    let verifies_with = |at: usize, word: &[u8]| {
        let mut repaired = bytes.to_vec();
        match repaired.get_mut(at..at + word.len()) {
            Some(place) => place.copy_from_slice(word),
            None => return false,
        }
        envelope::read(MAGIC, VERSION, &repaired).is_ok()
    };
    match error.code() {
        Code::UnsupportedFormatVersion if verifies_with(8, &VERSION.to_le_bytes()) => {
            Error::new(Code::SnapshotCorrupt, "the version is damaged").at(8)
        }
        Code::UnsupportedFormatVersion => error,
        _ if ours || MAGIC.starts_with(bytes) => error.recode(Code::SnapshotCorrupt),
        _ if verifies_with(0, &MAGIC) => {
            Error::new(Code::SnapshotCorrupt, "the magic number is damaged").at(0)
        }
        _ => Error::new(Code::NotASnapshot, "the file is no snapshot metadata").at(0),
    }
}

fn parse(sections: &[(u64, Section)]) -> Result<Metadata> {
    let mut known: BTreeMap<u32, Cursor<'_>> = BTreeMap::new();
    for (offset, section) in sections {
        let cursor = Cursor::with_base(&section.bytes, *offset);
        if section.tag >= SKIPPABLE {
            continue;
        }
        if !(HEAD..=OPERATORS).contains(&section.tag) || section.version != SECTION_VERSION {
            return Err(Error::new(
                Code::UnsupportedFormatVersion,
                "a section is of an unknown kind or version",
            )
            .at(*offset)
            .with("section", section.tag)
            .expected_found(SECTION_VERSION, section.version));
        }
        if known.insert(section.tag, cursor).is_some() {
            return Err(Error::new(Code::Malformed, "a section occurs twice").at(*offset));
        }
    }
    let mut section = |tag| {
        known.remove(&tag).ok_or_else(|| {
            Error::new(Code::Malformed, "a section is missing")
                .at(0)
                .with("section", tag)
        })
    };
    let mut metadata = parse_head(section(HEAD)?)?;
    metadata.properties = parse_properties(section(PROPERTIES)?)?;
    metadata.externals = parse_externals(section(EXTERNALS)?)?;
    let mut files = FileTable::decode(section(FILES)?)?;
    let mut cursor = section(OPERATORS)?;
    let (at, count) = (cursor.offset(), cursor.count(operator::BYTES_MIN)?);
    for _ in 0..count {
        metadata
            .operators
            .push(operator::decode(&mut cursor, &mut files)?);
    }
    cursor.finish()?;
    files.all_used()?;
    check(&metadata).map_err(|e| e.recode(Code::Malformed).at(at))?;
    Ok(metadata)
}

fn head(metadata: &Metadata) -> Sink {
    let mut out = Sink::new();
    out.u128(metadata.job.0)
        .u128(metadata.root.0)
        .u64(metadata.generation.0)
        .u64(metadata.checkpoint.0);
    out.u8(kind_code(metadata.kind))
        .u64(metadata.timestamp_ms)
        .text(KEY_HASH_ID);
    out
}

fn parse_head(mut c: Cursor<'_>) -> Result<Metadata> {
    let (job, root) = (JobId(c.u128()?), RootId(c.u128()?));
    let (generation, checkpoint) = (Generation(c.u64()?), CheckpointId(c.u64()?));
    let kind = match c.u8()? {
        1 => SnapshotKind::Checkpoint,
        2 => SnapshotKind::FullCheckpoint,
        3 => SnapshotKind::NativeSavepoint,
        4 => SnapshotKind::CanonicalSavepoint,
        other => {
            return Err(c
                .malformed("the kind of snapshot is not known")
                .with("found", other));
        }
    };
    let timestamp_ms = c.u64()?;
    let key_hash = c.text(64)?;
    if key_hash != KEY_HASH_ID {
        return Err(
            Error::new(Code::UnsupportedFormatVersion, "keys were dealt by another hash")
                .at(c.offset())
                .expected_found(KEY_HASH_ID, key_hash.escape_debug()),
        );
    }
    c.finish()?;
    let (externals, operators, properties) = (Vec::new(), Vec::new(), BTreeMap::new());
    Ok(Metadata {
        job,
        root,
        generation,
        checkpoint,
        kind,
        timestamp_ms,
        externals,
        operators,
        properties,
    })
}

fn kind_code(kind: SnapshotKind) -> u8 {
    match kind {
        SnapshotKind::Checkpoint => 1,
        SnapshotKind::FullCheckpoint => 2,
        SnapshotKind::NativeSavepoint => 3,
        SnapshotKind::CanonicalSavepoint => 4,
    }
}

fn properties(properties: &BTreeMap<String, String>) -> Sink {
    let mut out = Sink::new();
    out.count(properties.len());
    for (name, text) in properties {
        out.text(name).text(text);
    }
    out
}

fn parse_properties(mut c: Cursor<'_>) -> Result<BTreeMap<String, String>> {
    let mut properties: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..c.count(2)? {
        let (name, text) = (
            c.text(PROPERTY_BYTES_MAX)?.to_owned(),
            c.text(PROPERTY_BYTES_MAX)?.to_owned(),
        );
        if properties.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(c.malformed("properties are not sorted"));
        }
        properties.insert(name, text);
    }
    c.finish()?;
    Ok(properties)
}

fn externals(externals: &[ExternalAnchor]) -> Sink {
    let mut out = Sink::new();
    out.count(externals.len());
    for external in externals {
        out.u32(external.id)
            .u128(external.job.0)
            .u128(external.root.0)
            .u64(external.checkpoint.0)
            .u64(external.digest)
            .text(&external.url);
    }
    out
}

fn parse_externals(mut c: Cursor<'_>) -> Result<Vec<ExternalAnchor>> {
    let count = c.count(4 + 16 + 16 + 8 + 8 + 1)?;
    let mut externals = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, job, root) = (c.u32()?, JobId(c.u128()?), RootId(c.u128()?));
        let (checkpoint, digest) = (CheckpointId(c.u64()?), c.u64()?);
        externals.push(ExternalAnchor {
            id,
            job,
            root,
            checkpoint,
            digest,
            url: c.text(URL_BYTES_MAX)?.to_owned(),
        });
    }
    c.finish()?;
    Ok(externals)
}

/// Every file of the snapshot once, sorted; handles refer to its rows.
pub(super) struct FileTable {
    files: Vec<FileHandle>,
    used: Vec<bool>,
}

impl FileTable {
    fn of(metadata: &Metadata) -> Self {
        let mut files: Vec<FileHandle> = metadata.files().cloned().collect();
        files.sort_unstable();
        files.dedup();
        FileTable {
            used: vec![true; files.len()],
            files,
        }
    }

    pub(super) fn row(&self, file: &FileHandle) -> usize {
        self.files
            .binary_search(file)
            .unwrap_or_else(|_| unreachable!("the table was built from these handles"))
    }

    pub(super) fn take(&mut self, c: &mut Cursor<'_>) -> Result<FileHandle> {
        let row = usize::try_from(c.varint()?).unwrap_or(usize::MAX);
        match (self.files.get(row), self.used.get_mut(row)) {
            (Some(file), Some(used)) => {
                *used = true;
                Ok(file.clone())
            }
            _ => Err(c.malformed("a file is not in the table").with("row", row)),
        }
    }

    fn all_used(&self) -> Result {
        match self.used.iter().position(|used| !used) {
            Some(row) => Err(Error::new(Code::Malformed, "a file of the table is never used")
                .at(0)
                .with("row", row)),
            None => Ok(()),
        }
    }

    fn encode(&self) -> Sink {
        let mut out = Sink::new();
        out.count(self.files.len());
        for file in &self.files {
            out.u128(file.content);
            match file.anchor {
                Anchor::SelfDir => out.u8(1),
                Anchor::Root => out.u8(2),
                Anchor::External(id) => out.u8(3).u32(id),
            };
            out.u8(match file.folder {
                Folder::Private => 1,
                Folder::Shared => 2,
                Folder::TaskOwned => 3,
            });
            out.text(file.object.as_str())
                .varint(file.offset)
                .varint(file.length)
                .u64(file.digest);
        }
        out
    }

    fn decode(mut c: Cursor<'_>) -> Result<Self> {
        let count = c.count(FILE_ROW_BYTES_MIN)?;
        let mut files: Vec<FileHandle> = Vec::with_capacity(count);
        for _ in 0..count {
            let content = c.u128()?;
            let anchor = match c.u8()? {
                1 => Anchor::SelfDir,
                2 => Anchor::Root,
                3 => Anchor::External(c.u32()?),
                other => return Err(c.malformed("an anchor is not known").with("found", other)),
            };
            let folder = match c.u8()? {
                1 => Folder::Private,
                2 => Folder::Shared,
                3 => Folder::TaskOwned,
                other => return Err(c.malformed("a folder is not known").with("found", other)),
            };
            let at = c.offset();
            let object = ObjectName::new(c.text(crate::object::NAME_BYTES_MAX)?);
            let object = object.map_err(|e| e.recode(Code::Malformed).at(at))?;
            let (offset, length, digest) = (c.varint()?, c.varint()?, c.u64()?);
            let file = FileHandle {
                content,
                anchor,
                folder,
                object,
                offset,
                length,
                digest,
            };
            if files.last().is_some_and(|last| *last >= file) {
                return Err(c.malformed("the table of files is not sorted"));
            }
            files.push(file);
        }
        c.finish()?;
        Ok(FileTable {
            used: vec![false; files.len()],
            files,
        })
    }
}
