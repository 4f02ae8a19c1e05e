//! If this fails, somebody deletes a snapshot too early because a job said so, or keeps it for ever because it did not.

use crate::savepoint::{FORMATS, LSM, options, orders, outcome, remove, until_checkpoints};
use crate::world::{Bomb, Input, Machine, expected_output, pipeline_in};
use keybed_env::{Fs, Random, fs::SimFs};
use keybed_format::Code;
use keybed_runtime::{
    Backend, CheckpointScope, ClaimMode, Job, JobOptions, JobState, Outcome, Restore, SavepointFormat,
};
use keybed_snapshot::{JobId, SnapshotDir};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const INTERVAL: Duration = Duration::from_micros(300);

/// Where everything of a job lies; absolute, because checkpoints may refer to a snapshot by its address.
pub(crate) fn place(name: &str) -> PathBuf {
    Path::new("/jobs").join(name)
}

pub(crate) fn job_options(
    machine: &Machine,
    job: JobId,
    backend: Backend,
    restore: Option<Restore>,
) -> JobOptions {
    let base = options(machine, backend, INTERVAL, 2);
    let mut checkpoints = base.checkpoints.clone().unwrap();
    checkpoints.root = place("ckpt");
    JobOptions {
        job: Some(job),
        checkpoints: Some(checkpoints),
        work_dir: place(&format!("work-{job}")),
        restore,
        ..base
    }
}

/// A snapshot of job 7 half-way, alone with the output of that job; a checkpoint in its root if no format is given.
pub(crate) struct Half {
    pub(crate) disk: SimFs,
    pub(crate) input: Arc<Input>,
    pub(crate) path: PathBuf,
    /// What lay there.
    pub(crate) before: BTreeMap<PathBuf, Vec<u8>>,
}

pub(crate) fn half_way(seed: u64, backend: Backend, format: Option<SavepointFormat>) -> Half {
    let disk = SimFs::without_history();
    let input = orders(seed);
    let machine = Machine::new(seed, Arc::new(disk.clone()));
    let options = job_options(&machine, JobId(7), backend, None);
    let job = pipeline_in(&input, &Bomb::default(), &place("out"))
        .start(options)
        .unwrap();
    let enough = || job.status().source_records > 90;
    assert!(machine.scheduler.run_until(enough, 1_000_000));
    let path = match format {
        Some(format) => {
            let ticket = job.request_savepoint(format, Some(&place("sp"))).unwrap();
            outcome(&machine, &ticket).unwrap().location
        }
        None => {
            until_checkpoints(&machine, &job, job.status().checkpoints + 1);
            let last = job.status().last_checkpoint.unwrap();
            place("ckpt")
                .join(JobId(7).to_string())
                .join(format!("chk-{last}"))
        }
    };
    job.cancel();
    machine.finish(&job).unwrap();
    let mut half = Half {
        disk,
        input,
        path,
        before: BTreeMap::new(),
    };
    half.before = half.source();
    assert!(half.before.len() > 2, "{:?}", half.path);
    half
}

/// All files, under absolute names.
pub(crate) fn tree(disk: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.tree().into_iter();
    files
        .map(|(path, bytes)| (Path::new("/").join(path), bytes))
        .collect()
}

impl Half {
    /// Everything of the snapshot, and of the root around it.
    pub(crate) fn source(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let around = self.path.parent().unwrap().to_path_buf();
        tree(&self.disk)
            .into_iter()
            .filter(|(path, _)| path.starts_with(&around))
            .collect()
    }

    pub(crate) fn machine(&self, seed: u64) -> Machine {
        Machine::new(seed, Arc::new(self.disk.clone()))
    }

    pub(crate) fn start(&self, bomb: &Bomb, options: JobOptions) -> Job {
        pipeline_in(&self.input, bomb, &place("out"))
            .start(options)
            .unwrap()
    }

    /// Other bytes under the same names, so that whoever reads them knows it.
    pub(crate) fn poison(&self) {
        for path in self.before.keys() {
            self.disk
                .corrupt(path, |bytes| bytes.iter_mut().for_each(|byte| *byte = !*byte))
                .unwrap();
        }
    }

    pub(crate) fn check_output(&self) {
        for (name, text) in expected_output(&self.input) {
            let found = self.disk.read(&place("out").join(name), 1 << 20).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), text);
        }
    }
}

