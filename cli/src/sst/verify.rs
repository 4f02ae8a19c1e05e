//! `keybed sst verify`: every byte of tables compared with what was written.

use super::open;
use crate::{report, say};
use keybed::{Error, Result};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Verifies each file and tells how it went; the exit code is that of the first error.
///
/// # Errors
/// None: damage is printed.
pub(crate) fn run(files: &[PathBuf], json: bool) -> Result<ExitCode> {
    let found: Vec<(&PathBuf, Result<(u64, u64)>)> = files.iter().map(|file| (file, verify(file))).collect();
    let code = found
        .iter()
        .find_map(|(_, result)| result.as_ref().err())
        .map_or(0, Error::exit_code);
    if json {
        let files: Vec<Value> = found
            .iter()
            .map(|(file, result)| match result {
                Ok((bytes, entries)) => json!({
                    "file": file.display().to_string(),
                    "state": "whole",
                    "bytes": bytes,
                    "entries": entries,
                }),
                Err(error) => json!({
                    "file": file.display().to_string(),
                    "state": "damaged",
                    "error": report::object(error)["error"],
                }),
            })
            .collect();
        say::out(json!({ "files": files }));
    } else {
        for (file, result) in &found {
            match result {
                Ok((bytes, entries)) => say::out(format!(
                    "{} is whole: {entries} entries, {bytes} bytes, every one as it was written",
                    file.display()
                )),
                Err(error) => say::err(report::block(error)),
            }
        }
    }
    Ok(ExitCode::from(code))
}

fn verify(file: &Path) -> Result<(u64, u64)> {
    let reader = open(file)?;
    reader.verify_all()?;
    Ok((reader.facts().bytes, reader.facts().entries))
}
