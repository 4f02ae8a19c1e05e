//! One execution of a job between restarts: its tasks and how far each of them is.

use super::{driver::DriverMail, restore::NodeStart};
use crate::{
    element::{Barrier, Purpose},
    mailbox::Mailbox,
    plan::{Build, JobPlace, Named, Role, SubtaskStart},
    task::{Mail, PlaceOf, Seed},
    wiring::Wiring,
};
use keybed_env::Scheduler;
use keybed_format::Result;
use keybed_snapshot::{CheckpointId, OpenFiles, OperatorSnapshot, SubtaskState};
use std::{collections::BTreeSet, sync::Arc};

/// The tasks of an attempt.
pub(super) struct Attempt {
    /// Unique over the life of the job.
    pub(super) id: u64,
    tasks: Vec<TaskPlace>,
    pub(super) starts: Vec<NodeStart>,
    pub(super) ready: BTreeSet<usize>,
    pub(super) drained: BTreeSet<usize>,
    pub(super) finished: BTreeSet<usize>,
    pub(super) cleaned: BTreeSet<usize>,
    pub(super) ended: BTreeSet<usize>,
    /// The checkpoint that ends the job is complete, and was taken for this.
    pub(super) last: Option<Purpose>,
}

struct TaskPlace {
    node: usize,
    source: bool,
    mails: Mailbox<Mail>,
}

/// What tasks are built from besides their nodes.
pub(super) struct Surroundings<'a> {
    pub(super) place: &'a Arc<JobPlace>,
    pub(super) scheduler: &'a Arc<dyn Scheduler>,
    pub(super) inbox: &'a Mailbox<DriverMail>,
    pub(super) place_of: Option<PlaceOf>,
    pub(super) files: Option<Arc<dyn OpenFiles>>,
    /// They are those of no checkpoint of this job.
    pub(super) foreign: bool,
    /// Newest checkpoint that any earlier attempt may have sent a barrier of.
    pub(super) settled: CheckpointId,
}

/// Number of tasks of a program at these parallelisms.
pub(super) fn task_count(starts: &[NodeStart]) -> usize {
    starts.iter().map(|s| s.parallelism as usize).sum()
}

impl Attempt {
    /// Builds all tasks and spawns them.
    pub(super) fn spawn(
        id: u64,
        nodes: &[Named],
        starts: Vec<NodeStart>,
        around: &Surroundings<'_>,
    ) -> Result<Self> {
        let parallelism = starts.iter().map(|s| s.parallelism).collect();
        let max_parallelism = starts.iter().map(|s| s.max_parallelism).collect();
        let mut wiring = Wiring::new(parallelism, max_parallelism);
        let mut tasks = Vec::new();
        let mut builders = Vec::new();
        for (n, (named, start)) in nodes.iter().zip(&starts).enumerate() {
            for subtask in 0..start.parallelism {
                let mails = Mailbox::new();
                let seed = Seed {
                    attempt: id,
                    task: tasks.len(),
                    subtask,
                    parallelism: start.parallelism,
                    settled: around.settled,
                    mails: mails.clone(),
                    driver: around.inbox.clone(),
                    scheduler: around.scheduler.clone(),
                    fs: around.place.options.fs.clone(),
                    place_of: around.place_of.clone(),
                    counters: around.place.counters[n].clone(),
                };
                let restore = SubtaskStart {
                    operator: start.operator.clone(),
                    keyed: start.keyed.get(subtask as usize).cloned().unwrap_or_default(),
                    foreign: around.foreign,
                    files: around.files.clone(),
                };
                let catalogue = start.catalogue.clone();
                let build = Build {
                    seed,
                    place: around.place,
                    catalogue,
                    restore,
                    wiring: &mut wiring,
                };
                builders.push((format!("{}-{subtask}", named.uid), named.node.build(build)?));
                tasks.push(TaskPlace {
                    node: n,
                    source: named.node.role() == Role::Source,
                    mails,
                });
            }
        }
        for (name, builder) in builders {
            around.scheduler.spawn(&name, builder);
        }
        let none = BTreeSet::new;
        let (ready, drained, finished, cleaned, ended) = (none(), none(), none(), none(), none());
        Ok(Attempt {
            id,
            tasks,
            starts,
            ready,
            drained,
            finished,
            cleaned,
            ended,
            last: None,
        })
    }

    /// Whether all tasks are in the set.
    pub(super) fn all(&self, set: &BTreeSet<usize>) -> bool {
        set.len() == self.tasks.len()
    }

    /// Sends a barrier into all sources.
    pub(super) fn trigger(&self, barrier: Barrier) {
        for task in self.tasks.iter().filter(|t| t.source) {
            task.mails.post(Mail::Trigger(barrier));
        }
    }

    /// Tells all tasks.
    pub(super) fn tell(&self, mail: impl Fn() -> Mail) {
        self.tasks.iter().for_each(|task| task.mails.post(mail()));
    }

    /// What a checkpoint holds, from the acknowledgements of all tasks in order.
    pub(super) fn operators(&self, nodes: &[Named], acks: Vec<SubtaskState>) -> Vec<OperatorSnapshot> {
        let mut operators: Vec<_> = nodes
            .iter()
            .zip(&self.starts)
            .map(|(named, start)| OperatorSnapshot {
                uid: named.uid.clone(),
                parallelism: start.parallelism,
                max_parallelism: start.max_parallelism,
                catalogue: (*start.catalogue).clone(),
                subtasks: Vec::new(),
            })
            .collect();
        for (task, ack) in self.tasks.iter().zip(acks) {
            operators[task.node].subtasks.push(ack);
        }
        let keep = |i: &usize| nodes[*i].node.role() != Role::Stateless;
        let mut index = 0..;
        operators.retain(|_| index.next().is_some_and(|i| keep(&i)));
        operators
    }
}
