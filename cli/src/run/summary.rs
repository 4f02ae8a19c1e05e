//! What a run has done, at its end.

use super::{log::outcome_name, next_run, record::JobRecord};
use crate::{inputs::Inputs, jobs::JobName, snapshot::bytes};
use keybed::{
    runtime::{JobReport, Outcome},
    state::BackendStats,
};
use serde_json::{Value, json};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The facts of a summary.
pub(crate) struct Summary<'a> {
    job: JobName,
    record: &'a JobRecord,
    report: &'a JobReport,
    state_dir: &'a Path,
    job_root: &'a Path,
    outputs: Vec<OutputFile>,
}

struct OutputFile {
    path: PathBuf,
    bytes: u64,
    rows: u64,
}

impl<'a> Summary<'a> {
    /// Looks at the output files if the job has finished.
    pub(crate) fn of(
        (job, record): (JobName, &'a JobRecord),
        report: &'a JobReport,
        (state_dir, job_root): (&'a Path, &'a Path),
    ) -> Summary<'a> {
        let names = job.outputs().iter().filter(|_| is_complete(report));
        let outputs = names
            .filter_map(|name| OutputFile::look(record.out.join(name)))
            .collect();
        Summary {
            job,
            record,
            report,
            state_dir,
            job_root,
            outputs,
        }
    }

    fn outcome(&self) -> &'static str {
        self.report.outcome.map_or("running", outcome_name)
    }

    fn skipped(&self) -> u64 {
        self.report.nodes.iter().map(|n| n.skipped).sum()
    }

    fn late(&self) -> u64 {
        self.report.nodes.iter().map(|n| n.late).sum()
    }

    /// Over all operators.
    fn store(&self) -> BackendStats {
        self.report
            .nodes
            .iter()
            .map(|n| n.backend)
            .fold(BackendStats::default(), |sum, one| BackendStats {
                flushes: sum.flushes + one.flushes,
                compactions: sum.compactions + one.compactions,
                bottom_compactions: sum.bottom_compactions + one.bottom_compactions,
                memtable_hits: sum.memtable_hits + one.memtable_hits,
                table_gets: sum.table_gets + one.table_gets,
            })
    }

    /// The text for people.
    pub(crate) fn text(&self) -> String {
        let (record, report) = (self.record, self.report);
        let seconds = report.duration.as_secs_f64();
        let rate = report.source_records as f64 / seconds.max(f64::MIN_POSITIVE);
        let mut out = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(out, "\n  {name:<12} {value}"); // writing to a String cannot fail
        };
        for (i, file) in self.outputs.iter().enumerate() {
            let name = if i == 0 { "output" } else { "" };
            line(
                name,
                &format_args!(
                    "{} ({} rows, {})",
                    shown(&file.path).display(),
                    file.rows,
                    bytes(file.bytes)
                ),
            );
        }
        line("checkpoints", &report.checkpoints);
        let store = self.store();
        if store != BackendStats::default() {
            let BackendStats {
                flushes,
                compactions,
                memtable_hits,
                table_gets,
                ..
            } = store;
            let merges = format!("{flushes} flushes, {compactions} merges");
            line(
                "stores",
                &format_args!("{merges}; {memtable_hits} look-ups in memtables, {table_gets} below"),
            );
        }
        if report.attempts > 1 {
            line("restarts", &(report.attempts - 1));
        }
        for (name, count) in [("bad records", self.skipped()), ("late records", self.late())] {
            if count > 0 {
                line(name, &count);
            }
        }
        if matches!(report.outcome, Some(Outcome::Stopped | Outcome::Cancelled)) {
            let last = report
                .last_checkpoint
                .map(|last| self.job_root.join(format!("chk-{last}")));
            if let Some(last) = &last {
                line("stopped at", &shown(last).display());
            }
            let again = match (&record.input, &last) {
                (Inputs::Files(_), _) => Some(next_run::resume(record, self.state_dir)),
                (Inputs::Standard, Some(last)) => {
                    Some(next_run::from((self.job, record), self.state_dir, shown(last)))
                }
                (Inputs::Standard, None) => None,
            };
            if let Some(again) = again {
                line("go on with", &again);
            }
        }
        if let (Some(Outcome::Finished), Some(savepoint)) = (report.outcome, &report.stopped_with) {
            line("savepoint", &shown(savepoint).display());
            if !report.drained {
                let again = next_run::from((self.job, record), self.state_dir, shown(savepoint));
                line("go on with", &again);
            }
        }
        if let (true, Some(from)) = (report.depends_on_restored_snapshot, &report.restored_from) {
            line(
                "needs",
                &format_args!("{}, which must stay", shown(from).display()),
            );
        }
        let outcome = match &report.stopped_with {
            Some(_) if !report.drained => "stopped with a savepoint",
            _ => self.outcome(),
        };
        let head = format!("{} {outcome} in {seconds:.2} s", record.job);
        format!(
            "{head}: {} records, {:.0} records/s{out}",
            report.source_records, rate
        )
    }

    /// The object for programs.
    pub(crate) fn object(&self) -> Value {
        let (record, report) = (self.record, self.report);
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .map(|f| json!({ "file": f.path.display().to_string(), "rows": f.rows, "bytes": f.bytes }))
            .collect();
        let store = self.store();
        let nodes: Vec<Value> = report
            .nodes
            .iter()
            .map(|n| {
                json!({ "uid": n.uid.as_str(), "records": n.records, "late": n.late, "skipped": n.skipped })
            })
            .collect();
        json!({
            "job": record.job,
            "job_id": record.id.to_string(),
            "state": self.outcome(),
            "seconds": report.duration.as_secs_f64(),
            "records": report.source_records,
            "bad_records": self.skipped(),
            "late_records": self.late(),
            "attempts": report.attempts,
            "checkpoints": report.checkpoints,
            "last_checkpoint": report.last_checkpoint.map(|c| c.0),
            "restored_from": report.restored_from.as_ref().map(|path| path.display().to_string()),
            "depends_on_restored_snapshot": report.depends_on_restored_snapshot,
            "stopped_with": report.stopped_with.as_ref().map(|path| path.display().to_string()),
            "drained": report.drained,
            "job_root": self.job_root.display().to_string(),
            "store": {
                "flushes": store.flushes,
                "compactions": store.compactions,
                "bottom_compactions": store.bottom_compactions,
                "memtable_hits": store.memtable_hits,
                "table_gets": store.table_gets,
            },
            "outputs": outputs,
            "nodes": nodes,
        })
    }
}

impl OutputFile {
    fn look(path: PathBuf) -> Option<OutputFile> {
        let content = fs::read(&path).ok()?;
        let lines = content.iter().filter(|b| **b == b'\n').count() as u64;
        Some(OutputFile {
            path,
            bytes: content.len() as u64,
            rows: lines.saturating_sub(1),
        })
    }
}

/// Whether the output is that of the whole input, or of what was read before a drained stop.
pub(crate) fn is_complete(report: &JobReport) -> bool {
    report.outcome == Some(Outcome::Finished) && (report.stopped_with.is_none() || report.drained)
}

/// A path as the user would write it from here.
pub(super) fn shown(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}
