//! A root whose owner lives is swept by that job, asked over its control endpoint.

use crate::control::{
    client::is_unreachable,
    find,
    records::{Record, Records},
};
use keybed::{
    Code, Error, Result,
    snapshot::{
        GcOptions, JobId,
        gc::{GcReport, Swept},
    },
};
use serde_json::{Value, json};

/// Whether a root was refused because a process owns it.
pub(super) fn is_owned(error: &Error) -> bool {
    let live = |(name, value): &(&'static str, String)| *name == "reason" && value == "live owner";
    error.code() == Code::GcRefused && error.fields().iter().any(live)
}

/// Asks the job to sweep its root; `None` if it cannot be asked: it runs for somebody else, or without an endpoint.
pub(super) fn sweep(job: JobId, options: &GcOptions) -> Option<Result<GcReport>> {
    let id = job.to_string();
    let records = Records::of_user().and_then(|records| records.all()).ok()?;
    let record = records
        .into_iter()
        .find(|record| record.job_id == id && Record::is_live(record))?;
    let client = find::client(&record).ok()?;
    let body = json!({ "dryRun": options.dry_run, "minAgeMs": options.min_age_ms });
    match client.post(&format!("/keybed/jobs/{id}/gc"), &body) {
        Ok(told) => Some(Ok(report(&told))),
        // It ended, or is about to.
        Err(e) if is_unreachable(&e) || e.code() == Code::Closed => None,
        Err(e) => Some(Err(e)),
    }
}

/// The report that an endpoint told.
fn report(told: &Value) -> GcReport {
    let list = |name: &str| -> Vec<Swept> {
        let entries = told[name].as_array().into_iter().flatten();
        entries
            .map(|entry| Swept {
                path: entry["path"].as_str().unwrap_or_default().to_owned(),
                bytes: entry["bytes"].as_u64().unwrap_or_default(),
            })
            .collect()
    };
    let error = told["error"]["code"].as_str().map(|code| {
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let message = told["error"]["message"].as_str().unwrap_or_default();
        Error::new(known.copied().unwrap_or(Code::IoFailed), message)
    });
    GcReport {
        swept: list("swept"),
        left: list("left"),
        error,
    }
}
