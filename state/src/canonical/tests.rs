//! Bytes of the format, and files that lie with right checksums.

use super::{CanonicalFacts, CanonicalHeader, layout::Parts, reader::CanonicalFile, writer::CanonicalWriter};
use keybed_env::{Fs, SimFs};
use keybed_format::{Code, Result};
use keybed_lsm::table::Compression;
use keybed_snapshot::{
    ComponentOrder, KeyGroup, KeyGroupRange, StateCatalogue, StateDeclaration, StateId, StateKind,
};
use std::path::Path;

fn state(name: &str, kind: StateKind, order: ComponentOrder) -> StateDeclaration {
    let window = order == ComponentOrder::NamespaceFirst;
    StateDeclaration {
        name: name.into(),
        kind,
        order,
        key_schema: "u8".into(),
        namespace_schema: if window { "u16" } else { "" }.into(),
        map_key_schema: String::new(),
        value_schema: "string".into(),
    }
}

fn header() -> CanonicalHeader {
    let mut catalogue = StateCatalogue::new();
    for state in [
        state("total", StateKind::Value, ComponentOrder::KeyFirst),
        state("recent", StateKind::List, ComponentOrder::KeyFirst),
        state("window", StateKind::Value, ComponentOrder::NamespaceFirst),
    ] {
        catalogue.declare(&state).unwrap();
    }
    CanonicalHeader::new(KeyGroupRange::new(4, 6).unwrap(), 8, catalogue)
}

const WINDOW: Option<Parts> = Some(Parts { key: 1, namespace: 2 });
const TIMER: Option<Parts> = Some(Parts { key: 1, namespace: 0 });

/// The file of the page.
fn sample(fs: &SimFs, path: &Path) -> Result<CanonicalFacts> {
    let mut writer = CanonicalWriter::create(fs, path, &header(), Compression::None)?;
    let time = [0x80, 0, 0, 0, 0, 0, 0, 9];
    writer.add(
        KeyGroup(4),
        StateId(0),
        &[&[0xaa][..], &time].concat(),
        TIMER,
        b"",
    )?;
    writer.add(KeyGroup(4), StateId(1), &[0xaa], None, b"\x02hi")?;
    writer.add(KeyGroup(4), StateId(1), &[0xab], None, b"\x01x")?;
    writer.add(KeyGroup(6), StateId(2), &[0xcc], None, b"\x01a")?;
    writer.add(KeyGroup(6), StateId(2), &[0xcc], None, b"\x01b")?;
    writer.add(KeyGroup(6), StateId(3), &[0xcc, 1, 2], WINDOW, b"\x00")?;
    writer.finish()
}

fn good() -> Vec<u8> {
    let fs = SimFs::without_history();
    let facts = sample(&fs, Path::new("/file")).unwrap();
    let bytes = fs.read(Path::new("/file"), 1 << 20).unwrap();
    assert_eq!((facts.bytes, facts.entries), (bytes.len() as u64, 6));
    bytes
}

/// Key group, state, components, their lengths, value.
type Read = (u16, u16, Vec<u8>, Option<Parts>, Vec<u8>);

fn read_all(bytes: &[u8]) -> Result<Vec<Read>> {
    let fs = SimFs::without_history();
    fs.create(Path::new("/file"))?.append(bytes)?;
    let file = CanonicalFile::parse(fs.open(Path::new("/file"))?, "file".into())?;
    let mut entries = Vec::new();
    file.read(KeyGroupRange::all(8)?, &mut |entry| {
        let (components, value) = (entry.components.to_vec(), entry.value.to_vec());
        entries.push((entry.group.0, entry.state.0, components, entry.parts, value));
        Ok(())
    })?;
    Ok(entries)
}

/// The bytes of the page's example, behind the offsets and before the comments.
fn on_the_page() -> Vec<u8> {
    let page = include_str!("../../../docs/format/canonical.md");
    let example = page.split("```hex\n").nth(1).expect("an example");
    let example = example.split("```").next().expect("its end");
    let hex = example
        .lines()
        .filter_map(|line| line.split(": ").nth(1)?.split('|').next());
    hex.flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
        .collect()
}

#[test]
fn golden_file_is_as_on_the_page() {
    let found = good();
    for (n, line) in found.chunks(16).enumerate() {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{:04x}: {}", n * 16, line.join(" "));
    }
    assert_eq!(found, on_the_page());
    let entries = read_all(&found).unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[2], (4, 1, vec![0xab], None, b"\x01x".to_vec()));
    assert_eq!(entries[5], (6, 3, vec![0xcc, 1, 2], WINDOW, b"\0".to_vec()));
}

