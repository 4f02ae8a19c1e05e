//! Checksummed, position-bound frames of append-only logs (the manifest, the write-ahead log).
//!
//! ```text
//! frame   length u32 · synced u64 · xxh3-64 u64 · payload (`length` bytes)
//! ```
//! `synced` is the highest offset of this log known to be durable when the frame was written. The checksum covers
//! length, synced and payload and is bound to (log id, offset of the frame), so a frame of another log or another
//! place does not verify. Damage below the highest `synced` found anywhere in the log is corruption; damage above
//! it is a torn tail: the prefix is kept and everything after it is dropped, even if it decodes.
//! Page: docs/format/frame.md.

use crate::{Code, Cursor, Error, Result, Sink, checksum};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 20;
/// Longest payload, 128 MiB: one full manifest edit stays far below, and the largest key and value fit.
pub const PAYLOAD_BYTES_MAX: u32 = 128 << 20;

/// Appends one frame for `payload` that will lie at `offset` of the log `id`.
pub fn write(id: u128, offset: u64, synced: u64, payload: &[u8]) -> Vec<u8> {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX as usize,
        "a frame's payload is at most {PAYLOAD_BYTES_MAX} bytes"
    );
    let mut head = Sink::with_capacity(HEADER_BYTES + payload.len());
    head.u32(payload.len() as u32).u64(synced);
    let sum = sum(id, offset, head.as_slice(), payload);
    head.u64(sum).raw(payload);
    head.into_vec()
}

/// Begins a frame at the end of `out`, without copying what comes: the payload is to be appended, then [`finish`].
#[inline]
pub fn begin(out: &mut Sink) {
    out.raw(&[0; HEADER_BYTES]);
}

/// Ends the frame that was begun at `start` of `out` and will lie at `offset` of the log `id`.
///
/// # Errors
/// `InvalidArgument` if the payload is longer than [`PAYLOAD_BYTES_MAX`].
#[inline]
pub fn finish(id: u128, offset: u64, synced: u64, out: &mut Sink, start: usize) -> Result {
    let frame = out.as_mut_vec().get_mut(start..).unwrap_or_default();
    let Some((header, payload)) = frame.split_first_chunk_mut::<HEADER_BYTES>() else {
        return Err(Error::invalid("a frame was not begun"));
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Err(Error::invalid("the payload of a frame is too long")
            .expected_found(PAYLOAD_BYTES_MAX, payload.len()));
    }
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..12].copy_from_slice(&synced.to_le_bytes());
    let sum = sum(id, offset, &header[..12], payload);
    header[12..].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn sum(id: u128, offset: u64, head: &[u8], payload: &[u8]) -> u64 {
    checksum::bound(payload, id, offset) ^ checksum::bound(head, !id, offset)
}

/// What replay found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay<'a> {
    /// Payloads with the offset of their frame, in order.
    pub payloads: Vec<(u64, &'a [u8])>,
    /// End of the last good frame: where to go on appending.
    pub end: u64,
    /// Bytes after `end` that were dropped as a torn tail.
    pub torn_bytes: u64,
}

/// Reads all frames of the log `id` from `start`, the offset of its first frame.
///
/// # Errors
/// `Malformed` with the offset if damage lies below an offset known to have been durable.
pub fn replay(id: u128, bytes: &[u8], start: u64) -> Result<Replay<'_>> {
    let mut payloads = Vec::new();
    let mut synced_max = 0;
    let mut at = start;
    let damage = loop {
        let rest = usize::try_from(at)
            .ok()
            .and_then(|n| bytes.get(n..))
            .unwrap_or_default();
        if rest.is_empty() {
            break None;
        }
        match read(id, at, rest) {
            Ok((synced, payload)) => {
                synced_max = synced_max.max(synced);
                payloads.push((at, payload));
                at += (HEADER_BYTES + payload.len()) as u64;
            }
            Err(error) => break Some(error),
        }
    };
    let Some(error) = damage else {
        return Ok(Replay {
            payloads,
            end: at,
            torn_bytes: 0,
        });
    };
    synced_max = synced_max.max(witness(id, bytes, at));
    if at < synced_max {
        return Err(error.with("durable_up_to", synced_max));
    }
    Ok(Replay {
        payloads,
        end: at,
        torn_bytes: bytes.len() as u64 - at,
    })
}

