//! If this fails, a job that is stopped with a savepoint loses or doubles output, goes on where it must not, or does
//! not stop.

use crate::{
    savepoint::{FORMATS, LSM, TARGET, options, orders, outcome, until_checkpoints},
    world::{Bomb, Input, Machine, expected_output, pipeline},
};
use keybed_env::{
    Fs,
    fs::{Fault, FaultFs, FaultPlan, SimFs},
};
use keybed_format::{Code, Result};
use keybed_runtime::{
    Backend, Checkpoints, Job, JobOptions, JobState, Outcome, Restore, SavepointFormat, SavepointTicket,
};
use keybed_snapshot::{JobId, LocalStorage, OpenRoot, SnapshotDir, SnapshotKind, StopRecord, verify};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Heap, LSM];

/// As [`options`], for a job that leaves nothing behind.
pub(crate) fn stopping(machine: &Machine, backend: Backend, restarts: u32) -> JobOptions {
    let options = options(machine, backend, Duration::from_micros(400), restarts);
    JobOptions {
        checkpoints: Some(Checkpoints::every(Duration::from_micros(400), "ckpt").retain(2)),
        ..options
    }
}

pub(crate) fn stop(job: &Job, format: SavepointFormat, drain: bool) -> SavepointTicket {
    job.request_stop_with_savepoint(format, Some(Path::new(TARGET)), drain)
        .unwrap()
}

pub(crate) fn until_read(machine: &Machine, job: &Job, records: u64) {
    let reached = machine
        .scheduler
        .run_until(|| job.status().source_records >= records, 1_000_000);
    assert!(reached, "seed {}: {:?}", machine.seed, job.status());
}

/// The sorted files, if any. Nothing else but the sink's own folders may lie there.
pub(crate) fn results(fs: &dyn Fs) -> BTreeMap<String, String> {
    let mut found = crate::world::output(fs);
    found.retain(|name, _| !["parts", ".pending", ".holds"].contains(&name.as_str()));
    found
}

