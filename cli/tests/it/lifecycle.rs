//! Running once, twice, beside another process, stopped and resumed.

use crate::{
    fold,
    place::{Place, Run, signal},
};
use std::fs;

/// A run that takes long enough to be met in the middle: about 20 s if left alone.
const SLOW: &[&str] = &["--throttle", "16000", "--checkpoint-interval", "100ms"];

fn completed(events: &[serde_json::Value]) -> usize {
    events.iter().filter(|e| e["event"] == "completed").count()
}

#[test]
fn a_fresh_run_equals_the_fold() {
    // The job would compute something else than it promises.
    let place = Place::new();
    let summary = place
        .run(&["-p", "3", "--checkpoint-interval", "200ms"])
        .summary();
    assert_eq!(
        (&summary["state"], &summary["records"]),
        (&"finished".into(), &336_776.into())
    );
    assert_eq!(
        (&summary["bad_records"], &summary["late_records"]),
        (&0.into(), &0.into())
    );
    place.assert_output(&fold::expected());
}

#[test]
fn without_a_word_the_main_job_runs_with_its_defaults() {
    // The first command that a new user types would print a usage text.
    let place = Place::new();
    let data = place.path("examples/data");
    fs::create_dir_all(&data).unwrap();
    fs::copy(fold::input(), data.join("flights-2013.csv.zst")).unwrap();
    let run = Run::of(place.command(&[]).output().unwrap());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    place.assert_output(&fold::expected());
    assert!(place.path("keybed-state/job.json").exists());
}

#[test]
fn the_heap_backend_gives_the_same_output() {
    // The answer would depend on where state lives.
    let place = Place::new();
    place
        .run(&["--backend", "heap", "--checkpoint-interval", "200ms"])
        .summary();
    place.assert_output(&fold::expected());
}

#[test]
fn a_small_memtable_flushes_merges_to_the_bottom_and_reads_tables() {
    // The job would pass only because all state fits into one memtable.
    let place = Place::new();
    let summary = place
        .run(&["--memtable", "256KiB", "--checkpoint-interval", "200ms"])
        .summary();
    let count = |name: &str| {
        summary["store"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {summary}"))
    };
    for name in ["flushes", "bottom_compactions", "table_gets"] {
        assert!(count(name) > 0, "{name}: {summary}");
    }
    place.assert_output(&fold::expected());
}

#[test]
fn after_a_finished_run_a_plain_run_starts_anew_and_resume_changes_nothing() {
    // A second `cargo run` would fail, or `--resume` would run the job again.
    let place = Place::new();
    let first = place.run(&["-p", "2"]).summary();
    let before = state_of(&place);
    let resumed = place.run(&["--resume"]).summary();
    assert_eq!(resumed["state"], "already-finished");
    assert_eq!(
        state_of(&place),
        before,
        "`--resume` of a finished job changes nothing"
    );
    let said = Run::of(
        place
            .command(&["run", "flights", "--state-dir", "state", "--resume"])
            .output()
            .unwrap(),
    );
    assert_eq!(said.status, 0);
    assert!(said.stdout.contains("finished"), "{}", said.stdout);

    fs::write(place.path("out/daily.csv"), "old").unwrap();
    let second = place.run(&["-p", "1"]).summary();
    assert_eq!(second["state"], "finished");
    assert_ne!(first["job_id"], second["job_id"], "a fresh start is a new job");
    place.assert_output(&fold::expected());
}

/// Every file of state and output with its bytes.
fn state_of(place: &Place) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    ["state", "out"]
        .into_iter()
        .flat_map(|dir| {
            crate::place::listing(&place.path(dir))
                .into_iter()
                .map(move |f| place.path(dir).join(f))
        })
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect()
}

