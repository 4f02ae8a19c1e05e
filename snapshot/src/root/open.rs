//! Taking a job root over: lock, look, choose, write the next owner record.

use super::{
    CheckpointRoot, Shared,
    claiming::{claimed_earlier, held_claim},
    source::{Source, origin},
};
use crate::{
    Anchors, CheckpointId, CheckpointStorage, FinishedRecord, ForeignSnapshot, Generation, JobId, Metadata,
    ObjectPath, OwnerRecord, Place, RootId, SnapshotOwner,
    claim::{ClaimList, ClaimRecord, claimed_by_other},
    foreign::FOREIGN_ANCHOR,
    object::{Birth, ObjectName},
    owner::{ClaimMode, RestoreSource},
    registry::{References, SharedRegistry, Standing},
    survey::{Found, FoundStop, Survey},
};
use keybed_env::{fs::FileLock, random::Ids};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateStanding {
    /// Newest first on the timeline that `--resume` continues.
    Timeline,
    /// Complete, of an abandoned timeline.
    Abandoned,
    /// Published by a fenced owner: never restored.
    Void,
    /// Its metadata cannot be read.
    Unreadable,
}

/// A checkpoint that was found published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: CheckpointId,
    /// How it stands.
    pub standing: CandidateStanding,
}

/// How to start a generation.
#[derive(Debug)]
pub struct StartOptions {
    /// Checkpoint of this root to continue from; `None` starts empty.
    pub restore: Option<CheckpointId>,
    /// Completed checkpoints to keep, at least 1.
    pub retain: usize,
    /// Where ids of root and objects come from.
    pub ids: Ids,
    /// Milliseconds since 1970-01-01T00:00:00Z, for people.
    pub started_ms: u64,
}

/// A locked job root before anything was written to it.
#[derive(Debug)]
pub struct OpenRoot {
    pub(crate) storage: Arc<dyn CheckpointStorage>,
    pub(crate) job: JobId,
    pub(crate) survey: Survey,
    pub(super) anchors: Anchors,
    pub(crate) lock: Box<dyn FileLock>,
}

impl OpenRoot {
    /// Takes the lock of the root of `job` and reads what lies there.
    ///
    /// # Errors
    /// `Locked` with field `pid` while another process owns it; `SnapshotCorrupt` if a record is damaged or of
    /// another job; `SnapshotIncomplete` if an owner record is missing.
    pub fn open(storage: Arc<dyn CheckpointStorage>, job: JobId) -> Result<OpenRoot> {
        let lock = storage.lock()?;
        let survey = Survey::read(&*storage, job)?;
        Ok(OpenRoot {
            storage,
            job,
            survey,
            anchors: Anchors::default(),
            lock,
        })
    }

    /// Whether and how the job ended for good; then there is nothing to resume.
    pub fn finished(&self) -> Option<&FinishedRecord> {
        self.survey.finished.as_ref()
    }

    /// The stop with a savepoint that was begun and not undone. If the savepoint exists, the job must not go on from a
    /// checkpoint: see [`OpenRoot::start_stopped`].
    pub fn stop(&self) -> Option<&FoundStop> {
        self.survey.stop.as_ref()
    }

    /// Whether nobody owned the root before.
    pub fn is_new(&self) -> bool {
        self.survey.owners.newest().is_none()
    }

    /// Every published checkpoint, newest first.
    pub fn candidates(&self) -> Vec<Candidate> {
        let timeline = self.survey.owners.lineage(&self.survey.published());
        let standing = |id: CheckpointId, found: &Found| match found {
            Found::Unpublished => None,
            Found::Unreadable(_) => Some(CandidateStanding::Unreadable),
            Found::Published(m) if self.survey.owners.is_void(m.generation, id) => {
                Some(CandidateStanding::Void)
            }
            Found::Published(_) if timeline.contains(&id) => Some(CandidateStanding::Timeline),
            Found::Published(_) => Some(CandidateStanding::Abandoned),
        };
        let candidates = self.survey.checkpoints.iter().rev();
        candidates
            .filter_map(|(id, found)| standing(*id, found).map(|standing| Candidate { id: *id, standing }))
            .collect()
    }

