//! What a snapshot means for a program: a pure check that reports all problems at once, and the deal of state to
//! new subtasks.

use crate::{
    check::{OperatorCheck, OperatorStanding, RestoreWarning},
    event::SplitOffset,
    operator::WATERMARK,
    options::JobOptions,
    plan::{Named, Node, Role, Width},
    restore::AllowNonRestored,
    sink::LINEAGE,
    source::split,
};
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    KeyedHandle, Metadata, OpenFiles, OperatorSnapshot, OperatorStateHandle, StateCatalogue,
    check_parallelism, handle::total_bytes, max_parallelism_default, rescale,
};
use keybed_state::processor::read_entries;
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

/// What a start asks for.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: Option<u32>,
    /// Only for a snapshot that is not the job's own.
    pub(crate) allow_non_restored: AllowNonRestored,
}

impl Wanted {
    pub(crate) fn of(options: &JobOptions) -> Self {
        let restore = options.restore.as_ref();
        Wanted {
            parallelism: options.parallelism,
            max_parallelism: options.max_parallelism,
            allow_non_restored: restore.map(|r| r.allow_non_restored.clone()).unwrap_or_default(),
        }
    }

    /// For a checkpoint of the job itself: nothing of that is ever left out.
    pub(crate) fn of_own(self) -> Self {
        Wanted {
            allow_non_restored: AllowNonRestored::None,
            ..self
        }
    }
}

/// A snapshot (or nothing) dealt to the nodes of a program.
#[derive(Default)]
pub(crate) struct Deal {
    /// By node; of no use if there are problems.
    pub(crate) starts: Vec<NodeStart>,
    pub(crate) operators: Vec<OperatorCheck>,
    pub(crate) warnings: Vec<RestoreWarning>,
    pub(crate) problems: Vec<Error>,
}

/// Deals a snapshot to the nodes of a program.
///
/// # Errors
/// The first problem, with the others as its fields: `UnmappedOperatorState`, `MaxParallelismMismatch`,
/// `ParallelismExceedsMax`, whatever the catalogue of a state says.
pub(crate) fn plan(
    nodes: &[Named],
    wanted: &Wanted,
    snapshot: Option<(&Metadata, &dyn OpenFiles)>,
) -> Result<Vec<NodeStart>> {
    let Deal { starts, problems, .. } = deal(nodes, wanted, snapshot);
    let mut problems = problems.into_iter();
    match problems.next() {
        None => Ok(starts),
        Some(first) => Err(problems.fold(first, |first, other| first.with("further_problem", other))),
    }
}

/// Deals a snapshot to the nodes of a program, and says everything that is wrong with that. Files are opened only to find
/// out whether an operator that the program lacks holds anything.
pub(crate) fn deal(nodes: &[Named], wanted: &Wanted, snapshot: Option<(&Metadata, &dyn OpenFiles)>) -> Deal {
    let mut deal = Deal::default();
    let operators = snapshot.map(|(m, _)| m.operators.as_slice()).unwrap_or_default();
    let mut others = Vec::new();
    for operator in operators {
        let known = nodes
            .iter()
            .any(|n| n.uid == operator.uid && n.node.role() != Role::Stateless);
        if !known {
            let holds = snapshot.is_some_and(|(_, files)| has_state(operator, files));
            others.push(deal.leave_out(operator, holds, &wanted.allow_non_restored));
        }
    }
    for Named { uid, node } in nodes {
        let role = node.role();
        let operator = operators.iter().find(|o| o.uid == *uid);
        let width = if node.width() == Width::One {
            1
        } else {
            wanted.parallelism
        };
        let start = start(&**node, operator, width, wanted.max_parallelism);
        if role != Role::Stateless {
            let standing = match operator {
                Some(_) => OperatorStanding::Restored,
                None => OperatorStanding::New,
            };
            let max_parallelism = start.as_ref().ok().map(|s| s.max_parallelism);
            deal.operators.push(OperatorCheck {
                parallelism: Some(width),
                max_parallelism,
                ..look(uid, operator, standing)
            });
        }
        match start {
            Ok(start) => deal.starts.push(start),
            Err(found) => deal
                .problems
                .extend(found.into_iter().map(|e| e.with("uid", uid))),
        }
    }
    deal.operators.extend(others);
    deal
}

