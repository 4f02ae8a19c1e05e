//! What a backend makes of its handles: one checked stack of runs per family.
//!
//! Handles of several old subtasks become one by [`merge`], which is metadata alone: nothing is rewritten. What comes
//! out is checked, because handles come from outside: known families, no key in two tables of one run, one file to one
//! content, seqnos that leave room.

use crate::StateFamily;
use keybed_format::{Code, Error, Result};
use keybed_lsm::key::SEQNO_MAX;
use keybed_snapshot::{
    Anchor, FamilyHandle, KeyGroupRange, KeyedHandle, RunHandle, TableHandle,
    rescale::{clip, merge},
};
use std::collections::BTreeMap;

/// Largest next seqno that is taken from a snapshot: half of all there are, which no store lives to use up, so that
/// the other half is left for what is written from now on.
const NEXT_SEQNO_MAX: u64 = SEQNO_MAX / 2;

/// What the handles of one subtask hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Families in the order of [`StateFamily::ALL`]; without runs if empty.
    pub(crate) families: [Vec<RunHandle>; 4],
    /// Above every seqno of all tables, at least 1.
    pub(crate) next_seqno: u64,
}

impl Runs {
    /// The runs of `handles`, clipped to `range`.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a family is unknown, views of one run overlap, two files claim to be one content, or the
    /// next seqno is impossible.
    pub(crate) fn combine(handles: &[KeyedHandle], range: KeyGroupRange) -> Result<Self> {
        let part = |handle: &KeyedHandle| Some(clip(handle, handle.range.intersection(range)?));
        let parts: Vec<_> = handles.iter().filter_map(part).collect();
        let mut runs = Runs {
            next_seqno: 1,
            ..Runs::default()
        };
        if let Some(merged) = merge(&parts, range) {
            runs.next_seqno = merged.next_seqno.max(1);
            for family in merged.families {
                family.runs.iter().try_for_each(check_disjoint)?;
                let stack = &mut runs.families[StateFamily::named(&family.name)?.index()];
                if !std::mem::replace(stack, family.runs).is_empty() {
                    return Err(Error::new(Code::SnapshotCorrupt, "a family occurs twice")
                        .with("family", family.name));
                }
            }
        }
        if runs.next_seqno > NEXT_SEQNO_MAX {
            return Err(Error::new(Code::SnapshotCorrupt, "the next seqno is impossible")
                .expected_found(format_args!("at most {NEXT_SEQNO_MAX}"), runs.next_seqno));
        }
        check_contents(&runs)?;
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

/// Local files and cached blocks are found by content, so one content must be one sequence of bytes.
fn check_contents(runs: &Runs) -> Result {
    let mut known = BTreeMap::new();
    for file in runs.tables().map(|table| &table.file) {
        let facts = (file.length, file.digest);
        if *known.entry(file.content).or_insert(facts) != facts {
            return Err(Error::new(
                Code::SnapshotCorrupt,
                "two files of one content have different lengths or digests",
            )
            .in_file(file.object.as_str()));
        }
    }
    Ok(())
}

/// Tables of a run come in key order and show disjoint ranges.
fn check_disjoint(run: &RunHandle) -> Result {
    for pair in run.tables.windows(2) {
        let [low, high] = pair else { continue };
        if low
            .visible_end
            .as_ref()
            .is_none_or(|end| *end > high.visible_start)
        {
            return Err(
                Error::new(Code::SnapshotCorrupt, "two tables of one run show the same keys")
                    .in_file(high.file.object.as_str())
                    .with("other", &low.file.object),
            );
        }
    }
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
