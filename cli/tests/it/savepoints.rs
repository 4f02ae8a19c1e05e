//! Snapshots as things of the user: copied and disposed of.

use crate::place::{Place, Run, listing, signal};
use serde_json::Value;
use std::path::PathBuf;

/// A run that is met in the middle: about 11 s if left alone.
const SLOW: &[&str] = &["--throttle", "30000", "--checkpoint-interval", "100ms"];

fn obey(place: &Place, words: &[&str]) -> Run {
    Run::of(place.command(words).arg("--json").output().unwrap())
}

/// Stops a run in the middle by Ctrl-C; its last checkpoint.
fn stopped(place: &Place) -> PathBuf {
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
}