/// The first orders of every split, as far as a snapshot has read them: from the text of an event.
pub(crate) fn read_up_to(input: &Input, event: &str) -> Input {
    let mut read = vec![Vec::new(); input.len()];
    for split in event.split("split: ").skip(1) {
        let number = |text: &str| -> usize {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        let (at, position) = (number(split), number(split.split("position: ").nth(1).unwrap()));
        read[at] = input[at][..position].to_vec();
    }
    read
}

/// A new job from a savepoint, to its end. Gives what the savepoint had read.
pub(crate) fn go_on(machine: &Machine, backend: Backend, input: &Arc<Input>, from: &Path) -> Input {
    let options = JobOptions {
        job: Some(JobId(8)),
        restore: Some(Restore::from(from)),
        work_dir: PathBuf::from("work-8"),
        ..stopping(machine, backend, 0)
    };
    let job = pipeline(input, &Bomb::default()).start(options).unwrap();
    let report = machine.finish(&job).unwrap();
    assert_eq!(report.outcome, Some(Outcome::Finished));
    let events = machine.events.lock().unwrap();
    let started = events.iter().rev().find(|event| event.starts_with("Started"));
    read_up_to(input, started.unwrap())
}

/// The stop that is recorded in the root of job 7.
pub(crate) fn record(fs: &Arc<dyn Fs>) -> Option<StopRecord> {
    let storage = LocalStorage::create(fs.clone(), Path::new("ckpt"), JobId(7)).unwrap();
    let open = OpenRoot::open(Arc::new(storage), JobId(7)).unwrap();
    open.stop().map(|found| found.record.clone())
}

/// Names in the job root that are not its frame. An empty folder of a checkpoint only keeps its number.
pub(crate) fn left_in_root(fs: &dyn Fs) -> Vec<String> {
    let root = Path::new("ckpt").join(JobId(7).to_string());
    let list = |dir: &Path| -> Vec<String> {
        let entries = fs.list(dir).unwrap_or_default();
        entries.into_iter().map(|e| e.name).collect()
    };
    let frame = [
        "LOCK",
        "FINISHED",
        "STOP",
        "STOPPED",
        "owner",
        "claims",
        "shared",
        "taskowned",
    ];
    let mut left = list(&root.join("shared"));
    for name in list(&root) {
        if name.starts_with("chk-") {
            left.extend(list(&root.join(name)));
        } else if !frame.contains(&name.as_str()) {
            left.push(name);
        }
    }
    left
}

fn resume(machine: &Machine, backend: Backend, input: &Arc<Input>) -> Result<Job> {
    pipeline(input, &Bomb::default()).start(stopping(machine, backend, 0))
}

#[test]
fn a_stop_without_drain_is_gone_on_with_and_one_with_drain_is_complete() {
    for (backend, format, drain) in BACKENDS
        .into_iter()
        .flat_map(|b| FORMATS.map(|f| [(b, f, false), (b, f, true)]))
        .flatten()
    {
        let input = orders(11);
        let sim = SimFs::without_history();
        let fs: Arc<dyn Fs> = Arc::new(sim.clone());
        let machine = Machine::new(11, fs.clone());
        let job = resume(&machine, backend, &input).unwrap();
        until_checkpoints(&machine, &job, 2);
        let ticket = stop(&job, format, drain);
        let savepoint = outcome(&machine, &ticket).unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(
            (report.outcome, report.state),
            (Some(Outcome::Finished), JobState::Finished)
        );
        assert_eq!(report.stopped_with.as_deref(), Some(&*savepoint.location));
        assert!(report.source_records < 200, "the stop came in time");
        assert_eq!(left_in_root(&*fs), [""; 0], "{backend:?} {format:?} {drain}");

        let opened = SnapshotDir::open(fs.clone(), &savepoint.location).unwrap();
        verify(opened.metadata(), &opened).verdict().unwrap();
        let kind = match format {
            SavepointFormat::Native => SnapshotKind::NativeSavepoint,
            SavepointFormat::Canonical => SnapshotKind::CanonicalSavepoint,
        };
        assert_eq!(opened.metadata().kind, kind);
        assert_eq!(opened.metadata().properties.contains_key("drained"), drain);

        // A resume says that there is nothing to do, and changes nothing.
        let before = sim.tree();
        let again = resume(&machine, backend, &input).map(|_| ()).unwrap_err();
        assert!(again.message().starts_with("the job is finished"), "{again}");
        assert!(
            again
                .to_string()
                .contains(&savepoint.location.display().to_string()),
            "{again}"
        );
        assert_eq!(sim.tree(), before);

        let stopped = results(&*fs);
        let read = go_on(&machine, backend, &input, &savepoint.location);
        let records: usize = read.iter().map(Vec::len).sum();
        assert_eq!(
            records as u64, report.source_records,
            "no record after the barrier"
        );
        if drain {
            // Windows that were open gave their first part; those who go on get the second, as the warning says.
            assert_eq!(stopped, expected_output(&read));
        } else {
            assert_eq!(stopped, BTreeMap::new(), "no window fired, nothing was merged");
            assert_eq!(results(&*fs), expected_output(&input));
        }
    }
}

#[test]
fn a_job_at_the_end_of_its_input_or_before_its_first_checkpoint_stops_like_another() {
    for (records, interval) in [(200, 400), (0, 3_600_000_000)] {
        let input = orders(12);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(12, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(JobOptions {
                checkpoints: Some(Checkpoints::every(Duration::from_micros(interval), "ckpt")),
                ..stopping(&machine, LSM, 0)
            })
            .unwrap();
        let reached = || job.status().state == JobState::Running && job.status().source_records >= records;
        assert!(machine.scheduler.run_until(reached, 1_000_000));
        let ticket = stop(&job, FORMATS[0], false);
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.outcome, Some(Outcome::Finished));
        let Some(Ok(savepoint)) = ticket.outcome() else {
            // The final checkpoint was under way.
            assert_eq!(results(&*fs), expected_output(&input));
            continue;
        };
        go_on(&machine, LSM, &input, &savepoint.location);
        assert_eq!(results(&*fs), expected_output(&input));
    }
}

#[test]
fn without_a_target_or_a_running_job_no_stop_begins_and_a_second_one_is_refused() {
    let input = orders(13);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let machine = Machine::new(13, fs.clone());
    let job = resume(&machine, LSM, &input).unwrap();
    let early = outcome(&machine, &stop(&job, FORMATS[0], true)).unwrap_err();
    assert_eq!(early.code(), Code::CheckpointDeclined);
    until_checkpoints(&machine, &job, 1);
    let nowhere = job.request_stop_with_savepoint(FORMATS[0], None, false);
    assert_eq!(nowhere.map(|_| ()).unwrap_err().code(), Code::NoTargetDirectory);
    assert!(fs.facts(Path::new("backup")).unwrap().is_none());
    let before = job
        .request_savepoint(FORMATS[1], Some(Path::new(TARGET)))
        .unwrap();
    let first = stop(&job, FORMATS[0], false);
    let second = stop(&job, FORMATS[0], true);
    let late = job
        .request_savepoint(FORMATS[0], Some(Path::new(TARGET)))
        .unwrap();
    let checkpoint = job.request_checkpoint(keybed_runtime::CheckpointScope::Full);
    let report = machine.finish(&job).unwrap();
    assert_eq!(report.outcome, Some(Outcome::Finished));
    assert!(before.wait().unwrap().checkpoint < first.wait().unwrap().checkpoint);
    for refused in [
        second.wait().unwrap_err(),
        late.wait().unwrap_err(),
        checkpoint.wait().unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::CheckpointDeclined, "{refused}");
        assert!(refused.message().contains("being stopped"), "{refused}");
    }
    let after = stop(&job, FORMATS[0], false);
    assert_eq!(after.wait().unwrap_err().code(), Code::Closed);
}

