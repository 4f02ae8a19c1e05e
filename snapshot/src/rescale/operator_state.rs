//! Dealing operator state: even split, union, broadcast.

use crate::{OperatorStateHandle, OperatorStateMode, SubtaskState};

/// What every new subtask gets, in their order. `old` is sorted by index.
pub(super) fn deal(
    old: &[&SubtaskState],
    parallelism: u32,
) -> impl Iterator<Item = Vec<OperatorStateHandle>> {
    let parallelism = parallelism as usize;
    let mut new = vec![Vec::new(); parallelism];
    let mut names: Vec<(&str, OperatorStateMode)> = Vec::new();
    for state in old.iter().flat_map(|subtask| &subtask.operator) {
        if !names.iter().any(|(name, _)| *name == state.name) {
            names.push((&state.name, state.mode));
        }
    }
    names.sort_unstable();
    for (name, mode) in names {
        let found: Vec<&OperatorStateHandle> = old
            .iter()
            .flat_map(|subtask| subtask.operator.iter().filter(|state| state.name == name))
            .collect();
        let unchanged = old.len() == parallelism && found.len() == parallelism;
        for (index, subtask) in new.iter_mut().enumerate() {
            let items = match mode {
                OperatorStateMode::Split if unchanged => found[index].items.clone(),
                OperatorStateMode::Split => split(&found, index, parallelism),
                OperatorStateMode::Union => found.iter().flat_map(|state| &state.items).cloned().collect(),
                // Every subtask wrote the same; at a smaller parallelism each takes its own copy, else the first.
                OperatorStateMode::Broadcast => found
                    .get(index)
                    .or(found.first())
                    .map(|state| state.items.clone())
                    .unwrap_or_default(),
            };
            subtask.push(OperatorStateHandle {
                name: name.to_owned(),
                mode,
                items,
            });
        }
    }
    new.into_iter()
}

/// The `index`-th of `parallelism` even pieces of the concatenation.
fn split(found: &[&OperatorStateHandle], index: usize, parallelism: usize) -> Vec<Vec<u8>> {
    let count: usize = found.iter().map(|state| state.items.len()).sum();
    let (start, end) = (index * count / parallelism, (index + 1) * count / parallelism);
    let all = found.iter().flat_map(|state| &state.items);
    all.skip(start).take(end - start).cloned().collect()
}
