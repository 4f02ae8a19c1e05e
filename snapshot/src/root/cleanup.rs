//! Deleting what was decided to go: metadata first, then data, then folders.
//!
//! ```text
//!   registry.doomed ──▶ delete `_metadata`, sync ──▶ registry.erased        the snapshot cannot be addressed any more
//!   registry.condemn ─▶ delete objects ────────────▶ registry.deleted       a crash leaves orphans, never half a snapshot
//!   registry.empty_folders ─▶ remove ──────────────▶ registry.folder_removed
//!   registry.source_goes ───▶ Claim::remove            the claimed snapshot that the job started from
//! ```
//! Every batch re-reads the newest owner record first. What remains is one batch of a process that was paused between
//! that look and the deletion. It never holds an object of a newer generation, nor one of the newest checkpoint, which
//! a resuming owner continues; only an owner that chose an older checkpoint by hand could lose that choice. Where the
//! operating system's lock works there is no such process.

use super::Shared;
use crate::{CheckpointId, ObjectPath, Place, claim::Removed, gc::Garbage, survey::read_metadata};
use keybed_format::{Code, Error, Result};
use std::collections::BTreeSet;

/// Deletions between two looks at the newest owner record.
const BATCH_MAX: usize = 256;

/// What a cleanup did.
#[derive(Debug, Default)]
pub struct CleanupReport {
    /// Checkpoints that are gone.
    pub checkpoints: Vec<CheckpointId>,
    /// Objects deleted.
    pub objects: usize,
    /// Their paths.
    pub deleted: Vec<ObjectPath>,
    /// Folders removed.
    pub folders: Vec<CheckpointId>,
    /// Objects that should be gone and are not yet.
    pub backlog: usize,
    /// What became of the claimed snapshot that the job started from, if its time had come.
    pub source: Option<Removed>,
    /// The first failure: `Fenced`, `GcRefused`, or one of the storage. The rest was still tried where that is safe.
    pub error: Option<Error>,
}

impl CleanupReport {
    fn note(&mut self, result: Result) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.error.get_or_insert(error);
                false
            }
        }
    }
}

pub(super) fn cleanup(shared: &Shared) -> CleanupReport {
    sweep(shared, None)
}

/// Deletes what the registry decides; of that, if `only` is given, no more than is in it.
pub(super) fn sweep(shared: &Shared, only: Option<&Garbage>) -> CleanupReport {
    let _one_at_a_time = shared.cleaning.lock();
    let mut report = CleanupReport::default();
    let result = stages(shared, only, &mut report);
    report.note(result);
    report.backlog = shared.registry.lock().backlog();
    report
}

fn stages(shared: &Shared, only: Option<&Garbage>, report: &mut CleanupReport) -> Result {
    resolve_uncertain(shared)?;
    let mut doomed = shared.registry.lock().doomed()?;
    doomed.retain(|id| only.is_none_or(|only| only.checkpoints.contains(id)));
    for id in doomed {
        shared.demand_newest()?;
        let erased = shared
            .storage
            .delete(&ObjectPath::Metadata(id))
            // Durable before the first of its files goes, or a crash could leave half a snapshot.
            .and_then(|()| match shared.storage.sync(Place::Checkpoint(id)) {
                // Somebody removed the whole folder, so nothing in it can come back.
                Err(e) if e.code() == Code::NotFound => shared.storage.sync(Place::Root),
                synced => synced,
            });
        if report.note(erased) {
            shared.registry.lock().erased(id);
            report.checkpoints.push(id);
        }
    }
    let mut condemned = shared.registry.lock().condemn()?;
    if let Some(only) = only {
        let only: BTreeSet<&ObjectPath> = only.objects.iter().collect();
        condemned.retain(|path| only.contains(path));
    }
    for batch in condemned.chunks(BATCH_MAX) {
        shared.demand_newest()?;
        for path in batch {
            if report.note(shared.storage.delete(path)) {
                shared.registry.lock().deleted(path);
                report.objects += 1;
                report.deleted.push(path.clone());
            }
        }
    }
    let mut folders = shared.registry.lock().empty_folders();
    folders.retain(|id| only.is_none_or(|only| only.folders.contains(id)));
    for batch in folders.chunks(BATCH_MAX) {
        shared.demand_newest()?;
        for id in batch {
            remove_folder(shared, *id, report);
        }
    }
    // A sweep deletes what lies here and was planned.
    match only {
        None => subsume_source(shared, report),
        Some(_) => Ok(()),
    }
}

/// Deletes the claimed snapshot once it is subsumed and nothing refers to it; what could not be done is tried again by
/// the next cleanup.
fn subsume_source(shared: &Shared, report: &mut CleanupReport) -> Result {
    let claim = shared.source.claim.lock().clone();
    let Some(claim) = claim.filter(|_| report.error.is_none()) else {
        return Ok(());
    };
    if !shared.registry.lock().source_goes()? {
        return Ok(());
    }
    shared.demand_newest()?;
    let removed = claim.remove()?;
    if removed == Removed::Gone {
        *shared.source.claim.lock() = None;
    }
    report.source = Some(removed);
    Ok(())
}

fn remove_folder(shared: &Shared, id: CheckpointId, report: &mut CleanupReport) {
    let removed = match shared.storage.remove_checkpoint(id) {
        Ok(true) => {
            shared.registry.lock().folder_removed(id);
            report.folders.push(id);
            Ok(())
        }
        // What is left tells its birth by its name, or is not ours; the next cleanup decides.
        Ok(false) => shared.storage.list(Place::Checkpoint(id)).map(|left| {
            let mut registry = shared.registry.lock();
            let ours = left
                .iter()
                .filter_map(|listed| Place::Checkpoint(id).object(&listed.name));
            ours.filter(|path| path.birth().is_some())
                .for_each(|path| registry.found_object(path));
        }),
        Err(error) => Err(error),
    };
    report.note(removed);
}

/// Reads checkpoints again whose publishing failed half-way.
pub(super) fn resolve_uncertain(shared: &Shared) -> Result {
    let uncertain = shared.registry.lock().uncertain();
    for id in uncertain {
        match read_metadata(&*shared.storage, id, Some(shared.root)) {
            Ok(_) => {
                // It can be read and may yet vanish: older ones go only once its name is durable.
                shared.storage.sync(Place::Checkpoint(id))?;
                shared.registry.lock().resolved(id, true);
            }
            Err(e) if e.code() == Code::NotFound => shared.registry.lock().resolved(id, false),
            Err(e) => return Err(e.context("a checkpoint of unknown outcome cannot be read")),
        }
    }
    Ok(())
}
