//! `keybed sink ls`: parts by job and sink, and what holds them.

use super::{count_object, count_text, held_object, held_text};
use crate::{report, say};
use keybed::{
    Error, Result,
    env::OsFs,
    runtime::{
        OperatorUid,
        sink::{SinkDirectory, SinkHistory, list},
    },
};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode};

/// Prints what lies in `out`. Exits like an unreadable hold would, if there is one.
///
/// # Errors
/// `NotFound`, `OutputUnwritable`.
pub(crate) fn run(out: &Path, json: bool) -> Result<ExitCode> {
    let found = list(&OsFs, out)?;
    if json {
        say::out(object(&found));
    } else {
        say::out(text(&found).trim_end());
    }
    let code = found.unreadable.first().map_or(0, Error::exit_code);
    Ok(ExitCode::from(code))
}

/// The sink by its uid, or by what names of parts tell of it.
fn sink_name(history: &SinkHistory) -> String {
    match &history.uid {
        Some(uid) => uid.to_string(),
        None => format!("{:016x}", history.uid_hash),
    }
}

fn text(found: &SinkDirectory) -> String {
    if found.histories.is_empty() && found.unreadable.is_empty() {
        return "no parts: nothing is in doubt".to_owned();
    }
    let mut out = String::new();
    for history in &found.histories {
        let state = if history.is_over { ", over" } else { "" };
        out += &format!("job {}, sink {}{state}\n", history.job, sink_name(history));
        for (name, count) in [("committed", history.committed), ("pending", history.pending)] {
            if count.parts > 0 {
                out += &format!("  {name:<9}  {}\n", count_text(count));
            }
        }
        for held in &history.holds {
            out += &format!("  {}\n", held_text(held));
        }
    }
    for error in &found.unreadable {
        out += &report::block(error);
    }
    out
}

fn object(found: &SinkDirectory) -> Value {
    let histories: Vec<Value> = found
        .histories
        .iter()
        .map(|h| {
            json!({
                "job_id": h.job.to_string(),
                "uid": h.uid.as_ref().map(OperatorUid::as_str),
                "uid_hash": format!("{:016x}", h.uid_hash),
                "over": h.is_over,
                "committed": count_object(h.committed),
                "pending": count_object(h.pending),
                "holds": h.holds.iter().map(held_object).collect::<Vec<_>>(),
            })
        })
        .collect();
    let unreadable: Vec<Value> = found
        .unreadable
        .iter()
        .map(|e| report::object(e)["error"].take())
        .collect();
    json!({ "histories": histories, "unreadable": unreadable })
}
