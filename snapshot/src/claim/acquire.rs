//! Claiming: by doing it, never by looking first. Of two claimers at once exactly one wins.

use super::{Claim, ClaimPlace, ClaimRecord, Claimant, in_job_root, in_root, list, marker};
use crate::{ForeignSnapshot, Place, SnapshotDir, storage::layout};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result};
use std::{path::Path, sync::Arc};

/// Claims the snapshot for `claimant`, durably, or goes on under the claim that it has. On failure no claim is left
/// that this call made, as far as that can be undone; what is left resumes with the same job.
///
/// # Errors
/// `SnapshotClaimedByOther` with fields `owner` and `since`; `CannotClaim` if the place cannot be written; `Locked`
/// while the job lives whose checkpoint it is; `SnapshotIncomplete` if it is gone or another one by now;
/// `InvalidArgument` for a checkpoint that does not lie where its job left it, and for a symbolic link; errors of the
/// file system.
pub fn acquire(source: &ForeignSnapshot, claimant: &Claimant, since_ms: u64) -> Result<Claim> {
    let snapshot = source.snapshot();
    // Through a link nobody sees the job root around a checkpoint, and so not whose it is.
    let kind = snapshot.fs().facts(source.location())?.map(|facts| facts.kind);
    if kind != Some(FileKind::Dir) {
        return Err(
            Error::invalid("name the directory of the snapshot itself, not a link to it")
                .in_file(source.location()),
        );
    }
    let record = ClaimRecord {
        checkpoint: snapshot.metadata().checkpoint,
        digest: snapshot.metadata_digest(),
        claimant: claimant.clone(),
        since_ms,
    };
    let mut claim = Claim {
        fs: snapshot.fs().clone(),
        directory: source.location().to_path_buf(),
        record,
        place: ClaimPlace::Marker,
    };
    let made = if in_job_root(snapshot)? {
        demand_at_home(snapshot, source.location())?;
        claim.place = ClaimPlace::List;
        in_root::acquire(&mut claim, snapshot.metadata())?
    } else {
        marker::acquire(&mut claim, snapshot.metadata())?
    };
    // Whoever disposes of it hides it first and looks for a claim then, so one of the two sees the other.
    match source.reopen() {
        Ok(_) => Ok(claim),
        Err(error) => {
            // The failure is what the caller must hear of. A claim that was there before may be what the job's
            // checkpoints rest on; it stays.
            let _ = match claim.place {
                _ if !made => Ok(()),
                ClaimPlace::Marker => marker::take_back(&claim),
                ClaimPlace::List | ClaimPlace::Remains => claim.release(),
            };
            Err(error)
        }
    }
}

/// A checkpoint is claimed by its id, so it must be the one of that id in its own root.
fn demand_at_home(snapshot: &SnapshotDir, location: &Path) -> Result {
    let metadata = snapshot.metadata();
    let owners = snapshot.owners()?;
    let named = location.file_name().and_then(|name| name.to_str());
    let at_home = named.and_then(Place::checkpoint_of) == Some(metadata.checkpoint)
        && owners
            .newest()
            .is_some_and(|owner| (owner.job, owner.root) == (metadata.job, metadata.root));
    if at_home {
        return Ok(());
    }
    Err(
        Error::invalid("the checkpoint does not lie where its job left it: claim it there, or export it")
            .in_file(location),
    )
}

/// The claim that `claimant` holds on the snapshot that was at `location`, if it does.
///
/// # Errors
/// `SnapshotCorrupt` if a claim cannot be read; errors of the file system.
pub(crate) fn find(fs: &Arc<dyn Fs>, location: &Path, claimant: &Claimant) -> Result<Option<Claim>> {
    let claim = |record, place| Claim {
        fs: fs.clone(),
        directory: location.to_path_buf(),
        record,
        place,
    };
    if let Some(record) = marker::read(&**fs, location)? {
        let ours = record.claimant.is(claimant);
        return Ok(ours.then(|| claim(record, ClaimPlace::Marker)));
    }
    let name = location
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(checkpoint) = Place::checkpoint_of(name) {
        let list = list::newest_at(fs, &SnapshotDir::root_around(location))?;
        let record = list.and_then(|list| list.live(checkpoint).cloned());
        let ours = record.filter(|record| record.claimant.is(claimant));
        return Ok(ours.map(|record| claim(record, ClaimPlace::List)));
    }
    // The last step of a removal may be all that is left to do. Only names that no user gives are taken for that.
    let is_dir = |fs: &dyn Fs| {
        Ok(fs
            .facts(location)?
            .is_some_and(|facts| facts.kind == FileKind::Dir))
    };
    if layout::is_savepoint_name(name) && is_dir(&**fs)? && fs.list(location)?.is_empty() {
        let record = ClaimRecord {
            checkpoint: Default::default(),
            digest: 0,
            claimant: claimant.clone(),
            since_ms: 0,
        };
        return Ok(Some(claim(record, ClaimPlace::Remains)));
    }
    Ok(None)
}

/// What a failure to write says about the place.
pub(super) fn cannot_write(error: Error, place: &Path) -> Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let refused = matches!(error.io_kind(), Some(PermissionDenied | ReadOnlyFilesystem));
    if refused || error.code() == Code::ReadOnlyMedium {
        error
            .recode(Code::CannotClaim)
            .context("a claimed snapshot must lie where the job may write")
            .in_file(place)
    } else {
        error
    }
}
