//! `keybed store compact`: everything merged into the bottom.

use super::{family, open};
use crate::{say, snapshot::bytes};
use keybed::Result;
use serde_json::json;
use std::{path::Path, process::ExitCode};

/// Merges one family or all of them.
///
/// # Errors
/// Those of opening the store and of the merges; `InvalidArgument` if there is no such family.
pub(crate) fn run(dir: &Path, only: Option<&str>, json: bool) -> Result<ExitCode> {
    let mut store = open(dir)?;
    let before = store.stats().table_bytes;
    let names: Vec<String> = match only {
        Some(name) => vec![name.to_owned()],
        None => store.family_names().map(str::to_owned).collect(),
    };
    for name in &names {
        let family = family(&mut store, Some(name))?;
        store.compact(family)?;
    }
    store.wait_for_background()?;
    let stats = store.stats();
    store.close()?;
    if json {
        say::out(json!({
            "families": names,
            "bytes_before": before,
            "bytes_after": stats.table_bytes,
            "compactions": stats.compactions,
        }));
    } else {
        say::out(format!(
            "{} families merged: {} before, {} now",
            names.len(),
            bytes(before),
            bytes(stats.table_bytes)
        ));
    }
    Ok(ExitCode::SUCCESS)
}
