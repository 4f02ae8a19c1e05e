//! `CLAIMED` in the directory of a savepoint: made by link, removed when nothing of the savepoint is left.
//!
//! ```text
//!   acquire   temporary ─ write ─ sync ─ link to CLAIMED ─ unlink temporary ─ sync directory
//!                                         └ claimed from here; of two links one succeeds
//!   remove    `_metadata` → `_disposing`, sync ─ files, sync ─ `_disposing`, sync ─ CLAIMED, sync ─ directory
//!              └ no snapshot from here                 crash anywhere: CLAIMED says whose turn it is to go on
//! ```

use super::{Claim, ClaimRecord, Removed, acquire::cannot_write, claimed_by_other};
use crate::{
    Birth, Metadata, ObjectName,
    savepoint::going,
    snapshot_dir::{Document, read_metadata_file},
    storage::{layout, take::links_impossible},
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{Code, Error, Result};
use std::path::{Path, PathBuf};

/// The marker in a directory.
pub(super) fn read(fs: &dyn Fs, directory: &Path) -> Result<Option<ClaimRecord>> {
    let file = layout::document(directory, layout::CLAIMED_NAME);
    match fs.read(&file, super::record::CLAIM_BYTES_MAX) {
        Ok(bytes) => ClaimRecord::decode(&bytes).map(Some).map_err(|e| e.in_file(file)),
        Err(e) if e.code() == Code::NotFound => Ok(None),
        Err(e) => Err(e.recode_malformed(Code::SnapshotCorrupt)),
    }
}

/// Makes the marker, or finds that of this claimant; true if it was made here.
pub(super) fn acquire(claim: &mut Claim, metadata: &Metadata) -> Result<bool> {
    let (fs, directory) = (claim.fs.clone(), claim.directory.clone());
    let mut made = false;
    if !is_ours(claim)? {
        made = true;
        let temporary = temporary(claim, metadata);
        if let Err(error) = write(&*fs, &directory, &temporary, &claim.record.encode()) {
            if error.code() != Code::TargetExists {
                undo(claim);
                return Err(cannot_write(error, &directory));
            }
            // Somebody was faster; perhaps this job, in a process that died.
            if !is_ours(claim)? {
                return Err(error.recode(Code::SnapshotClaimedByOther));
            }
            made = false;
        }
    }
    // Also for a claim that was found: its name may not be durable yet.
    fs.sync_dir(&directory).map_err(|e| {
        if made {
            undo(claim);
        }
        cannot_write(e, &directory)
    })?;
    Ok(made)
}

/// Takes a marker back that was just made, also where the snapshot is hidden by now: not for this claim's sake, so
/// somebody disposes of it, who is refused as long as the marker is there.
pub(super) fn take_back(claim: &Claim) -> Result {
    match read(&*claim.fs, &claim.directory)? {
        Some(record) if record == claim.record => {
            remove_if_there(
                &*claim.fs,
                &layout::document(&claim.directory, layout::CLAIMED_NAME),
            )?;
            claim.fs.sync_dir(&claim.directory)
        }
        _ => Ok(()),
    }
}

/// Whether the claim is this claimant's; then its record is taken over.
fn is_ours(claim: &mut Claim) -> Result<bool> {
    match read(&*claim.fs, &claim.directory)? {
        None => Ok(false),
        Some(record)
            if record.claimant.is(&claim.record.claimant) && record.digest == claim.record.digest =>
        {
            claim.record = record;
            Ok(true)
        }
        Some(record) => Err(claimed_by_other(&record, &claim.directory)),
    }
}

/// A name of this claimant alone, whose root's lock lets only one process of it live.
fn temporary(claim: &Claim, metadata: &Metadata) -> PathBuf {
    let birth = Birth {
        generation: metadata.generation,
        checkpoint: metadata.checkpoint,
    };
    let claimant = &claim.record.claimant;
    let name = ObjectName::temporary(birth, claimant.job.0 ^ claimant.root.0.rotate_left(64));
    layout::private(&claim.directory, &name)
}

fn write(fs: &dyn Fs, directory: &Path, temporary: &Path, bytes: &[u8]) -> Result {
    let target = layout::document(directory, layout::CLAIMED_NAME);
    let create = |path: &Path| {
        let mut file = fs.create(path)?;
        file.append(bytes)?;
        file.sync()
    };
    // What a crash left of an earlier attempt.
    match fs.remove_file(temporary) {
        Err(e) if e.code() != Code::NotFound => return Err(e),
        _ => {}
    }
    let linked = create(temporary).and_then(|()| fs.link(temporary, &target));
    // Complete without it; the name tells that it is garbage.
    let _ = fs.remove_file(temporary);
    match linked {
        Err(e) if links_impossible(&e) => {
            // Created if absent all the same. A crash in the middle leaves a claim that nobody can read: it keeps
            // everything until it is removed by hand.
            if fs.facts(&target)?.is_some() {
                return Err(Error::new(Code::TargetExists, "the snapshot is claimed").in_file(target));
            }
            create(&target)
        }
        other => other,
    }
}

/// After a failed attempt: takes back what it may have left.
fn undo(claim: &Claim) {
    // A claim that is left resumes with the same job.
    if let Ok(Some(record)) = read(&*claim.fs, &claim.directory)
        && record == claim.record
    {
        let _ = release(claim);
    }
}

pub(super) fn release(claim: &Claim) -> Result {
    let fs = &*claim.fs;
    match read(fs, &claim.directory)? {
        // An attempt that failed may have left it to a power loss to bring the marker back.
        None => {
            return match fs.sync_dir(&claim.directory) {
                Err(e) if e.code() == Code::NotFound => Ok(()),
                synced => synced,
            };
        }
        Some(record) if !record.claimant.is(&claim.record.claimant) => {
            return Err(claimed_by_other(&record, &claim.directory));
        }
        Some(_) => {}
    }
    let disposing = layout::document(&claim.directory, layout::DISPOSING_NAME);
    if fs.facts(&disposing)?.is_some() {
        return Err(Error::new(Code::Busy, "the claimed snapshot is being deleted").in_file(disposing));
    }
    remove_if_there(fs, &layout::document(&claim.directory, layout::CLAIMED_NAME))?;
    fs.sync_dir(&claim.directory)
}

pub(super) fn remove(claim: &Claim) -> Result<Removed> {
    let (fs, directory) = (&*claim.fs, claim.directory.as_path());
    if fs.facts(directory)?.is_none() {
        // Somebody removed all of it, or it is not mounted.
        return Ok(Removed::Kept);
    }
    match read(fs, directory) {
        Ok(Some(record)) if record.claimant.is(&claim.record.claimant) => {}
        // Released, or given to another: nothing here is ours any more.
        Ok(_) => return Ok(Removed::Gone),
        Err(e) if e.code() == Code::SnapshotCorrupt => return Ok(Removed::Kept),
        Err(e) => return Err(e),
    }
    let Some(hidden) = hide(fs, directory, claim.record.digest)? else {
        return Ok(Removed::Kept);
    };
    if let Hidden::Is(metadata) = hidden {
        for object in going(&metadata, &fs.list(directory)?).files.keys() {
            remove_if_there(fs, &layout::private(directory, object))?;
        }
        // The list goes after everything on it, for good.
        fs.sync_dir(directory)?;
        remove_if_there(fs, &layout::document(directory, layout::DISPOSING_NAME))?;
        fs.sync_dir(directory)?;
    }
    remove_if_there(fs, &layout::document(directory, layout::CLAIMED_NAME))?;
    fs.sync_dir(directory)?;
    remove_directory(fs, directory)?;
    Ok(Removed::Gone)
}

/// What a claimed directory holds after its snapshot was hidden.
pub(super) enum Hidden {
    /// The metadata, under the name that nobody opens.
    Is(Metadata),
    /// All of the snapshot has gone before.
    Gone,
}

/// Takes the snapshot its name, durably: nobody opens it from here. `None` if it is not the claimed one or cannot be
/// read: then nothing was changed.
pub(super) fn hide(fs: &dyn Fs, directory: &Path, digest: u64) -> Result<Option<Hidden>> {
    let metadata = layout::document(directory, layout::METADATA_NAME);
    let disposing = layout::document(directory, layout::DISPOSING_NAME);
    let (there, hidden) = (document(fs, &metadata)?, document(fs, &disposing)?);
    let is_claimed = |found: &Read| matches!(found, Read::Is(document) if document.digest == digest);
    match (there, hidden) {
        (Read::Missing, Read::Missing) => Ok(Some(Hidden::Gone)),
        (found, Read::Missing) if is_claimed(&found) => {
            fs.rename(&metadata, &disposing)?;
            fs.sync_dir(directory)?;
            Ok(found.into_hidden())
        }
        (Read::Missing, found) if is_claimed(&found) => {
            // A process that died may not have made it durable.
            fs.sync_dir(directory)?;
            Ok(found.into_hidden())
        }
        _ => Ok(None),
    }
}

enum Read {
    Missing,
    Is(Document),
    Unreadable,
}

impl Read {
    fn into_hidden(self) -> Option<Hidden> {
        match self {
            Read::Is(document) => Some(Hidden::Is(document.metadata)),
            Read::Missing | Read::Unreadable => None,
        }
    }
}

fn document(fs: &dyn Fs, file: &Path) -> Result<Read> {
    match read_metadata_file(fs, file) {
        Ok(document) => Ok(Read::Is(document)),
        Err(e) if e.code() == Code::NotFound => Ok(Read::Missing),
        Err(e)
            if matches!(
                e.code(),
                Code::SnapshotCorrupt | Code::NotASnapshot | Code::UnsupportedFormatVersion
            ) =>
        {
            Ok(Read::Unreadable)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn remove_if_there(fs: &dyn Fs, file: &Path) -> Result {
    match fs.remove_file(file) {
        Err(e) if e.code() == Code::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the directory if nothing is left in it.
pub(super) fn remove_directory(fs: &dyn Fs, directory: &Path) -> Result {
    match fs.facts(directory)?.map(|facts| facts.kind) {
        Some(FileKind::Dir) if fs.list(directory)?.is_empty() => {}
        _ => return Ok(()),
    }
    match fs.remove_dir(directory) {
        Err(e) if e.code() != Code::NotFound => return Err(e),
        _ => {}
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs.sync_dir(parent.unwrap_or(Path::new(".")))
}
