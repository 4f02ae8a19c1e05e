//! What the user does between jobs: exports, disposes, sweeps, forgets.

use super::{
    ledger::{Restored, RootLedger, demand},
    start::{ROOTS_MAX, SAVEPOINTS_MAX},
    steps::{attempt, is_record, seeded},
    world::{Said, World},
};
use crate::support::remove_tree;
use keybed_env::Fs;
use keybed_format::{Code, Error};
use keybed_snapshot::{
    LocalStorage, SavepointTarget, SnapshotDir, SnapshotOwner,
    gc::{GcOptions, gc},
    savepoint::{Disposal, export},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

impl World {
    pub(crate) fn export(&mut self, a: u8) -> Said {
        let sources = self.addressable();
        if sources.is_empty() || self.savepoints() >= SAVEPOINTS_MAX / 2 {
            return Ok(None);
        }
        let source = &sources[a as usize % sources.len()];
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let opened = attempt!(SnapshotDir::open(fs.clone(), Path::new(source)));
        let ids = seeded(self.fresh());
        let directory = attempt!(export(&opened, &SavepointTarget::new(fs, "/exported"), ids));
        let directory = directory.display().to_string();
        self.compare()?;
        self.ledger.sure(&directory);
        self.count("exports");
        Ok(None)
    }

    /// Disposes of a savepoint, or goes on with what was interrupted.
    pub(crate) fn dispose(&mut self, a: u8) -> Said {
        let mine = self.ledger.known.iter().filter(|(_, known)| known.root.is_none());
        let mine: Vec<String> = mine.map(|(directory, _)| directory.clone()).collect();
        if mine.is_empty() {
            return Ok(None);
        }
        let directory = &mine[a as usize % mine.len()];
        if !self.facts(Path::new(directory))? {
            let known = self.ledger.known.remove(directory);
            demand!(
                known.is_some_and(|known| !known.sure),
                "{directory} must exist and is gone"
            );
            return Ok(None);
        }
        if self.ledger.is_referenced(directory, &self.files()) {
            // The user knows that jobs depend on it.
            return Ok(None);
        }
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let claimed = self.facts(&Path::new(directory).join("CLAIMED"))?;
        let plan = match Disposal::plan(fs, Path::new(directory)) {
            Ok(plan) => {
                demand!(
                    !claimed,
                    "a disposal of {directory} was planned, which another owns"
                );
                plan
            }
            Err(error) if claimed && error.code() == Code::SnapshotClaimedByOther => return Ok(None),
            // A power loss left the directory alone, or files of a savepoint that never came to be.
            Err(error) if error.code() == Code::NotASnapshot => return self.sweep_remains(directory, error),
            Err(error) => return Ok(Some(error)),
        };
        self.ledger.unsure(directory);
        let disposed = attempt!(plan.execute());
        demand!(disposed.directory, "{directory} stays: {:?}", plan.going());
        self.ledger.known.remove(directory);
        self.count("disposals");
        Ok(None)
    }

    /// By hand, because no command does it.
    fn sweep_remains(&mut self, directory: &str, error: Error) -> Said {
        let known = &self.ledger.known[directory];
        if known.sure {
            return Ok(Some(error));
        }
        if self.facts(&Path::new(directory).join("CLAIMED"))? {
            // Its owner is deleting it.
            return Ok(None);
        }
        self.ledger.known.remove(directory);
        remove_tree(&self.disk, Path::new(directory));
        Ok(None)
    }

    /// A checkpoint in its root is its job's concern.
    pub(crate) fn dispose_checkpoint(&mut self, a: u8) -> Said {
        let mut sources = self.addressable();
        sources.retain(|directory| self.ledger.known[directory].metadata.kind.owner() == SnapshotOwner::Job);
        if sources.is_empty() {
            return Ok(None);
        }
        let directory = &sources[a as usize % sources.len()];
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let before = self.disk.image_hash();
        let error = Disposal::plan(fs, Path::new(directory)).map(drop).err();
        demand!(self.disk.image_hash() == before, "a refusal changed something");
        match error {
            Some(error) if error.code() == Code::GcRefused => Ok(None),
            Some(error) => Ok(Some(error)),
            None => Err(format!("a disposal of {directory} was planned")),
        }
    }

    /// Sweeps a root that no process owns.
    pub(crate) fn gc(&mut self, index: usize) -> Said {
        let root = self.ledger.roots[index].clone();
        if self.generations(index)? == 0 {
            return Ok(None);
        }
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let storage = || Arc::new(LocalStorage::at(fs.clone(), root.dir()));
        let all = GcOptions::default();
        let told = attempt!(gc(storage(), &GcOptions { dry_run: true, ..all }));
        let report = attempt!(gc(storage(), &all));
        if let Some(error) = report.error {
            return Ok(Some(error));
        }
        demand!(
            told.swept == report.swept,
            "{:?} was told and {:?} went",
            told.swept,
            report.swept
        );
        let files = self.files();
        let removed = self.ledger.being_removed(index)?;
        let mut named: BTreeSet<String> = removed.into_iter().collect();
        for (directory, known) in self
            .ledger
            .known
            .iter()
            .filter(|(_, known)| known.root == Some(index))
        {
            if self.ledger.is_there(directory, &files) {
                named.insert(format!("{directory}/_metadata"));
                for file in known.metadata.files() {
                    named.insert(self.ledger.path(directory, file)?);
                }
            }
        }
        let inside = format!("{}/", root.dir());
        for path in files.keys() {
            let name = path.strip_prefix(&inside);
            let stays = name.is_none_or(is_record) || named.contains(path);
            demand!(stays, "{path} is left over by a sweep without an owner");
        }
        let again = attempt!(gc(storage(), &all));
        demand!(
            again.swept.is_empty(),
            "the second sweep deleted {:?}",
            again.swept
        );
        self.count("sweeps without an owner");
        Ok(None)
    }

    /// The user removes a root that no process owns.
    pub(crate) fn forget(&mut self, index: usize) -> Said {
        if self.live[index].is_some() || self.live.len() < ROOTS_MAX {
            return Ok(None);
        }
        let root = &self.ledger.roots[index];
        let claims = &self.ledger.claims;
        let inside = format!("{}/", root.dir());
        let involved = claims
            .iter()
            .any(|(d, by)| *by == root.job || d.starts_with(&inside));
        let awaited = |other: &RootLedger| matches!(other.source(), Some(Restored::Snapshot(d, _)) if d.starts_with(&inside));
        if involved
            || self.ledger.is_referenced(&root.dir(), &self.files())
            || self.ledger.roots.iter().any(awaited)
        {
            return Ok(None);
        }
        let dir = PathBuf::from(root.dir());
        if self.facts(&dir)? {
            remove_tree(&self.disk, &dir);
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        self.disk.sync_dir(parent).map_err(|e| e.to_string())?;
        self.live.remove(index);
        self.ledger.forget(index);
        for live in self.live.iter_mut().flatten() {
            live.index -= usize::from(live.index > index);
        }
        self.count("roots forgotten");
        Ok(None)
    }
}
