//! If these fail, an error of the local disk during a checkpoint costs state, or blocks the task.

use crate::world::{OPERATOR, World};
use keybed_env::{
    Fs, SimFs,
    fs::{CountFs, Fault, FaultFs, FaultPlan},
};
use keybed_format::{Code, Result};
use keybed_snapshot::{BackendKind, CheckpointId, SnapshotKind};
use std::{path::Path, sync::Arc};

const KINDS: [BackendKind; 2] = [BackendKind::Heap, BackendKind::Lsm];

fn try_write(world: &mut World, keys: std::ops::Range<u64>, value: u64) -> Result {
    let (total, recent) = (world.tokens.total, world.tokens.recent);
    for key in keys {
        total.set(world.at(key), &value)?;
        recent.push(world.at(key), &format!("{value}"))?;
    }
    Ok(())
}

fn write(world: &mut World, keys: std::ops::Range<u64>, value: u64) {
    try_write(world, keys, value).unwrap();
}

fn reference(kind: BackendKind, last: u64) -> keybed_state::processor::LogicalDigest {
    let mut world = World::new(kind, 2, 64 << 10);
    for value in 1..=last {
        write(&mut world, 0..50 / value, value);
    }
    let handles = world.checkpoint(1);
    world.digest(&handles)
}

#[test]
fn a_checkpoint_whose_disk_fails_is_declined_and_the_next_one_is_whole() {
    for kind in KINDS {
        let mut poisoned = 0;
        let expected = [reference(kind, 2), reference(kind, 3)];
        for fault in [Fault::Eio, Fault::Enospc, Fault::ShortRead, Fault::ShortWrite] {
            for nth in 1.. {
                let fs = FaultFs::new(Arc::new(SimFs::without_history()));
                let mut world = World::on(Arc::new(fs.clone()), kind, 2, 64 << 10);
                write(&mut world, 0..50, 1);
                world.checkpoint(1);
                write(&mut world, 0..25, 2);
                fs.arm(FaultPlan::new(fault, nth));
                let attempt = world.prepare(2, SnapshotKind::Checkpoint);
                match world.try_write(attempt) {
                    Ok(handles) => {
                        assert_eq!(
                            world.digest(&handles),
                            expected[0],
                            "{OPERATOR} {kind:?} {fault:?} {nth}"
                        );
                        world.complete(CheckpointId(2), handles);
                    }
                    Err(_) => world.abort(CheckpointId(2)),
                }
                let met = fs.triggered() > 0;
                fs.heal();
                if let Err(error) = try_write(&mut world, 0..16, 3) {
                    // The store cannot know what its manifest says: the job restarts from the last checkpoint.
                    assert_eq!(error.code(), Code::Poisoned, "{kind:?} {fault:?} {nth}");
                    poisoned += 1;
                    world.restore(2).unwrap();
                    write(&mut world, 0..25, 2);
                    write(&mut world, 0..16, 3);
                }
                let handles = world.checkpoint(3);
                assert_eq!(world.digest(&handles), expected[1], "{kind:?} {fault:?} {nth}");
                world.restore(3).unwrap();
                let total = world.tokens.total;
                for key in 0..50 {
                    let value = if key < 16 {
                        3
                    } else if key < 25 {
                        2
                    } else {
                        1
                    };
                    assert_eq!(
                        total.get(world.at(key)).unwrap(),
                        Some(value),
                        "{kind:?} {fault:?} {nth}"
                    );
                }
                if !met {
                    break;
                }
                assert!(nth < 1000, "the fault is met for ever");
            }
        }
        assert_eq!(poisoned > 0, kind == BackendKind::Lsm);
    }
}

/// Names in the work directories of the first attempt that no backend keeps.
fn scratch_files(fs: &FaultFs) -> Vec<String> {
    let names = ["/work/1-0", "/work/1-1"].map(|dir| fs.list(Path::new(dir)).unwrap());
    let names = names.into_iter().flatten().map(|entry| entry.name);
    names
        .filter(|name| name.starts_with("sort-") || name.starts_with("canonical-"))
        .collect()
}

