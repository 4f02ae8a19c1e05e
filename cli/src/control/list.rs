//! `keybed list`: the jobs of this user on this machine, or those of an endpoint.

use super::{
    find,
    records::{Record, Records},
};
use crate::{args::ListArgs, say};
use keybed::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What a job is called whose process lives and does not answer.
const SILENT: &str = "UNKNOWN";

/// Lists jobs.
///
/// # Errors
/// `CannotClaim` if the directory of running jobs cannot be trusted; errors of the file system or of the endpoint.
pub(crate) fn run(args: &ListArgs, json: bool) -> Result<ExitCode> {
    let jobs: Vec<Value> = match find::named(&args.server) {
        Some(client) => {
            let answer = client.get("/v1/jobs/overview")?;
            let jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
            let address = client.address().to_owned();
            jobs.iter()
                .map(|job| {
                    json!({
                        "job": job["name"],
                        "job_id": job["jid"],
                        "state": job["state"],
                        "address": address,
                        "start_ms": job["start-time"],
                        "running": job["end-time"] == -1,
                    })
                })
                .collect()
        }
        None => Records::of_user()?.all()?.iter().map(object).collect(),
    };
    let shown: Vec<&Value> = jobs
        .iter()
        .filter(|job| args.all || job["running"] == true)
        .collect();
    if json {
        say::out(json!({ "jobs": shown }));
    } else if shown.is_empty() {
        say::out(if args.all { "no jobs" } else { "no running jobs" });
    } else {
        shown.iter().for_each(|job| say::out(line(job)));
    }
    Ok(ExitCode::SUCCESS)
}

fn object(record: &Record) -> Value {
    let asked = || {
        let answer = find::client(record).and_then(|client| client.get("/v1/jobs/overview"));
        let state = answer.ok()?["jobs"][0]["state"].as_str()?.to_owned();
        Some(state)
    };
    let state = match &record.ended {
        Some((state, _)) => state.clone(),
        None if record.address.is_none() => "RUNNING".to_owned(),
        None => asked().unwrap_or_else(|| SILENT.to_owned()),
    };
    json!({
        "job": record.name,
        "job_id": record.job_id,
        "state": state,
        "address": record.address,
        "start_ms": record.start_ms,
        "running": record.is_live(),
        "pid": record.pid,
        "state_dir": record.state_dir.display().to_string(),
        "ended_ms": record.ended.as_ref().map(|(_, at)| at),
    })
}

fn line(job: &Value) -> String {
    let text = |name: &str| job[name].as_str().unwrap_or("-").to_owned();
    let since = job["start_ms"]
        .as_i64()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    format!(
        "{}  {}  {:<10} {:<21} since {since}",
        text("job"),
        text("job_id"),
        text("state"),
        text("address")
    )
}
