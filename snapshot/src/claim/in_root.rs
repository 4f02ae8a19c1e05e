//! A claimed checkpoint in the root of the job that wrote it. Everything happens under that root's lock.
//!
//! ```text
//!   acquire   lock ─ read all ─ no overlap with a living claim ─ claims/<n+1>          claimed from here
//!   remove    lock ─ read all ─ `_metadata` → `_disposing`, sync ─ shared files that no other needs, sync
//!             ─ private files, sync ─ `_disposing`, sync ─ folder, sync ─ claims/<n+1>: removed
//!             crash anywhere: the claim lives and `_disposing` lists what is to go
//! ```

use super::{
    Claim, ClaimList, ClaimState, Removed,
    acquire::cannot_write,
    claimed_by_other,
    list::newest,
    marker::{Hidden, hide, remove_directory, remove_if_there},
    removal::{Left, RootContent, going, overlapping},
};
use crate::{
    Birth, CheckpointId, CheckpointStorage, JobId, LocalStorage, Metadata, ObjectName, ObjectPath, Place,
    SnapshotDir,
    storage::layout,
    survey::{Found, Survey},
};
use keybed_env::fs::FileLock;
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// Tries to write the next list before the place counts as busy: only where locks do not work is there more than one.
const TRIES_MAX: usize = 16;

/// A foreign root that this process has locked.
struct Locked {
    storage: LocalStorage,
    root: PathBuf,
    _lock: Box<dyn FileLock>,
}

fn lock(claim: &Claim) -> Result<Locked> {
    let root = SnapshotDir::root_around(&claim.directory);
    let storage = LocalStorage::at(claim.fs.clone(), &root);
    Ok(Locked {
        _lock: storage.lock()?,
        storage,
        root,
    })
}

impl Locked {
    /// What lies there. Whose root it is says its own newest record.
    fn survey(&self) -> Result<Survey> {
        let owners = crate::survey::read_owners(&self.storage)?;
        let job = owners.newest().map_or(JobId(0), |owner| owner.job);
        Survey::read(&self.storage, job)
    }

    /// The newest list of claims.
    fn claims(&self, survey: &Survey) -> Result<ClaimList> {
        let Some(owner) = survey.owners.newest() else {
            return Err(
                Error::new(Code::SnapshotIncomplete, "the job root has no owner record").in_file(&self.root),
            );
        };
        let list = newest(&self.storage)?;
        Ok(list.unwrap_or_else(|| ClaimList::none(owner.job, owner.root)))
    }

    /// Writes the next list; `false` if somebody else wrote one of its number.
    fn put(&self, list: &ClaimList, claim: &Claim) -> Result<bool> {
        self.storage.create_folder(Place::Claims)?;
        let birth = Birth {
            generation: Default::default(),
            checkpoint: claim.record.checkpoint,
        };
        let claimant = &claim.record.claimant;
        let temporary = ObjectName::temporary(birth, claimant.job.0 ^ claimant.root.0.rotate_left(64));
        let path = ObjectPath::Claims(list.number);
        // What a crash left of an earlier attempt of this claimant.
        self.storage
            .delete(&ObjectPath::Temporary(Place::Claims, temporary.clone()))?;
        match self.storage.put_new(&path, &list.encode(), &temporary) {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Code::TargetExists => Ok(false),
            Err(error) => {
                // Nobody knows how far it came.
                let written = newest(&self.storage)?.as_ref() == Some(list);
                if written && self.storage.sync(Place::Claims).is_ok() {
                    return Ok(true);
                }
                Err(error)
            }
        }
    }

    /// Changes how our claim stands, if it is ours and lives.
    fn settle(&self, claim: &Claim, state: ClaimState) -> Result {
        for _ in 0..TRIES_MAX {
            let Some(list) = newest(&self.storage)? else {
                return Ok(());
            };
            let Some(record) = list
                .live(claim.record.checkpoint)
                .filter(|r| r.claimant.is(&claim.record.claimant))
            else {
                // It may have been settled by an attempt that could not make it last.
                return self.storage.sync(Place::Claims);
            };
            if self.put(&list.next(record.clone(), state), claim)? {
                return Ok(());
            }
        }
        Err(busy())
    }
}

fn busy() -> Error {
    Error::new(Code::Busy, "others change the claims of the root all the time").with("limit", TRIES_MAX)
}

/// Adds the claim to the list, or finds that of this claimant; true if it was added here.
pub(super) fn acquire(claim: &mut Claim, metadata: &Metadata) -> Result<bool> {
    let place = claim.directory.clone();
    let locked = lock(claim).map_err(|e| cannot_write(e, &place))?;
    for _ in 0..TRIES_MAX {
        let survey = locked.survey()?;
        let list = locked.claims(&survey)?;
        if let Some(record) = list.live(metadata.checkpoint) {
            if !record.claimant.is(&claim.record.claimant) || record.digest != claim.record.digest {
                return Err(claimed_by_other(record, &place));
            }
            claim.record = record.clone();
            let synced = locked.storage.sync(Place::Claims);
            return synced.map(|()| false).map_err(|e| cannot_write(e, &place));
        }
        let claimant = &claim.record.claimant;
        let mut others = BTreeMap::new();
        for (id, found) in &survey.checkpoints {
            match found {
                Found::Published(metadata) => drop(others.insert(*id, &**metadata)),
                Found::Unreadable(error) if list.live(*id).is_some() => return Err(error.duplicate()),
                Found::Unreadable(_) | Found::Unpublished => {}
            }
        }
        if let Some(record) = overlapping(metadata, &list, &others, |other| other.is(claimant))? {
            return Err(claimed_by_other(record, &place).with("overlaps", record.checkpoint));
        }
        match locked.put(&list.next(claim.record.clone(), ClaimState::Live), claim) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => {
                // A claim that is left all the same resumes with the same job.
                let _ = locked.settle(claim, ClaimState::Released);
                return Err(cannot_write(error, &place));
            }
        }
    }
    Err(busy())
}

