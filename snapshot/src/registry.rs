//! Which objects are needed and which may go: pure reachability over names.
//!
//! ```text
//!   allocated ──▶ pending ──▶ publishing ──▶ completed ──▶ subsumed ──▶ erased (its `_metadata` is gone)
//!                    │             │
//!                    ▼             ▼ outcome unknown
//!                 aborted      uncertain: kept until it was read again
//!
//!   claimed snapshot elsewhere kept  ⇔  fewer own checkpoints completed than are retained, or a file of it referenced
//!   object kept  ⇔  referenced by a checkpoint that is not erased or is being read, or by a pending one or its base,
//!                   or still being uploaded, or of a birth that is not over
//! ```
//! The registry holds facts and decides; it touches nothing. A birth is *over* when its generation is closed, or its
//! checkpoint is no longer pending and a checkpoint at or above it completed since: so what a failed checkpoint
//! uploaded can be reused until the next one completes. Names that tell no birth are never ours to delete. One
//! unreadable metadata file forbids every deletion.

mod outside;

pub use outside::References;

use crate::{CheckpointId, Generation, ObjectPath, Place};
use keybed_format::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// How a published checkpoint stands to the living timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the timeline: retention decides.
    Timeline,
    /// Of an abandoned timeline: kept and listed, never chosen.
    Abandoned,
    /// Published by a fenced generation: never restored, swept.
    Void,
    /// Publishing failed and nobody knows how far it got: kept until it was read again.
    Uncertain,
}

#[derive(Clone, Debug)]
struct Completed {
    references: References,
    standing: Standing,
}

#[derive(Clone, Debug)]
struct Pending {
    /// The last completed checkpoint when this one began: it may build on its objects; and what was adopted since.
    base: References,
    /// What its metadata names, once it is being published.
    references: References,
    /// Its metadata may be on its way into the storage: only the outcome of that ends it.
    is_publishing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectState {
    Uploading,
    /// Complete, never named by a completed checkpoint of this process.
    Stored,
    /// Named by a completed checkpoint.
    Published,
    /// Chosen for deletion; must not be referenced any more.
    Condemned,
}

/// Facts about one job root and the decisions that follow.
#[derive(Clone, Debug)]
pub struct SharedRegistry {
    generation: Generation,
    retain: usize,
    completed: BTreeMap<CheckpointId, Completed>,
    pending: BTreeMap<CheckpointId, Pending>,
    objects: BTreeMap<ObjectPath, ObjectState>,
    folders: BTreeSet<CheckpointId>,
    readers: BTreeMap<CheckpointId, usize>,
    /// What erased checkpoints referenced whose readers came while they were being erased.
    read_on: BTreeMap<CheckpointId, References>,
    /// Highest checkpoint that this generation completed.
    completed_max: Option<CheckpointId>,
    /// Highest checkpoint that was ever published and is not void, erased or not.
    published_max: Option<CheckpointId>,
    /// Objects that stay though no checkpoint of this root needs them.
    spared: BTreeSet<ObjectPath>,
    /// Folders that hold what is not ours, so they stay.
    occupied: BTreeSet<CheckpointId>,
    /// Checkpoints that other jobs claimed: theirs to delete.
    claimed: BTreeSet<CheckpointId>,
    /// Readers of the snapshot that the job started from.
    source_readers: usize,
    /// Why nothing may be deleted.
    refused: Option<String>,
}

impl SharedRegistry {
    /// An empty root, owned by `generation`, that keeps the newest `retain` (at least 1) checkpoints.
    pub fn new(generation: Generation, retain: usize) -> Self {
        SharedRegistry {
            generation,
            retain: retain.max(1),
            completed: BTreeMap::new(),
            pending: BTreeMap::new(),
            objects: BTreeMap::new(),
            folders: BTreeSet::new(),
            readers: BTreeMap::new(),
            read_on: BTreeMap::new(),
            completed_max: None,
            published_max: None,
            spared: BTreeSet::new(),
            occupied: BTreeSet::new(),
            claimed: BTreeSet::new(),
            source_readers: 0,
            refused: None,
        }
    }

