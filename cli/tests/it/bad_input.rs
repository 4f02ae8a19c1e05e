//! What goes wrong outside is named, and nothing half-done is left to be taken for complete.

use crate::{fold, place::Place};
use std::fs;

/// No output file may exist after a failed run.
fn assert_no_output(place: &Place) {
    for name in ["aircraft.csv", "daily.csv"] {
        assert!(
            !place.path("out").join(name).exists(),
            "{name} must not exist after a failed run"
        );
    }
}

/// A plain CSV of the first `lines` lines.
fn head(lines: usize) -> String {
    fold::text().split_inclusive('\n').take(lines).collect()
}

#[test]
fn a_missing_input_is_named() {
    // A typing error in the path would end in a stack trace or in an empty output.
    let place = Place::new();
    let error = place.run(&["--input", "nowhere.csv"]).error("InputUnreadable", 1);
    assert!(
        error["file"].as_str().unwrap().ends_with("nowhere.csv"),
        "{error}"
    );
    assert_no_output(&place);
}

#[test]
fn an_input_that_cannot_be_read_as_a_file_is_named() {
    // A directory given for the file would be read as an empty input.
    let place = Place::new();
    fs::create_dir(place.path("dir.csv")).unwrap();
    let error = place.run(&["--input", "dir.csv"]).error("InputUnreadable", 1);
    assert!(error["file"].as_str().unwrap().ends_with("dir.csv"), "{error}");
    assert_no_output(&place);
}

#[test]
fn a_truncated_zstd_input_is_an_error_not_an_early_end() {
    // A half-copied input would give a complete-looking, wrong result.
    let place = Place::new();
    let whole = fs::read(fold::input()).unwrap();
    fs::write(place.path("cut.csv.zst"), &whole[..whole.len() / 3]).unwrap();
    let error = place.run(&["--input", "cut.csv.zst"]).error("InputUnreadable", 1);
    assert!(
        error["file"].as_str().unwrap().ends_with("cut.csv.zst"),
        "{error}"
    );
    assert_no_output(&place);
}

#[test]
fn a_malformed_line_is_named_by_file_line_and_column() {
    // The user could not find the one bad line among a million.
    let place = Place::new();
    let mut lines: Vec<String> = head(500).lines().map(str::to_owned).collect();
    lines[321] = lines[321].replacen("2013,1,1,", "2013,1,1,x", 1);
    fs::write(place.path("bad.csv"), lines.join("\n") + "\n").unwrap();
    let error = place.run(&["--input", "bad.csv"]).error("BadRecord", 1);
    assert!(error["file"].as_str().unwrap().ends_with("bad.csv"), "{error}");
    assert_eq!(
        (&error["fields"]["line"], &error["fields"]["column"]),
        (&"322".into(), &"dep_time".into())
    );
    assert_no_output(&place);
}

#[test]
fn malformed_lines_are_left_out_and_counted_when_asked_for() {
    // Skipping without a count would hide how much is missing.
    let place = Place::new();
    let good = head(500);
    let mut bad: Vec<&str> = good.lines().collect();
    bad.insert(100, "what is this");
    bad.insert(300, "");
    fs::write(place.path("bad.csv"), bad.join("\n") + "\n").unwrap();
    let summary = place
        .run(&["--input", "bad.csv", "--on-bad-record", "skip"])
        .summary();
    assert_eq!(
        (&summary["records"], &summary["bad_records"]),
        (&499.into(), &2.into())
    );
    place.assert_output(&fold::fold(&good));
}

#[test]
fn a_plain_csv_is_read_as_well() {
    // Builds without zstd could read nothing.
    let place = Place::new();
    fs::write(place.path("plain.csv"), head(2_000)).unwrap();
    let summary = place.run(&["--input", "plain.csv"]).summary();
    assert_eq!(summary["records"], 1_999);
    place.assert_output(&fold::fold(&head(2_000)));
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_work_is_done() {
    // An hour of work would be lost at the last step.
    let place = Place::new();
    fs::write(place.path("a-file"), "not a directory").unwrap();
    let output = place
        .command(&[
            "run",
            "flights",
            "--json",
            "--state-dir",
            "state",
            "--out",
            "a-file/out",
        ])
        .arg("--input")
        .arg(fold::input())
        .output()
        .unwrap();
    let error = crate::place::Run::of(output).error("OutputUnwritable", 1);
    assert!(error["file"].as_str().unwrap().contains("a-file"), "{error}");
    assert_eq!(
        fs::read_to_string(place.path("a-file")).unwrap(),
        "not a directory"
    );
}

#[test]
fn an_unknown_job_suggests_the_nearest() {
    // The user would have to guess the names.
    let place = Place::new();
    let output = place.command(&["run", "flihgts", "--json"]).output().unwrap();
    let error = crate::place::Run::of(output).error("UnknownJob", 2);
    assert_eq!(error["fields"]["nearest"], "flights");
    let people = place.command(&["run", "flihgts"]).output().unwrap();
    assert_eq!(people.status.code(), Some(2));
    let text = String::from_utf8(people.stderr).unwrap();
    assert!(
        text.starts_with("error: UnknownJob: ") && text.contains("flights"),
        "{text}"
    );
}

#[test]
fn a_mistake_on_the_command_line_is_usage() {
    // Scripts could not tell a typing error from a failed job.
    let place = Place::new();
    for words in [
        &["run"][..],
        &["run", "flights", "-p", "0"],
        &["fly"],
        &["run", "flights", "--resume", "--restart"],
    ] {
        let run = crate::place::Run::of(place.command(words).output().unwrap());
        assert_eq!(run.status, 2, "{words:?}");
        assert!(run.stderr.contains("error:"), "{words:?}: {}", run.stderr);
    }
    crate::place::Run::of(
        place
            .command(&["run", "flights", "-p", "0", "--json"])
            .output()
            .unwrap(),
    )
    .error("InvalidArgument", 2);
}

#[test]
fn a_run_that_could_not_start_is_not_an_interrupted_one() {
    // After a typing error in a path the right command would be refused.
    let place = Place::new();
    fs::write(place.path("plain.csv"), head(200)).unwrap();
    fs::write(place.path("out"), "not a directory").unwrap();
    place.run(&["--input", "nowhere.csv"]).error("InputUnreadable", 1);
    place.run(&["--input", "plain.csv"]).error("OutputUnwritable", 1);
    fs::remove_file(place.path("out")).unwrap();
    place.run(&["--input", "plain.csv"]).summary();
    place.assert_output(&fold::fold(&head(200)));
}

#[test]
fn a_resume_over_a_changed_input_is_refused() {
    // Positions would mean other records: state of one input mixed with that of another.
    let place = Place::new();
    fs::write(place.path("plain.csv"), head(20_000)).unwrap();
    let mut child = place
        .flights(&[
            "--input",
            "plain.csv",
            "--throttle",
            "5000",
            "--checkpoint-interval",
            "100ms",
        ])
        .spawn()
        .unwrap();
    place.wait_for(&mut child, "a checkpoint", |events| {
        events.iter().any(|e| e["event"] == "completed")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(place.path("plain.csv"), head(20_001)).unwrap();
    let error = place
        .run(&["--input", "plain.csv", "--resume"])
        .error("InvalidArgument", 2);
    assert!(error["file"].as_str().unwrap().ends_with("plain.csv"), "{error}");
    fs::write(place.path("plain.csv"), head(20_000)).unwrap();
    place.run(&["--input", "plain.csv", "--resume"]).summary();
    place.assert_output(&fold::fold(&head(20_000)));
}
