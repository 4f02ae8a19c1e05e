//! A sink's committer (one subtask): the ordered list of parts, and what becomes of them.

use super::{
    SinkPlace,
    commit::{commit, demand_all, garbage, missing, parts_in, remove},
    hold::{self, Hold, Holds, Why},
    merge::merge,
    part::{self, Lineage, Part},
};
use crate::{
    element::{Barrier, Purpose, Record},
    event::JobEvent,
    output::Fan,
    plan::{Build, Conclusion, JobPlace, Node, Role, SubtaskStart, Width},
    task::{
        AsyncPart, Control, JobKind, Mail, Shell, What,
        operator::{Logic, OperatorTask, OutputOf},
    },
    watermark,
    wiring::Edge,
};
use keybed_env::{Fs, sched::TaskBuilder};
use keybed_format::Result;
use keybed_snapshot::{CheckpointId, JobId, OperatorSnapshot, OperatorUid, SnapshotOwner, SubtaskState};
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

    fn check_restored(&self, fs: &dyn Fs, operator: &OperatorSnapshot) -> Result {
        match part::from_snapshot(operator)? {
            Some((_, parts)) => demand_all(fs, &self.place, &parts),
            None => Ok(()),
        }
    }

    fn conclude(&self, conclusion: &Conclusion<'_>, operator: &OperatorSnapshot) -> Result {
        let Some((lineage, parts)) = part::from_snapshot(operator)? else {
            return Ok(());
        };
        let (fs, attempt) = (&*conclusion.place.options.fs, conclusion.attempt);
        commit(fs, &self.place, &parts)?;
        match &self.place.sorted {
            // What is to go on is merged when it is at its end.
            Some(sorted) if conclusion.drained => merge(fs, &self.place, sorted, &parts, (lineage, attempt)),
            _ => Ok(()),
        }
    }

    fn clean_up(&self, conclusion: &Conclusion<'_>) -> Result {
        let own = Lineage::new(conclusion.place.job.0, &self.uid);
        // The savepoint holds its parts.
        clean_up(&*conclusion.place.options.fs, &self.place, (own, &self.uid))
    }

    fn release(&self, fs: &dyn Fs, job: JobId, (checkpoint, attempt): (CheckpointId, u64)) -> Result {
        let lineage = Lineage::new(job.0, &self.uid);
        let location = String::new();
        let why = Why::Savepoint {
            checkpoint,
            attempt,
            location,
        };
        let hold = Hold {
            lineage,
            uid: self.uid.clone(),
            why,
            parts: Vec::new(),
        };
        Hold::remove(fs, &self.place, &hold.name())
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
            foreign: restore.foreign,
            committed: 0,
            certain: 0,
            committing: VecDeque::new(),
            recorded: BTreeMap::new(),
            held: BTreeMap::new(),
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
    /// They are those of a snapshot of another history.
    foreign: bool,
    /// So many of them are committed, or will be by the jobs that were submitted.
    committed: usize,
    /// So many of them are committed for certain.
    certain: usize,
    /// Parts of each running commit.
    committing: VecDeque<usize>,
    /// How many parts each open checkpoint recorded.
    recorded: BTreeMap<CheckpointId, usize>,
    /// Names of the holds of savepoints that are not complete yet.
    held: BTreeMap<CheckpointId, String>,
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

    /// Takes up the parts of the restored snapshot: all of them are committed, those of other histories are held.
    fn take_up(&mut self, control: &Control) -> Result {
        let (fs, place) = (&*self.fs, &*self.place);
        if self.foreign && self.job.accepts_lost_transactions() {
            let lost: Vec<Part> = missing(fs, place, &self.parts)?.into_iter().cloned().collect();
            if !lost.is_empty() {
                self.parts.retain(|part| !lost.contains(part));
                control.report(What::Tell(JobEvent::TransactionsLost {
                    uid: self.uid.clone(),
                    parts: lost.len() as u64,
                    lines: lost.iter().map(|part| part.lines).sum(),
                }));
            }
        }
        // Before anything relies on them. What is committed for good needs no hold.
        let inherited = self.parts.iter().filter(|part| !self.is_own(&part.name));
        let inherited: Vec<Part> = inherited.cloned().collect();
        if place.sorted.is_some() && !inherited.is_empty() {
            self.hold(Why::Job, inherited).store(fs, place)?;
        }
        commit(fs, place, &self.parts)?;
        (self.committed, self.certain) = (self.parts.len(), self.parts.len());
        Ok(())
    }

    fn is_own(&self, name: &str) -> bool {
        Lineage::of_name(name).is_some_and(|facts| facts.lineage == self.lineage)
    }

    fn hold(&self, why: Why, parts: Vec<Part>) -> Hold {
        Hold {
            lineage: self.lineage,
            uid: self.uid.clone(),
            why,
            parts,
        }
    }

    /// Removes what neither a restored state nor a hold names: open parts of this history by earlier attempts, and
    /// everything of histories that were given up.
    fn sweep(&self, attempt: u64) -> Result {
        let (fs, place) = (&*self.fs, &*self.place);
        hold::sweep_temporaries(fs, place, self.lineage)?;
        let stale = garbage(fs, &place.pending(), self.lineage, |_, a| a != attempt)?;
        let mut readable = Ok(());
        if !stale.is_empty() {
            let holds = Holds::read(fs, place)?;
            let (free, _) = holds.divide(stale);
            remove(fs, &place.pending(), free.iter().map(String::as_str))?;
            readable = holds.demand_readable();
        }
        let named: BTreeSet<&str> = self.parts.iter().map(|p| p.name.as_str()).collect();
        for &abandoned in &self.job.options.abandoned {
            let lineage = Lineage::new(abandoned.0, &self.uid);
            if lineage != self.lineage {
                let given_up = end_history(fs, place, (lineage, &self.uid), &named);
                readable = readable.and(given_up);
            }
        }
        readable
    }

    /// Tells of parts of other histories that are nobody's known business.
    fn tell_in_doubt(&self, control: &Control) -> Result {
        let named: BTreeSet<&str> = self.parts.iter().map(|p| p.name.as_str()).collect();
        let mut folders = vec![self.place.pending()];
        folders.extend(self.place.sorted.is_some().then(|| self.place.parts()));
        let mut parts = 0;
        for folder in folders {
            let found = parts_in(&*self.fs, &folder)?;
            let in_doubt = |of: Lineage| of.uid_hash == self.lineage.uid_hash && of != self.lineage;
            let others = found
                .iter()
                .filter(|(name, of)| in_doubt(of.lineage) && !named.contains(name.as_str()));
            parts += others.count() as u64;
        }
        if parts > 0 {
            let uid = self.uid.clone();
            control.report(What::Tell(JobEvent::TransactionsInDoubt { uid, parts }));
        }
        Ok(())
    }
}

