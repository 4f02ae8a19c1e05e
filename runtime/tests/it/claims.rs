//! If this fails, a claimed snapshot is deleted while somebody needs it, kept for ever, or owned by two jobs.

use crate::savepoint::{FORMATS, LSM, until_checkpoints};
use crate::source::{Half, crash, every_kind, half_way, job_options, place, released, tree};
use crate::world::{Bomb, Machine, pipeline_in};
use keybed_env::{
    Fs,
    fs::{Fault, FaultFs, FaultPlan},
};
use keybed_format::{Code, Error};
use keybed_runtime::{Backend, ClaimMode, Job, JobOptions, Outcome, RestartStrategy, Restore};
use keybed_snapshot::{Anchors, ForeignSnapshot, JobId, SnapshotDir, SnapshotKind, claim::give_back, verify};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

fn claim(half: &Half) -> Restore {
    Restore::from(&half.path).claim(ClaimMode::Claim)
}

/// Who owns the snapshot.
fn owner(half: &Half) -> Option<JobId> {
    let fs: Arc<dyn Fs> = Arc::new(half.disk.clone());
    let opened = ForeignSnapshot::open(fs, &half.path, Anchors::default()).unwrap();
    opened.claimed_by().unwrap().map(|record| record.claimant.job)
}

fn is_there(half: &Half) -> bool {
    half.disk.facts(&half.path.join("_metadata")).unwrap().is_some()
}

fn refused(half: &Half, options: JobOptions) -> Error {
    let job = pipeline_in(&half.input, &Bomb::default(), &place("out")).start(options);
    job.map(drop).unwrap_err()
}

/// Every published checkpoint of a job, opened and verified by nobody's help.
fn verify_all(half: &Half, job: JobId) -> usize {
    let root = place("ckpt").join(job.to_string());
    let found = tree(&half.disk)
        .into_keys()
        .filter(|p| p.starts_with(&root) && p.ends_with("_metadata"));
    let verified = found.map(|path| {
        let opened = SnapshotDir::open(Arc::new(half.disk.clone()), &path).unwrap();
        opened.check_complete().unwrap();
        verify(opened.metadata(), &opened).verdict().unwrap();
    });
    verified.count()
}

#[test]
fn a_claimed_snapshot_goes_when_it_is_subsumed_and_its_siblings_stay() {
    for (seed, (backend, other, kind)) in (100..).zip(every_kind()) {
        let half = half_way(seed, backend, kind);
        let siblings = verify_all(&half, JobId(7));
        let (machine, bomb) = (half.machine(seed + 100), Bomb::default());
        let options = JobOptions {
            parallelism: 3,
            ..job_options(&machine, JobId(8), other, Some(claim(&half)))
        };
        let job = half.start(&bomb, options);
        assert_eq!(owner(&half), Some(JobId(8)));
        let some = || job.status().source_records > 5;
        assert!(machine.scheduler.run_until(some, 1_000_000));
        if job.status().checkpoints == 0 {
            // Back to the snapshot.
            crash(&machine, &job, &bomb);
        }
        until_checkpoints(&machine, &job, 1);
        assert!(is_there(&half), "it counts as one that is kept");
        let gone = || !is_there(&half) || job.is_ended();
        assert!(machine.scheduler.run_until(gone, 1_000_000));
        assert!(!job.is_ended(), "seed {seed}");
        let count = job.status().checkpoints;
        assert!(
            count >= 2,
            "two are retained, so the second of its own replaces it: {count}"
        );
        until_checkpoints(&machine, &job, count + 1);
        crash(&machine, &job, &bomb);
        assert!(!job.status().depends_on_restored_snapshot);
        // The old job's other checkpoints are whole; what was claimed is gone with what only it needed.
        assert_eq!(
            verify_all(&half, JobId(7)),
            siblings - usize::from(kind.is_none())
        );
        if kind.is_some() {
            assert_eq!(
                half.disk.facts(&half.path).unwrap(),
                None,
                "the directory goes, too"
            );
        }
        assert!(verify_all(&half, JobId(8)) > 0);
        job.cancel();
        machine.finish(&job).unwrap();
        assert_eq!(released(&machine), 0, "nobody else's concern");
        // A fresh process goes on without it.
        let machine = half.machine(seed + 200);
        let job = half.start(&bomb, job_options(&machine, JobId(8), backend, None));
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
        assert_eq!(
            verify_all(&half, JobId(7)),
            siblings - usize::from(kind.is_none())
        );
    }
}

