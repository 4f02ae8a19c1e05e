//! If this fails, a job that claimed a savepoint deletes it too early, never, or more than it; or is robbed of it.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{
    Anchor, CheckpointId, ClaimMode, ClaimRecord, JobId, SavepointTarget, SnapshotKind, claim::Removed,
    savepoint::Disposal,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);
const OTHER: JobId = JobId(0xee);

/// A savepoint of a job that is gone.
fn disk() -> (SimFs, Arc<dyn Fs>, PathBuf) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let path = job
        .savepoint(&SavepointTarget::new(fs.clone(), "/sp"), 41)
        .unwrap();
    drop(job);
    (sim, fs, path)
}

fn names(fs: &SimFs, directory: &Path) -> Vec<String> {
    let entries = fs.list(directory).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn new_root() -> PathBuf {
    Path::new(CHECKPOINTS).join(NEW.to_string())
}

#[test]
fn the_first_checkpoint_links_what_it_keeps_and_the_savepoint_goes_when_it_is_subsumed() {
    let (sim, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 2).unwrap();
    let marker = ClaimRecord::decode(&fs.read(&path.join("CLAIMED"), 1 << 16).unwrap()).unwrap();
    assert_eq!(
        (marker.claimant.job, marker.claimant.root),
        (NEW, job.root.root())
    );
    assert_eq!(marker.claimant.path, new_root().display().to_string());
    assert_eq!(marker.checkpoint, CheckpointId(41));
    assert!(job.root.depends_on_source());

    // Incremental: nothing is written again, and no byte twice.
    let first = job.checkpoint(0, 100).unwrap();
    assert_eq!(first, CheckpointId(42), "the restored id feeds the counter");
    assert!(job.tables.iter().all(|table| table.file.anchor == Anchor::Root));
    assert!(!job.root.depends_on_source());
    let report = job.root.cleanup();
    assert!(report.error.is_none() && report.source.is_none(), "{report:?}");
    check_snapshot(&fs, &path).unwrap();

    job.checkpoint(1, 100).unwrap();
    let report = job.root.cleanup();
    assert_eq!(report.source, Some(Removed::Gone), "{report:?}");
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(sim.facts(&path).unwrap(), None);
    assert!(
        sim.facts(Path::new("/sp")).unwrap().is_some(),
        "its target is the user's"
    );
    let again = job.root.cleanup();
    assert_eq!(
        (again.objects, again.checkpoints.len(), again.source),
        (0, 0, None)
    );
    for id in job.root.completed() {
        check_snapshot(&fs, &new_root().join(format!("chk-{id}"))).unwrap();
    }
}

#[test]
fn a_file_is_linked_once_however_often_it_is_adopted_and_again_if_its_checkpoint_failed() {
    let (sim, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    let source = job.tables[0].file.clone();
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let put = job.root.put_files(id);
    let own = put.adopt(&source).unwrap();
    assert_eq!(put.adopt(&source).unwrap(), own);
    assert_eq!(
        (own.content, own.digest, own.length),
        (source.content, source.digest, source.length)
    );
    assert_ne!(own.object, source.object);
    assert_eq!(put.adopt(&own).unwrap(), own);
    job.root.abort(id);
    assert_eq!(put.adopt(&source).unwrap_err().code(), Code::CheckpointDeclined);
    // The next one may use what the failed one linked.
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    assert_eq!(job.root.put_files(id).adopt(&source).unwrap(), own);
    job.root.abort(id);
    // One that completes without it leaves it to the sweep, and the file is linked anew.
    let tables = std::mem::take(&mut job.tables);
    job.checkpoint(1, 1).unwrap();
    job.root.retain_none();
    job.root.cleanup();
    job.tables = tables;
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let anew = job.root.put_files(id).adopt(&source).unwrap();
    assert_ne!(anew.object, own.object);
    assert_eq!(names(&sim, &new_root().join("shared")), [anew.object.to_string()]);
}

#[test]
fn a_second_claimer_is_refused_and_the_same_job_resumes() {
    let (_, fs, path) = disk();
    let job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    let error = start_from(&fs, OTHER, &path, ClaimMode::Claim, 1).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther);
    assert!(error.fields().contains(&("owner", NEW.to_string())), "{error}");
    assert!(error.fields().iter().any(|(name, _)| *name == "since"), "{error}");
    // Others may read it.
    start_from(&fs, OTHER, &path, ClaimMode::NoClaim, 1).unwrap();
    drop(job);
    // Killed before its first checkpoint: the claim waits for it, and nothing goes on from nothing.
    let error = resume_job(&fs, NEW, 1, 2).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete, "{error}");
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    job.checkpoint(0, 100).unwrap();
    drop(job);
    // Killed before the cleanup: the next owner finds the claim.
    let job = resume_job(&fs, NEW, 1, 3).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert_eq!(fs.facts(&path).unwrap(), None);
}

