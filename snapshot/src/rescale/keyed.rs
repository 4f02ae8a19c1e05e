//! Narrowing and merging of keyed handles.
//!
//! ```text
//!   part A  runs  a2 a1 a0        merged   a2
//!   part B  runs     b1 b0                 a1 ++ b1
//!                 newest → bottom          a0 ++ b0        aligned from the bottom, concatenated by key
//! ```
//! Any alignment that keeps the order of each part is correct, because no key is in two parts; from the bottom it
//! keeps large runs together. The tier of a merged run is the highest of its runs, so tiers still ascend downwards.

use crate::{FamilyHandle, KeyGroupRange, KeyedHandle, RunHandle, TableHandle};

/// The part of `handle` inside `range`; `None` if they do not meet.
pub(super) fn narrow(handle: &KeyedHandle, range: KeyGroupRange) -> Option<KeyedHandle> {
    let both = handle.range.intersection(range)?;
    Some(if both == handle.range {
        handle.clone()
    } else {
        clip(handle, both)
    })
}

/// `handle` seen through `range` only: visible ranges clipped to its keys, tables and runs that show nothing dropped.
///
/// Only narrows: `range` must lie inside the handle's.
pub fn clip(handle: &KeyedHandle, range: KeyGroupRange) -> KeyedHandle {
    let clip_run = |run: &RunHandle| RunHandle {
        tier: run.tier,
        tables: run
            .tables
            .iter()
            .filter_map(|table| clip_table(table, range))
            .collect(),
    };
    let clip_family = |family: &FamilyHandle| FamilyHandle {
        name: family.name.clone(),
        runs: family
            .runs
            .iter()
            .map(clip_run)
            .filter(|run| !run.tables.is_empty())
            .collect(),
    };
    KeyedHandle {
        range,
        backend: handle.backend,
        next_seqno: handle.next_seqno,
        families: handle
            .families
            .iter()
            .map(clip_family)
            .filter(|family| !family.runs.is_empty())
            .collect(),
    }
}

fn clip_table(table: &TableHandle, range: KeyGroupRange) -> Option<TableHandle> {
    let mut clipped = table.clone();
    let (start, end) = (range.start_key(), range.end_key());
    // The very first key needs no bound, so that a table seen from its start stays so.
    if start != [0, 0] && clipped.visible_start.as_slice() < start.as_slice() {
        clipped.visible_start = start.to_vec();
    }
    if clipped
        .visible_end
        .as_ref()
        .is_none_or(|visible| visible.as_slice() > end.as_slice())
    {
        clipped.visible_end = Some(end.to_vec());
    }
    (!clipped.is_empty()).then_some(clipped)
}

/// One handle of `range` over parts that are disjoint in key groups; `None` without parts.
///
/// Adjacent views of one file in one run become one view again.
pub fn merge(parts: &[KeyedHandle], range: KeyGroupRange) -> Option<KeyedHandle> {
    let first = parts.first()?;
    if parts.len() == 1 {
        return Some(KeyedHandle {
            range,
            ..first.clone()
        });
    }
    // Runs of different parts share a row, so every part is bounded by its own key groups first.
    let mut parts: Vec<KeyedHandle> = parts.iter().map(|part| clip(part, part.range)).collect();
    parts.sort_by_key(|part| part.range);
    let mut names: Vec<&str> = Vec::new();
    for family in parts.iter().flat_map(|part| &part.families) {
        if !names.contains(&family.name.as_str()) {
            names.push(&family.name);
        }
    }
    names.sort_unstable();
    let families = names.iter().map(|name| merge_family(name, &parts)).collect();
    let next_seqno = parts.iter().map(|part| part.next_seqno).max().unwrap_or_default();
    Some(KeyedHandle {
        range,
        backend: first.backend,
        next_seqno,
        families,
    })
}

fn merge_family(name: &str, parts: &[KeyedHandle]) -> FamilyHandle {
    let origins: Vec<&[RunHandle]> = parts
        .iter()
        .flat_map(|part| part.families.iter().filter(|family| family.name == name))
        .map(|family| family.runs.as_slice())
        .collect();
    let rows = origins.iter().map(|runs| runs.len()).max().unwrap_or_default();
    let row = |from_bottom: usize| {
        let runs = origins
            .iter()
            .filter_map(|runs| runs.iter().rev().nth(from_bottom));
        let mut merged = RunHandle::default();
        for run in runs {
            merged.tier = merged.tier.max(run.tier);
            merged.tables.extend_from_slice(&run.tables);
        }
        join_adjacent(&mut merged.tables);
        merged
    };
    FamilyHandle {
        name: name.to_owned(),
        runs: (0..rows).rev().map(row).collect(),
    }
}

/// Joins views of one file that touch each other, at the place of the first.
fn join_adjacent(tables: &mut Vec<TableHandle>) {
    let mut joined: Vec<TableHandle> = Vec::with_capacity(tables.len());
    for table in tables.drain(..) {
        let touches = |left: &&mut TableHandle| {
            left.file == table.file && left.visible_end.as_deref() == Some(table.visible_start.as_slice())
        };
        match joined.iter_mut().rev().find(touches) {
            Some(left) => {
                left.visible_end = table.visible_end;
                left.entries = left.entries.max(table.entries);
            }
            None => joined.push(table),
        }
    }
    *tables = joined;
}