#[test]
fn a_second_claimer_is_refused_before_anything_happens() {
    for (seed, (backend, other, kind)) in (120..).zip(every_kind().into_iter().take(3)) {
        let half = half_way(seed, backend, kind);
        let machine = half.machine(seed + 100);
        let first = half.start(
            &Bomb::default(),
            job_options(&machine, JobId(8), other, Some(claim(&half))),
        );
        let before = half.disk.tree();
        let second = half.machine(seed + 200);
        let options = job_options(&second, JobId(9), other, Some(claim(&half)));
        let report = pipeline_in(&half.input, &Bomb::default(), &place("out"))
            .check(&options)
            .unwrap();
        assert_eq!(report.problems[0].code(), Code::SnapshotClaimedByOther);
        let error = refused(&half, options);
        assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
        let field = |name: &str| error.fields().iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(field("owner"), JobId(8).to_string());
        assert!(!field("since").is_empty());
        assert_eq!(half.disk.tree(), before);
        assert_eq!(second.scheduler.steps(), 0, "no task was started");
        // Who only reads it is told whose it is.
        let restore = Restore::from(&half.path);
        let options = job_options(&second, JobId(9), other, Some(restore));
        let report = pipeline_in(&half.input, &Bomb::default(), &place("out"))
            .check(&options)
            .unwrap();
        assert!(report.is_compatible());
        assert!(
            report.warnings[0].to_string().contains(&JobId(8).to_string()),
            "{report:?}"
        );
        assert_eq!(half.disk.tree(), before);
        assert_eq!(machine.finish(&first).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
    }
}

#[test]
fn an_end_of_the_job_leaves_the_claimed_snapshot_and_the_job_resumes_under_its_claim() {
    for (seed, (backend, other, kind)) in (140..).zip(every_kind()) {
        let half = half_way(seed, backend, kind);
        let (machine, bomb) = (half.machine(seed + 100), Bomb::default());
        let slow = |machine: &Machine, job| {
            let mut options = job_options(machine, job, other, Some(claim(&half)));
            options.checkpoints.as_mut().unwrap().interval = Duration::from_secs(3600);
            options
        };
        let running = |machine: &Machine, job: &Job| {
            let some = || job.status().source_records > 10;
            assert!(machine.scheduler.run_until(some, 1_000_000));
        };
        let job = half.start(&bomb, slow(&machine, JobId(8)));
        running(&machine, &job);
        job.cancel();
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Cancelled));
        assert_eq!(owner(&half), Some(JobId(8)));
        let third = half.machine(seed + 300);
        assert_eq!(
            refused(&half, slow(&third, JobId(9))).code(),
            Code::SnapshotClaimedByOther
        );

        // A failure does not give it away, either.
        let machine = half.machine(seed + 200);
        let options = JobOptions {
            restart: Some(RestartStrategy::None),
            ..slow(&machine, JobId(8))
        };
        let job = half.start(&bomb, options);
        running(&machine, &job);
        bomb.arm(1);
        assert!(machine.finish(&job).is_err());
        assert_eq!(owner(&half), Some(JobId(8)));
        let data = |half: &Half| {
            let mut source = half.source();
            source.retain(|path, _| half.before.contains_key(path));
            source
        };
        assert_eq!(data(&half), half.before);

        let machine = half.machine(seed + 400);
        let job = half.start(&bomb, job_options(&machine, JobId(8), other, Some(claim(&half))));
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
    }
}

