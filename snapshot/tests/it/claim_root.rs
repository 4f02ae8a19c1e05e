//! If this fails, a job that claimed a checkpoint of another destroys its siblings, leaves its files behind, or the
//! other takes back what it no longer owns.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{CheckpointId, ClaimMode, JobId, claim::Removed};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);
const OTHER: JobId = JobId(0xee);

/// Three checkpoints of a job that is gone: 2 and 3 share a table, 1 shares nothing with 3.
fn disk() -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for _ in 0..3 {
        job.checkpoint(1, 2).unwrap();
        job.root.cleanup();
    }
    drop(job);
    (sim, fs)
}

fn chk(id: u64) -> PathBuf {
    job_root().join(format!("chk-{id}"))
}

/// Whatever the old root needs is there, and nothing else.
fn assert_exact(sim: &SimFs) {
    let tree = sim.tree().into_iter();
    let own = job_root();
    let own = own.strip_prefix("/").unwrap();
    let tree = tree.filter(|(path, _)| path.starts_with(own)).collect();
    assert_eq!(kept(&tree), needed(&tree));
}

#[test]
fn a_claimed_checkpoint_goes_with_what_only_it_needs_and_its_siblings_stay() {
    let (sim, fs) = disk();
    let mut job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    assert_eq!(job.checkpoint(1, 100).unwrap(), CheckpointId(4));
    let report = job.root.cleanup();
    assert_eq!(report.source, Some(Removed::Gone), "{report:?}");
    assert_eq!(fs.facts(&chk(3)).unwrap(), None);
    for id in [1, 2] {
        check_snapshot(&fs, &chk(id)).unwrap();
    }
    assert_exact(&sim);
    // The old job resumes, but never from an older one silently, and gives no id twice.
    let error = resume(&fs, 3, 5).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
    let opened = open(&fs).unwrap();
    let root = opened.start(options(Some(CheckpointId(2)), 1, 5)).unwrap();
    let mut old = TinyJob::new(fs.clone(), root);
    assert_eq!(old.checkpoint(1, 2).unwrap(), CheckpointId(4));
    old.root.cleanup();
    drop(old);
    assert_eq!(
        open(&fs).unwrap().latest().unwrap().unwrap().checkpoint,
        CheckpointId(4)
    );
    assert_exact(&sim);
}

#[test]
fn the_old_job_keeps_what_was_claimed_and_cannot_restore_it() {
    let (_, fs) = disk();
    let mut job = start_from(&fs, NEW, &chk(2), ClaimMode::Claim, 2).unwrap();
    // The old job goes on from its newest; the claimed one is older than all that it retains.
    let opened = open(&fs).unwrap();
    assert_eq!(
        opened.checkpoint(CheckpointId(2)).unwrap_err().code(),
        Code::SnapshotClaimedByOther
    );
    drop(opened);
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 1, 5).unwrap());
    for _ in 0..3 {
        old.checkpoint(1, 1).unwrap();
        let report = old.root.cleanup();
        assert!(report.error.is_none(), "{report:?}");
    }
    check_snapshot(&fs, &chk(2)).unwrap();
    // While it works there the claimant waits.
    job.checkpoint(0, 100).unwrap();
    job.checkpoint(0, 100).unwrap();
    let report = job.root.cleanup();
    assert_eq!(
        (report.source, report.error.is_none()),
        (Some(Removed::Busy), true)
    );
    check_snapshot(&fs, &chk(2)).unwrap();
    old.root.retain_none();
    old.root.cleanup();
    check_snapshot(&fs, &chk(2)).unwrap();
    drop(old);
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert_eq!(fs.facts(&chk(2)).unwrap(), None);
}

#[test]
fn the_newest_checkpoint_of_a_job_is_not_resumed_after_it_was_claimed() {
    let (_, fs) = disk();
    let job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    assert_eq!(
        resume(&fs, 1, 5).unwrap_err().code(),
        Code::SnapshotClaimedByOther
    );
    job.root.release_source().unwrap();
    drop(job);
    assert_eq!(resume(&fs, 1, 5).unwrap().completed().len(), 3);
}

#[test]
fn claims_whose_files_meet_exclude_each_other() {
    let (_, fs) = disk();
    let job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    let error = start_from(&fs, OTHER, &chk(2), ClaimMode::Claim, 1).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
    assert!(error.fields().contains(&("owner", NEW.to_string())), "{error}");
    drop(job);
}

