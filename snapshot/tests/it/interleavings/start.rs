//! How jobs start: from nothing, from a checkpoint of their own root, or from any snapshot in any claim mode.

use super::{
    job::{Live, Table},
    ledger::{Restored, RootLedger, Violation, demand},
    steps::seeded,
    world::{Said, World},
};
use crate::support::CHECKPOINTS;
use keybed_env::{Fs, fs::FaultFs};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    Anchor, Anchors, CandidateStanding, CheckpointId, CheckpointRoot, ClaimMode, ForeignSnapshot, JobId,
    LocalStorage, Metadata, OpenFiles, OpenRoot, StartOptions, verify,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Job roots at one time.
pub(crate) const ROOTS_MAX: usize = 5;

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
    pub(crate) fn addressable(&self) -> Vec<String> {
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
        let mode = self.mode(&source, a)?;
        match self.new_root() {
            Some(index) => self.start(index, &Restored::Snapshot(source, mode), a),
            None => Ok(None),
        }
    }

    /// How a careful user starts from that snapshot: nothing that others only refer to is claimed, and nothing is
    /// referred to whose owner may delete it.
    fn mode(&self, source: &str, a: u8) -> std::result::Result<ClaimMode, Violation> {
        let referenced = self.ledger.is_referenced(source, &self.files());
        let mine = self.ledger.known[source].root.is_none() && !self.ledger.claims.contains_key(source);
        Ok(match a % 5 {
            0 if mine => ClaimMode::Legacy,
            1..=3 if !referenced => ClaimMode::Claim,
            _ => ClaimMode::NoClaim,
        })
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
        let free = published.keys().copied();
        let free: Vec<CheckpointId> = free
            .filter(|id| self.ledger.claimant(index, *id).is_none())
            .collect();
        let by_hand = older.is_some() && !free.is_empty();
        let from = match (older, timeline.first(), root.source()) {
            (Some(b), _, _) if !free.is_empty() => Restored::Checkpoint(free[b as usize % free.len()]),
            (_, Some(newest), _) => Restored::Checkpoint(*newest),
            (_, None, Some(Restored::Snapshot(source, mode))) => {
                if !self.ledger.is_there(source, &files) {
                    // The user gave the source up too early: it is told, and nothing can be done.
                    return Ok(None);
                }
                Restored::Snapshot(source.clone(), *mode)
            }
            (_, None, Some(Restored::Checkpoint(_))) if !root.retains_none => {
                if self.was_claimed(root) {
                    // A claimant took it and deleted it.
                    return Ok(None);
                }
                return Err(format!("{}: what was gone on from is gone", root.dir()));
            }
            _ => Restored::Nothing,
        };
        self.start_chosen(index, (&from, by_hand), a)
    }

    /// Whether any checkpoint of that root was ever claimed.
    fn was_claimed(&self, root: &RootLedger) -> bool {
        let claims = format!("{}/claims/", root.dir());
        self.files().keys().any(|path| path.starts_with(&claims))
    }

    /// Owner records on the disk.
    pub(crate) fn generations(&self, index: usize) -> std::result::Result<usize, Violation> {
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
        self.start_chosen(index, (from, false), a)
    }

    fn start_chosen(&mut self, index: usize, (from, by_hand): (&Restored, bool), a: u8) -> Said {
        let sim = self.disk.process();
        let faulty = FaultFs::new(Arc::new(sim.clone()));
        if let Some(plan) = self.user_plan() {
            faulty.arm(plan);
        }
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let retain = 1 + a as usize % 3;
        let started = self.take_over(&fs, index, (from, by_hand), retain)?;
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
            Restored::Snapshot(..) => "jobs from snapshots",
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
        (from, by_hand): (&Restored, bool),
        retain: usize,
    ) -> std::result::Result<Result<Option<Started>>, Violation> {
        let job = self.ledger.roots[index].job;
        let opened = match LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), job)
            .and_then(|storage| OpenRoot::open(Arc::new(storage), job))
        {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        self.ledger.roots[index].generations = self.generations(index)?;
        if self.told_finished(index, &opened)? {
            return Ok(Ok(None));
        }
        if !by_hand {
            match self.demand_latest(index, &opened, from)? {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(None)),
                Err(error) => return Ok(Err(error)),
            }
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
            Restored::Snapshot(source, mode) => {
                let foreign = match open_whole(fs, source) {
                    Ok(foreign) => foreign,
                    Err(error) => {
                        ledger.tried.pop();
                        return Ok(Err(error));
                    }
                };
                opened.start_from_snapshot(foreign, *mode, options)
            }
            _ => opened.start(options),
        };
        let root = match started {
            Ok(root) => root,
            Err(error) if self.refuses_claim(index, from, &error) => {
                self.ledger.roots[index].generations = self.generations(index)?;
                self.count("claims refused");
                return Ok(Ok(None));
            }
            Err(error) => return Ok(Err(error)),
        };
        if let Restored::Snapshot(source, ClaimMode::Claim) = from {
            demand!(
                self.ledger.claims.get(source).is_none_or(|by| *by == job),
                "{source} has two owners"
            );
            self.ledger.roots[index].claimed = Some(source.clone());
            self.count("claims");
        }
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

    /// Whether a claim was refused with reason: another owns the snapshot or one whose files may meet, or a job works
    /// in its root.
    fn refuses_claim(&self, index: usize, from: &Restored, error: &Error) -> bool {
        let Restored::Snapshot(source, ClaimMode::Claim) = from else {
            return false;
        };
        let me = self.ledger.roots[index].job;
        let root = self.ledger.known[source].root;
        let around = source.rsplit_once('/').map_or("", |(root, _)| root);
        let others =
            |directory: &String| directory == source || (root.is_some() && directory.starts_with(around));
        match error.code() {
            Code::SnapshotClaimedByOther => self.ledger.claims.iter().any(|(d, by)| *by != me && others(d)),
            Code::Locked => root.is_some_and(|root| self.live[root].is_some()),
            _ => false,
        }
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
    ) -> std::result::Result<Result<bool>, Violation> {
        if matches!(from, Restored::Snapshot(..)) {
            return Ok(Ok(true));
        }
        let root = &self.ledger.roots[index];
        let latest = match opened.latest() {
            Ok(latest) => latest.map(|metadata| metadata.checkpoint),
            // It was claimed, or a claimant deleted it.
            Err(error)
                if matches!(
                    error.code(),
                    Code::SnapshotClaimedByOther | Code::SnapshotIncomplete
                ) && self.was_claimed(root) =>
            {
                return Ok(Ok(false));
            }
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
        Ok(Ok(true))
    }

    /// Reads the state that is gone on from, into local tables.
    fn load(
        &mut self,
        fs: &Arc<dyn Fs>,
        index: usize,
        root: &CheckpointRoot,
        from: &Restored,
    ) -> Result<(Vec<Table>, PathBuf)> {
        let work = PathBuf::from(format!("/local/{}", self.fresh()));
        self.disk.create_dir(&work)?;
        let none = || Ok((Vec::new(), work.clone()));
        let (directory, metadata, files): (_, Metadata, Arc<dyn OpenFiles>) = match from {
            Restored::Nothing => return none(),
            Restored::Checkpoint(id) => {
                let directory = self.ledger.roots[index].checkpoint(*id);
                (directory, root.load(*id)?, root.open_files(*id))
            }
            Restored::Snapshot(source, _) => {
                let reading = root.open_source()?.ok_or_else(|| Error::invalid("no source"))?;
                let found = reading.snapshot().snapshot().metadata().clone();
                assert_eq!(found, self.ledger.known[source].metadata, "{source}");
                (
                    source.clone(),
                    reading.snapshot().metadata().clone(),
                    Arc::new(reading),
                )
            }
        };
        verify(&metadata, &*files).verdict()?;
        if let Restored::Checkpoint(_) = from {
            assert_eq!(metadata, self.ledger.known[&directory].metadata, "{directory}");
        }
        let own = !matches!(from, Restored::Snapshot(_, ClaimMode::NoClaim));
        let mut tables = Vec::new();
        for file in metadata.files() {
            let path = work.join(format!("{:x}.sst", file.content));
            files.fetch(file, &**fs, &path)?;
            assert_eq!(
                self.disk.read(&path, 1 << 20)?,
                self.ledger.contents[&file.content]
            );
            let reusable = own && file.anchor != Anchor::SelfDir;
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
}

/// Opens a snapshot by its path and reads every byte, as a restore does.
fn open_whole(fs: &Arc<dyn Fs>, path: &str) -> Result<ForeignSnapshot> {
    let opened = ForeignSnapshot::open(fs.clone(), Path::new(path), Anchors::default())?;
    opened.check_complete()?;
    verify(opened.metadata(), &opened).verdict()?;
    Ok(opened)
}
