//! Flink's command line without Java: what 1.20.5 and 2.2.1 sent to a job, sent again.
//!
//! `flink-requests.jsonl` was recorded by `RECORD=… ci/flink-cli 2.2.1` from the real client; 1.20.5 sends the same, byte by byte
//! but for the boundary of an upload. One line is a request and what the client was content with. Runs 1 to 4 are the jobs of
//! that script.

use crate::{
    control::{Running, http},
    place::Place,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Options of the runs, as in `ci/flink-cli`.
const RUNS: &[&[&str]] = &[
    &[],
    &["--savepoint-dir", "default"],
    &["--savepoint-dir", "default"],
    &["--savepoint-dir", "default", "--token", "secret"],
];

fn replay(recorded: &str) {
    let mut runs: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for line in recorded.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        runs.entry(line["run"].as_u64().unwrap()).or_default().push(line);
    }
    assert_eq!(runs.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (run, lines) in runs {
        let place = Place::new();
        let running = Running::start(&place, RUNS[run as usize - 1]);
        let listed = running.listed();
        let (address, job) = (
            listed["address"].as_str().unwrap(),
            listed["job_id"].as_str().unwrap(),
        );
        let dir = place.path("").canonicalize().unwrap().display().to_string();
        let mut replay = Replay {
            address: address.to_owned(),
            names: vec![
                ("{address}", address.to_owned()),
                ("{job}", job.to_owned()),
                ("{other}", "00000000000000000000000000000bad".to_owned()),
                ("{dir}", dir.trim_end_matches('/').to_owned()),
            ],
            request: String::new(),
            savepoints: Vec::new(),
        };
        for (n, line) in lines.iter().enumerate() {
            replay.one(run, line);
            let polled = lines
                .get(n + 1)
                .is_some_and(|next| next["head"][0].as_str().unwrap().starts_with("GET"));
            if line["answer"].as_str().unwrap().contains("request-id") && !polled {
                replay.fetch();
            }
        }
        let ended = running.end();
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
        let state = if run == 3 { "cancelled" } else { "finished" };
        assert_eq!(summary["state"], state, "run {run}");
    }
}

struct Replay {
    address: String,
    /// What stands for what changes from run to run.
    names: Vec<(&'static str, String)>,
    /// The last one begun.
    request: String,
    /// As recorded, and as they are called now.
    savepoints: Vec<(String, String)>,
}

impl Replay {
    fn one(&mut self, run: u64, line: &Value) {
        let Some(body) = line["body"].as_str() else {
            return self.upload(line);
        };
        let body = self.now(body);
        let head: Vec<String> = line["head"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .map(|text| match text.split_once(": ") {
                // Names differ in length.
                Some(("content-length", _)) => format!("content-length: {}", body.len()),
                _ => self.now(text),
            })
            .collect();
        let request = format!("{}\r\n\r\n{body}", head.join("\r\n"));
        let (status, answer) = loop {
            let (status, answer) = http(&self.address, &request);
            if answer["status"]["id"] != "IN_PROGRESS" {
                break (status, answer);
            }
        };
        let expected: Value = serde_json::from_str(line["answer"].as_str().unwrap()).unwrap();
        let what = format!("run {run}: {request}\n  expected {expected}\n  found    {answer}");
        assert_eq!(line["status"], status, "{what}");
        assert_eq!(shape(&answer), shape(&expected), "{what}");
        if let Some(id) = answer["request-id"].as_str() {
            id.clone_into(&mut self.request);
        }
        let location = |answer: &Value| answer["operation"]["location"].as_str().map(str::to_owned);
        if let (Some(recorded), Some(found)) = (location(&expected), location(&answer)) {
            let name = |location: &str| location.rsplit('/').next().unwrap().to_owned();
            assert!(
                std::path::Path::new(found.strip_prefix("file:").unwrap())
                    .join("_metadata")
                    .is_file()
            );
            self.savepoints.push((name(&recorded), name(&found)));
        }
    }

    /// The outcome of a detached request; the job would wait for somebody who wants it.
    fn fetch(&self) {
        let path = format!("/keybed/requests/{}", self.request);
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        while http(&self.address, &request).1["status"] == "in-progress" {}
    }

    /// A program: a long body of any content.
    fn upload(&self, line: &Value) {
        let path = line["head"][0].as_str().unwrap();
        let body = "x".repeat(100_000);
        let request = format!(
            "{path}\r\nhost: {}\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let (status, answer) = http(&self.address, &request);
        assert_eq!(line["status"], status);
        assert_eq!(
            answer,
            serde_json::from_str::<Value>(line["answer"].as_str().unwrap()).unwrap()
        );
    }

    fn now(&self, text: &str) -> String {
        let named = self
            .names
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        let asked = named.replace("{request}", &self.request);
        self.savepoints
            .iter()
            .fold(asked, |text, (recorded, found)| text.replace(recorded, found))
    }
}

/// An answer without what differs from run to run: names and kinds of values; of errors their codes.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect(),
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::Number(_) => "number".into(),
        Value::String(text) if text.contains(": ") => text.split(": ").next().unwrap().into(),
        Value::String(text) if text.contains('/') => "path".into(),
        Value::String(text) if text.len() == 32 || text.starts_with('{') => "id".into(),
        other => other.clone(),
    }
}

#[test]
fn requests_of_flinks_command_line_are_answered_as_it_expects() {
    // Flink's clients would stop working, and nobody without Java would notice.
    replay(include_str!("flink-requests.jsonl"));
}
