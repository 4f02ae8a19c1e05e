//! Running jobs as one speaks to them: by the verbs of the command, and by plain HTTP.

use crate::{
    fold,
    place::{Place, Run},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Child,
};

/// A run that is met in the middle: about 17 s if left alone.
const SLOW: &[&str] = &[
    "--throttle",
    "20000",
    "--checkpoint-interval",
    "200ms",
    "--control-port",
    "0",
];

/// A job that runs.
pub(crate) struct Running<'a> {
    place: &'a Place,
    child: Child,
}

impl<'a> Running<'a> {
    /// Starts a slow run and waits for its first checkpoint.
    pub(crate) fn start(place: &'a Place, words: &[&str]) -> Running<'a> {
        let completed = |events: &[Value]| events.iter().filter(|e| e["event"] == "completed").count();
        let before = completed(&place.events());
        let mut child = place.flights(&[SLOW, words].concat()).spawn().unwrap();
        place.wait_for(&mut child, "a completed checkpoint", |events| {
            completed(events) > before
        });
        Running { place, child }
    }

    /// The job in `keybed list`.
    pub(crate) fn listed(&self) -> Value {
        let jobs = obey(self.place, &["list"]).summary();
        assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");
        jobs["jobs"][0].clone()
    }

    pub(crate) fn address(&self) -> String {
        self.listed()["address"].as_str().unwrap().to_owned()
    }

    pub(crate) fn end(self) -> Run {
        Run::of(self.child.wait_with_output().unwrap())
    }
}

pub(crate) fn obey(place: &Place, words: &[&str]) -> Run {
    Run::of(place.command(words).arg("--json").output().unwrap())
}

/// As people see it: no JSON.
fn say(place: &Place, words: &[&str]) -> Run {
    Run::of(place.command(words).output().unwrap())
}

/// Sends bytes and reads until the endpoint closes the connection; status and body.
pub(crate) fn http(address: &str, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.to_lowercase().contains("\r\nconnection: close"), "{head}");
    (
        status,
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")),
    )
}

#[test]
fn a_running_job_is_found_asked_and_cancelled_by_its_name() {
    // The verbs would speak to nobody, to another job, or leave a directory that is no savepoint.
    let place = Place::new();
    let running = Running::start(&place, &["--savepoint-dir", "sp"]);
    let listed = running.listed();
    let id = listed["job_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&listed["job"], &listed["state"]),
        (&json!("flights"), &json!("RUNNING"))
    );

    for (words, canonical) in [
        (&["savepoint", "flights"][..], false),
        (&["savepoint", &id, "--type", "canonical"], true),
        (
            &["savepoint", "-type", "native", "flights", "elsewhere/deep"],
            false,
        ),
    ] {
        let run = say(&place, words);
        assert_eq!((run.status, run.stdout.lines().count()), (0, 1), "{}", run.stderr);
        let directory = run.stdout.trim();
        assert!(Path::new(directory).is_absolute());
        let inspected = obey(&place, &["snapshot", "inspect", directory]).summary();
        assert_eq!(
            inspected.to_string().contains("canonical"),
            canonical,
            "{inspected}"
        );
        obey(&place, &["snapshot", "verify", directory]).summary();
        let from = words.get(4).map_or("sp", |_| "elsewhere/deep");
        assert_eq!(
            Path::new(directory).parent().unwrap(),
            place.path(from).canonicalize().unwrap()
        );
    }
    let plain = obey(&place, &["checkpoint", "flights"]).summary();
    let full = obey(&place, &["checkpoint", "flights", "--full"]).summary();
    assert!(full["checkpoint"].as_u64() > plain["checkpoint"].as_u64());
    let status = obey(&place, &["status", "flights"]).summary();
    assert_eq!(
        (&status["state"], &status["ended"]),
        (&json!("Running"), &json!(false))
    );

    let error = obey(&place, &["savepoint", "fligths"]).error("UnknownJob", 2);
    assert_eq!(error["fields"]["nearest"], "flights");
    obey(&place, &["savepoint", "flights", "/nowhere/else"]).error("InvalidArgument", 2);
    assert!(!Path::new("/nowhere").exists());

    let run = say(&place, &["cancel", "flights"]);
    assert_eq!(
        (run.status, run.stdout.trim()),
        (0, format!("cancelled flights {id}").as_str())
    );
    let run = running.end();
    let summary: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.status, &summary["state"]), (1, &json!("cancelled")));
    assert!(
        run.stderr.starts_with("control endpoint http://127.0.0.1:"),
        "{}",
        run.stderr
    );
    obey(&place, &["cancel", "flights"]).error("UnknownJob", 2);
    assert_eq!(obey(&place, &["list"]).summary(), json!({ "jobs": [] }));
    let all = obey(&place, &["list", "-a"]).summary();
    assert_eq!(
        (&all["jobs"][0]["state"], &all["jobs"][0]["job_id"]),
        (&json!("CANCELED"), &json!(id))
    );
    // Its checkpoints stay.
    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}

