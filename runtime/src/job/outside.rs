//! What a snapshot relies on outside of itself: parts that sinks wrote and that may have been removed since.

use crate::plan::Named;
use keybed_env::Fs;
use keybed_format::{Error, Result};
use keybed_snapshot::OperatorSnapshot;

/// What is not there any more: one problem per sink, `TransactionLost`.
pub(super) fn problems(fs: &dyn Fs, nodes: &[Named], operators: &[OperatorSnapshot]) -> Vec<Error> {
    let problem = |named: &Named| {
        let operator = operators.iter().find(|o| o.uid == named.uid)?;
        let problem = named.node.check_restored(fs, operator).err()?;
        Some(problem.with("uid", &named.uid))
    };
    nodes.iter().filter_map(problem).collect()
}

/// Checks that everything is still there, before any task starts.
///
/// # Errors
/// The first problem, with the others as its fields.
pub(super) fn check(fs: &dyn Fs, nodes: &[Named], operators: &[OperatorSnapshot]) -> Result {
    let mut problems = problems(fs, nodes, operators).into_iter();
    match problems.next() {
        None => Ok(()),
        Some(first) => Err(problems.fold(first, |first, other| first.with("further_problem", other))),
    }
}
