//! Operators of a snapshot under the uids that the program gives them now. Pure.

use keybed_format::{Code, Error};
use keybed_snapshot::{Metadata, OperatorUid};
use std::collections::{BTreeMap, BTreeSet};

/// The snapshot with its operators renamed, all at once: two may swap their names. A rename that is a problem is left
/// out.
pub(super) fn rename(
    metadata: &Metadata,
    renames: &BTreeMap<OperatorUid, OperatorUid>,
) -> (Metadata, Vec<Error>) {
    let mut problems = Vec::new();
    let known: BTreeSet<&OperatorUid> = metadata.operators.iter().map(|o| &o.uid).collect();
    let mut taken: BTreeMap<&OperatorUid, &OperatorUid> = known
        .iter()
        .filter(|uid| !renames.contains_key(**uid))
        .map(|uid| (*uid, *uid))
        .collect();
    let mut good = BTreeMap::new();
    for (old, new) in renames {
        if !known.contains(old) {
            let uids: Vec<_> = known.iter().map(|uid| uid.as_str()).collect();
            problems.push(
                Error::invalid("the snapshot holds no operator of the old uid")
                    .with("uid", old)
                    .with("renamed_to", new)
                    .with("uids", uids.join(", ")),
            );
        } else if let Some(other) = taken.insert(new, old) {
            problems.push(
                Error::new(
                    Code::DuplicateUid,
                    "two operators of the snapshot would carry the same uid",
                )
                .with("uid", new)
                .with("first", other)
                .with("second", old),
            );
        } else {
            good.insert(old, new);
        }
    }
    let mut renamed = metadata.clone();
    for operator in &mut renamed.operators {
        if let Some(new) = good.get(&operator.uid) {
            operator.uid = (*new).clone();
        }
    }
    (renamed, problems)
}

/// Renames to uids that the program does not have.
pub(super) fn unknown_targets<'a>(
    renames: &'a BTreeMap<OperatorUid, OperatorUid>,
    program: &'a BTreeSet<&OperatorUid>,
) -> impl Iterator<Item = Error> + 'a {
    let absent = renames.iter().filter(|(_, new)| !program.contains(new));
    absent.map(|(old, new)| {
        let uids: Vec<_> = program.iter().map(|uid| uid.as_str()).collect();
        Error::invalid("the program has no operator of the new uid")
            .with("uid", new)
            .with("renamed_from", old)
            .with("uids", uids.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_snapshot::{
        CheckpointId, Generation, JobId, OperatorSnapshot, RootId, SnapshotKind, StateCatalogue,
    };

    fn uid(text: &str) -> OperatorUid {
        OperatorUid::new(text).unwrap()
    }

    fn snapshot(uids: &[&str]) -> Metadata {
        let operator = |text: &&str| OperatorSnapshot {
            uid: uid(text),
            parallelism: 1,
            max_parallelism: 128,
            catalogue: StateCatalogue::new(),
            subtasks: Vec::new(),
        };
        Metadata {
            job: JobId(1),
            root: RootId(2),
            generation: Generation(1),
            checkpoint: CheckpointId(3),
            kind: SnapshotKind::NativeSavepoint,
            timestamp_ms: 0,
            externals: Vec::new(),
            operators: uids.iter().map(operator).collect(),
            properties: BTreeMap::new(),
        }
    }

    fn renamed(uids: &[&str], renames: &[(&str, &str)]) -> (Vec<String>, Vec<Code>) {
        let renames = renames.iter().map(|(a, b)| (uid(a), uid(b))).collect();
        let (metadata, problems) = rename(&snapshot(uids), &renames);
        let uids = metadata.operators.iter().map(|o| o.uid.to_string()).collect();
        (uids, problems.iter().map(Error::code).collect())
    }

    #[test]
    fn names_change_all_at_once_and_every_mistake_is_told() {
        let none: Vec<Code> = Vec::new();
        assert_eq!(
            renamed(&["a", "b"], &[("a", "c")]),
            (vec!["c".into(), "b".into()], none.clone())
        );
        assert_eq!(
            renamed(&["a", "b"], &[("a", "b"), ("b", "a")]),
            (vec!["b".into(), "a".into()], none)
        );
        let (_, problems) = renamed(&["a", "b", "c"], &[("a", "x"), ("b", "x"), ("z", "y")]);
        assert_eq!(problems, [Code::DuplicateUid, Code::InvalidArgument]);
        let (uids, problems) = renamed(&["a", "b"], &[("a", "b")]);
        assert_eq!((uids.len(), problems), (2, vec![Code::DuplicateUid]));
        assert_eq!(uids[0], "a");
    }

    #[test]
    fn what_the_program_lacks_cannot_be_renamed_to() {
        let renames = BTreeMap::from([(uid("a"), uid("b")), (uid("c"), uid("d"))]);
        let (b, e) = (uid("b"), uid("e"));
        let program = BTreeSet::from([&b, &e]);
        let absent: Vec<_> = unknown_targets(&renames, &program).collect();
        assert_eq!(absent.len(), 1);
        assert!(absent[0].to_string().contains("renamed_from c"), "{absent:?}");
    }
}