#[test]
fn claims_that_meet_nowhere_live_side_by_side() {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for _ in 0..2 {
        job.checkpoint(1, 1).unwrap();
    }
    drop(job);
    let mut first = start_from(&fs, NEW, &chk(1), ClaimMode::Claim, 1).unwrap();
    let mut second = start_from(&fs, OTHER, &chk(2), ClaimMode::Claim, 1).unwrap();
    first.checkpoint(0, 100).unwrap();
    assert_eq!(first.root.cleanup().source, Some(Removed::Gone));
    check_snapshot(&fs, &chk(2)).unwrap();
    second.checkpoint(0, 100).unwrap();
    assert_eq!(second.root.cleanup().source, Some(Removed::Gone));
    assert_exact(&sim);
    assert_eq!(
        kept(&sim.tree())
            .iter()
            .filter(|p| p.contains(&job_root().display().to_string()))
            .count(),
        0
    );
}

#[test]
fn records_that_are_missing_or_cannot_be_read_keep_everything_there() {
    for record in ["owner/1", "claims/1"] {
        for missing in [true, false] {
            let (sim, fs) = disk();
            let mut job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
            job.checkpoint(1, 100).unwrap();
            let record = job_root().join(record);
            if missing {
                sim.remove_file(&record).unwrap();
            } else {
                sim.corrupt(&record, |bytes| bytes[60] ^= 1).unwrap();
            }
            let before = sim.tree();
            let report = job.root.cleanup();
            assert!(report.error.is_none(), "{report:?}");
            assert!(
                matches!(report.source, Some(Removed::Kept | Removed::Gone)),
                "{report:?}"
            );
            let old = job_root();
            let old = old.strip_prefix("/").unwrap();
            let there = |tree: std::collections::BTreeMap<PathBuf, Vec<u8>>| {
                tree.into_iter()
                    .filter(|(p, _)| p.starts_with(old) && !p.ends_with("LOCK"))
                    .collect::<Vec<_>>()
            };
            assert_eq!(there(sim.tree()), there(before));
        }
    }
}

#[test]
fn unreadable_metadata_in_the_root_keeps_everything_there() {
    let (sim, fs) = disk();
    let mut job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    job.checkpoint(1, 100).unwrap();
    sim.truncate(&chk(1).join("_metadata"), 10).unwrap();
    let report = job.root.cleanup();
    assert_eq!(report.source, Some(Removed::Kept), "{report:?}");
    check_snapshot(&fs, &chk(3)).unwrap();
}

#[test]
fn a_root_in_which_something_is_claimed_is_not_removed() {
    let (sim, fs) = disk();
    let mut job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    let error = keybed_snapshot::gc::retire(&fs, &job_root()).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
    job.checkpoint(1, 100).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    let report = keybed_snapshot::gc::retire(&fs, &job_root()).unwrap().execute();
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(sim.facts(&job_root()).unwrap(), None);
}

#[test]
fn a_sweep_without_an_owner_keeps_what_was_claimed() {
    let (_, fs) = disk();
    let _job = start_from(&fs, NEW, &chk(2), ClaimMode::Claim, 1).unwrap();
    let storage = Arc::new(keybed_snapshot::LocalStorage::at(fs.clone(), job_root()));
    let report = keybed_snapshot::gc::gc(storage, &Default::default()).unwrap();
    assert!(report.error.is_none() && report.left.is_empty(), "{report:?}");
    check_snapshot(&fs, &chk(2)).unwrap();
}

#[test]
fn a_job_that_went_on_from_a_checkpoint_is_told_that_it_was_claimed_though_higher_ones_were_too() {
    let (_, fs) = disk();
    // It goes on from the first, and nothing completes; the third and the first go with claimants, in this order.
    drop(
        open(&fs)
            .unwrap()
            .start(options(Some(CheckpointId(1)), 3, 5))
            .unwrap(),
    );
    for (claimed, claimer) in [(3, NEW), (1, OTHER)] {
        let mut job = start_from(&fs, claimer, &chk(claimed), ClaimMode::Claim, 1).unwrap();
        job.checkpoint(0, 100).unwrap();
        assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    }
    let error = open(&fs).unwrap().latest().unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
    assert!(
        error.fields().contains(&("checkpoint", "1".to_string())),
        "{error}"
    );
}

#[test]
fn a_job_that_only_reads_what_another_claimed_is_told_who_deleted_it() {
    let (_, fs) = disk();
    let reader = start_from(&fs, OTHER, &chk(3), ClaimMode::NoClaim, 1).unwrap();
    let mut job = start_from(&fs, NEW, &chk(3), ClaimMode::Claim, 1).unwrap();
    job.checkpoint(0, 100).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    let error = reader.root.open_source().map(drop).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete, "{error}");
    assert!(
        error.fields().contains(&("claimed_by", NEW.to_string())),
        "{error}"
    );
}
