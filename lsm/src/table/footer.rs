//! Head, sections and footer: where everything lies in the file.
//!
//! ```text
//! head (16)     magic "KBTABLE1" · version u32 · zero u32
//! blocks        from offset 16
//! sections      payload · xxh3-64 each; in any order, without gaps, index and properties among them
//! footer        per section, in the order of the file: id u32 · flags u32 · offset u64 · bytes u64
//!               then (24): sections u32 · version u32 · magic "KBTFOOT1" · xxh3-64
//! trailer       keybed_format::trailer, kind "sst1"
//! ```
//! A reader skips a section it does not know unless flag bit 0 says that the table cannot be understood without it.
//! Checksums are bound to (table id, offset of the part). Page: docs/format/table.md.

use crate::key::TableId;
use keybed_format::{Code, Cursor, Error, Result, Sink, checksum};

/// Kind of the trailer.
pub(crate) const KIND: u32 = u32::from_le_bytes(*b"sst1");
/// Version of the layout.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the head; offset of the first block.
pub(crate) const HEAD_BYTES: u64 = 16;
/// Bytes of the footer behind its list of sections.
pub(crate) const FOOTER_END_BYTES: u64 = 24;
const HEAD_MAGIC: [u8; 8] = *b"KBTABLE1";
const FOOT_MAGIC: [u8; 8] = *b"KBTFOOT1";
/// Bytes of a section in the list.
const LISTED_BYTES: u64 = 24;
/// Sections a table may have: far above what any version writes.
const SECTIONS_MAX: u32 = 64;
const REQUIRED: u32 = 1;

/// The first bytes of every table.
pub(crate) fn head() -> Vec<u8> {
    let mut out = Sink::new();
    out.raw(&HEAD_MAGIC).u32(VERSION).u32(0);
    out.into_vec()
}

/// What a section holds; the number is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SectionId(pub(crate) u32);

impl SectionId {
    /// One filter over the hashes of all keys.
    pub(crate) const FILTER: SectionId = SectionId(1);
    /// Where each block starts.
    pub(crate) const INDEX: SectionId = SectionId(2);
    /// Facts about the table.
    pub(crate) const PROPERTIES: SectionId = SectionId(3);
    /// Deleted ranges.
    pub(crate) const RANGE_DELETES: SectionId = SectionId(4);
    /// One filter over the hashes of all key prefixes.
    pub(crate) const PREFIX_FILTER: SectionId = SectionId(5);
    /// Filters over the hashes of the keys of some blocks each.
    pub(crate) const FILTER_PARTITIONS: SectionId = SectionId(6);

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FILTER => "filter",
            Self::INDEX => "index",
            Self::PROPERTIES => "properties",
            Self::RANGE_DELETES => "range deletes",
            Self::PREFIX_FILTER => "prefix filter",
            Self::FILTER_PARTITIONS => "filter partitions",
            _ => "unknown section",
        }
    }

    fn is_known(self) -> bool {
        (1..=6).contains(&self.0)
    }

    /// Whether a reader that does not know the section must refuse the table.
    pub(crate) fn is_required(self) -> bool {
        matches!(self, Self::INDEX | Self::PROPERTIES | Self::RANGE_DELETES)
    }
}

/// Where a section lies, its checksum included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) id: SectionId,
    pub(crate) required: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The sections of a table in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) sections: Vec<Section>,
}

fn malformed(message: &str, offset: u64) -> Error {
    Error::new(Code::Malformed, message).at(offset)
}

impl Footer {
    /// Start and end of a section, if the table has it.
    pub(crate) fn place(&self, id: SectionId) -> Option<(u64, u64)> {
        let found = self.sections.iter().find(|section| section.id == id)?;
        Some((found.start, found.end))
    }

    /// Start and end of a section that every table has.
    pub(crate) fn need(&self, id: SectionId) -> Result<(u64, u64)> {
        self.place(id).ok_or_else(|| {
            malformed("a table lacks a section it must have", HEAD_BYTES).with("section", id.0)
        })
    }

    /// Where the blocks end: where the sections begin.
    pub(crate) fn blocks_end(&self) -> u64 {
        self.sections.first().map_or(HEAD_BYTES, |section| section.start)
    }

    /// Takes note of a section that was written.
    pub(crate) fn push(&mut self, id: SectionId, start: u64, end: u64) {
        self.sections.push(Section {
            id,
            required: id.is_required(),
            start,
            end,
        });
    }

    /// The footer that lies at `offset` of table `id`.
    pub(crate) fn encode(&self, id: TableId, offset: u64) -> Vec<u8> {
        let mut out = Sink::new();
        for section in &self.sections {
            out.u32(section.id.0)
                .u32(if section.required { REQUIRED } else { 0 });
            out.u64(section.start).u64(section.end - section.start);
        }
        out.u32(self.sections.len() as u32).u32(VERSION).raw(&FOOT_MAGIC);
        seal(out.into_vec(), id, offset)
    }

    /// How many bytes the footer has of which these are the last [`FOOTER_END_BYTES`], which lie at `offset`. Their
    /// checksum is not known to be right yet.
    ///
    /// # Errors
    /// `Malformed` with the offset.
    pub(crate) fn bytes(end: &[u8], offset: u64) -> Result<u64> {
        let mut c = Cursor::with_base(end, offset);
        let (sections, _version, magic) = (c.u32()?, c.u32()?, c.array::<8>()?);
        if magic != FOOT_MAGIC || sections > SECTIONS_MAX {
            return Err(malformed("the footer is not that of a table", offset));
        }
        Ok(u64::from(sections) * LISTED_BYTES + FOOTER_END_BYTES)
    }

