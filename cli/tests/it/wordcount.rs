//! The second job: what holds for flights holds for it; and what cannot hold for standard input is said.

use crate::{
    place::{Place, Run, signal},
    savepoints::obey,
    wordfold::{Expected, fold, text},
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
};

const LINES: u64 = 6_000;
/// About 6 s if left alone.
const SLOW: &[&str] = &["--throttle", "1000", "--checkpoint-interval", "50ms"];

fn wordcount(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(&[
        "run",
        "wordcount",
        "--json",
        "--state-dir",
        "state",
        "--out",
        "out",
    ]);
    command.args(words);
    command
}

fn run(place: &Place, words: &[&str]) -> Run {
    Run::of(wordcount(place, words).output().unwrap())
}

/// Runs over a text on standard input.
fn feed(command: &mut Command, text: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// A place with the text in three files, one of them packed.
fn place_with(text: &str) -> Place {
    let place = Place::new();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (third, rest) = (lines.len() / 3, lines.len() / 2);
    fs::write(place.path("a.txt"), lines[..third].concat()).unwrap();
    let packed = zstd::stream::encode_all(lines[third..rest].concat().as_bytes(), 3).unwrap();
    fs::write(place.path("b.zst"), packed).unwrap();
    fs::write(place.path("c.txt"), lines[rest..].concat()).unwrap();
    place
}

const FILES: [&str; 4] = ["--input", "a.txt", "b.zst", "c.txt"];

fn assert_output(place: &Place, expected: &Expected) {
    for (name, expected) in [("words.csv", &expected.words), ("top.csv", &expected.top)] {
        let found = place.output(name);
        let differs = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
        assert!(
            found == *expected,
            "{name}: {} lines instead of {}; {differs:?}",
            found.lines().count(),
            expected.lines().count()
        );
    }
}

fn completed(events: &[Value]) -> usize {
    events.iter().filter(|e| e["event"] == "completed").count()
}

/// Waits for so many checkpoints, then stops the run by Ctrl-C; its last checkpoint.
fn stop(place: &Place, mut child: Child, checkpoints: usize) -> String {
    place.wait_for(&mut child, "completed checkpoints", |events| {
        completed(events) >= checkpoints
    });
    signal(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap());
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(summary["state"], "stopped", "{summary}");
    let chk = place
        .job_root()
        .join(format!("chk-{}", summary["last_checkpoint"]));
    chk.to_str().unwrap().to_owned()
}

#[test]
fn files_give_the_fold_at_every_parallelism_on_both_backends() {
    let text = text(LINES);
    let expected = fold(&text);
    assert!(expected.top.lines().count() as u64 > LINES / 20);
    let place = place_with(&text);
    for parallelism in ["1", "2", "7"] {
        for backend in ["lsm", "heap"] {
            let words = [&FILES[..], &["-p", parallelism, "--backend", backend]].concat();
            let words = [
                &words[..],
                &["--memtable", "64KiB", "--checkpoint-interval", "50ms"],
            ]
            .concat();
            let summary = run(&place, &words).summary();
            assert_eq!(
                (&summary["state"], &summary["records"]),
                (&"finished".into(), &LINES.into())
            );
            assert_eq!(summary["outputs"].as_array().unwrap().len(), 2);
            assert_output(&place, &expected);
        }
    }
    run(&place, &[&FILES[..], &["--resume"]].concat()).summary();
    run(&place, &["--input", "a.txt", "--resume"]).error("InvalidArgument", 2);
}

#[test]
fn killed_runs_go_on_with_another_parallelism_and_backend() {
    let text = text(LINES);
    let place = place_with(&text);
    let mut child = wordcount(&place, &[&FILES[..], SLOW].concat()).spawn().unwrap();
    for (i, (parallelism, backend)) in [("7", "heap"), ("1", "lsm"), ("3", "heap")].iter().enumerate() {
        place.wait_for(&mut child, "two more checkpoints", |events| {
            let starts = events.iter().filter(|e| e["event"] == "started").count();
            let last = events.iter().rposition(|e| e["event"] == "started").unwrap_or(0);
            starts > i && completed(&events[last..]) >= 2
        });
        child.kill().unwrap();
        child.wait().unwrap();
        run(&place, &FILES).error("InterruptedRun", 5);
        let words = [&["--resume", "-p", parallelism, "--backend", backend], SLOW].concat();
        child = wordcount(&place, &words).spawn().unwrap();
    }
    Run::of(child.wait_with_output().unwrap()).summary();
    assert_output(&place, &fold(&text));
}

#[test]
fn a_moved_snapshot_goes_on_at_another_parallelism_on_the_other_backend() {
    let text = text(LINES);
    for (backend, other) in [("lsm", "heap"), ("heap", "lsm")] {
        let place = place_with(&text);
        let words = [&FILES[..], SLOW, &["--backend", backend, "-p", "3"]].concat();
        let child = wordcount(&place, &words).spawn().unwrap();
        let checkpoint = stop(&place, child, 3);
        let exported = obey(&place, &["snapshot", "export", &checkpoint, "--to", "sp"]).summary();
        fs::rename(
            place.path(exported["directory"].as_str().unwrap()),
            place.path("moved"),
        )
        .unwrap();
        fs::remove_dir_all(place.state_dir()).unwrap();
        let words = [&FILES[..], &["-s", "moved", "-p", "2", "--backend", other]].concat();
        run(&place, &words).summary();
        assert_output(&place, &fold(&text));
    }
}

#[test]
fn savepoints_of_a_running_job_outlive_it_with_the_parts_they_name() {
    let text = text(LINES);
    let expected = fold(&text);
    let place = place_with(&text);
    let words = [&FILES[..], SLOW, &["-p", "2", "--control-port", "0"]].concat();
    let mut child = wordcount(&place, &words).spawn().unwrap();
    let mut savepoints = Vec::new();
    // Pages are over from about the thousandth line on: no split may hold event time back.
    for (lines, format) in [(1_500, "native"), (3_000, "canonical")] {
        place.wait_for(&mut child, "a checkpoint behind some pages", |events| {
            let last = events.iter().rfind(|e| e["event"] == "completed");
            last.is_some_and(|e| e["offset"].as_u64() > Some(lines))
        });
        let words = ["savepoint", "wordcount", "taken", "--type", format];
        let run = Run::of(place.command(&words).output().unwrap());
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        savepoints.push(run.stdout.lines().last().unwrap().to_owned());
    }
    Run::of(child.wait_with_output().unwrap()).summary();
    assert_output(&place, &expected);

    let holds = || {
        let ls = obey(&place, &["sink", "ls", "out"]).summary();
        let histories = ls["histories"].as_array().unwrap().clone();
        histories
            .iter()
            .map(|h| h["holds"].as_array().unwrap().len())
            .sum::<usize>()
    };
    assert!(holds() >= 2);
    for (savepoint, parallelism, backend) in [(&savepoints[0], "3", "heap"), (&savepoints[1], "1", "lsm")] {
        for name in ["words.csv", "top.csv"] {
            fs::remove_file(place.path("out").join(name)).unwrap();
        }
        let words = ["-s", savepoint, "-p", parallelism, "--backend", backend];
        run(&place, &[&FILES[..], &words].concat()).summary();
        assert_output(&place, &expected);
    }
    for savepoint in &savepoints {
        let name = savepoint.rsplit('/').next().unwrap();
        obey(&place, &["sink", "release", "out", "--savepoint", name]).summary();
    }
    let left = fs::read_dir(place.path("out")).unwrap().count();
    assert_eq!((holds(), left), (0, 2), "nothing but the output stays");
}

#[test]
fn standard_input_is_counted_and_what_cannot_be_promised_is_said() {
    let text = text(2_000);
    let place = Place::new();
    for words in [&["-p", "3"][..], &["--input", "-"]] {
        let run = feed(&mut wordcount(&place, words), &text);
        assert!(
            run.stderr.contains("standard input cannot be read again"),
            "{}",
            run.stderr
        );
        run.summary();
        assert_output(&place, &fold(&text));
    }
    let told = |e: &Value| e["event"] == "warning" && e["name"] == "not-replayable";
    assert!(place.events().iter().any(told));
    let packed = zstd::stream::encode_all(text.as_bytes(), 3).unwrap();
    let mut child = wordcount(&place, &[]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&packed).unwrap();
    Run::of(child.wait_with_output().unwrap()).summary();
    assert_output(&place, &fold(&text));
}

#[test]
fn an_interrupted_reading_of_standard_input_is_not_resumed_but_goes_on_with_the_rest() {
    // Lines would be lost without a word.
    let text = text(2_000);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let place = Place::new();
    let mut command = wordcount(&place, &["--checkpoint-interval", "20ms"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines[..700].concat().as_bytes()).unwrap();
    input.flush().unwrap();
    place.wait_for(&mut child, "a checkpoint with all lines", |events| {
        let last = events.iter().rfind(|e| e["event"] == "completed");
        last.is_some_and(|e| e["offset"] == 700)
    });
    let checkpoint = stop(&place, child, 1);
    drop(input);

    let refused = run(&place, &["--resume"]).error("InvalidArgument", 2);
    assert!(
        refused["message"].as_str().unwrap().contains("--restart"),
        "{refused}"
    );
    let refused = run(&place, &[]).error("InterruptedRun", 5);
    assert!(
        !refused["message"].as_str().unwrap().contains("--resume"),
        "{refused}"
    );
    let words = ["--restart", "-s", &checkpoint, "-p", "3", "--backend", "heap"];
    feed(&mut wordcount(&place, &words), &lines[700..].concat()).summary();
    assert_output(&place, &fold(&text));
}

#[test]
fn bad_input_is_named_or_passed_over() {
    let place = Place::new();
    fs::write(place.path("a.txt"), "one\ntwo\n").unwrap();
    fs::write(place.path("b.txt"), b"three\nf\xffour\nfive\n").unwrap();
    let files = ["--input", "a.txt", "b.txt"];
    let error = run(&place, &files).error("BadRecord", 1);
    let text = error.to_string();
    assert!(text.contains("b.txt") && text.contains("\"2\""), "{text}");
    let summary = run(
        &place,
        &[&files[..], &["--restart", "--on-bad-record", "skip"]].concat(),
    )
    .summary();
    assert_eq!(
        (&summary["records"], &summary["bad_records"]),
        (&4.into(), &1.into())
    );
    assert_eq!(place.output("words.csv").lines().count(), 5);

    run(&place, &["--input", "-", "a.txt"]).error("InvalidArgument", 2);
    run(&place, &["--input", "missing"]).error("InputUnreadable", 1);
    let two = place.flights(&["--input", "a.txt", "b.txt"]).output().unwrap();
    Run::of(two).error("InvalidArgument", 2);
    let nothing = feed(&mut wordcount(&place, &[]), "");
    nothing.summary();
    assert_eq!(place.output("top.csv"), "first_line,rank,word,count\n");
}
