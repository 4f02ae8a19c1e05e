//! If this fails, a job started from a savepoint loses or doubles records, needs its source for ever, or harms it.

use crate::savepoint::{FORMATS, LSM, TARGET, ask, options, orders, outcome, remove, until_checkpoints};
use crate::world::{Bomb, Input, Machine, checkpoints, expected_output, pipeline, results};
use keybed_env::{Fs, Random, fs::SimFs};
use keybed_format::Code;
use keybed_runtime::{Backend, JobOptions, Outcome, Restore, SavepointFormat};
use keybed_snapshot::{JobId, SnapshotDir, SnapshotKind, verify};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) const INTERVAL: Duration = Duration::from_micros(300);
pub(crate) const JOB: JobId = JobId(8);

/// Takes a savepoint of job 7, cancels the job some checkpoints later, and removes everything but savepoint and output.
fn orphan(
    fs: &Arc<dyn Fs>,
    input: &Arc<Input>,
    seed: u64,
    backend: Backend,
    format: SavepointFormat,
) -> PathBuf {
    let machine = Machine::new(seed, fs.clone());
    let options = options(&machine, backend, INTERVAL, 0);
    let job = pipeline(input, &Bomb::default()).start(options).unwrap();
    machine
        .scheduler
        .run_until(|| job.status().source_records > 60 + seed % 60, 1_000_000);
    let savepoint = outcome(&machine, &ask(&job, format)).unwrap();
    // Younger parts of the old history lie around.
    until_checkpoints(&machine, &job, job.status().checkpoints + seed % 3);
    job.cancel();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Cancelled));
    remove(&**fs, Path::new("ckpt"));
    remove(&**fs, Path::new("work"));
    let moved = PathBuf::from("elsewhere/ein Platz für später");
    fs.create_dir_all(Path::new("elsewhere")).unwrap();
    fs.rename(&savepoint.location, &moved).unwrap();
    remove(&**fs, Path::new(TARGET));
    moved
}

pub(crate) fn restored(
    machine: &Machine,
    backend: Backend,
    parallelism: u32,
    from: Option<&Path>,
) -> JobOptions {
    JobOptions {
        job: Some(JOB),
        parallelism,
        restore: from.map(Restore::from),
        ..options(machine, backend, INTERVAL, 1)
    }
}

fn check_output(machine: &Machine, input: &Input) {
    // What the old job wrote, and what the savepoint names, is left to its owner.
    assert_eq!(
        results(&*machine.fs),
        expected_output(input),
        "seed {}",
        machine.seed
    );
}

#[test]
fn a_job_started_from_a_savepoint_equals_one_that_was_never_away() {
    for seed in 0..6 {
        for (backend, format) in [Backend::Heap, LSM]
            .into_iter()
            .flat_map(|b| FORMATS.map(|f| (b, f)))
        {
            let mut random = Random::from_seed(seed);
            let input = orders(seed);
            let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
            let savepoint = orphan(&fs, &input, seed, backend, format);
            let before = SnapshotDir::open(fs.clone(), &savepoint).unwrap();
            let path = if random.one_in(2) {
                savepoint.join("_metadata")
            } else {
                savepoint.clone()
            };
            let machine = Machine::new(100 + seed, fs.clone());
            let other = [LSM, Backend::Heap][random.index(2)];
            let parallelism = 1 + random.below(4) as u32;
            let bomb = Bomb::default();
            let job = pipeline(&input, &bomb)
                .start(restored(&machine, other, parallelism, Some(&path)))
                .unwrap();
            if seed % 2 == 0 {
                // Back to the savepoint.
                bomb.arm(1 + random.below(10));
                let again = || job.status().attempts == 2;
                assert!(
                    machine.scheduler.run_until(again, 1_000_000),
                    "{:?}",
                    job.status()
                );
                assert_eq!(job.status().last_checkpoint, None);
                until_checkpoints(&machine, &job, 1);
            } else {
                // Back to the first checkpoint, which needs nothing of the savepoint.
                until_checkpoints(&machine, &job, 1);
                let id = job.status().last_checkpoint.unwrap();
                let chk = Path::new("ckpt").join(JOB.to_string()).join(format!("chk-{id}"));
                let first = SnapshotDir::open(fs.clone(), &chk).unwrap();
                assert_eq!(first.metadata().kind, SnapshotKind::FullCheckpoint);
                verify(before.metadata(), &before).verdict().unwrap();
                remove(&*fs, &savepoint);
                bomb.arm(1);
                assert!(
                    machine
                        .scheduler
                        .run_until(|| job.status().attempts == 2, 1_000_000)
                );
            }
            machine.scheduler.run_until(|| job.is_ended(), 200);
            job.stop_gracefully().unwrap();
            let stopped = machine.finish(&job).unwrap();
            if stopped.outcome == Some(Outcome::Stopped) {
                let machine = Machine::new(200 + seed, fs.clone());
                let resumed = restored(&machine, backend, 1 + random.below(4) as u32, None);
                let job = pipeline(&input, &bomb).start(resumed).unwrap();
                let report = machine.finish(&job).unwrap();
                assert_eq!(report.outcome, Some(Outcome::Finished));
            }
            check_output(&machine, &input);
        }
    }
}

