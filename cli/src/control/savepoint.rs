//! `keybed savepoint`, `keybed checkpoint`: snapshots of a running job.

use super::{
    client::is_unreachable,
    find::{self, Target},
    requests::{fresh, location, wait, wait_for_the_stop},
};
use crate::{
    args::{CheckpointArgs, FormatName, SavepointArgs, TakeArgs},
    say,
};
use keybed::{Code, Error, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Takes a savepoint; the last line is its directory alone, or the request's id if detached.
///
/// # Errors
/// Those of finding and asking the job; why the savepoint failed.
pub(crate) fn run(args: &SavepointArgs, json: bool) -> Result<ExitCode> {
    if let Some(path) = &args.dispose {
        return super::dispose::run(path, &args.server, json);
    }
    let word = args.job.as_deref().ok_or_else(no_job)?;
    let target = find::find(word, &args.server)?;
    let body = json!({
        "target-directory": args.target.as_deref().map(location).transpose()?,
        "cancel-job": false,
    });
    begin_and_tell(&target, "/savepoints", body, &args.how, json, false)
}

pub(super) fn no_job() -> Error {
    Error::invalid("name a job, by its name or id")
}

/// Begins with a savepoint, waits for it unless detached, and tells its directory. If it `ends` the job, waits for that,
/// too.
pub(super) fn begin_and_tell(
    target: &Target,
    route: &str,
    mut body: Value,
    how: &TakeArgs,
    json: bool,
    ends: bool,
) -> Result<ExitCode> {
    let request = fresh()?;
    body["triggerId"] = request.as_str().into();
    if how.hard_links {
        body["hardLinks"] = true.into();
    }
    body["formatType"] = match how.format {
        FormatName::Native => "NATIVE".into(),
        FormatName::Canonical => "CANONICAL".into(),
    };
    target.client.post(&target.path(route), &body)?;
    if how.detached {
        tell_request(target, &request, json);
        return Ok(ExitCode::SUCCESS);
    }
    let untold = |error| process_gone(error, &request);
    let state = match ends {
        true => wait_for_the_stop(target, &request).map_err(untold)?,
        false => String::new(),
    };
    let route = target.path(&format!("/savepoints/{request}"));
    let operation = wait(target, &route).map_err(untold)?;
    let location = operation["location"].as_str().unwrap_or_default();
    let directory = location.strip_prefix("file:").unwrap_or(location);
    if state == "StopCommitPending" {
        let what = "the savepoint is taken, but the sinks could not commit what it names: the next run of the job goes \
                    on from it";
        return Err(Error::new(Code::StopCommitPending, what).with("savepoint", directory));
    }
    if json {
        say::out(json!({
            "job": target.name,
            "job_id": target.id,
            "request": request,
            "location": directory,
        }));
    } else {
        say::out(directory);
    }
    Ok(ExitCode::SUCCESS)
}

/// Of a job whose process has gone since it was asked: what to do then.
fn process_gone(error: Error, request: &str) -> Error {
    if !is_unreachable(&error) {
        return error;
    }
    let what = "the job was asked, and its process has gone since; `keybed run JOB --resume` goes back to its last \
                checkpoint, or forward from the savepoint if that was to end it and is taken";
    error.context(what).with("request", request)
}

fn tell_request(target: &Target, request: &str, json: bool) {
    if json {
        say::out(json!({ "job": target.name, "job_id": target.id, "request": request }));
    } else {
        say::err(format!(
            "asked for; `keybed status {} --request {request}` tells what came of it\n",
            target.name
        ));
        say::out(request);
    }
}

/// Takes a checkpoint; the last line is its id alone.
///
/// # Errors
/// Those of finding and asking the job; why the checkpoint failed.
pub(crate) fn checkpoint(args: &CheckpointArgs, json: bool) -> Result<ExitCode> {
    let target = find::find(&args.job, &args.server)?;
    let request = fresh()?;
    let body = json!({
        "checkpointType": if args.full { "FULL" } else { "CONFIGURED" },
        "triggerId": request,
    });
    target.client.post(&target.path("/checkpoints"), &body)?;
    if args.detached {
        tell_request(&target, &request, json);
        return Ok(ExitCode::SUCCESS);
    }
    let route = target.path(&format!("/checkpoints/{request}"));
    let operation = wait(&target, &route).map_err(|error| process_gone(error, &request))?;
    let id = &operation["checkpointId"];
    if json {
        say::out(json!({
            "job": target.name,
            "job_id": target.id,
            "request": request,
            "checkpoint": id,
        }));
    } else {
        say::out(id);
    }
    Ok(ExitCode::SUCCESS)
}
