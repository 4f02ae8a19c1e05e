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
use keybed_snapshot::StateId;
use std::borrow::Cow;

/// Bytes of a frame's length.
pub(super) const LENGTH_BYTES: u64 = 4;
/// Longest frame that is read: the largest entry and what may stand before it in its block.
pub(super) const FRAME_BYTES_MAX: u64 = 128 << 20;
/// Id that the header's checksum is bound to.
pub(super) const HEADER_ID: u128 = 0;

/// Appends `raw` as the frame that lies at `offset`.
pub(super) fn pack(packer: &mut BlockPacker, raw: &[u8], id: u128, offset: u64, out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(raw);
    end(packer, id, offset, out, start);
}

/// Begins a frame at the end of `out`; what is packed in it is appended until [`end`]. Returns where it starts.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend([0; LENGTH_BYTES as usize]);
    start
}

/// Ends the frame that [`begin`] began at `start` and that lies at `offset` of the file.
pub(super) fn end(packer: &mut BlockPacker, id: u128, offset: u64, out: &mut Vec<u8>, start: usize) {
    let payload = start + LENGTH_BYTES as usize;
    packer.pack(out, payload, id, offset + LENGTH_BYTES);
    let length = (out.len() - payload) as u32;
    if let Some(place) = out.get_mut(start..payload) {
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
    demand_length(offset, end)?;
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, offset)?;
    let length = stored_bytes(length, offset, end)?;
    let mut stored = vec![0; length];
    file.read_exact_at(&mut stored, offset + LENGTH_BYTES)?;
    let raw = unpack(&stored, id, offset)?.into_owned();
    let end = offset + LENGTH_BYTES + length as u64;
    Ok(Frame { raw, end })
}

/// Refuses a frame at `offset` that has no room for its length before `end`.
///
/// # Errors
/// `Malformed` with the offset.
pub(super) fn demand_length(offset: u64, end: u64) -> Result {
    match end.checked_sub(offset) {
        Some(left) if left >= LENGTH_BYTES => Ok(()),
        _ => Err(Error::new(Code::Malformed, "a frame starts behind its section").at(offset)),
    }
}

/// Bytes behind the length of the frame at `offset`, which fit before `end`.
///
/// # Errors
/// `Malformed` with the offset.
pub(super) fn stored_bytes(length: [u8; LENGTH_BYTES as usize], offset: u64, end: u64) -> Result<usize> {
    let length = u32::from_le_bytes(length);
    let left = end.saturating_sub(offset).saturating_sub(LENGTH_BYTES);
    if u64::from(length) > left.min(FRAME_BYTES_MAX) {
        let error = Error::new(Code::Malformed, "a frame is longer than its section");
        return Err(error.at(offset).with("bytes", length));
    }
    Ok(length as usize)
}

/// What was packed in the frame at `offset`, of which `stored` lies behind the length.
///
/// # Errors
/// `Malformed` with the offset.
pub(super) fn unpack(stored: &[u8], id: u128, offset: u64) -> Result<Cow<'_, [u8]>> {
    unpack_block(stored, id, offset + LENGTH_BYTES)
}

/// One entry inside of a block.
pub(super) struct RawEntry<'a> {
    /// Bytes that the key shares with that of the entry before.
    pub(super) shared: usize,
    pub(super) state: StateId,
    pub(super) rest: &'a [u8],
    pub(super) parts: Option<super::layout::Parts>,
    pub(super) value: &'a [u8],
}

impl<'a> RawEntry<'a> {
    /// Reads an entry; `is_rotated` says of a state whether lengths follow its key. `last` is the key before.
    pub(super) fn read(
        c: &mut Cursor<'a>,
        last: &[u8],
        is_rotated: impl Fn(StateId) -> bool,
    ) -> Result<Self> {
        let shared = usize::try_from(c.varint()?).unwrap_or(usize::MAX);
        let rest = c.bytes()?;
        let Some(kept) = last.get(..shared) else {
            return Err(c
                .malformed("an entry shares more than there is")
                .with("shared", shared));
        };
        let (([high, low, ..], _) | ([high], [low, ..]) | ([], [high, low, ..])) = (kept, rest) else {
            return Err(c.malformed("an entry has no state"));
        };
        let state = StateId(u16::from_be_bytes([*high, *low]));
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
            state,
            rest,
            parts,
            value: c.bytes()?,
        })
    }
}
