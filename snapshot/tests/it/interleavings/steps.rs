//! What a living job does: checkpoints, savepoints, retention, reading, its end.

use super::{
    action::{Action, What},
    job::{Live, Pending, Writing, late, metadata_of, table},
    ledger::{Violation, demand},
    start::SAVEPOINTS_MAX,
    world::{Said, World},
};
use keybed_env::{Fs, Random, random::Ids};
use keybed_format::{Code, Error};
use keybed_snapshot::{
    Birth, CheckpointId, LocalFile, Metadata, PutFiles, Scope, SnapshotKind, gc::GcOptions,
};
use std::collections::BTreeSet;

/// Checkpoints that one job has under way at most.
const PENDING_MAX: usize = 3;
/// Tables that a job's state has at most.
const TABLES_MAX: usize = 6;

/// Ends a step that the library failed.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Some(error)),
        }
    };
}
pub(crate) use attempt;

impl World {
    pub(crate) fn job_step(&mut self, live: &mut Live, action: Action) -> Said {
        let Action { what, a, b, .. } = action;
        let chosen = (!live.pending.is_empty()).then(|| a as usize % live.pending.len().max(1));
        match (what, chosen) {
            (What::Begin, _) | (What::Put | What::Publish, None) => self.begin(live),
            (What::Put, Some(pending)) => self.put(live, pending, b),
            (What::Publish, Some(pending)) => self.publish(live, pending, b),
            (What::Abort, Some(pending)) => {
                live.root.abort(live.pending[pending].id);
                live.failed(pending);
                Ok(None)
            }
            (What::Checkpoint, _) => {
                if live.pending.len() < PENDING_MAX
                    && let Some(error) = self.begin(live)?
                {
                    return Ok(Some(error));
                }
                self.grow(live, b);
                self.publish(live, live.pending.len() - 1, b)
            }
            (What::Compact, _) => {
                if live.tables.len() > 1 {
                    live.tables.remove(a as usize % live.tables.len());
                }
                Ok(None)
            }
            (What::Clean, _) => self.clean(live),
            (What::Pin, _) => {
                let completed = live.root.completed();
                if live.pins.len() < 2 && !completed.is_empty() {
                    let id = completed[a as usize % completed.len()];
                    live.pins.push((id, live.root.open_files(id)));
                }
                Ok(None)
            }
            (What::Unpin, _) => {
                live.pins.pop();
                Ok(None)
            }
            (What::SavepointBegin, _) => self.savepoint_begin(live, a),
            (What::SavepointPut, _) => self.savepoint_put(live),
            (What::SavepointPublish, _) => self.savepoint_publish(live),
            (What::SavepointAbandon, _) => self.savepoint_abandon(live),
            (What::Gc, _) => self.gc_inside(live),
            (What::Release, _) => self.release(live),
            (What::Finish, _) => self.finish(live),
            _ => Ok(None),
        }
    }

    fn begin(&mut self, live: &mut Live) -> Said {
        if live.pending.len() >= PENDING_MAX {
            return Ok(None);
        }
        let base = self.newest(live);
        let request = attempt!(live.root.allocate(SnapshotKind::Checkpoint, 5));
        live.pending.push(Pending {
            id: request.checkpoint,
            base,
            puts: Default::default(),
            doubtful: false,
        });
        Ok(None)
    }

    /// The files of the newest completed checkpoint that this process knows of, with its directory.
    fn newest(&self, live: &Live) -> Vec<(String, keybed_snapshot::FileHandle)> {
        let Some(id) = live.root.completed().first().copied() else {
            return Vec::new();
        };
        let directory = self.ledger.roots[live.index].checkpoint(id);
        let files = self.ledger.known[&directory].metadata.files();
        files.map(|file| (directory.clone(), file.clone())).collect()
    }