#[test]
fn a_job_that_never_began_gives_the_snapshot_back() {
    for (seed, (backend, other, kind)) in (160..).zip(every_kind().into_iter().take(3)) {
        let half = half_way(seed, backend, kind);
        // Found when every byte is read, after the claim.
        let opened = SnapshotDir::open(Arc::new(half.disk.clone()), &half.path).unwrap();
        let object = opened.metadata().files().next().unwrap().object.to_string();
        let file = half.before.keys().find(|path| path.ends_with(&object)).unwrap();
        half.disk.corrupt(file, |bytes| bytes[3] ^= 1).unwrap();
        for job in [JobId(8), JobId(9)] {
            let machine = half.machine(seed + 100 + job.0 as u64);
            let job = half.start(
                &Bomb::default(),
                job_options(&machine, job, other, Some(claim(&half))),
            );
            assert_eq!(machine.finish(&job).unwrap_err().code(), Code::SnapshotCorrupt);
            assert_eq!(owner(&half), None);
        }
        half.disk.corrupt(file, |bytes| bytes[3] ^= 1).unwrap();
        let machine = half.machine(seed + 300);
        let job = half.start(
            &Bomb::default(),
            job_options(&machine, JobId(9), other, Some(claim(&half))),
        );
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
    }
}

#[test]
fn what_cannot_be_written_cannot_be_claimed() {
    for (seed, (backend, other, kind)) in (180..).zip(every_kind().into_iter().take(3)) {
        let half = half_way(seed, backend, kind);
        let faulty = Arc::new(FaultFs::new(Arc::new(half.disk.clone())));
        let around = half.path.parent().unwrap().to_path_buf();
        let read_only = FaultPlan::new(Fault::Erofs, 1)
            .forever()
            .on_path(move |path: &Path| path.starts_with(&around));
        faulty.arm(read_only);
        let machine = Machine::new(seed + 100, faulty.clone());
        let error = refused(&half, job_options(&machine, JobId(8), other, Some(claim(&half))));
        assert_eq!(error.code(), Code::CannotClaim, "{error}");
        assert_eq!(machine.scheduler.steps(), 0);
        assert_eq!(half.source(), half.before);
        // Reading is enough for who claims nothing.
        let restore = Restore::from(&half.path);
        let job = half.start(
            &Bomb::default(),
            job_options(&machine, JobId(8), other, Some(restore)),
        );
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
        assert_eq!(half.source(), half.before);
    }
}

#[test]
fn a_claim_is_given_back_by_hand_when_its_job_has_ended() {
    for (seed, (backend, other, kind)) in (200..).zip(every_kind().into_iter().take(3)) {
        let half = half_way(seed, backend, kind);
        let back = |take_over| {
            let fs: Arc<dyn Fs> = Arc::new(half.disk.clone());
            let source = ForeignSnapshot::open(fs, &half.path, Anchors::default()).unwrap();
            give_back(&source, take_over).map(|record| record.map(|r| r.claimant.job))
        };
        assert_eq!(back(true).unwrap(), None);
        let begin = |job, seed| {
            let machine = half.machine(seed);
            let mut options = job_options(&machine, job, other, Some(claim(&half)));
            options.checkpoints.as_mut().unwrap().interval = Duration::from_secs(3600);
            let job = half.start(&Bomb::default(), options);
            (machine, job)
        };
        let (machine, job) = begin(JobId(8), seed + 100);
        for take_over in [false, true] {
            assert_eq!(
                back(take_over).unwrap_err().code(),
                Code::Locked,
                "who lives is not displaced"
            );
        }
        job.cancel();
        machine.finish(&job).unwrap();
        assert_eq!(back(false).unwrap(), Some(JobId(8)));
        assert_eq!((owner(&half), back(false).unwrap()), (None, None));
        let (machine, job) = begin(JobId(9), seed + 200);
        job.cancel();
        machine.finish(&job).unwrap();
        // Somebody moved the claimant away.
        let root = place("ckpt").join(JobId(9).to_string());
        half.disk.rename(&root, &place("moved")).unwrap();
        let error = back(false).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotClaimedByOther, "{error}");
        assert_eq!(half.disk.facts(&root).unwrap(), None, "nothing is made there");
        assert_eq!(back(true).unwrap(), Some(JobId(9)));
        let machine = half.machine(seed + 300);
        let job = half.start(
            &Bomb::default(),
            job_options(&machine, JobId(10), other, Some(claim(&half))),
        );
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        half.check_output();
    }
}