#[test]
fn what_cannot_be_committed_stays_pending_and_only_that_is_done_by_the_next_run() {
    for (drain, restarts) in [(false, 0), (true, 2)] {
        let input = orders(14);
        let fs = FaultFs::new(Arc::new(SimFs::without_history()));
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let machine = Machine::new(14, shared.clone());
        let job = resume_with(&machine, &input, restarts);
        until_read(&machine, &job, 120);
        let ticket = stop(&job, FORMATS[0], drain);
        let savepoint = outcome(&machine, &ticket).unwrap();
        fs.arm(
            FaultPlan::new(Fault::Eio, 1)
                .forever()
                .on_path(|path| path.starts_with("out")),
        );
        let error = machine.finish(&job).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), Code::StopCommitPending, "{error}");
        let location = savepoint.location.clone();
        assert!(
            error.to_string().contains(&location.display().to_string()),
            "{error}"
        );
        let status = job.status();
        assert_eq!(
            status.state,
            JobState::StopCommitPending {
                savepoint: location.clone()
            }
        );
        assert_eq!(status.attempts, 1 + u64::from(restarts));
        assert!(fs.triggered() > 0);
        drop(job);
        fs.heal();

        // Nobody can say what was committed while the savepoint is away: no checkpoint is gone on from.
        let away = Path::new("backup/away");
        fs.rename(&location, away).unwrap();
        let refused = resume(&machine, LSM, &input).map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), Code::StopCommitPending, "{refused}");
        fs.rename(away, &location).unwrap();

        machine.events.lock().unwrap().clear();
        let job = resume(&machine, LSM, &input).unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(
            (report.outcome, report.source_records),
            (Some(Outcome::Finished), 0)
        );
        let events = machine.events.lock().unwrap().join("\n");
        assert!(
            events.contains("Concluding") && !events.contains("Started"),
            "{events}"
        );
        assert_eq!(left_in_root(&fs), [""; 0]);
        let stopped = results(&fs);
        let read = go_on(&machine, LSM, &input, &location);
        if drain {
            assert_eq!(stopped, expected_output(&read));
        } else {
            assert_eq!(results(&fs), expected_output(&input));
        }
    }
}

fn resume_with(machine: &Machine, input: &Arc<Input>, restarts: u32) -> Job {
    pipeline(input, &Bomb::default())
        .start(stopping(machine, LSM, restarts))
        .unwrap()
}

#[test]
fn a_cancellation_while_commits_are_retried_ends_the_job_with_them_pending() {
    let input = orders(15);
    let fs = FaultFs::new(Arc::new(SimFs::without_history()));
    let machine = Machine::new(15, Arc::new(fs.clone()));
    let job = resume_with(&machine, &input, 1_000_000);
    until_read(&machine, &job, 120);
    let savepoint = outcome(&machine, &stop(&job, FORMATS[1], false)).unwrap();
    fs.arm(
        FaultPlan::new(Fault::Eio, 1)
            .forever()
            .on_path(|path| path.starts_with("out")),
    );
    assert!(
        machine
            .scheduler
            .run_until(|| job.status().attempts > 20, 1_000_000)
    );
    job.cancel();
    let error = machine.finish(&job).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::StopCommitPending, "{error}");
    drop(job);
    fs.heal();
    let job = resume(&machine, LSM, &input).unwrap();
    machine.finish(&job).unwrap();
    go_on(&machine, LSM, &input, &savepoint.location);
    assert_eq!(results(&fs), expected_output(&input));
}

#[test]
fn a_savepoint_that_the_user_was_told_of_and_moved_is_asked_for_and_nothing_older_is_taken() {
    for (backend, format) in BACKENDS.into_iter().flat_map(|b| FORMATS.map(|f| (b, f))) {
        let input = orders(31);
        let disk = SimFs::without_history();
        let machine = Machine::new(31, Arc::new(disk.clone()));
        let job = resume(&machine, backend, &input).unwrap();
        until_checkpoints(&machine, &job, 2);
        let savepoint = outcome(&machine, &stop(&job, format, false)).unwrap().location;
        // The process dies with its answer, before its sinks committed anything.
        let after = disk.live_image();
        let moved = Path::new("backup/moved");
        after.rename(&savepoint, moved).unwrap();
        let machine = Machine::new(32, Arc::new(after.clone()));
        let error = resume(&machine, backend, &input).map(drop).unwrap_err();
        assert_eq!(error.code(), Code::StopCommitPending, "{error}");
        after.rename(moved, &savepoint).unwrap();
        let job = resume(&machine, backend, &input).unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.outcome, Some(Outcome::Finished));
        assert_eq!(report.stopped_with.as_deref(), Some(&*savepoint));
        go_on(&machine, backend, &input, &savepoint);
        assert_eq!(results(&after), expected_output(&input));
    }
}