pub(crate) fn released(machine: &Machine) -> usize {
    let events = machine.events.lock().unwrap();
    events
        .iter()
        .filter(|e| e.starts_with("SourceSnapshotReleased"))
        .count()
}

pub(crate) fn crash(machine: &Machine, job: &Job, bomb: &Bomb) {
    let attempts = job.status().attempts;
    bomb.arm(1);
    let again = || job.status().attempts > attempts || job.is_ended();
    assert!(
        machine.scheduler.run_until(again, 1_000_000),
        "{:?}",
        job.status()
    );
}

pub(crate) fn every_kind() -> Vec<(Backend, Backend, Option<SavepointFormat>)> {
    let kinds = [Some(FORMATS[0]), Some(FORMATS[1]), None];
    let backends = [
        (LSM, LSM),
        (Backend::Heap, LSM),
        (LSM, Backend::Heap),
        (Backend::Heap, Backend::Heap),
    ];
    backends
        .iter()
        .flat_map(|(a, b)| kinds.map(|kind| (*a, *b, kind)))
        .collect()
}

#[test]
fn after_the_release_nothing_reads_the_source_whatever_becomes_of_it() {
    for (seed, (backend, other, kind)) in (10..).zip(every_kind()) {
        let half = half_way(seed, backend, kind);
        let (machine, bomb) = (half.machine(seed + 100), Bomb::default());
        let options = JobOptions {
            parallelism: 3,
            ..job_options(&machine, JobId(8), other, Some(Restore::from(&half.path)))
        };
        let job = half.start(&bomb, options);
        let ready = || job.status().source_records > 0;
        assert!(machine.scheduler.run_until(ready, 1_000_000));
        let status = job.status();
        assert_eq!(status.restored_from.as_deref(), Some(&*half.path));
        assert!(status.checkpoints > 0 || status.depends_on_restored_snapshot);
        let told = || released(&machine) > 0;
        assert!(machine.scheduler.run_until(told, 1_000_000));
        assert!(!job.status().depends_on_restored_snapshot && job.status().checkpoints == 1);
        // Nobody wrote there, and now nobody reads there: neither merges of mounted tables nor a recovery.
        assert_eq!(half.source(), half.before);
        half.poison();
        until_checkpoints(&machine, &job, 2);
        crash(&machine, &job, &bomb);
        until_checkpoints(&machine, &job, 4);
        let report = machine.finish(&job).unwrap();
        assert_eq!(
            (report.outcome, report.attempts),
            (Some(Outcome::Finished), 2),
            "seed {seed}"
        );
        if other == LSM {
            let merges: u64 = report.nodes.iter().map(|n| n.backend.compactions).sum();
            assert!(merges > 0, "{report:?}");
        }
        half.check_output();
        assert_eq!(released(&machine), 1);
    }
}

#[test]
fn before_the_release_a_recovery_needs_the_source() {
    for (seed, (backend, other, kind)) in (30..).zip(every_kind()) {
        let half = half_way(seed, backend, kind);
        let (machine, bomb) = (half.machine(seed + 100), Bomb::default());
        let mut options = job_options(&machine, JobId(8), other, Some(Restore::from(&half.path)));
        options.checkpoints.as_mut().unwrap().interval = Duration::from_secs(3600);
        let job = half.start(&bomb, options);
        let enough = || job.status().source_records > 10;
        assert!(machine.scheduler.run_until(enough, 1_000_000));
        // It is there, and gone back to.
        crash(&machine, &job, &bomb);
        let enough = || job.status().source_records > 30;
        assert!(machine.scheduler.run_until(enough, 1_000_000));
        assert!(job.status().depends_on_restored_snapshot);
        remove(&half.disk, &half.path);
        bomb.arm(1);
        let error = machine.finish(&job).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotIncomplete, "{error}");
        assert_eq!(
            (released(&machine), job.status().depends_on_restored_snapshot),
            (0, true)
        );
    }
}

