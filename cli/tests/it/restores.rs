//! Starting from a snapshot with everything that can be said about it, and looking before starting.

use crate::{
    fold,
    place::{Place, Run, listing, signal},
};
use keybed::snapshot::{OperatorUid, metadata};
use serde_json::Value;
use std::fs;

/// A run that is met in the middle.
const SLOW: &[&str] = &["--throttle", "30000", "--checkpoint-interval", "100ms"];

/// An exported checkpoint of a stopped run, at `sp`, and nothing else but the output.
fn savepoint(place: &Place) {
    let mut child = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut child, "two completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > 1
    });
    signal(&child, "INT");
    let stopped: Value = serde_json::from_str(&Run::of(child.wait_with_output().unwrap()).stdout).unwrap();
    let checkpoint = place
        .job_root()
        .join(format!("chk-{}", stopped["last_checkpoint"]));
    let words = [
        "snapshot",
        "export",
        checkpoint.to_str().unwrap(),
        "--to",
        "exported",
    ];
    let run = Run::of(place.command(&words).output().unwrap());
    let location = run.stdout.lines().last().unwrap();
    fs::rename(place.path(location), place.path("sp")).unwrap();
    fs::remove_dir_all(place.state_dir()).unwrap();
}

/// Gives an operator of the snapshot at `sp` another uid, as an older program would have.
fn rename(place: &Place, old: &str, new: &str) {
    let path = place.path("sp").join("_metadata");
    let mut content = metadata::decode(&fs::read(&path).unwrap()).unwrap();
    for operator in content.operators.iter_mut().filter(|o| o.uid.as_str() == old) {
        operator.uid = OperatorUid::new(new).unwrap();
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, metadata::encode(&content).unwrap()).unwrap();
}

