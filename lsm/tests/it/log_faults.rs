//! If this fails, one refused call of the operating system makes a store lose an acknowledged write, keep one that it
//! refused, or never recover.

use crate::logged::{Logged, Models, Program};
use crate::support::disk;
use keybed_env::{
    FaultFs, Random, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::{Code, Result};
use keybed_lsm::Durability;
use std::sync::Arc;

/// Writes, flushes, syncs, reopens. Ends at the first error.
fn scenario(
    fs: &FaultFs,
    durability: Durability,
    open: &mut Option<Logged>,
    program: &mut Program,
) -> Result {
    let mut random = Random::from_seed(3);
    for round in 0..70 {
        let logged = match open {
            Some(logged) => logged,
            None => open.insert(Logged::open(Arc::new(fs.clone()), 10 + round, durability)?),
        };
        program.step(logged, &mut random)?;
        program.tried.clone_from(&program.models);
        match round {
            15 | 47 => logged.store.flush()?,
            25 => logged.store.sync()?,
            30 => drop(open.take()),
            40 => logged.store.wait_for_background()?,
            55 => open.take().map_or(Ok(()), |logged| logged.store.close())?,
            _ => {}
        }
    }
    Ok(())
}

fn expect(found: &Models, program: &Program, may_be_tried: bool, what: &str) {
    let right = *found == program.models || (may_be_tried && *found == program.tried);
    assert!(
        right,
        "{what}: neither what was acknowledged nor that and the last try"
    );
}

#[test]
fn every_call_can_fail_in_every_way() {
    let mut runs = 0;
    for durability in [Durability::Buffered, Durability::Sync] {
        for fault in Fault::ALL {
            for forever in [false, true] {
                for nth in 1.. {
                    let sim = disk();
                    let fs = FaultFs::new(sim.clone());
                    let plan = FaultPlan::new(*fault, nth);
                    fs.arm(if forever { plan.forever() } else { plan });
                    let (mut open, mut program) = (None, Program::default());
                    let outcome = scenario(&fs, durability, &mut open, &mut program);
                    let Some(call) = fs.first_fault() else {
                        outcome.unwrap();
                        break;
                    };
                    let how = if forever { " for ever" } else { "" };
                    let what = format!("{durability:?}, {fault:?}{how} at {call}");
                    recover(&fs, &sim, durability, open, program, &what);
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 1000, "{runs} runs");
}

/// After the fault has passed the store goes on, or says that it must be opened again and that works.
fn recover(
    fs: &FaultFs,
    sim: &Arc<SimFs>,
    durability: Durability,
    open: Option<Logged>,
    mut program: Program,
    what: &str,
) {
    fs.heal();
    let mut random = Random::from_seed(4);
    let mut may_be_tried = true;
    if let Some(mut logged) = open {
        let content = logged
            .content()
            .unwrap_or_else(|e| panic!("{what}: reads do not go on: {e}"));
        expect(&content, &program, false, what);
        match logged.store.flush() {
            Ok(()) => {
                // A refused write left nothing behind.
                may_be_tried = false;
                for _ in 0..10 {
                    program
                        .step(&mut logged, &mut random)
                        .unwrap_or_else(|e| panic!("{what}: {e}"));
                }
                assert_eq!(
                    logged.content().unwrap(),
                    program.models,
                    "{what}: after going on"
                );
            }
            Err(e) => {
                assert_eq!(e.code(), Code::Poisoned, "{what}: {e}");
                let tried = program.tried.clone();
                assert_eq!(
                    program.step(&mut logged, &mut random).unwrap_err().code(),
                    Code::Poisoned,
                    "{what}"
                );
                program.tried = tried;
            }
        }
    }
    let logged =
        Logged::open(sim.clone(), 99, durability).unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
    let found = logged.content().unwrap_or_else(|e| panic!("{what}: {e}"));
    expect(&found, &program, may_be_tried, what);
}

#[test]
fn a_full_disk_refuses_writes_and_then_takes_them_again() {
    let fs = FaultFs::new(disk());
    let mut logged = Logged::open(Arc::new(fs.clone()), 1, Durability::Buffered).unwrap();
    let mut random = Random::from_seed(1);
    let mut program = Program::default();
    for _ in 0..3 {
        for _ in 0..30 {
            program.step(&mut logged, &mut random).unwrap();
        }
        fs.arm(FaultPlan::new(Fault::Enospc, 1).forever());
        let refused = loop {
            if let Err(error) = program.step(&mut logged, &mut random) {
                break error;
            }
        };
        assert_eq!(refused.code(), Code::BackendReadOnly, "{refused}");
        assert_eq!(logged.content().unwrap(), program.models);
        fs.heal();
        for _ in 0..30 {
            program.step(&mut logged, &mut random).unwrap();
        }
        assert_eq!(logged.content().unwrap(), program.models);
    }
    drop(logged);
    let logged = Logged::open(Arc::new(fs), 2, Durability::Buffered).unwrap();
    assert_eq!(logged.content().unwrap(), program.models);
}

#[test]
fn a_failed_sync_is_final() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let fs = FaultFs::new(disk());
        let mut logged = Logged::open(Arc::new(fs.clone()), 1, durability).unwrap();
        let mut random = Random::from_seed(1);
        let mut program = Program::default();
        for _ in 0..5 {
            program.step(&mut logged, &mut random).unwrap();
        }
        let is_log = |path: &std::path::Path| path.to_string_lossy().contains("WAL");
        fs.arm(
            FaultPlan::new(Fault::FailedSync, 1)
                .only(&[FsOp::Sync])
                .on_path(is_log),
        );
        logged
            .store
            .put(logged.families[0], b"last", b"v")
            .unwrap_or_default();
        if durability == Durability::Buffered {
            assert_eq!(logged.store.sync().unwrap_err().code(), Code::Poisoned);
        }
        assert_eq!(fs.triggered(), 1);
        fs.heal();
        let calls = fs.log().iter().filter(|call| call.op == FsOp::Sync).count();
        assert_eq!(logged.store.sync().unwrap_err().code(), Code::Poisoned);
        assert_eq!(
            logged
                .store
                .put(logged.families[0], b"k", b"v")
                .unwrap_err()
                .code(),
            Code::Poisoned
        );
        assert_eq!(
            fs.log().iter().filter(|call| call.op == FsOp::Sync).count(),
            calls,
            "synced again"
        );
        assert_eq!(logged.content().unwrap()[1..], program.models[1..], "reads go on");
    }
}
