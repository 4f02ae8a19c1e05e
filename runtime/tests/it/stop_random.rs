//! If this fails, some order of stops, savepoints, checkpoints, cancellations and failures loses output or hangs.

use crate::{
    savepoint::{FORMATS, TARGET},
    stop::{BACKENDS, go_on, results, stopping},
    stop_crash::Way,
    world::{Bomb, Machine, expected_output, input, pipeline},
};
use keybed_env::{Fs, Random, fs::SimFs};
use keybed_runtime::{CheckpointScope, JobOptions, JobState, Outcome, RestartStrategy};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

#[test]
fn any_order_of_requests_and_failures_ends_and_loses_nothing() {
    let seeds = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        4000
    } else {
        200
    };
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..seeds {
        let mut random = Random::from_seed(seed);
        let input = Arc::new(input(&mut random, 2, 40));
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(seed, fs.clone());
        let bomb = Bomb::default();
        let way = Way {
            backend: BACKENDS[random.index(2)],
            format: FORMATS[random.index(2)],
            drain: random.one_in(2),
        };
        let restart = RestartStrategy::FixedDelay {
            attempts: 1 + random.below(3) as u32,
            delay: Duration::from_micros(1 + random.below(2000)),
        };
        let options = JobOptions {
            restart: Some(restart),
            throttle: Some(10_000 + random.below(40_000)),
            ..stopping(&machine, way.backend, 0)
        };
        let job = pipeline(&input, &bomb).start(options).unwrap();
        let (mut stops, mut savepoints, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
        let target = Some(Path::new(TARGET));
        for _ in 0..2 + random.below(8) {
            let steps = random.below(400);
            let mut left = steps;
            machine.scheduler.run_until(
                || {
                    left = left.saturating_sub(1);
                    left == 0
                },
                steps + 1,
            );
            match random.below(14) {
                0..=4 => stops.extend(job.request_stop_with_savepoint(way.format, target, way.drain)),
                5 | 6 => savepoints.extend(job.request_savepoint(way.format, target)),
                7 => checkpoints.push(job.request_checkpoint(CheckpointScope::Full)),
                8 => checkpoints.push(job.request_checkpoint(CheckpointScope::Configured)),
                9 | 10 => bomb.arm(1 + random.below(20)),
                11 if random.one_in(2) => job.cancel(),
                12 if random.one_in(2) => job.stop_gracefully().unwrap(),
                _ => {}
            }
        }
        let ended = machine.finish(&job);
        let what = format!("seed {seed}, {way:?}, {ended:?}");
        let status = job.status();
        assert!(status.state.is_ended(), "{what}");
        let published: Vec<_> = stops.iter().filter_map(|t| t.outcome().unwrap().ok()).collect();
        assert!(published.len() <= 1, "{what}");
        assert_eq!(
            published.first().map(|r| &r.location),
            status.stopped_with.as_ref(),
            "{what}"
        );
        assert!(
            savepoints.iter().all(|ticket| ticket.outcome().is_some()),
            "{what}"
        );
        assert!(
            checkpoints.iter().all(|ticket| ticket.outcome().is_some()),
            "{what}"
        );
        drop(job);
        bomb.arm(0);
        let end = match (&ended, &status.stopped_with) {
            (Ok(_), Some(location)) => {
                assert_eq!(status.state, JobState::Finished, "{what}");
                let stopped = results(&*fs);
                let read = go_on(&machine, way.backend, &input, location);
                if way.drain {
                    assert_eq!(stopped, expected_output(&read), "{what}");
                } else {
                    assert_eq!(results(&*fs), expected_output(&input), "{what}");
                }
                "stopped with a savepoint".to_owned()
            }
            (Ok(report), None) if report.outcome == Some(Outcome::Finished) => {
                assert_eq!(results(&*fs), expected_output(&input), "{what}");
                "finished".into()
            }
            (Err(e), Some(_)) => panic!("{what}: nothing fails after the publication: {e}"),
            (gone_on, None) => {
                let machine = Machine::new(seed + 1_000_000, fs.clone());
                let job = pipeline(&input, &Bomb::default()).start(stopping(&machine, way.backend, 0));
                let report = machine.finish(&job.unwrap()).unwrap();
                assert_eq!(report.outcome, Some(Outcome::Finished), "{what}");
                assert_eq!(results(&*fs), expected_output(&input), "{what}");
                match gone_on {
                    Ok(report) => format!("{:?}, then resumed", report.outcome),
                    Err(e) => format!("{}, then resumed", e.code()),
                }
            }
        };
        *ends.entry(end).or_default() += 1;
    }
    println!("{ends:?}");
    assert!(
        ends.len() >= 4 && ends["stopped with a savepoint"] > seeds / 10,
        "{ends:?}"
    );
}
