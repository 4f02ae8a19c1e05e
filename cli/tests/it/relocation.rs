//! A savepoint of the running job, taken by the command, moved to another file system: state directory and checkpoint
//! root are gone, the output directory stays, and the output is what it would have been.

use crate::{
    fold,
    place::{Place, Run, listing},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

/// A run that is met in the middle.
const SLOW: &[&str] = &[
    "--throttle",
    "40000",
    "--checkpoint-interval",
    "60ms",
    "--control-port",
    "0",
];

const MOVED: &str = "verschoben nach süden";

fn completed(events: &[Value]) -> usize {
    events.iter().filter(|e| e["event"] == "completed").count()
}

fn kill(mut child: Child) {
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

/// Another file system if the machine has one, else another directory.
fn elsewhere() -> tempfile::TempDir {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let memory = Path::new("/dev/shm");
    if device(memory).is_some_and(|other| Some(other) != device(&std::env::temp_dir()))
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    println!("no second file system: moved within one");
    tempfile::tempdir().unwrap()
}

/// Copies the directory there and removes it here.
fn moved(from: &Path, to: &Path) -> PathBuf {
    let to = to.join(MOVED);
    fs::create_dir(&to).unwrap();
    for file in listing(from) {
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
    fs::remove_dir_all(from).unwrap();
    to
}

fn travels(format: &str, backends: [&str; 2]) {
    let (place, other) = (Place::new(), elsewhere());
    let words = ["--backend", backends[0], "--savepoint-dir", "sp"];
    let mut child = place.flights(&[SLOW, &words].concat()).spawn().unwrap();
    place.wait_for(&mut child, "a completed checkpoint", |events| {
        completed(events) > 0
    });
    let taken = place
        .command(&["savepoint", "flights", "--type", format])
        .output()
        .unwrap();
    let taken = Run::of(taken);
    assert_eq!(taken.status, 0, "{}{}", taken.stdout, taken.stderr);
    let then = completed(&place.events());
    place.wait_for(&mut child, "two more checkpoints", |events| {
        completed(events) > then + 1
    });
    kill(child);
    let here = moved(Path::new(taken.stdout.trim()), other.path());
    fs::remove_dir_all(place.state_dir()).unwrap();
    fs::remove_dir_all(place.path("sp")).unwrap();

    let from = here.to_str().unwrap();
    let words = ["-s", from, "-p", "3", "--backend", backends[1]];
    let mut child = place.flights(&[SLOW, &words].concat()).spawn().unwrap();
    place.wait_for(&mut child, "three checkpoints", |events| completed(events) > 2);
    let started = place
        .events()
        .into_iter()
        .find(|e| e["event"] == "started")
        .unwrap();
    assert!(started["offset"].as_u64().unwrap() > 0, "{started}");
    kill(child);
    // Its first checkpoint was a full one.
    fs::remove_dir_all(&here).unwrap();
    let summary = place
        .run(&["--resume", "-p", "1", "--backend", backends[0]])
        .summary();
    assert_eq!(summary["state"], "finished");
    place.assert_output(&fold::expected());
}

#[test]
fn a_native_savepoint_of_the_running_job_moved_to_another_file_system_finishes_it_on_the_other_backend() {
    travels("native", ["lsm", "heap"]);
    travels("native", ["heap", "lsm"]);
}

#[test]
fn a_canonical_savepoint_of_the_running_job_moved_to_another_file_system_finishes_it_on_the_other_backend() {
    travels("canonical", ["lsm", "heap"]);
    travels("canonical", ["heap", "lsm"]);
}