#[test]
fn it_never_goes_by_the_end_of_the_job() {
    let (_, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 2).unwrap();
    let last = job.checkpoint(1, 100).unwrap();
    job.root.finish(Some(last), 1).unwrap();
    job.root.retain_none();
    let report = job.root.cleanup();
    assert_eq!((report.checkpoints.len(), report.source), (1, None));
    check_snapshot(&fs, &path).unwrap();
    // Nobody else gets it until it is given back.
    start_from(&fs, OTHER, &path, ClaimMode::Claim, 1).unwrap_err();
    job.root.release_source().unwrap();
    assert!(job.root.claim().is_none());
    start_from(&fs, OTHER, &path, ClaimMode::Claim, 1).unwrap();
}

#[test]
fn a_claimed_savepoint_cannot_be_disposed_of_and_what_is_not_its_own_stays() {
    let (sim, fs, path) = disk();
    sim.create(&path.join("notes.txt"))
        .unwrap()
        .append(b"mine")
        .unwrap();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    let error = Disposal::plan(fs.clone(), &path).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotClaimedByOther);
    job.checkpoint(1, 100).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert_eq!(names(&sim, &path), ["notes.txt"]);
}

#[test]
fn what_was_put_in_its_place_stays() {
    let (sim, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    job.checkpoint(1, 100).unwrap();
    // Another savepoint under the claimed name.
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 1, 7).unwrap());
    let other = old
        .savepoint(&SavepointTarget::new(fs.clone(), "/sp2"), 50)
        .unwrap();
    sim.rename(&other.join("_metadata"), &path.join("_metadata"))
        .unwrap();
    let before = names(&sim, &path);
    let report = job.root.cleanup();
    assert_eq!(report.source, Some(Removed::Kept), "{report:?}");
    assert_eq!(names(&sim, &path), before);
}

#[test]
fn files_that_nothing_refers_to_go_with_it() {
    // Canonical savepoints, and a full first checkpoint: everything is written anew.
    let (_, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    job.tables.clear();
    job.checkpoint(2, 100).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert_eq!(fs.facts(&path).unwrap(), None);
}

#[test]
fn a_reader_keeps_it() {
    let (_, fs, path) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    let reading = job.root.open_source().unwrap().unwrap();
    job.checkpoint(1, 100).unwrap();
    assert_eq!(job.root.cleanup().source, None);
    keybed_snapshot::verify(reading.snapshot().metadata(), &reading)
        .verdict()
        .unwrap();
    drop(reading);
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
}

#[test]
fn a_root_that_is_removed_gives_back_what_it_claimed() {
    let (_, fs, path) = disk();
    let job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
    drop(job);
    let report = keybed_snapshot::gc::retire(&fs, &new_root()).unwrap().execute();
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(fs.facts(&new_root()).unwrap(), None);
    check_snapshot(&fs, &path).unwrap();
    start_from(&fs, OTHER, &path, ClaimMode::Claim, 1).unwrap();
}
