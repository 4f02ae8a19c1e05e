//! `keybed gc`: what no snapshot needs goes from the roots of jobs that do not run.
//!
//! ```text
//!   ROOT ─▶ scope: which job roots, which of them were given up ─▶ each swept alone ─▶ outcomes
//!                                    │                              └ owned by a living job: asked to do it inside
//!                                    └ named by --given-up: removed whole
//! ```
//! A root that is refused (its owner cannot be asked, metadata that cannot be read) is left as it is; the others are swept
//! and the refusal is the end of the command.

mod inside;
mod scope;

use crate::{args::GcArgs, report, say, snapshot::bytes};
use keybed::{
    Code, Error, Result,
    env::{Fs, OsFs},
    snapshot::{
        GcOptions, LocalStorage,
        gc::{GcReport, Swept, gc, retire},
    },
};
use scope::{JobRoot, Scope};
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode, sync::Arc};

/// What became of one root.
struct Outcome<'a> {
    root: &'a JobRoot,
    /// Whether the whole root was asked for.
    whole: bool,
    /// Whether its living owner swept it.
    inside: bool,
    report: Result<GcReport>,
}

/// Sweeps the roots at a path.
///
/// # Errors
/// `NotASnapshot` if there is no job root; the first refusal: `GcRefused`, with reason.
pub(crate) fn run(args: &GcArgs, json: bool) -> Result<ExitCode> {
    let scope = Scope::of(&args.root)?;
    scope.demand_given_up(&args.given_up)?;
    let options = GcOptions {
        dry_run: args.dry_run,
        min_age_ms: u64::try_from(args.min_age.as_millis()).unwrap_or(u64::MAX),
        now_ms: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default(),
    };
    let mut outcomes = Vec::new();
    for root in &scope.roots {
        let whole = args.given_up.contains(&root.job);
        let mut report = match whole {
            true => remove(&root.path, args.dry_run),
            false => gc(Arc::new(LocalStorage::at(fs(), &root.path)), &options),
        };
        let is_refused = |report: &Result<GcReport>| matches!(report, Err(e) if inside::is_owned(e));
        let asked = (!whole && is_refused(&report))
            .then(|| inside::sweep(root.job, &options))
            .flatten();
        let inside = asked.is_some();
        if let Some(told) = asked {
            report = told;
        }
        outcomes.push(Outcome {
            root,
            whole,
            inside,
            report,
        });
    }
    let left: Vec<&JobRoot> = scope
        .roots
        .iter()
        .filter(|root| root.given_up && !args.given_up.contains(&root.job))
        .collect();
    let error = first_error(&outcomes);
    if json {
        let mut object = json!({
            "dry_run": args.dry_run,
            "roots": outcomes.iter().map(outcome_object).collect::<Vec<_>>(),
            "given_up": left.iter().map(|root| given_up_object(root)).collect::<Vec<_>>(),
        });
        if let Some(error) = &error {
            object["error"] = report::object(error)["error"].clone();
        }
        say::out(object);
    } else {
        outcomes
            .iter()
            .for_each(|outcome| say_outcome(outcome, args.dry_run));
        for root in left {
            let why = match root.path.join("FINISHED").exists() {
                true => "an earlier run, which is over",
                false => "its history was given up",
            };
            say::out(format!(
                "{}: {why}; `keybed gc {} --given-up {}` removes it",
                root.path.display(),
                args.root.display(),
                root.job
            ));
        }
        if let Some(error) = &error {
            say::err(report::block(error));
        }
    }
    Ok(ExitCode::from(error.map_or(0, |error| error.exit_code())))
}

fn fs() -> Arc<dyn Fs> {
    Arc::new(OsFs)
}

/// Removes a whole root.
fn remove(root: &Path, dry_run: bool) -> Result<GcReport> {
    let retirement = retire(&fs(), root)?;
    if dry_run {
        return Ok(GcReport {
            swept: retirement.plan(),
            ..GcReport::default()
        });
    }
    Ok(retirement.execute())
}

fn first_error(outcomes: &[Outcome<'_>]) -> Option<Error> {
    outcomes.iter().find_map(|outcome| match &outcome.report {
        Ok(report) => report.error.as_ref().map(Error::duplicate),
        // A root that was removed since the scope was read.
        Err(error) if error.code() == Code::NotASnapshot => None,
        Err(error) => Some(error.duplicate()),
    })
}

fn outcome_object(outcome: &Outcome<'_>) -> Value {
    let list = |swept: &[Swept]| -> Vec<Value> {
        swept
            .iter()
            .map(|swept| json!({ "path": swept.path, "bytes": swept.bytes }))
            .collect()
    };
    let root = outcome.root.path.display().to_string();
    let (job, whole) = (outcome.root.job.to_string(), outcome.whole);
    match &outcome.report {
        Ok(report) => json!({
            "root": root,
            "job_id": job,
            "whole": whole,
            "by_owner": outcome.inside,
            "swept": list(&report.swept),
            "left": list(&report.left),
            "bytes": report.bytes(),
            "refused": null,
        }),
        Err(error) => json!({
            "root": root,
            "job_id": job,
            "whole": whole,
            "by_owner": outcome.inside,
            "swept": [],
            "left": [],
            "bytes": 0,
            "refused": report::object(error)["error"],
        }),
    }
}

fn given_up_object(root: &JobRoot) -> Value {
    json!({ "job_id": root.job.to_string(), "root": root.path.display().to_string() })
}

fn say_outcome(outcome: &Outcome<'_>, dry_run: bool) {
    let root = outcome.root.path.display();
    let report = match &outcome.report {
        Ok(report) => report,
        Err(error) => return say::out(format!("{root}: left as it is ({})", error.code())),
    };
    let (did, will) = if dry_run {
        ("would go", "would free")
    } else {
        ("gone", "freed")
    };
    for swept in &report.swept {
        say::out(format!("  goes   {} ({})", swept.path, bytes(swept.bytes)));
    }
    for left in &report.left {
        say::out(format!("  stays  {}: it could not be deleted", left.path));
    }
    let count = report.swept.len();
    say::out(format!("{root}: {count} {did}, {will} {}", bytes(report.bytes())));
}
