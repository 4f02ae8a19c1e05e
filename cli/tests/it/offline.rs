//! `keybed snapshot ls | convert`, `keybed gc` and `keybed owners`, over what real runs left behind.

use crate::{
    fold,
    place::{Place, Run, listing, signal},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

/// A run that is met in the middle: about 11 s if left alone.
const SLOW: &[&str] = &["--throttle", "30000", "--checkpoint-interval", "100ms"];

pub(crate) fn obey(place: &Place, words: &[&str]) -> Run {
    Run::of(place.command(words).arg("--json").output().unwrap())
}

fn text(place: &Place, words: &[&str]) -> String {
    let run = Run::of(place.command(words).output().unwrap());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    run.stdout
}

/// Ends a run in the middle by a signal.
pub(crate) fn ended(place: &Place, more: &[&str], by: &str) {
    let before = place
        .events()
        .iter()
        .filter(|e| e["event"] == "completed")
        .count();
    let mut child = place.flights(&[SLOW, more].concat()).spawn().unwrap();
    place.wait_for(&mut child, "two completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > before + 1
    });
    signal(&child, by);
    child.wait_with_output().unwrap();
}

/// Every file with a hash of its bytes, the lock file too.
pub(crate) fn hash(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let hash = |path: &PathBuf| {
        let mut hasher = DefaultHasher::new();
        fs::read(dir.join(path)).unwrap().hash(&mut hasher);
        hasher.finish()
    };
    listing(dir)
        .into_iter()
        .map(|path| (path.clone(), hash(&path)))
        .collect()
}

pub(crate) fn newest(place: &Place) -> PathBuf {
    let list = obey(place, &["snapshot", "ls", "state"]).summary();
    let snapshots = list["snapshots"].as_array().unwrap();
    let timeline = snapshots.iter().filter(|s| s["standing"] == "timeline");
    let newest = timeline.max_by_key(|s| s["checkpoint"].as_u64()).unwrap();
    place.path(newest["directory"].as_str().unwrap())
}

