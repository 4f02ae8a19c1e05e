//! What the user does: starts jobs, from nothing, a root or any snapshot, exports, disposes, forgets.

use super::{
    job::{Live, Table},
    ledger::{Restored, RootLedger, Violation, demand},
    steps::{attempt, seeded},
    world::{Said, World},
};
use crate::support::{CHECKPOINTS, remove_tree};
use keybed_env::{Fs, fs::FaultFs};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    Anchor, CandidateStanding, CheckpointId, CheckpointRoot, ClaimMode, JobId, LocalStorage, Metadata,
    OpenFiles, OpenRoot, SavepointTarget, SnapshotDir, SnapshotOwner, StartOptions,
    savepoint::{Disposal, export},
    verify,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Job roots at one time.
const ROOTS_MAX: usize = 5;

/// Savepoints and exports at one time, also those that were begun and left.
pub(crate) const SAVEPOINTS_MAX: usize = 10;

/// A root that was taken over, and the state that goes with it.
type Started = (CheckpointRoot, Vec<Table>, PathBuf);

impl World {
    /// Snapshots of the user.
    pub(crate) fn savepoints(&self) -> usize {
        self.ledger.known.values().filter(|k| k.root.is_none()).count()
    }

    pub(crate) fn facts(&self, path: &Path) -> std::result::Result<bool, Violation> {
        let facts = self.disk.facts(path).map_err(|e| e.to_string())?;
        Ok(facts.is_some())
    }

    /// Snapshots that can be addressed now, in order.
    fn addressable(&self) -> Vec<String> {
        let files = self.files();
        let known = self.ledger.known.keys();
        known
            .filter(|d| self.ledger.is_there(d, &files))
            .cloned()
            .collect()
    }

    pub(crate) fn new_job(&mut self, a: u8) -> Said {
        match self.new_root() {
            Some(index) => self.start(index, &Restored::Nothing, a),
            None => Ok(None),
        }
    }

    fn new_root(&mut self) -> Option<usize> {
        if self.live.len() >= ROOTS_MAX {
            return None;
        }
        let job = JobId(0xabc0_0000 + u128::from(self.fresh()));
        self.ledger.roots.push(RootLedger::new(job));
        self.live.push(None);
        Some(self.live.len() - 1)
    }

    /// A new job from any snapshot.
    pub(crate) fn restore(&mut self, a: u8, b: u8) -> Said {
        let sources = self.addressable();
        if sources.is_empty() {
            return self.new_job(a);
        }
        let source = sources[b as usize % sources.len()].clone();
        match self.new_root() {
            Some(index) => self.start(index, &Restored::Snapshot(source), a),
            None => Ok(None),
        }
    }

    /// Takes a root over again. `older` chooses another checkpoint than the newest.
    pub(crate) fn resume(&mut self, index: usize, older: Option<u8>, a: u8) -> Said {
        if self.live[index].is_some() {
            return Ok(None);
        }
        self.ledger.roots[index].generations = self.generations(index)?;
        let files = self.files();
        let root = &self.ledger.roots[index];
        let published = self.ledger.published(index, &files);
        let timeline = self.ledger.timeline(index, &files);
        let from = match (older, timeline.first(), root.source()) {
            (Some(b), _, _) if !published.is_empty() => {
                let choice = published.keys().nth(b as usize % published.len());
                Restored::Checkpoint(*choice.ok_or("a choice")?)
            }
            (_, Some(newest), _) => Restored::Checkpoint(*newest),
            (_, None, Some(Restored::Snapshot(source))) => {
                if !self.ledger.is_there(source, &files) {
                    // The user gave the source up too early: it is told, and nothing can be done.
                    return Ok(None);
                }
                Restored::Snapshot(source.clone())
            }
            (_, None, Some(Restored::Checkpoint(_))) if !root.retains_none => {
                return Err(format!("{}: what was gone on from is gone", root.dir()));
            }
            _ => Restored::Nothing,
        };
        self.start(index, &from, a)
    }

    /// Owner records on the disk.
    fn generations(&self, index: usize) -> std::result::Result<usize, Violation> {
        let owners = PathBuf::from(self.ledger.roots[index].dir()).join("owner");
        if !self.facts(&owners)? {
            return Ok(0);
        }
        let names = self.disk.list(&owners).map_err(|e| e.to_string())?;
        let found = names.iter().filter(|e| e.name.parse::<u64>().is_ok()).count();
        let known = &self.ledger.roots[index];
        demand!(
            found <= known.tried.len(),
            "{found} generations of {}",
            known.tried.len()
        );
        Ok(found)
    }

