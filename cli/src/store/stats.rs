//! `keybed store stats`: what a store says about itself.

use super::{caveat, look, tell_caveat};
use crate::say;
use keybed::{
    Result,
    lsm::{FamilyStats, RunStats},
};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode};

/// Prints the statistics of the store in `dir`.
///
/// # Errors
/// Those of opening it.
pub(crate) fn run(dir: &Path, prometheus: bool, json: bool) -> Result<ExitCode> {
    let store = look(dir)?;
    let stats = store.stats();
    if json {
        say::out(json!({
            "directory": dir.display().to_string(),
            "families": stats.families.iter().map(family_object).collect::<Vec<_>>(),
            "tables": stats.tables,
            "table_bytes": stats.table_bytes,
            "runs_max": stats.runs_max,
            "space_amplification": stats.space_amplification(),
            "torn_bytes": stats.torn_bytes,
            "caveat": caveat(&store),
        }));
    } else if prometheus {
        say::out(stats.prometheus("").trim_end());
    } else {
        say::out(stats.to_string().trim_end());
    }
    if !json {
        tell_caveat(&store);
    }
    store.close()?;
    Ok(ExitCode::SUCCESS)
}

fn family_object(family: &FamilyStats) -> Value {
    let run = |run: &RunStats| json!({ "tier": run.tier, "files": run.files, "bytes": run.bytes, "versions": run.entries });
    json!({
        "name": family.name,
        "bytes": family.table_bytes(),
        "runs": family.runs.iter().map(run).collect::<Vec<_>>(),
    })
}
