//! A sink's committer (one subtask): the ordered list of parts, and what becomes of them.

use super::{
    SinkPlace,
    commit::{commit, garbage, remove},
    merge::merge,
    part::{self, Lineage, Part},
};
use crate::{
    element::{Barrier, Purpose, Record},
    output::Fan,
    plan::{Build, JobPlace, Node, Role, SubtaskStart, Width},
    task::{
        AsyncPart, Control, JobKind, Mail, Shell, What,
        operator::{Logic, OperatorTask, OutputOf},
    },
    watermark,
    wiring::Edge,
};
use keybed_env::{Fs, sched::TaskBuilder};
use keybed_format::Result;
use keybed_snapshot::{CheckpointId, JobId, OperatorUid, SubtaskState};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// The node of the committer.
pub(crate) struct SinkCommitterNode {
    pub(crate) uid: OperatorUid,
    pub(crate) place: Arc<SinkPlace>,
    pub(crate) input: Edge,
}

/// The lineage that a sink continues or begins, and the parts it has. From a snapshot that is not this job's it takes the
/// parts and begins a lineage of its own: others may go on from the same snapshot.
pub(super) fn lineage(restore: &SubtaskStart, job: JobId, uid: &OperatorUid) -> Result<(Lineage, Vec<Part>)> {
    let restored = restore
        .operator
        .as_deref()
        .map(part::from_snapshot)
        .transpose()?
        .flatten();
    let own = Lineage::new(job.0, uid);
    Ok(match restored {
        Some((_, parts)) if restore.foreign => (own, parts),
        Some(continued) => continued,
        None => (own, Vec::new()),
    })
}

impl Node for SinkCommitterNode {
    fn width(&self) -> Width {
        Width::One
    }

    fn role(&self) -> Role {
        Role::Stateful
    }

    fn build(&self, build: Build<'_>) -> Result<TaskBuilder> {
        let Build {
            seed,
            place,
            restore,
            wiring,
            ..
        } = build;
        let (lineage, parts) = lineage(&restore, place.job, &self.uid)?;
        let logic = Committer {
            uid: self.uid.clone(),
            place: self.place.clone(),
            job: place.clone(),
            fs: seed.fs.clone(),
            lineage,
            parts,
            committed: 0,
            certain: 0,
            committing: VecDeque::new(),
            recorded: BTreeMap::new(),
        };
        let inputs = wiring.receivers(self.input, seed.subtask);
        let task = OperatorTask::new(inputs, logic, Box::new(Fan(Vec::new())), seed.settled);
        Ok(Shell::builder(seed, Box::new(task)))
    }
}

struct Committer {
    uid: OperatorUid,
    place: Arc<SinkPlace>,
    job: Arc<JobPlace>,
    fs: Arc<dyn Fs>,
    lineage: Lineage,
    /// Parts of this history, in the order in which they came: all of them if a sorted file is to be made, else
    /// those that may not be committed yet.
    parts: Vec<Part>,
    /// So many of them are committed, or will be by the jobs that were submitted.
    committed: usize,
    /// So many of them are committed for certain.
    certain: usize,
    /// Parts of each running commit.
    committing: VecDeque<usize>,
    /// How many parts each open checkpoint recorded.
    recorded: BTreeMap<CheckpointId, usize>,
}

impl Committer {
    /// Drops parts that are committed for certain: no restore needs to commit them again.
    fn forget(&mut self) {
        let count = std::mem::take(&mut self.certain);
        self.parts.drain(..count);
        self.committed -= count;
        self.recorded
            .values_mut()
            .for_each(|recorded| *recorded = recorded.saturating_sub(count));
    }

    /// Removes what no restored state names: open parts of this history by earlier attempts, and everything of
    /// histories that were given up.
    fn sweep(&self, attempt: u64) -> Result {
        let (fs, pending, parts) = (&*self.fs, self.place.pending(), self.place.parts());
        let stale = garbage(fs, &pending, self.lineage, |_, a| a != attempt)?;
        remove(fs, &pending, stale.iter().map(String::as_str))?;
        for &abandoned in &self.job.options.abandoned {
            let lineage = Lineage::new(abandoned.0, &self.uid);
            if lineage == self.lineage {
                continue;
            }
            let open = garbage(fs, &pending, lineage, |_, _| true)?;
            remove(fs, &pending, open.iter().map(String::as_str))?;
            if self.place.sorted.is_some() {
                let named: BTreeSet<&str> = self.parts.iter().map(|p| p.name.as_str()).collect();
                let committed = garbage(fs, &parts, lineage, |name, _| !named.contains(name))?;
                remove(fs, &parts, committed.iter().map(String::as_str))?;
            }
        }
        Ok(())
    }
}

