//! If this fails, a savepoint of a running job harms the job, is used by it, or cannot live without it.

use crate::world::{Bomb, Input, Machine, checkpoints, expected_output, input, pipeline, results};
use keybed_env::{
    Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, FileKind, SimFs},
};
use keybed_format::{Code, Result};
use keybed_runtime::{
    Backend, CheckpointScope, Checkpoints, Job, JobOptions, Outcome, RestartStrategy, SavepointFormat,
    SavepointReport, SavepointTicket,
};
use keybed_snapshot::{JobId, SnapshotDir, verify};
use std::{path::Path, sync::Arc, time::Duration};

pub(crate) const LSM: Backend = Backend::Lsm { memtable_bytes: 4096 };
pub(crate) const FORMATS: [SavepointFormat; 2] = [SavepointFormat::Native, SavepointFormat::Canonical];
pub(crate) const TARGET: &str = "backup/sp";

pub(crate) fn options(machine: &Machine, backend: Backend, interval: Duration, restarts: u32) -> JobOptions {
    let mut checkpoints = Checkpoints::every(interval, "ckpt").retain(2);
    checkpoints.keep_when_finished = true;
    JobOptions {
        checkpoints: Some(checkpoints),
        restart: Some(RestartStrategy::FixedDelay {
            attempts: restarts,
            delay: Duration::from_micros(10),
        }),
        throttle: Some(20_000),
        ..machine.options(JobId(7), 2, backend)
    }
}

pub(crate) fn orders(seed: u64) -> Arc<Input> {
    Arc::new(input(&mut Random::from_seed(seed), 3, 200))
}

pub(crate) fn ask(job: &Job, format: SavepointFormat) -> SavepointTicket {
    job.request_savepoint(format, Some(Path::new(TARGET))).unwrap()
}

pub(crate) fn outcome(machine: &Machine, ticket: &SavepointTicket) -> Result<SavepointReport> {
    let known = machine
        .scheduler
        .run_until(|| ticket.outcome().is_some(), 1_000_000);
    assert!(known, "seed {}: no outcome", machine.seed);
    ticket.outcome().unwrap()
}

pub(crate) fn until_checkpoints(machine: &Machine, job: &Job, count: u64) {
    let reached = machine
        .scheduler
        .run_until(|| job.status().checkpoints >= count, 1_000_000);
    assert!(reached, "seed {}: {:?}", machine.seed, job.status());
}

pub(crate) fn remove(fs: &dyn Fs, dir: &Path) {
    for entry in fs.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.kind {
            FileKind::Dir => remove(fs, &path),
            _ => fs.remove_file(&path).unwrap(),
        }
    }
    fs.remove_dir(dir).unwrap();
}

fn names(fs: &dyn Fs, dir: &str) -> Vec<String> {
    match fs.list(Path::new(dir)) {
        Err(e) if e.code() == Code::NotFound => Vec::new(),
        entries => entries.unwrap().into_iter().map(|e| e.name).collect(),
    }
}

#[test]
fn the_job_goes_on_and_the_savepoint_stands_without_it() {
    for seed in 0..6 {
        for (backend, format) in [Backend::Heap, LSM]
            .into_iter()
            .flat_map(|b| FORMATS.map(|f| (b, f)))
        {
            let input = orders(seed);
            let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
            let machine = Machine::new(seed, fs.clone());
            let options = options(&machine, backend, Duration::from_micros(300), 0);
            let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
            until_checkpoints(&machine, &job, 1 + seed % 3);
            let (first, second) = (ask(&job, format), ask(&job, format));
            let (first, second) = (
                outcome(&machine, &first).unwrap(),
                outcome(&machine, &second).unwrap(),
            );
            assert!(first.checkpoint < second.checkpoint, "{first:?} {second:?}");
            assert_ne!(first.location, second.location);
            assert!(first.location.starts_with(TARGET), "{first:?}");
            let report = machine.finish(&job).unwrap();
            assert_eq!((report.outcome, report.attempts), (Some(Outcome::Finished), 1));
            assert!(report.last_checkpoint > Some(second.checkpoint));
            assert_eq!(results(&*fs), expected_output(&input), "seed {seed}");
            assert_eq!(checkpoints(&*fs), 2, "retention counts checkpoints alone");
            remove(&*fs, Path::new("ckpt"));
            for savepoint in [first, second] {
                let opened = SnapshotDir::open(fs.clone(), &savepoint.location).unwrap();
                verify(opened.metadata(), &opened).verdict().unwrap();
                assert_eq!(opened.metadata().kind, format.kind());
                assert_eq!(opened.metadata().checkpoint, savepoint.checkpoint);
                assert!(opened.metadata().files().count() > 0);
                assert!(savepoint.bytes > 0);
            }
        }
    }
}

