//! Which files of a foreign job root may go with a claimed checkpoint: pure.
//!
//! ```text
//!   goes  ⇔  the claimed checkpoint names it, and it is an object of this root that tells its birth,
//!            and no other `_metadata` of the root names it
//!   nothing goes while any metadata cannot be read, or a living claim's metadata is not there
//! ```
//! A checkpoint that another job claimed keeps its `_metadata` until that job deletes it, and a claimant's checkpoints
//! elsewhere name nothing here but files of what it claimed. So what the root's own `_metadata` name is all that
//! anybody may need.

use super::ClaimList;
use crate::{CheckpointId, Metadata, ObjectPath, registry::References};
use keybed_format::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What lies in the folder of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Readable metadata.
    Named(&'a Metadata),
    /// Metadata that is hidden: its claimant is deleting the checkpoint and needs nothing of it.
    Hidden,
    /// Something that cannot be read.
    Unreadable,
}

/// The content of a job root.
#[derive(Debug)]
pub struct RootContent<'a> {
    /// The claimed checkpoint.
    pub claimed: &'a Metadata,
    /// All other checkpoints that were ever published and have not gone.
    pub others: BTreeMap<CheckpointId, Left<'a>>,
    /// The claims.
    pub claims: &'a ClaimList,
    /// Every regular file there whose name is ours.
    pub objects: &'a BTreeSet<ObjectPath>,
}

/// The objects that go with the claimed checkpoint; `None` if nothing may go now.
///
/// # Errors
/// `SnapshotCorrupt` if a reference cannot be meant.
pub fn going(content: &RootContent<'_>) -> Result<Option<BTreeSet<ObjectPath>>> {
    let me = content.claimed.checkpoint;
    let known = |id: CheckpointId| content.others.contains_key(&id);
    let mut others = content.claims.all_live().map(|record| record.checkpoint);
    if others.any(|id| id != me && !known(id)) {
        return Ok(None);
    }
    let mut needed = BTreeSet::new();
    for (id, left) in &content.others {
        match left {
            Left::Unreadable => return Ok(None),
            Left::Hidden => {}
            Left::Named(metadata) => needed.extend(References::of(*id, metadata)?.inside),
        }
    }
    let named = References::of(me, content.claimed)?.inside;
    let goes = |path: &ObjectPath| {
        let deletable =
            matches!(path, ObjectPath::Shared(_) | ObjectPath::Private(..)) && path.birth().is_some();
        deletable && content.objects.contains(path) && !needed.contains(path)
    };
    Ok(Some(named.into_iter().filter(goes).collect()))
}

