//! Several handles of keyed state as one stack of runs: rescale without rewriting.
//!
//! ```text
//!   old subtask 0      old subtask 1            restored subtask
//!   run  newest        run  newest              run   newest of 0
//!   run                run  bottom      ──▶     run   second of 0 │ newest of 1
//!   run  bottom                                 run   bottom of 0 │ bottom of 1
//! ```
//! Old subtasks own disjoint key groups, so their runs never hold versions of one key: they are aligned from the
//! bottom and laid side by side. Adjacent views of one file become one view again.

use crate::StateFamily;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{Anchor, FamilyHandle, KeyGroupRange, KeyedHandle, RunHandle, TableHandle};

/// What the handles of one subtask hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Families in the order of [`StateFamily::ALL`]; without runs if empty.
    pub(crate) families: [Vec<RunHandle>; 4],
    /// Above every seqno of all tables, at least 1.
    pub(crate) next_seqno: u64,
}

impl Runs {
    /// Lays the runs of `handles` side by side, clipped to `range`.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a family is unknown or views of one run overlap.
    pub(crate) fn combine(handles: &[KeyedHandle], range: KeyGroupRange) -> Result<Self> {
        let mut runs = Runs {
            next_seqno: 1,
            ..Runs::default()
        };
        for handle in handles {
            runs.next_seqno = runs.next_seqno.max(handle.next_seqno);
            for family in &handle.families {
                let stack = &mut runs.families[StateFamily::named(&family.name)?.index()];
                lay_beside(stack, &family.runs, range);
            }
        }
        for stack in &mut runs.families {
            stack.retain(|run| !run.tables.is_empty());
            for run in stack {
                join_adjacent(run)?;
            }
        }
        Ok(runs)
    }

    /// The families that hold something, as a handle names them.
    pub(crate) fn handles(self) -> Vec<FamilyHandle> {
        let named = StateFamily::ALL.into_iter().zip(self.families);
        named
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(family, runs)| FamilyHandle {
                name: family.name().into(),
                runs,
            })
            .collect()
    }

    /// Whether later checkpoints may reference the files: none lies in the directory of a snapshot of its own.
    pub(crate) fn may_be_carried_on(&self) -> bool {
        self.tables().all(|table| table.file.anchor != Anchor::SelfDir)
    }

    /// All tables; a file seen through several views comes several times.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &TableHandle> {
        self.families.iter().flatten().flat_map(|run| &run.tables)
    }
}

/// Adds `runs` (newest first) to `stack`, both aligned at their bottoms.
fn lay_beside(stack: &mut Vec<RunHandle>, runs: &[RunHandle], range: KeyGroupRange) {
    while stack.len() < runs.len() {
        stack.insert(0, RunHandle::default());
    }
    for (to, from) in stack.iter_mut().rev().zip(runs.iter().rev()) {
        to.tier = to.tier.max(from.tier);
        to.tables.extend(
            from.tables
                .iter()
                .map(|table| clip(table, range))
                .filter(|table| !table.is_empty()),
        );
    }
}

fn clip(table: &TableHandle, range: KeyGroupRange) -> TableHandle {
    let (start, end) = (range.start_key(), range.end_key());
    let mut clipped = table.clone();
    if clipped.visible_start.as_slice() < &start[..] {
        clipped.visible_start = start.to_vec();
    }
    if clipped
        .visible_end
        .as_deref()
        .is_none_or(|visible| visible > &end[..])
    {
        clipped.visible_end = Some(end.to_vec());
    }
    clipped
}

