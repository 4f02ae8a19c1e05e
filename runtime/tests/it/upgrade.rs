//! If this fails, a changed program loses state unasked, takes up the wrong one, or meets its problems one by one.

use crate::savepoint::{FORMATS, LSM, ask, options, outcome, until_checkpoints};
use crate::world::Machine;
use keybed_env::{Fs, fs::SimFs};
use keybed_format::{Code, Error, Result};
use keybed_runtime::{
    AllowNonRestored, Backend, CheckReport, Context, FileSink, JobOptions, KeyedOperator, OperatorStanding,
    OperatorUid, Outcome, Pipeline, Polled, Restore, RestoreWarning, SavepointFormat, Source, SourceReader,
    SplitStart,
};
use keybed_snapshot::{JobId, SnapshotDir, metadata};
use keybed_state::{Codec, KeyCodec, ListState, MapState, StateRegistry, ValueState};
use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc, time::Duration};

const INTERVAL: Duration = Duration::from_micros(300);

/// Numbers below a count, in two splits.
struct Numbers(u64);
struct NumbersReader(u64, Vec<SplitStart>);

impl Source for Numbers {
    type Record = u64;
    fn splits(&self) -> u32 {
        2
    }
    fn open(&self, _fs: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<u64>>> {
        Ok(Box::new(NumbersReader(self.0, splits.to_vec())))
    }
}

impl SourceReader<u64> for NumbersReader {
    fn poll_next(&mut self) -> Result<Polled<u64>> {
        let turn = 1.min(self.1.len());
        self.1.rotate_left(turn);
        let Some(at) = self.1.first_mut() else {
            return Ok(Polled::End);
        };
        let value = at.position * 2 + u64::from(at.split);
        if value >= self.0 {
            return Ok(Polled::SplitEnd(self.1.remove(0).split));
        }
        at.position += 1;
        let (split, next, timestamp) = (at.split, at.position, value as i64);
        Ok(Polled::Record {
            split,
            next,
            timestamp,
            value,
        })
    }
}

/// Counts, told at the end.
struct Counts(ValueState<u64>);

impl KeyedOperator for Counts {
    type Key = u64;
    type In = u64;
    type Out = String;
    fn process(&mut self, _key: &u64, _value: u64, ctx: &mut Context<'_, String>) -> Result {
        self.0.update(ctx, |count| count.unwrap_or(0) + 1)?;
        ctx.register_event_timer(i64::MAX)
    }
    fn on_timer(&mut self, key: &u64, _time: i64, ctx: &mut Context<'_, String>) -> Result {
        let count = self.0.get(ctx)?.unwrap_or(0);
        ctx.emit(format!("{key},{count}"));
        Ok(())
    }
}

/// Remembers in states of chosen types.
struct Memory<K, V, M> {
    last: ValueState<V>,
    seen: MapState<M, u64>,
    make: fn(u64) -> (V, M),
    key: std::marker::PhantomData<K>,
}

impl<K, V, M> KeyedOperator for Memory<K, V, M>
where
    K: KeyCodec + Clone + Send + 'static,
    V: Codec + Send + 'static,
    M: KeyCodec + Send + 'static,
{
    type Key = K;
    type In = u64;
    type Out = ();
    fn process(&mut self, _key: &K, value: u64, ctx: &mut Context<'_, ()>) -> Result {
        let (last, seen) = (self.make)(value);
        self.last.set(ctx, &last)?;
        self.seen.put(ctx, &seen, &value)
    }
}

fn memory<K, V: Codec, M: KeyCodec>(
    make: fn(u64) -> (V, M),
) -> impl Fn(&mut StateRegistry) -> Result<Memory<K, V, M>> {
    move |states| {
        Ok(Memory {
            last: states.value("last")?,
            seen: states.map("seen")?,
            make,
            key: std::marker::PhantomData,
        })
    }
}

/// As [`Memory`], grown into a list.
struct Lists(ListState<u64>);

impl KeyedOperator for Lists {
    type Key = u64;
    type In = u64;
    type Out = ();
    fn process(&mut self, _key: &u64, value: u64, ctx: &mut Context<'_, ()>) -> Result {
        self.0.push(ctx, &value)
    }
}

/// Sets and clears.
struct Fleeting(ValueState<u64>);

impl KeyedOperator for Fleeting {
    type Key = u64;
    type In = u64;
    type Out = ();
    fn process(&mut self, _key: &u64, value: u64, ctx: &mut Context<'_, ()>) -> Result {
        self.0.set(ctx, &value)?;
        ctx.register_event_timer(i64::MAX)?;
        self.0.clear(ctx)?;
        ctx.delete_event_timer(i64::MAX)
    }
}

/// The version of the program that snapshots are taken of.
fn old(count: u64) -> Pipeline {
    let mut pipeline = Pipeline::new("upgrade");
    let numbers = pipeline.source("in", Numbers(count));
    counts(&numbers, "counts");
    let keyed = numbers.key_by(|n| n % 5);
    keyed.operator("memory", memory::<u64, u64, u64>(|n| (n, n)));
    keyed.operator("lists", memory::<u64, u64, u64>(|n| (n, n)));
    // Has states and never gets a record.
    let none = numbers.filter(|_| false).key_by(|n| *n);
    none.operator("idle", memory::<u64, u64, u64>(|n| (n, n)));
    // Its states are empty whenever somebody looks.
    keyed.operator("fleeting", |states: &mut StateRegistry| {
        Ok(Fleeting(states.value("fleeting")?))
    });
    pipeline
}

fn counts(numbers: &keybed_runtime::Stream<u64>, uid: &str) {
    let sink = FileSink::new("out", |line: &String| line.clone());
    numbers
        .key_by(|n| n % 7)
        .operator(uid, |states: &mut StateRegistry| {
            Ok(Counts(states.value("count")?))
        })
        .sink(
            "counts-out",
            sink.sorted_file("counts.csv", "key,count", str::to_owned),
        );
}

/// Without the operators that only remember.
fn bare(count: u64, uid: &str) -> Pipeline {
    let mut pipeline = Pipeline::new("upgrade");
    counts(&pipeline.source("in", Numbers(count)), uid);
    pipeline
}

fn expected(count: u64) -> String {
    let mut counts = BTreeMap::<u64, u64>::new();
    (0..count).for_each(|n| *counts.entry(n % 7).or_default() += 1);
    let lines = counts.iter().map(|(key, count)| format!("{key},{count}\n"));
    std::iter::once("key,count\n".to_owned()).chain(lines).collect()
}

/// A snapshot of job 7 half-way, and the disk it lies on; a checkpoint if no format is given.
fn half_way(backend: Backend, format: Option<SavepointFormat>) -> (SimFs, PathBuf) {
    let disk = SimFs::without_history();
    let machine = Machine::new(3, Arc::new(disk.clone()));
    let job = old(400).start(options(&machine, backend, INTERVAL, 0)).unwrap();
    let enough = || job.status().source_records > 150;
    assert!(machine.scheduler.run_until(enough, 1_000_000));
    let path = match format {
        Some(format) => outcome(&machine, &ask(&job, format)).unwrap().location,
        None => {
            until_checkpoints(&machine, &job, job.status().checkpoints + 1);
            let last = job.status().last_checkpoint.unwrap();
            Path::new("ckpt")
                .join(JobId(7).to_string())
                .join(format!("chk-{last}"))
        }
    };
    job.cancel();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Cancelled));
    (disk, path)
}