/// The living claim of another job whose files meet those of `metadata`, if there is one. `others` are the readable
/// checkpoints of the root.
///
/// # Errors
/// `SnapshotCorrupt` if a reference cannot be meant.
pub fn overlapping<'a>(
    metadata: &Metadata,
    claims: &'a ClaimList,
    others: &BTreeMap<CheckpointId, &Metadata>,
    is_mine: impl Fn(&super::Claimant) -> bool,
) -> Result<Option<&'a super::ClaimRecord>> {
    let mine = References::of(metadata.checkpoint, metadata)?.inside;
    for record in claims.all_live().filter(|record| !is_mine(&record.claimant)) {
        let theirs = match others.get(&record.checkpoint) {
            Some(other) => References::of(record.checkpoint, other)?.inside,
            None => BTreeSet::new(),
        };
        if record.checkpoint == metadata.checkpoint || !mine.is_disjoint(&theirs) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Anchor, FileHandle, Folder, TableHandle,
        claim::{ClaimState, record::tests::record},
        metadata::sample,
    };
    use proptest::{collection::vec, prelude::*};

    /// A checkpoint that names these files: below 10 shared ones, below 20 task-owned, others private.
    fn checkpoint(id: u64, files: &[u8]) -> Metadata {
        let mut metadata = sample::metadata();
        metadata.checkpoint = CheckpointId(id);
        let tables = files.iter().map(|n| TableHandle {
            file: file(*n),
            ..sample::table(*n)
        });
        let keyed = metadata.operators[0].subtasks[1].keyed.as_mut().unwrap();
        keyed.families[0].runs.truncate(1);
        keyed.families[0].runs[0].tables = tables.collect();
        metadata
    }

    fn file(n: u8) -> FileHandle {
        let file = sample::file(n);
        match n {
            0..10 => file,
            10..20 => FileHandle {
                folder: Folder::TaskOwned,
                ..file
            },
            20..30 => FileHandle {
                anchor: Anchor::External(1),
                ..file
            },
            _ => FileHandle {
                anchor: Anchor::SelfDir,
                folder: Folder::Private,
                ..file
            },
        }
    }

    /// Where a file of a checkpoint lies, in words; nothing of the code under test.
    fn place(of: u64, n: u8) -> Option<String> {
        let object = sample::file(n).object;
        match n {
            0..10 => Some(format!("shared/{object}")),
            10..20 => Some(format!("taskowned/{object}")),
            20..30 => None,
            _ => Some(format!("chk-{of}/{object}")),
        }
    }

    #[derive(Clone, Debug)]
    enum Kind {
        Named,
        Hidden,
        Unreadable,
        Missing,
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            8 => Just(Kind::Named),
            2 => Just(Kind::Hidden),
            1 => Just(Kind::Unreadable),
            1 => Just(Kind::Missing),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_is_what_a_walk_over_all_names_finds_unneeded(
            claimed in vec(0_u8..40, 0..8),
            others in vec((vec(0_u8..40, 0..6), kind(), any::<bool>()), 0..5),
            absent in vec(0_u8..40, 0..4),
        ) {
            const CLAIMED: u64 = 100;
            let metadata = checkpoint(CLAIMED, &claimed);
            let checkpoints: Vec<(u64, Metadata)> =
                (1..).zip(&others).map(|(id, (files, ..))| (id, checkpoint(id, files))).collect();
            let mut claims = ClaimList::none(crate::JobId(1), crate::RootId(2));
            claims = claims.next(record(CLAIMED, 9), ClaimState::Live);
            let mut left = BTreeMap::new();
            for ((id, metadata), (_, kind, is_claimed)) in checkpoints.iter().zip(&others) {
                if *is_claimed {
                    claims = claims.next(record(*id, u128::from(*id)), ClaimState::Live);
                }
                let found = match kind {
                    Kind::Named => Left::Named(metadata),
                    Kind::Hidden => Left::Hidden,
                    Kind::Unreadable => Left::Unreadable,
                    Kind::Missing => continue,
                };
                left.insert(CheckpointId(*id), found);
            }
            // What lies there: everything that anybody names, but for some files; and strangers.
            let ids = checkpoints.iter().map(|(id, _)| *id).chain([CLAIMED]);
            let all = ids.flat_map(|id| (0..40).map(move |n| (id, n)));
            let mut objects = BTreeSet::new();
            for (id, n) in all.filter(|(_, n)| !absent.contains(n)) {
                objects.extend(ObjectPath::of_handle(CheckpointId(id), &file(n)).ok());
            }
            let content = RootContent { claimed: &metadata, others: left, claims: &claims, objects: &objects };
            let found = going(&content).unwrap();

            // The model: by words alone.
            let blocked = others.iter().any(|(_, kind, is_claimed)| {
                matches!(kind, Kind::Unreadable) || (matches!(kind, Kind::Missing) && *is_claimed)
            });
            let mut expected = BTreeSet::new();
            for n in claimed.iter().filter(|n| !absent.contains(n)) {
                let Some(name) = place(CLAIMED, *n) else { continue };
                let needed = (1..).zip(&others).any(|(id, (files, kind, _))| {
                    matches!(kind, Kind::Named) && files.iter().any(|m| place(id, *m).as_ref() == Some(&name))
                });
                if !needed && !name.starts_with("taskowned/") {
                    expected.insert(name);
                }
            }
            let words = found.map(|paths| paths.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
            prop_assert_eq!(words, (!blocked).then_some(expected));
        }

        #[test]
        fn claims_overlap_exactly_if_a_shared_file_is_named_twice(
            mine in vec(0_u8..40, 0..4),
            theirs in vec((vec(0_u8..40, 0..4), any::<bool>()), 0..4),
        ) {
            let metadata = checkpoint(100, &mine);
            let others: Vec<Metadata> = (1..).zip(&theirs).map(|(id, (files, _))| checkpoint(id, files)).collect();
            let by_id = others.iter().map(|m| (m.checkpoint, m)).collect();
            let mut claims = ClaimList::none(crate::JobId(1), crate::RootId(2));
            for (id, (_, live)) in (1..).zip(&theirs) {
                let state = if *live { ClaimState::Live } else { ClaimState::Released };
                claims = claims.next(record(id, 7), state);
            }
            let found = overlapping(&metadata, &claims, &by_id, |_| false).unwrap();
            let shared = |n: &u8| *n < 20;
            let expected = theirs.iter().any(|(files, live)| *live && files.iter().any(|n| shared(n) && mine.contains(n)));
            prop_assert_eq!(found.is_some(), expected);
            prop_assert!(overlapping(&metadata, &claims, &by_id, |_| true).unwrap().is_none());
        }
    }

    #[test]
    fn a_name_that_tells_no_birth_never_goes() {
        let mut metadata = checkpoint(100, &[1]);
        let odd = crate::ObjectName::new("table").unwrap();
        metadata.files_mut().for_each(|file| file.object = odd.clone());
        let objects = BTreeSet::from([ObjectPath::Shared(odd)]);
        let claims = ClaimList::none(crate::JobId(1), crate::RootId(2));
        let others = BTreeMap::new();
        let content = RootContent {
            claimed: &metadata,
            others,
            claims: &claims,
            objects: &objects,
        };
        assert_eq!(going(&content).unwrap(), Some(BTreeSet::new()));
    }
}