#[test]
fn a_failed_first_checkpoint_releases_nothing_and_the_next_is_full_again() {
    use keybed_env::fs::{Fault, FaultFs, FaultPlan, FsOp};
    let half = half_way(50, LSM, Some(FORMATS[0]));
    let fs: Arc<dyn Fs> = Arc::new(half.disk.clone());
    let faulty = Arc::new(FaultFs::new(fs.clone()));
    let machine = Machine::new(51, faulty.clone());
    let mut options = job_options(&machine, JobId(8), LSM, Some(Restore::from(&half.path)));
    options.checkpoints.as_mut().unwrap().tolerable_failures = 5;
    let job = half.start(&Bomb::default(), options);
    let ready = || job.status().source_records > 0;
    assert!(machine.scheduler.run_until(ready, 1_000_000));
    // Metadata cannot be written once.
    let metadata = |path: &Path| path.ends_with("_metadata") && path.starts_with(place("ckpt"));
    faulty.arm(
        FaultPlan::new(Fault::Eio, 1)
            .only(&[FsOp::Link])
            .on_path(metadata),
    );
    let declined = |machine: &Machine| {
        let events = machine.events.lock().unwrap();
        events
            .iter()
            .filter(|e| e.starts_with("CheckpointDeclined"))
            .count()
    };
    assert!(machine.scheduler.run_until(|| declined(&machine) == 1, 1_000_000));
    assert_eq!(
        (released(&machine), job.status().depends_on_restored_snapshot),
        (0, true)
    );
    until_checkpoints(&machine, &job, 1);
    let id = job.status().last_checkpoint.unwrap();
    let path = place("ckpt").join(JobId(8).to_string()).join(format!("chk-{id}"));
    let full = SnapshotDir::open(fs, &path).unwrap();
    assert_eq!(
        full.metadata().kind,
        keybed_snapshot::SnapshotKind::FullCheckpoint
    );
    assert_eq!(released(&machine), 1);
    machine.finish(&job).unwrap();
    half.check_output();
}

#[test]
fn two_jobs_from_one_snapshot_at_once_do_not_meet() {
    for (seed, (backend, _, kind)) in (60..).zip(every_kind().into_iter().take(3)) {
        let half = half_way(seed, backend, kind);
        let mut random = Random::from_seed(seed);
        // Each has the output of the old job for itself.
        for (path, bytes) in tree(&half.disk) {
            if let Ok(name) = path.strip_prefix(place("out")) {
                let copy = place("out-9").join(name);
                half.disk.create_dir_all(copy.parent().unwrap()).unwrap();
                half.disk.create(&copy).unwrap().append(&bytes).unwrap();
            }
        }
        let machines = [half.machine(seed + 100), half.machine(seed + 200)];
        let jobs = [(JobId(8), LSM, 4, "out"), (JobId(9), Backend::Heap, 1, "out-9")];
        let jobs: Vec<Job> = machines
            .iter()
            .zip(jobs)
            .map(|(machine, (id, backend, parallelism, out))| {
                let options = JobOptions {
                    parallelism,
                    ..job_options(machine, id, backend, Some(Restore::from(&half.path)))
                };
                pipeline_in(&half.input, &Bomb::default(), &place(out))
                    .start(options)
                    .unwrap()
            })
            .collect();
        while !jobs.iter().all(|job| job.is_ended()) {
            let turn = random.index(2);
            machines[turn].scheduler.run_until(|| false, 1 + random.below(50));
        }
        for (machine, job) in machines.iter().zip(&jobs) {
            assert_eq!(machine.finish(job).unwrap().outcome, Some(Outcome::Finished));
            assert_eq!(released(machine), 1);
        }
        half.check_output();
        let other = half.disk.read(&place("out-9/totals.csv"), 1 << 20).unwrap();
        assert_eq!(
            String::from_utf8(other).unwrap(),
            expected_output(&half.input)["totals.csv"]
        );
        assert_eq!(half.source(), half.before);
    }
}

