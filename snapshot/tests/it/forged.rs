//! If these fail, whoever can write one `_metadata` makes a restart panic, run out of memory, read outside of the job
//! root, or change something there before it refuses.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::{
    Code, Sink,
    envelope::{self, Section},
};
use keybed_snapshot::{CheckpointId, Metadata, SnapshotDir, metadata::codec::MAGIC, verify};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const HEAD: usize = 0;
const PROPERTIES: usize = 1;
const FILES: usize = 3;
const OPERATORS: usize = 4;

fn disk() -> (SimFs, Metadata) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    job.checkpoint(1, 2).unwrap();
    let metadata = job.root.load(CheckpointId(1)).unwrap();
    drop(job);
    (sim, metadata)
}

fn path() -> PathBuf {
    job_root().join("chk-1/_metadata")
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Sink::new();
    out.text(text);
    out.into_vec()
}

/// Replaces the first `from` in a section and forges the checksums.
fn forge(sim: &SimFs, section: usize, from: &[u8], to: &[u8]) {
    let bytes = sim.read(&path(), 1 << 30).unwrap();
    let (_, sections) = envelope::read(MAGIC, 1, &bytes).unwrap();
    let mut sections: Vec<Section> = sections.into_iter().map(|(_, section)| section).collect();
    let old = &sections[section].bytes;
    let at = old
        .windows(from.len())
        .position(|window| window == from)
        .expect("nothing to replace");
    sections[section].bytes = [&old[..at], to, &old[at + from.len()..]].concat();
    sim.corrupt(path(), |b| *b = envelope::write(MAGIC, 1, &sections))
        .unwrap();
}

/// A restart and a look by path both refuse with a code, and nothing has changed.
fn refused(sim: &SimFs, what: &str) {
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let before = sim.tree();
    let by_path = SnapshotDir::open(fs.clone(), path().parent().unwrap())
        .and_then(|dir| verify(dir.metadata(), &dir).verdict())
        .expect_err(what);
    let resumed = open(&fs).unwrap().latest().map(drop).expect_err(what);
    for error in [by_path, resumed] {
        assert!(
            matches!(
                error.code(),
                Code::SnapshotCorrupt | Code::UnsupportedFormatVersion
            ),
            "{what}: {error}"
        );
        assert!(
            error.file().unwrap().ends_with("chk-1/_metadata"),
            "{what}: {error}"
        );
        assert!(
            error.to_string().len() < 2000,
            "{what}: an error of {} bytes",
            error.to_string().len()
        );
    }
    for (path, bytes) in before {
        assert!(
            path.ends_with("LOCK") || sim.tree().get(&path) == Some(&bytes),
            "{what}: {}",
            path.display()
        );
    }
}

#[test]
fn hostile_names_of_objects_are_refused() {
    let (disk, metadata) = disk();
    let name = metadata.files().next().unwrap().object.to_string();
    let huge = "a".repeat(10 << 20);
    for hostile in [
        "",
        ".",
        "..",
        "../shared/x",
        "/etc/passwd",
        "a/../../b",
        "a\\b",
        "C:\\x",
        "a\0b",
        "A",
        "-rf",
        &huge,
    ] {
        let sim = disk.live_image();
        forge(&sim, FILES, &text(&name), &text(hostile));
        refused(&sim, &format!("object {:.20}", hostile.escape_debug()));
    }
}

#[test]
fn hostile_texts_are_refused() {
    let (disk, _) = disk();
    let huge = "a".repeat(10 << 20);
    for hostile in ["", "a\nb", "a\u{1b}[2J", &huge] {
        let sim = disk.live_image();
        forge(&sim, OPERATORS, &text("tiny"), &text(hostile));
        refused(&sim, &format!("uid {:.20}", hostile.escape_debug()));
    }
    let sim = disk.live_image();
    forge(&sim, OPERATORS, &text("point"), &text(&huge));
    refused(&sim, "family");
    let sim = disk.live_image();
    forge(
        &sim,
        PROPERTIES,
        &[0],
        &[&[1][..], &text(&huge), &text("x")].concat(),
    );
    refused(&sim, "property");
    let sim = disk.live_image();
    forge(&sim, HEAD, &text("xxh3-hi-v1"), &text("xxh3-hi-v2"));
    refused(&sim, "key hash");
    let sim = disk.live_image();
    forge(&sim, OPERATORS, &text("tiny"), &[4, 0xff, 0xfe, 0x80, 0x80]);
    refused(&sim, "no UTF-8");
}

#[test]
fn counts_without_their_bytes_are_refused_before_anything_is_allocated() {
    let (disk, metadata) = disk();
    let count = |n: u64| {
        let mut out = Sink::new();
        out.varint(n);
        out.into_vec()
    };
    for n in [100, 1 << 20, 1 << 32, 1 << 62, u64::MAX] {
        for section in [PROPERTIES, FILES, OPERATORS] {
            let sim = disk.live_image();
            let bytes = sim.read(&path(), 1 << 30).unwrap();
            let first = envelope::read(MAGIC, 1, &bytes).unwrap().1[section].1.bytes[0];
            forge(&sim, section, &[first], &count(n));
            refused(&sim, &format!("{n} rows in section {section}"));
        }
        let sim = disk.live_image();
        forge(
            &sim,
            OPERATORS,
            &[&text("point")[..], &[1]].concat(),
            &[&text("point")[..], &count(n)].concat(),
        );
        refused(&sim, &format!("{n} runs"));
    }
    assert_eq!(metadata.operators.len(), 1);
}

#[test]
fn operators_that_cannot_be_are_refused() {
    let (disk, _) = disk();
    // uid, parallelism, max parallelism, no states, one subtask: index
    let mut head = Sink::new();
    head.text("tiny").u32(1).u32(128).count(0).count(1).u32(0);
    let head = head.into_vec();
    let forged = |parallelism: u32, max: u32, index: u32| {
        let mut out = Sink::new();
        out.text("tiny")
            .u32(parallelism)
            .u32(max)
            .count(0)
            .count(1)
            .u32(index);
        out.into_vec()
    };
    for (what, to) in [
        ("an index out of range", forged(1, 128, 1)),
        ("the highest index", forged(1, 128, u32::MAX)),
        ("no parallelism", forged(0, 128, 0)),
        ("the highest parallelism", forged(u32::MAX, 128, 0)),
        ("no key groups", forged(1, 0, 0)),
        ("too few key groups", forged(1, 127, 0)),
        ("the highest number of key groups", forged(1, u32::MAX, 0)),
    ] {
        let sim = disk.live_image();
        forge(&sim, OPERATORS, &head, &to);
        refused(&sim, what);
    }
    let bytes = disk.read(&path(), 1 << 30).unwrap();
    let operators = envelope::read(MAGIC, 1, &bytes).unwrap().1[OPERATORS]
        .1
        .bytes
        .clone();
    let twice = [&[2][..], &operators[1..], &operators[1..]].concat();
    let sim = disk.live_image();
    forge(&sim, OPERATORS, &operators, &twice);
    refused(&sim, "one uid twice");
    // The same subtask twice, with overlapping key groups, under indexes that fit.
    let subtask = &operators[1 + head.len()..];
    let mut two = Sink::new();
    two.count(1).text("tiny").u32(2).u32(128).count(0).count(2).u32(0);
    two.raw(subtask).u32(1).raw(subtask);
    let sim = disk.live_image();
    forge(&sim, OPERATORS, &operators, two.as_slice());
    refused(&sim, "key groups owned twice");
}
