//! If this fails, a job removes parts that a savepoint names, and the savepoint cannot be restored any more; or parts
//! stay for ever that nobody needs.

use crate::{
    restore::{INTERVAL, JOB, restored},
    savepoint::{FORMATS, LSM, TARGET, ask, options, orders, outcome, remove, until_checkpoints},
    world::{Bomb, Input, Machine, expected_output, pipeline, results},
};
use keybed_env::{
    Fs, Random,
    fs::{Fault, FaultFs, FaultPlan, SimFs},
};
use keybed_format::{Code, Error};
use keybed_runtime::{
    Backend, JobOptions, Outcome, SavepointFormat,
    sink::{HeldBy, ReleaseOf, list, release},
};
use keybed_snapshot::JobId;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const OUT: &str = "out";

fn kinds() -> impl Iterator<Item = (Backend, SavepointFormat)> {
    [Backend::Heap, LSM]
        .into_iter()
        .flat_map(|b| FORMATS.map(|f| (b, f)))
}

/// Runs job 7 with a savepoint at some time, a recovery to a checkpoint before it if `fails`, and to the end. The
/// savepoint, if it could be taken; how the job ended.
fn run_with_savepoint(
    machine: &Machine,
    input: &Arc<Input>,
    (backend, format): (Backend, SavepointFormat),
    fails: bool,
) -> (Option<PathBuf>, Result<Outcome, Error>) {
    let bomb = Bomb::default();
    let job = match pipeline(input, &bomb).start(options(machine, backend, INTERVAL, 3)) {
        Ok(job) => job,
        Err(error) => return (None, Err(error)),
    };
    let at = 60 + machine.seed % 60;
    let there = || job.status().source_records > at || job.is_ended();
    machine.scheduler.run_until(there, 1_000_000);
    let savepoint = outcome(machine, &ask(&job, format));
    if fails {
        bomb.arm(1);
    }
    let end = machine.finish(&job).map(|report| report.outcome.unwrap());
    (savepoint.ok().map(|report| report.location), end)
}

/// Starts job 8 from a savepoint and runs it to its end.
fn restore(fs: &Arc<dyn Fs>, input: &Arc<Input>, seed: u64, savepoint: &Path) -> Result<(), Error> {
    let machine = Machine::new(seed, fs.clone());
    let backend = [Backend::Heap, LSM][seed as usize % 2];
    let options = restored(&machine, backend, 1 + seed as u32 % 3, Some(savepoint));
    let job = pipeline(input, &Bomb::default()).start(options)?;
    assert_eq!(machine.finish(&job)?.outcome, Some(Outcome::Finished));
    assert_eq!(results(&**fs), expected_output(input), "seed {seed}");
    Ok(())
}

fn is_full() -> bool {
    std::env::var_os("KEYBED_TEST_FULL").is_some()
}

fn remove_results(fs: &dyn Fs) {
    for name in results(fs).keys() {
        fs.remove_file(&Path::new(OUT).join(name)).unwrap();
    }
}

fn only_results_stay(fs: &dyn Fs, input: &Input) {
    assert_eq!(crate::world::output(fs), expected_output(input));
}

