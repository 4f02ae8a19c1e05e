//! If this fails, a checkpoint that refers to files of another snapshot reads other files than were meant, or cannot be
//! restored after something was moved.

use crate::{mounts::*, support::*};
use keybed_env::{Fs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{
    Anchor, Anchors, ClaimMode, ForeignSnapshot, JobId, SavepointTarget, SnapshotDir, claim::Removed,
    inspect, savepoint::export, verify,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);
const THIRD: JobId = JobId(0xed);

/// A savepoint on another file system, claimed by a job with one checkpoint.
fn disk() -> (SimFs, Arc<dyn Fs>, TinyJob, PathBuf, PathBuf) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(Mounts(Arc::new(sim.clone())));
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    let savepoint = old.savepoint(&SavepointTarget::new(fs.clone(), FAR), 41).unwrap();
    drop(old);
    let mut job = start_from(&fs, NEW, &savepoint, ClaimMode::Claim, 1).unwrap();
    let id = job.checkpoint(1, 100).unwrap();
    let path = Path::new(CHECKPOINTS)
        .join(NEW.to_string())
        .join(format!("chk-{id}"));
    (sim, fs, job, savepoint, path)
}

fn anchors(id: u32, path: &Path) -> Anchors {
    BTreeMap::from([(id, path.to_path_buf())]).into()
}

#[test]
fn where_links_are_impossible_the_savepoint_stays_until_nothing_refers_to_it() {
    let (_, fs, mut job, savepoint, path) = disk();
    let metadata = check_snapshot(&fs, &path).unwrap();
    assert_eq!(
        metadata.externals[0].url,
        format!("file://{}", savepoint.display())
    );
    assert!(
        inspect(&metadata, &[])
            .depends_on
            .iter()
            .any(|(anchor, _)| *anchor == Anchor::External(1))
    );
    for _ in 0..3 {
        job.checkpoint(0, 100).unwrap();
        let report = job.root.cleanup();
        assert_eq!(
            (report.source, report.error.is_none()),
            (None, true),
            "{report:?}"
        );
        assert!(job.root.depends_on_source());
    }
    drop(job);
    let mut job = resume_job(&fs, NEW, 1, 3).unwrap();
    assert_eq!(job.root.cleanup().source, None);
    check_snapshot(&fs, &savepoint).unwrap();
    job.checkpoint(1, 1).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert!(!job.root.depends_on_source());
    assert_eq!(fs.facts(&savepoint).unwrap(), None);
}

#[test]
fn after_a_move_the_place_is_said_by_hand_and_only_the_right_snapshot_is_accepted() {
    let (sim, fs, job, savepoint, path) = disk();
    drop(job);
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 1, 9).unwrap());
    let other = old.savepoint(&SavepointTarget::new(fs.clone(), FAR), 41).unwrap();
    drop(old);
    let moved = Path::new(FAR).join("moved here");
    copy_dir(&sim, &savepoint, &moved);
    remove_tree(&sim, &savepoint);
    // Poisoned: another snapshot lies where it was.
    copy_dir(&sim, &other, &savepoint);
    let open = |anchors: Anchors| {
        let opened = SnapshotDir::open(fs.clone(), &path)
            .unwrap()
            .with_anchors(anchors);
        opened
            .check_complete()
            .and_then(|()| verify(opened.metadata(), &opened).verdict())
    };
    for wrong in [
        Anchors::default(),
        anchors(1, &other),
        anchors(1, Path::new("/nowhere")),
    ] {
        let error = open(wrong).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotIncomplete, "{error}");
        assert!(
            error
                .fields()
                .iter()
                .any(|(name, text)| *name == "missing" && text.contains("g1-c41")),
            "{error}"
        );
    }
    open(anchors(1, &moved)).unwrap();

    // The job resumes with the same words, and writes the new place down.
    let storage =
        Arc::new(keybed_snapshot::LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), NEW).unwrap());
    let opened = keybed_snapshot::OpenRoot::open(storage, NEW)
        .unwrap()
        .with_anchors(anchors(1, &moved));
    let latest = opened.latest().unwrap().unwrap();
    let root = opened.start(options(Some(latest.checkpoint), 1, 4)).unwrap();
    verify(&latest, &*root.open_files(latest.checkpoint))
        .verdict()
        .unwrap();
    let mut job = TinyJob::new(fs.clone(), root);
    let keyed = latest.operators[0].subtasks[0].keyed.as_ref().unwrap();
    job.tables = keyed
        .tables()
        .filter(|t| t.file.anchor != Anchor::SelfDir)
        .cloned()
        .collect();
    let id = job.checkpoint(0, 100).unwrap();
    let metadata = job.root.load(id).unwrap();
    assert_eq!(metadata.externals[0].url, format!("file://{}", moved.display()));
    job.root.cleanup();
    job.checkpoint(1, 1).unwrap();
    assert_eq!(
        job.root.cleanup().source,
        Some(Removed::Gone),
        "the claim moved along"
    );
    assert_eq!(sim.facts(&moved).unwrap(), None);
    check_snapshot(&fs, &savepoint).unwrap();
}

