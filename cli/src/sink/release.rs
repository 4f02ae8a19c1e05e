//! `keybed sink release`: gives up what is held for savepoints, and with it parts that nobody needs.

use super::{count_object, count_text, held_object, held_text};
use crate::say;
use keybed::{
    Result,
    env::OsFs,
    runtime::sink::{ReleaseOf, release},
};
use serde_json::json;
use std::{path::Path, process::ExitCode};

/// Releases and says what became of it.
///
/// # Errors
/// `NotFound` if nothing is held for the savepoint; those of the library.
pub(crate) fn run(out: &Path, which: &ReleaseOf, dry_run: bool, json: bool) -> Result<ExitCode> {
    let released = release(&OsFs, out, which, dry_run)?;
    if json {
        say::out(json!({
            "dry_run": dry_run,
            "holds": released.holds.iter().map(held_object).collect::<Vec<_>>(),
            "unreadable": released.unreadable,
            "removed": count_object(released.removed),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let (gone, removed) = match dry_run {
        true => ("would be released", "would be removed"),
        false => ("released", "removed"),
    };
    for held in &released.holds {
        say::out(format!("{gone}: {}", held_text(held)));
    }
    if released.unreadable > 0 {
        say::out(format!(
            "{gone}: {} holds that cannot be read",
            released.unreadable
        ));
    }
    say::out(format!("{} {removed}", count_text(released.removed)));
    Ok(ExitCode::SUCCESS)
}