impl Logic for Committer {
    type In = Part;
    type Out = ();

    fn open(&mut self, control: &Control) -> Result<i64> {
        commit(&*self.fs, &self.place, &self.parts)?;
        (self.committed, self.certain) = (self.parts.len(), self.parts.len());
        self.sweep(control.seed.attempt)?;
        Ok(watermark::MIN)
    }

    fn record(&mut self, record: Record<Part>, _watermark: i64, _out: &mut OutputOf<Self>) -> Result {
        self.parts.push(record.value);
        Ok(())
    }

    fn prepare(
        &mut self,
        barrier: Barrier,
        _watermark: i64,
        control: &Control,
        _out: &mut OutputOf<Self>,
    ) -> Result<AsyncPart> {
        if self.place.sorted.is_none() {
            self.forget();
        }
        self.recorded.insert(barrier.checkpoint, self.parts.len());
        let operator = part::to_state(self.lineage, &self.parts);
        let state = SubtaskState {
            operator,
            ..SubtaskState::empty(control.index())
        };
        Ok(Box::new(move |_| Ok(state)))
    }

    fn on_complete(
        &mut self,
        checkpoint: CheckpointId,
        purpose: Purpose,
        control: &mut Control,
    ) -> Result<bool> {
        let Some(count) = self.recorded.remove(&checkpoint) else {
            return Ok(true);
        };
        // The parts that a savepoint names are committed by the next checkpoint, or by whoever restores it.
        if purpose.is_savepoint() {
            return Ok(true);
        }
        self.recorded.retain(|&other, _| other > checkpoint);
        if count == self.committed && !purpose.ends_the_job() {
            return Ok(true);
        }
        let (fs, place) = (self.fs.clone(), self.place.clone());
        let fresh = self.parts[self.committed..count].to_vec();
        let last = (purpose == Purpose::Final).then(|| self.parts[..count].to_vec());
        let (lineage, attempt) = (self.lineage, control.seed.attempt);
        self.committing.push_back(count - self.committed);
        self.committed = count;
        control.job(JobKind::Commit(purpose), move || {
            commit(&*fs, &place, &fresh)?;
            match (&place.sorted, last) {
                (Some(sorted), Some(parts)) => merge(&*fs, &place, sorted, &parts, (lineage, attempt)),
                _ => Ok(()),
            }
        });
        Ok(false)
    }

    fn on_aborted(&mut self, checkpoint: CheckpointId) {
        self.recorded.remove(&checkpoint);
    }

    fn on_mail(&mut self, mail: Mail, control: &mut Control) -> Result<Option<What>> {
        match mail {
            Mail::JobDone(JobKind::Commit(purpose), _) => {
                // Jobs end in the order in which they were submitted.
                if let Some(count) = self.committing.pop_front() {
                    self.certain += count;
                }
                Ok(purpose.ends_the_job().then_some(What::Finished))
            }
            Mail::CleanUp => {
                let (fs, place) = (self.fs.clone(), self.place.clone());
                let mut parts = std::mem::take(&mut self.parts);
                // Parts of the history that a snapshot came from belong to that snapshot, too.
                parts.retain(|p| Lineage::of_name(&p.name).is_some_and(|f| f.lineage == self.lineage));
                control.job(JobKind::CleanUp, move || clean_up(&*fs, &place, &parts));
                Ok(None)
            }
            // What could not be removed is found by the next run in this place.
            Mail::JobDone(JobKind::CleanUp, _) => Ok(Some(What::CleanedUp)),
            _ => Ok(None),
        }
    }
}

/// The result stands and is recorded: removes what was only needed to make it again. The folders go if they are
/// empty; other sinks may still use them.
fn clean_up(fs: &dyn Fs, place: &SinkPlace, parts: &[Part]) -> Result {
    if place.sorted.is_some() {
        remove(fs, &place.parts(), parts.iter().map(|p| p.name.as_str()))?;
        let _ = fs.remove_dir(&place.parts());
    }
    let _ = fs.remove_dir(&place.pending());
    Ok(())
}
