//! If this fails, two jobs own one snapshot and destroy each other's state.

use crate::support::*;
use keybed_env::{Fs, OsFs, SimFs};
use keybed_format::Code;
use keybed_snapshot::{Anchors, ClaimMode, ForeignSnapshot, JobId, SavepointTarget};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
};

const ROUNDS: usize = 20;
const CLAIMERS: u128 = 4;

/// A savepoint and a checkpoint of a job that is gone.
fn disk() -> (SimFs, [PathBuf; 2]) {
    let sim = SimFs::without_history();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut old = TinyJob::new(fs.clone(), resume(&fs, 3, 1).unwrap());
    let id = old.checkpoint(2, 100).unwrap();
    let savepoint = old.savepoint(&SavepointTarget::new(fs, "/sp"), 41).unwrap();
    (sim, [savepoint, job_root().join(format!("chk-{id}"))])
}

#[test]
fn of_claimers_at_once_exactly_one_wins() {
    for round in 0..ROUNDS {
        let (sim, paths) = disk();
        let path = &paths[round % 2];
        let gate = Barrier::new(CLAIMERS as usize);
        let winners: Vec<JobId> = std::thread::scope(|scope| {
            let claimers: Vec<_> = (1..=CLAIMERS)
                .map(|n| {
                    let fs: Arc<dyn Fs> = Arc::new(sim.process());
                    let gate = &gate;
                    scope.spawn(move || {
                        gate.wait();
                        match start_from(&fs, JobId(n), path, ClaimMode::Claim, 1) {
                            // Kept to the end: a claim outlives its process, and a lock must not help.
                            Ok(job) => Some(job),
                            // Whoever claims a checkpoint holds its root for that moment.
                            Err(e) if matches!(e.code(), Code::SnapshotClaimedByOther | Code::Locked) => None,
                            Err(e) => panic!("round {round}: {e}"),
                        }
                    })
                })
                .collect();
            let jobs: Vec<_> = claimers.into_iter().filter_map(|c| c.join().unwrap()).collect();
            jobs.iter().map(|job| job.root.job()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let fs: Arc<dyn Fs> = Arc::new(sim);
        let source = ForeignSnapshot::open(fs, path, Anchors::default()).unwrap();
        assert_eq!(source.claimed_by().unwrap().unwrap().claimant.job, winners[0]);
    }
}

#[test]
fn on_a_real_file_system_too() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, paths) = disk();
    // The same disk in a real directory.
    for (path, bytes) in sim.tree() {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    for path in paths {
        let path = dir.path().join(path.strip_prefix("/").unwrap());
        let claim = |job: u128| {
            let root = keybed_snapshot::LocalStorage::create(fs.clone(), dir.path(), JobId(job)).unwrap();
            let opened = keybed_snapshot::OpenRoot::open(Arc::new(root), JobId(job)).unwrap();
            let source = ForeignSnapshot::open(fs.clone(), &path, Anchors::default()).unwrap();
            opened
                .start_from_snapshot(source, ClaimMode::Claim, options(None, 1, 1))
                .map(|root| root.job())
        };
        let gate = Barrier::new(CLAIMERS as usize);
        let won: Vec<_> = std::thread::scope(|scope| {
            let (gate, claim) = (&gate, &claim);
            let claimers: Vec<_> = (1..=CLAIMERS)
                .map(|n| {
                    scope.spawn(move || {
                        gate.wait();
                        claim(n)
                    })
                })
                .collect();
            claimers.into_iter().map(|c| c.join().unwrap()).collect()
        });
        let winners: Vec<_> = won.iter().filter_map(|w| w.as_ref().ok().copied()).collect();
        assert_eq!(winners.len(), 1, "{won:?}");
        assert_eq!(claim(winners[0].0).unwrap(), winners[0], "the same job goes on");
        assert_eq!(claim(99).unwrap_err().code(), Code::SnapshotClaimedByOther);
    }
}
