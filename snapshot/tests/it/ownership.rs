//! If this fails, two processes write one root, or a stale one destroys or replaces what a newer one keeps.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{
    Candidate, CandidateStanding, CheckpointId, Generation, Metadata, RestoreSource, SnapshotKind, verify,
};
use std::{path::Path, sync::Arc};

fn sim() -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    (sim.clone(), Arc::new(sim))
}

/// A second process on the same root, as on a medium whose locks do not work: the lock file is taken away.
fn second_process(sim: &SimFs) -> Arc<dyn Fs> {
    sim.remove_file(&job_root().join("LOCK")).unwrap();
    Arc::new(sim.process())
}

#[test]
fn a_living_owner_is_never_displaced() {
    let (sim, fs) = sim();
    let root = resume(&fs, 1, 1).unwrap();
    let other: Arc<dyn Fs> = Arc::new(sim.process());
    let error = open(&other).unwrap_err();
    assert_eq!(error.code(), Code::Locked);
    assert!(
        error.fields().contains(&("pid", sim.pid().to_string())),
        "{error}"
    );
    drop(root);
    assert_eq!(resume(&other, 1, 2).unwrap().generation(), Generation(2));
}

#[test]
fn a_stale_owner_can_neither_publish_nor_delete() {
    let (sim, fs) = sim();
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    old.checkpoint(2, 100).unwrap();
    let pending = old.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = old.fill(pending, 1, 1).unwrap();

    let fs = second_process(&sim);
    let mut new = TinyJob::new(fs.clone(), resume(&fs, 1, 2).unwrap());
    assert_eq!(new.root.restored(), &RestoreSource::Checkpoint(CheckpointId(1)));
    let id = new.checkpoint(1, 100).unwrap();
    assert_eq!(
        id,
        CheckpointId(3),
        "the id that the old owner had taken is not used again"
    );
    new.root.cleanup();
    let before = sim.tree();

    assert_eq!(old.root.publish(&metadata).unwrap_err().code(), Code::Fenced);
    assert_eq!(
        old.root.allocate(SnapshotKind::Checkpoint, 5).unwrap_err().code(),
        Code::Fenced
    );
    assert_eq!(old.root.finish(None, 5).unwrap_err().code(), Code::Fenced);
    old.root.retain_none();
    let report = old.root.cleanup();
    assert_eq!(report.error.unwrap().code(), Code::Fenced);
    assert_eq!((report.checkpoints.len(), report.objects), (0, 0));
    assert_eq!(sim.tree(), before, "a stale owner changed something");
}

#[test]
fn a_checkpoint_published_by_a_paused_owner_is_void() {
    let (sim, fs) = sim();
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    for _ in 1..=7 {
        old.checkpoint(1, 100).unwrap();
    }
    old.root.cleanup();
    // The old owner is paused before it allots 8; the new one completes 8 and 9.
    let fs = second_process(&sim);
    let mut new = TinyJob::new(fs.clone(), resume(&fs, 2, 2).unwrap());
    new.tables.clone_from(&old.tables);
    assert_eq!(new.checkpoint(1, 100).unwrap(), CheckpointId(8));
    assert_eq!(new.checkpoint(1, 100).unwrap(), CheckpointId(9));
    // It wakes between the fence and the write: forge what it would have left behind, as number 10.
    let mut forged = old.metadata(CheckpointId(10), old.tables.clone());
    forged.generation = Generation(1);
    let folder = job_root().join("chk-10");
    sim.create_dir(&folder).unwrap();
    let bytes = keybed_snapshot::metadata::encode(&forged).unwrap();
    sim.create(&folder.join("_metadata"))
        .unwrap()
        .append(&bytes)
        .unwrap();
    drop(new);

    let fs = second_process(&sim);
    let opened = open(&fs).unwrap();
    let void = Candidate {
        id: CheckpointId(10),
        standing: CandidateStanding::Void,
    };
    assert_eq!(opened.candidates().first(), Some(&void));
    assert_eq!(opened.latest().unwrap().unwrap().checkpoint, CheckpointId(9));
    assert_eq!(
        opened.checkpoint(CheckpointId(10)).unwrap_err().code(),
        Code::Fenced
    );
    let mut third = TinyJob::new(
        fs.clone(),
        opened.start(options(Some(CheckpointId(9)), 2, 3)).unwrap(),
    );
    let report = third.root.cleanup();
    assert_eq!(report.checkpoints, [6, 7, 10].map(CheckpointId), "{report:?}");
    assert!(
        sim.facts(&folder).unwrap().is_some(),
        "the folder of the highest id stays until a higher one is published"
    );
    assert_eq!(third.checkpoint(1, 100).unwrap(), CheckpointId(11));
    third.root.cleanup();
    assert!(sim.facts(&folder).unwrap().is_none());
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
}

#[test]
fn an_id_is_not_used_again_after_a_crash() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 100).unwrap();
    let lost = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let after: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
    let root = resume(&after, 1, 2).unwrap();
    root.cleanup();
    assert_eq!(
        root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint,
        CheckpointId(lost.0 + 1)
    );
}

#[test]
fn an_older_choice_abandons_the_newer_timeline_and_keeps_it() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for _ in 1..=3 {
        job.checkpoint(1, 100).unwrap();
    }
    drop(job);
    let root = open(&fs)
        .unwrap()
        .start(options(Some(CheckpointId(2)), 1, 2))
        .unwrap();
    root.cleanup();
    assert_eq!(root.completed(), [CheckpointId(2)]);
    let mut job = TinyJob::new(fs.clone(), root);
    job.checkpoint(1, 100).unwrap();
    job.root.cleanup();
    drop(job);
    let opened = open(&fs).unwrap();
    let standings: Vec<_> = opened.candidates().iter().map(|c| (c.id.0, c.standing)).collect();
    assert_eq!(
        standings,
        [
            (4, CandidateStanding::Timeline),
            (3, CandidateStanding::Abandoned)
        ]
    );
    let abandoned = opened.checkpoint(CheckpointId(3)).unwrap();
    let root = opened.start(options(Some(CheckpointId(4)), 1, 3)).unwrap();
    verify(&abandoned, &*root.open_files(CheckpointId(3)))
        .verdict()
        .unwrap();
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
}

#[test]
fn a_finished_job_says_so() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let last = job.checkpoint(1, 100).unwrap();
    let record = job.root.finish(Some(last), 77).unwrap();
    assert_eq!(
        job.root.finish(Some(last), 99).unwrap(),
        record,
        "again changes nothing"
    );
    job.root.retain_none();
    job.root.cleanup();
    drop(job);
    let opened = open(&fs).unwrap();
    assert_eq!(opened.finished(), Some(&record));
    assert_eq!(kept(&sim.tree()).len(), 0, "its own checkpoints are gone");
}

#[test]
fn a_savepoint_is_not_put_where_retention_would_delete_it() {
    let (_, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    for kind in [SnapshotKind::NativeSavepoint, SnapshotKind::CanonicalSavepoint] {
        let id = job.root.allocate(kind, 5).unwrap().checkpoint;
        let metadata = Metadata {
            kind,
            ..job.fill(id, 1, 1).unwrap()
        };
        let error = job.root.publish(&metadata).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}
