//! Removing the whole root of a history that was given up, asked for by name.
//!
//! ```text
//!   metadata, each synced ─ objects, chk-<n>/ ─ sync ─ STOPPED, STOP ─ FINISHED ─ owner records, newest first, each synced
//!   └ no checkpoint can be restored from here          ─ folders, LOCK; what is left reads as the root of fewer generations
//! ```
//! A crash anywhere leaves a root that the same call goes on with. What is not ours stays, and its folder with it.

use super::{GcReport, Swept, job_of};
use crate::{
    CheckpointId, LocalStorage, OpenRoot, Place,
    claim::{Claim, claimed_by_other},
    root::held_claims,
    storage::{
        CheckpointStorage, ObjectPath,
        layout::{self, LOCK_NAME},
    },
    survey::{Found, Survey},
};
use keybed_env::{
    Fs,
    fs::{FileKind, FileLock},
};
use keybed_format::{Code, Result};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What removing a root takes away. Nothing was changed yet; the root stays locked until it is dropped.
#[derive(Debug)]
pub struct Retirement {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    steps: Vec<Step>,
    staying: Vec<String>,
    /// What the history owns elsewhere: given back.
    held: Vec<Claim>,
    _lock: Option<Box<dyn FileLock>>,
}

#[derive(Debug)]
struct Step {
    /// As [`Swept::path`].
    name: String,
    path: PathBuf,
    bytes: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A file whose end must be durable before the next step.
    Record,
    File,
    Folder,
    /// Nothing goes: the names that went from this folder must be gone for good before the next step.
    Sync,
}

/// Looks at the job root in the directory `root` and decides what removing it takes away.
///
/// # Errors
/// `NotASnapshot` if it is no job root; `GcRefused` if a live process owns it or anything in it cannot be read;
/// `SnapshotClaimedByOther` if another job claimed a checkpoint in it; errors of the file system.
pub fn retire(fs: &Arc<dyn Fs>, root: &Path) -> Result<Retirement> {
    let mut retirement = Retirement {
        fs: fs.clone(),
        root: root.to_path_buf(),
        steps: Vec::new(),
        staying: Vec::new(),
        held: Vec::new(),
        _lock: None,
    };
    let storage = Arc::new(LocalStorage::at(fs.clone(), root));
    match job_of(&*storage) {
        Ok(_) => {
            let OpenRoot { survey, lock, .. } = OpenRoot::look(storage.clone())?;
            retirement.demand_readable(&survey)?;
            retirement.demand_unclaimed(&survey)?;
            retirement.held = held_claims(&*storage, &survey.owners);
            retirement.plan_content(&survey, &storage)?;
            retirement._lock = Some(lock);
        }
        Err(e) if e.code() == Code::NotASnapshot && is_shell(&**fs, root)? => {}
        Err(e) => return Err(e),
    }
    retirement.plan_shell()?;
    Ok(retirement)
}

