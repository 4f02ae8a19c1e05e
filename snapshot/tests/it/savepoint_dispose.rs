//! If this fails, disposing of a savepoint deletes a file that is not its own, leaves half of it that can be opened,
//! or cannot be finished after an interruption; or it destroys a checkpoint that a job needs.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, OsFs, Random, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::Code;
use keybed_snapshot::{
    ObjectName, SavepointTarget, SnapshotDir,
    metadata::{decode, encode},
    savepoint::{Disposal, Disposed},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const TARGET: &str = "/sp";

/// A job with a checkpoint and two savepoints, everything durable.
fn disk() -> (SimFs, TinyJob, [PathBuf; 2]) {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    let target = SavepointTarget::new(fs, TARGET);
    let first = job.savepoint(&target, 11).unwrap();
    job.checkpoint(1, 2).unwrap();
    let second = job.savepoint(&target, 12).unwrap();
    sim.settle();
    (sim, job, [first, second])
}

fn on(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(sim.clone())
}

fn plan(sim: &SimFs, path: &Path) -> keybed_format::Result<Disposal> {
    Disposal::plan(on(sim), path)
}

fn refusal(sim: &SimFs, path: &Path) -> Code {
    let before = sim.tree();
    let error = plan(sim, path).unwrap_err();
    assert_eq!(sim.tree(), before, "{error}");
    error.code()
}

#[test]
fn exactly_the_files_of_the_savepoint_go() {
    for by_file in [false, true] {
        let (sim, mut job, [path, other]) = disk();
        let mut left = sim.tree();
        left.retain(|file, _| !Path::new("/").join(file).starts_with(&path));
        let name = if by_file {
            path.join("_metadata")
        } else {
            path.clone()
        };
        let disposal = plan(&sim, &name).unwrap();
        assert_eq!(
            (disposal.going().files.len(), disposal.going().staying.len()),
            (2, 0)
        );
        check_snapshot(&on(&sim), &path).unwrap();
        let done = disposal.execute().unwrap();
        assert_eq!(
            done,
            Disposed {
                files: 2,
                directory: true
            }
        );
        assert_eq!(sim.tree(), left);
        assert!(sim.facts(&path).unwrap().is_none());
        // Again: nothing to do for the plan, nothing to see for a new one.
        assert_eq!(disposal.execute().unwrap().files, 0);
        assert_eq!(refusal(&sim, &name), Code::NotASnapshot);
        check_snapshot(&on(&sim), &other).unwrap();
        let id = job.checkpoint(1, 2).unwrap();
        check_snapshot(&on(&sim), &job_root().join(format!("chk-{id}"))).unwrap();
    }
}

#[test]
fn foreign_files_stay_and_the_directory_with_them() {
    let (sim, _job, [path, _]) = disk();
    drop(sim.create(&path.join("notes.txt")).unwrap());
    let stranger = "g1-c11-000000000000000000000000000000ff";
    drop(sim.create(&path.join(stranger)).unwrap());
    sim.create_dir(&path.join("backup")).unwrap();
    let disposal = plan(&sim, &path).unwrap();
    assert_eq!(disposal.going().staying, ["backup", stranger, "notes.txt"]);
    assert_eq!(
        disposal.execute().unwrap(),
        Disposed {
            files: 2,
            directory: false
        }
    );
    let left: Vec<String> = sim.list(&path).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(left, ["backup", stranger, "notes.txt"]);
    assert_eq!(refusal(&sim, &path), Code::NotASnapshot);
}

#[test]
fn metadata_cannot_name_a_file_that_was_never_an_object() {
    let (sim, _job, [path, _]) = disk();
    drop(sim.create(&path.join("thesis.txt")).unwrap());
    sim.corrupt(path.join("_metadata"), |bytes| {
        let mut metadata = decode(bytes).unwrap();
        let keyed = metadata.operators[0].subtasks[0].keyed.as_mut().unwrap();
        keyed.families[0].runs[0].tables[0].file.object = ObjectName::new("thesis.txt").unwrap();
        *bytes = encode(&metadata).unwrap();
    })
    .unwrap();
    let disposal = plan(&sim, &path).unwrap();
    assert_eq!(disposal.going().files.len(), 1);
    disposal.execute().unwrap();
    assert!(sim.facts(&path.join("thesis.txt")).unwrap().is_some());
}

#[test]
fn what_is_no_savepoint_of_ours_is_refused_and_untouched() {
    let (sim, mut job, [path, other]) = disk();
    let id = job.checkpoint(1, 2).unwrap();
    assert_eq!(refusal(&sim, Path::new("/nowhere")), Code::NotASnapshot);
    assert_eq!(refusal(&sim, Path::new(TARGET)), Code::NotASnapshot);
    assert_eq!(refusal(&sim, Path::new(WORK)), Code::NotASnapshot);
    assert_eq!(refusal(&sim, &job_root()), Code::NotASnapshot);
    let object = sim.list(&path).unwrap()[1].name.clone();
    assert_eq!(refusal(&sim, &path.join(object)), Code::InvalidArgument);
    // A checkpoint, while its job lives, after it, and without the records of its owners.
    let chk = job_root().join(format!("chk-{id}"));
    assert_eq!(refusal(&sim, &chk), Code::GcRefused);
    assert_eq!(refusal(&sim, &chk.join("_metadata")), Code::GcRefused);
    drop(job);
    assert_eq!(refusal(&sim, &chk), Code::GcRefused);
    remove_tree(&sim, &job_root().join("owner"));
    assert_eq!(refusal(&sim, &chk), Code::GcRefused);
    // Somebody claimed it.
    drop(sim.create(&path.join("CLAIMED")).unwrap());
    assert_eq!(refusal(&sim, &path), Code::SnapshotClaimedByOther);
    // Its list cannot be trusted.
    for at in [0, 8, 40, 200] {
        let bad = sim.live_image();
        bad.corrupt(other.join("_metadata"), |bytes| bytes[at] ^= 1)
            .unwrap();
        assert_eq!(refusal(&bad, &other), Code::SnapshotCorrupt, "{at}");
    }
    sim.corrupt(other.join("_metadata"), Vec::clear).unwrap();
    let code = refusal(&sim, &other);
    assert!(
        matches!(code, Code::NotASnapshot | Code::SnapshotCorrupt),
        "{code}"
    );
}

#[test]
fn a_stray_copy_of_a_checkpoint_goes_without_anything_around_it() {
    let (sim, mut job, _) = disk();
    let id = job.checkpoint(1, 2).unwrap();
    let chk = job_root().join(format!("chk-{id}"));
    let copy = PathBuf::from("/copies/chk-2");
    copy_dir(&sim, &chk, &copy);
    drop(sim.create(Path::new("/copies/other")).unwrap());
    let done = plan(&sim, &copy).unwrap().execute().unwrap();
    assert_eq!((done.files, done.directory), (1, true));
    assert!(sim.facts(Path::new("/copies/other")).unwrap().is_some());
    check_snapshot(&on(&sim), &chk).unwrap();
}

#[test]
fn a_claim_or_another_snapshot_that_came_after_the_plan_is_respected() {
    let (sim, _job, [path, other]) = disk();
    let disposal = plan(&sim, &path).unwrap();
    drop(sim.create(&path.join("CLAIMED")).unwrap());
    assert_eq!(
        disposal.execute().unwrap_err().code(),
        Code::SnapshotClaimedByOther
    );
    check_snapshot(&on(&sim), &path).unwrap();

    let disposal = plan(&sim, &other).unwrap();
    let away = Path::new("/away");
    sim.rename(&other, away).unwrap();
    sim.rename(&path, &other).unwrap();
    assert_eq!(
        disposal.execute().unwrap_err().code(),
        Code::SnapshotClaimedByOther
    );
    sim.remove_file(&other.join("CLAIMED")).unwrap();
    assert_eq!(disposal.execute().unwrap_err().code(), Code::Busy);
    check_snapshot(&on(&sim), &other).unwrap();
    check_snapshot(&on(&sim), away).unwrap();
}

#[test]
fn a_symbolic_link_to_a_savepoint_is_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let (sim, _job, [path, _]) = disk();
    let real = place.path().join("real");
    std::fs::create_dir(&real).unwrap();
    for entry in sim.list(&path).unwrap() {
        let bytes = sim.read(&path.join(&entry.name), 1 << 20).unwrap();
        std::fs::write(real.join(&entry.name), bytes).unwrap();
    }
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let error = Disposal::plan(fs.clone(), &link).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    // One of its objects is a link: that is not ours.
    let object = std::fs::read_dir(&real)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| !p.ends_with("_metadata"))
        .unwrap();
    let elsewhere = place.path().join("elsewhere");
    std::fs::rename(&object, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &object).unwrap();
    let done = Disposal::plan(fs, &real).unwrap().execute().unwrap();
    assert_eq!((done.files, done.directory), (1, false));
    assert!(object.symlink_metadata().is_ok() && elsewhere.exists());
}

