//! If this fails, a job that goes on at another parallelism, however wide or narrow, loses or doubles state, mixes the
//! order of a list up, or fires a timer twice.

use crate::restore::INTERVAL;
use crate::savepoint::{LSM, ask, options, outcome, until_checkpoints};
use crate::world::{Bomb, Machine, expected_output, input, pipeline, results};
use keybed_env::{Fs, Random, fs::SimFs};
use keybed_runtime::{Backend, JobOptions, Outcome, Restore, SavepointFormat};
use keybed_snapshot::JobId;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const WIDTHS: [u32; 5] = [1, 7, 128, 3, 1];

/// Through all widths, every job started from a snapshot of the one before it, with checkpoints in between; `None`
/// takes the last checkpoint. The backend changes every time.
fn through_all_widths(format: Option<SavepointFormat>) {
    let input = Arc::new(input(&mut Random::from_seed(55), 3, 700));
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let mut from: Option<PathBuf> = None;
    for (step, width) in WIDTHS.into_iter().enumerate() {
        let machine = Machine::new(500 + step as u64, fs.clone());
        let job = JobId(70 + step as u128);
        // The more tasks, the longer everything takes.
        let interval = INTERVAL * if width > 7 { 60 } else { 1 };
        let options = JobOptions {
            job: Some(job),
            parallelism: width,
            max_parallelism: Some(128),
            restore: from.clone().map(Restore::from),
            throttle: Some(if width > 7 { 300 } else { 3000 }),
            ..options(
                &machine,
                if step % 2 == 1 { Backend::Heap } else { LSM },
                interval,
                0,
            )
        };
        let running = pipeline(&input, &Bomb::default()).start(options).unwrap();
        if step + 1 == WIDTHS.len() {
            let report = machine.finish(&running).unwrap();
            assert_eq!(report.outcome, Some(Outcome::Finished));
            assert!(report.source_records > 20, "{report:?}");
            break;
        }
        let some = machine
            .scheduler
            .run_until(|| running.status().source_records > 30, 3_000_000);
        assert!(some, "{:?}", running.status());
        until_checkpoints(&machine, &running, 1);
        let savepoint = format.map(|format| outcome(&machine, &ask(&running, format)).unwrap().location);
        running.cancel();
        let ended = machine.finish(&running).unwrap();
        let last = ended.last_checkpoint.unwrap();
        let root = Path::new("ckpt").join(job.to_string());
        from = Some(savepoint.unwrap_or_else(|| root.join(format!("chk-{last}"))));
    }
    assert_eq!(results(&*fs), expected_output(&input), "{format:?}");
}

#[test]
fn d55_native_savepoints_carry_a_job_from_1_to_7_to_128_to_3_to_1() {
    through_all_widths(Some(SavepointFormat::Native));
}

#[test]
fn d55_canonical_savepoints_carry_a_job_from_1_to_7_to_128_to_3_to_1() {
    through_all_widths(Some(SavepointFormat::Canonical));
}

#[test]
fn d55_checkpoints_carry_a_job_from_1_to_7_to_128_to_3_to_1() {
    through_all_widths(None);
}
