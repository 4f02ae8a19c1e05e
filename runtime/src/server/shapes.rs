//! The JSON of answers, in Flink's shapes; clients of Flink are strict, so they hold these fields and no others.

use super::{
    place,
    trigger::{Done, Trigger},
};
use crate::{event::JobReport, job::JobState, metrics::NodeMetrics};
use keybed_snapshot::gc::{GcReport, Swept};
use serde_json::{Value, json};

/// What does not change while a job runs.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) start_ms: u64,
    pub(super) parallelism: u32,
}

/// Flink's word for "not yet" and "not known".
const NEVER: i64 = -1;

fn millis(report: &JobReport) -> u64 {
    u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX)
}

fn end(facts: &Facts, report: &JobReport) -> Value {
    match report.outcome {
        Some(_) => facts.start_ms.saturating_add(millis(report)).into(),
        None => NEVER.into(),
    }
}

/// `GET /jobs`
pub(super) fn jobs(report: &JobReport) -> Value {
    json!({ "jobs": [{ "id": report.job.to_string(), "status": report.state.as_flink_status() }] })
}

/// `GET /jobs/overview`
pub(super) fn overview(facts: &Facts, report: &JobReport) -> Value {
    json!({ "jobs": [{
        "jid": report.job.to_string(),
        "name": facts.name,
        "start-time": facts.start_ms,
        "end-time": end(facts, report),
        "duration": millis(report),
        "state": report.state.as_flink_status(),
        "last-modification": facts.start_ms,
        "tasks": tasks(facts, report),
        "pending-operators": 0,
    }] })
}

/// Subtasks by state; all of them are in that of the job, as far as anybody outside can tell.
fn tasks(facts: &Facts, report: &JobReport) -> Value {
    let total = u64::from(facts.parallelism) * report.nodes.len() as u64;
    let mut tasks = json!({ "total": total });
    for name in [
        "created",
        "scheduled",
        "deploying",
        "running",
        "finished",
        "canceling",
        "canceled",
        "failed",
        "reconciling",
        "initializing",
    ] {
        let count = if name == task_state(&report.state) {
            total
        } else {
            0
        };
        tasks[name] = count.into();
    }
    tasks
}

fn task_state(state: &JobState) -> &'static str {
    match state.as_flink_status() {
        "CREATED" => "created",
        "INITIALIZING" => "initializing",
        "FAILING" | "FAILED" => "failed",
        "CANCELLING" => "canceling",
        "CANCELED" | "SUSPENDED" => "canceled",
        "FINISHED" => "finished",
        "RESTARTING" => "scheduled",
        _ => "running",
    }
}

/// `GET /jobs/:id`
pub(super) fn details(facts: &Facts, report: &JobReport) -> Value {
    let vertices: Vec<Value> = report
        .nodes
        .iter()
        .map(|node| vertex(facts, report, node))
        .collect();
    json!({
        "jid": report.job.to_string(),
        "name": facts.name,
        "isStoppable": false,
        "job-type": "STREAMING",
        "state": report.state.as_flink_status(),
        "start-time": facts.start_ms,
        "end-time": end(facts, report),
        "duration": millis(report),
        "maxParallelism": NEVER,
        "now": facts.start_ms.saturating_add(millis(report)),
        "timestamps": {},
        "vertices": vertices,
        "status-counts": {},
        "plan": { "jid": report.job.to_string(), "name": facts.name, "type": "STREAMING", "nodes": [] },
        "pending-operators": 0,
    })
}

fn vertex(facts: &Facts, report: &JobReport, node: &NodeMetrics) -> Value {
    json!({
        "id": node.uid.id().to_string(),
        "name": node.uid.as_str(),
        "parallelism": facts.parallelism,
        "status": task_state(&report.state).to_uppercase(),
        "start-time": facts.start_ms,
        "end-time": end(facts, report),
        "duration": millis(report),
        "metrics": { "read-records": node.records },
    })
}

/// `GET /jobs/:id/status`
pub(super) fn status(report: &JobReport) -> Value {
    json!({ "status": report.state.as_flink_status() })
}

/// `GET /jobs/:id/execution-result` of a job that did not fail.
pub(super) fn execution_result(report: &JobReport) -> Value {
    if !report.state.is_ended() {
        return json!({ "status": { "id": "IN_PROGRESS" } });
    }
    let application = match report.state {
        JobState::Finished => "SUCCEEDED",
        JobState::Canceled => "CANCELED",
        _ => "UNKNOWN",
    };
    json!({
        "status": { "id": "COMPLETED" },
        "job-execution-result": {
            "id": report.job.to_string(),
            "application-status": application,
            "accumulator-results": {},
            "net-runtime": millis(report),
        },
    })
}

