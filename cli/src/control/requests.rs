//! A request to a job: begun under an id of our own choice, polled until something came of it, told.

use super::find::Target;
use keybed::{Code, Error, Result, env::random::Ids};
use serde_json::Value;
use std::{path::Path, thread::sleep, time::Duration};

/// Least and most time between two polls.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(200);
/// How often a job that said it ends is asked whether it has, [`POLL_MAX`] apart.
const END_POLLS_MAX: u32 = 300;

/// A fresh id for a request. A trigger that is sent twice is one.
pub(super) fn fresh() -> Result<String> {
    Ids::Entropy.fresh().map(|id| format!("{id:032x}"))
}

/// A location as requests spell it.
///
/// # Errors
/// `InvalidArgument` if the path is not UTF-8 or cannot be made absolute.
pub(super) fn location(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))?;
    absolute
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid("a path that is sent to a job must be UTF-8").in_file(path))
}

/// Polls a route until its request is completed; the operation.
///
/// # Errors
/// Why the request failed.
pub(super) fn wait(target: &Target, path: &str) -> Result<Value> {
    let mut pause = POLL_MIN;
    loop {
        let answer = target.client.get(path)?;
        if answer["status"]["id"] == "COMPLETED" {
            return Ok(answer["operation"].clone());
        }
        sleep(pause);
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Waits until the savepoint of a stop is taken and then the job has ended; the last state of the job. Nobody is told of
/// the outcome yet, so its process lives on.
///
/// # Errors
/// Why the savepoint failed; the job goes on then. `Busy` if the job does not come to its end.
pub(super) fn wait_for_the_stop(target: &Target, request: &str) -> Result<String> {
    let mut pause = POLL_MIN;
    loop {
        let found = target.client.get(&format!("/keybed/requests/{request}?peek"))?;
        match found["status"].as_str() {
            Some("completed") => break,
            Some("failed") => {
                wait(target, &target.path(&format!("/savepoints/{request}")))?;
                return Err(Error::new(Code::JobFailed, "the stop failed"));
            }
            _ => sleep(pause),
        }
        pause = (pause * 2).min(POLL_MAX);
    }
    wait_for_the_end(target)
}

/// Waits until a job that is to end has ended; its last state.
///
/// # Errors
/// `Busy` if it does not come to its end; what the endpoint answered, if it did.
pub(super) fn wait_for_the_end(target: &Target) -> Result<String> {
    for _ in 0..END_POLLS_MAX {
        let answer = target.client.get(&format!("/keybed/jobs/{}", target.id))?;
        if answer["ended"] == true {
            return Ok(answer["state"].as_str().unwrap_or_default().to_owned());
        }
        sleep(POLL_MAX);
    }
    let what = "the job is still about to end; ask `keybed status` for it";
    Err(Error::new(Code::Busy, what).with("job", &target.id))
}
