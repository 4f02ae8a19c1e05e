//! If this fails, a retained checkpoint lost a file to retention, or the root grows for ever.

use crate::support::*;
use keybed_env::{
    Fs, SimFs,
    fs::{Fault, FaultFs, FaultPlan},
};
use keybed_snapshot::{CheckpointId, Scope, SnapshotKind, verify};
use std::{path::Path, sync::Arc};

fn sim() -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    (sim.clone(), Arc::new(sim))
}

fn folders(sim: &SimFs) -> Vec<String> {
    let names = sim.list(&job_root()).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.starts_with("chk-")).collect()
}

#[test]
fn after_50_checkpoints_the_root_holds_what_three_need() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for n in 1..=50 {
        let id = job.checkpoint(2, 7).unwrap();
        assert_eq!(id, CheckpointId(n));
        let report = job.root.cleanup();
        assert!(report.error.is_none(), "{report:?}");
        assert_eq!(kept(&sim.tree()), needed(&sim.tree()), "after checkpoint {n}");
        for id in job.root.completed() {
            verify(&job.root.load(id).unwrap(), &*job.root.open_files(id))
                .verdict()
                .unwrap();
        }
    }
    assert_eq!(folders(&sim), ["chk-48", "chk-49", "chk-50"]);
    assert_eq!(job.root.completed(), [50, 49, 48].map(CheckpointId));
}

#[test]
fn a_chain_outlives_the_checkpoints_that_uploaded_it() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(3, 100).unwrap();
    for _ in 2..=5 {
        job.checkpoint(0, 100).unwrap();
    }
    job.root.cleanup();
    assert_eq!(folders(&sim), ["chk-5"]);
    let latest = job.root.latest().unwrap().unwrap();
    assert!(
        latest
            .files()
            .any(|file| file.object.as_str().starts_with("g1-c1-"))
    );
    let verification = verify(&latest, &*job.root.open_files(CheckpointId(5)));
    verification.verdict().unwrap();
    assert_eq!(verification.files, 4);
}

#[test]
fn what_could_not_be_deleted_before_the_end_is_deleted_after_it() {
    // A checkpoint older than a restore source that is gone would count as of another timeline and stay for ever.
    let (sim, _) = sim();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    for seed in 1..=2 {
        let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, seed).unwrap());
        job.checkpoint(1, 3).unwrap();
        if seed == 1 {
            job.checkpoint(1, 3).unwrap();
            continue;
        }
        faulty.arm(FaultPlan::new(Fault::Eio, 1).on_path(|path| path.ends_with("chk-1/_metadata")));
        assert_eq!(job.root.cleanup().checkpoints, [CheckpointId(2)]);
        faulty.heal();
    }
    let root = resume(&fs, 1, 3).unwrap();
    assert_eq!(root.cleanup().checkpoints, [CheckpointId(1)]);
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
    assert_eq!(folders(&sim), ["chk-3"]);
}

#[test]
fn uploads_of_a_failed_checkpoint_are_reused_or_swept_by_the_next() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 100).unwrap();
    let failed = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let reused = job.put(failed, Scope::Shared).unwrap();
    let lost = job.put(failed, Scope::Shared).unwrap();
    job.root.abort(failed);
    job.root.cleanup();
    assert!(
        kept(&sim.tree())
            .iter()
            .any(|path| path.contains(lost.file.object.as_str())),
        "not before the next"
    );
    job.tables.push(reused);
    job.checkpoint(1, 100).unwrap();
    job.root.cleanup();
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
    assert!(
        !kept(&sim.tree())
            .iter()
            .any(|path| path.contains(lost.file.object.as_str()))
    );
    assert_eq!(folders(&sim), ["chk-3"]);
    // A task that was not told in time is refused instead of publishing a hole.
    job.tables.push(lost);
    let error = job.checkpoint(0, 100).unwrap_err();
    assert_eq!(error.code(), keybed_format::Code::SnapshotIncomplete);
}

#[test]
fn an_upload_for_an_aborted_or_subsumed_checkpoint_is_declined() {
    let (_, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let first = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let second = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = job.fill(second, 1, 9).unwrap();
    assert_eq!(
        job.root.publish(&metadata).unwrap(),
        [first],
        "the older pending one is subsumed"
    );
    let declined = keybed_format::Code::CheckpointDeclined;
    assert_eq!(job.put(first, Scope::Shared).unwrap_err().code(), declined);
    assert_eq!(
        job.root
            .publish(&job.metadata(first, Vec::new()))
            .unwrap_err()
            .code(),
        declined
    );
}

#[test]
fn what_is_being_read_is_not_deleted() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let first = job.checkpoint(2, 100).unwrap();
    let reading = job.root.open_files(first);
    let metadata = job.root.load(first).unwrap();
    job.tables.clear();
    job.checkpoint(2, 100).unwrap();
    job.root.cleanup();
    verify(&metadata, &*reading).verdict().unwrap();
    drop(reading);
    job.root.cleanup();
    assert_eq!(folders(&sim), ["chk-2"]);
    assert_eq!(kept(&sim.tree()), needed(&sim.tree()));
}

#[test]
fn foreign_names_are_never_touched() {
    let (sim, fs) = sim();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    job.checkpoint(1, 1).unwrap();
    let foreign = [
        "shared/notes.txt",
        "chk-1/readme",
        "keep.me",
        "shared/g1-c1-short",
        "owner/readme",
    ];
    for name in foreign {
        sim.create(&job_root().join(name)).unwrap();
    }
    for _ in 0..3 {
        job.checkpoint(1, 1).unwrap();
        job.root.cleanup();
    }
    drop(job);
    let opened = open(&fs).unwrap();
    assert_eq!(opened.unknown().len(), foreign.len(), "{:?}", opened.unknown());
    let latest = opened.latest().unwrap().unwrap().checkpoint;
    opened.start(options(Some(latest), 1, 2)).unwrap().cleanup();
    for name in foreign {
        assert!(sim.facts(&job_root().join(name)).unwrap().is_some(), "{name}");
    }
}