#[test]
fn a_savepoint_is_restored_after_a_recovery_before_it_and_after_the_end_of_its_job() {
    for seed in 0..8 {
        for (kind, fails) in kinds().flat_map(|k| [(k, true), (k, false)]) {
            let input = orders(seed);
            let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
            let machine = Machine::new(seed, fs.clone());
            let (savepoint, end) = run_with_savepoint(&machine, &input, kind, fails);
            let savepoint = savepoint.unwrap();
            assert_eq!(end.unwrap(), Outcome::Finished);
            assert_eq!(results(&*fs), expected_output(&input));
            let found = list(&*fs, Path::new(OUT)).unwrap();
            assert!(!found.histories.is_empty());
            for history in &found.histories {
                assert_eq!((history.job, history.is_over), (JobId(7), true));
                assert!(history.committed.parts + history.pending.parts > 0);
                assert_eq!(history.holds.len(), 1);
                let HeldBy::Savepoint { location, .. } = &history.holds[0].by else {
                    panic!("{history:?}");
                };
                assert_eq!(Path::new(location), savepoint);
            }
            for times in 0..2 {
                remove_results(&*fs);
                let machine = Machine::new(seed + 10 * times, fs.clone());
                let options = JobOptions {
                    job: Some(JobId(8 + u128::from(times))),
                    ..restored(&machine, kind.0, 1 + times as u32, Some(&savepoint))
                };
                let job = pipeline(&input, &Bomb::default()).start(options).unwrap();
                assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
                assert_eq!(results(&*fs), expected_output(&input), "seed {seed}");
            }
            let name = savepoint.file_name().unwrap().to_str().unwrap().to_owned();
            let which = ReleaseOf::Savepoint(name);
            let before = crate::world::output(&*fs);
            let planned = release(&*fs, Path::new(OUT), &which, true).unwrap();
            assert_eq!(crate::world::output(&*fs), before);
            let done = release(&*fs, Path::new(OUT), &which, false).unwrap();
            assert_eq!(planned, done);
            assert!(done.removed.parts > 0 && !done.holds.is_empty());
            only_results_stay(&*fs, &input);
        }
    }
}