fn paths(root: &Value) -> Vec<String> {
    let swept = root["swept"].as_array().unwrap();
    swept
        .iter()
        .map(|swept| swept["path"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn snapshots_are_listed_converted_and_finish_the_job_in_either_format() {
    // The user could not find a snapshot, or a converted one would lose state.
    let place = Place::new();
    ended(&place, &["--backend", "lsm"], "INT");
    let checkpoint = newest(&place);
    let before = hash(&place.job_root());
    let words = [
        "snapshot",
        "convert",
        checkpoint.to_str().unwrap(),
        "--to",
        "canonical",
        "sp",
    ];
    let said = text(&place, &words);
    let canonical = said.lines().last().unwrap().to_owned();
    assert!(place.path(&canonical).join("_metadata").is_file(), "{said}");
    assert_eq!(hash(&place.job_root()), before, "the source is only read");
    let native = obey(
        &place,
        &["snapshot", "convert", &canonical, "--to", "native", "sp"],
    )
    .summary();
    assert_eq!(native["kind"], "native savepoint");
    let native = native["directory"].as_str().unwrap();

    let list = obey(&place, &["snapshot", "ls", "sp", "state/checkpoints"]).summary();
    let kinds: Vec<&str> = list["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| kind.ends_with("savepoint")).count(),
        2,
        "{list}"
    );
    let table = text(&place, &["snapshot", "ls", "sp", "state"]);
    assert!(
        table.starts_with("KIND") && table.contains("canonical savepoint") && table.contains("depends on"),
        "{table}"
    );
    let inspected = obey(&place, &["snapshot", "inspect", checkpoint.to_str().unwrap()]).summary();
    assert_eq!(inspected["standing"], "timeline");
    let shared = place.job_root().join("shared");
    assert_eq!(inspected["depends_on"], serde_json::json!([shared]));

    // The source is gone; each goes on alone, on the other backend.
    fs::remove_dir_all(place.state_dir()).unwrap();
    for (savepoint, backend) in [(canonical.as_str(), "heap"), (native, "lsm")] {
        obey(&place, &["snapshot", "verify", savepoint]).summary();
        let summary = place
            .run(&["--restart", "-s", savepoint, "-p", "3", "--backend", backend])
            .summary();
        assert_eq!(summary["state"], "finished");
        place.assert_output(&fold::expected());
        fs::remove_dir_all(place.state_dir()).unwrap();
    }
    let again = obey(
        &place,
        &["snapshot", "convert", native, "--to", "canonical", "sp2"],
    )
    .summary();
    obey(
        &place,
        &["snapshot", "verify", again["directory"].as_str().unwrap()],
    )
    .summary();
}

#[test]
fn garbage_of_a_killed_run_goes_as_the_dry_run_said_and_the_job_goes_on() {
    // Files would be lost that a checkpoint needs, or stay for ever.
    let place = Place::new();
    ended(&place, &[], "KILL");
    let root = place.job_root();
    // What a run that died at another moment would have left besides.
    let orphans = [
        "shared/g1-c1-000000000000000000000000000000aa",
        "chk-900/g1-c900-000000000000000000000000000000ab",
    ];
    fs::create_dir(root.join("chk-900")).unwrap();
    for orphan in orphans {
        fs::write(root.join(orphan), b"left").unwrap();
    }
    fs::write(root.join("notes.txt"), b"mine").unwrap();
    let before = hash(&root);
    let dry = obey(&place, &["gc", "state", "--dry-run"]).summary();
    assert_eq!(hash(&root), before, "a dry run changes nothing");
    let aged = obey(&place, &["gc", "state", "--min-age", "1h"]).summary();
    assert_eq!(paths(&aged["roots"][0]), [""; 0], "garbage is young");
    let said = text(&place, &["gc", "state", "--dry-run"]);
    let wet = obey(&place, &["gc", root.to_str().unwrap()]).summary();
    assert_eq!(dry["roots"][0]["swept"], wet["roots"][0]["swept"]);
    let swept = paths(&wet["roots"][0]);
    for orphan in orphans {
        assert!(
            swept.iter().any(|path| path == orphan) && said.contains(orphan),
            "{wet}"
        );
    }
    let mut expected = before.clone();
    expected.retain(|path, _| !swept.iter().any(|swept| Path::new(swept) == path));
    assert_eq!(hash(&root), expected, "exactly what was said went");
    let again = obey(&place, &["gc", "state"]).summary();
    assert_eq!(paths(&again["roots"][0]), [""; 0]);
    assert!(root.join("notes.txt").exists());
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

#[test]
fn a_running_job_sweeps_its_own_root_when_asked() {
    // The user would have to end the job to get space back, or the sweep would take what it is writing.
    let place = Place::new();
    let mut child = place.flights(SLOW).spawn().unwrap();
    place.wait_for(&mut child, "two completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > 1
    });
    let root = place.job_root();
    let orphan = "shared/g1-c1-000000000000000000000000000000aa";
    fs::write(root.join(orphan), b"left").unwrap();
    // While a checkpoint is under way, which might name it, it is not garbage: asked again then.
    let sweep = |words: &[&str]| {
        let told = obey(&place, words).summary();
        assert_eq!(told["roots"][0]["by_owner"], true, "{told}");
        paths(&told["roots"][0]).iter().any(|path| path == orphan)
    };
    assert!((0..200).any(|_| sweep(&["gc", "state", "--dry-run"])));
    assert!(root.join(orphan).exists());
    // One that had to be left is known from then on: the job's own cleanup may take it before it is asked again.
    let gone = |told: bool| told || !root.join(orphan).exists();
    assert!((0..200).any(|_| gone(sweep(&["gc", root.to_str().unwrap()]))));
    assert!(!root.join(orphan).exists());
    let id = root.file_name().unwrap().to_str().unwrap();
    obey(&place, &["gc", "state/checkpoints", "--given-up", id]).error("GcRefused", 5);
    place.wait_for(&mut child, "four completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > 3
    });
    signal(&child, "KILL");
    child.wait().unwrap();
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

#[test]
fn a_root_in_use_or_with_unreadable_metadata_is_refused_and_untouched() {
    // A sweep would take files from under a running job, or decide without knowing who needs them.
    let place = Place::new();
    let mut child = place
        .flights(&[SLOW, &["--control-port", "off"]].concat())
        .spawn()
        .unwrap();
    place.wait_for(&mut child, "two completed checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() > 1
    });
    let root = place.job_root();
    for words in [
        &["gc", "state"][..],
        &["gc", "state", "--dry-run"],
        &["gc", root.to_str().unwrap()],
    ] {
        let error = obey(&place, words).error("GcRefused", 5);
        assert_eq!(error["fields"]["reason"], "live owner");
        assert_eq!(error["fields"]["pid"], child.id().to_string());
    }
    let object = listing(&root.join("shared")).pop().unwrap();
    let told = obey(
        &place,
        &["owners", root.join("shared").join(object).to_str().unwrap()],
    );
    assert_eq!(told.summary()["may_be_deleted"], false);
    signal(&child, "KILL");
    child.wait().unwrap();

    let metadata = newest(&place).join("_metadata");
    let good = fs::read(&metadata).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&metadata, &bad).unwrap();
    let before = hash(&root);
    for words in [&["gc", "state"][..], &["gc", "state", "--dry-run"]] {
        let error = obey(&place, words).error("GcRefused", 5);
        assert_eq!(error["fields"]["reason"], "unreadable metadata");
        assert!(
            error["fields"]["because"].as_str().unwrap().contains("chk-"),
            "{error}"
        );
    }
    assert_eq!(hash(&root), before);
    let list = obey(&place, &["snapshot", "ls", "state"]).summary();
    let unreadable = list["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["standing"] == "unreadable")
        .count();
    assert_eq!(unreadable, 1, "{list}");
    fs::write(&metadata, &good).unwrap();
    obey(&place, &["gc", "state"]).summary();
}

#[test]
fn a_history_that_was_given_up_goes_only_by_its_name() {
    let place = Place::new();
    ended(&place, &[], "KILL");
    let old = place.job_root();
    ended(&place, &["--restart"], "KILL");
    let current = place.job_root();
    let id = |root: &Path| root.file_name().unwrap().to_str().unwrap().to_owned();
    let swept = obey(&place, &["gc", "state"]).summary();
    assert_eq!(swept["given_up"][0]["job_id"], id(&old));
    assert!(text(&place, &["gc", "state", "--dry-run"]).contains("--given-up"));
    let before = hash(&old);
    obey(&place, &["gc", "state", "--given-up", &id(&current)]).error("GcRefused", 5);
    obey(&place, &["gc", "state", "--given-up", &"0".repeat(32)]).error("NotASnapshot", 1);
    assert_eq!(obey(&place, &["gc", "state", "--given-up", "x"]).status, 2);
    let dry = obey(&place, &["gc", "state", "--dry-run", "--given-up", &id(&old)]).summary();
    assert_eq!(hash(&old), before);
    let wet = obey(&place, &["gc", "state", "--given-up", &id(&old)]).summary();
    assert_eq!(dry["roots"], wet["roots"]);
    assert!(!old.exists());
    assert_eq!(wet["given_up"], serde_json::json!([]));
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

#[test]
fn a_file_is_answered_for_and_hard_links_and_disposal_say_what_they_do() {
    let place = Place::new();
    ended(&place, &[], "INT");
    let checkpoint = newest(&place);
    let checkpoint = checkpoint.to_str().unwrap();
    let words = ["snapshot", "export", checkpoint, "--to", "sp", "--hard-links"];
    let exported = obey(&place, &words).summary();
    let shared = place.job_root().join("shared").display().to_string();
    assert!(
        exported["shares_storage_with"].to_string().contains(&shared),
        "{exported}"
    );
    let savepoint = exported["directory"].as_str().unwrap();
    let inspected = obey(&place, &["snapshot", "inspect", savepoint]).summary();
    assert_eq!(inspected["shares_storage_with"], exported["shares_storage_with"]);

    let before = hash(&place.path(savepoint));
    let file = before
        .keys()
        .find(|path| path.to_str().unwrap().starts_with('g'))
        .unwrap();
    let file = place.path(savepoint).join(file);
    let told = obey(&place, &["owners", file.to_str().unwrap()]).summary();
    assert_eq!(
        (&told["owner"]["kind"], &told["may_be_deleted"]),
        (&"user".into(), &false.into())
    );
    assert_eq!(told["needed_by"][0]["kind"], "native savepoint");
    let said = text(&place, &["owners", checkpoint]);
    assert!(
        said.lines().count() < 24 && said.contains("needed by") && said.contains("deletable  no"),
        "{said}"
    );
    obey(&place, &["owners", "state/job.json"]).error("NotASnapshot", 1);

    let dry = obey(&place, &["snapshot", "dispose", savepoint, "--dry-run"]).summary();
    assert_eq!(dry["removed_directory"], false);
    assert_eq!(hash(&place.path(savepoint)), before);
    let wet = obey(&place, &["snapshot", "dispose", savepoint]).summary();
    assert_eq!(dry["files"], wet["files"]);
    assert!(!place.path(savepoint).exists());
    obey(&place, &["snapshot", "verify", checkpoint]).summary();
}
