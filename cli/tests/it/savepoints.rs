//! Snapshots as things of the user: copied, moved, started from, disposed of.

use crate::{
    fold,
    place::{Place, Run, listing, signal},
};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// A run that is met in the middle: about 11 s if left alone.
const SLOW: &[&str] = &["--throttle", "30000", "--checkpoint-interval", "100ms"];

/// A name that a shell and an encoding can get wrong.
const MOVED: &str = "verschoben nach süden";

pub(crate) fn obey(place: &Place, words: &[&str]) -> Run {
    Run::of(place.command(words).arg("--json").output().unwrap())
}

/// Stops a run in the middle by Ctrl-C; its last checkpoint.
pub(crate) fn stopped(place: &Place) -> PathBuf {
    let mut child = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut child, "two completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > 1
    });
    signal(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap());
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (run.status, &summary["state"]),
        (1, &"stopped".into()),
        "{summary}"
    );
    place
        .job_root()
        .join(format!("chk-{}", summary["last_checkpoint"]))
}

/// Exports a checkpoint, moves the copy and deletes the state directory; the copy's path, relative to the place.
fn orphan(place: &Place) -> String {
    let checkpoint = stopped(place);
    let words = [
        "snapshot",
        "export",
        checkpoint.to_str().unwrap(),
        "--to",
        "exported",
    ];
    let run = Run::of(place.command(&words).output().unwrap());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let location = run.stdout.lines().last().unwrap();
    assert!(place.path(location).join("_metadata").is_file(), "{}", run.stdout);
    fs::rename(place.path(location), place.path(MOVED)).unwrap();
    fs::remove_dir_all(place.state_dir()).unwrap();
    MOVED.to_owned()
}

fn first_start(place: &Place) -> Value {
    let started = place.events().into_iter().find(|e| e["event"] == "started");
    started.expect("the run has started")
}

#[test]
fn an_exported_and_moved_checkpoint_alone_finishes_the_job() {
    // A savepoint would hang on the directory that it came from, or on its own old place.
    let place = Place::new();
    let from = orphan(&place);
    obey(&place, &["snapshot", "verify", &from]).summary();
    let before = listing(&place.path(&from));
    let words = ["-s", &from, "-p", "3", "--backend", "heap"];
    let summary = place.run(&words).summary();
    assert_eq!(summary["state"], "finished");
    assert!(first_start(&place)["offset"].as_u64().unwrap() > 0);
    place.assert_output(&fold::expected());
    assert_eq!(listing(&place.path(&from)), before, "it is only read");
}

#[test]
fn a_resume_before_the_first_checkpoint_goes_back_to_the_snapshot() {
    // The resume would begin at nothing, or ask for an option that the record could have kept.
    let place = Place::new();
    let from = orphan(&place);
    let words = ["-s", &from, "--throttle", "30000", "--checkpoint-interval", "1h"];
    let mut child = place.flights(&words).spawn().unwrap();
    place.wait_for(&mut child, "the start", |events| {
        events.iter().any(|e| e["event"] == "started")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let offset = first_start(&place)["offset"].clone();

    place.run(&["-s", &from]).error("InterruptedRun", 5);
    let mut child = place.flights(&[&["--resume"], SLOW].concat()).spawn().unwrap();
    place.wait_for(&mut child, "a completed checkpoint", |events| {
        events.iter().any(|e| e["event"] == "completed")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let mut starts = place.events().into_iter().filter(|e| e["event"] == "started");
    assert_eq!(starts.nth(1).unwrap()["offset"], offset);

    // From its own first checkpoint on the job needs the snapshot no more.
    fs::remove_dir_all(place.path(&from)).unwrap();
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

#[test]
fn what_is_no_snapshot_is_refused_and_leaves_nothing() {
    // The job would silently start at the beginning.
    let place = Place::new();
    fs::write(place.path("notes.txt"), "no snapshot").unwrap();
    for from in ["nowhere", "notes.txt", "."] {
        place.run(&["-s", from]).error("NotASnapshot", 1);
        assert!(!place.state_dir().join("job.json").exists());
    }
    let both = place.run(&["-s", "nowhere", "--resume"]);
    assert_eq!(both.status, 2, "{}", both.stdout);
    assert!(both.stdout.contains("--resume"), "{}", both.stdout);
}

#[test]
fn a_savepoint_is_disposed_of_once_and_a_jobs_checkpoint_never() {
    // Disposing would take away what a job needs, or report success for nothing.
    let place = Place::new();
    let checkpoint = stopped(&place);
    let checkpoint = checkpoint.to_str().unwrap();
    let before = listing(&place.job_root());
    obey(&place, &["snapshot", "dispose", checkpoint]).error("GcRefused", 5);
    assert_eq!(listing(&place.job_root()), before);

    let exported = obey(&place, &["snapshot", "export", checkpoint, "--to", "sp"]).summary();
    let savepoint = exported["directory"].as_str().unwrap();
    let disposed = obey(&place, &["snapshot", "dispose", savepoint]).summary();
    assert_eq!(disposed["removed_directory"], true);
    assert_eq!(
        disposed["files"].as_array().unwrap().len() as u64,
        exported["files"].as_u64().unwrap()
    );
    assert!(!place.path(savepoint).exists());
    obey(&place, &["snapshot", "dispose", savepoint]).error("NotASnapshot", 1);
    assert_eq!(listing(&place.job_root()), before);

    // The run that is given up keeps the output parts that its checkpoint names.
    let anew = place.run(&["--restart", "-s", checkpoint]).summary();
    assert_eq!(anew["state"], "finished");
    place.assert_output(&fold::expected());
}