#[test]
fn parts_of_a_job_that_was_given_up_stay_for_its_savepoint() {
    for kind in kinds() {
        let input = orders(2);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(2, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(options(&machine, kind.0, INTERVAL, 0))
            .unwrap();
        machine
            .scheduler
            .run_until(|| job.status().source_records > 80, 1_000_000);
        let savepoint = outcome(&machine, &ask(&job, kind.1)).unwrap().location;
        until_checkpoints(&machine, &job, job.status().checkpoints + 4);
        job.cancel();
        machine.finish(&job).unwrap();
        // Not over: giving the hold up by hand removes no part.
        let parts = list(&*fs, Path::new(OUT)).unwrap();
        let machine = Machine::new(3, fs.clone());
        let anew = JobOptions {
            job: Some(JobId(9)),
            abandoned: vec![JobId(7)],
            ..options(&machine, kind.0, INTERVAL, 0)
        };
        let job = pipeline(&input, &Bomb::default()).start(anew).unwrap();
        machine.finish(&job).unwrap();
        let left = list(&*fs, Path::new(OUT)).unwrap();
        let count = |d: &keybed_runtime::sink::SinkDirectory| -> u64 {
            let of = |h: &keybed_runtime::sink::SinkHistory| h.committed.parts + h.pending.parts;
            d.histories.iter().map(of).sum()
        };
        assert!(count(&left) < count(&parts), "what no savepoint names is gone");
        assert!(left.histories.iter().all(|h| h.job == JobId(7) && h.is_over));
        remove_results(&*fs);
        restore(&fs, &input, 4, &savepoint).unwrap();
        release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
        only_results_stay(&*fs, &input);
    }
}

#[test]
fn a_job_that_began_with_parts_of_another_keeps_them_until_it_is_over() {
    let input = orders(3);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let machine = Machine::new(3, fs.clone());
    let (savepoint, _) = run_with_savepoint(&machine, &input, (LSM, FORMATS[0]), false);
    let savepoint = savepoint.unwrap();
    let machine = Machine::new(4, fs.clone());
    let job = pipeline(&input, &Bomb::default())
        .start(restored(&machine, LSM, 2, Some(&savepoint)))
        .unwrap();
    until_checkpoints(&machine, &job, 1);
    let done = release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
    assert!(!done.holds.is_empty());
    assert_eq!(done.removed.parts, 0, "the job needs them");
    job.cancel();
    machine.finish(&job).unwrap();
    let none = release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
    assert_eq!((none.holds.len(), none.removed.parts), (0, 0), "it may go on");
    let machine = Machine::new(5, fs.clone());
    let job = pipeline(&input, &Bomb::default())
        .start(restored(&machine, LSM, 1, None))
        .unwrap();
    machine.finish(&job).unwrap();
    assert_eq!(results(&*fs), expected_output(&input));
    let rest = release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
    assert!(rest.removed.parts > 0);
    only_results_stay(&*fs, &input);
}

#[test]
fn while_a_hold_cannot_be_read_no_part_is_removed_and_the_user_hears_of_it() {
    let input = orders(1);
    let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
    let machine = Machine::new(1, fs.clone());
    let job = pipeline(&input, &Bomb::default())
        .start(options(&machine, LSM, INTERVAL, 0))
        .unwrap();
    machine
        .scheduler
        .run_until(|| job.status().source_records > 90, 1_000_000);
    let savepoint = outcome(&machine, &ask(&job, FORMATS[0])).unwrap().location;
    let holds = fs.list(Path::new("out/.holds")).unwrap();
    for entry in &holds {
        let path = Path::new("out/.holds").join(&entry.name);
        let mut bytes = fs.read(&path, 1 << 20).unwrap();
        bytes[60] ^= 1;
        fs.remove_file(&path).unwrap();
        let mut file = fs.create(&path).unwrap();
        file.append(&bytes).unwrap();
    }
    assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
    let told = machine.events.lock().unwrap().iter().any(|e| {
        e.starts_with("CleanupFailed") && e.contains("no part is removed while a hold cannot be read")
    });
    assert!(told);
    let found = list(&*fs, Path::new(OUT)).unwrap();
    assert_eq!(found.unreadable.len(), holds.len());
    let known = ReleaseOf::Savepoint("savepoint-00000a-1".into());
    let unknown = release(&*fs, Path::new(OUT), &known, false).unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    remove_results(&*fs);
    restore(&fs, &input, 8, &savepoint).unwrap();
    let gone = release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
    assert_eq!(gone.unreadable, holds.len() as u64);
    only_results_stay(&*fs, &input);
}

#[test]
fn whatever_call_fails_a_savepoint_that_was_taken_is_restored() {
    let input = orders(7);
    let faults = if is_full() { Fault::ALL } else { &[Fault::Eio] };
    for &fault in faults {
        for (kind, fails) in [((Backend::Heap, FORMATS[1]), true), ((LSM, FORMATS[0]), false)] {
            let (mut taken, mut failed) = (0, 0);
            for n in (1..).step_by(if is_full() { 1 } else { 4 }) {
                let faulty = FaultFs::new(Arc::new(SimFs::without_history()));
                let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
                let machine = Machine::new(7, fs.clone());
                faulty.arm(FaultPlan::new(fault, n).on_path(|path| path.starts_with(OUT)));
                let (savepoint, end) = run_with_savepoint(&machine, &input, kind, fails);
                let met = faulty.triggered() > 0;
                faulty.heal();
                if end.is_err() {
                    assert!(met, "{fault:?} {n}: {end:?}");
                    failed += 1;
                }
                let case = format!("{fault:?} {n}, {savepoint:?}, {end:?}");
                if let Some(savepoint) = savepoint {
                    taken += 1;
                    restore(&fs, &input, n, &savepoint).unwrap_or_else(|e| panic!("{case}: {e}"));
                }
                if !met {
                    break;
                }
            }
            println!("{fault:?}, {kind:?}, recovery {fails}: {taken} savepoints, {failed} runs failed");
            assert!(taken > 5 || fault == Fault::ShortRead, "{fault:?}");
        }
    }
}

#[test]
fn after_a_power_loss_at_any_moment_the_savepoint_is_restored_and_its_job_goes_on() {
    let wanted = if is_full() { 20_000 } else { 250 };
    let (mut images, mut restored_images, mut seed) = (0, 0, 0);
    while images < wanted {
        seed += 1;
        let mut random = Random::from_seed(seed);
        let input = Arc::new(crate::world::input(&mut random, 3, 130));
        let fs = SimFs::new();
        let machine = Machine::new(seed, Arc::new(fs.clone()));
        let kind = kinds().nth(random.index(4)).unwrap();
        let (savepoint, _) = run_with_savepoint(&machine, &input, kind, random.one_in(2));
        let Some(savepoint) = savepoint else {
            continue;
        };
        let mut choice = random.fork();
        fs.each_crash_image(2, &mut choice, |at, image| {
            if !is_full() && at % 5 != seed % 5 {
                return;
            }
            images += 1;
            let image: Arc<dyn Fs> = Arc::new(image.clone());
            let case = format!("seed {seed}, operation {at}");
            let exists = image.facts(&savepoint.join("_metadata")).unwrap().is_some();
            // The job itself goes on first: it is the one that removes parts.
            let machine = Machine::new(at, image.clone());
            match pipeline(&input, &Bomb::default()).start(options(&machine, kind.0, INTERVAL, 1)) {
                Ok(job) => {
                    machine.finish(&job).unwrap_or_else(|e| panic!("{case}: {e}"));
                    assert_eq!(results(&*image), expected_output(&input), "{case}");
                }
                Err(e) => assert_eq!(e.code(), Code::InvalidArgument, "{case}: {e}"),
            }
            if exists {
                restored_images += 1;
                restore(&image, &input, at, &savepoint).unwrap_or_else(|e| panic!("{case}: {e}"));
                remove(&*image, Path::new("ckpt").join(JOB.to_string()).as_path());
            }
            // Nothing but holds keeps parts.
            release(&*image, Path::new(OUT), &ReleaseOf::All, false).unwrap();
            let left = list(&*image, Path::new(OUT)).unwrap().histories;
            assert!(
                left.iter().all(|h| !h.is_over && h.holds.is_empty()),
                "{case}: {left:?}"
            );
        });
        assert!(fs.facts(Path::new(TARGET)).unwrap().is_some());
    }
    println!("{images} images of {seed} runs, the savepoint restored in {restored_images}");
    assert!(restored_images * 5 > images);
}

#[test]
fn a_savepoint_of_which_nobody_knows_whether_it_exists_keeps_its_parts() {
    let input = orders(5);
    let mut existing = 0;
    for (fault, kind) in [Fault::FailedSync, Fault::Eio]
        .into_iter()
        .flat_map(|f| kinds().map(move |k| (f, k)))
    {
        for n in 1.. {
            let faulty = FaultFs::new(Arc::new(SimFs::without_history()));
            let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
            let machine = Machine::new(n, fs.clone());
            let job = pipeline(&input, &Bomb::default())
                .start(options(&machine, kind.0, INTERVAL, 0))
                .unwrap();
            machine
                .scheduler
                .run_until(|| job.status().source_records > 100, 1_000_000);
            // The target is gone for good from some call on; the job's own files are not touched by that.
            let plan = FaultPlan::new(fault, n).forever();
            faulty.arm(plan.on_path(|path| path.starts_with("backup")));
            let taken = outcome(&machine, &ask(&job, kind.1));
            let met = faulty.triggered() > 0;
            faulty.heal();
            assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
            assert_eq!(results(&*fs), expected_output(&input), "{fault:?} {n}");
            let directories = fs.list(Path::new(TARGET)).unwrap_or_default();
            let found = directories.iter().map(|e| Path::new(TARGET).join(&e.name));
            for savepoint in found.filter(|s| fs.facts(&s.join("_metadata")).unwrap().is_some()) {
                existing += u64::from(taken.is_err());
                let case = format!("{fault:?} {n} {kind:?}: {taken:?}");
                restore(&fs, &input, n, &savepoint).unwrap_or_else(|e| panic!("{case}: {e}"));
            }
            if !met {
                break;
            }
        }
    }
    assert!(existing > 0, "no outcome was unknown");
}

#[test]
fn folders_that_somebody_else_found_empty_and_removed_harm_no_running_job() {
    for seed in 0..6 {
        let input = orders(seed);
        let fs: Arc<dyn Fs> = Arc::new(SimFs::without_history());
        let machine = Machine::new(seed, fs.clone());
        let job = pipeline(&input, &Bomb::default())
            .start(options(&machine, Backend::Heap, INTERVAL, 0))
            .unwrap();
        while !job.is_ended() {
            let steps = machine.scheduler.steps();
            let some = || machine.scheduler.steps() > steps + 20 || job.is_ended();
            assert!(machine.scheduler.run_until(some, 1_000_000));
            release(&*fs, Path::new(OUT), &ReleaseOf::All, false).unwrap();
        }
        assert_eq!(machine.finish(&job).unwrap().outcome, Some(Outcome::Finished));
        only_results_stay(&*fs, &input);
    }
}
