//! `keybed snapshot dispose`: exactly the files of a savepoint removed, metadata first.

use super::bytes;
use crate::say;
use keybed::{
    Result,
    env::OsFs,
    snapshot::savepoint::{Disposal, Disposed},
};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode, sync::Arc};

/// Lists what goes and what stays, and removes the savepoint at a path unless it is a dry run.
///
/// # Errors
/// Those of [`Disposal::plan`], before anything is changed; those of [`Disposal::execute`]: then the same command
/// goes on.
pub(crate) fn run(path: &Path, dry_run: bool, json: bool) -> Result<ExitCode> {
    let disposal = Disposal::plan(Arc::new(OsFs), path)?;
    let (directory, going) = (disposal.directory().display(), disposal.going());
    if !json {
        let doing = if dry_run {
            "would dispose of"
        } else {
            "disposing of"
        };
        say::out(format!("{doing} {directory}"));
        for (file, size) in &going.files {
            say::out(format!("  goes   {} ({})", file.as_str(), bytes(*size)));
        }
        for name in &going.staying {
            say::out(format!("  stays  {name}: not a file of the snapshot"));
        }
    }
    let disposed = match dry_run {
        true => Disposed {
            files: 0,
            directory: false,
        },
        false => disposal.execute()?,
    };
    if json {
        let files: Vec<Value> = going
            .files
            .iter()
            .map(|(file, size)| json!({ "file": file.as_str(), "bytes": size }))
            .collect();
        say::out(json!({
            "directory": directory.to_string(),
            "checkpoint": disposal.metadata().checkpoint.0,
            "files": files,
            "staying": going.staying,
            "dry_run": dry_run,
            "removed_files": disposed.files,
            "removed_directory": disposed.directory,
        }));
    } else if !dry_run {
        let kept = if disposed.directory {
            ""
        } else {
            "; the directory stays"
        };
        say::out(format!("disposed of: {} files{kept}", disposed.files));
    }
    Ok(ExitCode::SUCCESS)
}
