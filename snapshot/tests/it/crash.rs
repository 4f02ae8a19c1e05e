//! If this fails, a power loss during a checkpoint, its publication or the deletion of an older one loses the
//! checkpoint that was reported complete, leaves half of one, or leaves files that nobody ever deletes.

use crate::support::*;
use keybed_env::{Fs, Random, SimFs};
use keybed_snapshot::{CheckpointId, Metadata, Scope, SnapshotDir, SnapshotKind, metadata::decode, verify};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// What the run was told: after this many operations, this checkpoint was reported complete.
struct Run {
    sim: SimFs,
    acknowledged: Vec<(u64, CheckpointId)>,
    tried: BTreeMap<CheckpointId, Metadata>,
}

/// From an empty disk: three checkpoints and a failed one, retention 1, a cleanup after each, then a second owner.
fn run() -> Run {
    let sim = SimFs::new();
    sim.create_dir_all(Path::new(WORK)).unwrap();
    sim.settle();
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let mut run = Run {
        sim,
        acknowledged: Vec::new(),
        tried: BTreeMap::new(),
    };
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 1).unwrap());
    run.step(&mut job, 2);
    let failed = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
    job.put(failed, Scope::Shared).unwrap();
    job.root.abort(failed);
    run.step(&mut job, 1);
    run.step(&mut job, 2);
    let tables = std::mem::take(&mut job.tables);
    drop(job);
    let mut job = TinyJob::new(fs.clone(), resume(&fs, 1, 2).unwrap());
    job.tables = tables;
    run.step(&mut job, 1);
    run
}

impl Run {
    fn step(&mut self, job: &mut TinyJob, new: usize) {
        let id = job.root.allocate(SnapshotKind::Checkpoint, 5).unwrap().checkpoint;
        let metadata = job.fill(id, new, 3).unwrap();
        job.root.publish(&metadata).unwrap();
        self.acknowledged.push((self.sim.op_count(), id));
        self.tried.insert(id, metadata);
        let report = job.root.cleanup();
        assert!(report.error.is_none(), "{report:?}");
    }

    fn acknowledged_at(&self, op: u64) -> Option<CheckpointId> {
        self.acknowledged
            .iter()
            .rev()
            .find(|(at, _)| *at <= op)
            .map(|(_, id)| *id)
    }

    /// A new process on a disk that a power loss after operation `at` left behind.
    fn check(&self, at: u64, image: &SimFs) -> Option<CheckpointId> {
        let fs: Arc<dyn Fs> = Arc::new(image.clone());
        // Whatever can be addressed is whole, also what is about to be deleted.
        for path in image.tree().keys().filter(|path| path.ends_with("_metadata")) {
            let snapshot = SnapshotDir::open(fs.clone(), &Path::new("/").join(path)).unwrap();
            let verification = verify(snapshot.metadata(), &snapshot);
            verification
                .verdict()
                .unwrap_or_else(|e| panic!("after {at}: {e}"));
        }
        let opened = open(&fs).unwrap_or_else(|e| panic!("after {at}: {e}"));
        let latest = opened.latest().unwrap_or_else(|e| panic!("after {at}: {e}"));
        let id = latest.as_ref().map(|metadata| metadata.checkpoint);
        assert!(
            id >= self.acknowledged_at(at),
            "after {at}: {id:?} is older than what was acknowledged"
        );
        assert_eq!(latest.as_ref(), id.map(|id| &self.tried[&id]), "after {at}");
        let root = opened
            .start(options(id, 1, at))
            .unwrap_or_else(|e| panic!("after {at}: {e}"));
        let report = root.cleanup();
        assert!(
            report.error.is_none() && report.backlog == 0,
            "after {at}: {report:?}"
        );
        for id in root.completed() {
            let verification = verify(&root.load(id).unwrap(), &*root.open_files(id));
            verification
                .verdict()
                .unwrap_or_else(|e| panic!("after {at}: {e}"));
        }
        let tree = image.tree();
        assert_eq!(kept(&tree), needed(&tree), "after {at}");
        let again = root.cleanup();
        assert_eq!(
            (again.checkpoints.len(), again.objects),
            (0, 0),
            "after {at}: the second sweep found more"
        );
        id
    }
}

#[test]
fn every_crash_image_restores_a_whole_checkpoint_and_sweeps_the_rest() {
    let run = run();
    let mut recovered: BTreeMap<Option<CheckpointId>, u64> = BTreeMap::new();
    let mut images = 0_u64;
    let distinct = run
        .sim
        .each_crash_image(1000, &mut Random::from_seed(7), |at, image| {
            images += 1;
            *recovered.entry(run.check(at, image)).or_default() += 1;
        });
    assert!(
        distinct >= 20_000,
        "{distinct} distinct images of {images}: {recovered:?}"
    );
    assert_eq!(
        recovered.len(),
        5,
        "every checkpoint and none were recovered: {recovered:?}"
    );
}

#[test]
fn a_crash_during_recovery_loses_nothing() {
    let run = run();
    let mut random = Random::from_seed(11);
    for _ in 0..60 {
        let at = random.below(run.sim.op_count() + 1);
        let first = run.sim.crash_image(at, &mut random);
        run.check(at, &first);
        for _ in 0..10 {
            let second = first.crash_image(random.below(first.op_count() + 1), &mut random);
            run.check(at, &second);
        }
    }
}

#[test]
fn a_killed_process_leaves_what_a_crash_without_loss_leaves() {
    let run = run();
    for at in 0..=run.sim.op_count() {
        run.check(at, &run.sim.live_image_at(at));
    }
}

#[test]
fn images_decode_or_do_not_exist() {
    let run = run();
    let whole = |bytes: &Vec<u8>| decode(bytes).map(|metadata| run.tried[&metadata.checkpoint] == metadata);
    run.sim
        .each_crash_image(20, &mut Random::from_seed(3), |at, image| {
            for (path, bytes) in image
                .tree()
                .iter()
                .filter(|(path, _)| path.ends_with("_metadata"))
            {
                assert_eq!(whole(bytes).ok(), Some(true), "after {at}: {}", path.display());
            }
        });
}
