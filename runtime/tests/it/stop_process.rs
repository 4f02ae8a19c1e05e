//! If this fails, a process that is killed while its job stops with a savepoint leaves a real disk on which the next
//! process goes neither back nor forward.

use crate::{
    savepoint::FORMATS,
    stop::read_up_to,
    world::{Bomb, Input, expected_output, input, pipeline_in},
};
use keybed_env::{
    Fs, OsFs, Random,
    fs::{Fault, FaultFs, FaultPlan},
};
use keybed_format::Code;
use keybed_runtime::{Backend, Checkpoints, JobEvent, JobOptions, Outcome, RestartStrategy, Restore};
use keybed_snapshot::{JobId, LocalStorage, OpenRoot};
use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const DIR: &str = "KEYBED_TEST_STOP_DIR";
const AT: &str = "KEYBED_TEST_STOP_AT";
const DRAIN: &str = "KEYBED_TEST_STOP_DRAIN";

fn orders() -> Arc<Input> {
    Arc::new(input(&mut Random::from_seed(41), 2, 4000))
}

fn options(dir: &Path, job: u128, fs: Arc<dyn Fs>) -> JobOptions {
    JobOptions {
        job: Some(JobId(job)),
        parallelism: 2,
        backend: Backend::Lsm {
            memtable_bytes: 1 << 20,
        },
        work_dir: dir.join(format!("work-{job}")),
        checkpoints: Some(Checkpoints::every(Duration::from_millis(20), dir.join("ckpt"))),
        restart: Some(RestartStrategy::None),
        source_step_records: 16,
        fs,
        ..JobOptions::default()
    }
}

/// Runs in a process of its own: stops its job, and dies before the n-th call from then on that changes the disk.
#[test]
fn child_stops_and_dies() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let at: u64 = std::env::var(AT).unwrap().parse().unwrap();
    let drain = std::env::var(DRAIN).unwrap() == "true";
    let fs = FaultFs::new(Arc::new(OsFs));
    let slowly = JobOptions {
        // Far from the end of the input when it is asked to stop, also on a slow machine.
        throttle: Some(1500),
        ..options(dir, 7, Arc::new(fs.clone()))
    };
    let job = pipeline_in(&orders(), &Bomb::default(), &dir.join("out"))
        .start(slowly)
        .unwrap();
    while job.status().source_records < 150 || job.status().checkpoints < 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let calls = AtomicU64::new(0);
    // Asked for every call that changes something; none of them fails.
    fs.arm(FaultPlan::new(Fault::Erofs, u64::MAX).on_path(move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) + 1 == at {
            std::process::abort();
        }
        true
    }));
    let ticket = job
        .request_stop_with_savepoint(FORMATS[0], Some(&dir.join("sp")), drain)
        .unwrap();
    ticket.wait().unwrap();
    assert_eq!(job.wait().unwrap().outcome, Some(Outcome::Finished));
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = entries.filter(|e| e.file_type().unwrap().is_file());
    files
        .map(|e| {
            (
                e.file_name().into_string().unwrap(),
                std::fs::read_to_string(e.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_killed_process_is_followed_by_one_that_goes_back_or_forward() {
    let (input, step) = match std::env::var_os("KEYBED_TEST_FULL") {
        Some(_) => (orders(), 1),
        None => (orders(), 23),
    };
    let (mut undone, mut forward) = (0, 0);
    for drain in [false, true] {
        for n in 0.. {
            let at = 1 + n * step + u64::from(drain) * step / 2;
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path();
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "stop_process::child_stops_and_dies", "--nocapture"])
                .env(DIR, dir)
                .env(AT, at.to_string())
                .env(DRAIN, drain.to_string())
                .output()
                .unwrap();
            let what = format!("call {at}, drain {drain}");
            let died = child.status.code().is_none();
            assert!(died || child.status.success(), "{what}: {child:?}");
            let resumed = pipeline_in(&input, &Bomb::default(), &dir.join("out")).start(options(
                dir,
                7,
                Arc::new(OsFs),
            ));
            let finished = match resumed {
                Ok(job) => Some(job.wait().unwrap_or_else(|e| panic!("{what}: {e}"))),
                Err(e) if e.code() == Code::InvalidArgument => None,
                Err(e) => panic!("{what}: {e}"),
            };
            if finished
                .as_ref()
                .is_some_and(|report| report.stopped_with.is_none())
            {
                undone += 1;
                assert_eq!(files(&dir.join("out")), expected_output(&input), "{what}");
                let left = std::fs::read_dir(dir.join("sp")).map_or(0, Iterator::count);
                assert_eq!(left, 0, "{what}");
            } else {
                forward += 1;
                check_forward(dir, drain, &input, &what);
            }
            if !died {
                break;
            }
        }
    }
    println!("{undone} undone, {forward} forward");
    assert!(undone > 3 && forward > 3, "{undone} undone, {forward} forward");
}

fn check_forward(dir: &Path, drain: bool, input: &Arc<Input>, what: &str) {
    let storage = LocalStorage::create(Arc::new(OsFs), &dir.join("ckpt"), JobId(7)).unwrap();
    let open = OpenRoot::open(Arc::new(storage), JobId(7)).unwrap();
    let location = open.stop().unwrap().record.directory.clone();
    drop(open);
    let stopped = files(&dir.join("out"));
    let started = Arc::new(Mutex::new(String::new()));
    let heard = started.clone();
    let options = JobOptions {
        restore: Some(Restore::from(location)),
        on_event: Some(Arc::new(move |event: &JobEvent| {
            if matches!(event, JobEvent::Started { .. }) {
                *heard.lock().unwrap() = format!("{event:?}");
            }
        })),
        ..options(dir, 8, Arc::new(OsFs))
    };
    let job = pipeline_in(input, &Bomb::default(), &dir.join("out"))
        .start(options)
        .unwrap();
    assert_eq!(job.wait().unwrap().outcome, Some(Outcome::Finished), "{what}");
    let read = read_up_to(input, &started.lock().unwrap());
    if drain {
        assert_eq!(stopped, expected_output(&read), "{what}");
    } else {
        assert_eq!(stopped, BTreeMap::new(), "{what}");
        assert_eq!(files(&dir.join("out")), expected_output(input), "{what}");
    }
}
