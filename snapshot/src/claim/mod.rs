//! Claims: a job owns a snapshot that it did not write, and nobody else does.
//!
//! ```text
//!   acquire ──▶ Claim ──release──▶ the snapshot is its own again
//!                 └────remove───▶ gone: `_metadata` first, then what nobody else needs, the directory last
//!
//!   savepoint directory    CLAIMED           one record, created if absent, removed last
//!   chk-<n> of a job root  claims/<k>        all claims of that root, one whole list per change, created if absent
//!                                            under that root's lock: a living job is not robbed
//! ```
//! A claim belongs to a job root: the same job resumes under it. What goes is decided by [`removal`], pure. Page:
//! docs/format/claim.md.

mod acquire;
mod give_back;
mod in_root;
mod list;
mod marker;
mod record;
pub mod removal;

pub use acquire::acquire;
pub use give_back::give_back;
pub use list::{ClaimList, ClaimState};
pub use record::{ClaimRecord, Claimant};

pub(crate) use acquire::find;
pub(crate) use list::newest as newest_list;

use crate::{SnapshotDir, SnapshotOwner};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A claim that a job holds. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Claim {
    fs: Arc<dyn Fs>,
    /// The snapshot's directory.
    directory: PathBuf,
    record: ClaimRecord,
    place: ClaimPlace,
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimPlace {
    /// `CLAIMED` in the directory.
    Marker,
    /// The list of the job root around it.
    List,
    /// Nowhere any more: only the empty directory is left of the snapshot.
    Remains,
}

/// What became of a claimed snapshot that is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, and the claim with it.
    Gone,
    /// A job works in the root that it lies in: later.
    Busy,
    /// Something there cannot be read, or is not what was claimed: it stays.
    Kept,
}

impl Claim {
    /// Who claimed what, and when.
    pub fn record(&self) -> &ClaimRecord {
        &self.record
    }

    /// The snapshot's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives the snapshot back, whole. Repeating it is success. The caller makes sure that no checkpoint needs it.
    ///
    /// # Errors
    /// `Busy` if it is being deleted; `Locked` while a job works in its root; errors of the file system.
    pub fn release(&self) -> Result {
        match self.place {
            ClaimPlace::Marker => marker::release(self),
            ClaimPlace::List => in_root::release(self),
            ClaimPlace::Remains => Ok(()),
        }
    }

    /// Deletes what only the claimed snapshot needs. May be repeated, also after a failure or a crash in the middle.
    /// The caller has made sure that no checkpoint of the claimant needs it, and that it is the owner of its root.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(crate) fn remove(&self) -> Result<Removed> {
        match self.place {
            ClaimPlace::Marker => marker::remove(self),
            ClaimPlace::List => in_root::remove(self),
            ClaimPlace::Remains => {
                marker::remove_directory(&*self.fs, &self.directory)?;
                Ok(Removed::Gone)
            }
        }
    }
}

/// Who claimed a snapshot, if anybody did.
///
/// # Errors
/// `SnapshotCorrupt` if the claim cannot be read; errors of the file system.
pub(crate) fn claimed_by(snapshot: &SnapshotDir) -> Result<Option<ClaimRecord>> {
    if in_job_root(snapshot)? {
        let list = list::newest_at(snapshot.fs(), &snapshot.root())?;
        return Ok(list.and_then(|list| list.live(snapshot.metadata().checkpoint).cloned()));
    }
    marker::read(&**snapshot.fs(), snapshot.directory())
}

/// Who owns a snapshot, or owned and deleted it.
pub(crate) fn taken_by(snapshot: &SnapshotDir) -> Result<Option<ClaimRecord>> {
    if in_job_root(snapshot)? {
        let list = list::newest_at(snapshot.fs(), &snapshot.root())?;
        let checkpoint = snapshot.metadata().checkpoint;
        let mut claims = list.iter().flat_map(|list| list.all_live().chain(list.removed()));
        return Ok(claims.find(|record| record.checkpoint == checkpoint).cloned());
    }
    marker::read(&**snapshot.fs(), snapshot.directory())
}

/// Whether claims of the snapshot stand in the list of a job root around it, not in its own directory.
fn in_job_root(snapshot: &SnapshotDir) -> Result<bool> {
    Ok(snapshot.metadata().kind.owner() == SnapshotOwner::Job && snapshot.owners()?.newest().is_some())
}

/// The refusal that a second claimer gets.
pub(crate) fn claimed_by_other(record: &ClaimRecord, place: &Path) -> Error {
    Error::new(Code::SnapshotClaimedByOther, "another job claimed the snapshot")
        .in_file(place)
        .with("owner", record.claimant.job)
        .with("owner_root", &record.claimant.path)
        .with("since", record.since_ms)
}
