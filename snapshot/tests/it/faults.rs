//! If this fails, one failing call of the operating system costs more than the checkpoint it hit.

use crate::support::*;
use keybed_env::{
    FaultFs, Fs, SimFs,
    fs::{Fault, FaultPlan},
};
use keybed_format::Result;
use keybed_snapshot::{CheckpointId, verify};
use std::{path::Path, sync::Arc};

/// Takes a root over and takes three checkpoints, going on after failures as a coordinator does.
fn job(fs: &Arc<dyn Fs>, acknowledged: &mut Option<CheckpointId>) -> Result {
    let mut job = TinyJob::new(fs.clone(), resume(fs, 1, 1)?);
    job.root.cleanup();
    for _ in 0..4 {
        let tables = job.tables.clone();
        match job.checkpoint(1, 2) {
            Ok(id) => *acknowledged = Some(id),
            // A checkpoint that failed or whose outcome is unknown: the job goes on from what is confirmed.
            Err(_) => job.tables = tables,
        }
        job.root.cleanup();
    }
    Ok(())
}

fn check(fs: &Arc<dyn Fs>, acknowledged: Option<CheckpointId>, what: &str) -> usize {
    let opened = open(fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let latest = opened.latest().unwrap_or_else(|e| panic!("{what}: {e}"));
    let id = latest.map(|metadata| metadata.checkpoint);
    assert!(
        id >= acknowledged,
        "{what}: {id:?} is older than {acknowledged:?}, which was acknowledged"
    );
    let root = opened
        .start(options(id, 1, 9))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let report = root.cleanup();
    assert!(
        report.error.is_none() && report.backlog == 0,
        "{what}: {report:?}"
    );
    for id in root.completed() {
        let verification = verify(&root.load(id).unwrap(), &*root.open_files(id));
        verification.verdict().unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    root.completed().len()
}

/// Fails the n-th call for every n until the run does not reach it any more.
fn sweep(fault: Fault, forever: bool) -> u64 {
    for nth in 1.. {
        let sim = SimFs::new();
        sim.create_dir_all(Path::new(WORK)).unwrap();
        sim.settle();
        let faulty = FaultFs::new(Arc::new(sim.clone()));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let plan = FaultPlan::new(fault, nth);
        faulty.arm(if forever { plan.forever() } else { plan });
        let what = format!("{fault:?} at call {nth}, forever {forever}");
        let mut acknowledged = None;
        let ended = job(&fs, &mut acknowledged);
        assert!(
            ended.is_ok() || acknowledged.is_none(),
            "{what}: a running job ended: {ended:?}"
        );
        if faulty.triggered() == 0 {
            assert_eq!(acknowledged, Some(CheckpointId(4)), "{what}");
            return nth;
        }
        faulty.heal();
        let lost: Arc<dyn Fs> = Arc::new(sim.strict_image(sim.op_count()));
        check(&lost, acknowledged, &format!("{what}, then power loss"));
        check(&fs, acknowledged, &what);
        let tree = sim.tree();
        assert_eq!(kept(&tree), needed(&tree), "{what}");
    }
    unreachable!("the run is finite")
}

#[test]
fn any_failing_call_costs_at_most_the_checkpoint_it_hit() {
    let mut runs = 0;
    for fault in Fault::ALL {
        for forever in [false, true] {
            runs += sweep(*fault, forever);
        }
    }
    assert!(runs > 1000, "{runs} runs");
}
