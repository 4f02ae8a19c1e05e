//! If this fails, a job gives wrong results even when nothing goes wrong.

use crate::world::{Bomb, Machine, expected_output, input, pipeline};
use keybed_env::{Fs, OsFs, Random, fs::SimFs};
use keybed_runtime::{Backend, Checkpoints, JobOptions, Outcome, RestartStrategy};
use keybed_snapshot::JobId;
use std::{sync::Arc, time::Duration};

#[test]
fn a_job_without_checkpoints_equals_a_plain_fold_in_any_order_of_steps() {
    for seed in 0..60 {
        let mut random = Random::from_seed(seed);
        let (splits, orders) = (1 + random.index(5), random.index(200));
        let input = Arc::new(input(&mut random, splits, orders));
        let machine = Machine::new(seed, Arc::new(SimFs::new()));
        let parallelism = 1 + random.below(4) as u32;
        let options = machine.options(JobId(7), parallelism, Backend::Heap);
        let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.outcome, Some(Outcome::Finished));
        assert_eq!(report.source_records, orders as u64);
        assert_eq!(machine.output(), expected_output(&input), "seed {seed}");
    }
}

#[test]
fn a_job_on_threads_equals_a_plain_fold() {
    let dir = tempfile::tempdir().unwrap();
    let input = Arc::new(input(&mut Random::from_seed(1), 16, 20_000));
    let pipeline = crate::world::pipeline_in(&input, &Bomb::default(), &dir.path().join("out"));
    let options = JobOptions {
        parallelism: 3,
        backend: Backend::Heap,
        work_dir: dir.path().join("work"),
        ..JobOptions::default()
    };
    let report = pipeline.start(options).unwrap().wait().unwrap();
    assert_eq!(
        (report.outcome, report.source_records),
        (Some(Outcome::Finished), 20_000)
    );
    for (name, text) in expected_output(&input) {
        let found = OsFs.read(&dir.path().join("out").join(&name), 1 << 24).unwrap();
        assert!(found == text.as_bytes(), "{name} differs");
    }
}

#[test]
fn a_job_on_threads_survives_panics_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::from_seed(3);
    let input = Arc::new(input(&mut random, 16, 30_000));
    let bomb = Bomb::default();
    let pipeline = crate::world::pipeline_in(&input, &bomb, &dir.path().join("out"));
    let (mut attempts, mut runs) = (0, 0);
    loop {
        runs += 1;
        bomb.arm(1 + random.below(20_000));
        let options = JobOptions {
            job: Some(JobId(9)),
            parallelism: [2, 1, 3, 7][runs % 4],
            backend: if runs % 2 == 0 {
                Backend::Heap
            } else {
                Backend::Lsm {
                    memtable_bytes: 64 << 10,
                }
            },
            work_dir: dir.path().join("work"),
            throttle: Some(60_000),
            checkpoints: Some(Checkpoints::every(
                Duration::from_millis(5),
                dir.path().join("ckpt"),
            )),
            restart: Some(RestartStrategy::FixedDelay {
                attempts: 3,
                delay: Duration::from_millis(1),
            }),
            ..JobOptions::default()
        };
        let job = pipeline.start(options).unwrap();
        if runs < 6 {
            while job.status().checkpoints < 2 && !job.is_ended() {
                std::thread::sleep(Duration::from_millis(1));
            }
            job.stop_gracefully().unwrap();
        }
        let report = match job.wait() {
            // A job that was asked to stop is not started again after a failure.
            Err(_) if runs < 6 => continue,
            ended => ended.unwrap(),
        };
        attempts += report.attempts;
        if report.outcome == Some(Outcome::Finished) {
            break;
        }
    }
    println!("{attempts} attempts in {runs} runs");
    for (name, text) in expected_output(&input) {
        let found = OsFs.read(&dir.path().join("out").join(&name), 1 << 24).unwrap();
        assert!(found == text.as_bytes(), "{name} differs");
    }
}