fn every_kind() -> impl Iterator<Item = (Backend, Backend, Option<SavepointFormat>)> {
    let kinds = [Some(FORMATS[0]), Some(FORMATS[1]), None];
    let backends = [(LSM, Backend::Heap), (Backend::Heap, LSM), (LSM, LSM)];
    backends
        .into_iter()
        .flat_map(move |(a, b)| kinds.map(|kind| (a, b, kind)))
}

fn starting(machine: &Machine, backend: Backend, restore: Restore) -> JobOptions {
    JobOptions {
        job: Some(JobId(8)),
        parallelism: 3,
        restore: Some(restore),
        ..options(machine, backend, INTERVAL, 0)
    }
}

fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).unwrap()
}

fn codes(report: &CheckReport) -> Vec<Code> {
    report.problems.iter().map(Error::code).collect()
}

/// The start is refused as the check foretells, and both leave the disk as it is.
fn refused(disk: &SimFs, pipeline: &Pipeline, restore: Restore) -> CheckReport {
    let machine = Machine::new(5, Arc::new(disk.clone()));
    let options = starting(&machine, LSM, restore);
    let before = disk.tree();
    let report = pipeline.check(&options).unwrap();
    let start = pipeline.start(options).map(drop).unwrap_err();
    assert_eq!(disk.tree(), before, "{start}");
    let said = report.verdict().unwrap_err();
    assert_eq!((start.code(), start.to_string()), (said.code(), said.to_string()));
    report
}

