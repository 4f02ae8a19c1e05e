//! Head, sections and footer: where everything lies in the file.
//!
//! ```text
//! head (16)     magic "KBTABLE1" · version u32 · zero u32
//! blocks        from offset 16
//! filter        payload · xxh3-64; absent if the table has none
//! index         payload · xxh3-64
//! properties    payload · xxh3-64
//! footer (48)   filter offset u64 · index offset u64 · properties offset u64 · version u32 · zero u32 ·
//!               magic "KBTFOOT1" · xxh3-64
//! trailer       keybed_format::trailer, kind "sst1"
//! ```
//! Parts follow each other without gaps. Checksums are bound to (table id, offset of the part).

use crate::key::TableId;
use keybed_format::{Code, Cursor, Error, Result, Sink, checksum};

/// Kind of the trailer.
pub(crate) const KIND: u32 = u32::from_le_bytes(*b"sst1");
/// Version of the layout.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the head; offset of the first block.
pub(crate) const HEAD_BYTES: u64 = 16;
/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: u64 = 48;
const HEAD_MAGIC: [u8; 8] = *b"KBTABLE1";
const FOOT_MAGIC: [u8; 8] = *b"KBTFOOT1";

/// The first bytes of every table.
pub(crate) fn head() -> Vec<u8> {
    let mut out = Sink::new();
    out.raw(&HEAD_MAGIC).u32(VERSION).u32(0);
    out.into_vec()
}

/// Offsets of the sections; each ends where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// End of the blocks.
    pub(crate) filter_at: u64,
    pub(crate) index_at: u64,
    pub(crate) properties_at: u64,
}

impl Footer {
    /// The footer that lies at `offset` of table `id`.
    pub(crate) fn encode(&self, id: TableId, offset: u64) -> Vec<u8> {
        let mut out = Sink::new();
        out.u64(self.filter_at).u64(self.index_at).u64(self.properties_at);
        out.u32(VERSION).u32(0).raw(&FOOT_MAGIC);
        seal(out.into_vec(), id, offset)
    }

    /// Reads the footer that lies at `offset` of table `id`.
    ///
    /// # Errors
    /// `Malformed` with the offset; `UnsupportedFormatVersion`.
    pub(crate) fn decode(bytes: &[u8], id: TableId, offset: u64) -> Result<Footer> {
        let payload = unseal(bytes, id, offset)?;
        let mut c = Cursor::with_base(payload, offset);
        let footer = Footer {
            filter_at: c.u64()?,
            index_at: c.u64()?,
            properties_at: c.u64()?,
        };
        let (version, zero, magic) = (c.u32()?, c.u32()?, c.array::<8>()?);
        c.finish()?;
        if magic != FOOT_MAGIC || zero != 0 {
            return Err(Error::new(Code::Malformed, "the footer is not that of a table").at(offset));
        }
        if version != VERSION {
            return Err(
                Error::new(Code::UnsupportedFormatVersion, "the table's version is not known")
                    .at(offset)
                    .expected_found(VERSION, version),
            );
        }
        let parts = [
            HEAD_BYTES,
            footer.filter_at,
            footer.index_at,
            footer.properties_at,
            offset,
        ];
        if parts.is_sorted() {
            Ok(footer)
        } else {
            Err(Error::new(Code::Malformed, "the parts of a table overlap").at(offset))
        }
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
        return Err(Error::new(Code::Malformed, "a section is shorter than its checksum").at(offset));
    };
    let (expected, found) = (checksum::bound(payload, id.0, offset), u64::from_le_bytes(*sum));
    if expected == found {
        Ok(payload)
    } else {
        Err(Error::new(Code::Malformed, "the checksum of a section differs")
            .at(offset)
            .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")))
    }
}
