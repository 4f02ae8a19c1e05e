//! The frames of a canonical file: a length and a stored block as tables have them. Page: docs/format/canonical.md.
//!
//! ```text
//! frame   length u32 │ payload · codec u8 · bytes before compression u32 · xxh3-64 u64      (length bytes)
//! ```
//! The checksum is bound to (id, offset behind the length). The id of the header is 0, of everything behind it the
//! hash of the header, so that a frame of another subtask's file does not verify.

use keybed_env::ReadFile;
use keybed_format::{Code, Cursor, Error, Result};
use keybed_lsm::table::{BlockPacker, unpack_block};

/// Bytes of a frame's length.
pub(super) const LENGTH_BYTES: u64 = 4;
/// Longest frame that is read: the largest entry and what may stand before it in its block.
pub(super) const FRAME_BYTES_MAX: u64 = 128 << 20;
/// Id that the header's checksum is bound to.
pub(super) const HEADER_ID: u128 = 0;

/// Appends `raw` as the frame that lies at `offset`.
pub(super) fn pack(packer: &mut BlockPacker, raw: &[u8], id: u128, offset: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; LENGTH_BYTES as usize]);
    packer.pack(raw, id, offset + LENGTH_BYTES, out);
    let length = (out.len() - start) as u32 - LENGTH_BYTES as u32;
    if let Some(place) = out.get_mut(start..start + LENGTH_BYTES as usize) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// A frame that was read.
pub(super) struct Frame {
    /// What was packed.
    pub(super) raw: Vec<u8>,
    /// Where the next frame starts.
    pub(super) end: u64,
}

/// Reads the frame at `offset`, which ends at `end` or before.
///
/// # Errors
/// `Malformed` with the offset.
pub(super) fn read(file: &dyn ReadFile, id: u128, offset: u64, end: u64) -> Result<Frame> {
    let damaged = |message: &str| Error::new(Code::Malformed, message).at(offset);
    let left = end.checked_sub(offset).filter(|left| *left >= LENGTH_BYTES);
    let left = left.ok_or_else(|| damaged("a frame starts behind its section"))?;
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, offset)?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > (left - LENGTH_BYTES).min(FRAME_BYTES_MAX) {
        return Err(damaged("a frame is longer than its section").with("bytes", length));
    }
    let mut stored = vec![0; length as usize];
    file.read_exact_at(&mut stored, offset + LENGTH_BYTES)?;
    let raw = unpack_block(&stored, id, offset + LENGTH_BYTES)?.into_owned();
    Ok(Frame {
        raw,
        end: offset + LENGTH_BYTES + length,
    })
}

/// One entry inside of a block.
pub(super) struct RawEntry<'a> {
    /// Bytes that the key shares with that of the entry before.
    pub(super) shared: usize,
    pub(super) rest: &'a [u8],
    pub(super) parts: Option<super::layout::Parts>,
    pub(super) value: &'a [u8],
}

impl<'a> RawEntry<'a> {
    /// Reads an entry; `is_rotated` says of a state whether lengths follow its key. `last` is the key before.
    pub(super) fn read(
        c: &mut Cursor<'a>,
        last: &[u8],
        is_rotated: impl Fn(keybed_snapshot::StateId) -> bool,
    ) -> Result<Self> {
        let shared = usize::try_from(c.varint()?).unwrap_or(usize::MAX);
        let rest = c.bytes()?;
        let Some(kept) = last.get(..shared) else {
            return Err(c
                .malformed("an entry shares more than there is")
                .with("shared", shared));
        };
        let mut id = kept.iter().chain(rest);
        let (Some(high), Some(low)) = (id.next(), id.next()) else {
            return Err(c.malformed("an entry has no state"));
        };
        let state = keybed_snapshot::StateId(u16::from_be_bytes([*high, *low]));
        let parts = if is_rotated(state) {
            let length = |c: &mut Cursor<'_>| Ok(usize::try_from(c.varint()?).unwrap_or(usize::MAX));
            Some(super::layout::Parts {
                key: length(c)?,
                namespace: length(c)?,
            })
        } else {
            None
        };
        Ok(RawEntry {
            shared,
            rest,
            parts,
            value: c.bytes()?,
        })
    }
}
