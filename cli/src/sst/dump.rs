//! `keybed sst dump`: the blocks or the entries of a table.

use super::{facts, open, text};
use crate::say;
use keybed::{
    Result,
    lsm::{
        EntryKind,
        table::{TableIter, TableReader, TableView},
    },
};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode, sync::Arc};

/// Prints blocks, or at most `limit` entries.
///
/// # Errors
/// `TableCorrupt` with file and offset, `UnsupportedFormatVersion`, `NotFound`.
pub(crate) fn run(file: &Path, entries: bool, limit: u64, json: bool) -> Result<ExitCode> {
    let reader = open(file)?;
    if !entries {
        let dump = reader.dump().to_string();
        if json {
            let lines: Vec<&str> = dump.lines().collect();
            say::out(json!({ "table": facts(&reader), "lines": lines }));
        } else {
            say::out(dump.trim_end());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut listed: Vec<Value> = Vec::new();
    let all = each(&reader, limit, |line| {
        if json {
            listed.push(line);
        } else {
            let of = |field: &str| line.get(field).and_then(Value::as_str).unwrap_or_default();
            say::out(format!(
                "{} @{} {} {}",
                of("key"),
                line.get("seqno").unwrap_or(&Value::Null),
                of("kind"),
                of("value")
            ));
        }
    })?;
    let rest = reader.facts().entries.saturating_sub(limit);
    if json {
        say::out(
            json!({ "table": facts(&reader), "entries": listed, "left_out": if all { 0 } else { rest } }),
        );
    } else if !all {
        say::out(format!("{rest} more; see --limit"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows entries until `limit`; whether that were all.
fn each(reader: &Arc<TableReader>, limit: u64, mut see: impl FnMut(Value)) -> Result<bool> {
    let view = TableView::whole(reader.clone());
    let mut iter = TableIter::streaming(&view);
    iter.seek_to_first()?;
    for _ in 0..limit {
        if !iter.valid() {
            return Ok(true);
        }
        let entry = iter.entry();
        let kind = match entry.kind {
            EntryKind::Put => "put",
            EntryKind::Delete => "delete",
            EntryKind::Merge => "merge",
            EntryKind::PutStamped => "put",
            EntryKind::MergeStamped => "merge",
        };
        let mut line = json!({
            "key": text(entry.key),
            "seqno": entry.seqno,
            "kind": kind,
            "value": text(entry.bare_value()),
        });
        if let (Some(stamp), Some(line)) = (entry.touched(), line.as_object_mut()) {
            line.insert("touched".to_owned(), json!(stamp));
        }
        see(line);
        iter.next()?;
    }
    Ok(!iter.valid())
}
