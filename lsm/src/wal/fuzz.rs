//! What must hold for arbitrary bytes in the place of a log file; see [`crate::fuzzing`].

use super::{
    HEADER_BYTES, Header, log_id,
    reader::{Facts, Known, decide, examine, payload_of},
};
use crate::{batch::Op, key::Seqno};
use keybed_format::{Code, Result, Sink, frame};

const NUMBER: u64 = 3;
const KNOWN: Known = Known {
    store_id: 7,
    floor: 0,
    durable: 0,
    synced_seqno: 0,
    next_family: 4,
};

/// Bytes in the place of a log file, of the payloads of its frames, and of changes to a sound one: no panic; what is
/// read of a changed log is a prefix of what was written, or an error.
pub fn wal_replay(bytes: &[u8]) -> bool {
    raw(bytes);
    changes(bytes);
    payloads(bytes)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

fn raw(bytes: &[u8]) {
    let store_id = u128::from(word(bytes, 20)) | u128::from(word(bytes, 28)) << 64;
    let known = Known { store_id, ..KNOWN };
    if let Ok(facts) = examine(word(bytes, 12), bytes, &known) {
        sound(&facts, &known);
    }
}

fn sound(facts: &Facts, known: &Known) {
    assert!(facts.end <= facts.bytes, "a file is good beyond its end");
    if let Ok(found) = decide(std::slice::from_ref(facts), known) {
        let kept: u64 = found.good.iter().map(|good| good.end).sum();
        assert_eq!(
            kept + found.torn_bytes,
            facts.bytes,
            "bytes are neither good nor torn"
        );
    }
}

/// A file of frames whose checksums are right.
fn file_of<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let header = Header {
        number: NUMBER,
        store_id: KNOWN.store_id,
        first_seqno: 1,
        previous: 0,
        previous_end: 0,
        previous_synced: 0,
    };
    let mut bytes = header.encode();
    for payload in payloads {
        let frame = frame::write(log_id(KNOWN.store_id, NUMBER), bytes.len() as u64, 0, payload);
        bytes.extend(frame);
    }
    bytes
}

/// True if some payload was taken for operations.
fn payloads(bytes: &[u8]) -> bool {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(length)));
        pieces.push(piece);
        rest = behind;
    }
    let file = file_of(pieces.into_iter());
    match examine(NUMBER, &file, &KNOWN) {
        Ok(facts) => {
            sound(&facts, &KNOWN);
            let found = frames(&file, facts.end);
            for (_, payload, ops) in &found {
                let mut again = Sink::new();
                ops.iter().for_each(|op| op.encode(op.family(), &mut again));
                assert_eq!(again.as_slice(), &payload[8..], "operations have two encodings");
            }
            !found.is_empty()
        }
        Err(error) => {
            assert_eq!(error.code(), Code::Malformed, "{error}");
            false
        }
    }
}

type Frame<'a> = (Seqno, &'a [u8], Vec<Op<'a>>);

/// The good frames of a file up to `end`.
fn frames(file: &[u8], end: u64) -> Vec<Frame<'_>> {
    let good = &file[..usize::try_from(end).expect("it was in memory")];
    let replay = frame::replay(log_id(KNOWN.store_id, NUMBER), good, HEADER_BYTES as u64);
    let replay = replay.expect("what was good is good");
    replay
        .payloads
        .into_iter()
        .map(|(at, payload)| {
            let (seqno, ops) = payload_of(at, payload).expect("what was good is good");
            let ops = ops.collect::<Result<_>>().expect("what was good is good");
            (seqno, payload, ops)
        })
        .collect()
}

fn changes(bytes: &[u8]) {
    let mut written = Vec::new();
    for seqno in 1..=8_u64 {
        let mut payload = Sink::new();
        payload.u64(seqno);
        let key = seqno.to_be_bytes();
        let put = Op::Put {
            family: seqno as u32 % 4,
            key: &key,
            stamp: None,
            value: &bytes[..bytes.len().min(seqno as usize * 9)],
        };
        put.encode(put.family(), &mut payload);
        written.push(payload.into_vec());
    }
    let mut file = file_of(written.iter().map(Vec::as_slice));
    for change in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        match change[2] {
            0 if at < file.len() => file.truncate(at),
            255 => file.extend_from_slice(change),
            flips => {
                let at = at % file.len().max(1);
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= flips;
                }
            }
        }
    }
    if let Ok(facts) = examine(NUMBER, &file, &KNOWN)
        && facts.header.is_ok()
    {
        sound(&facts, &KNOWN);
        let found = frames(&file, facts.end);
        assert!(found.len() <= written.len(), "more than was written");
        for ((_, payload, _), written) in found.iter().zip(&written) {
            assert_eq!(payload, written, "a changed record");
        }
    }
}