/// After an interruption: whole, or no snapshot any more, and in both cases a new plan finishes.
fn finish(image: &SimFs, path: &Path, what: &str) -> &'static str {
    let fs = on(image);
    let Some(_) = image.facts(path).unwrap() else {
        return "gone";
    };
    let names: Vec<String> = image.list(path).unwrap().into_iter().map(|e| e.name).collect();
    let state = if names.iter().any(|name| name == "_metadata") {
        check_snapshot(&fs, path).unwrap_or_else(|e| panic!("{what}: {e}"));
        "whole"
    } else {
        assert_eq!(
            SnapshotDir::open(fs.clone(), path).unwrap_err().code(),
            Code::NotASnapshot
        );
        if names.is_empty() { "empty" } else { "half" }
    };
    if state != "empty" {
        let disposal = Disposal::plan(fs, path).unwrap_or_else(|e| panic!("{what}: {e}: {names:?}"));
        let done = disposal.execute().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(done.directory, "{what}");
        assert!(image.facts(path).unwrap().is_none(), "{what}");
    }
    state
}

#[test]
fn a_crash_anywhere_leaves_a_whole_savepoint_or_none_and_can_be_finished() {
    let (sim, _job, [path, other]) = disk();
    plan(&sim, &path).unwrap().execute().unwrap();
    let ended = sim.op_count();
    let mut states = std::collections::BTreeMap::new();
    sim.each_crash_image(300, &mut Random::from_seed(3), |at, image| {
        let state = finish(image, &path, &format!("after {at}"));
        assert!(at < ended || state == "gone", "after {at}: {state}");
        *states.entry(state).or_insert(0) += 1;
        check_snapshot(&on(image), &other).unwrap();
    });
    for state in ["whole", "half", "gone"] {
        assert!(states.contains_key(state), "{states:?}");
    }
}

#[test]
fn any_failing_call_can_be_repeated() {
    let mut runs = 0;
    for fault in Fault::ALL {
        for forever in [false, true] {
            for nth in 1.. {
                let (sim, _job, [path, other]) = disk();
                let faulty = FaultFs::new(Arc::new(sim.clone()));
                let disposal = Disposal::plan(Arc::new(faulty.clone()), &path).unwrap();
                let plan = FaultPlan::new(*fault, nth);
                faulty.arm(if forever { plan.forever() } else { plan });
                let what = format!("{fault:?} at call {nth}, forever {forever}");
                let first = disposal.execute();
                let reached = faulty.triggered() > 0;
                assert!(first.is_ok() || reached, "{what}");
                faulty.heal();
                let lost = sim.strict_image(sim.op_count());
                let state = finish(&lost, &path, &what);
                assert!(first.is_err() || state == "gone", "{what}");
                disposal.execute().unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(sim.facts(&path).unwrap().is_none(), "{what}");
                check_snapshot(&on(&sim), &other).unwrap();
                runs += 1;
                if !reached {
                    break;
                }
            }
        }
    }
    assert!(runs > 50, "{runs} runs");
}
