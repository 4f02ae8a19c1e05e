//! If this fails, a crash of user code, a stop or a change of parallelism loses or doubles records.

use crate::world::{Bomb, Machine, checkpoints, expected_output, input, pipeline};
use keybed_env::{
    Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, FsOp, SimFs},
};
use keybed_format::Code;
use keybed_runtime::{Backend, Checkpoints, JobEvent, JobOptions, Outcome, RestartStrategy};
use keybed_snapshot::JobId;
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

fn with_checkpoints(options: JobOptions, random: &mut Random) -> JobOptions {
    let restart = RestartStrategy::FixedDelay {
        attempts: 1000,
        delay: Duration::from_micros(random.below(500)),
    };
    let mut checkpoints = Checkpoints::every(Duration::from_micros(50 + random.below(500)), "ckpt");
    if random.one_in(3) {
        // Many expire; their barriers, acknowledgements and files come late.
        checkpoints.timeout = Duration::from_micros(500 + random.below(1500));
        checkpoints.tolerable_failures = u32::MAX;
    }
    JobOptions {
        checkpoints: Some(checkpoints),
        restart: Some(restart),
        // Slow enough for checkpoints in the middle of the input, fast enough for full channels.
        throttle: Some(20_000 + random.below(1_000_000)),
        source_step_records: 1 + random.index(5),
        ..options
    }
}

fn backend(random: &mut Random) -> Backend {
    if random.one_in(2) {
        Backend::Heap
    } else {
        Backend::Lsm {
            memtable_bytes: 4096 << random.below(6),
        }
    }
}

#[test]
fn panics_stops_and_other_parallelisms_do_not_change_the_output() {
    let (mut restarts, mut resumed, mut stopped, mut expired, mut ended_early) = (0, 0, 0, 0, 0);
    for seed in 0..1000 {
        let mut random = Random::from_seed(seed);
        let (splits, orders) = (1 + random.index(5), random.index(300));
        let input = Arc::new(input(&mut random, splits, orders));
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let bomb = Bomb::default();
        let mut runs = 0;
        loop {
            runs += 1;
            let machine = Machine::new(seed * 100 + runs, fs.clone());
            let options = machine.options(JobId(7), 1 + random.below(4) as u32, backend(&mut random));
            if random.one_in(2) {
                bomb.arm(1 + random.below(orders as u64 + 10));
            }
            let job = pipeline(&input, &bomb)
                .start(with_checkpoints(options, &mut random))
                .unwrap();
            let mut asked = false;
            if runs < 5 && !random.one_in(3) {
                machine.scheduler.run_until(|| job.is_ended(), random.below(4000));
                if random.one_in(4) {
                    job.cancel();
                } else {
                    job.stop_gracefully().unwrap();
                    asked = true;
                }
            }
            let report = match machine.finish(&job) {
                Ok(report) => report,
                // A job that was asked to stop is not started again after a failure.
                Err(_) if asked => {
                    ended_early += 1;
                    continue;
                }
                Err(e) => panic!("seed {seed}: {e}"),
            };
            restarts += report.attempts - 1;
            let events = machine.events.lock().unwrap();
            resumed += u64::from(events.iter().any(|e| e.contains("restored: Some")));
            expired += events
                .iter()
                .filter(|e| e.contains("longer than its timeout"))
                .count();
            match report.outcome {
                Some(Outcome::Finished) => break,
                Some(Outcome::Stopped) => {
                    stopped += 1;
                    assert!((1..=3).contains(&checkpoints(&*fs)), "seed {seed}");
                }
                _ => {}
            }
        }
        let machine = Machine::new(seed, fs);
        assert_eq!(machine.output(), expected_output(&input), "seed {seed}");
    }
    println!("{restarts} restarts, {resumed} resumed, {stopped} stopped, {expired} expired");
    assert!(
        expired > 50 && restarts > 100 && resumed > 50 && stopped > 50 && ended_early > 0,
        "{restarts} {resumed} {stopped} {expired} {ended_early}"
    );
}