    /// Reads the footer that lies at `offset` of table `id`.
    ///
    /// # Errors
    /// `Malformed` with the offset; `UnsupportedFormatVersion` for a section that must be known and is not.
    pub(crate) fn decode(bytes: &[u8], id: TableId, offset: u64) -> Result<Footer> {
        let payload = unseal(bytes, id, offset)?;
        let (list, end) = payload
            .split_last_chunk::<{ FOOTER_END_BYTES as usize - 8 }>()
            .ok_or_else(|| malformed("the footer is too short", offset))?;
        let version = u32::from_le_bytes([end[4], end[5], end[6], end[7]]);
        if version != VERSION {
            return Err(
                Error::new(Code::UnsupportedFormatVersion, "the table's version is not known")
                    .at(offset)
                    .expected_found(VERSION, version),
            );
        }
        let mut c = Cursor::with_base(list, offset);
        let mut footer = Footer::default();
        let mut at = None;
        while !c.is_empty() {
            let (id, flags, start, bytes) = (SectionId(c.u32()?), c.u32()?, c.u64()?, c.u64()?);
            if !id.is_known() && flags & REQUIRED != 0 {
                return Err(Error::new(
                    Code::UnsupportedFormatVersion,
                    "the table has a section of a later version that it cannot be read without",
                )
                .at(offset)
                .with("section", id.0));
            }
            let end = start.checked_add(bytes).filter(|end| *end <= offset && bytes > 8);
            let follows = at.is_none_or(|at| at == start) && start >= HEAD_BYTES;
            let Some(end) = end.filter(|_| follows && footer.place(id).is_none()) else {
                return Err(
                    malformed("the sections of a table do not follow each other", offset)
                        .with("section", id.0),
                );
            };
            at = Some(end);
            footer.sections.push(Section {
                id,
                required: flags & REQUIRED != 0,
                start,
                end,
            });
        }
        if at != Some(offset) || Self::bytes(end, offset)? != bytes.len() as u64 {
            return Err(malformed(
                "the sections of a table do not reach its footer",
                offset,
            ));
        }
        Ok(footer)
    }
}

/// Puts the checksum of a section that lies at `offset` of table `id` behind it.
pub(crate) fn seal(mut payload: Vec<u8>, id: TableId, offset: u64) -> Vec<u8> {
    let sum = checksum::bound(&payload, id.0, offset);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}

/// Checks the checksum behind a section and takes it off.
///
/// # Errors
/// `Malformed` with the offset.
pub(crate) fn unseal(section: &[u8], id: TableId, offset: u64) -> Result<&[u8]> {
    let Some((payload, sum)) = section.split_last_chunk::<8>() else {
        return Err(malformed("a section is shorter than its checksum", offset));
    };
    let (expected, found) = (checksum::bound(payload, id.0, offset), u64::from_le_bytes(*sum));
    if expected == found {
        Ok(payload)
    } else {
        Err(malformed("the checksum of a section differs", offset)
            .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TableId = TableId(9);

    fn footer(sections: &[(u32, u64)]) -> (Footer, u64) {
        let mut footer = Footer::default();
        let mut at = HEAD_BYTES;
        for &(id, bytes) in sections {
            footer.push(SectionId(id), at, at + bytes);
            at += bytes;
        }
        (footer, at)
    }

    #[test]
    fn sections_survive_and_unknown_ones_may_be_skipped_unless_they_are_required() {
        let (mut footer, at) = footer(&[(1, 30), (2, 20), (3, 9), (77, 12)]);
        let bytes = footer.encode(ID, at);
        let end = &bytes[bytes.len() - FOOTER_END_BYTES as usize..];
        assert_eq!(Footer::bytes(end, at).unwrap(), bytes.len() as u64);
        let found = Footer::decode(&bytes, ID, at).unwrap();
        assert_eq!(found, footer);
        assert_eq!(
            (found.blocks_end(), found.need(SectionId::INDEX).unwrap()),
            (16, (46, 66))
        );
        assert!(found.place(SectionId::RANGE_DELETES).is_none());
        assert!(found.need(SectionId::RANGE_DELETES).is_err());
        footer.sections[3].required = true;
        let error = Footer::decode(&footer.encode(ID, at), ID, at).unwrap_err();
        assert_eq!(error.code(), Code::UnsupportedFormatVersion);
    }

    #[test]
    fn gaps_overlaps_and_doubles_are_refused() {
        let (good, at) = footer(&[(2, 20), (3, 30)]);
        let broken: [fn(&mut Footer); 6] = [
            |f| f.sections[0].start = 15,
            |f| f.sections[0].end += 1,
            |f| f.sections[1].start += 1,
            |f| f.sections[1].end += 1,
            |f| f.sections[1].id = f.sections[0].id,
            |f| f.sections.clear(),
        ];
        for (i, change) in broken.into_iter().enumerate() {
            let mut footer = good.clone();
            change(&mut footer);
            assert!(
                Footer::decode(&footer.encode(ID, at), ID, at).is_err(),
                "change {i}"
            );
        }
        let bytes = good.encode(ID, at);
        for n in 0..bytes.len() {
            assert!(Footer::decode(&bytes[..n], ID, at).is_err(), "length {n}");
        }
        assert!(Footer::bytes(&[0xff; 24], 0).is_err());
    }
}
