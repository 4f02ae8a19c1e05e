//! If this fails, sweeping a job root without its owner deletes what a checkpoint needs, leaves garbage for ever, does
//! something else than its dry run said, or touches a root that it must leave alone.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, OsFs, Random, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::{Code, Result};
use keybed_snapshot::{
    Birth, CheckpointId, GcOptions, GcReport, Generation, LocalStorage, ObjectName, Scope, SnapshotKind,
    gc::{Swept, gc, retire},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

const DRY: GcOptions = GcOptions {
    dry_run: true,
    min_age_ms: 0,
    now_ms: 0,
};
const WET: GcOptions = GcOptions {
    dry_run: false,
    ..DRY
};

fn on(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(sim.clone())
}

fn sweep(fs: &Arc<dyn Fs>, options: &GcOptions) -> Result<GcReport> {
    gc(Arc::new(LocalStorage::at(fs.clone(), job_root())), options)
}

fn paths(swept: &[Swept]) -> Vec<&str> {
    swept.iter().map(|swept| swept.path.as_str()).collect()
}

/// The root of a job that died twice in the middle: subsumed checkpoints half deleted, uploads of checkpoints that
/// never were, a void checkpoint, documents under temporary names, and what is not ours.
fn disk() -> SimFs {
    let sim = SimFs::new();
    let fs = on(&sim);
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 1).unwrap());
    job.checkpoint(2, 3).unwrap();
    job.checkpoint(1, 3).unwrap();
    let lost = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    job.put(lost, Scope::Shared).unwrap();
    job.put(lost, Scope::Exclusive).unwrap();
    let tables = job.tables.clone();
    drop(job);
    // Goes on from checkpoint 1, so 2 is abandoned.
    let opened = open(&fs).unwrap();
    let mut job = TinyJob::new(
        fs.clone(),
        opened.start(options(Some(CheckpointId(1)), 2, 2)).unwrap(),
    );
    job.tables = tables[..1].to_vec();
    job.checkpoint(1, 3).unwrap();
    let void = job.checkpoint(1, 3).unwrap();
    let lost = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    job.put(lost, Scope::Shared).unwrap();
    drop(job);
    // An owner that was fenced published one more: as if generation 3 had begun at its id.
    let records = job_root().join("owner");
    let record = sim.read(&records.join("2"), 1 << 16).unwrap();
    let mut record = keybed_snapshot::OwnerRecord::decode(&record).unwrap();
    record.generation = Generation(3);
    record.first_checkpoint = void;
    record.restored = keybed_snapshot::RestoreSource::Checkpoint(CheckpointId(void.0 - 1));
    sim.create(&records.join("3"))
        .unwrap()
        .append(&record.encode())
        .unwrap();
    for (place, birth) in [
        ("", (2, 5)),
        ("owner", (4, 7)),
        ("chk-1", (1, 1)),
        ("shared", (3, 6)),
    ] {
        let birth = Birth {
            generation: Generation(birth.0),
            checkpoint: CheckpointId(birth.1),
        };
        let name = ObjectName::temporary(birth, 77);
        drop(sim.create(&job_root().join(place).join(name.as_str())).unwrap());
    }
    for name in [
        "notes.txt",
        "shared/thesis.txt",
        "taskowned/g1-c1-000000000000000000000000000000aa",
    ] {
        drop(sim.create(&job_root().join(name)).unwrap());
    }
    sim.settle();
    sim
}

