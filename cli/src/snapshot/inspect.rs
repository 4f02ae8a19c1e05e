//! `keybed snapshot inspect`: what a snapshot holds, and which directories it depends on.

use super::{bytes, open};
use crate::say;
use keybed::{
    Result,
    snapshot::{
        Anchor, Folder, Inspection, Metadata, SnapshotDir, SnapshotKind, StateKind, inspect,
        inspect::OperatorInspection,
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, path::Path, process::ExitCode};

/// Prints what the snapshot at a path holds.
///
/// # Errors
/// `NotASnapshot`, `SnapshotCorrupt`, `UnsupportedFormatVersion`.
pub(crate) fn run(path: &Path, json: bool) -> Result<ExitCode> {
    let snapshot = open(path)?;
    let inspection = inspect(snapshot.metadata(), &snapshot.siblings()?);
    if json {
        say::out(object(&snapshot, &inspection));
    } else {
        say::out(text(&snapshot, &inspection).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn text(snapshot: &SnapshotDir, inspection: &Inspection) -> String {
    let (metadata, sizes) = (snapshot.metadata(), &inspection.sizes);
    let mut out = format!("{} {}\n", kind_name(metadata.kind), metadata.checkpoint);
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "  {name:<12} {value}"); // writing to a String cannot fail
    };
    line("directory", &snapshot.directory().display());
    line("job", &metadata.job);
    line("taken", &taken(metadata));
    line("generation", &metadata.generation);
    let (total, exclusive) = (bytes(sizes.total_bytes), bytes(sizes.exclusive_bytes));
    line(
        "files",
        &format_args!("{} files, {total}; {exclusive} only here", sizes.files),
    );
    for dir in depends_on(snapshot, inspection) {
        line("depends on", &dir);
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

fn object(snapshot: &SnapshotDir, inspection: &Inspection) -> Value {
    let (metadata, sizes) = (snapshot.metadata(), &inspection.sizes);
    let operators: Vec<Value> = inspection.operators.iter().map(operator_object).collect();
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
        "depends_on": depends_on(snapshot, inspection),
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

/// Directories other than its own.
fn depends_on(snapshot: &SnapshotDir, inspection: &Inspection) -> Vec<String> {
    let root = snapshot.directory().parent().unwrap_or(Path::new(""));
    let place = |(anchor, folder): &(Anchor, Folder)| {
        let anchor = match anchor {
            Anchor::SelfDir => snapshot.directory().display().to_string(),
            Anchor::Root => root.display().to_string(),
            Anchor::External(id) => {
                let known = snapshot.metadata().externals.iter().find(|place| place.id == *id);
                known.map_or_else(|| format!("external place {id}"), |place| place.url.clone())
            }
        };
        match folder {
            Folder::Private => anchor,
            Folder::Shared => format!("{anchor}/shared"),
            Folder::TaskOwned => format!("{anchor}/taskowned"),
        }
    };
    inspection.depends_on.iter().map(place).collect()
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

/// How people and programs call a kind.
pub(crate) fn kind_name(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Checkpoint => "checkpoint",
        SnapshotKind::FullCheckpoint => "full checkpoint",
        SnapshotKind::NativeSavepoint => "native savepoint",
        SnapshotKind::CanonicalSavepoint => "canonical savepoint",
        _ => "snapshot",
    }
}

fn taken(metadata: &Metadata) -> String {
    let millis = i64::try_from(metadata.timestamp_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| format!("{millis} ms"), |t| t.to_string())
}
