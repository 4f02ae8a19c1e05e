//! `keybed snapshot export`: a copy of a snapshot that needs no other directory.

use super::{bytes, open};
use crate::say;
use keybed::{
    Result,
    env::{OsFs, random::Ids},
    snapshot::{SavepointTarget, inspect, savepoint},
};
use serde_json::json;
use std::{path::Path, process::ExitCode, sync::Arc};

/// Copies the snapshot at a path into a new directory below `to` and prints that alone on the last line.
///
/// # Errors
/// `NotASnapshot`; `SnapshotIncomplete` or `SnapshotCorrupt`, naming the file; errors of the file system. Then no
/// copy is left behind.
pub(crate) fn run(path: &Path, to: &Path, hard_links: bool, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    let mut target = SavepointTarget::new(Arc::new(OsFs), to);
    if hard_links {
        target = target.with_hard_links();
    }
    let directory = savepoint::export(&snapshot, &target, Ids::Entropy)?;
    let inspection = inspect(open(&directory)?.metadata(), &[]);
    let (sizes, shares) = (inspection.sizes, inspection.shares_storage_with);
    if json {
        say::out(json!({
            "source": snapshot.directory().display().to_string(),
            "directory": directory.display().to_string(),
            "checkpoint": snapshot.metadata().checkpoint.0,
            "files": sizes.files,
            "bytes": sizes.total_bytes,
            "shares_storage_with": shares,
        }));
    } else {
        let (from, total) = (snapshot.directory().display(), bytes(sizes.total_bytes));
        let done = if shares.is_empty() { "copied" } else { "linked" };
        say::out(format!("{done} {from}: {} files, {total}", sizes.files));
        for with in shares {
            say::out(format!("  shares storage with {with}"));
        }
        say::out(directory.display());
    }
    Ok(ExitCode::SUCCESS)
}