#[test]
fn exactly_what_nobody_needs_goes_and_the_dry_run_said_so() {
    let sim = disk();
    let fs = on(&sim);
    let before = sim.tree();
    let dry = sweep(&fs, &DRY).unwrap();
    assert_eq!(
        sim.tree(),
        before,
        "a dry run changes nothing, not even the text of the lock"
    );
    let wet = sweep(&fs, &WET).unwrap();
    assert!(wet.error.is_none() && wet.left.is_empty(), "{wet:?}");
    assert_eq!(dry.swept, wet.swept);
    let after = sim.tree();
    let gone: BTreeSet<String> = before
        .keys()
        .filter(|path| !after.contains_key(*path))
        .map(|path| relative(path))
        .collect();
    let files: BTreeSet<String> = paths(&wet.swept)
        .into_iter()
        .filter(|path| !path.ends_with('/'))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(gone, files);
    assert_eq!(
        wet.bytes(),
        before
            .iter()
            .filter(|(path, _)| !after.contains_key(*path))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum::<u64>()
    );
    // Nothing is left but what the three checkpoints name, and what is not ours to judge.
    let mut rest = kept(&after);
    rest.retain(|path| !path.ends_with("thesis.txt") && !path.contains("taskowned"));
    assert_eq!(rest, needed(&after));
    assert_eq!(
        paths(&wet.swept)[0],
        "chk-5/_metadata",
        "the void one, metadata first"
    );
    assert!(after.keys().any(|path| path.ends_with("notes.txt")));
    assert_eq!(
        sweep(&fs, &WET).unwrap().swept,
        [],
        "the second sweep finds nothing"
    );
    // The job goes on as if nothing had been.
    let root = resume(&fs, 2, 9).unwrap();
    assert_eq!(root.completed()[0], CheckpointId(4));
    assert_eq!(
        TinyJob::new(fs.clone(), root).checkpoint(1, 1).unwrap(),
        CheckpointId(7)
    );
}

fn relative(path: &Path) -> String {
    let path = Path::new("/").join(path);
    path.strip_prefix(job_root()).unwrap().display().to_string()
}

#[test]
fn whatever_cannot_be_read_refuses_every_deletion() {
    let before = disk();
    let damaged = [
        "chk-1/_metadata",
        "chk-2/_metadata",
        "chk-5/_metadata",
        "owner/1",
        "owner/3",
    ];
    for file in damaged {
        for at in [0, 9, 60] {
            let sim = before.live_image();
            sim.corrupt(job_root().join(file), |bytes| bytes[at] ^= 1)
                .unwrap();
            let tree = sim.tree();
            for options in [DRY, WET] {
                let error = sweep(&on(&sim), &options).unwrap_err();
                assert_eq!(
                    (error.code(), error.exit_code()),
                    (Code::GcRefused, 5),
                    "{file}: {error}"
                );
                assert!(error.to_string().contains(file), "{error}");
            }
            assert_eq!(sim.tree(), tree, "{file}");
            let refused = retire(&on(&sim), &job_root()).err().unwrap();
            assert_eq!(refused.code(), Code::GcRefused);
            assert_eq!(sim.tree(), tree, "{file}");
        }
    }
    let sim = before.live_image();
    sim.remove_file(&job_root().join("owner/2")).unwrap();
    assert_eq!(sweep(&on(&sim), &WET).unwrap_err().code(), Code::GcRefused);
    remove_tree(&sim, &job_root().join("owner"));
    assert_eq!(sweep(&on(&sim), &WET).unwrap_err().code(), Code::NotASnapshot);
}

#[test]
fn a_live_owner_is_never_swept_from_outside_and_sweeps_itself() {
    let sim = disk();
    let fs = on(&sim);
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 2, 5).unwrap());
    for options in [DRY, WET] {
        let error = sweep(&fs, &options).unwrap_err();
        assert_eq!(error.code(), Code::GcRefused);
        let reason = error.fields().iter().find(|(name, _)| *name == "reason").unwrap();
        assert_eq!(reason.1, "live owner");
        assert!(retire(&fs, &job_root()).is_err());
    }
    let dry = job.root.gc(&DRY).unwrap();
    let wet = job.root.gc(&WET).unwrap();
    assert_eq!(dry.swept, wet.swept);
    assert!(!wet.swept.is_empty() && wet.error.is_none());
    assert_eq!(job.root.gc(&WET).unwrap().swept, []);
    // What a pending checkpoint uploaded is not garbage, and what others left meanwhile is.
    let pending = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    let table = job.put(pending, Scope::Shared).unwrap();
    let stray = "shared/g1-c1-000000000000000000000000000000cc";
    drop(sim.create(&job_root().join(stray)).unwrap());
    assert_eq!(paths(&job.root.gc(&DRY).unwrap().swept), [stray]);
    assert!(
        job.root.cleanup().deleted.is_empty(),
        "a dry run has no consequence"
    );
    assert_eq!(paths(&job.root.gc(&WET).unwrap().swept), [stray]);
    let metadata = job.metadata(pending, vec![table]);
    job.root.publish(&metadata).unwrap();
    check_snapshot(&fs, &job_root().join(format!("chk-{pending}"))).unwrap();
}