#[test]
fn two_jobs_from_one_savepoint_do_not_meet() {
    let input = orders(4);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let savepoint = orphan(&fs, &input, 4, LSM, FORMATS[0]);
    for (id, parallelism) in [(JobId(8), 2), (JobId(9), 3)] {
        let machine = Machine::new(id.0 as u64, fs.clone());
        let options = JobOptions {
            job: Some(id),
            ..restored(&machine, Backend::Heap, parallelism, Some(&savepoint))
        };
        let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        check_output(&machine, &input);
        for name in ["totals.csv", "shops.csv"] {
            fs.remove_file(&Path::new("out").join(name)).unwrap();
        }
    }
    let opened = SnapshotDir::open(fs, &savepoint).unwrap();
    verify(opened.metadata(), &opened).verdict().unwrap();
}

#[test]
fn without_the_parts_that_it_names_a_savepoint_is_refused() {
    let input = orders(2);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let savepoint = orphan(&fs, &input, 2 + 57, LSM, FORMATS[1]);
    remove(&*fs, Path::new("out"));
    let machine = Machine::new(2, fs.clone());
    let options = restored(&machine, LSM, 2, Some(&savepoint));
    let refused = pipeline(&input, &Bomb::default()).start(options).map(|_| ());
    assert_eq!(refused.unwrap_err().code(), Code::TransactionLost);
    assert!(fs.facts(Path::new("out")).unwrap().is_none());
    assert!(
        fs.facts(Path::new("ckpt")).unwrap().is_none(),
        "nothing was started"
    );
    let opened = SnapshotDir::open(fs, &savepoint).unwrap();
    verify(opened.metadata(), &opened).verdict().unwrap();
}

#[test]
fn what_to_start_from_is_never_guessed() {
    let input = orders(3);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let savepoint = orphan(&fs, &input, 3, LSM, FORMATS[0]);
    let start = |options: JobOptions| pipeline(&input, &Bomb::default()).start(options);
    let machine = Machine::new(3, fs.clone());
    let refuse = |options: JobOptions| start(options).map(|_| ()).unwrap_err().code();
    let missing = restored(&machine, LSM, 1, Some(Path::new("nowhere")));
    assert_eq!(refuse(missing), Code::NotASnapshot);
    assert!(fs.facts(Path::new("ckpt")).unwrap().is_none());
    let itself = JobOptions {
        job: Some(JobId(7)),
        ..restored(&machine, LSM, 1, Some(&savepoint))
    };
    assert_eq!(refuse(itself), Code::InvalidArgument);
    let wide = JobOptions {
        max_parallelism: Some(64),
        ..restored(&machine, LSM, 1, Some(&savepoint))
    };
    assert_eq!(refuse(wide), Code::MaxParallelismMismatch);
    // Cancelled before its first checkpoint: only the savepoint can be gone on from.
    let job = start(restored(&machine, LSM, 1, Some(&savepoint))).unwrap();
    job.cancel();
    machine.finish(&job).unwrap();
    assert_eq!(refuse(restored(&machine, LSM, 1, None)), Code::SnapshotIncomplete);
    let job = start(restored(&machine, LSM, 1, Some(&savepoint))).unwrap();
    until_checkpoints(&machine, &job, 1);
    job.cancel();
    machine.finish(&job).unwrap();
    // With one it goes on from that.
    let again = restored(&machine, LSM, 1, Some(&savepoint));
    assert_eq!(refuse(again), Code::InvalidArgument);
    let job = start(restored(&machine, LSM, 1, None)).unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    check_output(&machine, &input);
}

#[test]
fn a_new_job_starts_from_a_checkpoint_in_its_root_and_changes_nothing_there() {
    for (backend, other) in [(Backend::Heap, LSM), (LSM, Backend::Heap), (LSM, LSM)] {
        let input = orders(6);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(6, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(options(&machine, backend, INTERVAL, 0))
            .unwrap();
        until_checkpoints(&machine, &job, 3);
        job.cancel();
        let last = machine.finish(&job).unwrap().last_checkpoint.unwrap();
        let root = Path::new("ckpt").join(JobId(7).to_string());
        let source = root.join(format!("chk-{last}"));
        let machine = Machine::new(7, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(restored(&machine, other, 3, Some(&source)))
            .unwrap();
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        check_output(&machine, &input);
        assert!(checkpoints(&*fs) > 0);
        let opened = SnapshotDir::open(fs, &source).unwrap();
        verify(opened.metadata(), &opened).verdict().unwrap();
    }
}
