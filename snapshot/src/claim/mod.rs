//! Claims: a job owns a snapshot that it did not write, and nobody else does.
//!
//! ```text
//!   savepoint directory    CLAIMED           one record, created if absent, removed last
//!   chk-<n> of a job root  claims/<k>        all claims of that root, one whole list per change, created if absent
//!                                            under that root's lock: a living job is not robbed
//! ```
//! A claim belongs to a job root: the same job resumes under it. A claimed snapshot goes by subsumption alone, when
//! none of its files is referenced any more. Page: docs/format/claim.md.

mod list;
mod record;

pub use list::{ClaimList, ClaimState};
pub use record::{ClaimRecord, Claimant};

use crate::{SnapshotDir, SnapshotOwner, storage::layout};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::path::Path;

/// Who claimed a snapshot, if anybody did.
///
/// # Errors
/// `SnapshotCorrupt` if the claim cannot be read; errors of the file system.
pub(crate) fn claimed_by(snapshot: &SnapshotDir) -> Result<Option<ClaimRecord>> {
    match in_job_root(snapshot)? {
        true => {
            let list = list::newest_at(snapshot.fs(), &snapshot.root())?;
            Ok(list.and_then(|list| list.live(snapshot.metadata().checkpoint).cloned()))
        }
        false => marker(&**snapshot.fs(), snapshot.directory()),
    }
}

/// Whether claims of the snapshot stand in the list of a job root around it, not in its own directory.
pub(crate) fn in_job_root(snapshot: &SnapshotDir) -> Result<bool> {
    Ok(snapshot.metadata().kind.owner() == SnapshotOwner::Job && snapshot.owners()?.newest().is_some())
}

/// The marker in a savepoint's directory.
pub(crate) fn marker(fs: &dyn Fs, directory: &Path) -> Result<Option<ClaimRecord>> {
    let file = layout::document(directory, layout::CLAIMED_NAME);
    match fs.read(&file, record::CLAIM_BYTES_MAX) {
        Ok(bytes) => ClaimRecord::decode(&bytes).map(Some).map_err(|e| e.in_file(file)),
        Err(e) if e.code() == Code::NotFound => Ok(None),
        Err(e) => Err(e.recode_malformed(Code::SnapshotCorrupt)),
    }
}

/// The refusal that a second claimer gets.
#[expect(dead_code, reason = "claiming refuses with it")]
pub(crate) fn claimed_by_other(record: &ClaimRecord, place: &Path) -> Error {
    Error::new(Code::SnapshotClaimedByOther, "another job claimed the snapshot")
        .in_file(place)
        .with("owner", record.claimant.job)
        .with("owner_root", &record.claimant.path)
        .with("since", record.since_ms)
}