    /// What `--resume` continues: the newest checkpoint of the timeline; `None` if the timeline has none.
    ///
    /// # Errors
    /// The error of a newer checkpoint that is published but cannot be read, naming it: an older one is never chosen
    /// silently. The caller may choose another by [`OpenRoot::checkpoint`]. `SnapshotIncomplete` if the recorded
    /// restore source is gone.
    pub fn latest(&self) -> Result<Option<Metadata>> {
        let Some(owner) = self.survey.owners.newest() else {
            return Ok(None);
        };
        let newest = self
            .survey
            .owners
            .timeline(&self.survey.published())
            .first()
            .copied();
        // Below the first id of this generation only the restore source belongs to the timeline.
        let relevant = |id| id >= owner.first_checkpoint || owner.restored == RestoreSource::Checkpoint(id);
        let mut removed = self.survey.claims.iter().flat_map(ClaimList::removed);
        let newer = |record: &&ClaimRecord| Some(record.checkpoint) > newest && relevant(record.checkpoint);
        if let Some(record) = removed.find(newer) {
            return Err(claimed_by_other(record, Path::new(&record.claimant.path))
                .context("the newest checkpoint was claimed and is gone: choose an older one by hand")
                .with("checkpoint", record.checkpoint));
        }
        for (id, found) in self.survey.checkpoints.iter().rev() {
            if Some(*id) <= newest {
                break;
            }
            if let (Found::Unreadable(error), true) = (found, relevant(*id)) {
                return Err(error
                    .duplicate()
                    .context(format!("checkpoint {id} is the newest and cannot be used")));
            }
        }
        match (newest, &owner.restored) {
            (Some(id), _) => self.checkpoint(id).map(Some),
            (None, RestoreSource::Nothing) => Ok(None),
            (None, RestoreSource::Snapshot { location, .. }) => Err(Error::new(
                Code::SnapshotIncomplete,
                "no checkpoint completed since the job was started from a snapshot: start it from that again",
            )
            .with("source", location)),
            (None, source) => Err(Error::new(
                Code::SnapshotIncomplete,
                "the snapshot that the job was restored from is gone",
            )
            .with("source", format_args!("{source:?}"))),
        }
    }

    /// The metadata of any published checkpoint that is not void.
    ///
    /// # Errors
    /// `NotFound`; `Fenced` if it is void; `SnapshotClaimedByOther` if another job claimed it, which may delete it;
    /// its own error if it cannot be read.
    pub fn checkpoint(&self, id: CheckpointId) -> Result<Metadata> {
        if let Some(record) = self.survey.claims.as_ref().and_then(|list| list.live(id)) {
            let place = self.storage.describe(&ObjectPath::Metadata(id));
            return Err(claimed_by_other(record, Path::new(&place)).with("checkpoint", id));
        }
        match self.survey.checkpoints.get(&id) {
            Some(Found::Published(metadata)) if self.survey.owners.is_void(metadata.generation, id) => Err(
                Error::new(Code::Fenced, "the checkpoint was published by a fenced owner")
                    .with("checkpoint", id),
            ),
            Some(Found::Published(metadata)) => Ok((**metadata).clone()),
            Some(Found::Unreadable(error)) => Err(error.duplicate()),
            _ => Err(Error::new(Code::NotFound, "there is no such checkpoint")
                .in_file(self.storage.describe(&ObjectPath::Metadata(id)))
                .with("checkpoint", id)),
        }
    }

    /// Names in the root that are not ours and will never be touched.
    pub fn unknown(&self) -> &[String] {
        &self.survey.unknown
    }

    /// Becomes the next generation. Afterwards call [`CheckpointRoot::cleanup`]: it sweeps what older generations
    /// left behind.
    ///
    /// # Errors
    /// Those of [`OpenRoot::checkpoint`] for the restored one; `Fenced` if another process became that generation;
    /// errors of the storage.
    pub fn start(self, options: StartOptions) -> Result<CheckpointRoot> {
        let restored = match options.restore {
            None => RestoreSource::Nothing,
            Some(id) => {
                self.checkpoint(id)?;
                RestoreSource::Checkpoint(id)
            }
        };
        self.begin(restored, None, options)
    }

    /// Says where snapshots lie that this root's checkpoints refer to, if they were moved.
    #[must_use]
    pub fn with_anchors(mut self, anchors: Anchors) -> Self {
        self.anchors = anchors;
        self
    }