    /// A process takes the root over and restores.
    fn start(&mut self, index: usize, from: &Restored, a: u8) -> Said {
        let sim = self.disk.process();
        let faulty = FaultFs::new(Arc::new(sim.clone()));
        if let Some(plan) = self.user_plan() {
            faulty.arm(plan);
        }
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let retain = 1 + a as usize % 3;
        let started = self.take_over(&fs, index, from, retain)?;
        faulty.heal();
        let (root, tables, work) = match started {
            Ok(Some(started)) => started,
            Ok(None) => return Ok(None),
            Err(error) => {
                sim.kill();
                self.ledger.roots[index].generations = self.generations(index)?;
                return Ok(Some(error));
            }
        };
        let files = self.files();
        let directories: Vec<String> = self.ledger.known.keys().cloned().collect();
        for directory in directories {
            let known = &self.ledger.known[&directory];
            // Whoever takes over makes durable first what he found.
            if known.root == Some(index) && self.ledger.is_there(&directory, &files) {
                self.ledger.sure(&directory);
            }
        }
        self.count(match from {
            Restored::Nothing => "jobs from nothing",
            Restored::Checkpoint(_) => "jobs resumed",
            Restored::Snapshot(_) => "jobs from snapshots",
        });
        self.live[index] = Some(Live {
            tainted: faulty.triggered() > 0,
            sim,
            faulty,
            fs,
            root,
            index,
            work,
            tables,
            pending: Vec::new(),
            pins: Vec::new(),
            savepoint: None,
            completed_max: None,
        });
        Ok(None)
    }

