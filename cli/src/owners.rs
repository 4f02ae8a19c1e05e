//! `keybed owners FILE`: who owns it, which snapshots need it, and whether it may be deleted, on one screen.

use crate::{
    say,
    snapshot::{bytes, claim_object, claim_text, kind_name},
};
use keybed::{
    Result,
    env::{Fs, OsFs},
    snapshot::{
        FileOwnership,
        ownership::{FileOwner, FileRole, Need, ownership},
    },
};
use serde_json::{Value, json};
use std::{fmt::Write, path::Path, process::ExitCode, sync::Arc};

/// Snapshots that are named in the text; the object names all.
const NEEDS_SHOWN: usize = 12;

/// Answers for one file.
///
/// # Errors
/// `NotASnapshot` if it lies in no job root and in no savepoint; the errors of records that cannot be read.
pub(crate) fn run(file: &Path, json: bool) -> Result<ExitCode> {
    let told = ownership(&(Arc::new(OsFs) as Arc<dyn Fs>), file)?;
    if json {
        say::out(object(&told));
    } else {
        say::out(text(&told).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn role_name(role: FileRole) -> &'static str {
    match role {
        FileRole::Metadata => "metadata",
        FileRole::Object => "object",
        FileRole::Temporary => "temporary",
        FileRole::Record => "record",
        FileRole::Unknown => "unknown",
    }
}

fn text(told: &FileOwnership) -> String {
    let mut out = format!("{}\n", told.path.display());
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "  {name:<10} {value}"); // writing to a String cannot fail
    };
    let size = told.bytes.map_or_else(|| "missing".to_owned(), bytes);
    line("is", &format_args!("{}, {size}", role_name(told.role)));
    if let Some(birth) = told.birth {
        line(
            "created",
            &format_args!(
                "by generation {} for checkpoint {}",
                birth.generation, birth.checkpoint
            ),
        );
    }
    match &told.owner {
        FileOwner::Job {
            root,
            job,
            generation,
            live,
            ..
        } => {
            let life = live
                .as_ref()
                .map_or_else(|| "no process".to_owned(), |pid| format!("process {pid}"));
            line(
                "owner",
                &format_args!("job {job}, generation {generation}, {life}"),
            );
            line("root", &root.display());
        }
        FileOwner::User { directory, job } => {
            let job = job.map_or_else(|| "an unknown job".to_owned(), |job| format!("job {job}"));
            line("owner", &format_args!("you: a savepoint of {job}"));
            line("savepoint", &directory.display());
        }
    }
    for need in told.needed_by.iter().take(NEEDS_SHOWN) {
        let claim = need
            .claimed_by
            .as_ref()
            .map_or_else(String::new, |claim| format!(", claimed by {}", claim_text(claim)));
        line(
            "needed by",
            &format_args!(
                "{} ({}, {}{claim})",
                need.directory.display(),
                kind_name(need.kind),
                need.standing.name()
            ),
        );
    }
    match told.needed_by.len() {
        0 => line("needed by", &"no snapshot"),
        n if n > NEEDS_SHOWN => line("", &format_args!("and {} more", n - NEEDS_SHOWN)),
        _ => {}
    }
    let may = if told.verdict.may_go { "yes" } else { "no" };
    line("deletable", &format_args!("{may}: {}", told.verdict.because));
    out
}

fn object(told: &FileOwnership) -> Value {
    let owner = match &told.owner {
        FileOwner::Job {
            root,
            job,
            root_id,
            generation,
            live,
        } => json!({
            "kind": "job",
            "job_id": job.to_string(),
            "root": root.display().to_string(),
            "root_id": root_id.to_string(),
            "generation": generation.0,
            "pid": live,
        }),
        FileOwner::User { directory, job } => json!({
            "kind": "user",
            "savepoint": directory.display().to_string(),
            "job_id": job.map(|job| job.to_string()),
        }),
    };
    let needed_by: Vec<Value> = told.needed_by.iter().map(need_object).collect();
    json!({
        "file": told.path.display().to_string(),
        "bytes": told.bytes,
        "role": role_name(told.role),
        "created_by_generation": told.birth.map(|birth| birth.generation.0),
        "created_for_checkpoint": told.birth.map(|birth| birth.checkpoint.0),
        "owner": owner,
        "needed_by": needed_by,
        "may_be_deleted": told.verdict.may_go,
        "because": told.verdict.because,
    })
}

fn need_object(need: &Need) -> Value {
    json!({
        "directory": need.directory.display().to_string(),
        "kind": kind_name(need.kind),
        "standing": need.standing.name(),
        "claimed_by": need.claimed_by.as_ref().map(claim_object),
    })
}