#[test]
fn a_stop_between_two_attempts_ends_the_job_at_once_with_the_failure() {
    let input = Arc::new(input(&mut Random::from_seed(2), 2, 200));
    let machine = Machine::new(2, Arc::new(SimFs::without_history()));
    let bomb = Bomb::default();
    bomb.arm(50);
    let options = JobOptions {
        restart: Some(RestartStrategy::FixedDelay {
            attempts: 3,
            delay: Duration::from_secs(3600),
        }),
        ..with_checkpoints(
            machine.options(JobId(7), 2, Backend::Heap),
            &mut Random::from_seed(1),
        )
    };
    let job = pipeline(&input, &bomb).start(options).unwrap();
    let pausing = || {
        machine
            .events
            .lock()
            .unwrap()
            .iter()
            .any(|e| e.contains("Restarting"))
    };
    assert!(machine.scheduler.run_until(pausing, 1_000_000));
    job.stop_gracefully().unwrap();
    let error = machine.finish(&job).unwrap_err();
    assert_eq!(error.code(), Code::OperatorFailed);
    assert_eq!(job.status().attempts, 1, "no further attempt was made");
}

#[test]
fn equal_seeds_give_equal_traces() {
    let trace = |seed: u64| {
        let mut random = Random::from_seed(seed);
        let input = Arc::new(input(&mut random, 3, 60));
        let machine = Machine::new(seed, Arc::new(SimFs::without_history()));
        let bomb = Bomb::default();
        bomb.arm(40);
        let options = machine.options(JobId(7), 3, Backend::Lsm { memtable_bytes: 4096 });
        let job = pipeline(&input, &bomb)
            .start(with_checkpoints(options, &mut random))
            .unwrap();
        assert_eq!(machine.finish(&job).unwrap().attempts, 2);
        machine.scheduler.trace_hash()
    };
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}

#[test]
fn what_an_abandoned_history_left_behind_is_removed_by_the_next() {
    let input = Arc::new(input(&mut Random::from_seed(4), 2, 200));
    let machine = Machine::new(4, Arc::new(SimFs::new()));
    let options = |job| {
        let options = machine.options(JobId(job), 2, Backend::Heap);
        JobOptions {
            checkpoints: Some(Checkpoints::every(Duration::from_micros(300), "ckpt")),
            throttle: Some(30_000),
            ..options
        }
    };
    let job = pipeline(&input, &Bomb::default()).start(options(1)).unwrap();
    machine
        .scheduler
        .run_until(|| job.status().checkpoints > 5, 1_000_000);
    job.stop_gracefully().unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Stopped));
    assert!(machine.output().contains_key("parts"));
    let next = JobOptions {
        abandoned: vec![JobId(1)],
        ..options(2)
    };
    let job = pipeline(&input, &Bomb::default()).start(next).unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(
        machine.output(),
        expected_output(&input),
        "no folder of parts is left"
    );
}

#[test]
fn a_listener_that_panics_ends_the_job_and_leaves_no_task_behind() {
    let input = Arc::new(input(&mut Random::from_seed(4), 2, 200));
    let machine = Machine::new(4, Arc::new(SimFs::new()));
    let mut options = with_checkpoints(
        machine.options(JobId(7), 2, Backend::Heap),
        &mut Random::from_seed(1),
    );
    options.on_event = Some(Arc::new(|event| {
        if matches!(event, JobEvent::CheckpointCompleted { .. }) {
            std::panic::resume_unwind(Box::new("planted panic"));
        }
    }));
    let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
    let error = machine.finish(&job).unwrap_err();
    assert_eq!(
        error.to_string(),
        "JobFailed: the job's driver panicked: planted panic"
    );
    while machine.scheduler.run_one() {}
    assert_eq!(machine.scheduler.deadlock(), Vec::<String>::new());
    // The lock is free again.
    let options = with_checkpoints(
        machine.options(JobId(7), 2, Backend::Heap),
        &mut Random::from_seed(1),
    );
    let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(machine.output(), expected_output(&input));
}