fn read(id: u128, at: u64, bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut c = Cursor::with_base(bytes, at);
    let head = c.clone().take(12)?;
    let (length, synced, found) = (c.u32()?, c.u64()?, c.u64()?);
    if length > PAYLOAD_BYTES_MAX {
        return Err(Error::new(Code::Malformed, "a frame is too long")
            .at(at)
            .with("bytes", length));
    }
    let payload = c.take(length as usize)?;
    let expected = sum(id, at, head, payload);
    if expected != found {
        return Err(Error::new(Code::Malformed, "the checksum of a frame differs")
            .at(at)
            .expected_found(format_args!("{expected:016x}"), format_args!("{found:016x}")));
    }
    Ok((synced, payload))
}

/// Highest `synced` of any intact frame at or after `from`: a witness that earlier bytes had been durable.
///
/// Tries every byte offset; the position-bound checksum makes a false hit a matter of 2⁻⁶⁴. The cheap test on
/// the header (a synced offset beyond its own frame cannot be true) keeps the search linear on random bytes.
pub fn witness(id: u128, bytes: &[u8], from: u64) -> u64 {
    let mut best = 0;
    for at in from as usize..bytes.len().saturating_sub(HEADER_BYTES - 1) {
        let rest = &bytes[at..];
        let mut c = Cursor::new(rest);
        let (Ok(length), Ok(synced)) = (c.u32(), c.u64()) else {
            break;
        };
        let fits = length as usize <= rest.len() - HEADER_BYTES;
        if fits && synced > best && synced <= at as u64 && read(id, at as u64, rest).is_ok() {
            best = synced;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(payloads: &[(&[u8], bool)]) -> Vec<u8> {
        let (mut out, mut synced) = (Vec::new(), 0);
        for (payload, sync) in payloads {
            out.extend(write(5, out.len() as u64, synced, payload));
            if *sync {
                synced = out.len() as u64;
            }
        }
        out
    }

    #[test]
    fn round_trip() {
        let bytes = log(&[(b"a", true), (b"", true), (b"ccc", false)]);
        let replay = replay(5, &bytes, 0).unwrap();
        assert_eq!(
            replay.payloads.iter().map(|p| p.1).collect::<Vec<_>>(),
            [b"a" as &[u8], b"", b"ccc"]
        );
        assert_eq!(replay.end, bytes.len() as u64);
    }

    #[test]
    fn a_frame_in_place_equals_a_frame_of_its_own() {
        for payload in [&b""[..], b"payload", &[7; 5000]] {
            let mut out = Sink::new();
            out.raw(b"before");
            begin(&mut out);
            out.raw(payload);
            finish(5, 77, 33, &mut out, 6).unwrap();
            assert_eq!(&out.as_slice()[6..], write(5, 77, 33, payload));
        }
        assert!(finish(5, 0, 0, &mut Sink::new(), 0).is_err());
    }

    #[test]
    fn a_torn_tail_is_dropped() {
        let bytes = log(&[(b"a", true), (b"bb", false)]);
        for n in 21..bytes.len() {
            let replay = replay(5, &bytes[..n], 0).unwrap();
            assert_eq!(
                (replay.payloads.len(), replay.end, replay.torn_bytes),
                (1, 21, n as u64 - 21)
            );
        }
    }

    #[test]
    fn damage_below_a_synced_offset_is_corruption() {
        let good = log(&[(b"first", true), (b"second", true), (b"third", false)]);
        for bit in 0..(25 + 26) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(replay(5, &bad, 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frames_of_another_log_do_not_verify() {
        let bytes = log(&[(b"a", false)]);
        assert_eq!(replay(6, &bytes, 0).unwrap().payloads.len(), 0);
    }
}
