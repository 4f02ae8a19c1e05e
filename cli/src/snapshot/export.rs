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
pub(crate) fn run(path: &Path, to: &Path, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    let target = SavepointTarget::new(Arc::new(OsFs), to);
    let directory = savepoint::export(&snapshot, &target, Ids::Entropy)?;
    let sizes = inspect(open(&directory)?.metadata(), &[]).sizes;
    if json {
        say::out(json!({
            "source": snapshot.directory().display().to_string(),
            "directory": directory.display().to_string(),
            "checkpoint": snapshot.metadata().checkpoint.0,
            "files": sizes.files,
            "bytes": sizes.total_bytes,
        }));
    } else {
        let (from, total) = (snapshot.directory().display(), bytes(sizes.total_bytes));
        say::out(format!(
            "copied {from}: {} files, {total}\n{}",
            sizes.files,
            directory.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
