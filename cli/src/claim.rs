//! `keybed claim --release`: gives a snapshot back whose claimant has ended.

use crate::{args::ClaimArgs, say};
use keybed::{
    Result,
    env::OsFs,
    runtime::Restore,
    snapshot::{Anchors, ClaimRecord, ForeignSnapshot, claim::give_back},
};
use serde_json::json;
use std::{path::Path, process::ExitCode, sync::Arc};

/// Releases a claim.
///
/// # Errors
/// Those of [`give_back`].
pub(crate) fn run(args: &ClaimArgs, json: bool) -> Result<ExitCode> {
    let source = open(&args.release)?;
    let released = give_back(&source, args.take_over)?;
    let location = source.location().display();
    if json {
        say::out(json!({
            "snapshot": location.to_string(),
            "released_from": released.map(|record| record.claimant.job.to_string()),
        }));
    } else {
        match released {
            Some(ClaimRecord { claimant, .. }) => {
                say::out(format!("{location}: job {} owns it no more", claimant.job));
            }
            None => say::out(format!("{location}: nobody claimed it")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes a snapshot away from a job that has claimed it and has ended, or is gone for good.
///
/// # Errors
/// Those of [`give_back`].
pub(crate) fn take_over(restore: &Restore) -> Result {
    give_back(&open(&restore.path)?, true).map(drop)
}

fn open(path: &Path) -> Result<ForeignSnapshot> {
    ForeignSnapshot::open(Arc::new(OsFs), path, Anchors::default())
}