#[test]
fn no_recovery_uses_a_savepoint_and_no_sink_commits_for_it() {
    for (backend, format) in [(Backend::Heap, FORMATS[0]), (LSM, FORMATS[1])] {
        let input = orders(5);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(5, fs.clone());
        let bomb = Bomb::default();
        // Nothing by the clock.
        let options = JobOptions {
            parallelism: 1,
            ..options(&machine, backend, Duration::from_secs(3600), 1)
        };
        let job = pipeline(&input, &bomb).start(options).unwrap();
        machine
            .scheduler
            .run_until(|| job.status().source_records > 60, 1_000_000);
        let ticket = job.request_checkpoint(CheckpointScope::Configured);
        machine
            .scheduler
            .run_until(|| ticket.outcome().is_some(), 1_000_000);
        let checkpoint = ticket.outcome().unwrap().unwrap();
        machine
            .scheduler
            .run_until(|| job.status().source_records > 120, 1_000_000);
        let committed = names(&*fs, "out/parts");
        let savepoint = outcome(&machine, &ask(&job, format)).unwrap();
        assert!(savepoint.checkpoint > checkpoint);
        assert_eq!(job.status().last_checkpoint, Some(checkpoint));
        machine
            .scheduler
            .run_until(|| job.status().source_records > 150, 1_000_000);
        assert_eq!(names(&*fs, "out/parts"), committed);
        assert!(
            !names(&*fs, "out/.pending").is_empty(),
            "lines after the checkpoint"
        );
        bomb.arm(1);
        assert!(
            machine
                .scheduler
                .run_until(|| job.status().attempts == 2, 1_000_000)
        );
        assert_eq!(job.status().last_checkpoint, Some(checkpoint));
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.outcome, Some(Outcome::Finished));
        assert_eq!(results(&*fs), expected_output(&input));
        let opened = SnapshotDir::open(fs, &savepoint.location).unwrap();
        verify(opened.metadata(), &opened).verdict().unwrap();
    }
}

#[test]
fn a_failing_call_fails_the_savepoint_and_leaves_job_and_target_as_they_were() {
    let input = orders(3);
    for &fault in Fault::ALL {
        for (backend, format) in [(Backend::Heap, FORMATS[0]), (LSM, FORMATS[0]), (LSM, FORMATS[1])] {
            let mut failed = 0;
            for n in 1.. {
                let fs = FaultFs::new(Arc::new(SimFs::without_history()));
                let machine = Machine::new(n, Arc::new(fs.clone()));
                let options = options(&machine, backend, Duration::from_micros(400), 0);
                let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
                until_checkpoints(&machine, &job, 1);
                let touches = |path: &Path| {
                    let path = path.to_string_lossy();
                    path.starts_with("backup") || path.contains("canonical-")
                };
                fs.arm(FaultPlan::new(fault, n).on_path(touches));
                let savepoint = outcome(&machine, &ask(&job, format));
                let met = fs.triggered() > 0;
                let report = machine.finish(&job).unwrap();
                assert_eq!((report.outcome, report.attempts), (Some(Outcome::Finished), 1));
                assert_eq!(results(&fs), expected_output(&input), "{fault:?} {n}");
                assert!(
                    savepoint.is_ok() || machine.output().len() == 2,
                    "{fault:?} {n}: a hold"
                );
                assert_eq!(checkpoints(&fs), 2);
                fs.heal();
                let left = names(&fs, TARGET);
                match savepoint {
                    Ok(report) => {
                        let opened = SnapshotDir::open(Arc::new(fs), &report.location).unwrap();
                        verify(opened.metadata(), &opened).verdict().unwrap();
                        assert_eq!(left.len(), 1);
                    }
                    Err(e) => {
                        failed += 1;
                        assert!(met, "{fault:?} {n}: {e}");
                        let told = e.to_string().contains(TARGET);
                        assert!(left.is_empty() || told, "{fault:?} {n}: {left:?} {e}");
                    }
                }
                if !met {
                    break;
                }
            }
            println!("{fault:?} on {backend:?}, {format:?}: {failed} failed");
            // Short reads are gone on with; nothing of a savepoint is read before it exists.
            assert!(
                failed > 0 || fault == Fault::ShortRead,
                "{fault:?} on {backend:?}, {format:?}"
            );
        }
    }
}

#[test]
fn without_a_target_nothing_begins_and_an_ending_job_refuses() {
    let input = orders(1);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let machine = Machine::new(1, fs.clone());
    let options = options(&machine, LSM, Duration::from_micros(300), 0);
    let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
    let early = outcome(&machine, &ask(&job, FORMATS[0])).unwrap_err();
    assert_eq!(early.code(), Code::CheckpointDeclined);
    until_checkpoints(&machine, &job, 1);
    let error = job.request_savepoint(FORMATS[0], None).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::NoTargetDirectory);
    let late = ask(&job, FORMATS[1]);
    job.cancel();
    let more = ask(&job, FORMATS[1]);
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Cancelled));
    for ticket in [late, more] {
        assert!(ticket.wait().is_err());
    }
    assert!(fs.facts(Path::new("backup")).unwrap().is_none());
}
