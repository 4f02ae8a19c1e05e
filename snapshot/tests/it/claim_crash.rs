//! If this fails, a power loss or a failing call while a snapshot is claimed, kept, deleted or given back loses state,
//! deletes what somebody needs, or leaves files behind that nobody ever deletes.

use crate::{mounts::*, support::*};
use keybed_env::{
    FaultFs, Fs, Random, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::Result;
use keybed_snapshot::{
    Anchors, CheckpointId, ClaimMode, ForeignSnapshot, JobId, LocalStorage, OpenRoot, SavepointTarget,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

const NEW: JobId = JobId(0xef);
const OTHER: JobId = JobId(0xee);

/// Three checkpoints of a job that is gone, of which 2 and 3 share a table, and a savepoint, here or on a file system
/// from which nothing can be linked; all durable.
fn disk(sim: &SimFs, target: &str) -> PathBuf {
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    for _ in 0..3 {
        old.checkpoint(1, 2).unwrap();
    }
    let savepoint = old.savepoint(&SavepointTarget::new(fs, target), 41).unwrap();
    sim.settle();
    savepoint
}

fn claimed_chk() -> PathBuf {
    job_root().join("chk-3")
}

fn new_root() -> PathBuf {
    Path::new(CHECKPOINTS).join(NEW.to_string())
}

/// Goes on with the claiming job, or starts it, as a user would.
fn go_on(fs: &Arc<dyn Fs>, path: &Path) -> Result<TinyJob> {
    let storage = LocalStorage::create(fs.clone(), Path::new(CHECKPOINTS), NEW)?;
    let opened = OpenRoot::open(Arc::new(storage), NEW)?;
    let starts = opened.is_new() || opened.awaits_snapshot();
    drop(opened);
    if starts {
        start_from(fs, NEW, path, ClaimMode::Claim, 1)
    } else {
        resume_job(fs, NEW, 1, 7)
    }
}

/// Claims, and takes two checkpoints with a cleanup after each, going on after failures as a coordinator does.
fn job(fs: &Arc<dyn Fs>, path: &Path, acknowledged: &mut impl FnMut(CheckpointId)) -> Result {
    let mut job = go_on(fs, path)?;
    // What cannot be linked is referred to until the second drops it.
    for keep in [100, if path.starts_with(FAR) { 1 } else { 100 }] {
        let tables = job.tables.clone();
        match job.checkpoint(1, keep) {
            Ok(id) => acknowledged(id),
            Err(_) => job.tables = tables,
        }
        job.root.cleanup();
    }
    Ok(())
}

fn below<'a>(tree: &'a BTreeMap<PathBuf, Vec<u8>>, root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = root.strip_prefix("/").unwrap();
    let of: &'a BTreeMap<_, _> = tree;
    let mine = of.iter().filter(|(path, _)| path.starts_with(root));
    mine.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

/// What must hold after a crash: the job goes on from what was acknowledged, the claimed snapshot goes in the end, and
/// nothing else does.
fn check(sim: &SimFs, path: &Path, acknowledged: Option<CheckpointId>, what: &str) {
    let fs = seen(sim);
    for sibling in [1, 2] {
        check_snapshot(&fs, &job_root().join(format!("chk-{sibling}")))
            .unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    let mut job = go_on(&fs, path).unwrap_or_else(|e| panic!("{what}: {e}"));
    let newest = job.root.completed().first().copied();
    assert!(
        newest >= acknowledged,
        "{what}: {newest:?} is older than {acknowledged:?}"
    );
    for id in job.root.completed() {
        check_snapshot(&fs, &new_root().join(format!("chk-{id}"))).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    if newest.is_none() {
        check_snapshot(&fs, path).unwrap_or_else(|e| panic!("{what}: nothing is left to restore: {e}"));
    }
    let report = job.root.cleanup();
    assert!(report.error.is_none(), "{what}: {report:?}");
    let keep = if path.starts_with(FAR) { 1 } else { 100 };
    job.checkpoint(1, keep).unwrap_or_else(|e| panic!("{what}: {e}"));
    let report = job.root.cleanup();
    assert!(
        report.error.is_none() && report.backlog == 0,
        "{what}: {report:?}"
    );
    assert!(job.root.claim().is_none(), "{what}");
    assert_eq!(sim.facts(path).unwrap(), None, "{what}: {:?}", sim.list(path));
    let tree = sim.tree();
    for root in [new_root(), job_root()] {
        let tree = below(&tree, &root);
        assert_eq!(kept(&tree), needed(&tree), "{what}");
    }
    let here = below(&tree, Path::new("/sp")).len() + below(&tree, Path::new(FAR)).len();
    assert_eq!(here == 0, path != claimed_chk(), "{what}");
    let again = job.root.cleanup();
    assert_eq!(
        (again.objects, again.checkpoints.len(), again.source),
        (0, 0, None),
        "{what}"
    );
    assert_eq!(sim.tree(), tree, "{what}: the second cleanup changed something");
    drop(job);
    if path == claimed_chk() {
        // The old job never goes back silently, and never gives an id twice.
        assert!(open(&fs).unwrap().latest().is_err(), "{what}");
        let root = open(&fs)
            .unwrap()
            .start(options(Some(CheckpointId(2)), 3, 9))
            .unwrap();
        let mut old = TinyJob::new(fs.clone(), root);
        assert_eq!(old.checkpoint(0, 1).unwrap(), CheckpointId(4), "{what}");
    }
}

/// A disk and what is claimed on it: a savepoint, a checkpoint, or a savepoint on another file system.
fn scene(which: usize) -> (SimFs, PathBuf) {
    let sim = SimFs::new();
    let savepoint = disk(&sim, if which == 2 { FAR } else { "/sp" });
    (sim, if which == 1 { claimed_chk() } else { savepoint })
}

/// The file system as a process sees it.
fn seen(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(Mounts(Arc::new(sim.clone())))
}

#[test]
fn a_power_loss_at_any_step_is_rolled_forward_or_back() {
    let images = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        300
    } else {
        8
    };
    for which in [0, 1, 2] {
        let (sim, path) = scene(which);
        let fs = seen(&sim);
        let mut acknowledged = Vec::new();
        let start = sim.op_count();
        job(&fs, &path, &mut |id| acknowledged.push((sim.op_count(), id))).unwrap();
        assert_eq!(acknowledged.len(), 2);
        let mut last = BTreeSet::new();
        sim.each_crash_image(images, &mut Random::from_seed(5), |at, image| {
            if at < start {
                return;
            }
            let known = acknowledged
                .iter()
                .rev()
                .find(|(op, _)| *op <= at)
                .map(|(_, id)| *id);
            last.insert(known);
            check(image, &path, known, &format!("{} after {at}", path.display()));
        });
        assert_eq!(last.len(), 3, "before, between and after the checkpoints");
    }
}

#[test]
fn a_killed_process_is_gone_on_with_at_any_step() {
    for which in [0, 1, 2] {
        let (sim, path) = scene(which);
        let fs = seen(&sim);
        let start = sim.op_count();
        let mut acknowledged = Vec::new();
        job(&fs, &path, &mut |id| acknowledged.push((sim.op_count(), id))).unwrap();
        for at in start..=sim.op_count() {
            let known = acknowledged
                .iter()
                .rev()
                .find(|(op, _)| *op <= at)
                .map(|(_, id)| *id);
            let what = format!("{} killed after {at}", path.display());
            check(&sim.live_image_at(at), &path, known, &what);
        }
    }
}

/// Fails the n-th call for every n until the run does not reach it any more.
fn sweep(fault: Fault, forever: bool, which: usize) -> u64 {
    for nth in 1.. {
        let (sim, path) = scene(which);
        let faulty = FaultFs::new(seen(&sim));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let plan = FaultPlan::new(fault, nth);
        faulty.arm(if forever { plan.forever() } else { plan });
        let what = format!("{} {fault:?} at call {nth}, forever {forever}", path.display());
        let mut acknowledged = None;
        let ended = job(&fs, &path, &mut |id| acknowledged = Some(id));
        let reached = faulty.triggered() > 0;
        faulty.heal();
        if let Err(error) = ended
            && !forever
        {
            // A failed submission leaves no claim: whoever comes next gets the snapshot.
            let healthy = seen(&sim.live_image());
            let source = ForeignSnapshot::open(healthy.clone(), &path, Anchors::default()).unwrap();
            let claim = source.claimed_by().unwrap();
            assert!(claim.is_none(), "{what}: {error}");
            start_from(&healthy, OTHER, &path, ClaimMode::Claim, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        check(
            &sim.strict_image(sim.op_count()),
            &path,
            acknowledged,
            &format!("{what}, then power loss"),
        );
        check(&sim.live_image(), &path, acknowledged, &what);
        if !reached {
            return nth;
        }
    }
    unreachable!("the run is finite")
}

#[test]
fn any_failing_call_costs_no_state_and_leaks_nothing() {
    let full = std::env::var_os("KEYBED_TEST_FULL").is_some();
    let mut runs = 0;
    for fault in Fault::ALL {
        for forever in [false, true] {
            // Every call can fail with an error of the medium; the other faults are those of single calls.
            if full || !forever || *fault == Fault::Eio {
                runs += (0..3).map(|which| sweep(*fault, forever, which)).sum::<u64>();
            }
        }
    }
    assert!(runs > 500, "{runs} runs");
}

#[test]
fn a_release_is_whole_or_can_be_repeated() {
    for which in [0, 1, 2] {
        for fault in [Fault::Eio, Fault::FailedSync, Fault::Erofs] {
            for nth in 1.. {
                let (sim, path) = scene(which);
                let faulty = FaultFs::new(seen(&sim));
                let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
                let job = start_from(&fs, NEW, &path, ClaimMode::Claim, 1).unwrap();
                faulty.arm(FaultPlan::new(fault, nth));
                let released = job.root.release_source();
                let reached = faulty.triggered() > 0;
                faulty.heal();
                if released.is_err() {
                    job.root.release_source().unwrap();
                }
                drop(job);
                for image in [sim.strict_image(sim.op_count()), sim.live_image()] {
                    let fs = seen(&image);
                    check_snapshot(&fs, &path).unwrap();
                    start_from(&fs, OTHER, &path, ClaimMode::Claim, 1).unwrap();
                }
                if !reached {
                    break;
                }
            }
        }
    }
}

#[test]
fn files_are_never_unlinked_before_the_metadata_is_hidden_for_good() {
    // Independent of what is left: by the order of calls.
    for which in [0, 1, 2] {
        let (sim, path) = scene(which);
        let faulty = FaultFs::new(seen(&sim));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        job(&fs, &path, &mut |_| {}).unwrap();
        let of_source = |p: &Path| p.starts_with(&path) || p.starts_with(job_root().join("shared"));
        let calls: Vec<_> = faulty.log().into_iter().filter(|c| of_source(&c.path)).collect();
        let hidden = calls.iter().position(|c| c.op == FsOp::Rename).unwrap();
        let synced = hidden
            + calls[hidden..]
                .iter()
                .position(|c| c.op == FsOp::SyncDir)
                .unwrap();
        let removes = |c: &keybed_env::fs::FsCall| {
            c.op == FsOp::RemoveFile && c.path.to_string_lossy().contains("/g1-")
        };
        let first = calls.iter().position(removes).unwrap();
        assert!(hidden < synced && synced < first, "{calls:#?}");
        let list = calls
            .iter()
            .rposition(|c| c.path.ends_with("_disposing") && c.op == FsOp::RemoveFile)
            .unwrap();
        assert!(calls.iter().rposition(removes).unwrap() < list);
    }
}