#[test]
fn a_snapshot_with_externals_is_restored_again() {
    let (sim, fs, job, savepoint, path) = disk();
    drop(job);
    let source = ForeignSnapshot::open(fs.clone(), &path, Anchors::default()).unwrap();
    let rows: Vec<_> = source
        .metadata()
        .externals
        .iter()
        .map(|row| (row.id, row.url.clone()))
        .collect();
    let url = |path: &Path| format!("file://{}", path.display());
    assert_eq!(rows, [(1, url(&path)), (2, url(&savepoint))]);
    verify(source.metadata(), &source).verdict().unwrap();

    let mut third = start_from(&fs, THIRD, &path, ClaimMode::Legacy, 1).unwrap();
    let id = third.checkpoint(0, 100).unwrap();
    let own = Path::new(CHECKPOINTS)
        .join(THIRD.to_string())
        .join(format!("chk-{id}"));
    let metadata = check_snapshot(&fs, &own).unwrap();
    assert_eq!(metadata.externals.len(), 2);
    // A self-contained copy needs none of them.
    let opened = SnapshotDir::open(fs.clone(), &own).unwrap();
    let ids = keybed_env::random::Ids::Seeded(keybed_env::Random::from_seed(3));
    let copy = export(&opened, &SavepointTarget::new(fs.clone(), "/copies"), ids).unwrap();
    drop(third);
    remove_tree(&sim, Path::new(FAR));
    remove_tree(&sim, Path::new(CHECKPOINTS));
    let copied = check_snapshot(&fs, &copy).unwrap();
    assert!(copied.externals.is_empty());
}

#[test]
fn a_claim_does_not_reach_through_a_claimed_snapshot() {
    let (sim, fs, job, savepoint, path) = disk();
    drop(job);
    let mut third = start_from(&fs, THIRD, &path, ClaimMode::Claim, 1).unwrap();
    third.checkpoint(0, 1).unwrap();
    let report = third.root.cleanup();
    assert!(report.error.is_none(), "{report:?}");
    third.checkpoint(1, 1).unwrap();
    third.root.cleanup();
    assert_eq!(sim.facts(&path).unwrap(), None, "claimed and gone");
    check_snapshot(&fs, &savepoint).unwrap();
}

#[test]
fn addresses_are_followed_below_configured_roots_only() {
    let (_, fs, _job, savepoint, path) = disk();
    let open = |anchors: Anchors| {
        SnapshotDir::open(fs.clone(), &path)
            .unwrap()
            .with_anchors(anchors)
            .check_complete()
    };
    let roots = |root: &str| Anchors {
        roots: Some(vec![root.into()]),
        ..Anchors::default()
    };
    open(roots(FAR)).unwrap();
    assert_eq!(
        open(roots("/elsewhere")).unwrap_err().code(),
        Code::SnapshotIncomplete
    );
    let given = Anchors {
        roots: Some(Vec::new()),
        ..anchors(1, &savepoint)
    };
    open(given).unwrap();
}

