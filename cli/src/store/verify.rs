//! `keybed store verify`: every byte of a store read, its parts compared with each other.

use crate::{report, say, snapshot::bytes};
use keybed::{Error, Result, env::OsFs, lsm::verify::verify};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode};

/// Verifies the store in `dir`. Exits like the first damage would, if there is one.
///
/// # Errors
/// `NotFound`; `Busy`; `ManifestCorrupt` if nothing can be compared with anything.
pub(crate) fn run(dir: &Path, json: bool) -> Result<ExitCode> {
    let found = verify(&OsFs, dir)?;
    let code = found.damages.first().map_or(0, Error::exit_code);
    let is_whole = found.damages.is_empty();
    if json {
        let damages: Vec<Value> = found
            .damages
            .iter()
            .map(|error| report::object(error)["error"].take())
            .collect();
        say::out(json!({
            "directory": dir.display().to_string(),
            "state": if is_whole { "whole" } else { "damaged" },
            "manifest": found.manifest,
            "torn_bytes": found.torn_bytes,
            "log_files": found.log_files,
            "log_torn_bytes": found.log_torn_bytes,
            "families": found.families,
            "tables": found.tables,
            "table_bytes": found.table_bytes,
            "versions": found.entries,
            "strays": found.strays,
            "damages": damages,
        }));
        return Ok(ExitCode::from(code));
    }
    for damage in &found.damages {
        say::err(report::block(damage));
    }
    for stray in &found.strays {
        say::out(format!(
            "stray: {stray} (the next open removes it, if no owner is just writing it)"
        ));
    }
    let state = match found.damages.len() {
        0 => "whole".to_owned(),
        count => format!("damaged in {count} places"),
    };
    say::out(format!(
        "{} is {state}: {} families, {} tables, {}, {} versions",
        dir.display(),
        found.families,
        found.tables,
        bytes(found.table_bytes),
        found.entries
    ));
    Ok(ExitCode::from(code))
}
