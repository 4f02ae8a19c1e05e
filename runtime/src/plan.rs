//! The nodes of a pipeline in the order of the program, and what they share when an attempt is built.

use crate::{
    metrics::NodeCounters,
    options::JobOptions,
    output::Output,
    source::Throttle,
    task::Seed,
    wiring::{Edge, NodeId, Shape, Wiring},
};
use keybed_env::{Fs, sched::TaskBuilder};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    CheckpointId, JobId, KeyedHandle, OpenFiles, OperatorSnapshot, OperatorUid, StateCatalogue,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// How many subtasks a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// As many as the job's parallelism.
    Job,
    /// One.
    One,
}

/// What part of a snapshot belongs to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its tasks' states, with splits among them.
    Source,
    /// Its tasks' states.
    Stateful,
    /// Nothing: another node under the same uid has it.
    Stateless,
}

/// What one subtask gets of the snapshot that is restored.
#[derive(Clone, Default)]
pub(crate) struct SubtaskStart {
    /// The node's part of the snapshot.
    pub(crate) operator: Option<Arc<OperatorSnapshot>>,
    /// Keyed state assigned to this subtask.
    pub(crate) keyed: Vec<KeyedHandle>,
    /// The snapshot is another job's or a savepoint: this job begins a history of its own.
    pub(crate) foreign: bool,
    /// Opens the files.
    pub(crate) files: Option<Arc<dyn OpenFiles>>,
}

/// What all nodes of a job see.
pub(crate) struct JobPlace {
    pub(crate) job: JobId,
    pub(crate) options: JobOptions,
    pub(crate) throttle: Option<Arc<Throttle>>,
    pub(crate) ids: Mutex<keybed_env::random::Ids>,
    /// Owner generation: makes attempts unique over the life of the job.
    pub(crate) generation: u64,
    pub(crate) counters: Vec<Arc<NodeCounters>>,
    /// Which nodes are sources.
    pub(crate) sources: Vec<usize>,
}

impl JobPlace {
    /// Whether sinks go on without parts that the snapshot names that the job was started from.
    pub(crate) fn accepts_lost_transactions(&self) -> bool {
        let restore = self.options.restore.as_ref();
        restore.is_some_and(|r| r.accept_lost_transactions)
    }
}

/// Everything a node builds one subtask from.
pub(crate) struct Build<'a> {
    pub(crate) seed: Seed,
    pub(crate) place: &'a Arc<JobPlace>,
    pub(crate) catalogue: Arc<StateCatalogue>,
    pub(crate) restore: SubtaskStart,
    pub(crate) wiring: &'a mut Wiring,
}

/// The end of a job with a savepoint.
pub(crate) struct Conclusion<'a> {
    pub(crate) place: &'a JobPlace,
    /// Unique over the life of the job, as that of an attempt.
    pub(crate) attempt: u64,
    /// The result is complete.
    pub(crate) drained: bool,
}

/// A source, an operator, or half a sink.
pub(crate) trait Node: Send + Sync {
    fn width(&self) -> Width {
        Width::Job
    }

    fn role(&self) -> Role;

    /// What it declares, merged with what was restored.
    fn declare(&self, restored: &StateCatalogue) -> Result<Arc<StateCatalogue>, Vec<Error>> {
        Ok(Arc::new(restored.clone()))
    }

    /// Finds out before anything starts whether its outside is usable.
    fn check(&self, _fs: &dyn Fs, _job: JobId) -> Result {
        Ok(())
    }

    /// Finds out before any task starts whether what a snapshot relies on outside of itself is still there.
    fn check_restored(&self, _fs: &dyn Fs, _operator: &OperatorSnapshot) -> Result {
        Ok(())
    }

    /// Commits what a savepoint names that ended the job. No task runs. May be repeated.
    fn conclude(&self, _conclusion: &Conclusion<'_>, _operator: &OperatorSnapshot) -> Result {
        Ok(())
    }

    /// A savepoint that was to end the job never came to be: lets go what was kept for it, by its id and its attempt.
    fn release(&self, _fs: &dyn Fs, _job: JobId, _savepoint: (CheckpointId, u64)) -> Result {
        Ok(())
    }

    /// The end of the job is recorded: removes what nobody needs any more.
    fn clean_up(&self, _conclusion: &Conclusion<'_>) -> Result {
        Ok(())
    }

    /// Builds one subtask of an attempt.
    fn build(&self, build: Build<'_>) -> Result<TaskBuilder>;
}

/// A node under its name.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) uid: OperatorUid,
    pub(crate) node: Arc<dyn Node>,
}

/// Makes the output of one subtask of the producing node.
pub(crate) type OutputFactory<T> = Box<dyn Fn(&mut Wiring, u32) -> Box<dyn Output<T>> + Send + Sync>;

/// Consumers of a stream, in the order of the program.
pub(crate) struct Taps<T>(Mutex<Vec<OutputFactory<T>>>);

impl<T: crate::element::Data> Taps<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Taps(Mutex::new(Vec::new())))
    }

    pub(crate) fn push(&self, factory: OutputFactory<T>) {
        self.0.lock().push(factory);
    }

    /// The output of one subtask: everything that was attached.
    pub(crate) fn output(&self, wiring: &mut Wiring, subtask: u32) -> Box<dyn Output<T>> {
        let factories = self.0.lock();
        let mut outputs: Vec<_> = factories.iter().map(|factory| factory(wiring, subtask)).collect();
        match outputs.len() {
            1 => outputs.swap_remove(0),
            _ => Box::new(crate::output::Fan(outputs)),
        }
    }
}

/// A pipeline under construction.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Option<Named>>,
    /// What was wrong while building; reported at the start.
    pub(crate) problems: Vec<Error>,
    edges: usize,
}

impl Plan {
    /// Takes the next number for a node.
    pub(crate) fn reserve(&mut self) -> NodeId {
        self.nodes.push(None);
        NodeId(self.nodes.len() - 1)
    }

    /// Takes a uid; mistakes are kept for the start.
    pub(crate) fn uid(&mut self, text: &str) -> OperatorUid {
        let uid = match OperatorUid::new(text) {
            Ok(uid) => uid,
            Err(problem) => {
                let missing = if text.is_empty() {
                    problem.recode(Code::MissingUid)
                } else {
                    problem
                };
                self.problems.push(missing);
                return OperatorUid::new("invalid").unwrap_or_else(|_| unreachable!("a plain word"));
            }
        };
        if self.nodes.iter().flatten().any(|n| n.uid == uid) {
            let problem =
                Error::new(Code::DuplicateUid, "two operators carry the same uid").with("uid", &uid);
            self.problems.push(problem);
        }
        uid
    }

    pub(crate) fn put(&mut self, id: NodeId, uid: OperatorUid, node: Arc<dyn Node>) {
        self.nodes[id.0] = Some(Named { uid, node });
    }

    pub(crate) fn edge(&mut self, from: NodeId, to: NodeId, shape: Shape) -> Edge {
        self.edges += 1;
        Edge {
            id: self.edges,
            from,
            to,
            shape,
        }
    }
}
