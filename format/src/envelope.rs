//! Magic, version and checksummed sections of small documents (`_metadata`, owner records).
//!
//! ```text
//! offset 0   magic            8 bytes, names the kind of document
//!        8   version          u32
//!       12   section count    u32
//!       16   section table    count × { tag u32, version u32, offset u64, length u64, xxh3-64 u64 }
//!        …   xxh3-64 of everything before this word
//!        …   sections, in the order of the table, without gaps, up to the end of the document
//! ```
//! A reader skips sections whose tag it does not know. Byte-exact page: docs/format/envelope.md.

use crate::{Code, Cursor, Error, Result, Sink, checksum};

/// Most sections that one document may have.
pub const SECTIONS_MAX: u32 = 1024;
const HEADER_BYTES: usize = 16;
const ROW_BYTES: usize = 32;

/// One section of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What the section is; unknown tags are skipped by readers.
    pub tag: u32,
    /// Version of the section's own layout.
    pub version: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// Writes a document.
pub fn write(magic: [u8; 8], version: u32, sections: &[Section]) -> Vec<u8> {
    assert!(
        sections.len() <= SECTIONS_MAX as usize,
        "a document has at most {SECTIONS_MAX} sections"
    );
    let mut out = Sink::new();
    out.raw(&magic).u32(version).u32(sections.len() as u32);
    let mut offset = (HEADER_BYTES + sections.len() * ROW_BYTES + 8) as u64;
    for section in sections {
        out.u32(section.tag)
            .u32(section.version)
            .u64(offset)
            .u64(section.bytes.len() as u64);
        out.u64(checksum::bound(&section.bytes, u128::from(section.tag), offset));
        offset += section.bytes.len() as u64;
    }
    out.u64(checksum::hash(out.as_slice()));
    for section in sections {
        out.raw(&section.bytes);
    }
    out.into_vec()
}

/// Reads a document: checks magic, version, table, every section's checksum, and that no byte is left over.
///
/// # Errors
/// `NotASnapshot`-like mistakes are the caller's to name: a wrong magic is `Malformed` at offset 0, a newer
/// version `UnsupportedFormatVersion`, anything else `Malformed` with its offset.
pub fn read(magic: [u8; 8], version_max: u32, bytes: &[u8]) -> Result<(u32, Vec<(u64, Section)>)> {
    let mut cursor = Cursor::new(bytes);
    if cursor.array::<8>()? != magic {
        return Err(Error::new(Code::Malformed, "the magic number is another one").at(0));
    }
    let version = cursor.u32()?;
    if version == 0 {
        return Err(Error::new(Code::Malformed, "the document has no version").at(8));
    }
    if version > version_max {
        return Err(
            Error::new(Code::UnsupportedFormatVersion, "the format version is not known")
                .at(8)
                .expected_found(format!("1..={version_max}"), version),
        );
    }
    let count = cursor.u32()?;
    if count > SECTIONS_MAX {
        return Err(cursor
            .malformed("too many sections")
            .expected_found(SECTIONS_MAX, count));
    }
    let table = Cursor::with_base(cursor.take(count as usize * ROW_BYTES)?, HEADER_BYTES as u64);
    let head = bytes.get(..cursor.position()).unwrap_or_default();
    let (expected, at) = (checksum::hash(head), cursor.offset());
    let found = cursor.u64()?;
    if expected != found {
        return Err(
            Error::new(Code::Malformed, "the checksum of the section table differs")
                .at(at)
                .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")),
        );
    }
    let mut rows = table;
    let mut sections = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (tag, version, offset, length, sum) =
            (rows.u32()?, rows.u32()?, rows.u64()?, rows.u64()?, rows.u64()?);
        if offset != cursor.offset() {
            return Err(rows.malformed("a section does not follow its predecessor"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let content = cursor.take(length)?;
        let expected = checksum::bound(content, u128::from(tag), offset);
        if expected != sum {
            return Err(Error::new(Code::Malformed, "the checksum of a section differs")
                .at(offset)
                .with("section", tag)
                .expected_found(format_args!("{sum:016x}"), format_args!("{expected:016x}")));
        }
        sections.push((
            offset,
            Section {
                tag,
                version,
                bytes: content.to_vec(),
            },
        ));
    }
    cursor.finish()?;
    Ok((version, sections))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        write(
            *b"KBTEST\0\0",
            1,
            &[
                Section {
                    tag: 1,
                    version: 1,
                    bytes: b"hello".to_vec(),
                },
                Section {
                    tag: 9,
                    version: 2,
                    bytes: vec![],
                },
            ],
        )
    }

    #[test]
    fn round_trip() {
        let (version, sections) = read(*b"KBTEST\0\0", 1, &sample()).unwrap();
        assert_eq!((version, sections.len()), (1, 2));
        assert_eq!(sections[0].1.bytes, b"hello");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = sample();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(*b"KBTEST\0\0", 1, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_anything_appended_is_found() {
        let good = sample();
        for n in 0..good.len() {
            assert!(read(*b"KBTEST\0\0", 1, &good[..n]).is_err(), "length {n}");
        }
        let mut long = good;
        long.push(0);
        assert!(read(*b"KBTEST\0\0", 1, &long).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let bytes = write(*b"KBTEST\0\0", 2, &[]);
        assert_eq!(
            read(*b"KBTEST\0\0", 1, &bytes).unwrap_err().code(),
            Code::UnsupportedFormatVersion
        );
        let bytes = write(*b"KBTEST\0\0", 0, &[]);
        assert_eq!(
            read(*b"KBTEST\0\0", 1, &bytes).unwrap_err().code(),
            Code::Malformed
        );
    }
}