    /// A checkpoint that was found published.
    pub fn found_checkpoint(
        &mut self,
        id: CheckpointId,
        references: impl Into<References>,
        standing: Standing,
    ) {
        let references = references.into();
        self.folders.insert(id);
        for path in &references.inside {
            self.objects.insert(path.clone(), ObjectState::Published);
        }
        if standing != Standing::Void {
            self.published_max = self.published_max.max(Some(id));
        }
        self.completed.insert(id, Completed { references, standing });
    }

    /// A folder of a checkpoint that was found.
    pub fn found_folder(&mut self, id: CheckpointId) {
        self.folders.insert(id);
    }

    /// An object that was found.
    pub fn found_object(&mut self, path: ObjectPath) {
        self.objects.entry(path).or_insert(ObjectState::Stored);
    }

    /// This object stays, whatever the checkpoints of this root need.
    pub fn spare(&mut self, path: ObjectPath) {
        self.spared.insert(path);
    }

    /// The folder of this checkpoint stays, because something in it is not ours.
    pub fn keep_folder(&mut self, id: CheckpointId) {
        self.occupied.insert(id);
    }

    /// Something was found that cannot be read: from now on nothing may be deleted.
    pub fn refuse(&mut self, because: String) {
        self.refused.get_or_insert(because);
    }

    /// A new checkpoint has begun; its folder exists.
    pub fn begin(&mut self, id: CheckpointId) {
        let base = self
            .newest()
            .map(|(_, completed)| completed.references.clone())
            .unwrap_or_default();
        self.folders.insert(id);
        self.pending.insert(
            id,
            Pending {
                base,
                references: References::default(),
                is_publishing: false,
            },
        );
    }

    fn newest(&self) -> Option<(CheckpointId, &Completed)> {
        let timeline =
            |(_, completed): &(&CheckpointId, &Completed)| completed.standing == Standing::Timeline;
        self.completed
            .iter()
            .rev()
            .find(timeline)
            .map(|(id, completed)| (*id, completed))
    }

    /// An upload for a pending checkpoint begins.
    ///
    /// # Errors
    /// `CheckpointDeclined` if the checkpoint is not pending any more.
    pub fn upload_begins(&mut self, id: CheckpointId, path: ObjectPath) -> Result {
        self.demand_pending(id)?;
        self.objects.insert(path, ObjectState::Uploading);
        Ok(())
    }

    /// The upload has ended, well or not.
    pub fn upload_ends(&mut self, path: &ObjectPath) {
        if let Some(state) = self.objects.get_mut(path) {
            *state = ObjectState::Stored;
        }
    }

    fn demand_pending(&self, id: CheckpointId) -> Result {
        if self.pending.contains_key(&id) {
            return Ok(());
        }
        Err(
            Error::new(Code::CheckpointDeclined, "the checkpoint was aborted or subsumed")
                .with("checkpoint", id),
        )
    }

