//! If the bytes of a layout changed unnoticed, files written by an earlier release could not be read: every page in
//! docs/format carries an example, and the code must write exactly it and read it.

use keybed_format::{
    envelope::{self, Section},
    frame,
    trailer::{self, TrailerBuilder},
};

/// Bytes of the page's block of hexadecimal digits: `offset: bytes | what they are`.
fn golden(page: &str) -> Vec<u8> {
    let block = page
        .split("```hex\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let mut bytes = Vec::new();
    for line in block.expect("the page has an example").lines() {
        let (offset, rest) = line.split_once(':').expect("a line opens with its offset");
        assert_eq!(
            usize::from_str_radix(offset.trim(), 16).ok(),
            Some(bytes.len()),
            "{line}"
        );
        let digits = rest.split('|').next().unwrap_or_default();
        bytes.extend(
            digits
                .split_whitespace()
                .map(|d| u8::from_str_radix(d, 16).expect("two digits")),
        );
    }
    bytes
}

#[track_caller]
fn assert_same(written: &[u8], page: &str) {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(hex(written), hex(&golden(page)));
}

#[test]
fn the_envelope_is_as_on_its_page() {
    let page = include_str!("../../../docs/format/envelope.md");
    let sections = [
        Section {
            tag: 1,
            version: 1,
            bytes: b"hello".to_vec(),
        },
        Section {
            tag: 9,
            version: 2,
            bytes: b"bed".to_vec(),
        },
    ];
    assert_same(&envelope::write(*b"KBTEST\0\0", 1, &sections), page);
    let (version, found) = envelope::read(*b"KBTEST\0\0", 1, &golden(page)).unwrap();
    assert_eq!(version, 1);
    assert_eq!(
        found.into_iter().map(|(_, section)| section).collect::<Vec<_>>(),
        sections
    );
}

#[test]
fn the_trailer_is_as_on_its_page() {
    let page = include_str!("../../../docs/format/trailer.md");
    let content = b"some content";
    let mut builder = TrailerBuilder::new(
        0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        u32::from_le_bytes(*b"test"),
    );
    builder.update(content);
    let (tail, trailer) = builder.finish();
    assert_same(&[&content[..], &tail].concat(), page);
    let file = golden(page);
    let read = trailer::verify(file.len() as u64, &mut |offset, buffer| {
        buffer.copy_from_slice(&file[offset as usize..][..buffer.len()]);
        Ok(())
    });
    assert_eq!(read.unwrap(), trailer);
}

#[test]
fn frames_are_as_on_their_page() {
    let page = include_str!("../../../docs/format/frame.md");
    let mut log = frame::write(5, 0, 0, b"a");
    log.extend(frame::write(5, log.len() as u64, log.len() as u64, b"bb"));
    assert_same(&log, page);
    let bytes = golden(page);
    let replay = frame::replay(5, &bytes, 0).unwrap();
    assert_eq!(replay.payloads, [(0, &b"a"[..]), (21, b"bb")]);
    assert_eq!((replay.end, replay.torn_bytes), (bytes.len() as u64, 0));
}