/// A savepoint by links names what it shares storage with, holds the same state, and outlives the job's files.
#[test]
fn a_savepoint_by_links_says_what_it_shares_and_outlives_the_job() {
    let place = Place::new();
    let running = Running::start(&place, &["--memtable", "64KiB"]);
    let refused = obey(
        &place,
        &[
            "savepoint",
            "flights",
            "sp",
            "--type",
            "canonical",
            "--hard-links",
        ],
    );
    refused.error("InvalidArgument", 2);
    let taken = obey(&place, &["savepoint", "flights", "sp", "--hard-links"]).summary();
    let location = taken["location"].as_str().unwrap();
    obey(&place, &["cancel", "flights"]);
    running.end();
    let inspected = obey(&place, &["snapshot", "inspect", location]).summary();
    let shares = inspected["shares_storage_with"].as_array().unwrap();
    assert!(!shares.is_empty(), "{inspected}");
    fs::remove_dir_all(place.state_dir()).unwrap();
    let verified = obey(&place, &["snapshot", "verify", location]);
    verified.summary();
}

#[test]
fn a_detached_request_is_told_later_and_after_the_end_of_the_job() {
    // Whoever asked and went away would never learn where the savepoint is (D47).
    let place = Place::new();
    let running = Running::start(&place, &["--savepoint-dir", "sp"]);
    let run = say(&place, &["savepoint", "flights", "--detached"]);
    let request = run.stdout.trim().to_owned();
    assert_eq!((run.status, request.len()), (0, 32), "{}", run.stderr);
    let status = ["status", "flights", "--request", request.as_str()];
    let told = loop {
        let told = obey(&place, &status).summary();
        if told["status"] != "in-progress" {
            break told;
        }
    };
    let location = told["location"].as_str().unwrap();
    assert!(Path::new(location).join("_metadata").is_file());
    let unknown = "0123456789abcdef0123456789abcdef";
    obey(&place, &["status", "flights", "--request", unknown]).error("NotFound", 1);

    // One that fails: a file is in the way.
    fs::write(place.path("taken"), "").unwrap();
    let failed = obey(&place, &["savepoint", "flights", "taken/x", "--detached"]);
    failed.error("InvalidArgument", 2);
    obey(&place, &["cancel", "flights"]).summary();
    running.end();
    for words in [
        &status[..],
        &["status", "--state-dir", "state", "--request", &request],
    ] {
        let after = obey(&place, words).summary();
        assert_eq!(after["location"], location);
    }
    obey(&place, &["status", "flights", "--request", unknown]).error("NotFound", 1);
}

#[test]
fn two_jobs_of_one_name_are_told_apart_by_their_ids() {
    // The wrong one would be cancelled.
    let place = Place::new();
    let first = Running::start(&place, &[]);
    let id = first.listed()["job_id"].as_str().unwrap().to_owned();
    let words = ["--state-dir", "state-2", "--out", "out-2"];
    let mut second = place.command(&["run", "flights", "--json"]);
    second.args(words).args(SLOW).arg("--input").arg(fold::input());
    let mut second = second.spawn().unwrap();
    while obey(&place, &["list"]).summary()["jobs"]
        .as_array()
        .unwrap()
        .len()
        < 2
    {
        assert!(second.try_wait().unwrap().is_none());
    }
    let error = obey(&place, &["cancel", "flights"]).error("InvalidArgument", 2);
    let ids = error["fields"]["ids"].as_str().unwrap();
    assert!(ids.contains(&id) && ids.len() == 66, "{ids}");
    obey(&place, &["cancel", &id]).summary();
    first.end();
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(
        obey(&place, &["list", "-a"]).summary()["jobs"][0]["job_id"],
        json!(id),
        "the killed one is not believed"
    );
}