    /// The checkpoint is about to be published with these references. Returns the places whose names must be made
    /// durable before.
    ///
    /// # Errors
    /// `CheckpointDeclined` if it is not pending; `SnapshotIncomplete` naming every object that is not there.
    pub fn publish_begins(
        &mut self,
        id: CheckpointId,
        references: impl Into<References>,
    ) -> Result<BTreeSet<Place>> {
        let references = references.into();
        self.demand_pending(id)?;
        let usable = |state| matches!(state, Some(ObjectState::Stored | ObjectState::Published));
        let missing: Vec<String> = references
            .inside
            .iter()
            .filter(|path| !usable(self.objects.get(path).copied()))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Error::new(
                Code::SnapshotIncomplete,
                "the checkpoint names objects that are not there",
            )
            .with("checkpoint", id)
            .with("missing", missing.join(", ")));
        }
        let new = |path: &&ObjectPath| self.objects.get(path) == Some(&ObjectState::Stored);
        let places = references.inside.iter().filter(new);
        let places = places.map(ObjectPath::place).collect();
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.references = references;
            pending.is_publishing = true;
        }
        Ok(places)
    }

    /// Making the names in a place durable failed: objects there that no completed checkpoint names may vanish in a
    /// crash whatever is tried, so they can no longer be referenced.
    pub fn names_lost(&mut self, place: Place) {
        let lost = |(path, state): &(&ObjectPath, &mut ObjectState)| {
            path.place() == place && **state == ObjectState::Stored
        };
        self.objects
            .iter_mut()
            .filter(lost)
            .for_each(|(_, state)| *state = ObjectState::Condemned);
    }

    /// The checkpoint is published. Returns the older pending ones, which are thereby subsumed.
    pub fn published(&mut self, id: CheckpointId) -> Vec<CheckpointId> {
        self.settle(id, Standing::Timeline);
        self.completed_max = self.completed_max.max(Some(id));
        self.published_max = self.published_max.max(Some(id));
        let older = self
            .pending
            .range(..id)
            .filter(|(_, pending)| !pending.is_publishing);
        let subsumed: Vec<CheckpointId> = older.map(|(id, _)| *id).collect();
        for id in &subsumed {
            self.pending.remove(id);
        }
        subsumed
    }

    /// Nobody knows whether the checkpoint is published.
    pub fn publish_uncertain(&mut self, id: CheckpointId) {
        self.settle(id, Standing::Uncertain);
    }

    fn settle(&mut self, id: CheckpointId, standing: Standing) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        for path in &pending.references.inside {
            self.objects.insert(path.clone(), ObjectState::Published);
        }
        self.completed.insert(
            id,
            Completed {
                references: pending.references,
                standing,
            },
        );
    }

    /// Nobody wants the checkpoint any more. Nothing happens if it is being published: that decides.
    pub fn given_up(&mut self, id: CheckpointId) {
        if self
            .pending
            .get(&id)
            .is_some_and(|pending| !pending.is_publishing)
        {
            self.aborted(id);
        }
    }

    /// It is certain that the checkpoint was not published and will not be.
    pub fn aborted(&mut self, id: CheckpointId) {
        self.pending.remove(&id);
    }

    /// Checkpoints whose outcome is unknown.
    pub fn uncertain(&self) -> Vec<CheckpointId> {
        let uncertain =
            |(_, completed): &(&CheckpointId, &Completed)| completed.standing == Standing::Uncertain;
        self.completed
            .iter()
            .filter(uncertain)
            .map(|(id, _)| *id)
            .collect()
    }

    /// An uncertain checkpoint was read again: it is there or it is not.
    pub fn resolved(&mut self, id: CheckpointId, there: bool) {
        match self.completed.get_mut(&id) {
            Some(completed) if there => completed.standing = Standing::Timeline,
            _ => self.erased(id),
        }
    }

    /// Somebody reads the checkpoint; it stays until as many [`SharedRegistry::reader_left`] followed.
    pub fn reader_came(&mut self, id: CheckpointId) {
        *self.readers.entry(id).or_default() += 1;
    }

    /// A reader is done.
    pub fn reader_left(&mut self, id: CheckpointId) {
        if let Some(readers) = self.readers.get_mut(&id) {
            *readers -= 1;
            if *readers == 0 {
                self.readers.remove(&id);
                self.read_on.remove(&id);
            }
        }
    }

    /// Completed checkpoints of the timeline, newest first.
    pub fn timeline(&self) -> Vec<CheckpointId> {
        let timeline =
            |(_, completed): &(&CheckpointId, &Completed)| completed.standing == Standing::Timeline;
        self.completed
            .iter()
            .rev()
            .filter(timeline)
            .map(|(id, _)| *id)
            .collect()
    }

    /// From now on no completed checkpoint is retained: the job has finished.
    pub fn retain_none(&mut self) {
        self.retain = 0;
    }

    /// First stage of a cleanup: checkpoints whose metadata goes.
    ///
    /// # Errors
    /// `GcRefused` if something unreadable forbids deletions.
    pub fn doomed(&self) -> Result<Vec<CheckpointId>> {
        if let Some(because) = &self.refused {
            return Err(
                Error::new(Code::GcRefused, "unreadable metadata forbids every deletion")
                    .with("reason", "unreadable metadata")
                    .with("because", because),
            );
        }
        let subsumed: BTreeSet<CheckpointId> = self.timeline().into_iter().skip(self.retain).collect();
        let goes = |id: &CheckpointId, completed: &Completed| {
            !self.readers.contains_key(id)
                && !self.claimed.contains(id)
                && (completed.standing == Standing::Void || subsumed.contains(id))
        };
        Ok(self
            .completed
            .iter()
            .filter(|(id, completed)| goes(id, completed))
            .map(|(id, _)| *id)
            .collect())
    }

    /// The metadata of a checkpoint is gone, durably.
    pub fn erased(&mut self, id: CheckpointId) {
        let erased = self.completed.remove(&id);
        if let Some(completed) = erased.filter(|_| self.readers.contains_key(&id)) {
            self.read_on.insert(id, completed.references);
        }
    }

    /// Second stage: objects that nobody needs. They are condemned: no checkpoint can reference them any more.
    ///
    /// # Errors
    /// As [`SharedRegistry::doomed`].
    pub fn condemn(&mut self) -> Result<Vec<ObjectPath>> {
        self.doomed()?;
        let mut kept: BTreeSet<&ObjectPath> = self.needed().flat_map(|r| &r.inside).collect();
        kept.extend(&self.spared);
        let garbage: Vec<ObjectPath> = self
            .objects
            .iter()
            .filter(|(path, state)| !kept.contains(path) && self.is_over(path, **state))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &garbage {
            self.objects.insert(path.clone(), ObjectState::Condemned);
        }
        Ok(garbage)
    }

    /// What everything refers to that is not erased or still being read, and every pending checkpoint with its base.
    fn needed(&self) -> impl Iterator<Item = &References> {
        let pending = self.pending.values().flat_map(|p| [&p.base, &p.references]);
        let completed = self.completed.values().map(|c| &c.references);
        completed.chain(self.read_on.values()).chain(pending)
    }

    fn is_over(&self, path: &ObjectPath, state: ObjectState) -> bool {
        let Some(birth) = path.birth() else { return false };
        if birth.generation != self.generation {
            return birth.generation < self.generation;
        }
        match state {
            ObjectState::Uploading => false,
            ObjectState::Condemned => true,
            // Only a checkpoint that is pending could still name it.
            ObjectState::Stored => self.pending.is_empty() && self.completed_max >= Some(birth.checkpoint),
            ObjectState::Published => !self.pending.contains_key(&birth.checkpoint),
        }
    }

    /// A condemned object is gone.
    pub fn deleted(&mut self, path: &ObjectPath) {
        self.objects.remove(path);
    }

    /// Third stage: folders that hold nothing of ours any more. The newest id keeps its folder, so that it is not
    /// allotted again, until a higher one is published.
    pub fn empty_folders(&self) -> Vec<CheckpointId> {
        let filled: BTreeSet<Place> = self.objects.keys().map(ObjectPath::place).collect();
        let goes = |id: &&CheckpointId| {
            Some(**id) < self.published_max
                && !self.completed.contains_key(id)
                && !self.pending.contains_key(id)
                && !self.occupied.contains(id)
                && !filled.contains(&Place::Checkpoint(**id))
        };
        if self.refused.is_some() {
            Vec::new()
        } else {
            self.folders.iter().filter(goes).copied().collect()
        }
    }

    /// A folder is gone.
    pub fn folder_removed(&mut self, id: CheckpointId) {
        self.folders.remove(&id);
    }

    /// Objects that were condemned and are still there.
    pub fn backlog(&self) -> usize {
        self.objects
            .values()
            .filter(|state| **state == ObjectState::Condemned)
            .count()
    }
}

#[cfg(test)]
mod tests;