fn finishes(disk: &SimFs, pipeline: &Pipeline, backend: Backend, restore: Restore) -> Vec<String> {
    let machine = Machine::new(6, Arc::new(disk.clone()));
    let options = starting(&machine, backend, restore);
    assert!(pipeline.check(&options).unwrap().is_compatible());
    let job = pipeline.start(options).unwrap();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(machine.output()["counts.csv"], expected(400));
    machine.events.lock().unwrap().clone()
}

#[test]
fn state_without_an_operator_is_refused_unless_it_is_named_or_all_is_allowed() {
    for (backend, other, kind) in every_kind() {
        let (disk, path) = half_way(backend, kind);
        let pipeline = bare(400, "counts");
        let report = refused(&disk, &pipeline, Restore::from(&path));
        assert_eq!(codes(&report), [Code::UnmappedOperatorState; 2], "{report:?}");
        let first = &report.problems[0];
        assert!(first.fields().contains(&("uid", "memory".into())), "{first}");
        assert!(
            first.fields().contains(&("states", "last, seen".into())),
            "{first}"
        );
        let bytes = first.fields().iter().find(|(name, _)| *name == "bytes").unwrap();
        assert_ne!(bytes.1, "0");
        // Another list of uids allows nothing of this.
        let others = AllowNonRestored::Uids([uid("memory"), uid("idle")].into());
        let report = refused(&disk, &pipeline, Restore::from(&path).allow_non_restored(others));
        assert_eq!(codes(&report), [Code::UnmappedOperatorState]);
        assert!(report.problems[0].to_string().contains("uid lists"), "{report:?}");
        let standing = |uid: &str| {
            let found = report.operators.iter().find(|o| o.uid.as_str() == uid).unwrap();
            found.standing
        };
        assert_eq!(standing("counts"), OperatorStanding::Restored);
        assert_eq!(standing("memory"), OperatorStanding::LeftOut);
        assert_eq!(standing("lists"), OperatorStanding::Unmapped);
        assert_eq!(standing("idle"), OperatorStanding::Gone);
        assert_eq!(standing("fleeting"), OperatorStanding::Gone);
        let allowed = match kind {
            None => AllowNonRestored::All,
            Some(_) => AllowNonRestored::Uids([uid("memory"), uid("lists")].into()),
        };
        let restore = Restore::from(&path).allow_non_restored(allowed);
        let events = finishes(&disk, &pipeline, other, restore);
        let told = events
            .iter()
            .filter(|e| e.starts_with("RestoreWarning { warning: LeftOut"));
        assert_eq!(told.count(), 2, "{events:?}");
    }
}

#[test]
fn a_renamed_operator_takes_up_its_state() {
    for (backend, other, kind) in every_kind() {
        let (disk, path) = half_way(backend, kind);
        let pipeline = bare(400, "totals");
        let allowed = AllowNonRestored::Uids([uid("memory"), uid("lists")].into());
        let restore = Restore::from(&path).allow_non_restored(allowed);
        let report = refused(&disk, &pipeline, restore.clone());
        assert_eq!(codes(&report), [Code::UnmappedOperatorState]);
        let restore = restore.rename(uid("counts"), uid("totals"));
        let machine = Machine::new(5, Arc::new(disk.clone()));
        let report = pipeline
            .check(&starting(&machine, other, restore.clone()))
            .unwrap();
        let totals = &report.operators.iter().find(|o| o.uid == uid("totals")).unwrap();
        assert_eq!(
            (totals.standing, &totals.renamed_from),
            (OperatorStanding::Restored, &Some(uid("counts")))
        );
        finishes(&disk, &pipeline, other, restore);
    }
}

#[test]
fn mistaken_renames_are_told_together() {
    let (disk, path) = half_way(LSM, Some(FORMATS[0]));
    let restore = Restore::from(&path)
        .rename(uid("memory"), uid("lists"))
        .rename(uid("nobody"), uid("counts"))
        .rename(uid("idle"), uid("nowhere"));
    let report = refused(&disk, &old(400), restore);
    assert_eq!(
        codes(&report),
        [Code::DuplicateUid, Code::InvalidArgument, Code::InvalidArgument],
        "{report:?}"
    );
    let text = format!("{report:?}");
    assert!(
        text.contains("no operator of the old uid") && text.contains("no operator of the new uid"),
        "{text}"
    );
}

