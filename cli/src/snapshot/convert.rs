//! `keybed snapshot convert`: a snapshot of any kind as a savepoint in one of the two formats.

use super::{bytes, kind_name, open};
use crate::{args::FormatName, say};
use keybed::{
    Result,
    env::OsFs,
    snapshot::{SavepointTarget, SnapshotKind, inspect},
    state::convert::{ConvertOptions, convert},
};
use serde_json::json;
use std::{path::Path, process::ExitCode, sync::Arc};

/// Converts the snapshot at a path into a new directory below `target` and prints that alone on the last line.
///
/// # Errors
/// `NotASnapshot`; `SnapshotIncomplete` or `SnapshotCorrupt`, naming the file; errors of the file system. Then nothing
/// is left behind.
pub(crate) fn run(path: &Path, to: FormatName, target: &Path, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    let to = match to {
        FormatName::Native => SnapshotKind::NativeSavepoint,
        FormatName::Canonical => SnapshotKind::CanonicalSavepoint,
    };
    let target = SavepointTarget::new(Arc::new(OsFs), target);
    let directory = convert(&snapshot, to, &target, ConvertOptions::default())?;
    let sizes = inspect(open(&directory)?.metadata(), &[]).sizes;
    let from = kind_name(snapshot.metadata().kind);
    if json {
        say::out(json!({
            "source": snapshot.directory().display().to_string(),
            "source_kind": from,
            "directory": directory.display().to_string(),
            "kind": kind_name(to),
            "checkpoint": snapshot.metadata().checkpoint.0,
            "files": sizes.files,
            "bytes": sizes.total_bytes,
        }));
    } else {
        let (source, total) = (snapshot.directory().display(), bytes(sizes.total_bytes));
        say::out(format!(
            "converted {source}, a {from}, to a {}: {} files, {total}",
            kind_name(to),
            sizes.files
        ));
        say::out(directory.display());
    }
    Ok(ExitCode::SUCCESS)
}
