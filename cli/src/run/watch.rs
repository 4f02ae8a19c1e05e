//! What a run shows while it runs: a progress bar, and one line per checkpoint.
//!
//! The bar is on standard error and only there where that is a terminal; the lines are on standard output. With
//! `--json` neither is shown: the event log has it all.

use crate::{say, snapshot::bytes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keybed::runtime::{JobEvent, JobReport, Outcome};
use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

/// Shows a run.
#[derive(Clone)]
pub(crate) struct Watch {
    bar: ProgressBar,
    quiet: bool,
}

impl Watch {
    /// Nothing is shown if `quiet`.
    pub(crate) fn new(quiet: bool) -> Watch {
        let bar = ProgressBar::no_length();
        if quiet || !stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {human_pos} records  {msg}  {elapsed}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Watch { bar, quiet }
    }

    /// A line, above the bar if there is one.
    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| say::out(text));
        }
    }

    /// Moves the bar.
    pub(crate) fn progress(&self, report: &JobReport) {
        let rate = report.source_records as f64 / report.duration.as_secs_f64().max(f64::MIN_POSITIVE);
        self.bar.set_message(format!("{rate:.0} records/s"));
        self.bar.set_position(report.source_records);
        self.bar.tick();
    }

    /// Tells of an event.
    pub(crate) fn event(&self, event: &JobEvent) {
        if let Some(text) = text(event) {
            self.line(&text);
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The line of an event, if it deserves one.
fn text(event: &JobEvent) -> Option<String> {
    Some(match event {
        JobEvent::Started {
            restored: Some(checkpoint),
            offsets,
            ..
        } => {
            let splits = offsets.len();
            format!("restored checkpoint {checkpoint} ({splits} splits go on)")
        }
        JobEvent::RestoreWarning { warning } => format!("warning: {warning}"),
        JobEvent::SourceSnapshotReleased { location } => {
            format!("the snapshot {} is not needed any more", location.display())
        }
        JobEvent::CheckpointCompleted {
            checkpoint,
            duration,
            new_bytes,
            total_bytes,
            ..
        } => {
            let (new, total) = (bytes(*new_bytes), bytes(*total_bytes));
            format!(
                "checkpoint {checkpoint:<5} {:>8}   new {new:>10}   total {total:>10}",
                millis(*duration)
            )
        }
        JobEvent::CheckpointDeclined {
            checkpoint: Some(checkpoint),
            reason,
        } => {
            format!("checkpoint {checkpoint:<5} given up: {reason}")
        }
        JobEvent::CheckpointDeclined {
            checkpoint: None,
            reason,
        } => format!("no checkpoint was taken: {reason}"),
        JobEvent::TransactionsLost { uid, parts, lines } => {
            format!(
                "{uid}: {parts} parts that the snapshot names are lost; the output lacks their {lines} lines"
            )
        }
        JobEvent::TransactionsInDoubt { uid, parts } => {
            format!("{uid}: {parts} parts of other jobs are left alone; `keybed sink ls` lists them")
        }
        JobEvent::Concluding { location, .. } => {
            format!("committing what the savepoint {} names", location.display())
        }
        JobEvent::CleanupFailed { error } => format!("cleaning up will be tried again: {error}"),
        JobEvent::Restarting { reason, pause } => format!("restarting in {}: {reason}", millis(*pause)),
        JobEvent::Ended {
            outcome: Outcome::Stopped,
        } => "stopped after a last checkpoint".to_owned(),
        _ => return None,
    })
}

/// A duration as people compare them.
fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