#[test]
fn a_state_directory_in_use_is_locked_by_a_pid() {
    // Two processes would write one checkpoint root.
    let place = Place::new();
    let mut first = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut first, "a completed checkpoint", |events| {
        completed(events) > 0
    });
    for words in [&["--resume"][..], &["--restart"], &[]] {
        let error = place.run(words).error("Locked", 4);
        assert_eq!(error["fields"]["pid"], first.id().to_string(), "{error}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn an_interrupted_run_is_never_given_up_silently() {
    // A plain second start would throw an hour of state away, or go on where the user wanted a fresh one.
    let place = Place::new();
    let mut first = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut first, "a completed checkpoint", |events| {
        completed(events) > 0
    });
    first.kill().unwrap();
    first.wait().unwrap();

    let error = place.run(&[]).error("InterruptedRun", 5);
    let said = error.to_string();
    assert!(said.contains("--resume") && said.contains("--restart"), "{said}");
    assert!(!place.path("out/daily.csv").exists());

    let anew = place.run(&["--restart"]).summary();
    assert_eq!(anew["state"], "finished");
    let last_start = place
        .events()
        .into_iter()
        .rfind(|e| e["event"] == "started")
        .unwrap();
    assert_eq!(last_start["offset"], 0, "--restart begins at the beginning");
    place.assert_output(&fold::expected());
}

#[test]
fn ctrl_c_takes_a_last_checkpoint_and_resume_goes_on_from_it() {
    // Stopping a job would cost the work since the last checkpoint.
    let place = Place::new();
    let mut child = place
        .flights(&["--throttle", "30000", "--checkpoint-interval", "1h"])
        .spawn()
        .unwrap();
    place.wait_for(&mut child, "the start", |events| {
        events.iter().any(|e| e["event"] == "started")
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal(&child, "INT");
    let stopped = Run::of(child.wait_with_output().unwrap());
    assert_eq!(
        stopped.status, 1,
        "output is not complete, so the exit status is not 0: {}",
        stopped.stdout
    );
    let summary: serde_json::Value = serde_json::from_str(&stopped.stdout).unwrap();
    assert_eq!(summary["state"], "stopped");
    assert!(!place.path("out/daily.csv").exists());
    assert_eq!(
        completed(&place.events()),
        1,
        "the interval was never over: the one checkpoint is the last one"
    );

    place.run(&["--resume", "-p", "3"]).summary();
    let starts: Vec<_> = place
        .events()
        .into_iter()
        .filter(|e| e["event"] == "started")
        .collect();
    assert!(starts.last().unwrap()["offset"].as_u64().unwrap() > 0);
    place.assert_output(&fold::expected());
}

#[test]
fn off_the_terminal_there_are_plain_lines_one_per_checkpoint_and_a_summary() {
    // A log file would be full of control characters, or empty.
    let place = Place::new();
    let words = [
        "run",
        "flights",
        "--state-dir",
        "state",
        "--checkpoint-interval",
        "200ms",
        "--input",
    ];
    let run = Run::of(place.command(&words).arg(fold::input()).output().unwrap());
    assert_eq!((run.status, run.stderr.lines().count()), (0, 1), "{}", run.stderr);
    assert!(run.stderr.starts_with("control endpoint http://127.0.0.1:"));
    assert!(
        run.stdout.chars().all(|c| c == '\n' || !c.is_control()),
        "{:?}",
        run.stdout
    );
    let lines: Vec<&str> = run.stdout.lines().collect();
    let checkpoints = lines
        .iter()
        .filter(|line| line.starts_with("checkpoint "))
        .count();
    assert_eq!(checkpoints, completed(&place.events()), "{}", run.stdout);
    for line in lines.iter().filter(|line| line.starts_with("checkpoint ")) {
        assert!(
            line.contains(" ms ") && line.contains("new ") && line.contains("total "),
            "{line}"
        );
    }
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("flights finished in ") && line.contains("336776 records"))
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("out/aircraft.csv (4043 rows")),
        "{}",
        run.stdout
    );
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_resume_still_goes_on() {
    // A job that hangs in its last checkpoint could only be killed.
    let place = Place::new();
    let mut child = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut child, "a completed checkpoint", |events| {
        completed(events) > 0
    });
    signal(&child, "INT");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}
