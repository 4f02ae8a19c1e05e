//! If this fails, a mistake is met late, without a name, or in an endless loop of restarts.

use crate::world::{Bomb, Machine, Order, input, pipeline};
use keybed_env::{
    Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, FsOp, SimFs},
};
use keybed_format::{Code, Error, Result};
use keybed_runtime::{
    Backend, CheckpointScope, Checkpoints, Context, FileSink, Job, JobOptions, KeyedOperator, Outcome,
    Pipeline, Polled, RestartStrategy, Source, SourceReader, SplitStart,
};
use keybed_snapshot::JobId;
use keybed_state::{StateRegistry, ValueState};
use std::{path::Path, sync::Arc, time::Duration};

/// Numbers 0, 1, 2 …; one of them may be bad.
struct Numbers {
    count: u64,
    bad: Option<u64>,
}

struct NumbersReader {
    next: u64,
    end: u64,
    bad: Option<u64>,
}

impl Source for Numbers {
    type Record = u64;

    fn splits(&self) -> u32 {
        1
    }

    fn open(&self, _fs: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<u64>>> {
        let end = if splits.is_empty() { 0 } else { self.count };
        let next = splits.first().map_or(0, |s| s.position);
        Ok(Box::new(NumbersReader {
            next,
            end,
            bad: self.bad,
        }))
    }
}

impl SourceReader<u64> for NumbersReader {
    fn poll_next(&mut self) -> Result<Polled<u64>> {
        if self.next >= self.end {
            return Ok(Polled::End);
        }
        if self.bad == Some(self.next) {
            return Err(Error::new(Code::BadRecord, "not a number")
                .in_file("in.csv")
                .with("line", self.next));
        }
        let value = self.next;
        self.next += 1;
        Ok(Polled::Record {
            split: 0,
            next: self.next,
            timestamp: value as i64,
            value,
        })
    }
}

struct Last(ValueState<u64>);

impl KeyedOperator for Last {
    type Key = u64;
    type In = u64;
    type Out = u64;

    fn process(&mut self, _key: &u64, value: u64, ctx: &mut Context<'_, u64>) -> Result {
        self.0.set(ctx, &value)?;
        ctx.emit(value);
        Ok(())
    }
}

fn last(states: &mut StateRegistry) -> Result<Last> {
    Ok(Last(states.value("last")?))
}

fn numbers(count: u64, bad: Option<u64>, operator: &str) -> Pipeline {
    let mut pipeline = Pipeline::new("numbers");
    pipeline
        .source("in", Numbers { count, bad })
        .flat_map(|n| (n % 2 == 0).then_some(n))
        .key_by(|n| n % 5)
        .operator(operator, last)
        .map(|n| n + 1)
        .sink("out", FileSink::new("out", u64::to_string));
    pipeline
}

fn eager(options: JobOptions) -> JobOptions {
    let delay = Duration::from_micros(1);
    JobOptions {
        checkpoints: Some(Checkpoints::every(Duration::from_micros(100), "ckpt")),
        restart: Some(RestartStrategy::FixedDelay {
            attempts: 1_000_000,
            delay,
        }),
        throttle: Some(20_000),
        ..options
    }
}

fn code(started: Result<Job>) -> Code {
    match started {
        Ok(_) => panic!("it started"),
        Err(e) => e.code(),
    }
}

#[test]
fn a_bad_record_ends_the_job_at_once_and_is_named() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    let options = eager(machine.options(JobId(7), 2, Backend::Heap));
    let job = numbers(50, Some(30), "last").start(options).unwrap();
    let error = machine.finish(&job).unwrap_err();
    assert_eq!(error.code(), Code::BadRecord);
    assert_eq!(
        error.to_string(),
        "BadRecord: in (subtask 0): not a number [file in.csv, line 30]"
    );
    assert_eq!(
        (job.status().attempts, job.status().outcome),
        (1, Some(Outcome::Failed))
    );
    assert!(
        machine.fs.list(Path::new("out/parts")).unwrap().len() < 30,
        "what was committed is no more than that"
    );
}

#[test]
fn two_operators_with_one_uid_and_operators_without_are_refused() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    let options = || machine.options(JobId(7), 1, Backend::Heap);
    assert_eq!(code(numbers(1, None, "in").start(options())), Code::DuplicateUid);
    assert_eq!(code(numbers(1, None, "out").start(options())), Code::DuplicateUid);
    assert_eq!(code(numbers(1, None, "").start(options())), Code::MissingUid);
    assert_eq!(
        code(Pipeline::new("empty").start(options())),
        Code::InvalidArgument
    );
    let too_wide = JobOptions {
        max_parallelism: Some(3),
        parallelism: 4,
        ..options()
    };
    assert_eq!(
        code(numbers(1, None, "last").start(too_wide)),
        Code::ParallelismExceedsMax
    );
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_job_starts() {
    let sim = SimFs::new();
    drop(sim.create(Path::new("out")).unwrap());
    let machine = Machine::new(1, Arc::new(sim));
    let options = || machine.options(JobId(7), 1, Backend::Heap);
    assert_eq!(
        code(numbers(1, None, "last").start(options())),
        Code::OutputUnwritable
    );
    let fs = FaultFs::new(Arc::new(SimFs::new()));
    fs.arm(
        FaultPlan::new(Fault::Erofs, 1)
            .forever()
            .on_path(|p| p.starts_with("out")),
    );
    let machine = Machine::new(1, Arc::new(fs));
    let refused = numbers(1, None, "last").start(machine.options(JobId(7), 1, Backend::Heap));
    assert_eq!(code(refused), Code::OutputUnwritable);
}

