//! The two ways to sweep a job root: inside of its owner, and while nobody owns it.

use super::{
    CheckpointRoot, CleanupReport, OpenRoot, Shared,
    cleanup::{resolve_uncertain, sweep},
    open::registry_of,
    source::Source,
};
use crate::{
    Anchors, CheckpointStorage, Generation, ObjectPath, Place,
    gc::{Garbage, GcOptions, GcReport, Swept, job_of, live_owner, measure, plan, spare_young, unreadable},
    registry::SharedRegistry,
    survey::Survey,
};
use keybed_env::random::Ids;
use keybed_format::{Code, Result};
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};

impl CheckpointRoot {
    /// Sweeps the root that this process owns: what a cleanup would delete, and what other hands left since the root
    /// was opened. Checkpoints beyond retention count as garbage here.
    ///
    /// # Errors
    /// `GcRefused` if something in the root cannot be read; `Fenced`; errors of the storage. Failures of deletions are
    /// told by [`GcReport::error`].
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let shared = &self.shared;
        shared.demand_newest()?;
        resolve_uncertain(shared)?;
        let strangers = self.strangers()?;
        let mut registry = shared.registry.lock().clone();
        for path in strangers {
            registry.found_object(path);
        }
        spare_young(&mut registry, &*shared.storage, options)?;
        let garbage = plan(&registry)?;
        if !options.dry_run {
            // Not before: what the registry knows goes with the next cleanup, asked for or not.
            let mut registry = shared.registry.lock();
            let planned = garbage.objects.iter().cloned();
            planned.for_each(|path| registry.found_object(path));
        }
        carry_out(shared, &garbage, options)
    }

    /// Objects that lie in the root; the registry may not know documents that a failed write left, and what was put
    /// here by hand. What is being put is known to it already; what is being written belongs to a pending checkpoint.
    fn strangers(&self) -> Result<Vec<ObjectPath>> {
        let storage = &self.shared.storage;
        let mut places = vec![Place::Shared];
        for listed in storage.list(Place::Root)? {
            places.extend(Place::checkpoint_of(&listed.name).map(Place::Checkpoint));
        }
        let mut found = Vec::new();
        for place in places {
            let listed = storage.list(place)?;
            let objects = listed.iter().filter_map(|listed| place.object(&listed.name));
            found.extend(objects.filter(|path| path.birth().is_some()));
        }
        Ok(found)
    }
}

impl OpenRoot {
    /// Looks at a root that nobody owns, to sweep it: as [`OpenRoot::open`], but nothing is written, so a read-only
    /// medium will do.
    ///
    /// # Errors
    /// `NotASnapshot` if it is no job root; `GcRefused` if a live process owns it or a record cannot be read.
    pub fn look(storage: Arc<dyn CheckpointStorage>) -> Result<OpenRoot> {
        let job = job_of(&*storage)?;
        let lock = storage.hold().map_err(live_owner)?;
        let survey = Survey::read(&*storage, job).map_err(|e| match e.code() {
            Code::SnapshotCorrupt | Code::SnapshotIncomplete | Code::UnsupportedFormatVersion => {
                unreadable(&e)
            }
            _ => e,
        })?;
        Ok(OpenRoot {
            storage,
            job,
            survey,
            anchors: Anchors::default(),
            lock,
        })
    }

    /// What a sweep would delete, whatever its age.
    ///
    /// # Errors
    /// `GcRefused` if something in the root cannot be read.
    pub fn garbage(&self) -> Result<Garbage> {
        plan(&self.registry()?)
    }

    /// Sweeps the root: void checkpoints, orphans of closed generations, folders that are empty then. No owner record is
    /// written; while the sweep lasts nobody else can own the root.
    ///
    /// # Errors
    /// `GcRefused` if something in the root cannot be read; errors of the storage. Failures of deletions are told by
    /// [`GcReport::error`].
    pub fn gc(self, options: &GcOptions) -> Result<GcReport> {
        let mut registry = self.registry()?;
        spare_young(&mut registry, &*self.storage, options)?;
        let garbage = plan(&registry)?;
        let newest = self.survey.owners.newest();
        let generation = newest.map(|owner| owner.generation).unwrap_or_default();
        let source = Source::new(&*self.storage, &self.survey, self.anchors, None)?;
        let shared = Shared {
            source,
            root: newest.map_or(crate::RootId(0), |owner| owner.root),
            storage: self.storage,
            job: self.job,
            generation,
            restored: crate::RestoreSource::Nothing,
            ids: Mutex::new(Ids::Entropy),
            next_id: Mutex::new(self.survey.next_id()),
            registry: Mutex::new(registry),
            cleaning: Mutex::new(()),
            finished: Default::default(),
            _lock: self.lock,
        };
        carry_out(&shared, &garbage, options)
    }

    /// The facts of the root as its next owner would have them, retention apart.
    fn registry(&self) -> Result<SharedRegistry> {
        let newest = self.survey.owners.newest().map(|owner| owner.generation.0);
        // Nobody owns the root, so every generation is closed; and the one after the newest, too, whose owner died
        // before its record had a name.
        let above = Generation(newest.unwrap_or(0).saturating_add(2));
        let mut registry = registry_of(&self.survey, above, usize::MAX);
        let open = |path: &&ObjectPath| path.birth().is_some_and(|birth| birth.generation >= above);
        for path in self.survey.objects.iter().filter(open) {
            registry.spare(path.clone());
        }
        for id in &self.survey.occupied {
            registry.keep_folder(*id);
        }
        Ok(registry)
    }
}

/// Deletes what is planned, or in a dry run only tells it.
fn carry_out(shared: &Shared, garbage: &Garbage, options: &GcOptions) -> Result<GcReport> {
    let planned = measure(garbage, &*shared.storage)?;
    if options.dry_run || garbage.is_empty() {
        return Ok(GcReport {
            swept: planned,
            ..GcReport::default()
        });
    }
    let report = sweep(shared, Some(garbage));
    let gone = gone(&report);
    let (swept, left): (Vec<Swept>, Vec<Swept>) =
        planned.into_iter().partition(|swept| gone.contains(&swept.path));
    Ok(GcReport {
        swept,
        left,
        error: report.error,
    })
}

/// The paths that a cleanup removed.
fn gone(report: &CleanupReport) -> BTreeSet<String> {
    let metadata = report.checkpoints.iter().map(|id| ObjectPath::Metadata(*id));
    let files = metadata
        .chain(report.deleted.iter().cloned())
        .map(|path| path.to_string());
    let folders = report
        .folders
        .iter()
        .map(|id| Place::Checkpoint(*id).describe(""));
    files.chain(folders).collect()
}

/// Sweeps a root that nobody owns.
///
/// # Errors
/// As [`OpenRoot::look`] and [`OpenRoot::gc`].
pub fn gc(storage: Arc<dyn CheckpointStorage>, options: &GcOptions) -> Result<GcReport> {
    OpenRoot::look(storage)?.gc(options)
}
