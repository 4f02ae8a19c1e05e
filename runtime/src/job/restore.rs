//! What a snapshot means for a program: a pure check that reports all problems at once, and the deal of state to
//! new subtasks.

use crate::{
    event::SplitOffset,
    plan::{Named, Role, Width},
    source::split,
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    KeyedHandle, Metadata, OperatorSnapshot, StateCatalogue, SubtaskState, check_parallelism,
    handle::total_bytes, max_parallelism_default, rescale,
};
use std::sync::Arc;

/// What one node starts from.
#[derive(Clone, Debug)]
pub(crate) struct NodeStart {
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
    pub(crate) catalogue: Arc<StateCatalogue>,
    pub(crate) operator: Option<Arc<OperatorSnapshot>>,
    /// Keyed state by new subtask; empty if there is none.
    pub(crate) keyed: Vec<Vec<KeyedHandle>>,
}

/// Deals a snapshot (or nothing) to the nodes of a program.
///
/// # Errors
/// The first problem, with the others as its context: `UnmappedOperatorState`, `MaxParallelismMismatch`,
/// `ParallelismExceedsMax`, whatever the catalogue of a state says.
pub(crate) fn plan(
    nodes: &[Named],
    parallelism: u32,
    max_parallelism: Option<u32>,
    metadata: Option<&Metadata>,
) -> Result<Vec<NodeStart>> {
    let mut problems = Vec::new();
    let mut starts = Vec::new();
    let operators = metadata.map(|m| m.operators.as_slice()).unwrap_or_default();
    for operator in operators {
        let known = nodes
            .iter()
            .any(|n| n.uid == operator.uid && n.node.role() != Role::Stateless);
        if !known && operator.subtasks.iter().any(has_state) {
            problems.push(unmapped(operator));
        }
    }
    for Named { uid, node } in nodes {
        let operator = operators.iter().find(|o| o.uid == *uid);
        let width = if node.width() == Width::One {
            1
        } else {
            parallelism
        };
        match start(&**node, operator, width, max_parallelism) {
            Ok(start) => starts.push(start),
            Err(found) => problems.extend(found.into_iter().map(|e| e.with("uid", uid))),
        }
    }
    all(problems).map(|()| starts)
}

fn start(
    node: &dyn crate::plan::Node,
    operator: Option<&OperatorSnapshot>,
    parallelism: u32,
    max_parallelism: Option<u32>,
) -> Result<NodeStart, Vec<Error>> {
    let keyed = operator.is_some_and(|o| o.subtasks.iter().any(|s| s.keyed.is_some()));
    let recorded = operator.filter(|_| keyed).map(|o| o.max_parallelism);
    let chosen = max_parallelism
        .or(recorded)
        .unwrap_or_else(|| max_parallelism_default(parallelism));
    let mut problems = Vec::new();
    if let Some(snapshot) = recorded.filter(|&r| r != chosen) {
        let what = "max parallelism differs from the snapshot's";
        problems.push(Error::new(Code::MaxParallelismMismatch, what).expected_found(snapshot, chosen));
    }
    if let Err(problem) = check_parallelism(chosen, parallelism) {
        problems.push(problem);
    }
    let empty = StateCatalogue::new();
    let catalogue = match node.declare(operator.map_or(&empty, |o| &o.catalogue)) {
        Ok(catalogue) => catalogue,
        Err(found) => {
            problems.extend(found);
            Arc::new(empty)
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut dealt = Vec::new();
    if let Some(operator) = operator.filter(|_| keyed) {
        let assignments = rescale(&operator.subtasks, chosen, parallelism).map_err(|e| vec![e])?;
        dealt = assignments.into_iter().map(|a| a.keyed).collect();
    }
    Ok(NodeStart {
        parallelism,
        max_parallelism: chosen,
        catalogue,
        operator: operator.cloned().map(Arc::new),
        keyed: dealt,
    })
}

fn has_state(subtask: &SubtaskState) -> bool {
    subtask.keyed.is_some() || subtask.operator.iter().any(|o| !o.items.is_empty())
}

fn unmapped(operator: &OperatorSnapshot) -> Error {
    let states: Vec<_> = operator
        .catalogue
        .entries()
        .iter()
        .map(|e| e.state.name.as_str())
        .collect();
    let bytes = total_bytes(&operator.subtasks);
    Error::new(
        Code::UnmappedOperatorState,
        "the snapshot holds state of an operator that the program lacks",
    )
    .with("uid", &operator.uid)
    .with("states", states.join(", "))
    .with("bytes", bytes)
}

/// One error for all: the first, with the rest told along.
fn all(problems: Vec<Error>) -> Result {
    let mut problems = problems.into_iter();
    let Some(first) = problems.next() else {
        return Ok(());
    };
    Err(problems.fold(first, |first, other| first.with("further_problem", other)))
}

/// Where the sources of a snapshot are.
pub(crate) fn offsets<'a>(operators: impl Iterator<Item = &'a OperatorSnapshot>) -> Vec<SplitOffset> {
    let splits = |operator: &OperatorSnapshot| {
        let splits = split::from_snapshot(operator).unwrap_or_default();
        let uid = operator.uid.clone();
        splits.into_values().map(move |s| SplitOffset {
            uid: uid.clone(),
            split: s.split,
            position: s.position,
        })
    };
    operators.flat_map(splits).collect()
}