#[test]
fn garbage_younger_than_asked_for_stays() {
    let place = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let storage = Arc::new(LocalStorage::create(fs.clone(), place.path(), JOB).unwrap());
    let opened = keybed_snapshot::OpenRoot::open(storage.clone(), JOB).unwrap();
    drop(opened.start(options(None, 1, 1)).unwrap());
    let orphan = storage
        .root()
        .join("shared/g1-c1-000000000000000000000000000000cc");
    std::fs::write(&orphan, b"x").unwrap();
    let modified_ms = fs.facts(&orphan).unwrap().unwrap().modified_ms.unwrap();
    let options = |age: u64| GcOptions {
        min_age_ms: 1000,
        now_ms: modified_ms + age,
        dry_run: false,
    };
    assert_eq!(gc(storage.clone(), &options(999)).unwrap().swept, []);
    assert!(orphan.exists());
    assert_eq!(gc(storage.clone(), &options(1000)).unwrap().swept.len(), 1);
    assert!(!orphan.exists());
    // The simulated disk knows no age, so there everything is young.
    let sim = disk();
    assert_eq!(sweep(&on(&sim), &options(1 << 40)).unwrap().swept, []);
}

#[test]
fn a_failure_at_any_call_leaves_whole_checkpoints_and_the_next_sweep_finishes() {
    let before = disk();
    let everything = sweep(&on(&before.live_image()), &DRY).unwrap().swept;
    for nth in 1.. {
        let sim = before.live_image();
        let faulty = Arc::new(FaultFs::new(on(&sim)));
        faulty.arm(FaultPlan::new(Fault::Eio, nth));
        let fs: Arc<dyn Fs> = faulty.clone();
        let swept = sweep(&fs, &WET);
        if faulty.triggered() == 0 {
            assert_eq!(swept.unwrap().swept, everything);
            break;
        }
        if let Ok(report) = &swept {
            let mut all: Vec<&str> = paths(&report.swept);
            all.extend(paths(&report.left));
            let unique: BTreeSet<&str> = all.iter().copied().collect();
            assert_eq!(unique, paths(&everything).into_iter().collect(), "call {nth}");
        }
        assert_whole(&sim, nth);
        let rest = sweep(&on(&sim), &WET).unwrap();
        assert!(rest.error.is_none(), "call {nth}: {rest:?}");
        assert_clean(&sim, nth);
    }
}

#[test]
fn a_crash_anywhere_in_a_sweep_leaves_whole_checkpoints_and_the_next_sweep_finishes() {
    let sim = disk();
    let start = sim.op_count();
    sweep(&on(&sim), &WET).unwrap();
    let mut images = 0;
    sim.each_crash_image(64, &mut Random::from_seed(3), |at, image| {
        if at < start {
            return;
        }
        images += 1;
        assert_whole(image, at);
        sweep(&on(image), &WET).unwrap_or_else(|e| panic!("after {at}: {e}"));
        assert_clean(image, at);
    });
    assert!(images > 50, "{images}");
}

/// Whatever can be opened is whole.
fn assert_whole(sim: &SimFs, at: u64) {
    for path in sim.tree().keys().filter(|path| path.ends_with("_metadata")) {
        let path = Path::new("/").join(path);
        check_snapshot(&on(sim), &path)
            .map(drop)
            .unwrap_or_else(|e| match e.code() {
                // Published by a fenced owner.
                Code::Fenced => {}
                _ => panic!("after {at}: {}: {e}", path.display()),
            });
    }
}

