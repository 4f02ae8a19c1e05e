//! Giving a claimed snapshot back for a job that has ended: by hand, from outside.
//!
//! ```text
//!   the claimant's root      lives (its lock is held)          Locked
//!                            is not where it was               refused, unless the caller says that the job is gone
//!                            refers to the snapshot            GcRefused: its checkpoints could not be restored
//!                            else                              the claim is released, the snapshot stays whole
//! ```

use super::{ClaimRecord, claimed_by_other, find};
use crate::{
    CheckpointStorage, ForeignSnapshot, LocalStorage, Place,
    survey::{Found, Survey},
};
use keybed_env::fs::FileLock;
use keybed_format::{Code, Error, Result};
use std::path::Path;

/// Releases the claim on a snapshot, whoever holds it and has ended; `None` if nobody claimed it. `take_over` says that
/// a claimant whose root is not found any more is gone for good. A job that lives is never displaced. A claimant that
/// is started again before its first checkpoint claims the snapshot again.
///
/// # Errors
/// `Locked` while the claimant lives, or the job whose checkpoint it is; `SnapshotClaimedByOther` if the claimant is not
/// found; `GcRefused` if its checkpoints refer to the snapshot or cannot be read; `Busy` if the snapshot is being
/// deleted; errors of the file system.
pub fn give_back(source: &ForeignSnapshot, take_over: bool) -> Result<Option<ClaimRecord>> {
    let Some(record) = source.claimed_by()? else {
        return Ok(None);
    };
    let lock = lock_claimant(source, &record)?;
    if lock.is_none() && !take_over {
        let sentence = "the job that claimed it is not where it was, so nobody knows whether it lives";
        return Err(claimed_by_other(&record, source.location()).context(sentence));
    }
    let Some(claim) = find(source.snapshot().fs(), source.location(), &record.claimant)? else {
        return Ok(None);
    };
    claim.release().map(|()| Some(record))
}

/// Keeps the claimant from starting, and makes sure that it needs nothing; `None` if its root is not found.
fn lock_claimant(source: &ForeignSnapshot, record: &ClaimRecord) -> Result<Option<Box<dyn FileLock>>> {
    let root = Path::new(&record.claimant.path);
    let storage = LocalStorage::at(source.snapshot().fs().clone(), root);
    // Nothing is created where no job root is.
    if storage.list(Place::Owner)?.is_empty() {
        return Ok(None);
    }
    let lock = storage.lock()?;
    let survey = Survey::read(&storage, record.claimant.job)?;
    if survey.root() != Some(record.claimant.root) {
        return Ok(None);
    }
    for found in survey.checkpoints.values() {
        let needed = match found {
            Found::Unpublished => false,
            Found::Unreadable(_) => true,
            // Whatever it refers to it has from the snapshot, or through it.
            Found::Published(metadata) => !metadata.externals.is_empty(),
        };
        if needed {
            let what = "checkpoints of the job that claimed the snapshot refer to it, or cannot be read";
            return Err(Error::new(Code::GcRefused, what)
                .in_file(root)
                .with("owner", record.claimant.job));
        }
    }
    Ok(Some(lock))
}
