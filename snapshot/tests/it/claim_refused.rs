//! If this fails, a job takes a snapshot that it cannot own, or a refused start leaves a claim behind.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::Code;
use keybed_snapshot::{
    Anchors, ClaimMode, ForeignSnapshot, JobId, LocalStorage, OpenRoot, SavepointTarget, savepoint::Disposal,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);

fn disk() -> (SimFs, FaultFs, Arc<dyn Fs>, PathBuf, PathBuf) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let faulty = FaultFs::new(Arc::new(sim.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    let id = job.checkpoint(2, 100).unwrap();
    let path = job
        .savepoint(&SavepointTarget::new(fs.clone(), "/sp"), 41)
        .unwrap();
    (sim, faulty, fs, path, job_root().join(format!("chk-{id}")))
}

#[test]
fn a_read_only_place_cannot_be_claimed_and_nothing_there_changes() {
    let (sim, faulty, fs, savepoint, checkpoint) = disk();
    for (path, place) in [(&savepoint, savepoint.clone()), (&checkpoint, job_root())] {
        let before = sim.tree();
        faulty.arm(
            FaultPlan::new(Fault::Erofs, 1)
                .forever()
                .on_path(move |p| p.starts_with(&place)),
        );
        let error = start_from(&fs, NEW, path, ClaimMode::Claim, 1).unwrap_err();
        assert_eq!(error.code(), Code::CannotClaim, "{error}");
        assert_eq!(error.exit_code(), 5);
        faulty.heal();
        let own = Path::new(CHECKPOINTS).join(NEW.to_string());
        let own = own.strip_prefix("/").unwrap();
        let after: Vec<_> = sim
            .tree()
            .into_iter()
            .filter(|(p, _)| !p.starts_with(own))
            .collect();
        assert_eq!(
            after,
            before
                .into_iter()
                .filter(|(p, _)| !p.starts_with(own))
                .collect::<Vec<_>>()
        );
        // Reading it needs no writing.
        start_from(&fs, NEW, path, ClaimMode::NoClaim, 1).unwrap();
    }
}

#[test]
fn a_living_job_is_not_robbed_of_its_checkpoint() {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    let id = job.checkpoint(2, 100).unwrap();
    let path = job_root().join(format!("chk-{id}"));
    let error = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (Code::Locked, 4), "{error}");
    drop(job);
    start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
}

#[test]
fn a_snapshot_with_a_missing_file_is_not_claimed() {
    let (sim, _, fs, savepoint, checkpoint) = disk();
    for (path, files) in [
        (savepoint.clone(), savepoint),
        (checkpoint, job_root().join("shared")),
    ] {
        let source = || ForeignSnapshot::open(fs.clone(), &path, Anchors::default()).unwrap();
        let storage = LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), NEW).unwrap();
        let opened = OpenRoot::open(Arc::new(storage), NEW).unwrap();
        let looked_at = source();
        let is_table = |name: &String| name.starts_with('g');
        let table = sim
            .list(&files)
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .find(is_table);
        sim.remove_file(&files.join(table.unwrap())).unwrap();
        let started = opened.start_from_snapshot(looked_at, ClaimMode::Claim, options(None, 1, 3));
        let code = started.map(|root| root.generation()).unwrap_err().code();
        assert_eq!(code, Code::SnapshotIncomplete);
        assert_eq!(sim.facts(&path.join("CLAIMED")).unwrap(), None);
        assert_eq!(source().claimed_by().unwrap(), None);
    }
}

#[test]
fn a_claim_that_cannot_be_read_refuses() {
    let (sim, _, fs, savepoint, checkpoint) = disk();
    sim.create(&savepoint.join("CLAIMED"))
        .unwrap()
        .append(b"x")
        .unwrap();
    let error = start_from(&fs, NEW, &savepoint, ClaimMode::Claim, 1).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
    sim.create_dir(&job_root().join("claims")).unwrap();
    sim.create(&job_root().join("claims/1"))
        .unwrap()
        .append(b"x")
        .unwrap();
    let error = start_from(&fs, NEW, &checkpoint, ClaimMode::Claim, 1).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
    assert_eq!(
        resume(&fs, 1, 9).unwrap_err().code(),
        Code::SnapshotCorrupt,
        "the old job does not know what is its own"
    );
}

#[test]
fn a_symbolic_link_to_a_snapshot_is_not_claimed_and_written_down_only_where_it_leads() {
    use keybed_env::OsFs;
    let (sim, _, _, savepoint, _) = disk();
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real/inner");
    std::fs::create_dir_all(&real).unwrap();
    for entry in sim.list(&savepoint).unwrap() {
        let bytes = sim.read(&savepoint.join(&entry.name), 1 << 20).unwrap();
        std::fs::write(real.join(&entry.name), bytes).unwrap();
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let start = |path: &Path, mode| {
        let storage = LocalStorage::create(fs.clone(), dir.path(), NEW).unwrap();
        let source = ForeignSnapshot::open(fs.clone(), path, Anchors::default())?;
        let opened = OpenRoot::open(Arc::new(storage), NEW)?;
        opened
            .start_from_snapshot(source, mode, options(None, 1, 3))
            .map(drop)
    };
    let error = start(&link, ClaimMode::Claim).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(!real.join("CLAIMED").exists());
    start(&link, ClaimMode::Legacy).unwrap();
    // `link/..` is `real`, not the directory in which the link lies.
    let error = start(&link.join("../inner"), ClaimMode::Legacy).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    start(&real.join("../inner"), ClaimMode::Claim).unwrap();
    assert!(real.join("CLAIMED").exists());
}

#[test]
fn a_savepoint_that_is_being_disposed_of_is_not_claimed_and_goes_all_the_same() {
    let (sim, _, fs, path, _) = disk();
    let source = ForeignSnapshot::open(fs.clone(), &path, Anchors::default()).unwrap();
    let planned = Disposal::plan(fs.clone(), &path).unwrap();
    // The disposal has hidden it when the claimer, who had opened it before, makes its mark.
    sim.rename(&path.join("_metadata"), &path.join("_disposing"))
        .unwrap();
    let storage = LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), NEW).unwrap();
    let open = OpenRoot::open(Arc::new(storage), NEW).unwrap();
    let refused = open.start_from_snapshot(source, ClaimMode::Claim, options(None, 1, 1));
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::SnapshotIncomplete);
    assert_eq!(sim.facts(&path.join("CLAIMED")).unwrap(), None);
    assert!(planned.execute().unwrap().directory);
    assert_eq!(sim.facts(&path).unwrap(), None);
}

#[test]
fn a_claim_that_was_there_before_survives_a_resume_that_fails() {
    let (_, faulty, fs, savepoint, checkpoint) = disk();
    let claimed = [
        (NEW, savepoint.clone(), savepoint),
        (JobId(0xee), checkpoint, job_root().join("claims")),
    ];
    for (job, path, place) in claimed {
        drop(start_from(&fs, job, &path, ClaimMode::Claim, 1).unwrap());
        let synced = place.clone();
        let plan = FaultPlan::new(Fault::Eio, 1).forever();
        faulty.arm(plan.only(&[FsOp::SyncDir]).on_path(move |p| *p == synced));
        start_from(&fs, job, &path, ClaimMode::Claim, 1).unwrap_err();
        faulty.heal();
        let other = start_from(&fs, JobId(0xfe), &path, ClaimMode::Claim, 1).unwrap_err();
        assert_eq!(
            other.code(),
            Code::SnapshotClaimedByOther,
            "{}: {other}",
            path.display()
        );
        start_from(&fs, job, &path, ClaimMode::Claim, 1).unwrap();
    }
}
