//! `keybed status`: a running job, or what came of a request, also when its job is over.

use super::{
    find::{self, Target},
    records::{Record, Records},
};
use crate::{args::StatusArgs, say};
use keybed::{
    Code, Error, Result,
    env::{Fs, OsFs},
    runtime::server::recorded_request,
};
use serde_json::Value;
use std::{path::Path, process::ExitCode};

/// Directory of the requests in a state directory.
pub(crate) const REQUESTS: &str = "requests";
/// Held by the process that runs the job of a state directory.
const LOCK: &str = "LOCK";

/// Tells how a job or a request stands.
///
/// # Errors
/// `UnknownJob`; `NotFound` for an unknown request; why a request failed.
pub(crate) fn run(args: &StatusArgs, json: bool) -> Result<ExitCode> {
    let Some(request) = &args.request else {
        let target = find::find(args.job.as_deref().unwrap_or_default(), &args.server)?;
        let status = target.client.get(&format!("/keybed/jobs/{}", target.id))?;
        tell_job(&target, &status, json);
        return Ok(ExitCode::SUCCESS);
    };
    let found = match (&args.state_dir, &args.job) {
        (Some(state_dir), _) => recorded(state_dir, request)?,
        (None, Some(word)) => match find::find(word, &args.server) {
            Ok(target) => target.client.get(&format!("/keybed/requests/{request}"))?,
            Err(e) if e.code() == Code::UnknownJob && args.server.server.is_none() => {
                let over = Records::of_user()?.all()?;
                let named = |record: &&Record| record.name == *word || record.job_id == *word;
                let Some(record) = over.iter().rev().find(named) else {
                    return Err(e);
                };
                recorded(&record.state_dir, request)?
            }
            Err(e) => return Err(e),
        },
        (None, None) => return Err(super::savepoint::no_job()),
    };
    tell_request(&found, json)
}

/// From disk. A request in progress whose process is gone has failed.
fn recorded(state_dir: &Path, request: &str) -> Result<Value> {
    let found = recorded_request(&OsFs, &state_dir.join(REQUESTS), request)?;
    let in_progress = found["status"] == "in-progress";
    if in_progress && OsFs.lock(&state_dir.join(LOCK)).is_ok() {
        let what = "the process ended before the request did; what came of it is seen at its target only";
        let error = Error::new(Code::Closed, what);
        return Err(match found["target"].as_str() {
            Some(target) => error.in_file(target),
            None => error,
        });
    }
    Ok(found)
}

fn tell_job(target: &Target, status: &Value, json: bool) {
    if json {
        return say::out(status);
    }
    say::out(format!("{} {}", target.name, target.id));
    for (name, field) in [
        ("state", "state"),
        ("records", "source_records"),
        ("attempts", "attempts"),
        ("checkpoints", "checkpoints"),
        ("last", "last_checkpoint"),
        ("from", "restored_from"),
        ("pid", "pid"),
    ] {
        match &status[field] {
            Value::Null => {}
            Value::String(text) => say::out(format!("  {name:<12} {text}")),
            value => say::out(format!("  {name:<12} {value}")),
        }
    }
    if status["depends_on_restored_snapshot"] == true {
        say::out("  the snapshot that it started from is still needed");
    }
}

/// A failed request is the error it failed with.
fn tell_request(found: &Value, json: bool) -> Result<ExitCode> {
    let error = &found["error"];
    if let Some(name) = error["code"].as_str() {
        let code = Code::ALL.iter().find(|code| code.as_str() == name);
        let text = error["text"].as_str().unwrap_or_default();
        let sentence = text.strip_prefix(&format!("{name}: ")).unwrap_or(text);
        return Err(Error::new(code.copied().unwrap_or(Code::JobFailed), sentence));
    }
    if json {
        say::out(found);
    } else {
        let (kind, status) = (&found["kind"], &found["status"]);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        say::out(format!("{} {}", word(kind), word(status)));
        if let Some(location) = found["location"].as_str() {
            say::out(location);
        } else if let Some(id) = found["checkpoint"].as_u64() {
            say::out(id);
        }
    }
    Ok(ExitCode::SUCCESS)
}