/// Sorts the tables of a run, joins adjacent views of one object, and checks that no views overlap.
fn join_adjacent(run: &mut RunHandle) -> Result {
    run.tables.sort_by(|a, b| a.visible_start.cmp(&b.visible_start));
    let mut joined: Vec<TableHandle> = Vec::with_capacity(run.tables.len());
    for table in run.tables.drain(..) {
        let Some(last) = joined.last_mut() else {
            joined.push(table);
            continue;
        };
        match &last.visible_end {
            Some(end) if *end < table.visible_start => joined.push(table),
            Some(end) if *end == table.visible_start && last.file == table.file => {
                last.visible_end = table.visible_end;
            }
            Some(end) if *end == table.visible_start => joined.push(table),
            _ => {
                return Err(
                    Error::new(Code::SnapshotCorrupt, "two tables of one run show the same keys")
                        .in_file(table.file.object.as_str())
                        .with("other", &last.file.object),
                );
            }
        }
    }
    run.tables = joined;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_snapshot::{BackendKind, FileHandle, Folder, ObjectName};

    fn view(content: u128, first: u8, last: u8) -> TableHandle {
        let object = ObjectName::new(format!("object-{content}")).unwrap();
        let (anchor, folder) = (Anchor::Root, Folder::Shared);
        let file = FileHandle {
            content,
            anchor,
            folder,
            object,
            offset: 0,
            length: 1,
            digest: 0,
        };
        TableHandle {
            file,
            visible_start: vec![0, first],
            visible_end: Some(vec![0, last + 1]),
            entries: 1,
        }
    }

    fn handle(first: u8, last: u8, runs: &[&[TableHandle]]) -> KeyedHandle {
        let runs = runs
            .iter()
            .map(|tables| RunHandle {
                tier: 0,
                tables: tables.to_vec(),
            })
            .collect();
        KeyedHandle {
            range: KeyGroupRange::new(first.into(), last.into()).unwrap(),
            backend: BackendKind::Lsm,
            next_seqno: u64::from(last) + 2,
            families: vec![FamilyHandle {
                name: "point".into(),
                runs,
            }],
        }
    }

    fn contents(runs: &Runs) -> Vec<Vec<u128>> {
        runs.families[0]
            .iter()
            .map(|run| run.tables.iter().map(|t| t.file.content).collect())
            .collect()
    }

    #[test]
    fn runs_are_aligned_at_the_bottom() {
        let low = handle(
            0,
            3,
            &[
                &[view(1, 0, 3)],
                &[view(2, 0, 3)],
                &[view(3, 0, 1), view(4, 2, 3)],
            ],
        );
        let high = handle(4, 7, &[&[view(5, 4, 7)], &[view(6, 4, 7)]]);
        let runs = Runs::combine(&[high, low], KeyGroupRange::new(0, 7).unwrap()).unwrap();
        assert_eq!(contents(&runs), [vec![1], vec![2, 5], vec![3, 4, 6]]);
        assert_eq!(runs.next_seqno, 9);
    }

    #[test]
    fn what_lies_outside_is_clipped_and_halves_are_joined() {
        let whole = handle(0, 7, &[&[view(1, 0, 7)], &[view(2, 0, 2), view(3, 3, 7)]]);
        let clipped = |first, last| {
            Runs::combine(
                std::slice::from_ref(&whole),
                KeyGroupRange::new(first, last).unwrap(),
            )
            .unwrap()
        };
        let (low, high) = (clipped(0, 4), clipped(5, 7));
        assert_eq!(contents(&low), [vec![1], vec![2, 3]]);
        assert_eq!(contents(&high), [vec![1], vec![3]]);
        let halves = [(0, 4, low), (5, 7, high)].map(|(first, last, runs)| KeyedHandle {
            range: KeyGroupRange::new(first, last).unwrap(),
            families: runs.handles(),
            ..whole.clone()
        });
        let again = Runs::combine(&halves, whole.range).unwrap();
        assert_eq!(again.handles(), whole.families);
    }

    #[test]
    fn overlapping_views_are_corruption() {
        let handles = [
            handle(0, 3, &[&[view(1, 0, 3)]]),
            handle(0, 3, &[&[view(2, 2, 3)]]),
        ];
        let error = Runs::combine(&handles, KeyGroupRange::new(0, 3).unwrap()).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotCorrupt);
    }
}
