//! `keybed snapshot ls`: the snapshots at and below directories, one line each.

use super::{bytes, claim_object, kind_name, time};
use crate::{report, say};
use keybed::{
    Result,
    env::{Fs, OsFs},
    snapshot::{FoundSnapshot, browse::find},
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, sync::Arc};

const HEADER: [&str; 8] = [
    "KIND",
    "ID",
    "JOB",
    "TAKEN",
    "STANDING",
    "OWN",
    "SHARED",
    "DIRECTORY",
];

/// Lists the snapshots at and below some directories.
///
/// # Errors
/// `NotASnapshot` if a directory is not there. A snapshot that cannot be read is listed as such.
pub(crate) fn run(paths: &[PathBuf], json: bool) -> Result<ExitCode> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let mut found = Vec::new();
    for path in paths {
        found.extend(find(&fs, path)?);
    }
    if json {
        let snapshots: Vec<Value> = found.iter().map(object).collect();
        say::out(json!({ "snapshots": snapshots }));
    } else {
        say::out(table(&found).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn object(found: &FoundSnapshot) -> Value {
    let facts = found.facts.as_ref();
    json!({
        "directory": found.directory.display().to_string(),
        "standing": found.standing.name(),
        "kind": facts.map(|facts| kind_name(facts.kind)),
        "checkpoint": facts.map(|facts| facts.checkpoint.0),
        "job_id": facts.map(|facts| facts.job.to_string()),
        "job": facts.and_then(|facts| facts.job_name.as_deref()),
        "generation": facts.map(|facts| facts.generation.0),
        "timestamp_ms": facts.map(|facts| facts.timestamp_ms),
        "exclusive_bytes": facts.map(|facts| facts.sizes.exclusive_bytes),
        "shared_bytes": facts.map(|facts| facts.sizes.shared_bytes),
        "total_bytes": facts.map(|facts| facts.sizes.total_bytes),
        "files": facts.map(|facts| facts.sizes.files),
        "depends_on": facts.map(|facts| facts.depends_on.as_slice()),
        "shares_storage_with": facts.map(|facts| facts.shares_storage_with.as_slice()),
        "claimed_by": facts.and_then(|facts| facts.claimed_by.as_ref()).map(claim_object),
        "problem": found.error.as_ref().map(|error| report::object(error)["error"].clone()),
    })
}

/// Columns as wide as they need to be; what a snapshot depends on, and why it cannot be read, below it.
fn table(found: &[FoundSnapshot]) -> String {
    let rows: Vec<[String; 8]> = found.iter().map(row).collect();
    let mut widths = HEADER.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; 8]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line += &format!("{cell:<width$}  ");
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut out = line(&HEADER.map(ToOwned::to_owned));
    for (found, row) in found.iter().zip(&rows) {
        out += &line(row);
        let facts = found.facts.as_ref();
        for directory in facts.iter().flat_map(|facts| &facts.depends_on) {
            out += &format!("    depends on {directory}\n");
        }
        for directory in facts.iter().flat_map(|facts| &facts.shares_storage_with) {
            out += &format!("    shares storage with {directory}\n");
        }
        if let Some(error) = &found.error {
            out += &format!("    {error}\n");
        }
    }
    out
}

fn row(found: &FoundSnapshot) -> [String; 8] {
    let facts = found.facts.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let claimed = facts.is_some_and(|facts| facts.claimed_by.is_some());
    [
        or_dash(facts.map(|facts| kind_name(facts.kind).to_owned())),
        or_dash(facts.map(|facts| facts.checkpoint.to_string())),
        or_dash(facts.map(|facts| facts.job_name.clone().unwrap_or_else(|| facts.job.to_string()))),
        or_dash(facts.map(|facts| time(facts.timestamp_ms))),
        found.standing.name().to_owned() + if claimed { ", claimed" } else { "" },
        or_dash(facts.map(|facts| bytes(facts.sizes.exclusive_bytes))),
        or_dash(facts.map(|facts| bytes(facts.sizes.shared_bytes))),
        found.directory.display().to_string(),
    ]
}