/// `GET /config`
pub(super) fn config() -> Value {
    json!({
        "refresh-interval": 3000,
        "timezone-name": "UTC",
        "timezone-offset": 0,
        "flink-version": version(),
        "flink-revision": "",
        "features": { "web-submit": false, "web-cancel": true, "web-rescale": false, "web-history": false },
    })
}

/// `GET /overview`
pub(super) fn cluster(facts: &Facts, report: &JobReport) -> Value {
    let count = |states: &[&str]| u8::from(states.contains(&report.state.as_flink_status()));
    json!({
        "taskmanagers": 1,
        "slots-total": facts.parallelism,
        "slots-available": 0,
        "jobs-running": u8::from(!report.state.is_ended()),
        "jobs-finished": count(&["FINISHED"]),
        "jobs-cancelled": count(&["CANCELED", "SUSPENDED"]),
        "jobs-failed": count(&["FAILED"]),
        "flink-version": version(),
        "flink-commit": "",
    })
}

/// A version that no client takes for one of Flink's.
fn version() -> String {
    format!("keybed-{}", env!("CARGO_PKG_VERSION"))
}

/// `GET …/:r` of a request that did not fail.
pub(super) fn trigger(trigger: &Trigger) -> Value {
    let operation = match &trigger.outcome {
        Some((_, Ok(Done::Savepoint(path)))) => json!({ "location": place::location(path) }),
        Some((_, Ok(Done::Checkpoint(id)))) => json!({ "checkpointId": id.0 }),
        Some((_, Ok(Done::Disposed))) => json!({}),
        Some((_, Err(_))) | None => {
            return json!({ "status": { "id": "IN_PROGRESS" }, "operation": null });
        }
    };
    json!({ "status": { "id": "COMPLETED" }, "operation": operation })
}

/// `GET /keybed/jobs/:id`: everything, and not one of Flink's shapes.
pub(super) fn report(facts: &Facts, report: &JobReport) -> Value {
    let nodes: Vec<Value> = report
        .nodes
        .iter()
        .map(|node| {
            json!({
                "uid": node.uid.as_str(),
                "records": node.records,
                "late": node.late,
                "skipped": node.skipped,
            })
        })
        .collect();
    let savepoint = match &report.state {
        JobState::StopCommitPending { savepoint } => Some(savepoint.display().to_string()),
        _ => None,
    };
    json!({
        "job_id": report.job.to_string(),
        "name": facts.name,
        "state": format!("{:?}", report.state).split([' ', '{']).next().unwrap_or_default(),
        "status": report.state.as_flink_status(),
        "stop_savepoint": savepoint,
        "ended": report.state.is_ended(),
        "start_ms": facts.start_ms,
        "duration_ms": millis(report),
        "parallelism": facts.parallelism,
        "attempts": report.attempts,
        "checkpoints": report.checkpoints,
        "last_checkpoint": report.last_checkpoint.map(|id| id.0),
        "source_records": report.source_records,
        "restored_from": report.restored_from.as_ref().map(|path| path.display().to_string()),
        "depends_on_restored_snapshot": report.depends_on_restored_snapshot,
        "nodes": nodes,
        "pid": std::process::id(),
    })
}

/// Entries of a sweep that are listed; further ones are counted.
const SWEPT_LISTED_MAX: usize = 10_000;

/// `POST /keybed/jobs/:id/gc`.
pub(super) fn sweep(dry_run: bool, report: &GcReport) -> Value {
    let list = |swept: &[Swept]| -> Vec<Value> {
        swept
            .iter()
            .take(SWEPT_LISTED_MAX)
            .map(|swept| json!({ "path": swept.path, "bytes": swept.bytes }))
            .collect()
    };
    let beyond = |swept: &[Swept]| swept.len().saturating_sub(SWEPT_LISTED_MAX);
    json!({
        "dry_run": dry_run,
        "swept": list(&report.swept),
        "left": list(&report.left),
        "not_listed": beyond(&report.swept) + beyond(&report.left),
        "bytes": report.bytes(),
        "error": report.error.as_ref().map(|error| {
            json!({ "code": error.code().as_str(), "message": error.to_string() })
        }),
    })
}