impl Logic for Committer {
    type In = Part;
    type Out = ();

    fn open(&mut self, control: &Control) -> Result<i64> {
        self.take_up(control)?;
        // What must stay for once takes space only.
        if let Err(error) = self.sweep(control.seed.attempt) {
            control.report(What::Tell(JobEvent::CleanupFailed { error }));
        }
        if self.foreign {
            self.tell_in_doubt(control)?;
        }
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
        if barrier.kind.owner() != SnapshotOwner::User || self.parts.is_empty() {
            return Ok(Box::new(move |_| Ok(state)));
        }
        let why = |location| Why::Savepoint {
            checkpoint: barrier.checkpoint,
            attempt: control.seed.attempt,
            location,
        };
        let mut hold = self.hold(why(String::new()), self.parts.clone());
        self.held.insert(barrier.checkpoint, hold.name());
        let (fs, place) = (self.fs.clone(), self.place.clone());
        Ok(Box::new(move |savepoint| {
            let directory = savepoint.and_then(|s| s.location());
            if let (Why::Savepoint { location, .. }, Some(directory)) = (&mut hold.why, directory) {
                *location = hold::location(directory);
            }
            // Durable before anybody learns that the savepoint can exist; one that fails is not worth the task.
            hold.store(&*fs, &place)?;
            Ok(state)
        }))
    }

    fn on_complete(
        &mut self,
        checkpoint: CheckpointId,
        purpose: Purpose,
        control: &mut Control,
    ) -> Result<bool> {
        self.held.remove(&checkpoint);
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

    fn on_aborted(&mut self, checkpoint: CheckpointId, control: &mut Control) {
        self.recorded.remove(&checkpoint);
        if let Some(name) = self.held.remove(&checkpoint) {
            let (fs, place) = (self.fs.clone(), self.place.clone());
            // After the asynchronous part that writes it. One that stays keeps parts, and is released by hand.
            control.job(JobKind::Release, move || {
                let _ = Hold::remove(&*fs, &place, &name);
                Ok(())
            });
        }
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
                let (lineage, uid) = (self.lineage, self.uid.clone());
                control.job(JobKind::CleanUp, move || clean_up(&*fs, &place, (lineage, &uid)));
                Ok(None)
            }
            Mail::JobDone(JobKind::CleanUp, outcome) => {
                // What could not be removed takes space only.
                if let Err(error) = outcome {
                    control.report(What::Tell(JobEvent::CleanupFailed { error }));
                }
                Ok(Some(What::CleanedUp))
            }
            _ => Ok(None),
        }
    }
}

/// The result stands and is recorded: removes what was only needed to make it again. The folders go if they are
/// empty; other sinks may still use them.
fn clean_up(fs: &dyn Fs, place: &SinkPlace, history: (Lineage, &OperatorUid)) -> Result {
    // Parts of the history that a snapshot came from belong to that snapshot, too.
    let ended = end_history(fs, place, history, &BTreeSet::new());
    for dir in [place.parts(), place.pending(), place.holds()] {
        let _ = fs.remove_dir(&dir);
    }
    ended
}

/// The job of a history will never run again: removes its parts, but for those that are held or `named`. If some are
/// held, a marker tells whoever releases them that nobody else needs them.
fn end_history(
    fs: &dyn Fs,
    place: &SinkPlace,
    (lineage, uid): (Lineage, &OperatorUid),
    named: &BTreeSet<&str>,
) -> Result {
    let sorted = place.sorted.is_some();
    let open = garbage(fs, &place.pending(), lineage, |name, _| !named.contains(name))?;
    let committed = match sorted {
        true => garbage(fs, &place.parts(), lineage, |name, _| !named.contains(name))?,
        false => Vec::new(),
    };
    // Read after the candidates are found: a hold comes before what makes a part one's own.
    let holds = Holds::read(fs, place)?;
    let ((open, held_open), (committed, held)) = (holds.divide(open), holds.divide(committed));
    if !held.is_empty() || !held_open.is_empty() {
        let over = Hold {
            lineage,
            uid: uid.clone(),
            why: Why::Over { sorted },
            parts: Vec::new(),
        };
        over.store(fs, place)?;
    }
    remove(fs, &place.pending(), open.iter().map(String::as_str))?;
    remove(fs, &place.parts(), committed.iter().map(String::as_str))?;
    Hold::remove(fs, place, &format!("{}-job", lineage.prefix()))?;
    match held.is_empty() && held_open.is_empty() {
        true => Ok(()),
        false => holds.demand_readable(),
    }
}