#[test]
fn legacy_needs_the_source_as_long_as_a_checkpoint_refers_to_it() {
    let (mut ever_referred, mut ever_released) = (false, false);
    for (seed, (backend, other, kind)) in (80..).zip(every_kind()) {
        let half = half_way(seed, backend, kind);
        let (machine, bomb) = (half.machine(seed + 100), Bomb::default());
        let restore = Restore::from(&half.path).claim(ClaimMode::Legacy);
        let job = half.start(&bomb, job_options(&machine, JobId(8), other, Some(restore)));
        until_checkpoints(&machine, &job, 1);
        let warned = machine
            .events
            .lock()
            .unwrap()
            .iter()
            .filter(|e| e.contains("Legacy"))
            .count();
        assert_eq!(warned, 1);
        // Whatever is kept is compared with what is said, step by step.
        let root = place("ckpt").join(JobId(8).to_string());
        let kept = || -> Vec<PathBuf> {
            let tree = tree(&half.disk).into_keys();
            tree.filter(|p| p.starts_with(&root) && p.ends_with("_metadata"))
                .collect()
        };
        let refers = |path: &Path| {
            let metadata =
                keybed_snapshot::metadata::decode(&half.disk.read(path, 1 << 24).unwrap()).unwrap();
            !metadata.externals.is_empty()
        };
        let mut crashed = false;
        loop {
            let said = job.status().depends_on_restored_snapshot;
            if kept().iter().any(|path| refers(path)) {
                ever_referred = true;
                assert!(said, "seed {seed}");
                assert_eq!(released(&machine), 0);
                if !crashed {
                    // Through the source.
                    crashed = true;
                    crash(&machine, &job, &bomb);
                }
            } else {
                break;
            }
            let count = job.status().checkpoints;
            let next = || job.status().checkpoints > count || job.is_ended();
            assert!(machine.scheduler.run_until(next, 1_000_000));
            // The removal of what is not kept any more.
            machine.scheduler.run_until(|| false, 30);
            if job.is_ended() {
                break;
            }
        }
        assert_eq!(half.source(), half.before, "LEGACY writes nothing there");
        if !job.is_ended() {
            assert!(!job.status().depends_on_restored_snapshot, "seed {seed}");
            assert_eq!(released(&machine), 1);
            half.poison();
            until_checkpoints(&machine, &job, job.status().checkpoints + 1);
            crash(&machine, &job, &bomb);
            ever_released = true;
        }
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
        assert!(released(&machine) <= 1);
        assert_eq!(released(&machine) == 0, job.status().depends_on_restored_snapshot);
    }
    assert!(ever_referred && ever_released);
}

#[test]
fn a_legacy_source_that_is_deleted_too_early_is_missed_by_name() {
    let half = half_way(82, LSM, None);
    let (machine, bomb) = (half.machine(182), Bomb::default());
    let restore = Restore::from(&half.path).claim(ClaimMode::Legacy);
    let job = half.start(&bomb, job_options(&machine, JobId(8), LSM, Some(restore)));
    until_checkpoints(&machine, &job, 1);
    assert!(job.status().depends_on_restored_snapshot);
    remove(&half.disk, &place("ckpt").join(JobId(7).to_string()));
    bomb.arm(1);
    let error = machine.finish(&job).unwrap_err();
    assert_eq!(error.code(), Code::SnapshotIncomplete, "{error}");
    assert!(error.to_string().contains(&JobId(7).to_string()), "{error}");
    assert_eq!(released(&machine), 0);
}

#[test]
fn a_later_process_releases_what_an_earlier_one_refers_to() {
    let half = half_way(82, LSM, None);
    let machine = half.machine(282);
    let restore = Restore::from(&half.path).claim(ClaimMode::Legacy);
    let job = half.start(
        &Bomb::default(),
        job_options(&machine, JobId(8), LSM, Some(restore)),
    );
    until_checkpoints(&machine, &job, 1);
    assert!(job.status().depends_on_restored_snapshot);
    job.cancel();
    machine.finish(&job).unwrap();
    assert_eq!(released(&machine), 0);
    let machine = half.machine(283);
    let job = half.start(&Bomb::default(), job_options(&machine, JobId(8), LSM, None));
    assert!(job.status().depends_on_restored_snapshot);
    assert_eq!(job.status().restored_from.as_deref(), Some(&*half.path));
    let running = || job.status().state == JobState::Running;
    assert!(machine.scheduler.run_until(running, 1_000_000));
    // Two are kept. The first full one is not the last that refers to nothing.
    for _ in 0..2 {
        assert_eq!(released(&machine), 0);
        let ticket = job.request_checkpoint(CheckpointScope::Full);
        assert!(
            machine
                .scheduler
                .run_until(|| ticket.outcome().is_some(), 1_000_000)
        );
        ticket.outcome().unwrap().unwrap();
    }
    assert!(machine.scheduler.run_until(|| released(&machine) > 0, 1_000));
    assert!(!job.status().depends_on_restored_snapshot && !job.is_ended());
    half.poison();
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    assert_eq!(released(&machine), 1);
    half.check_output();
}

