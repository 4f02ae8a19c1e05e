//! A request to a job: begun under an id of our own choice, polled until something came of it, told.

use super::{client::is_unreachable, find::Target};
use keybed::{Error, Result, env::random::Ids};
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
    if path.to_str().is_some_and(|text| text.starts_with("file:")) {
        return Ok(path.display().to_string());
    }
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

/// Waits until a job that is to end has ended; its last state, if anybody was there to tell it.
///
/// # Errors
/// What the endpoint answered.
pub(super) fn wait_for_the_end(target: &Target) -> Result<Option<String>> {
    for _ in 0..END_POLLS_MAX {
        match target.client.get(&format!("/keybed/jobs/{}", target.id)) {
            Ok(answer) if answer["ended"] == true => {
                return Ok(answer["state"].as_str().map(str::to_owned));
            }
            Ok(_) => sleep(POLL_MAX),
            // The process is gone, and the job with it.
            Err(e) if is_unreachable(&e) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(
        keybed::Code::Busy,
        "the job is still about to end; ask `keybed status` for it",
    )
    .with("job", &target.id))
}
