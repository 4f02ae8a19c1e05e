//! `keybed snapshot inspect`: what a snapshot holds, and which directories it depends on.

use super::{bytes, claim_object, claim_text, kind_name, open, time};
use crate::say;
use keybed::{
    Result,
    env::{Fs, OsFs},
    snapshot::{
        FoundSnapshot, Inspection, SnapshotDir, StateKind,
        browse::{depends_on, find},
        inspect,
        inspect::OperatorInspection,
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, path::Path, process::ExitCode, sync::Arc};

/// Prints what the snapshot at a path holds.
///
/// # Errors
/// `NotASnapshot`, `SnapshotCorrupt`, `UnsupportedFormatVersion`.
pub(crate) fn run(path: &Path, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    let inspection = inspect(snapshot.metadata(), &snapshot.siblings()?);
    let found = find(&(Arc::new(OsFs) as Arc<dyn Fs>), path)?;
    let found = found.first();
    if json {
        say::out(object(&snapshot, &inspection, found));
    } else {
        say::out(text(&snapshot, &inspection, found).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn text(snapshot: &SnapshotDir, inspection: &Inspection, found: Option<&FoundSnapshot>) -> String {
    let (metadata, sizes) = (snapshot.metadata(), &inspection.sizes);
    let mut out = format!("{} {}\n", kind_name(metadata.kind), metadata.checkpoint);
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "  {name:<12} {value}"); // writing to a String cannot fail
    };
    line("directory", &snapshot.directory().display());
    line("job", &metadata.job);
    line("taken", &time(metadata.timestamp_ms));
    line("generation", &metadata.generation);
    if let Some(found) = found {
        line("standing", &found.standing.name());
    }
    if let Some(claim) = found.and_then(|found| found.facts.as_ref()?.claimed_by.as_ref()) {
        line("claimed by", &claim_text(claim));
    }
    let (total, exclusive) = (bytes(sizes.total_bytes), bytes(sizes.exclusive_bytes));
    line(
        "files",
        &format_args!("{} files, {total}; {exclusive} only here", sizes.files),
    );
    for dir in depends_on(snapshot) {
        line("depends on", &dir);
    }
    for dir in &inspection.shares_storage_with {
        line("hard links", &format_args!("shares storage with {dir}"));
    }
    for external in &metadata.externals {
        line(
            "anchor",
            &format_args!("{} is {} of job {}", external.id, external.url, external.job),
        );
    }
    for operator in &inspection.operators {
        let OperatorInspection {
            uid,
            parallelism,
            max_parallelism,
            ..
        } = operator;
        let (files, size) = (files(operator), bytes(operator.total_bytes));
        line(
            "operator",
            &format_args!(
                "{uid}: parallelism {parallelism} of at most {max_parallelism}, {files} files, {size}"
            ),
        );
        for (id, name, kind, dropped) in &operator.states {
            let dropped = if *dropped { ", dropped" } else { "" };
            line(
                "",
                &format_args!("state {} {name}: {}{dropped}", id.0, state_kind(*kind)),
            );
        }
        for (name, items) in operator_states(operator) {
            line("", &format_args!("operator state {name}: {items} items"));
        }
    }
    for (name, value) in &metadata.properties {
        line("property", &format_args!("{name} = {value}"));
    }
    out
}

fn object(snapshot: &SnapshotDir, inspection: &Inspection, found: Option<&FoundSnapshot>) -> Value {
    let (metadata, sizes) = (snapshot.metadata(), &inspection.sizes);
    let operators: Vec<Value> = inspection.operators.iter().map(operator_object).collect();
    let externals: Vec<Value> = metadata
        .externals
        .iter()
        .map(|external| {
            json!({
                "id": external.id,
                "url": external.url,
                "job_id": external.job.to_string(),
                "root_id": external.root.to_string(),
                "checkpoint": external.checkpoint.0,
            })
        })
        .collect();
    json!({
        "directory": snapshot.directory().display().to_string(),
        "kind": kind_name(metadata.kind),
        "checkpoint": metadata.checkpoint.0,
        "job_id": metadata.job.to_string(),
        "root_id": metadata.root.to_string(),
        "generation": metadata.generation.0,
        "timestamp_ms": metadata.timestamp_ms,
        "files": sizes.files,
        "total_bytes": sizes.total_bytes,
        "shared_bytes": sizes.shared_bytes,
        "exclusive_bytes": sizes.exclusive_bytes,
        "standing": found.map(|found| found.standing.name()),
        "claimed_by": found
            .and_then(|found| found.facts.as_ref()?.claimed_by.as_ref())
            .map(claim_object),
        "depends_on": depends_on(snapshot),
        "shares_storage_with": inspection.shares_storage_with,
        "externals": externals,
        "operators": operators,
        "properties": metadata.properties,
    })
}

fn operator_object(operator: &OperatorInspection) -> Value {
    let states: Vec<Value> = operator
        .states
        .iter()
        .map(|(id, name, kind, dropped)| {
            json!({ "id": id.0, "name": name, "kind": state_kind(*kind), "dropped": dropped })
        })
        .collect();
    let subtasks: Vec<Value> = operator
        .subtasks
        .iter()
        .map(|s| {
            json!({
                "index": s.index,
                "key_groups": s.range.map(|range| range.to_string()),
                "files": s.files,
                "entries_max": s.entries,
                "total_bytes": s.total_bytes,
                "new_bytes": s.new_bytes,
                "finished": s.finished,
            })
        })
        .collect();
    json!({
        "uid": operator.uid,
        "parallelism": operator.parallelism,
        "max_parallelism": operator.max_parallelism,
        "total_bytes": operator.total_bytes,
        "states": states,
        "operator_states": operator_states(operator),
        "subtasks": subtasks,
    })
}

fn files(operator: &OperatorInspection) -> usize {
    operator.subtasks.iter().map(|s| s.files).sum()
}

/// Items of each operator state, over all subtasks.
fn operator_states(operator: &OperatorInspection) -> BTreeMap<&str, usize> {
    let mut states = BTreeMap::new();
    for (name, _, items) in operator.subtasks.iter().flat_map(|s| &s.operator) {
        *states.entry(name.as_str()).or_default() += items;
    }
    states
}

fn state_kind(kind: StateKind) -> String {
    format!("{kind:?}").to_lowercase()
}