#[test]
fn no_reference_leaves_its_anchor() {
    let (sim, fs, job, savepoint, path) = disk();
    drop(job);
    let bytes = fs.read(&path.join("_metadata"), 1 << 20).unwrap();
    let mut metadata = keybed_snapshot::metadata::decode(&bytes).unwrap();
    metadata.externals[0].url = format!(
        "file://{}/../{}",
        FAR,
        savepoint.file_name().unwrap().to_str().unwrap()
    );
    sim.remove_file(&path.join("_metadata")).unwrap();
    let bytes = keybed_snapshot::metadata::encode(&metadata).unwrap();
    sim.create(&path.join("_metadata"))
        .unwrap()
        .append(&bytes)
        .unwrap();
    let error = SnapshotDir::open(fs.clone(), &path)
        .unwrap()
        .check_complete()
        .unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
}

#[test]
fn what_a_claimed_checkpoint_refers_to_stays_as_long_as_the_claimant_needs_it() {
    let (_, fs, job, savepoint, path) = disk();
    // The first owner has two checkpoints on a savepoint that cannot be linked; another job claims the older one.
    job.root.cleanup();
    drop(job);
    let mut job = resume_job(&fs, NEW, 2, 3).unwrap();
    job.checkpoint(0, 100).unwrap();
    drop(job);
    let mut third = start_from(&fs, THIRD, &path, ClaimMode::Claim, 1).unwrap();
    third.checkpoint(0, 100).unwrap();
    let own = |table: &keybed_snapshot::TableHandle| table.file.anchor == Anchor::Root;
    assert!(third.tables.iter().any(own) && !third.tables.iter().all(own));
    assert_eq!(third.root.cleanup().source, None);
    // The first owner needs it no more, but keeps it for the sake of what was claimed.
    let mut job = resume_job(&fs, NEW, 1, 4).unwrap();
    for _ in 0..2 {
        job.checkpoint(1, 1).unwrap();
        let report = job.root.cleanup();
        assert_eq!(
            (report.source, report.error.is_none()),
            (None, true),
            "{report:?}"
        );
    }
    check_snapshot(&fs, &savepoint).unwrap();
    drop(job);
    let claimed = ForeignSnapshot::open(fs.clone(), &path, Anchors::default()).unwrap();
    let newest = third.root.completed()[0];
    drop(third);
    assert_eq!(
        keybed_snapshot::claim::give_back(&claimed, false)
            .unwrap_err()
            .code(),
        Code::GcRefused
    );
    let mut third = resume_job(&fs, THIRD, 1, 5).unwrap();
    assert_eq!(third.root.completed(), [newest]);
    third.checkpoint(1, 1).unwrap();
    assert_eq!(third.root.cleanup().source, Some(Removed::Gone));
    check_snapshot(&fs, &savepoint).unwrap();
    let job = resume_job(&fs, NEW, 1, 6).unwrap();
    assert_eq!(job.root.cleanup().source, Some(Removed::Gone));
    assert_eq!(fs.facts(&savepoint).unwrap(), None);
}

#[test]
fn a_symbolic_link_in_place_of_a_referenced_file_is_not_followed() {
    use keybed_env::OsFs;
    let (sim, _, job, savepoint, path) = disk();
    drop(job);
    // The same disk in a real directory, addresses said by hand.
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in sim.tree() {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let real = |path: &Path| dir.path().join(path.strip_prefix("/").unwrap());
    let open = || {
        let opened = SnapshotDir::open(Arc::new(OsFs), &real(&path)).unwrap();
        opened
            .with_anchors(anchors(1, &real(&savepoint)))
            .check_complete()
    };
    open().unwrap();
    let names = sim.list(&savepoint).unwrap().into_iter().map(|e| e.name);
    let table = real(&savepoint).join(names.into_iter().find(|n| n.starts_with('g')).unwrap());
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(&table, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &table).unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt, "{error}");
}
