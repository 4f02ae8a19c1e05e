//! `keybed sst props`: what is known about a table.

use super::{facts, open};
use crate::say;
use keybed::Result;
use std::{path::Path, process::ExitCode};

/// Prints the facts of a table.
///
/// # Errors
/// `TableCorrupt` with file and offset, `UnsupportedFormatVersion`, `NotFound`.
pub(crate) fn run(file: &Path, json: bool) -> Result<ExitCode> {
    let reader = open(file)?;
    let facts = facts(&reader);
    if json {
        say::out(facts);
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in facts.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(sections) => {
                for section in sections {
                    let of = |field: &str| section.get(field).map_or_else(String::new, ToString::to_string);
                    let (name, bytes, offset) = (of("name"), of("bytes"), of("offset"));
                    say::out(format!(
                        "section {} · {bytes} bytes at {offset}",
                        name.trim_matches('"')
                    ));
                }
            }
            None => say::out(format!(
                "{name} {}",
                value.as_str().map_or(value.to_string(), str::to_owned)
            )),
        }
    }
    Ok(ExitCode::SUCCESS)
}