    fn take_over(
        &mut self,
        fs: &Arc<dyn Fs>,
        index: usize,
        from: &Restored,
        retain: usize,
    ) -> std::result::Result<Result<Option<Started>>, Violation> {
        let job = self.ledger.roots[index].job;
        let opened =
            match LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS.trim_start_matches('/')), job)
                .and_then(|storage| OpenRoot::open(Arc::new(storage), job))
            {
                Ok(opened) => opened,
                Err(error) => return Ok(Err(error)),
            };
        self.ledger.roots[index].generations = self.generations(index)?;
        if self.told_finished(index, &opened)? {
            return Ok(Ok(None));
        }
        if let Err(error) = self.demand_latest(index, &opened, from)? {
            return Ok(Err(error));
        }
        let seed = self.fresh();
        let options = StartOptions {
            restore: match from {
                Restored::Checkpoint(id) => Some(*id),
                _ => None,
            },
            retain,
            ids: seeded(seed),
            started_ms: 1,
        };
        let ledger = &mut self.ledger.roots[index];
        ledger.tried.truncate(ledger.generations);
        ledger.tried.push(from.clone());
        let started = match from {
            Restored::Snapshot(source) => {
                if let Err(error) = open_whole(fs, source) {
                    ledger.tried.pop();
                    return Ok(Err(error));
                }
                opened.start_from(source.clone(), ClaimMode::NoClaim, options)
            }
            _ => opened.start(options),
        };
        let root = match started {
            Ok(root) => root,
            Err(error) => return Ok(Err(error)),
        };
        let ledger = &mut self.ledger.roots[index];
        ledger.generations += 1;
        ledger.retain = retain;
        demand!(
            root.generation().0 as usize == ledger.generations,
            "generation {} instead of {}",
            root.generation(),
            ledger.generations
        );
        let restored = self.load(fs, index, &root, from);
        Ok(restored.map(|(tables, work)| Some((root, tables, work))))
    }

    /// Whether the job has ended; then nothing is started.
    fn told_finished(&self, index: usize, opened: &OpenRoot) -> std::result::Result<bool, Violation> {
        let root = &self.ledger.roots[index];
        let told = opened.finished().is_some();
        demand!(!told || root.ending, "{} counts as finished", root.dir());
        demand!(
            told || !root.finished,
            "{} does not count as finished",
            root.dir()
        );
        Ok(told)
    }

    /// The newest checkpoint is what the ledger says, or it is told why it cannot be used.
    fn demand_latest(
        &self,
        index: usize,
        opened: &OpenRoot,
        from: &Restored,
    ) -> std::result::Result<Result, Violation> {
        if matches!(from, Restored::Snapshot(_)) {
            return Ok(Ok(()));
        }
        let root = &self.ledger.roots[index];
        let latest = match opened.latest() {
            Ok(latest) => latest.map(|metadata| metadata.checkpoint),
            Err(error) => return Ok(Err(error)),
        };
        let expected = self.ledger.timeline(index, &self.files());
        let newest = expected.first().copied();
        demand!(
            latest == newest,
            "{}: the newest is {latest:?} instead of {newest:?}",
            root.dir()
        );
        if self.user_plan().is_none() {
            let standing = |c: &keybed_snapshot::Candidate| c.standing == CandidateStanding::Timeline;
            let timeline = opened.candidates().into_iter().filter(standing).map(|c| c.id);
            let timeline: Vec<CheckpointId> = timeline.collect();
            demand!(
                timeline == expected,
                "{}: timeline {timeline:?} instead of {expected:?}",
                root.dir()
            );
        }
        Ok(Ok(()))
    }

    /// Reads the state that is gone on from, into local tables.
    fn load(
        &mut self,
        fs: &Arc<dyn Fs>,
        index: usize,
        root: &CheckpointRoot,
        from: &Restored,
    ) -> Result<(Vec<Table>, PathBuf)> {
        let work = PathBuf::from(format!("work/{}", self.fresh()));
        self.disk.create_dir(&work)?;
        let none = || Ok((Vec::new(), work.clone()));
        let (directory, metadata, files): (_, Metadata, Arc<dyn OpenFiles>) = match from {
            Restored::Nothing => return none(),
            Restored::Checkpoint(id) => {
                let directory = self.ledger.roots[index].checkpoint(*id);
                (directory, root.load(*id)?, root.open_files(*id))
            }
            Restored::Snapshot(source) => {
                let opened = open_whole(fs, source)?;
                (source.clone(), opened.metadata().clone(), Arc::new(opened))
            }
        };
        verify(&metadata, &*files).verdict()?;
        let mut expected = self.ledger.known[&directory].metadata.clone();
        expected.properties.clone_from(&metadata.properties);
        assert_eq!(metadata, expected, "{directory}");
        let own = matches!(from, Restored::Checkpoint(_));
        let mut tables = Vec::new();
        for file in metadata.files() {
            let path = work.join(format!("{:x}.sst", file.content));
            files.fetch(file, &**fs, &path)?;
            assert_eq!(
                self.disk.read(&path, 1 << 20)?,
                self.ledger.contents[&file.content]
            );
            let reusable = own && file.anchor == Anchor::Root;
            let opened = self.disk.open(&path)?;
            let trailer = keybed_format::trailer::read(opened.len(), &mut |offset, buffer| {
                opened.read_exact_at(buffer, offset)
            })?;
            tables.push(Table {
                content: file.content,
                path,
                trailer,
                confirmed: reusable.then(|| file.clone()),
                leftover: None,
            });
        }
        Ok((tables, work))
    }

    pub(crate) fn export(&mut self, a: u8) -> Said {
        let sources = self.addressable();
        if sources.is_empty() || self.savepoints() >= SAVEPOINTS_MAX / 2 {
            return Ok(None);
        }
        let source = &sources[a as usize % sources.len()];
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let opened = attempt!(SnapshotDir::open(fs.clone(), Path::new(source)));
        let ids = seeded(self.fresh());
        let directory = attempt!(export(&opened, &SavepointTarget::new(fs, "exported"), ids));
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
        let fs: Arc<dyn Fs> = Arc::new(self.user.clone());
        let plan = match Disposal::plan(fs, Path::new(directory)) {
            Ok(plan) => plan,
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

    /// The user removes a root that no process owns.
    pub(crate) fn forget(&mut self, index: usize) -> Said {
        if self.live[index].is_some() || self.live.len() < ROOTS_MAX {
            return Ok(None);
        }
        let dir = PathBuf::from(self.ledger.roots[index].dir());
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

/// Opens a snapshot by its path and reads every byte, as a restore does.
fn open_whole(fs: &Arc<dyn Fs>, path: &str) -> Result<SnapshotDir> {
    let opened = SnapshotDir::open(fs.clone(), Path::new(path))?;
    opened.check_complete()?;
    verify(opened.metadata(), &opened).verdict()?;
    Ok(opened)
}
