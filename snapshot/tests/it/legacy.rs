//! If this fails, a LEGACY restore changes the snapshot, a NO_CLAIM one refers to it, or a user is told that a snapshot
//! may be deleted that is still needed.

use crate::support::*;
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{Anchor, ClaimMode, JobId, SavepointTarget, SnapshotDir, SnapshotKind};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);

fn disk() -> (SimFs, Arc<dyn Fs>, PathBuf, PathBuf) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    let id = job.checkpoint(2, 100).unwrap();
    let path = job
        .savepoint(&SavepointTarget::new(fs.clone(), "/sp"), 41)
        .unwrap();
    (sim, fs, path, job_root().join(format!("chk-{id}")))
}

#[test]
fn a_legacy_restore_refers_to_the_snapshot_and_never_changes_it() {
    for checkpoint in [false, true] {
        let (sim, fs, savepoint, chk) = disk();
        let path = if checkpoint { chk } else { savepoint };
        let content = |sim: &SimFs| {
            let own = Path::new(CHECKPOINTS).join(NEW.to_string());
            let own = own.strip_prefix("/").unwrap().to_path_buf();
            let ours = move |p: &PathBuf| p.starts_with(&own) || p.starts_with("work");
            sim.tree()
                .into_iter()
                .filter(|(p, _)| !ours(p))
                .collect::<Vec<_>>()
        };
        let before = content(&sim);
        let mut job = start_from(&fs, NEW, &path, ClaimMode::Legacy, 1).unwrap();
        assert!(job.root.depends_on_source());
        let id = job.checkpoint(1, 100).unwrap();
        job.root.cleanup();
        assert!(
            job.tables
                .iter()
                .filter(|t| matches!(t.file.anchor, Anchor::External(_)))
                .count()
                >= 2
        );
        let own = Path::new(CHECKPOINTS).join(NEW.to_string());
        let metadata = check_snapshot(&fs, &own.join(format!("chk-{id}"))).unwrap();
        assert_eq!(metadata.externals.len(), 1);
        assert!(job.root.depends_on_source());
        drop(job);
        let mut job = resume_job(&fs, NEW, 1, 3).unwrap();
        keybed_snapshot::verify(&job.root.latest().unwrap().unwrap(), &*job.root.open_files(id))
            .verdict()
            .unwrap();
        assert!(job.root.depends_on_source());
        // Compaction replaced the last table of the snapshot.
        job.checkpoint(1, 1).unwrap();
        assert!(job.root.depends_on_source(), "the older one is still there");
        job.root.cleanup();
        assert!(!job.root.depends_on_source());
        assert_eq!(content(&sim), before);
    }
}

#[test]
fn deleting_it_too_early_is_told_by_file() {
    let (sim, fs, path, _) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::Legacy, 1).unwrap();
    let id = job.checkpoint(1, 100).unwrap();
    remove_tree(&sim, &path);
    drop(job);
    let own = Path::new(CHECKPOINTS)
        .join(NEW.to_string())
        .join(format!("chk-{id}"));
    let error = SnapshotDir::open(fs.clone(), &own)
        .unwrap()
        .check_complete()
        .unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete);
    let missing = error
        .fields()
        .iter()
        .find(|(name, _)| *name == "missing")
        .unwrap();
    assert_eq!(
        missing.1.matches(&path.display().to_string()).count(),
        2,
        "{error}"
    );
    let mut job = resume_job(&fs, NEW, 1, 3).unwrap();
    let error = job.checkpoint(0, 100).unwrap_err();
    assert_eq!(
        error.code(),
        Code::SnapshotIncomplete,
        "a checkpoint that cannot be restored is not taken: {error}"
    );
}

#[test]
fn a_checkpoint_refers_to_nothing_that_was_not_claimed() {
    let (_, fs, path, _) = disk();
    let mut job = start_from(&fs, NEW, &path, ClaimMode::NoClaim, 1).unwrap();
    let error = job.checkpoint(1, 100).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let metadata = job.metadata(id, job.tables.clone());
    assert_eq!(
        job.root.publish(&metadata).unwrap_err().code(),
        Code::InvalidArgument
    );
    job.tables.clear();
    assert!(job.root.depends_on_source());
    job.checkpoint(1, 100).unwrap();
    assert!(!job.root.depends_on_source());
}