pub(super) fn release(claim: &Claim) -> Result {
    let locked = lock(claim)?;
    let disposing = layout::document(&claim.directory, layout::DISPOSING_NAME);
    if claim.fs.facts(&disposing)?.is_some() {
        return Err(Error::new(Code::Busy, "the claimed snapshot is being deleted").in_file(disposing));
    }
    locked.settle(claim, ClaimState::Released)
}

pub(super) fn remove(claim: &Claim) -> Result<Removed> {
    let locked = match lock(claim) {
        Err(e) if e.code() == Code::Locked => return Ok(Removed::Busy),
        // The whole root is gone, or not mounted.
        Err(e) if e.code() == Code::NotFound => return Ok(Removed::Kept),
        other => other?,
    };
    let read = locked.survey().and_then(|survey| {
        let list = locked.claims(&survey)?;
        Ok((survey, list))
    });
    let (survey, list) = match read {
        // Records that cannot be read keep everything.
        Err(e) if is_damage(&e) => return Ok(Removed::Kept),
        other => other?,
    };
    let ours = list.live(claim.record.checkpoint);
    if !ours.is_some_and(|record| record.claimant.is(&claim.record.claimant)) {
        return Ok(Removed::Gone);
    }
    // Decided twice: before anything is hidden, so that what stays stays whole; and by what is hidden then.
    if let Some(Found::Published(metadata)) = survey.checkpoints.get(&claim.record.checkpoint)
        && decide(&locked, &survey, &list, claim, metadata)?.is_none()
    {
        return Ok(Removed::Kept);
    }
    let directory = &claim.directory;
    match hide(&*claim.fs, directory, claim.record.digest)? {
        None => return Ok(Removed::Kept),
        Some(Hidden::Gone) => {}
        Some(Hidden::Is(metadata)) => {
            let Some(going) = decide(&locked, &survey, &list, claim, &metadata)? else {
                return Ok(Removed::Kept);
            };
            erase(&locked, claim.record.checkpoint, &going)?;
            remove_if_there(&*claim.fs, &layout::document(directory, layout::DISPOSING_NAME))?;
            claim.fs.sync_dir(directory)?;
        }
    }
    remove_directory(&*claim.fs, directory)?;
    locked.settle(claim, ClaimState::Removed)?;
    Ok(Removed::Gone)
}

fn is_damage(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::SnapshotCorrupt
            | Code::SnapshotIncomplete
            | Code::UnsupportedFormatVersion
            | Code::NotASnapshot
    )
}

/// What goes, by what lies in the root.
fn decide(
    locked: &Locked,
    survey: &Survey,
    list: &ClaimList,
    claim: &Claim,
    claimed: &Metadata,
) -> Result<Option<BTreeSet<ObjectPath>>> {
    let mut others = BTreeMap::new();
    for (id, found) in &survey.checkpoints {
        if *id == claim.record.checkpoint {
            continue;
        }
        match found {
            Found::Published(metadata) => drop(others.insert(*id, Left::Named(metadata))),
            Found::Unreadable(_) => drop(others.insert(*id, Left::Unreadable)),
            Found::Unpublished if is_hidden(locked, *id)? => drop(others.insert(*id, Left::Hidden)),
            Found::Unpublished => {}
        }
    }
    let objects = survey.objects.iter().cloned().collect();
    let content = RootContent {
        claimed,
        others,
        claims: list,
        objects: &objects,
    };
    going(&content)
}

fn is_hidden(locked: &Locked, id: CheckpointId) -> Result<bool> {
    let names = locked.storage.list(Place::Checkpoint(id))?;
    Ok(names.iter().any(|listed| listed.name == layout::DISPOSING_NAME))
}

/// Deletes objects, those in `shared/` first: the folder with the list of them goes last.
fn erase(locked: &Locked, claimed: CheckpointId, going: &BTreeSet<ObjectPath>) -> Result {
    for place in [Place::Shared, Place::Checkpoint(claimed)] {
        for path in going.iter().filter(|path| path.place() == place) {
            locked.storage.delete(path)?;
        }
        if place == Place::Checkpoint(claimed) {
            // Left by a crash while it was published.
            for listed in locked.storage.list(place)? {
                if let Some(path @ ObjectPath::Temporary(..)) = place.object(&listed.name) {
                    locked.storage.delete(&path)?;
                }
            }
        }
        locked.storage.sync(place)?;
    }
    Ok(())
}