/// Fails one call during a start and the first checkpoints, whichever it is; then the same job is started again.
fn one_fault(half: &Half, mode: ClaimMode, backend: Backend, nth: u64) -> bool {
    let faulty = Arc::new(FaultFs::new(Arc::new(half.disk.clone())));
    let machine = Machine::new(7 + nth, faulty.clone());
    let restore = Restore::from(&half.path).claim(mode);
    let options = job_options(&machine, JobId(8), backend, Some(restore.clone()));
    faulty.arm(FaultPlan::new(
        [Fault::Eio, Fault::Enospc][(nth % 2) as usize],
        nth,
    ));
    let started = pipeline_in(&half.input, &Bomb::default(), &place("out")).start(options);
    if let Ok(job) = &started {
        let enough = || job.status().checkpoints > 2 || job.is_ended();
        assert!(machine.scheduler.run_until(enough, 3_000_000), "{mode:?} {nth}");
        job.cancel();
        let _ = machine.finish(job);
    }
    let met = faulty.triggered() > 0;
    faulty.heal();
    if mode != ClaimMode::Claim {
        assert_eq!(
            half.source(),
            half.before,
            "{mode:?} {nth}: {:?}",
            faulty.first_fault()
        );
    }
    let machine = half.machine(9 + nth);
    let own = verify_all(half, JobId(8));
    let restore = (own == 0).then_some(restore);
    let job = pipeline_in(&half.input, &Bomb::default(), &place("out"))
        .start(job_options(&machine, JobId(8), backend, restore))
        .unwrap_or_else(|e| panic!("{mode:?} {nth} {:?}: {e}", faulty.first_fault()));
    let end = machine.finish(&job);
    let end = end.unwrap_or_else(|e| panic!("{mode:?} {nth} {:?}: {e}", faulty.first_fault()));
    assert_eq!(end.outcome, Some(Outcome::Finished));
    half.check_output();
    met
}

#[test]
fn whatever_call_fails_at_the_start_nothing_is_lost_and_the_job_goes_on() {
    let full = std::env::var_os("KEYBED_TEST_FULL").is_some();
    let mut kinds = vec![(LSM, Some(FORMATS[0])), (LSM, None)];
    if full {
        kinds.extend([
            (Backend::Heap, Some(FORMATS[0])),
            (LSM, Some(FORMATS[1])),
            (Backend::Heap, None),
        ]);
    }
    for (backend, kind) in kinds {
        for mode in [ClaimMode::NoClaim, ClaimMode::Legacy, ClaimMode::Claim] {
            let mut nth = 1;
            loop {
                let half = half_way(7, backend, kind);
                if !one_fault(&half, mode, backend, nth) {
                    break;
                }
                // In order, then in ever larger steps.
                nth += if full { 1 } else { 1 + nth / 4 };
            }
            assert!(nth > 100, "{nth} calls are not a start");
        }
    }
}

#[test]
fn a_claimed_file_gets_one_name_and_is_never_written_again() {
    // Whatever other ranges of keys the subtasks have now.
    let half = half_way(7, LSM, Some(FORMATS[0]));
    let machine = half.machine(9);
    let options = JobOptions {
        parallelism: 5,
        ..job_options(&machine, JobId(8), LSM, Some(claim(&half)))
    };
    let fs: Arc<dyn Fs> = Arc::new(half.disk.clone());
    let source = SnapshotDir::open(fs.clone(), &half.path).unwrap();
    let claimed: BTreeSet<u128> = source.metadata().files().map(|file| file.content).collect();
    let job = half.start(&Bomb::default(), options);
    until_checkpoints(&machine, &job, 1);
    let id = job.status().last_checkpoint.unwrap();
    let first = place("ckpt").join(JobId(8).to_string()).join(format!("chk-{id}"));
    let first = SnapshotDir::open(fs, &first).unwrap();
    assert_eq!(first.metadata().kind, SnapshotKind::Checkpoint);
    let mut names = BTreeMap::<u128, BTreeSet<String>>::new();
    for file in first
        .metadata()
        .files()
        .filter(|file| claimed.contains(&file.content))
    {
        names
            .entry(file.content)
            .or_default()
            .insert(file.object.to_string());
    }
    assert!(!names.is_empty());
    assert!(names.values().all(|names| names.len() == 1), "{names:?}");
    assert!(first.metadata().externals.is_empty());
    machine.finish(&job).unwrap();
    half.check_output();
}
