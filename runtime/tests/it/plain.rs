//! If this fails, a job gives wrong results even when nothing goes wrong.

use crate::world::{Bomb, Machine, expected_output, input, pipeline};
use keybed_env::{Fs, OsFs, Random, fs::SimFs};
use keybed_runtime::{Backend, JobOptions, Outcome};
use keybed_snapshot::JobId;
use std::sync::Arc;

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
