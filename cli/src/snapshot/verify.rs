//! `keybed snapshot verify`: every byte of a snapshot compared with what was written.

use super::{bytes, open};
use crate::say;
use keybed::{
    Result,
    snapshot::{FileHandle, OpenFiles, SnapshotDir, storage::layout::METADATA_NAME, verify},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path, process::ExitCode};

/// Verifies the snapshot at a path and tells how it went.
///
/// # Errors
/// `SnapshotCorrupt` with file and offset, `SnapshotIncomplete` with the missing files, `NotASnapshot`.
pub(crate) fn run(path: &Path, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    snapshot.check_root()?;
    verify(snapshot.metadata(), &snapshot).verdict()?;
    let files = files(&snapshot);
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if json {
        let files: Vec<Value> = files
            .iter()
            .map(|(file, bytes)| json!({ "file": file, "bytes": bytes }))
            .collect();
        say::out(json!({
            "directory": snapshot.directory().display().to_string(),
            "checkpoint": snapshot.metadata().checkpoint.0,
            "state": "whole",
            "bytes": total,
            "files": files,
        }));
    } else {
        let (dir, count) = (snapshot.directory().display(), files.len());
        say::out(format!(
            "{dir} is whole: {count} files, {}, every byte as it was written",
            bytes(total)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Every file with its bytes, `_metadata` first.
fn files(snapshot: &SnapshotDir) -> Vec<(String, u64)> {
    let metadata = snapshot.directory().join(METADATA_NAME).display().to_string();
    let handles: BTreeSet<&FileHandle> = snapshot.metadata().files().collect();
    let tables = handles
        .into_iter()
        .map(|file| (snapshot.describe(file), file.length));
    std::iter::once((metadata, snapshot.metadata_bytes()))
        .chain(tables)
        .collect()
}