    /// As [`OpenRoot::start`], for a job that starts from a snapshot elsewhere, which is recorded: until a checkpoint
    /// of its own completes, [`OpenRoot::latest`] is an error, so that nobody goes on from nothing by mistake.
    /// [`StartOptions::restore`] must be `None`. Under [`ClaimMode::Claim`] the snapshot is claimed; whoever does so
    /// again for the same job goes on under its claim.
    ///
    /// # Errors
    /// As [`OpenRoot::start`]; `SnapshotClaimedByOther` with fields `owner` and `since`; `CannotClaim` for a place
    /// that cannot be written; `Locked` if the job lives whose checkpoint it is; `InvalidArgument` for a checkpoint of
    /// this root.
    pub fn start_from_snapshot(
        self,
        source: ForeignSnapshot,
        mode: ClaimMode,
        options: StartOptions,
    ) -> Result<CheckpointRoot> {
        if options.restore.is_some() {
            return Err(Error::invalid("a job starts from one snapshot only"));
        }
        let of = source.metadata();
        if of.kind.owner() == SnapshotOwner::Job && (Some(of.root), of.job) == (self.survey.root(), self.job)
        {
            return Err(
                Error::invalid("the checkpoint is one of this job: resume it").in_file(source.location())
            );
        }
        // Looked at first so that a refusal writes nothing; decided by claiming.
        if mode == ClaimMode::Claim
            && let Some(record) = source.claimed_by()?
            && record.claimant.job != self.job
        {
            return Err(claimed_by_other(&record, source.location()));
        }
        let earlier = claimed_earlier(&self.survey.owners);
        let since_ms = options.started_ms;
        let location = source.location().display().to_string();
        // The record goes first: a claim that a crash leaves behind is found by it and gone on with.
        let restored = RestoreSource::Snapshot { location, mode };
        let root = self.begin(restored, Some((source, mode)), options)?;
        root.shared.release_earlier(&earlier, mode);
        if mode == ClaimMode::Claim {
            root.shared.claim_source(since_ms)?;
        }
        Ok(root)
    }

    /// The snapshot that the job was started from and has to be started from again, because it completed no checkpoint
    /// since; with its claim mode.
    pub fn awaited_snapshot(&self) -> Option<(&Path, ClaimMode)> {
        origin(&self.survey.owners).filter(|_| self.awaits_snapshot())
    }

    /// The snapshot that the job started from when it last started from one, and in which mode; its checkpoints may
    /// refer to it.
    pub fn origin(&self) -> Option<(&Path, ClaimMode)> {
        origin(&self.survey.owners)
    }

    /// As [`OpenRoot::start`], for a job that stopped with a savepoint and only commits: the timeline goes on from its
    /// newest checkpoint, so that all of it can go when the job is finished, and nothing is restored.
    ///
    /// # Errors
    /// As [`OpenRoot::start`].
    pub fn start_stopped(self, options: StartOptions) -> Result<CheckpointRoot> {
        let timeline = self.survey.owners.timeline(&self.survey.published());
        let restored = match (timeline.first(), self.survey.owners.newest()) {
            (Some(id), _) => RestoreSource::Checkpoint(*id),
            (None, Some(owner)) => owner.restored.clone(),
            (None, None) => RestoreSource::Nothing,
        };
        self.begin(restored, None, options)
    }

    /// Whether the job was started from a snapshot elsewhere and completed no checkpoint since: only that snapshot
    /// can be gone on from.
    pub fn awaits_snapshot(&self) -> bool {
        let timeline = self.survey.owners.timeline(&self.survey.published());
        let newest = self.survey.owners.newest();
        timeline.is_empty() && newest.is_some_and(|o| matches!(o.restored, RestoreSource::Snapshot { .. }))
    }

