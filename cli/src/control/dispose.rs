//! `keybed savepoint -d`: a savepoint removed, unless a running job needs it.
//!
//! ```text
//!  every job that runs here: do you need it? ─ no ─▶ removed by the first one that may, else by this process
//!                           `─ yes, or no answer ─▶ refused
//! ```

use super::{
    client::Client,
    find,
    records::{Record, Records},
    requests::{fresh, location, wait},
};
use crate::{args::ServerArgs, say, snapshot};
use keybed::{Code, Error, Result};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Disposes of the savepoint at a path.
///
/// # Errors
/// `GcRefused` if a running job needs it; those of disposing without a job.
pub(crate) fn run(path: &Path, server: &ServerArgs, json: bool) -> Result<ExitCode> {
    let spelled = location(path)?;
    if let Some(client) = find::named(server) {
        return by_job(&client, &spelled, json);
    }
    // Where nobody can enter a record, nobody has.
    let live: Vec<Record> = match Records::of_user() {
        Ok(records) => records.all()?.into_iter().filter(Record::is_live).collect(),
        Err(e) if e.code() == Code::CannotClaim => return Err(e),
        Err(_) => Vec::new(),
    };
    let local = PathBuf::from(&spelled);
    for record in &live {
        demand_unneeded(record, &local, &spelled)?;
    }
    for client in live.iter().filter_map(|record| find::client(record).ok()) {
        match by_job(&client, &spelled, json) {
            // Outside the directories that requests may use: the user said it by hand, so it is done by hand.
            Err(e) if e.code() == Code::InvalidArgument => {}
            done => return done,
        }
    }
    snapshot::dispose::run(&local, false, json)
}

fn demand_unneeded(record: &Record, local: &Path, spelled: &str) -> Result {
    match find::client(record) {
        Ok(client) => client
            .post("/keybed/disposal-check", &json!({ "savepoint-path": spelled }))
            .map(drop),
        // It cannot be asked; it may need what it started from.
        Err(_) => {
            let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
            let from = record.restored_from.as_deref().map(real);
            let local = real(local);
            if from.is_some_and(|from| from.starts_with(&local) || local.starts_with(&from)) {
                let what = "a running job was started from it and cannot be asked whether it needs it";
                return Err(Error::new(Code::GcRefused, what).with("job", &record.job_id));
            }
            Ok(())
        }
    }
}

fn by_job(client: &Client, spelled: &str, json: bool) -> Result<ExitCode> {
    let request = fresh()?;
    let body = json!({ "savepoint-path": spelled, "triggerId": request });
    client.post("/v1/savepoint-disposal", &body)?;
    let target = find::Target {
        id: String::new(),
        name: String::new(),
        client: client.clone(),
    };
    wait(&target, &format!("/v1/savepoint-disposal/{request}"))?;
    if json {
        say::out(json!({ "directory": spelled, "disposed": true }));
    } else {
        say::out(format!("disposed of {spelled}"));
    }
    Ok(ExitCode::SUCCESS)
}