#[test]
fn a_job_root_in_use_is_locked_until_the_job_ends() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    let options = || eager(machine.options(JobId(7), 1, Backend::Heap));
    let first = numbers(50, None, "last").start(options()).unwrap();
    assert_eq!(code(numbers(50, None, "last").start(options())), Code::Locked);
    first.cancel();
    assert_eq!(machine.finish(&first).unwrap().outcome, Some(Outcome::Cancelled));
    let second = numbers(50, None, "last").start(options()).unwrap();
    assert_eq!(machine.finish(&second).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(
        code(numbers(50, None, "last").start(options())),
        Code::InvalidArgument,
        "it is finished"
    );
}

/// Stops the numbers in the middle, with a checkpoint.
fn stopped(machine: &Machine) {
    let job = numbers(1000, None, "last")
        .start(eager(machine.options(JobId(7), 2, Backend::Heap)))
        .unwrap();
    machine
        .scheduler
        .run_until(|| job.status().checkpoints > 2, 1_000_000);
    job.stop_gracefully().unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Stopped));
}

#[test]
fn a_program_that_does_not_fit_its_checkpoint_is_refused_with_all_problems() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    stopped(&machine);
    let run = |pipeline: Pipeline, options: JobOptions| {
        let job = pipeline.start(options).unwrap();
        let error = machine.finish(&job).unwrap_err();
        assert_eq!(job.status().attempts, 0, "no task may start");
        error
    };
    let options = || eager(machine.options(JobId(7), 2, Backend::Heap));
    let error = run(numbers(1000, None, "renamed"), options());
    assert_eq!(error.code(), Code::UnmappedOperatorState);
    assert!(
        error.to_string().contains("uid last, states last, bytes "),
        "{error}"
    );
    let error = run(
        numbers(1000, None, "last"),
        JobOptions {
            max_parallelism: Some(64),
            ..options()
        },
    );
    assert_eq!(error.code(), Code::MaxParallelismMismatch);
    let mut other = Pipeline::new("numbers");
    other
        .source(
            "in",
            Numbers {
                count: 1000,
                bad: None,
            },
        )
        .map(|n| n as u32)
        .key_by(|n| n % 5)
        .operator("last", |states| Ok(Narrow(states.value("last")?)))
        .sink("out", FileSink::new("out", u32::to_string));
    let error = run(
        other,
        JobOptions {
            max_parallelism: Some(64),
            ..options()
        },
    );
    assert_eq!(error.code(), Code::MaxParallelismMismatch);
    assert!(
        error
            .to_string()
            .contains("further_problem KeySchemaIncompatible"),
        "{error}"
    );
    // Nothing was changed by all this.
    let job = numbers(1000, None, "last").start(options()).unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(
        lines(&machine),
        (0..1000).step_by(2).map(|n| n + 1).collect::<Vec<u64>>()
    );
}

struct Narrow(ValueState<u64>);

impl KeyedOperator for Narrow {
    type Key = u32;
    type In = u32;
    type Out = u32;

    fn process(&mut self, _key: &u32, value: u32, ctx: &mut Context<'_, u32>) -> Result {
        self.0.set(ctx, &u64::from(value))?;
        ctx.emit(value);
        Ok(())
    }
}

/// All lines of all committed parts, sorted.
fn lines(machine: &Machine) -> Vec<u64> {
    let dir = Path::new("out/parts");
    let mut lines = Vec::new();
    for entry in machine.fs.list(dir).unwrap() {
        let text = machine.fs.read(&dir.join(entry.name), 1 << 20).unwrap();
        lines.extend(
            String::from_utf8(text)
                .unwrap()
                .lines()
                .map(|l| l.parse::<u64>().unwrap()),
        );
    }
    lines.sort_unstable();
    lines
}