impl Deal {
    /// An operator that the program lacks.
    fn leave_out(
        &mut self,
        operator: &OperatorSnapshot,
        holds: bool,
        allowed: &AllowNonRestored,
    ) -> OperatorCheck {
        let standing = if !holds {
            OperatorStanding::Gone
        } else if allowed.allows(&operator.uid) {
            OperatorStanding::LeftOut
        } else {
            OperatorStanding::Unmapped
        };
        let look = OperatorCheck {
            max_parallelism: Some(operator.max_parallelism),
            ..look(&operator.uid, Some(operator), standing)
        };
        match standing {
            OperatorStanding::LeftOut => self.warnings.push(RestoreWarning::LeftOut {
                uid: look.uid.clone(),
                states: look.states.clone(),
                bytes: look.bytes,
            }),
            OperatorStanding::Unmapped => self.problems.push(unmapped(&look)),
            _ => {}
        }
        look
    }
}

fn look(
    uid: &keybed_snapshot::OperatorUid,
    operator: Option<&OperatorSnapshot>,
    standing: OperatorStanding,
) -> OperatorCheck {
    let living = |o: &OperatorSnapshot| {
        let keyed = o.catalogue.entries().iter().filter(|e| !e.dropped);
        let mut names: Vec<String> = keyed.map(|e| e.state.name.clone()).collect();
        for state in o.subtasks.iter().flat_map(|s| &s.operator) {
            let kept = !is_bookkeeping(&state.name) && !state.items.is_empty();
            if kept && !names.contains(&state.name) {
                names.push(state.name.clone());
            }
        }
        names
    };
    OperatorCheck {
        uid: uid.clone(),
        renamed_from: None,
        standing,
        states: operator.map(living).unwrap_or_default(),
        bytes: operator.map_or(0, |o| total_bytes(&o.subtasks)),
        parallelism_before: operator.map(|o| o.parallelism),
        parallelism: None,
        max_parallelism: None,
    }
}

fn start(
    node: &dyn Node,
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

/// Whether something is lost with it. What was all removed again is nothing, though tables tell of the removal.
fn has_state(operator: &OperatorSnapshot, files: &dyn OpenFiles) -> bool {
    let items = |o: &OperatorStateHandle| !is_bookkeeping(&o.name) && !o.items.is_empty();
    if operator.subtasks.iter().flat_map(|s| &s.operator).any(items) {
        return true;
    }
    let entries = |keyed: &&KeyedHandle| keyed.tables().any(|table| table.entries > 0 && !table.is_empty());
    let keyed = operator.subtasks.iter().filter_map(|s| s.keyed.as_ref());
    let keyed: Vec<KeyedHandle> = keyed.filter(entries).cloned().collect();
    // The first entry that lives is enough. What cannot be read is not known to be nothing.
    let mut found = |_| Err(Error::invalid("an entry lives"));
    read_entries(&operator.catalogue, &keyed, files, &mut found).is_err()
}

/// Operator state by which the runtime remembers how far an operator was; without other state it says nothing.
fn is_bookkeeping(name: &str) -> bool {
    [WATERMARK, LINEAGE].contains(&name)
}

fn unmapped(operator: &OperatorCheck) -> Error {
    Error::new(
        Code::UnmappedOperatorState,
        "the snapshot holds state of an operator that the program lacks",
    )
    .with("uid", &operator.uid)
    .with("states", operator.states.join(", "))
    .with("bytes", operator.bytes)
}

/// Checks that every sink that the snapshot has parts of is in the program.
///
/// # Errors
/// `UnmappedOperatorState`.
pub(crate) fn demand_nodes(nodes: &[Named], operators: &[OperatorSnapshot]) -> Result {
    let of_sink = |operator: &&OperatorSnapshot| {
        let mut states = operator.subtasks.iter().flat_map(|subtask| &subtask.operator);
        states.any(|state| state.name == LINEAGE)
    };
    let known = |operator: &OperatorSnapshot| nodes.iter().any(|named| named.uid == operator.uid);
    match operators.iter().filter(of_sink).find(|operator| !known(operator)) {
        None => Ok(()),
        Some(operator) => Err(Error::new(
            Code::UnmappedOperatorState,
            "the snapshot holds parts of a sink that the program lacks",
        )
        .with("uid", &operator.uid)),
    }
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
