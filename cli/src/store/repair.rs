//! `keybed store repair`: what can be proved about a damaged CURRENT or manifest, and doing it.

use crate::say;
use keybed::{
    Result,
    env::OsFs,
    lsm::repair::{LOST_AND_FOUND, OneFamily, RepairPlan, RepairSource},
};
use serde_json::json;
use std::{path::Path, process::ExitCode};

/// Plans a repair of the store in `dir`, tells it, and carries it out if `write`.
///
/// # Errors
/// `NotFound`, `Locked`; `ManifestCorrupt`, `TableCorrupt`, `TableMissing` if nothing can be proved.
pub(crate) fn run(
    dir: &Path,
    write: bool,
    one_family: Option<String>,
    merge: Option<String>,
    json: bool,
) -> Result<ExitCode> {
    let one_family = one_family.map(|name| OneFamily { name, merge });
    let plan = RepairPlan::make(&OsFs, dir, one_family.as_ref())?;
    let does = write && plan.source != RepairSource::Whole;
    let source = source_text(&plan.source);
    if json {
        let said = json!({
            "directory": dir.display().to_string(),
            "source": source,
            "cause": plan.cause.as_ref().map(ToString::to_string),
            "families": plan.families,
            "tables": plan.tables,
            "lost": plan.lost,
            "aside": plan.aside,
            "done": does,
        });
        if does {
            plan.execute(&OsFs)?;
        }
        say::out(said);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(cause) = &plan.cause {
        say::out(format!("cause   {cause}"));
    }
    say::out(format!("source  {source}"));
    say::out(format!(
        "result  {} families, {} tables",
        plan.families, plan.tables
    ));
    for lost in &plan.lost {
        say::out(format!("lost    {lost}"));
    }
    for aside in &plan.aside {
        say::out(format!("aside   {aside}, kept in {LOST_AND_FOUND}"));
    }
    let is_whole = plan.source == RepairSource::Whole;
    if does {
        plan.execute(&OsFs)?;
        say::out("repaired; `keybed store verify` reads all of it");
    } else if !is_whole {
        say::out("nothing was changed; --write does it");
    }
    Ok(ExitCode::SUCCESS)
}

fn source_text(source: &RepairSource) -> String {
    match source {
        RepairSource::Whole => "CURRENT and the manifest are whole: nothing to do".to_owned(),
        RepairSource::Manifest(name) => format!("{name}, which is whole"),
        RepairSource::ManifestBefore(name, offset) => format!("{name} before byte {offset}"),
        RepairSource::Tables => "the tables, ordered by their seqnos".to_owned(),
        _ => "another source".to_owned(),
    }
}
