//! `keybed run … --check`: whether the job would start, and everything that is wrong if not. Nothing is written.

use crate::{
    report, say,
    snapshot::{bytes, kind_name},
};
use keybed::{
    Error, Result,
    runtime::{CheckReport, JobOptions, OperatorCheck, OperatorUid, Pipeline},
};
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode};

/// Exit code of a start that would be refused.
const REFUSED: u8 = 5;

/// Prints what a start would find, with problems that were met on the way there.
///
/// # Errors
/// Those of the operating system that keep from looking.
pub(crate) fn run(
    pipeline: &Pipeline,
    options: &JobOptions,
    met: Vec<Error>,
    json: bool,
) -> Result<ExitCode> {
    let mut report = pipeline.check(options)?;
    report.problems.extend(met);
    if json {
        say::out(object(&report));
    } else {
        say::out(text(&report).trim_end());
    }
    Ok(ExitCode::from(exit_code(&report)))
}

/// Of what is incompatible that of a refusal, whatever else is wrong.
fn exit_code(report: &CheckReport) -> u8 {
    let codes = || report.problems.iter().map(Error::exit_code);
    codes()
        .find(|code| *code == REFUSED)
        .or(codes().next())
        .unwrap_or(0)
}

fn text(report: &CheckReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(snapshot) = &report.snapshot {
        let (kind, size) = (kind_name(snapshot.kind), bytes(snapshot.bytes));
        let _ = writeln!(
            out,
            "{kind} {} of job {}: {} files, {size}\n  {}",
            snapshot.checkpoint,
            snapshot.job,
            snapshot.files,
            snapshot.location.display()
        );
    }
    for operator in &report.operators {
        let _ = writeln!(out, "  {}", line(operator));
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    for problem in &report.problems {
        out += &report::block(problem);
    }
    out += &match report.problems.len() {
        0 => "the job would start".to_owned(),
        1 => "the job would not start: 1 problem".to_owned(),
        count => format!("the job would not start: {count} problems"),
    };
    out
}

fn line(operator: &OperatorCheck) -> String {
    let mut out = format!("{:<9} {}", operator.standing.as_str(), operator.uid);
    if let Some(old) = &operator.renamed_from {
        out += &format!(" (was {old})");
    }
    out += &match (operator.parallelism_before, operator.parallelism) {
        (Some(before), Some(now)) if before != now => format!(": {before} subtasks, now {now}"),
        (_, Some(count)) | (Some(count), None) => format!(": {count} subtasks"),
        (None, None) => String::new(),
    };
    if operator.bytes > 0 {
        out += &format!(", {}", bytes(operator.bytes));
    }
    if !operator.states.is_empty() {
        out += &format!(" of {}", operator.states.join(", "));
    }
    out
}

fn object(report: &CheckReport) -> Value {
    let snapshot = report.snapshot.as_ref().map(|s| {
        json!({
            "location": s.location.display().to_string(),
            "job_id": s.job.to_string(),
            "checkpoint": s.checkpoint.0,
            "kind": kind_name(s.kind),
            "time_ms": s.timestamp_ms,
            "files": s.files,
            "bytes": s.bytes,
        })
    });
    let operators: Vec<Value> = report
        .operators
        .iter()
        .map(|o| {
            json!({
                "uid": o.uid.as_str(),
                "renamed_from": o.renamed_from.as_ref().map(OperatorUid::as_str),
                "standing": o.standing.as_str(),
                "states": o.states,
                "bytes": o.bytes,
                "parallelism_before": o.parallelism_before,
                "parallelism": o.parallelism,
                "max_parallelism": o.max_parallelism,
            })
        })
        .collect();
    let warnings: Vec<Value> = report
        .warnings
        .iter()
        .map(|w| json!({ "name": w.name(), "text": w.to_string() }))
        .collect();
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|p| report::object(p)["error"].take())
        .collect();
    json!({
        "compatible": report.is_compatible(),
        "snapshot": snapshot,
        "operators": operators,
        "warnings": warnings,
        "problems": problems,
    })
}
