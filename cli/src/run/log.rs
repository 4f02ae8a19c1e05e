//! Job events as lines of the event log.

use super::events::EventLog;
use keybed::{
    Result,
    runtime::{JobEvent, Outcome, SplitOffset},
};
use serde_json::json;

impl EventLog {
    /// Appends what is worth a line.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn job_event(&self, event: &JobEvent) -> Result {
        match event {
            JobEvent::Started { attempt, restored, offsets, .. } => self.append(
                "started",
                &json!({ "attempt": attempt, "checkpoint": restored.map(|c| c.0), "offset": offset(offsets) }),
            ),
            JobEvent::RestoreWarning { warning } => {
                self.append("warning", &json!({ "name": warning.name(), "text": warning.to_string() }))
            }
            JobEvent::SourceSnapshotReleased { location } => {
                self.append("source-snapshot-released", &json!({ "location": location.display().to_string() }))
            }
            JobEvent::TransactionsLost { uid, parts, lines } => self.append(
                "transactions-lost",
                &json!({ "uid": uid.as_str(), "parts": parts, "lines": lines }),
            ),
            JobEvent::TransactionsInDoubt { uid, parts } => {
                self.append("transactions-in-doubt", &json!({ "uid": uid.as_str(), "parts": parts }))
            }
            JobEvent::CheckpointTriggered { checkpoint, .. } => {
                self.append("triggered", &json!({ "checkpoint": checkpoint.0 }))
            }
            JobEvent::CheckpointCompleted { checkpoint, duration, new_bytes, total_bytes, offsets, .. } => {
                let duration_ms = duration.as_secs_f64() * 1e3;
                self.append(
                    "completed",
                    &json!({
                        "checkpoint": checkpoint.0,
                        "offset": offset(offsets),
                        "duration_ms": duration_ms,
                        "new_bytes": new_bytes,
                        "total_bytes": total_bytes,
                    }),
                )
            }
            JobEvent::CheckpointDeclined { checkpoint, reason } => {
                self.append("failed", &json!({ "checkpoint": checkpoint.map(|c| c.0), "error": reason }))
            }
            JobEvent::SavepointCompleted { checkpoint, location, duration } => self.append(
                "savepoint",
                &json!({
                    "checkpoint": checkpoint.0,
                    "location": location.display().to_string(),
                    "duration_ms": duration.as_secs_f64() * 1e3,
                }),
            ),
            JobEvent::SavepointFailed { checkpoint, reason } => self.append(
                "savepoint-failed",
                &json!({ "checkpoint": checkpoint.map(|c| c.0), "error": reason }),
            ),
            JobEvent::Concluding { checkpoint, location, drained } => self.append(
                "concluding",
                &json!({
                    "checkpoint": checkpoint.0,
                    "location": location.display().to_string(),
                    "drained": drained,
                }),
            ),
            JobEvent::CleanupFailed { error } => {
                self.append("cleanup-failed", &json!({ "error": error.to_string() }))
            }
            JobEvent::Restarting { reason, pause } => {
                let delay_ms = pause.as_secs_f64() * 1e3;
                self.append("restarting", &json!({ "error": reason.to_string(), "delay_ms": delay_ms }))
            }
            JobEvent::Ended { outcome } => self.append("ended", &json!({ "outcome": outcome_name(*outcome) })),
            _ => Ok(()),
        }
    }
}

/// Sum of the positions of all splits; for `flights` that is the number of records read.
fn offset(offsets: &[SplitOffset]) -> u64 {
    offsets.iter().map(|o| o.position).sum()
}

/// How programs call an outcome.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Stopped => "stopped",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed => "failed",
    }
}
