//! A flipped bit in any file of a checkpoint is found, named, and never restored from.

use crate::{
    fold,
    place::{Place, Run, listing},
};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// Offsets per file, besides those of the first byte, the last one, and the version words of metadata and trailer.
const SAMPLES: u64 = 4;

/// A run killed after some checkpoints, and its newest checkpoint's directory relative to the place.
fn interrupted() -> (Place, PathBuf) {
    let place = Place::new();
    let words = [
        "--throttle",
        "30000",
        "--checkpoint-interval",
        "100ms",
        "--memtable",
        "256KiB",
    ];
    let mut child = place.flights(&words).spawn().unwrap();
    place.wait_for(&mut child, "some checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() >= 8
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let root = place.job_root();
    let newest = listing(&root)
        .into_iter()
        .filter(|f| f.ends_with("_metadata"))
        .map(|f| f.parent().unwrap().to_path_buf())
        .max_by_key(|dir| dir.to_str().unwrap()["chk-".len()..].parse::<u64>().unwrap())
        .unwrap();
    (place, root.join(newest))
}

fn verify(place: &Place, checkpoint: &std::path::Path) -> Run {
    Run::of(
        place
            .command(&["snapshot", "verify", "--json"])
            .arg(checkpoint)
            .output()
            .unwrap(),
    )
}

/// Files that the checkpoint consists of, by `snapshot verify` itself: what it read, it must also check.
fn files_of(place: &Place, checkpoint: &std::path::Path) -> Vec<PathBuf> {
    let summary = verify(place, checkpoint).summary();
    summary["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| PathBuf::from(f["file"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_flipped_bit_in_every_file_is_named_by_verify_and_refused_by_resume() {
    // A disk error would silently change the state of the job.
    let (place, checkpoint) = interrupted();
    let files = files_of(&place, &checkpoint);
    assert!(files.len() > 2, "metadata and tables: {files:?}");
    assert!(files.iter().any(|f| f.ends_with("_metadata")));

    for (number, file) in files.iter().enumerate() {
        let good = fs::read(file).unwrap();
        let length = good.len() as u64;
        let offsets = [0, length - 1, 8, length - 12]
            .into_iter()
            .chain((1..=SAMPLES).map(|i| length * i / (SAMPLES + 1)));
        for (sample, offset) in offsets.enumerate() {
            let mut bad = good.clone();
            bad[offset as usize] ^= 1 << (offset % 8);
            fs::write(file, &bad).unwrap();
            let error = verify(&place, &checkpoint).error("SnapshotCorrupt", 3);
            assert_names(&error, file);
            // A resume costs a process with a whole pipeline: one sample per file.
            if sample == number % 8 {
                let error = place.run(&["--resume"]).error("SnapshotCorrupt", 3);
                assert_names(&error, file);
            }
            fs::write(file, &good).unwrap();
        }
    }
    verify(&place, &checkpoint).summary();
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

fn assert_names(error: &Value, file: &std::path::Path) {
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        error["file"].as_str().is_some_and(|f| f.ends_with(name)),
        "{name}: {error}"
    );
    assert!(error["offset"].is_u64(), "{error}");
}

#[test]
fn a_missing_file_is_an_incomplete_snapshot() {
    // A half-copied checkpoint would be restored as far as it goes.
    let (place, checkpoint) = interrupted();
    let table = files_of(&place, &checkpoint)
        .into_iter()
        .find(|f| !f.ends_with("_metadata"))
        .unwrap();
    fs::remove_file(&table).unwrap();
    let error = verify(&place, &checkpoint).error("SnapshotIncomplete", 3);
    assert_names_file(&error, &table);
    let error = place.run(&["--resume"]).error("SnapshotIncomplete", 3);
    assert_names_file(&error, &table);
}

fn assert_names_file(error: &Value, file: &std::path::Path) {
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{name}: {error}");
}

#[test]
fn what_is_no_snapshot_is_said_to_be_none() {
    // A wrong path would end in a decoder's complaint.
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    for command in ["inspect", "verify"] {
        for path in ["empty", "nowhere"] {
            let run = Run::of(
                place
                    .command(&["snapshot", command, path, "--json"])
                    .output()
                    .unwrap(),
            );
            run.error("NotASnapshot", 1);
        }
    }
}

#[test]
fn inspect_tells_what_a_checkpoint_holds_and_where_its_files_lie() {
    // At night nobody could tell which directory a checkpoint depends on.
    let (place, checkpoint) = interrupted();
    let run = Run::of(
        place
            .command(&["snapshot", "inspect", "--json"])
            .arg(&checkpoint)
            .output()
            .unwrap(),
    );
    let object = run.summary();
    assert_eq!(object["kind"], "checkpoint");
    let uids: Vec<&str> = object["operators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["uid"].as_str().unwrap())
        .collect();
    for uid in ["flights-in", "aircraft", "daily"] {
        assert!(uids.contains(&uid), "{uids:?}");
    }
    let depends = object["depends_on"].as_array().unwrap();
    assert!(
        depends.iter().any(|d| d.as_str().unwrap().ends_with("/shared")),
        "{object}"
    );
    let text = Run::of(
        place
            .command(&["snapshot", "inspect"])
            .arg(&checkpoint)
            .output()
            .unwrap(),
    );
    assert_eq!(text.status, 0);
    assert!(
        text.stdout.starts_with("checkpoint ") && text.stdout.contains("depends on"),
        "{}",
        text.stdout
    );
}
