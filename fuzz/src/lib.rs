//! What the fuzz targets check, one function per target: it panics if arbitrary bytes break a promise, and says whether
//! they were accepted by what decodes them.
//!
//! The functions know no fuzzer. The committed corpus (`corpus/<target>/`) is replayed through them by the tests of
//! the facade, on every machine and without a fuzzer.

use keybed::{
    Code,
    format::{envelope, frame},
    lsm::{
        differential::fuzz::{engine_crash, engine_diff, merge_operator},
        fuzzing::{filter_block, manifest, sst_block, sst_footer_index, wal_replay},
    },
    snapshot::{
        claim::{ClaimList, ClaimRecord},
        metadata,
    },
    state::{
        canonical::fuzzing::canonical_savepoint,
        codec::{decode_key, encode_key},
    },
};

/// What checks one input; true if the input was accepted.
pub type Check = fn(&[u8]) -> bool;

/// All targets by name.
pub const TARGETS: &[(&str, Check)] = &[
    ("checkpoint_metadata", checkpoint_metadata),
    ("claim", claim),
    ("frame_log", frame_log),
    ("key_codec", key_codec),
    ("canonical_savepoint", canonical_savepoint),
    ("manifest", manifest),
    ("sst_block", sst_block),
    ("sst_footer_index", sst_footer_index),
    ("filter_block", filter_block),
    ("wal_replay", wal_replay),
    ("engine_diff", engine_diff),
    ("engine_crash", engine_crash),
    ("merge_operator", merge_operator),
];

/// `_metadata` from anywhere: refused, or understood in exactly one way; nothing it names leaves its folder.
///
/// Checksums would keep a fuzzer outside, so bytes that do not start with the magic number are taken as sections:
/// `(length u16, bytes)…` put into a valid envelope.
pub fn checkpoint_metadata(bytes: &[u8]) -> bool {
    let document = if bytes.starts_with(&metadata::codec::MAGIC) {
        bytes.to_vec()
    } else {
        document_of(bytes)
    };
    match metadata::decode(&document) {
        Ok(snapshot) => {
            for file in snapshot.files() {
                let name = file.object.as_str();
                assert!(
                    !name.is_empty() && !name.contains(['/', '\\', '\0']) && !name.starts_with('.'),
                    "{name}"
                );
            }
            let again = metadata::encode(&snapshot).expect("what was read can be written");
            assert_eq!(
                metadata::decode(&again).expect("what was written can be read"),
                snapshot
            );
            true
        }
        Err(error) => {
            let known = [
                Code::Malformed,
                Code::SnapshotCorrupt,
                Code::UnsupportedFormatVersion,
                Code::NotASnapshot,
            ];
            assert!(known.contains(&error.code()), "{error}");
            false
        }
    }
}

/// `CLAIMED` and `claims/<n>` from anywhere: refused, or understood in exactly one way.
///
/// Bytes that start with neither magic number are taken as the only section of each.
pub fn claim(bytes: &[u8]) -> bool {
    const MARKER: [u8; 8] = *b"KBCLAIM\x01";
    const LIST: [u8; 8] = *b"KBCLMS\0\x01";
    let document = |magic: [u8; 8]| {
        if bytes.starts_with(&MARKER) || bytes.starts_with(&LIST) {
            return bytes.to_vec();
        }
        let section = envelope::Section {
            tag: 1,
            version: 1,
            bytes: bytes.to_vec(),
        };
        envelope::write(magic, 1, &[section])
    };
    let marker = document(MARKER);
    let decoded = ClaimRecord::decode(&marker);
    if let Ok(record) = &decoded {
        assert_eq!(record.encode(), marker, "two encodings of one claim");
    }
    let list = document(LIST);
    let decoded_list = ClaimList::decode(&list);
    if let Ok(claims) = &decoded_list {
        assert_eq!(claims.encode(), list, "two encodings of one list");
    }
    decoded.is_ok() || decoded_list.is_ok()
}

fn document_of(mut bytes: &[u8]) -> Vec<u8> {
    let mut sections = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let tag = sections.len() as u32 + 1;
        sections.push(envelope::Section {
            tag,
            version: 1,
            bytes: content.to_vec(),
        });
        bytes = rest;
        if sections.len() == 8 {
            break;
        }
    }
    envelope::write(metadata::codec::MAGIC, metadata::codec::VERSION, &sections)
}

/// A log from anywhere: replay yields frames that were written under this id and place, or nothing more.
///
/// The bytes are the damage done to a log of known frames: `(offset u16, xor u8)…`, then a length to cut it to.
pub fn frame_log(bytes: &[u8]) -> bool {
    const ID: u128 = 7;
    let payloads: Vec<Vec<u8>> = (0..8_u8).map(|n| vec![n; usize::from(n) * 5 + 1]).collect();
    let mut log = Vec::new();
    for payload in &payloads {
        let offset = log.len() as u64;
        log.extend(frame::write(ID, offset, 0, payload));
    }
    for damage in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % log.len();
        log[at] ^= damage[2];
    }
    if let [cut] = bytes.chunks_exact(3).remainder() {
        log.truncate(log.len() * usize::from(*cut) / 255);
    }
    let replayed = frame::replay(ID, &log, 0);
    if let Ok(replay) = &replayed {
        for ((_, found), written) in replay.payloads.iter().zip(&payloads) {
            assert_eq!(found, written, "a changed frame was taken for what was written");
        }
        assert!(replay.payloads.len() <= payloads.len());
    }
    // Bytes that nobody wrote are no frames at all, or an error.
    let _ = frame::replay(ID, bytes, 0);
    replayed.is_ok_and(|replay| !replay.payloads.is_empty())
}

/// Components of keys: two of them sort as their values do, and whatever decodes is the one encoding of its value.
pub fn key_codec(bytes: &[u8]) -> bool {
    type Key = (String, i64, Vec<u8>);
    let decoded = decode_key::<Key>(bytes);
    if let Ok(key) = &decoded {
        assert_eq!(encode_key(key), bytes, "two encodings of one key");
    }
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let of = |part: &[u8]| -> Key {
        let number = part.first_chunk::<8>().map_or(0, |n| i64::from_le_bytes(*n));
        (
            String::from_utf8_lossy(part).into_owned(),
            number,
            part.iter().rev().copied().collect(),
        )
    };
    let (a, b) = (of(left), of(right));
    let (encoded_a, encoded_b) = (encode_key(&a), encode_key(&b));
    assert_eq!(a.cmp(&b), encoded_a.cmp(&encoded_b), "{a:?} {b:?}");
    assert!(
        a == b || !encoded_b.starts_with(&encoded_a),
        "{a:?} is a prefix of {b:?}"
    );
    assert_eq!(
        decode_key::<Key>(&encoded_a).expect("what was written can be read"),
        a
    );
    decoded.is_ok()
}