#[test]
fn a_job_is_stopped_with_a_savepoint_and_goes_on_from_it() {
    // Records would be lost or doubled, or the next run would find the directory locked.
    let place = Place::new();
    for (n, words, drained) in [
        (0, &["stop", "flights", "-p", "sp"][..], false),
        (1, &["cancel", "flights", "-s", "sp"], false),
        (2, &["stop", "flights", "--drain", "--type", "canonical"], true),
    ] {
        let from = place.path(&format!("from-{n}"));
        let from = from.to_str().unwrap();
        let words_of_run: &[&str] = if n == 0 { &[] } else { &["--restart", "-s", from] };
        let running = Running::start(&place, &[words_of_run, &["--savepoint-dir", "sp"]].concat());
        let run = say(&place, words);
        assert_eq!((run.status, run.stdout.lines().count()), (0, 1), "{}", run.stderr);
        let savepoint = run.stdout.trim().to_owned();
        let state = obey(&place, &["list", "-a"]).summary()["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|job| job["state"] == "FINISHED")
            .count();
        assert_eq!(state, n + 1);
        let run = running.end();
        assert_eq!(run.status, i32::from(!drained), "{}", run.stderr);
        let summary: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(
            (&summary["state"], &summary["stopped_with"], &summary["drained"]),
            (&json!("finished"), &json!(savepoint), &json!(drained))
        );
        let again = place.run(&["--resume"]).summary();
        assert_eq!(again["stopped_with"], json!(savepoint), "{again}");
        assert_eq!(
            place.path("out/aircraft.csv").exists(),
            drained,
            "only a drained result is complete"
        );
        fs::rename(savepoint, place.path(&format!("from-{}", n + 1))).unwrap();
    }
}

#[test]
fn what_a_stop_says_is_true_and_can_be_pasted() {
    // "finished", with half of the output; a command that read the default input from positions in another file; no word
    // of savepoints in the event log.
    let place = Place::new();
    let words = [
        "run",
        "flights",
        "--state-dir",
        "my state",
        "--out",
        "my out",
        "--input",
    ];
    let mut run = place.command(&[&words[..], &[fold::input().to_str().unwrap()], SLOW].concat());
    let child = run.spawn().unwrap();
    while obey(&place, &["savepoint", "flights", "sp"]).status != 0 {}
    let savepoint = say(&place, &["stop", "flights", "-p", "sp"])
        .stdout
        .trim()
        .to_owned();
    let said = Run::of(child.wait_with_output().unwrap()).stdout;
    assert!(said.contains("\nflights stopped with a savepoint in "), "{said}");

    let log = fs::read_to_string(place.path("my state/events.jsonl")).unwrap();
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |name: &str| -> Vec<&Value> { events.iter().filter(|e| e["event"] == name).collect() };
    assert_eq!(of("savepoint").len(), 2, "{log}");
    for event in [of("savepoint")[1], of("concluding")[0]] {
        assert_eq!(event["location"], json!(savepoint));
    }

    let (_, again) = said.rsplit_once("go on with   keybed ").unwrap();
    let mut shell = std::process::Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{} {again}", env!("CARGO_BIN_EXE_keybed")));
    let template = place.command(&[]);
    shell.current_dir(template.get_current_dir().unwrap());
    shell.env("XDG_RUNTIME_DIR", place.path("runtime"));
    let run = Run::of(shell.output().unwrap());
    assert_eq!(run.status, 0, "{again}{}", run.stderr);
    fs::rename(place.path("my out"), place.path("out")).unwrap();
    place.assert_output(&fold::expected());
}

#[test]
fn a_job_that_is_over_waits_for_those_who_asked() {
    // Flink's command line comes back a second later, finds nobody, and reports a failed stop.
    let place = Place::new();
    let mut running = Running::start(&place, &["--savepoint-dir", "sp"]);
    let listed = running.listed();
    let (address, id) = (
        listed["address"].as_str().unwrap(),
        listed["job_id"].as_str().unwrap(),
    );
    let head = format!("HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    let (status, body) = http(
        address,
        &format!("POST /v1/jobs/{id}/stop {head}content-length: 2\r\n\r\n{{}}"),
    );
    assert_eq!(status, 202, "{body}");
    let request = body["request-id"].as_str().unwrap();
    place.wait_for(&mut running.child, "the end", |events| {
        events.iter().any(|e| e["event"] == "ended")
    });
    // The state directory is free meanwhile, the outcome on disk and the endpoint open.
    let again = place.run(&["--resume"]).summary();
    assert_eq!(again["state"], "already-finished");
    let words = ["status", "--state-dir", "state", "--request", request];
    let on_disk = obey(&place, &words).summary()["location"]
        .as_str()
        .unwrap()
        .to_owned();
    let (status, body) = http(
        address,
        &format!("GET /v1/jobs/{id}/savepoints/{request} {head}\r\n"),
    );
    assert_eq!(
        (status, &body["operation"]["location"]),
        (200, &json!(format!("file:{on_disk}")))
    );
    let summary: Value = serde_json::from_str(&running.end().stdout).unwrap();
    assert_eq!(summary["stopped_with"], json!(on_disk));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_request_that_its_process_did_not_survive_has_failed() {
    let place = Place::new();
    let directory = place.state_dir().join("requests");
    fs::create_dir_all(&directory).unwrap();
    let request = "0123456789abcdef0123456789abcdef";
    let record = json!({
        "format": 1, "request": request, "job_id": request, "kind": "savepoint", "target": "/sp",
        "savepoint_format": "native", "drain": false, "full": false, "since_ms": 1, "status": "in-progress",
    });
    fs::write(directory.join(format!("{request}.json")), record.to_string()).unwrap();
    let words = ["status", "--state-dir", "state", "--request", request];
    let error = obey(&place, &words).error("Closed", 1);
    assert_eq!(error["file"], "/sp");
}

#[test]
fn without_a_directory_nothing_is_begun() {
    let place = Place::new();
    let running = Running::start(&place, &[]);
    for words in [
        &["savepoint", "flights"][..],
        &["stop", "flights"],
        &["stop", "flights", "--drain"],
        &["cancel", "flights", "-s"],
        &["cancel", "-s", "flights"],
    ] {
        obey(&place, words).error("NoTargetDirectory", 2);
    }
    assert_eq!(running.listed()["state"], "RUNNING");
    let left = fs::read_dir(place.state_dir().join("requests")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    obey(&place, &["cancel", "flights"]).summary();
    running.end();
}

#[test]
fn a_savepoint_is_disposed_of_unless_a_job_needs_it() {
    // A job would lose what it goes back to.
    let place = Place::new();
    let running = Running::start(&place, &["--savepoint-dir", "sp"]);
    let take = || say(&place, &["savepoint", "flights"]).stdout.trim().to_owned();
    let (first, second) = (take(), take());
    let run = say(&place, &["savepoint", "-d", &format!("file:{first}")]);
    assert_eq!(
        (run.status, Path::new(&first).exists()),
        (0, false),
        "{}",
        run.stderr
    );
    obey(&place, &["savepoint", "-d", &first]).error("NotASnapshot", 1);
    obey(&place, &["cancel", "flights"]).summary();
    running.end();

    let words = [
        "run",
        "flights",
        "--json",
        "--state-dir",
        "fork",
        "--out",
        "out",
        "-s",
        &second,
    ];
    for (port, code) in [("0", "GcRefused"), ("off", "GcRefused")] {
        let mut fork = place.command(&words);
        fork.args([
            "--throttle",
            "20000",
            "--checkpoint-interval",
            "1h",
            "--control-port",
            port,
        ]);
        fork.args(["--restart", "--input"]).arg(fold::input());
        let mut fork = fork.spawn().unwrap();
        while obey(&place, &["list"]).summary()["jobs"][0]["state"] != "RUNNING" {
            assert!(fork.try_wait().unwrap().is_none());
        }
        obey(&place, &["savepoint", "-d", &second]).error(code, 5);
        assert!(Path::new(&second).join("_metadata").is_file());
        fork.kill().unwrap();
        fork.wait().unwrap();
    }
    // No job runs: it is done by hand.
    obey(&place, &["savepoint", "-d", &second]).summary();
    assert!(!Path::new(&second).exists());
}