    fn begin(
        self,
        restored: RestoreSource,
        source: Option<(ForeignSnapshot, ClaimMode)>,
        options: StartOptions,
    ) -> Result<CheckpointRoot> {
        let OpenRoot {
            storage,
            job,
            mut survey,
            anchors,
            lock,
        } = self;
        // A restored id feeds the counter, so that ids order the history of the state across roots.
        let restored_id = source
            .as_ref()
            .map_or(0, |(source, _)| source.metadata().checkpoint.0);
        let moved = anchors.given.get(&FOREIGN_ANCHOR).cloned();
        let source = Source::new(&*storage, &survey, anchors, source)?;
        let StartOptions {
            restore: _,
            retain,
            mut ids,
            started_ms,
        } = options;
        // An owner that was killed while it published leaves names that can be read and are not durable yet. Nothing
        // may rest on them before they are: neither our record nor the deletion of older checkpoints.
        for id in survey.published().into_keys() {
            storage.sync(Place::Checkpoint(id))?;
        }
        if survey.owners.newest().is_some() {
            storage.sync(Place::Owner)?;
        }
        let newest = survey.owners.newest();
        let generation = newest.map_or(Some(1), |owner| owner.generation.0.checked_add(1));
        let generation = Generation(generation.ok_or_else(|| {
            Error::new(
                Code::SnapshotCorrupt,
                "an owner record has the highest number, so none can follow it",
            )
        })?);
        let first_checkpoint = survey.next_id().max(CheckpointId(restored_id.saturating_add(1)));
        if first_checkpoint.0 == u64::MAX {
            return Err(Error::new(
                Code::SnapshotCorrupt,
                "a folder or object of the highest id leaves none free",
            )
            .in_file(storage.describe(&ObjectPath::Metadata(first_checkpoint))));
        }
        let record = OwnerRecord {
            job,
            root: newest.map_or_else(|| ids.fresh().map(RootId), |owner| Ok(owner.root))?,
            generation,
            first_checkpoint,
            restored: restored.clone(),
            pid: std::process::id(),
            started_ms,
        };
        let birth = Birth {
            generation: record.generation,
            checkpoint: record.first_checkpoint,
        };
        let temporary = ObjectName::temporary(birth, ids.fresh()?);
        storage
            .put_new(
                &ObjectPath::Owner(record.generation),
                &record.encode(),
                &temporary,
            )
            .map_err(|e| match e.code() {
                Code::TargetExists => e.recode(Code::Fenced),
                _ => e,
            })?;
        survey.owners = std::mem::take(&mut survey.owners).with(record.clone());
        if source.snapshot.is_none() {
            *source.claim.lock() = held_claim(&*storage, &survey.owners, moved.as_deref());
        }
        let registry = registry_of(&survey, record.generation, retain);
        Ok(CheckpointRoot {
            shared: Arc::new(Shared {
                storage,
                job,
                root: record.root,
                generation: record.generation,
                restored,
                source,
                ids: Mutex::new(ids),
                next_id: Mutex::new(record.first_checkpoint),
                registry: Mutex::new(registry),
                cleaning: Mutex::new(()),
                finished: Default::default(),
                _lock: lock,
            }),
        })
    }
}

/// The registry of a generation above all that were found, from what was found.
pub(super) fn registry_of(survey: &Survey, generation: Generation, retain: usize) -> SharedRegistry {
    let mut registry = SharedRegistry::new(generation, retain);
    let published: BTreeMap<_, _> = survey.published();
    let timeline: BTreeSet<_> = survey.owners.lineage(&published).into_iter().collect();
    for (id, found) in &survey.checkpoints {
        match found {
            Found::Unpublished => registry.found_folder(*id),
            Found::Unreadable(error) => {
                registry.found_folder(*id);
                registry.refuse(error.to_string());
            }
            Found::Published(metadata) => {
                let standing = if survey.owners.is_void(metadata.generation, *id) {
                    Standing::Void
                } else if timeline.contains(id) {
                    Standing::Timeline
                } else {
                    Standing::Abandoned
                };
                match References::of(*id, metadata) {
                    Ok(references) => registry.found_checkpoint(*id, references, standing),
                    // `check` refused such metadata when it was read.
                    Err(error) => registry.refuse(error.to_string()),
                }
            }
        }
    }
    for record in survey.claims.iter().flat_map(ClaimList::all_live) {
        registry.found_claim(record.checkpoint);
    }
    for path in &survey.objects {
        // Task-owned objects are deleted by tasks alone.
        if path.place() != Place::TaskOwned {
            registry.found_object(path.clone());
        }
    }
    registry
}
