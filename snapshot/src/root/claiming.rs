//! The claim of a root on the snapshot that it started from: made at the start, found again by every later owner.

use super::{Shared, source::origin};
use crate::{
    CheckpointStorage, ClaimMode, JobId, RestoreSource, RootId,
    claim::{Claim, Claimant, acquire, find},
    owner::Owners,
};
use keybed_format::Result;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The owner of a root, as a claimant.
fn claimant(storage: &dyn CheckpointStorage, job: JobId, root: RootId) -> Claimant {
    let path = storage.describe_root();
    Claimant { job, root, path }
}

/// Where snapshots lay that earlier generations claimed.
pub(super) fn claimed_earlier(owners: &Owners) -> BTreeSet<PathBuf> {
    let claimed = owners.all().filter_map(|record| match &record.restored {
        RestoreSource::Snapshot {
            location,
            mode: ClaimMode::Claim,
        } => Some(PathBuf::from(location)),
        _ => None,
    });
    claimed.collect()
}

/// The claim that the job holds since it started from a snapshot.
pub(super) fn held_claim(
    storage: &dyn CheckpointStorage,
    owners: &Owners,
    moved: Option<&Path>,
) -> Option<Claim> {
    let (location, mode) = origin(owners)?;
    let owner = owners.newest()?;
    let claimant = claimant(storage, owner.job, owner.root);
    if mode != ClaimMode::Claim {
        return None;
    }
    let fs = storage.outside()?;
    // Where it cannot be found out the snapshot stays: its turn comes with the next owner who can.
    let found = find(&fs, moved.unwrap_or(location), &claimant);
    found.ok().flatten()
}

/// All claims that a root holds, of whatever start.
pub(crate) fn held_claims(storage: &dyn CheckpointStorage, owners: &Owners) -> Vec<Claim> {
    let (Some(fs), Some(owner)) = (storage.outside(), owners.newest()) else {
        return Vec::new();
    };
    let claimant = claimant(storage, owner.job, owner.root);
    let claimed = claimed_earlier(owners).into_iter();
    // Where it cannot be found out the snapshot stays claimed, which only costs space.
    claimed
        .filter_map(|location| find(&fs, &location, &claimant).ok().flatten())
        .collect()
}

impl Shared {
    /// Claims the snapshot that the job starts from, whole.
    pub(super) fn claim_source(&self, since_ms: u64) -> Result {
        let Some(source) = &self.source.snapshot else {
            return Ok(());
        };
        let claimant = claimant(&*self.storage, self.job, self.root);
        let claim = acquire(source, &claimant, since_ms)?;
        source.check_complete().inspect_err(|_| {
            // The failure is what the caller must hear of; a claim that is left resumes with the same job.
            let _ = claim.release();
        })?;
        *self.source.claim.lock() = Some(claim);
        Ok(())
    }

    /// Gives back what earlier starts claimed that came to nothing, if this one is from elsewhere or claims nothing.
    pub(super) fn release_earlier(&self, earlier: &BTreeSet<PathBuf>, mode: ClaimMode) {
        let (Some(fs), Some(source)) = (self.storage.outside(), &self.source.snapshot) else {
            return;
        };
        let claimant = claimant(&*self.storage, self.job, self.root);
        let needed = !self.registry.lock().outside().is_empty();
        for location in earlier {
            let again = mode == ClaimMode::Claim && location == source.location();
            if needed || again {
                continue;
            }
            // What cannot be given back now stays claimed by this job, which only costs space.
            if let Ok(Some(claim)) = find(&fs, location, &claimant) {
                let _ = claim.release();
            }
        }
    }
}
