//! If a fault were not injected where the plan says, fail-the-n-th-call tests would pass without testing.

use keybed_env::{
    CountFs, FaultFs, Fs, SimFs,
    fs::{Fault, FaultPlan, FsOp},
};
use keybed_format::{Code, Result};
use std::{path::Path, sync::Arc};

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn pair() -> (Arc<SimFs>, FaultFs) {
    let sim = Arc::new(SimFs::new());
    (sim.clone(), FaultFs::new(sim))
}

fn scenario(fs: &dyn Fs) -> Result<Vec<u8>> {
    fs.create_dir_all(path("dir"))?;
    fs.write_atomic(path("dir/a"), path("dir/a.tmp"), b"bytes")?;
    fs.read(path("dir/a"), 100)
}

#[test]
fn every_call_of_a_scenario_can_fail() {
    for fault in Fault::ALL {
        let mut hits = Vec::new();
        for nth in 1.. {
            let (_, fs) = pair();
            fs.arm(FaultPlan::new(*fault, nth));
            let outcome = scenario(&fs);
            let Some(call) = fs.first_fault() else {
                assert_eq!(outcome.unwrap(), b"bytes");
                break;
            };
            assert_eq!(fs.triggered(), 1);
            assert!(outcome.is_err(), "{fault:?} at {call} went unnoticed");
            assert!(fault.applies_to(call.op));
            hits.push(call.op);
        }
        // Each fault meets exactly the calls of a clean run that it applies to.
        let (_, clean) = pair();
        scenario(&clean).unwrap();
        let expected: Vec<_> = clean
            .log()
            .iter()
            .map(|c| c.op)
            .filter(|op| fault.applies_to(*op))
            .collect();
        assert_eq!(hits, expected, "{fault:?}");
        assert!(!hits.is_empty(), "{fault:?}");
    }
}

#[test]
fn faults_have_the_codes_of_the_operating_system() {
    let (_, fs) = pair();
    let met = |fault| {
        fs.arm(FaultPlan::new(fault, 1));
        let error = fs.create(path("new")).unwrap_err();
        fs.heal();
        (error.code(), error.io_kind())
    };
    assert_eq!(met(Fault::Eio).0, Code::IoFailed);
    assert_eq!(
        met(Fault::Enospc),
        (Code::IoFailed, Some(std::io::ErrorKind::StorageFull))
    );
    assert_eq!(met(Fault::Erofs).0, Code::ReadOnlyMedium);
    assert_eq!(met(Fault::Emfile).0, Code::TooManyOpenFiles);
}

#[test]
fn a_fault_is_once_or_for_ever_and_heals() {
    let (_, fs) = pair();
    let tries = || (0..4).map(|_| fs.facts(path("a")).is_ok()).collect::<Vec<_>>();
    fs.arm(FaultPlan::new(Fault::Eio, 2));
    assert_eq!(tries(), [true, false, true, true]);
    fs.arm(FaultPlan::new(Fault::Eio, 2).forever());
    assert_eq!(tries(), [true, false, false, false]);
    assert_eq!(fs.triggered(), 3);
    fs.heal();
    assert_eq!(tries(), [true; 4]);
    assert_eq!(fs.calls(), 12);
}

#[test]
fn plans_pick_calls_and_paths() {
    let (_, fs) = pair();
    fs.arm(
        FaultPlan::new(Fault::Eio, 1)
            .only(&[FsOp::Rename])
            .on_path(|p| p.ends_with("b")),
    );
    fs.create(path("a")).unwrap();
    fs.create(path("b")).unwrap();
    fs.rename(path("a"), path("c")).unwrap();
    let error = fs.rename(path("c"), path("b")).unwrap_err();
    assert_eq!(error.fields(), [("injected", "Eio".to_owned())]);
    assert_eq!(fs.first_fault().unwrap().to_string(), "call 4: rename b → Eio");
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let (sim, fs) = pair();
    fs.arm(FaultPlan::new(Fault::ShortWrite, 2));
    let mut file = fs.create(path("a")).unwrap();
    file.append(b"first ").unwrap();
    file.append(b"second").unwrap_err();
    assert_eq!(sim.tree()[path("a")], b"first sec");
}

#[test]
fn a_failed_sync_loses_the_bytes_for_good() {
    let (sim, fs) = pair();
    let mut file = fs.create(path("a")).unwrap();
    fs.sync_dir(path(".")).unwrap();
    file.append(b"lost").unwrap();
    fs.arm(FaultPlan::new(Fault::FailedSync, 1));
    file.sync().unwrap_err();
    file.sync().unwrap();
    assert_eq!(sim.tree()[path("a")], b"lost");
    assert_eq!(sim.strict_image(sim.op_count()).tree()[path("a")], [0; 4]);
}

#[test]
fn counters_count_calls_and_bytes() {
    let sim = Arc::new(SimFs::new());
    let fs = CountFs::new(sim);
    scenario(&fs).unwrap();
    let first = fs.counts();
    assert_eq!(
        (
            first.of(FsOp::Create),
            first.of(FsOp::Sync),
            first.of(FsOp::SyncDir)
        ),
        (1, 1, 2)
    );
    assert_eq!(
        (first.bytes_written, first.bytes_synced, first.bytes_read),
        (5, 5, 5)
    );
    let mut file = fs.append(path("dir/a")).unwrap();
    file.append(b"123").unwrap();
    fs.copy(path("dir/a"), path("dir/b")).unwrap();
    let more = fs.counts().since(&first);
    assert_eq!((more.bytes_written, more.bytes_synced), (11, 0));
    assert_eq!(more.total(), 3);
    file.sync().unwrap();
    assert_eq!(fs.counts().since(&first).bytes_synced, 3);
}

#[test]
fn a_full_medium_is_met_where_space_is_reserved_and_not_where_it_was() {
    let fs = FaultFs::new(Arc::new(SimFs::new()));
    let mut file = fs.create(Path::new("log")).unwrap();
    file.reserve(100).unwrap();
    fs.arm(FaultPlan::new(Fault::Enospc, 1).forever());
    file.append(&[1; 100]).unwrap();
    file.sync().unwrap();
    assert_eq!(fs.triggered(), 0);
    assert!(file.reserve(1).is_err());
    assert!(file.append(b"x").is_err());
    fs.heal();
    file.reserve(1).unwrap();
    file.append(b"x").unwrap();
    assert_eq!(file.len(), 101);
}