/// Publications whose outcome is unknown, failed uploads and panics, one after the other in one process.
#[test]
fn failures_in_a_row_with_a_failing_disk_do_not_change_the_output() {
    let (mut attempts, mut met, mut uncertain) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::from_seed(seed);
        let orders = 50 + random.index(150);
        let input = Arc::new(input(&mut random, 3, orders));
        let sim = SimFs::without_history();
        let fs = FaultFs::new(Arc::new(sim.clone()));
        let mut machine = Machine::new(seed, Arc::new(fs.clone()));
        let bomb = Bomb::default();
        let mut options = machine.options(JobId(7), 1 + random.below(3) as u32, backend(&mut random));
        options = with_checkpoints(options, &mut random);
        options.throttle = Some(5_000 + random.below(50_000));
        let rearm = (bomb.clone(), fs.clone(), Mutex::new((random.fork(), 6)));
        options.on_event = Some(Arc::new(move |event| {
            let (random, left) = &mut *rearm.2.lock().unwrap();
            match event {
                JobEvent::Restarting { .. } if *left > 0 => rearm.0.arm(1 + random.below(300)),
                JobEvent::CheckpointDeclined { .. } if *left > 0 => {}
                _ => return,
            }
            *left -= 1;
            if *left == 0 {
                rearm.1.heal();
            }
        }));
        let job = pipeline(&input, &bomb).start(options).unwrap();
        let plan = FaultPlan::new(Fault::Eio, 1 + random.below(4));
        fs.arm(match random.below(4) {
            // The folder of a checkpoint: `_metadata` is there, whether for good nobody knows.
            0 | 1 => plan
                .only(&[FsOp::SyncDir])
                .on_path(|p| p.to_string_lossy().contains("chk-"))
                .forever(),
            2 => plan.only(&[FsOp::Link, FsOp::Sync, FsOp::Rename, FsOp::Read]),
            _ => plan,
        });
        let mut killed = None;
        if random.one_in(2) {
            // Soon after the fault the process dies, and another one finds what lies on the disk.
            machine
                .scheduler
                .run_until(|| job.is_ended() || fs.triggered() > 0, 1_000_000);
            machine.scheduler.run_until(|| job.is_ended(), random.below(1500));
            killed = (!job.is_ended()).then(|| sim.live_image());
            let last = job.status().last_checkpoint.map_or(0, |id| id.0);
            uncertain += u64::from(
                killed
                    .as_ref()
                    .is_some_and(|image| newest_published(image) > last),
            );
        }
        let mut running = Ok(job);
        if let Some(image) = killed {
            bomb.arm(0);
            machine = Machine::new(seed + 1, Arc::new(image));
            let options = machine.options(JobId(7), 1 + random.below(3) as u32, backend(&mut random));
            running = pipeline(&input, &bomb).start(with_checkpoints(options, &mut random));
        }
        match running {
            Ok(job) => {
                let report = machine
                    .finish(&job)
                    .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                attempts += report.attempts;
            }
            // It died just after the last word.
            Err(e) => assert_eq!(e.code(), Code::InvalidArgument, "seed {seed}: {e}"),
        }
        met += u64::from(fs.triggered() > 0);
        let mut found = machine.output();
        found.retain(|name, _| name != "parts" && name != ".pending");
        assert_eq!(found, expected_output(&input), "seed {seed}");
    }
    println!("{met} faults, {attempts} attempts, {uncertain} killed with a publication of unknown outcome");
    assert!(met > 300 && attempts > 500 && uncertain > 20);
}

/// The highest id under which metadata lies on the disk.
fn newest_published(image: &SimFs) -> u64 {
    let id = |path: &Path| {
        let folder = path
            .parent()?
            .file_name()?
            .to_str()?
            .strip_prefix("chk-")?
            .to_owned();
        (path.file_name()? == "_metadata").then(|| folder.parse().ok())?
    };
    image.tree().keys().filter_map(|path| id(path)).max().unwrap_or(0)
}