fn everything(place: &Place) -> Vec<(String, Vec<u8>)> {
    let files = listing(&place.path("")).into_iter();
    files
        .map(|file| {
            (
                file.display().to_string(),
                fs::read(place.path("").join(&file)).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_check_tells_all_problems_writes_nothing_and_the_map_heals_them() {
    // The operator would find them one by one, each after a start that had touched something.
    let place = Place::new();
    savepoint(&place);
    rename(&place, "aircraft", "planes");
    let before = everything(&place);

    let words = ["-s", "sp", "--check", "-p", "200", "--map", "nobody=daily"];
    let run = place.run(&words);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (run.status, &report["compatible"]),
        (5, &false.into()),
        "{report:#}"
    );
    let codes: Vec<&str> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["code"].as_str().unwrap())
        .collect();
    for code in [
        "InvalidArgument",
        "UnmappedOperatorState",
        "ParallelismExceedsMax",
    ] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    assert_eq!(report["snapshot"]["kind"], "native savepoint");
    let standing = |uid: &str| {
        let operators = report["operators"].as_array().unwrap();
        operators.iter().find(|o| o["uid"] == uid).unwrap()["standing"].clone()
    };
    assert_eq!(
        (standing("planes"), standing("aircraft")),
        ("unmapped".into(), "new".into())
    );

    let words = [
        "run",
        "flights",
        "--state-dir",
        "state",
        "-s",
        "sp",
        "--check",
        "--input",
    ];
    let text = Run::of(place.command(&words).arg(fold::input()).output().unwrap());
    assert_eq!(text.status, 5, "{}{}", text.stdout, text.stderr);
    for words in [
        "unmapped  planes",
        "error: UnmappedOperatorState",
        "would not start: 1 problem",
    ] {
        assert!(text.stdout.contains(words), "{words} in {}", text.stdout);
    }
    let refused = place.run(&["-s", "sp"]).error("UnmappedOperatorState", 5);
    assert_eq!(refused["fields"]["uid"], "planes");
    // The run that was refused may leave its empty directories and the log, and nothing else.
    fs::remove_dir_all(place.state_dir()).unwrap();
    assert_eq!(everything(&place), before);

    let mapped = ["-s", "sp", "--map", "planes=aircraft"];
    let look = place.run(&[&mapped[..], &["--check"]].concat());
    assert_eq!(look.summary()["compatible"], true);
    assert_eq!(everything(&place), before);
    let summary = place.run(&mapped).summary();
    assert_eq!(summary["state"], "finished");
    assert_eq!(summary["depends_on_restored_snapshot"], false);
    place.assert_output(&fold::expected());
    let released = place
        .events()
        .iter()
        .filter(|e| e["event"] == "source-snapshot-released")
        .count();
    assert_eq!(released, 1);
}

#[test]
fn state_is_left_out_by_permission_alone() {
    // A misspelt permission would drop what nobody wanted to lose.
    let place = Place::new();
    savepoint(&place);
    rename(&place, "daily", "weekly");
    place
        .run(&["-s", "sp", "-n=aircraft"])
        .error("UnmappedOperatorState", 5);
    let summary = place.run(&["-s", "sp", "-n=weekly"]).summary();
    assert_eq!(summary["state"], "finished");
    let warning = place
        .events()
        .into_iter()
        .find(|e| e["event"] == "warning")
        .unwrap();
    assert_eq!(warning["name"], "left-out");
}

#[test]
fn a_resume_starts_from_the_snapshot_in_the_way_that_was_said() {
    // The names of the first start would be forgotten, and the job could not go on.
    let place = Place::new();
    savepoint(&place);
    rename(&place, "aircraft", "planes");
    let words = [
        "-s",
        "sp",
        "--map",
        "planes=aircraft",
        "--throttle",
        "30000",
        "--checkpoint-interval",
        "1h",
    ];
    let mut child = place.flights(&words).spawn().unwrap();
    place.wait_for(&mut child, "the start", |events| {
        events.iter().any(|e| e["event"] == "started")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.run(&["--resume"]).summary()["state"], "finished");
    place.assert_output(&fold::expected());
}

#[test]
fn a_claimed_snapshot_has_one_owner_who_can_give_it_back() {
    // Two jobs would delete each other's state, or nobody could ever use it again.
    let place = Place::new();
    savepoint(&place);
    let slow = [
        "-s",
        "sp",
        "-claimMode",
        "CLAIM",
        "--throttle",
        "30000",
        "--checkpoint-interval",
        "1h",
    ];
    let mut child = place.flights(&slow).spawn().unwrap();
    place.wait_for(&mut child, "the start", |events| {
        events.iter().any(|e| e["event"] == "started")
    });
    let owner = place.job_root().file_name().unwrap().to_str().unwrap().to_owned();
    let second = |words: &[&str]| {
        let words = [
            &[
                "run",
                "flights",
                "--json",
                "--state-dir",
                "second",
                "--out",
                "out",
                "-s",
                "sp",
            ],
            words,
        ];
        Run::of(
            place
                .command(&words.concat())
                .arg("--input")
                .arg(fold::input())
                .output()
                .unwrap(),
        )
    };
    let refused = second(&["-cm", "claim"]).error("SnapshotClaimedByOther", 5);
    assert_eq!(refused["fields"]["owner"], owner);
    let root = refused["fields"]["owner_root"].as_str().unwrap();
    assert!(root.starts_with('/'), "found from anywhere: {root}");
    assert!(refused["hint"].as_str().unwrap().contains("claim --release"));
    second(&["-cm", "claim", "--take-over"]).error("Locked", 4);
    // Who only reads is told.
    let look: Value = serde_json::from_str(&second(&["--check"]).stdout).unwrap();
    assert_eq!(look["warnings"][0]["name"], "claimed", "{look:#}");

    let release = || {
        Run::of(
            place
                .command(&["claim", "--release", "sp", "--json"])
                .output()
                .unwrap(),
        )
    };
    release().error("Locked", 4);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(release().summary()["released_from"], owner);
    assert_eq!(release().summary()["released_from"], Value::Null);
    // The job goes on under a claim of its own, or another one takes its place.
    let mut child = place
        .flights(&["--resume", "--throttle", "30000", "--checkpoint-interval", "1h"])
        .spawn()
        .unwrap();
    place.wait_for(&mut child, "the second start", |events| {
        events.iter().filter(|e| e["event"] == "started").count() > 1
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let anew = [
        "--restart",
        "-s",
        "sp",
        "-claimMode",
        "CLAIM",
        "--checkpoint-interval",
        "50ms",
        "--throttle",
        "100000",
    ];
    place.run(&anew).error("SnapshotClaimedByOther", 5);
    let summary = place.run(&[&anew[..], &["--take-over"]].concat()).summary();
    assert_eq!(summary["state"], "finished");
    place.assert_output(&fold::expected());
    assert!(!place.path("sp").exists(), "it went when it was subsumed");
}

#[test]
fn flinks_words_are_understood() {
    // Scripts written for Flink would have to be rewritten.
    let place = Place::new();
    savepoint(&place);
    for mode in ["NO_CLAIM", "CLAIM", "LEGACY"] {
        let words = [
            "-claimMode",
            mode,
            "--fromSavepoint",
            "sp",
            "--allowNonRestoredState",
            "--check",
        ];
        assert_eq!(place.run(&words).summary()["compatible"], true, "{mode}");
    }
    let refused = place.run(&["-yid", "application_1"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused.stdout.contains("do not run on YARN"),
        "{}",
        refused.stdout
    );
}

#[test]
fn a_snapshot_of_another_input_is_not_finished_with_a_shorter_one() {
    // Exit code 0, no record read, and an output that looked complete.
    let place = Place::new();
    savepoint(&place);
    let text = "dep_time,dep_delay,tailnum,origin,dest,distance,minute,time_hour\n";
    fs::write(place.path("short.csv"), text).unwrap();
    let run = place.run(&["-s", "sp", "--input", "short.csv"]);
    let error = run.error("InvalidArgument", 2);
    assert!(error["file"].as_str().unwrap().ends_with("short.csv"), "{error}");
    assert!(!place.path("out/aircraft.csv").exists());
}