/// Whether only the empty folders of a root are left, and its lock.
fn is_shell(fs: &dyn Fs, root: &Path) -> Result<bool> {
    let named_by_job = root.file_name().and_then(|name| name.to_str());
    if named_by_job.is_none_or(|name| name.parse::<crate::JobId>().is_err()) {
        return Ok(false);
    }
    if fs.facts(root)?.map(|facts| facts.kind) != Some(FileKind::Dir) {
        return Ok(false);
    }
    for entry in fs.list(root)? {
        let empty = entry.kind == FileKind::Dir && fs.list(&root.join(&entry.name))?.is_empty();
        if !(Place::Root.is_fixture(&entry.name) && (empty || entry.name == LOCK_NAME)) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Retirement {
    /// What would go, as [`Retirement::execute`] tells it if nothing fails.
    pub fn plan(&self) -> Vec<Swept> {
        let goes = |step: &&Step| step.what != What::Sync;
        self.steps.iter().filter(goes).map(Step::swept).collect()
    }

    /// Names that are not ours: they stay, and the root with them.
    pub fn staying(&self) -> &[String] {
        &self.staying
    }

    /// Removes what was planned. May be repeated after a failure or a crash, by a new plan.
    pub fn execute(&self) -> GcReport {
        let mut report = GcReport::default();
        for claim in &self.held {
            let ended = match claim.release() {
                // Half of it is gone already.
                Err(e) if e.code() == Code::Busy => claim.remove().map(drop),
                other => other,
            };
            report.error = report.error.or(ended.err());
        }
        for step in &self.steps {
            // Behind a failure nothing may go that had to wait for it.
            if report.error.is_none() {
                report.error = self.take(step).err();
            }
            match report.error {
                _ if step.what == What::Sync => {}
                None => report.swept.push(step.swept()),
                Some(_) => report.left.push(step.swept()),
            }
        }
        report
    }

    fn take(&self, step: &Step) -> Result {
        let removed = match step.what {
            What::Folder => self.fs.remove_dir(&step.path),
            What::Sync => self.fs.sync_dir(&step.path),
            What::File | What::Record => self.fs.remove_file(&step.path),
        };
        match removed {
            Err(e) if e.code() != Code::NotFound => return Err(e),
            _ => {}
        }
        match (step.what, step.path.parent()) {
            (What::Record, Some(folder)) => self.fs.sync_dir(folder),
            _ => Ok(()),
        }
    }

    fn demand_readable(&self, survey: &Survey) -> Result {
        let unreadable = survey.checkpoints.values().find_map(|found| match found {
            Found::Unreadable(error) => Some(super::unreadable(error)),
            _ => None,
        });
        unreadable.map_or(Ok(()), Err)
    }

    /// A checkpoint that another job claimed is not this history's to give up.
    fn demand_unclaimed(&self, survey: &Survey) -> Result {
        match survey.claims.as_ref().and_then(|list| list.all_live().next()) {
            Some(record) => Err(claimed_by_other(record, &self.root).with("checkpoint", record.checkpoint)),
            None => Ok(()),
        }
    }

    fn plan_content(&mut self, survey: &Survey, storage: &LocalStorage) -> Result {
        self.staying.clone_from(&survey.unknown);
        for id in survey.published().into_keys() {
            self.file(&ObjectPath::Metadata(id), What::Record, storage)?;
        }
        for path in &survey.objects {
            self.file(path, What::File, storage)?;
        }
        let emptied = |id: &&CheckpointId| !survey.occupied.contains(id);
        for id in survey.checkpoints.keys().filter(emptied) {
            self.folder(Place::Checkpoint(*id));
        }
        // While an owner record is left the next call finds what a power loss brings back.
        let occupied = survey.occupied.iter().copied().map(Place::Checkpoint);
        for place in occupied.chain([Place::Shared, Place::TaskOwned, Place::Root]) {
            self.sync(place);
        }
        // A stop counts as begun without its confirmation, and as over while FINISHED is there.
        for record in [ObjectPath::Stopped, ObjectPath::Stop, ObjectPath::Finished] {
            if storage.facts(&record)?.is_some() {
                self.file(&record, What::Record, storage)?;
            }
        }
        // Oldest first: an older list may name claims as living that have ended since.
        let names = storage.list(Place::Claims)?;
        let lists: BTreeSet<_> = names
            .iter()
            .filter_map(|l| Place::Claims.object(&l.name))
            .collect();
        for list in lists.iter().filter(|path| matches!(path, ObjectPath::Claims(_))) {
            self.file(list, What::Record, storage)?;
        }
        // Newest first: without gaps every prefix is a root that can be read.
        for generation in survey.owners.generations().rev() {
            self.file(&ObjectPath::Owner(generation), What::Record, storage)?;
        }
        Ok(())
    }

    /// Folders, lock and the root itself, as far as nothing else is in them.
    fn plan_shell(&mut self) -> Result {
        let foreign: BTreeSet<String> = self.staying.iter().map(|name| first_part(name)).collect();
        for place in [Place::Shared, Place::TaskOwned, Place::Claims, Place::Owner] {
            let there = self.fs.facts(&layout::directory(&self.root, place))?.is_some();
            if there && !foreign.contains(&place.describe("")) {
                self.folder(place);
            }
        }
        if self.staying.is_empty() {
            let lock = layout::lock(&self.root);
            if let Some(facts) = self.fs.facts(&lock)? {
                self.steps.push(Step {
                    name: LOCK_NAME.to_owned(),
                    path: lock,
                    bytes: facts.len,
                    what: What::File,
                });
            }
            self.steps.push(Step {
                name: "./".to_owned(),
                path: self.root.clone(),
                bytes: 0,
                what: What::Folder,
            });
        }
        Ok(())
    }

    fn file(&mut self, path: &ObjectPath, what: What, storage: &LocalStorage) -> Result {
        let bytes = storage.facts(path)?.map_or(0, |facts| facts.bytes);
        self.steps.push(Step {
            name: path.to_string(),
            path: layout::file(&self.root, path),
            bytes,
            what,
        });
        Ok(())
    }

    fn folder(&mut self, place: Place) {
        self.of_folder(place, What::Folder);
    }

    fn sync(&mut self, place: Place) {
        self.of_folder(place, What::Sync);
    }

    fn of_folder(&mut self, place: Place, what: What) {
        self.steps.push(Step {
            name: place.describe(""),
            path: layout::directory(&self.root, place),
            bytes: 0,
            what,
        });
    }
}

impl Step {
    fn swept(&self) -> Swept {
        Swept {
            path: self.name.clone(),
            bytes: self.bytes,
        }
    }
}

/// `shared/` of `shared/x`; the whole of a name directly in the root.
fn first_part(name: &str) -> String {
    name.split_inclusive('/').next().unwrap_or(name).to_owned()
}