    /// New tables appear, old ones are merged away.
    fn grow(&mut self, live: &mut Live, b: u8) {
        for _ in 0..=b % 2 {
            let new = self.new_table(&live.work);
            live.tables.push(new);
        }
        while live.tables.len() > TABLES_MAX {
            let old = live.tables.remove(0);
            let wanted = |w: &Writing| w.left.iter().any(|t| t.content == old.content);
            if !live.savepoint.as_ref().is_some_and(wanted) {
                // Nobody may depend on the local name of what was put.
                self.disk.remove_file(&old.path).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }

    fn put(&mut self, live: &mut Live, pending: usize, b: u8) -> Said {
        if b.is_multiple_of(2) || live.tables.is_empty() {
            self.grow(live, b);
        }
        let chosen = live.tables[b as usize % live.tables.len()].clone();
        if !live.pending[pending].puts.contains_key(&chosen.content) {
            attempt!(live.put(pending, &chosen, Scope::Shared));
        }
        Ok(None)
    }

    fn publish(&mut self, live: &mut Live, pending: usize, b: u8) -> Said {
        let private = b.is_multiple_of(3).then(|| self.new_table(&live.work));
        let id = live.pending[pending].id;
        let tables = match live.fill(pending, private) {
            Ok(tables) => tables,
            Err(error) => {
                live.root.abort(id);
                live.failed(pending);
                return Ok(Some(error));
            }
        };
        let metadata = metadata_of(&live.root, id, tables);
        let directory = self.ledger.roots[live.index].checkpoint(id);
        self.ledger
            .tries(directory.clone(), Some(live.index), metadata.clone());
        let published = live.root.publish(&metadata);
        match published {
            Ok(subsumed) => {
                self.ledger.sure(&directory);
                live.completed(&metadata, &subsumed)?;
                self.count("checkpoints");
                Ok(None)
            }
            Err(error) => {
                let unknown = live.root.is_unknown(id);
                live.failed(pending);
                live.pending.iter_mut().for_each(|p| p.doubtful = true);
                if unknown || late(&error) {
                    // What it uploaded is nothing to build on.
                    live.tables.iter_mut().for_each(|t| t.leftover = None);
                }
                self.count(if unknown {
                    "unknown outcomes"
                } else {
                    "failed checkpoints"
                });
                Ok(Some(error))
            }
        }
    }

    /// Sweeps, and looks whether exactly what is needed is left.
    pub(crate) fn clean(&mut self, live: &mut Live) -> Said {
        let report = live.root.cleanup();
        if report.error.is_some() || report.backlog > 0 {
            let backlog = || Error::new(Code::Busy, format!("a backlog of {}", report.backlog));
            return Ok(Some(report.error.unwrap_or_else(backlog)));
        }
        *self.counts.entry("objects swept").or_default() += report.objects as u64;
        self.demand_swept(live)?;
        let again = live.root.cleanup();
        if again.error.is_none() {
            let second = (again.checkpoints.len(), again.objects);
            demand!(second == (0, 0), "the second sweep deleted {second:?}");
        }
        self.count("complete sweeps");
        Ok(again.error)
    }

    /// After a complete sweep: what exists is retained or read, and every object is named by it or of a birth that is
    /// not over.
    fn demand_swept(&mut self, live: &Live) -> Result<(), Violation> {
        let files = self.files();
        let root = self.ledger.roots[live.index].clone();
        let mut kept: Vec<String> = self
            .ledger
            .retained(live.index, &files)
            .into_iter()
            .map(|id| root.checkpoint(id))
            .collect();
        kept.extend(live.pins.iter().map(|(id, _)| root.checkpoint(*id)));
        let removed = self.ledger.being_removed(live.index)?;
        let mut named: BTreeSet<String> = removed.into_iter().collect();
        for directory in &kept {
            self.ledger.sure(directory);
            named.insert(format!("{directory}/_metadata"));
            for file in self.ledger.known[directory].metadata.files() {
                named.insert(self.ledger.path(directory, file)?);
            }
        }
        let inside = format!("{}/", root.dir());
        for path in files.keys() {
            let Some(name) = path.strip_prefix(&inside) else {
                continue;
            };
            demand!(
                is_record(name) || named.contains(path) || live.may_stay(&self.ledger, path)?,
                "{path} is left over; kept are {kept:?}"
            );
        }
        Ok(())
    }

    fn savepoint_begin(&mut self, live: &mut Live, a: u8) -> Said {
        if live.savepoint.is_some() || self.savepoints() >= SAVEPOINTS_MAX {
            return Ok(None);
        }
        let request = attempt!(live.root.allocate(SnapshotKind::NativeSavepoint, 5));
        let id = request.checkpoint;
        live.root.abort(id);
        let mut target = live.root.savepoint_target(live.fs.clone(), "/sp");
        if a.is_multiple_of(2) {
            target = target.with_hard_links();
        }
        let birth = Birth {
            generation: live.root.generation(),
            checkpoint: id,
        };
        let ids = Ids::Seeded(Random::from_seed(self.fresh()));
        let writer = attempt!(target.begin(live.root.job(), birth, ids));
        live.savepoint = Some(Writing {
            writer,
            id,
            left: live.tables.clone(),
            put: Vec::new(),
        });
        Ok(None)
    }

    /// Puts the next table into the savepoint.
    fn savepoint_put(&mut self, live: &mut Live) -> Said {
        let Some(writing) = &mut live.savepoint else {
            return Ok(None);
        };
        if let Some(next) = writing.left.pop() {
            let (digest, bytes) = (next.trailer.digest, next.trailer.file_bytes());
            let writer = writing.writer.clone();
            let put = writer.put_file(
                Scope::Exclusive,
                LocalFile {
                    fs: &*live.fs,
                    path: &next.path,
                    content: next.content,
                    digest,
                    bytes,
                },
            );
            match put {
                Ok(handle) => writing.put.push(table(handle)),
                Err(error) => {
                    live.savepoint = None;
                    return Ok(writer.abandon().err().or(Some(error)));
                }
            }
        }
        Ok(None)
    }

    fn savepoint_publish(&mut self, live: &mut Live) -> Said {
        while live.savepoint.as_ref().is_some_and(|w| !w.left.is_empty()) {
            if let Some(error) = self.savepoint_put(live)? {
                return Ok(Some(error));
            }
        }
        let Some(writing) = live.savepoint.take() else {
            return Ok(None);
        };
        let metadata = Metadata {
            kind: SnapshotKind::NativeSavepoint,
            ..metadata_of(&live.root, writing.id, writing.put)
        };
        let directory = writing.writer.directory().display().to_string();
        self.ledger.tries(directory.clone(), None, metadata.clone());
        match writing.writer.publish(&metadata) {
            Ok(()) => {
                self.ledger.sure(&directory);
                self.count("savepoints");
                Ok(None)
            }
            Err(error) => Ok(Some(error)),
        }
    }

    pub(crate) fn savepoint_abandon(&mut self, live: &mut Live) -> Said {
        let Some(writing) = live.savepoint.take() else {
            return Ok(None);
        };
        let directory = writing.writer.directory().to_path_buf();
        attempt!(writing.writer.abandon());
        let left = self.facts(&directory)?;
        demand!(
            !left,
            "{} is left of a savepoint that was given up",
            directory.display()
        );
        Ok(None)
    }

    /// Gives the claimed snapshot back.
    fn release(&mut self, live: &mut Live) -> Said {
        let Some(directory) = self.ledger.roots[live.index].claimed.clone() else {
            return Ok(None);
        };
        // From here on nobody can tell whether it is claimed, until the answer.
        self.ledger.roots[live.index].claimed = None;
        match live.root.release_source() {
            Ok(()) => {
                let claims = self.ledger.claims_on(&self.files())?;
                let job = self.ledger.roots[live.index].job;
                demand!(
                    claims.get(&directory) != Some(&job),
                    "{directory} is still claimed"
                );
                self.count("claims released");
                Ok(None)
            }
            // Checkpoints refer to it, or a job works around it.
            Err(error) if matches!(error.code(), Code::GcRefused | Code::Locked | Code::Busy) => Ok(None),
            Err(error) => Ok(Some(error)),
        }
    }

    /// The sweep that a user asks a living job for.
    fn gc_inside(&mut self, live: &mut Live) -> Said {
        let all = GcOptions::default();
        let told = attempt!(live.root.gc(&GcOptions { dry_run: true, ..all }));
        let report = attempt!(live.root.gc(&all));
        if let Some(error) = report.error {
            return Ok(Some(error));
        }
        demand!(
            told.swept == report.swept,
            "{:?} was told and {:?} went",
            told.swept,
            report.swept
        );
        Ok(None)
    }

    fn finish(&mut self, live: &mut Live) -> Said {
        let last = live.root.completed().first().copied();
        let ledger = &mut self.ledger.roots[live.index];
        ledger.ending = true;
        attempt!(live.root.finish(last, 6));
        ledger.finished = true;
        ledger.retains_none = true;
        live.root.retain_none();
        live.pending.clear();
        live.pins.clear();
        self.count("finished jobs");
        Ok(live.root.cleanup().error)
    }

    /// Ends everything that was begun, takes a checkpoint and sweeps: then every byte has its reason.
    pub(crate) fn quiesce(&mut self, live: &mut Live) -> Result<(), Violation> {
        live.pins.clear();
        while !live.pending.is_empty() {
            live.root.abort(live.pending[0].id);
            live.failed(0);
        }
        let quiet = |said: Said| match said? {
            None => Ok(()),
            Some(error) => Err(format!("in the silence: {error}")),
        };
        quiet(self.savepoint_abandon(live))?;
        quiet(self.begin(live))?;
        self.grow(live, 1);
        quiet(self.publish(live, 0, 1))?;
        self.compare()?;
        quiet(self.clean(live))?;
        self.demand_exact(live)
    }

    /// Nothing but what is retained, and no folder but theirs.
    fn demand_exact(&self, live: &Live) -> Result<(), Violation> {
        let files = self.files();
        let root = &self.ledger.roots[live.index];
        for path in files
            .keys()
            .filter(|path| path.starts_with(&format!("{}/shared/", root.dir())))
        {
            demand!(
                !live.may_stay(&self.ledger, path)?,
                "{path} counts as of a birth that is not over"
            );
        }
        let retained = self.ledger.retained(live.index, &files);
        let listed = self.disk.list(std::path::Path::new(&root.dir()));
        for entry in listed.map_err(|e| e.to_string())? {
            let Some(id) = entry.name.strip_prefix("chk-").and_then(|id| id.parse().ok()) else {
                continue;
            };
            let id = CheckpointId(id);
            demand!(
                retained.contains(&id) || self.ledger.claimant(live.index, id).is_some(),
                "{} is an empty folder",
                entry.name
            );
        }
        Ok(())
    }
}

/// Whether a name in a root is one of its documents.
pub(crate) fn is_record(name: &str) -> bool {
    let numbered = |folder: &str| {
        name.strip_prefix(folder)
            .is_some_and(|n| n.parse::<u64>().is_ok())
    };
    name == "LOCK" || name == "FINISHED" || numbered("owner/") || numbered("claims/")
}

pub(crate) fn seeded(n: u64) -> Ids {
    Ids::Seeded(Random::from_seed(n))
}
