//! Damaged, foreign and moved snapshots before every verb that needs no running job.

use crate::{
    offline::{ended, hash, newest, obey},
    place::{Place, Run, listing},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One way of breaking a snapshot, and what every verb must say of it.
type Damage = (&'static str, fn(&Path), &'static str, i32);

#[test]
fn bad_snapshots_are_refused_by_every_verb_and_nothing_is_changed() {
    // The verb would make a copy of damage, or change what it was only asked about.
    let place = Place::new();
    ended(&place, &[], "INT");
    let checkpoint = newest(&place);
    let words = ["snapshot", "export", checkpoint.to_str().unwrap(), "--to", "good"];
    let good = obey(&place, &words).summary()["directory"]
        .as_str()
        .unwrap()
        .to_owned();
    let damages: [Damage; 7] = [
        (
            "no snapshot",
            |dir| fs::remove_file(dir.join("_metadata")).unwrap(),
            "NotASnapshot",
            1,
        ),
        (
            "another magic",
            |dir| fs::write(dir.join("_metadata"), [7; 300]).unwrap(),
            "NotASnapshot",
            1,
        ),
        ("a newer version", newer, "UnsupportedFormatVersion", 5),
        ("a flipped bit", flipped, "SnapshotCorrupt", 3),
        (
            "a missing file",
            |dir| fs::remove_file(biggest(dir)).unwrap(),
            "SnapshotIncomplete",
            3,
        ),
        ("a symbolic link", linked, "SnapshotCorrupt", 3),
        ("a reference that leaves", leaving, "SnapshotCorrupt", 3),
    ];
    for (what, damage, code, status) in damages {
        let bad = place.path("bad");
        let _ = fs::remove_dir_all(&bad);
        copy_dir(&place.path(&good), &bad);
        damage(&bad);
        let before = hash(&bad);
        for words in [
            &["snapshot", "convert", "bad", "--to", "canonical", "new"][..],
            &["snapshot", "export", "bad", "--to", "new"],
            &["snapshot", "verify", "bad"],
        ] {
            let run = obey(&place, words);
            let all = format!("{what}: {words:?}: {}{}", run.stdout, run.stderr);
            assert_eq!(run.status, status_of(&run, code, status), "{all}");
            assert!(!place.path("new").exists(), "{all}");
            assert_eq!(hash(&bad), before, "{all}");
        }
        let listed = obey(&place, &["snapshot", "ls", "bad"]).summary();
        assert_eq!(hash(&bad), before, "{what}: {listed}");
    }
    // Nothing can be written where the kernel makes the files.
    for words in [
        &["snapshot", "convert", &good, "--to", "canonical", "/proc/keybed"][..],
        &["snapshot", "export", &good, "--to", "/proc/keybed"],
    ] {
        let run = obey(&place, words);
        assert_eq!(run.status, 1, "{}", run.stdout);
        assert!(run.stdout.contains("/proc/keybed"), "{}", run.stdout);
    }
    // A checkpoint without its root names what is missing.
    copy_dir(&checkpoint, &place.path("alone/chk-1"));
    fs::rename(
        place.path("alone/chk-1"),
        place.path("alone").join(checkpoint.file_name().unwrap()),
    )
    .unwrap();
    let alone = format!("alone/{}", checkpoint.file_name().unwrap().to_str().unwrap());
    let before = hash(&place.path("alone"));
    let error = obey(
        &place,
        &["snapshot", "convert", &alone, "--to", "canonical", "new"],
    )
    .error("SnapshotIncomplete", 3);
    assert!(
        error["fields"]["missing"]
            .as_str()
            .unwrap()
            .contains("alone/shared/"),
        "{error}"
    );
    assert_eq!(hash(&place.path("alone")), before);
    let listed = obey(&place, &["snapshot", "ls", "alone"]).summary();
    assert_eq!(listed["snapshots"][0]["standing"], "stray");
    // What is nothing of ours.
    for words in [
        &["gc", "good"][..],
        &["gc", "nowhere"],
        &["snapshot", "ls", "nowhere"],
        &["owners", "good/notes"],
    ] {
        let run = obey(&place, words);
        assert!(
            run.stdout.contains("NotASnapshot") || run.status == 0,
            "{words:?}: {}",
            run.stdout
        );
    }
    assert!(!place.path("new").exists());
}

fn status_of(run: &Run, code: &str, status: i32) -> i32 {
    run.error(code, status);
    status
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in listing(from) {
        fs::copy(from.join(&path), to.join(&path)).unwrap();
    }
}

fn biggest(dir: &Path) -> PathBuf {
    let objects = listing(dir)
        .into_iter()
        .filter(|path| path.to_str().unwrap().starts_with('g'));
    dir.join(
        objects
            .max_by_key(|path| fs::metadata(dir.join(path)).unwrap().len())
            .unwrap(),
    )
}

fn flipped(dir: &Path) {
    let file = biggest(dir);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
}

fn linked(dir: &Path) {
    let file = biggest(dir);
    let moved = dir.join("elsewhere");
    fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
}

/// Metadata with right checksums whose sections were changed.
fn rewritten(dir: &Path, version: u32, change: impl Fn(&mut Vec<u8>)) {
    use keybed::{format::envelope, snapshot::metadata};
    const MAGIC: [u8; 8] = *b"KBSNAP\0\x01";
    let bytes = fs::read(dir.join("_metadata")).unwrap();
    metadata::decode(&bytes).unwrap();
    let (_, sections) = envelope::read(MAGIC, 1, &bytes).unwrap();
    let mut sections: Vec<_> = sections.into_iter().map(|(_, section)| section).collect();
    sections.iter_mut().for_each(|section| change(&mut section.bytes));
    fs::write(dir.join("_metadata"), envelope::write(MAGIC, version, &sections)).unwrap();
}

/// A version that nobody knows yet.
fn newer(dir: &Path) {
    rewritten(dir, 2, |_| {});
}

/// The name of a file becomes a path of the same length out of the directory.
fn leaving(dir: &Path) {
    let file = biggest(dir);
    let name = file.file_name().unwrap().to_str().unwrap();
    let out = format!("{:x<width$}", "../../../etc/", width = name.len());
    rewritten(dir, 1, |bytes| {
        while let Some(at) = bytes
            .windows(name.len())
            .position(|window| window == name.as_bytes())
        {
            bytes[at..at + name.len()].copy_from_slice(out.as_bytes());
        }
    });
}