#[test]
fn every_problem_of_a_changed_program_is_in_one_report() {
    for (backend, _, kind) in every_kind() {
        let (disk, path) = half_way(backend, kind);
        let mut pipeline = Pipeline::new("upgrade");
        let numbers = pipeline.source("in", Numbers(400));
        // The key has another type; no state of that name is left.
        numbers
            .key_by(|n| (n % 7) as u32)
            .operator("counts", memory::<u32, u64, u64>(|n| (n, n)));
        // The value has become narrower, the map has other keys.
        let keyed = numbers.key_by(|n| n % 5);
        keyed.operator(
            "memory",
            memory::<u64, u32, String>(|n| (n as u32, n.to_string())),
        );
        // The value has become a list.
        numbers
            .key_by(|n| *n)
            .operator("idle", |states: &mut StateRegistry| {
                Ok(Lists(states.list("last")?))
            });
        let report = refused(&disk, &pipeline, Restore::from(&path).rename(uid("x"), uid("in")));
        let found = codes(&report);
        for code in [
            Code::InvalidArgument,
            Code::UnmappedOperatorState,
            Code::KeySchemaIncompatible,
            Code::ValueSchemaIncompatible,
            Code::MapKeySchemaChanged,
            Code::StateKindChanged,
        ] {
            assert!(found.contains(&code), "{code} in {report:?}");
        }
        let start = report.verdict().unwrap_err();
        let further = start
            .fields()
            .iter()
            .filter(|(name, _)| *name == "further_problem");
        assert_eq!(further.count() + 1, found.len());
    }
}

#[test]
fn parallelism_has_one_rule_for_every_kind_of_snapshot() {
    for (backend, _, kind) in every_kind() {
        let (disk, path) = half_way(backend, kind);
        let machine = Machine::new(5, Arc::new(disk.clone()));
        let check = |parallelism, max_parallelism| {
            let options = JobOptions {
                parallelism,
                max_parallelism,
                ..starting(&machine, LSM, Restore::from(&path))
            };
            let mut codes = codes(&old(400).check(&options).unwrap());
            codes.dedup();
            codes
        };
        assert_eq!(check(129, None), [Code::ParallelismExceedsMax]);
        assert_eq!(check(1, Some(256)), [Code::MaxParallelismMismatch]);
        assert!(check(128, Some(128)).is_empty());
    }
}

/// Writes the property of a drained savepoint into metadata.
fn mark_drained(disk: &SimFs, snapshot: &Path) {
    let path = snapshot.join("_metadata");
    let mut metadata = metadata::decode(&disk.read(&path, 1 << 24).unwrap()).unwrap();
    metadata.properties.insert("drained".into(), "true".into());
    disk.remove_file(&path).unwrap();
    let mut file = disk.create(&path).unwrap();
    file.append(&metadata::encode(&metadata).unwrap()).unwrap();
}

#[test]
fn who_starts_from_a_drained_savepoint_is_warned_once() {
    let (disk, path) = half_way(LSM, Some(FORMATS[1]));
    let drained = |events: &[String]| events.iter().filter(|e| e.contains("Drained")).count();
    assert_eq!(drained(&finishes(&disk, &old(400), LSM, Restore::from(&path))), 0);
    let (disk, path) = half_way(LSM, Some(FORMATS[1]));
    mark_drained(&disk, &path);
    let machine = Machine::new(5, Arc::new(disk.clone()));
    let report = old(400)
        .check(&starting(&machine, LSM, Restore::from(&path)))
        .unwrap();
    let location = report.snapshot.as_ref().unwrap().location.clone();
    assert!(location.ends_with(&path));
    assert_eq!(report.warnings, [RestoreWarning::Drained { location }]);
    assert_eq!(drained(&finishes(&disk, &old(400), LSM, Restore::from(&path))), 1);
}

#[test]
fn damage_of_the_snapshot_is_found_by_the_check() {
    let (disk, path) = half_way(LSM, Some(FORMATS[0]));
    let opened = SnapshotDir::open(Arc::new(disk.clone()), &path).unwrap();
    let file = opened.metadata().files().next().unwrap().object.to_string();
    disk.corrupt(path.join(&file), |bytes| bytes[0] ^= 1).unwrap();
    let machine = Machine::new(5, Arc::new(disk.clone()));
    let options = starting(&machine, LSM, Restore::from(&path));
    let report = bare(400, "counts").check(&options).unwrap();
    // Beside what is wrong with the program.
    assert_eq!(
        codes(&report),
        [
            Code::SnapshotCorrupt,
            Code::UnmappedOperatorState,
            Code::UnmappedOperatorState
        ]
    );
    disk.remove_file(&path.join(&file)).unwrap();
    assert_eq!(
        codes(&refused(&disk, &old(400), Restore::from(&path))),
        [Code::SnapshotIncomplete]
    );
    disk.remove_file(&path.join("_metadata")).unwrap();
    assert_eq!(
        codes(&refused(&disk, &old(400), Restore::from(&path))),
        [Code::NotASnapshot]
    );
}