#[test]
fn every_compression_reads_back_and_equal_entries_give_equal_bytes() {
    let mut all = vec![Compression::None, Compression::Lz4];
    if cfg!(feature = "zstd") {
        all.push(Compression::Zstd(1));
    }
    let fs = SimFs::without_history();
    let (mut contents, mut sizes) = (Vec::new(), Vec::new());
    for (n, compression) in all.into_iter().enumerate() {
        let files = [0, 1].map(|copy| {
            let path = format!("/{n}-{copy}");
            let path = Path::new(&path);
            let mut writer = CanonicalWriter::create(&fs, path, &header(), compression).unwrap();
            for key in 0..20_000_u32 {
                let value = b"the same text".repeat(1 + key as usize % 7);
                let group = KeyGroup(4 + (key / 7000) as u16);
                writer
                    .add(group, StateId(1), &key.to_be_bytes(), None, &value)
                    .unwrap();
            }
            let facts = writer.finish().unwrap();
            (facts, fs.read(path, 1 << 24).unwrap())
        });
        assert_eq!(files[0], files[1]);
        contents.push(read_all(&files[0].1).unwrap());
        sizes.push(files[0].1.len());
    }
    assert_eq!(contents[0].len(), 20_000);
    assert!(contents.iter().all(|content| *content == contents[0]));
    assert!(sizes[1..].iter().all(|size| *size < sizes[0] / 4), "{sizes:?}");
}

#[test]
fn what_comes_out_of_order_is_refused() {
    let fs = SimFs::without_history();
    let mut writer = CanonicalWriter::create(&fs, Path::new("/a"), &header(), Compression::None).unwrap();
    writer.add(KeyGroup(5), StateId(1), &[1], None, b"").unwrap();
    for (state, components) in [(1, &[1][..]), (1, &[0]), (0, &[2])] {
        let error = writer
            .add(KeyGroup(5), StateId(state), components, None, b"")
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    for group in [3, 4, 7] {
        let error = writer
            .add(KeyGroup(group), StateId(1), &[1], None, b"")
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

/// The sample with another block in the place of the first, its checksum right.
fn with_block(raw: &[u8]) -> Result<usize> {
    let fs = SimFs::without_history();
    let path = Path::new("/file");
    let mut writer = CanonicalWriter::create(&fs, path, &header(), Compression::None)?;
    writer.forge(KeyGroup(4), raw, 2)?;
    writer.finish()?;
    read_all(&fs.read(path, 1 << 20)?).map(|entries| entries.len())
}

#[test]
fn blocks_that_lie_are_refused() {
    let good: &[u8] = &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 2, 1, 0xab, 1, 8];
    assert_eq!(with_block(good).unwrap(), 2);
    let cases: [(&str, &[u8]); 10] = [
        (
            "a list inside of another's key",
            &[4, 0, 0, 3, 0, 2, 0xaa, 1, 7, 3, 1, 0xab, 1, 8],
        ),
        ("another group", &[5, 0, 0, 3, 0, 1, 0xaa, 1, 7, 2, 1, 0xab, 1, 8]),
        ("not in order", &[4, 0, 0, 3, 0, 1, 0xab, 1, 7, 2, 1, 0xaa, 1, 8]),
        ("one key twice", &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 3, 0, 1, 8]),
        (
            "more shared than there is",
            &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 4, 1, 0xab, 1, 8],
        ),
        (
            "an unknown state",
            &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 1, 2, 9, 0xab, 1, 8],
        ),
        ("no state", &[4, 0, 0, 1, 0, 1, 7]),
        ("a missing entry", &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7]),
        (
            "impossible lengths",
            &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 1, 2, 3, 0xab, 9, 9, 1, 8],
        ),
        (
            "a value that is too long",
            &[4, 0, 0, 3, 0, 1, 0xaa, 1, 7, 2, 1, 0xab, 0xff, 0xff, 0x7f, 8],
        ),
    ];
    for (what, raw) in cases {
        let error = with_block(raw).expect_err(what);
        assert_eq!(error.code(), Code::SnapshotCorrupt, "{what}: {error}");
        assert!(
            error.file().is_some() && error.offset().is_some(),
            "{what}: {error}"
        );
    }
}

#[test]
fn a_newer_version_is_told_from_a_damaged_one() {
    let bytes = good();
    let mut damaged = bytes.clone();
    damaged[8] = 2;
    assert_eq!(read_all(&damaged).unwrap_err().code(), Code::Malformed);
    let content = &bytes[..bytes.len() - 48 - 8];
    let mut newer = content.to_vec();
    newer[8] = 2;
    let mut trailer = keybed_format::trailer::TrailerBuilder::new(1, super::KIND);
    trailer.update(&newer);
    newer.extend(trailer.finish().0);
    assert_eq!(
        read_all(&newer).unwrap_err().code(),
        Code::UnsupportedFormatVersion
    );
}