#[test]
fn a_canonical_savepoint_whose_disk_fails_leaves_the_job_and_no_scratch_file() {
    for kind in KINDS {
        for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite] {
            let mut failed = 0;
            for nth in 1.. {
                let fs = FaultFs::new(Arc::new(SimFs::without_history()));
                let mut world = World::on(Arc::new(fs.clone()), kind, 2, 4 << 10);
                write(&mut world, 0..20, 1);
                for time in 0..120 {
                    world.at(3).register_timer(time, &[]).unwrap();
                }
                let checkpoint = world.checkpoint(1);
                let expected = world.digest(&checkpoint);
                fs.arm(FaultPlan::new(fault, nth));
                let attempt = world.prepare(2, SnapshotKind::CanonicalSavepoint);
                let written = world.try_write(attempt);
                let met = fs.triggered() > 0;
                fs.heal();
                match written {
                    Ok(handles) => assert_eq!(world.digest(&handles), expected, "{kind:?} {fault:?} {nth}"),
                    Err(_) => failed += 1,
                }
                // A file whose removal fails goes with the directory.
                assert!(scratch_files(&fs).len() <= 1, "{kind:?} {fault:?} {nth}");
                let handles = world.checkpoint(3);
                assert_eq!(world.digest(&handles), expected, "{kind:?} {fault:?} {nth}");
                if !met {
                    assert!(scratch_files(&fs).is_empty());
                    assert!(
                        world.stats.sort_files == 0 && failed > 5,
                        "{kind:?} {fault:?} {failed}"
                    );
                    break;
                }
                assert!(nth < 1000, "the fault is met for ever");
            }
        }
    }
}

#[test]
fn a_restore_whose_disk_fails_can_be_repeated() {
    restore_with_faults(SnapshotKind::Checkpoint);
}

#[test]
fn a_restore_of_a_canonical_savepoint_whose_disk_fails_can_be_repeated() {
    restore_with_faults(SnapshotKind::CanonicalSavepoint);
}

fn restore_with_faults(snapshot: SnapshotKind) {
    for kind in KINDS {
        let mut met_count = 0;
        for nth in 1.. {
            let fs = FaultFs::new(Arc::new(SimFs::without_history()));
            let mut world = World::on(Arc::new(fs.clone()), kind, 2, 64 << 10);
            write(&mut world, 0..50, 1);
            let attempt = world.prepare(1, snapshot);
            let handles = world.write(attempt);
            let digest = world.digest(&handles);
            world.completed = handles;
            fs.arm(FaultPlan::new(Fault::Eio, nth));
            let restored = world.restore(1);
            let met = fs.triggered() > 0;
            met_count += u32::from(met);
            fs.heal();
            if restored.is_err() {
                assert!(met, "{:?}", restored.err());
                world.restore(1).unwrap();
            }
            let handles = world.checkpoint(2);
            assert_eq!(world.digest(&handles), digest, "{kind:?} {nth}");
            if !met {
                break;
            }
        }
        assert!(met_count > 3, "{kind:?}: {met_count}");
    }
}

#[test]
fn preparing_touches_no_file() {
    for kind in KINDS {
        let fs = CountFs::new(Arc::new(SimFs::without_history()));
        let mut world = World::on(Arc::new(fs.clone()), kind, 2, 1 << 20);
        write(&mut world, 0..500, 1);
        world.checkpoint(1);
        write(&mut world, 0..500, 2);
        for snapshot in [SnapshotKind::Checkpoint, SnapshotKind::CanonicalSavepoint] {
            let before = fs.counts();
            let attempt = world.prepare(2, snapshot);
            assert_eq!(fs.counts().since(&before).total(), 0, "{kind:?}");
            world.write(attempt);
            assert!(fs.counts().since(&before).total() > 0);
        }
    }
}