#[test]
fn a_drained_job_goes_on_without_calling_its_records_late() {
    for (seed, (backend, other, kind)) in (1..).zip(every_kind()) {
        let Some(format) = kind else { continue };
        let disk = SimFs::without_history();
        let machine = Machine::new(seed, Arc::new(disk.clone()));
        let job = windows(400)
            .start(options(&machine, backend, INTERVAL, 0))
            .unwrap();
        let some = || job.status().source_records > 100;
        assert!(machine.scheduler.run_until(some, 1_000_000));
        let ticket = job
            .request_stop_with_savepoint(format, Some(Path::new("/sp")), true)
            .unwrap();
        let savepoint = outcome(&machine, &ticket).unwrap().location;
        let read = machine.finish(&job).unwrap().source_records;
        assert!(read < 400, "stopped in the middle");
        let machine = Machine::new(seed + 100, Arc::new(disk.clone()));
        let job = windows(400)
            .start(starting(&machine, other, Restore::from(&savepoint)))
            .unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.source_records, 400 - read);
        assert_eq!(report.nodes.iter().map(|n| n.late).sum::<u64>(), 0, "{report:?}");
        let events = machine.events.lock().unwrap();
        assert_eq!(events.iter().filter(|e| e.contains("Drained")).count(), 1);
        // Nothing is lost or doubled: only windows that were open give two parts.
        let mut sum = 0;
        for line in parts(&disk).lines() {
            sum += line.rsplit(',').next().unwrap().parse::<u64>().unwrap();
        }
        assert_eq!(sum, (0..400).sum::<u64>());
    }
}

/// All committed lines.
fn parts(disk: &SimFs) -> String {
    let mut text = String::new();
    for entry in disk.list(Path::new("out/parts")).unwrap() {
        let part = disk
            .read(&Path::new("out/parts").join(entry.name), 1 << 20)
            .unwrap();
        text += std::str::from_utf8(&part).unwrap();
    }
    text
}

/// Sums by key and window.
fn windows(count: u64) -> Pipeline {
    let mut pipeline = Pipeline::new("windows");
    let sink = FileSink::new("out", |line: &String| line.clone());
    let windows = keybed_runtime::Tumbling::of(Duration::from_millis(10));
    let numbers = pipeline.source("in", Numbers(count));
    numbers
        .key_by(|n| n % 3)
        .window("windows", windows, Sum)
        .sink("windows-out", sink);
    pipeline
}

#[test]
fn records_after_a_job_that_had_ended_are_not_late() {
    for (backend, other, _) in every_kind().filter(|(_, _, kind)| kind.is_none()) {
        let disk = SimFs::without_history();
        let machine = Machine::new(3, Arc::new(disk.clone()));
        let job = windows(200)
            .start(options(&machine, backend, INTERVAL, 0))
            .unwrap();
        let last = machine.finish(&job).unwrap().last_checkpoint.unwrap();
        let path = Path::new("ckpt")
            .join(JobId(7).to_string())
            .join(format!("chk-{last}"));
        // All inputs have ended. Now there are more records, in windows that are not over by any of theirs.
        let machine = Machine::new(4, Arc::new(disk.clone()));
        let job = windows(400)
            .start(starting(&machine, other, Restore::from(path)))
            .unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.source_records, 200);
        assert_eq!(report.nodes.iter().map(|n| n.late).sum::<u64>(), 0, "{report:?}");
        let lines = parts(&disk).lines().count();
        assert_eq!(lines, 3 * 40, "every window of every key once");
    }
}

struct Sum;

impl keybed_runtime::Aggregate for Sum {
    type Key = u64;
    type In = u64;
    type Accumulator = u64;
    type Out = String;
    fn create(&self) -> u64 {
        0
    }
    fn add(&self, sum: &mut u64, value: u64) {
        *sum += value;
    }
    fn finish(&self, key: &u64, window: keybed_runtime::Window, sum: u64) -> String {
        format!("{key},{},{sum}", window.start)
    }
}
