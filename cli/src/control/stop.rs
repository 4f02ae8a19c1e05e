//! `keybed stop`, `keybed cancel`: the end of a running job, with a savepoint or without.

use super::{
    client::is_unreachable,
    find,
    requests::{location, wait_for_the_end},
    savepoint::{begin_and_tell, no_job},
};
use crate::{
    args::{CancelArgs, StopArgs, TakeArgs},
    say,
};
use keybed::Result;
use serde_json::json;
use std::process::ExitCode;

/// Stops a job with a savepoint and waits for its end; the last line is the savepoint's directory alone.
///
/// # Errors
/// Those of finding and asking the job; why the savepoint failed, then the job goes on; `StopCommitPending` if the
/// savepoint exists but the sinks could not commit.
pub(crate) fn run(args: &StopArgs, json: bool) -> Result<ExitCode> {
    let target = find::find(&args.job, &args.server)?;
    let body = json!({
        "targetDirectory": args.target.as_deref().map(location).transpose()?,
        "drain": args.drain,
    });
    begin_and_tell(&target, "/stop", body, &args.how, json, true)
}

/// Cancels a job; with `-s` that is a stop without drain.
///
/// # Errors
/// Those of finding and asking the job; those of [`run`] with `-s`.
pub(crate) fn cancel(args: &CancelArgs, json: bool) -> Result<ExitCode> {
    let (word, directory) = args.job_and_target();
    let target = find::find(&word.ok_or_else(no_job)?, &args.server)?;
    if args.savepoint.is_some() {
        let body = json!({
            "target-directory": directory.as_deref().map(location).transpose()?,
            "cancel-job": true,
        });
        let how = TakeArgs {
            format: args.format,
            hard_links: false,
            detached: false,
        };
        return begin_and_tell(&target, "/savepoints", body, &how, json, true);
    }
    target.client.patch(&target.path("?mode=cancel"), &json!({}))?;
    match wait_for_the_end(&target) {
        // The process is gone, and the job with it.
        Err(e) if is_unreachable(&e) => {}
        ended => drop(ended?),
    }
    if json {
        say::out(json!({ "job": target.name, "job_id": target.id, "state": "canceled" }));
    } else {
        say::out(format!("cancelled {} {}", target.name, target.id));
    }
    Ok(ExitCode::SUCCESS)
}