#[test]
fn a_source_that_was_moved_is_found_by_the_number_of_its_anchor() {
    let half = half_way(82, LSM, Some(FORMATS[0]));
    let machine = half.machine(282);
    let restore = Restore::from(&half.path).claim(ClaimMode::Legacy);
    let job = half.start(
        &Bomb::default(),
        job_options(&machine, JobId(8), LSM, Some(restore)),
    );
    until_checkpoints(&machine, &job, 1);
    let last = job.status().last_checkpoint.unwrap();
    job.cancel();
    machine.finish(&job).unwrap();
    let checkpoint = place("ckpt")
        .join(JobId(8).to_string())
        .join(format!("chk-{last}"));
    let opened = SnapshotDir::open(Arc::new(half.disk.clone()), &checkpoint).unwrap();
    let anchor = opened.metadata().externals[0].id;
    half.disk.create_dir_all(&place("elsewhere")).unwrap();
    let moved = place("elsewhere").join("moved sp");
    half.disk.rename(&half.path, &moved).unwrap();

    let lost = half.machine(283);
    let job = half.start(&Bomb::default(), job_options(&lost, JobId(8), LSM, None));
    assert_eq!(lost.finish(&job).unwrap_err().code(), Code::SnapshotIncomplete);
    // Another job starts from the checkpoint that refers to it.
    let machine = half.machine(284);
    let options = |restore| job_options(&machine, JobId(9), LSM, Some(restore));
    let program = || pipeline_in(&half.input, &Bomb::default(), &place("out"));
    let report = program().check(&options(Restore::from(&checkpoint))).unwrap();
    assert_eq!(report.problems[0].code(), Code::SnapshotIncomplete);
    let restore = Restore::from(&checkpoint).anchor(anchor, &moved);
    assert!(program().check(&options(restore)).unwrap().is_compatible());
    // And the job itself goes on.
    let machine = half.machine(285);
    let options = JobOptions {
        anchors: BTreeMap::from([(anchor, moved)]),
        ..job_options(&machine, JobId(8), LSM, None)
    };
    let job = half.start(&Bomb::default(), options);
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    half.check_output();
}

#[test]
fn a_job_that_ended_for_good_needs_its_source_no_more_and_says_so_once() {
    for (seed, mode) in [(90, ClaimMode::NoClaim), (91, ClaimMode::Legacy)] {
        let half = half_way(seed, LSM, Some(FORMATS[0]));
        let restore = || Some(Restore::from(&half.path).claim(mode));
        let slow = |machine: &Machine, job, keep| {
            let mut options = job_options(machine, job, LSM, restore());
            let checkpoints = options.checkpoints.as_mut().unwrap();
            (checkpoints.interval, checkpoints.keep_when_finished) = (Duration::from_secs(3600), keep);
            options
        };
        // Stopped before its first checkpoint: the savepoint is whole without it.
        let machine = half.machine(seed + 100);
        let job = half.start(&Bomb::default(), slow(&machine, JobId(8), false));
        let some = || job.status().source_records > 10;
        assert!(machine.scheduler.run_until(some, 1_000_000));
        assert!(job.status().depends_on_restored_snapshot);
        job.request_stop_with_savepoint(FORMATS[0], Some(&place("sp-8")), false)
            .unwrap();
        let report = machine.finish(&job).unwrap();
        assert_eq!(report.outcome, Some(Outcome::Finished));
        assert_eq!(
            (report.depends_on_restored_snapshot, released(&machine)),
            (false, 1),
            "{mode:?}"
        );
        // At the end of its input: its checkpoints go, and what they refer to with them.
        for keep in [false, true] {
            let machine = half.machine(seed + 200);
            let job = half.start(
                &Bomb::default(),
                slow(&machine, JobId(9 + u128::from(keep)), keep),
            );
            let report = machine.finish(&job).unwrap();
            let needs = keep && mode == ClaimMode::Legacy;
            assert_eq!(
                (report.depends_on_restored_snapshot, released(&machine)),
                (needs, usize::from(!needs)),
                "{mode:?} {keep}"
            );
        }
    }
}
