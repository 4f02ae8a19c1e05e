//! After many checkpoints the checkpoint root holds what the retained ones need, and nothing else.

use crate::{
    fold,
    place::{Place, Run, listing, signal},
};
use keybed::snapshot::{Anchor, Folder, metadata::decode};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every file that the retained checkpoints need, walked from their `_metadata` alone.
fn walk(job_root: &Path) -> (BTreeSet<PathBuf>, usize) {
    let mut needed = BTreeSet::new();
    let mut checkpoints = 0;
    for file in listing(job_root).into_iter().filter(|f| f.ends_with("_metadata")) {
        checkpoints += 1;
        let bytes = fs::read(job_root.join(&file)).unwrap();
        let metadata = decode(&bytes).unwrap();
        let dir = file.parent().unwrap().to_path_buf();
        for handle in metadata.files() {
            let anchor = match handle.anchor {
                Anchor::SelfDir => dir.clone(),
                Anchor::Root => PathBuf::new(),
                Anchor::External(id) => panic!("a job that was never restored elsewhere needs place {id}"),
            };
            let folder = match handle.folder {
                Folder::Private => anchor,
                Folder::Shared => anchor.join("shared"),
                Folder::TaskOwned => anchor.join("taskowned"),
            };
            needed.insert(folder.join(handle.object.as_str()));
        }
        needed.insert(file);
    }
    (needed, checkpoints)
}

/// Records of the root itself: who owns it, whether its job finished.
fn is_record_of_the_root(file: &Path) -> bool {
    file.starts_with("owner") || file.components().count() == 1
}

#[test]
fn after_fifty_checkpoints_with_retention_three_nothing_is_left_over_or_missing() {
    // Old checkpoints would fill the disk, or a file that a retained one needs would be deleted.
    let place = Place::new();
    let words = [
        "--throttle",
        "20000",
        "--checkpoint-interval",
        "50ms",
        "--memtable",
        "256KiB",
        "--retain",
        "3",
    ];
    let mut child = place.flights(&words).spawn().unwrap();
    place.wait_for(&mut child, "fifty checkpoints", |events| {
        events.iter().filter(|e| e["event"] == "completed").count() >= 50
    });
    signal(&child, "INT");
    let stopped = Run::of(child.wait_with_output().unwrap());
    assert_eq!(stopped.status, 1, "{}{}", stopped.stdout, stopped.stderr);

    let root = place.job_root();
    let (needed, checkpoints) = walk(&root);
    let found: BTreeSet<PathBuf> = listing(&root)
        .into_iter()
        .filter(|f| !is_record_of_the_root(f))
        .collect();
    assert_eq!(checkpoints, 3);
    assert!(
        needed.iter().any(|f| f.starts_with("shared")),
        "checkpoints share tables: {needed:?}"
    );
    assert_eq!(found, needed);

    place.run(&["--resume"]).summary();
    place.assert_output(&fold::expected());
}
