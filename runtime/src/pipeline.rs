//! A program: sources, functions, operators and sinks, not started yet.

use crate::{
    check::CheckReport,
    element::Data,
    job::{
        self, Job,
        check::{Depth, check},
    },
    options::JobOptions,
    plan::{Build, Named, Node, Plan, Role, Taps},
    source::{
        Source,
        split::{self, SplitState},
    },
    stream::Stream,
    task::{Shell, source::SourceTask},
};
use keybed_env::sched::TaskBuilder;
use keybed_format::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::Arc;

/// A program of streams.
///
/// A pipeline can be started several times; every start builds its tasks anew.
pub struct Pipeline {
    name: String,
    plan: Arc<Mutex<Plan>>,
}

impl Pipeline {
    /// An empty pipeline; the name is written into its snapshots.
    pub fn new(name: impl Into<String>) -> Self {
        Pipeline {
            name: name.into(),
            plan: Arc::default(),
        }
    }

    /// Adds a source. The uid names its positions in snapshots for ever.
    pub fn source<S: Source>(&mut self, uid: &str, source: S) -> Stream<S::Record>
    where
        S::Record: Data,
    {
        let taps = Taps::new();
        let mut plan = self.plan.lock();
        let uid = plan.uid(uid);
        let node = plan.reserve();
        plan.put(
            node,
            uid,
            Arc::new(SourceNode {
                source: Arc::new(source),
                output: taps.clone(),
            }),
        );
        Stream::new(self.plan.clone(), node, taps)
    }

    /// Starts the job on the scheduler of `options` and returns at once.
    ///
    /// # Errors
    /// Everything that can be known before: `DuplicateUid`, `MissingUid`, `InvalidArgument`, `DuplicateStateName`,
    /// `OutputUnwritable`; `Locked` and `Fenced` if somebody else has the job's checkpoint root. What the newest
    /// checkpoint says is found out by the job itself: see [`JobHandle::wait`](crate::JobHandle::wait).
    pub fn start(&self, options: JobOptions) -> Result<Job> {
        let (nodes, problems) = self.nodes();
        let mut problems = problems.into_iter();
        match (problems.next(), problems.len()) {
            (None, _) => job::start(&self.name, nodes, options),
            (Some(problem), 0) => Err(problem),
            (Some(problem), others) => Err(problem.with("further_problems", others)),
        }
    }

    /// Looks whether the job would start, from [`JobOptions::restore`] if that names a snapshot: every byte of the
    /// snapshot, and every operator of it against those of the program. Nothing is locked, written or claimed; what the
    /// checkpoint root and the places of sinks have to say comes out at the start alone.
    ///
    /// # Errors
    /// None of what is wrong with program or snapshot: that is in [`CheckReport::problems`]. Errors of the operating
    /// system that keep from looking.
    pub fn check(&self, options: &JobOptions) -> Result<CheckReport> {
        let (nodes, mut problems) = self.nodes();
        let (mut report, _) = check(&nodes, options, Depth::Bytes);
        let refused = |problem: &Error| matches!(problem.kind(), ErrorKind::Io);
        if let Some(error) = report.problems.iter().position(refused) {
            return Err(report.problems.swap_remove(error));
        }
        problems.append(&mut report.problems);
        report.problems = problems;
        Ok(report)
    }

    /// The nodes, and what was found wrong while they were put together.
    fn nodes(&self) -> (Vec<Named>, Vec<Error>) {
        let plan = self.plan.lock();
        let nodes: Vec<Named> = plan.nodes.iter().flatten().cloned().collect();
        let mut problems: Vec<Error> = plan.problems.iter().map(Error::duplicate).collect();
        if nodes.is_empty() {
            problems.push(Error::invalid("the pipeline has no source"));
        }
        (nodes, problems)
    }
}

struct SourceNode<S: Source> {
    source: Arc<S>,
    output: Arc<Taps<S::Record>>,
}

impl<S: Source> Node for SourceNode<S> {
    fn role(&self) -> Role {
        Role::Source
    }

    fn build(&self, build: Build<'_>) -> Result<TaskBuilder> {
        let Build {
            seed,
            place,
            restore,
            wiring,
            ..
        } = build;
        let restored = restore
            .operator
            .as_deref()
            .map(split::from_snapshot)
            .transpose()?
            .unwrap_or_default();
        let mine: Vec<_> = (0..self.source.splits())
            .filter(|split| split % seed.parallelism == seed.subtask)
            .map(|split| restored.get(&split).copied().unwrap_or(SplitState::new(split)))
            .collect();
        let output = self.output.output(wiring, seed.subtask);
        let options = &place.options;
        let task = SourceTask::new(
            self.source.clone(),
            &mine,
            output,
            place.throttle.clone(),
            options.source_step_records,
        );
        Ok(Shell::builder(seed, Box::new(task)))
    }
}