fn assert_clean(sim: &SimFs, at: u64) {
    let again = sweep(&on(sim), &WET).unwrap();
    assert_eq!(again.swept, [], "after {at}");
    let tree = sim.tree();
    let mut rest = kept(&tree);
    rest.retain(|path| !path.ends_with("thesis.txt") && !path.contains("taskowned"));
    assert_eq!(rest, needed(&tree), "after {at}");
    let metadata = tree.keys().filter(|path| path.ends_with("_metadata"));
    assert_eq!(metadata.count(), 3, "after {at}");
}

/// The root of a history that was given up, nothing strange in it.
fn given_up() -> SimFs {
    let sim = disk();
    for name in ["notes.txt", "shared/thesis.txt"] {
        sim.remove_file(&job_root().join(name)).unwrap();
    }
    sim.settle();
    sim
}

fn end(fs: &Arc<dyn Fs>) -> Result<GcReport> {
    Ok(retire(fs, &job_root())?.execute())
}

fn is_gone(sim: &SimFs) -> bool {
    sim.facts(&job_root()).unwrap().is_none()
}

#[test]
fn a_root_that_is_named_goes_whole_and_strange_names_stay() {
    let sim = given_up();
    sim.remove_file(&job_root().join("taskowned/g1-c1-000000000000000000000000000000aa"))
        .unwrap();
    let planned = retire(&on(&sim), &job_root()).unwrap();
    let (plan, tree) = (planned.plan(), sim.tree());
    assert!(planned.staying().is_empty());
    drop(planned);
    assert_eq!(sim.tree(), tree);
    let report = end(&on(&sim)).unwrap();
    assert!(report.error.is_none(), "{report:?}");
    assert_eq!(report.swept, plan);
    assert!(is_gone(&sim));
    assert_eq!(end(&on(&sim)).unwrap_err().code(), Code::NotASnapshot);

    let sim = disk();
    let planned = retire(&on(&sim), &job_root()).unwrap();
    assert_eq!(planned.staying(), ["notes.txt", "shared/thesis.txt"]);
    planned.execute();
    let left: Vec<PathBuf> = sim.tree().into_keys().collect();
    let left: Vec<String> = left
        .iter()
        .map(|path| Path::new("/").join(path))
        .filter_map(|path| Some(path.strip_prefix(job_root()).ok()?.display().to_string()))
        .collect();
    assert_eq!(left, ["LOCK", "notes.txt", "shared/thesis.txt"]);
}

#[test]
fn a_root_whose_removal_was_interrupted_is_removed_by_the_next_call() {
    let before = given_up();
    for nth in 1.. {
        let sim = before.live_image();
        let faulty = Arc::new(FaultFs::new(on(&sim)));
        faulty.arm(FaultPlan::new(Fault::Eio, nth));
        let fs: Arc<dyn Fs> = faulty.clone();
        let report = end(&fs);
        if faulty.triggered() == 0 {
            assert!(is_gone(&sim));
            break;
        }
        drop(report);
        if !is_gone(&sim) {
            assert_whole_or_hidden(&sim);
            let again = end(&on(&sim)).unwrap_or_else(|e| panic!("call {nth}: {e}"));
            assert!(again.error.is_none(), "call {nth}: {again:?}");
        }
        assert!(is_gone(&sim), "call {nth}");
    }
    let sim = given_up();
    let start = sim.op_count();
    end(&on(&sim)).unwrap();
    sim.each_crash_image(64, &mut Random::from_seed(4), |at, image| {
        if at >= start && !is_gone(image) {
            let again = end(&on(image)).unwrap_or_else(|e| panic!("after {at}: {e}"));
            assert!(again.error.is_none() && is_gone(image), "after {at}: {again:?}");
        }
    });
}

/// Every checkpoint that has metadata still has all of its files.
fn assert_whole_or_hidden(sim: &SimFs) {
    assert_whole(sim, 0);
}