#[test]
fn a_part_that_a_checkpoint_names_and_that_is_gone_is_told() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    stopped(&machine);
    // The last ones are named; older ones are committed for certain and forgotten.
    for part in machine.fs.list(Path::new("out/parts")).unwrap() {
        machine
            .fs
            .remove_file(&Path::new("out/parts").join(part.name))
            .unwrap();
    }
    let job = numbers(1000, None, "last")
        .start(eager(machine.options(JobId(7), 2, Backend::Heap)))
        .unwrap();
    let error = machine.finish(&job).unwrap_err();
    assert_eq!(error.code(), Code::TransactionLost);
    assert!(
        error.to_string().contains("id 00000000000000000000000000000007-"),
        "{error}"
    );
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_found_before_a_task_starts() {
    let sim = SimFs::new();
    stopped(&Machine::new(1, Arc::new(sim.clone())));
    let files: Vec<_> = sim
        .tree()
        .into_iter()
        .filter(|(p, _)| p.starts_with("ckpt"))
        .collect();
    let mut random = Random::from_seed(5);
    let (mut refused, mut tried) = (0, 0);
    for (path, bytes) in files {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .to_owned();
        if name == "LOCK" || bytes.is_empty() {
            continue;
        }
        for _ in 0..20 {
            let image = sim.live_image();
            let bit = random.index(bytes.len() * 8);
            image
                .corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8))
                .unwrap();
            let machine = Machine::new(1, Arc::new(image));
            let started =
                numbers(1000, None, "last").start(eager(machine.options(JobId(7), 2, Backend::Heap)));
            let report = started.and_then(|job| machine.finish(&job));
            tried += 1;
            match report {
                // Files of older checkpoints are not read.
                Ok(_) => assert_eq!(lines(&machine).len(), 500, "{name}, bit {bit}"),
                Err(e) => {
                    refused += 1;
                    // A flip in the version word reads as a newer format.
                    let named = matches!(e.code(), Code::SnapshotCorrupt | Code::UnsupportedFormatVersion);
                    assert!(named, "{name}, bit {bit}: {e}");
                    assert!(e.file().is_some(), "{name}, bit {bit}: {e}");
                }
            }
        }
    }
    assert!(refused * 4 > tried, "{refused} of {tried}");
}

#[test]
fn a_checkpoint_can_be_asked_for() {
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    let mut options = eager(machine.options(JobId(7), 2, Backend::Heap));
    options.checkpoints = Some(Checkpoints::every(Duration::from_secs(3600), "ckpt"));
    let job = numbers(1000, None, "last").start(options).unwrap();
    let early = job.request_checkpoint(CheckpointScope::Configured);
    machine.scheduler.run_until(|| early.outcome().is_some(), 100_000);
    assert_eq!(
        early.outcome().unwrap().unwrap_err().code(),
        Code::CheckpointDeclined
    );
    machine
        .scheduler
        .run_until(|| job.status().source_records > 100, 1_000_000);
    let ticket = job.request_checkpoint(CheckpointScope::Configured);
    machine
        .scheduler
        .run_until(|| ticket.outcome().is_some(), 100_000);
    let id = ticket.outcome().unwrap().unwrap();
    assert_eq!(job.status().last_checkpoint, Some(id));
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    let late = job.request_checkpoint(CheckpointScope::Configured);
    machine.scheduler.run_until(|| late.outcome().is_some(), 1000);
    assert_eq!(late.wait().unwrap_err().code(), Code::Closed);
}

#[test]
fn a_failed_upload_is_declined_and_borne_and_leaves_nothing_behind() {
    for n in 1..60 {
        let fs = FaultFs::new(Arc::new(SimFs::new()));
        fs.arm(
            FaultPlan::new(Fault::Eio, n)
                .only(&[FsOp::Link, FsOp::Sync, FsOp::Create, FsOp::Write])
                .on_path(|path| path.to_string_lossy().contains("/shared/")),
        );
        let machine = Machine::new(n, Arc::new(fs.clone()));
        let mut options = eager(machine.options(JobId(7), 2, Backend::Heap));
        let checkpoints = Checkpoints::every(Duration::from_micros(200), "ckpt").retain(1);
        options.checkpoints = Some(Checkpoints {
            tolerable_failures: 2,
            ..checkpoints
        });
        let job = numbers(200, None, "last").start(options).unwrap();
        machine
            .scheduler
            .run_until(|| fs.triggered() > 0 || job.is_ended(), 1_000_000);
        let after = job.status().checkpoints;
        machine.scheduler.run_until(
            || job.is_ended() || job.status().checkpoints > after + 1,
            1_000_000,
        );
        job.stop_gracefully().unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.attempts, 1, "call {n}: the job runs on");
        if report.outcome == Some(Outcome::Stopped) {
            assert_eq!(crate::world::checkpoints(&*machine.fs), 1, "call {n}");
        }
    }
}

#[test]
fn late_records_are_dropped_and_counted() {
    let mut orders = input(&mut Random::from_seed(1), 1, 100);
    let late = Order {
        time: 0,
        ..orders[0][0].clone()
    };
    orders[0].push(late);
    let machine = Machine::new(1, Arc::new(SimFs::new()));
    let options = machine.options(JobId(7), 2, Backend::Heap);
    let job = pipeline(&Arc::new(orders.clone()), &Bomb::default())
        .start(options)
        .unwrap();
    let report = machine.finish(&job).unwrap();
    let lates: Vec<_> = report
        .nodes
        .iter()
        .map(|n| (n.uid.as_str(), n.late))
        .filter(|n| n.1 > 0)
        .collect();
    assert_eq!(lates, [("shops", 1)]);
    let all = crate::world::expected(&orders);
    orders[0].pop();
    assert_eq!(
        machine.output()["shops.csv"],
        crate::world::expected(&orders)["shops.csv"]
    );
    assert_eq!(machine.output()["totals.csv"], all["totals.csv"]);
}
