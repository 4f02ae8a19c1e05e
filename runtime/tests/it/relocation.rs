//! If this fails, a savepoint or a checkpoint root that was moved leans on the place that it came from, or a job that
//! went on from it elsewhere loses or doubles something.
//!
//! Every step is a process of its own, killed when it has done enough. What lies behind it is poisoned: the same
//! names, other bytes.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use crate::world::{Bomb, Input, expected_output, input, pipeline_in};
use keybed_env::Random;
use keybed_runtime::{
    Backend, Checkpoints, Job, JobOptions, Outcome, RestartStrategy, Restore, SavepointFormat,
};
use keybed_snapshot::JobId;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

const ORDER: &str = "KEYBED_TEST_RELOCATION";
const MOVED: &str = "verschoben nach süden/neuer Ort 保存";

/// What a child does, in one line of text.
#[derive(Clone, Debug)]
struct Order {
    /// Where its own state directory and checkpoint root lie.
    place: PathBuf,
    out: PathBuf,
    job: u128,
    parallelism: u32,
    backend: &'static str,
    restore: Option<PathBuf>,
    then: &'static str,
}

const BACKENDS: [&str; 2] = ["heap", "lsm"];
const THENS: [&str; 4] = ["native", "canonical", "checkpoints", "finish"];

impl Order {
    fn encode(&self) -> String {
        let restore = self.restore.as_deref().unwrap_or(Path::new(""));
        let numbers = format!("{}|{}", self.job, self.parallelism);
        [&self.place, &self.out, restore]
            .map(|path: &Path| path.display().to_string())
            .into_iter()
            .chain([numbers, self.backend.into(), self.then.into()])
            .collect::<Vec<_>>()
            .join("|")
    }

    fn decode(text: &str) -> Order {
        let parts: Vec<&str> = text.split('|').collect();
        let [place, out, restore, job, parallelism, backend, then] = parts[..] else {
            panic!("{text}");
        };
        let known = |all: &[&'static str], word| *all.iter().find(|w| **w == word).unwrap();
        Order {
            place: place.into(),
            out: out.into(),
            restore: (!restore.is_empty()).then(|| restore.into()),
            job: job.parse().unwrap(),
            parallelism: parallelism.parse().unwrap(),
            backend: known(&BACKENDS, backend),
            then: known(&THENS, then),
        }
    }

    fn options(&self) -> JobOptions {
        let interval = Duration::from_millis(15);
        JobOptions {
            job: Some(JobId(self.job)),
            parallelism: self.parallelism,
            max_parallelism: None,
            backend: match self.backend {
                "heap" => Backend::Heap,
                _ => Backend::Lsm { memtable_bytes: 4096 },
            },
            restore: self.restore.clone().map(Restore::from),
            work_dir: self.place.join("work"),
            checkpoints: Some(Checkpoints::every(interval, self.place.join("ckpt")).retain(2)),
            restart: Some(RestartStrategy::None),
            // Slow enough that a busy machine takes its checkpoints before the input ends.
            throttle: (self.then != "finish").then_some(2500),
            source_step_records: 16,
            ..JobOptions::default()
        }
    }

    fn spawn(&self) -> (Child, impl Iterator<Item = String> + use<>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "relocation::child_obeys",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ORDER, self.encode())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.filter_map(|line| Some(line.unwrap().split_once("say:")?.1.to_owned()));
        (child, said)
    }

    /// Runs the order in a process of its own until it says that it has done enough, and kills it.
    fn run_and_kill(&self) -> PathBuf {
        let (mut child, mut said) = self.spawn();
        let word = said.next();
        child.kill().unwrap();
        child.wait().unwrap();
        word.unwrap_or_else(|| panic!("{self:?}: the child said nothing"))
            .into()
    }

    /// Runs the order to its end.
    fn finish(&self) {
        let (mut child, said) = self.spawn();
        assert_eq!(said.collect::<Vec<_>>(), ["finished"], "{self:?}");
        assert!(child.wait().unwrap().success());
    }
}

fn orders() -> Arc<Input> {
    Arc::new(input(&mut Random::from_seed(8), 8, 12_000))
}

fn until(job: &Job, what: &str, mut holds: impl FnMut(&Job) -> bool) {
    while !holds(job) {
        assert!(!job.is_ended(), "the job ended before: {what}: {:?}", job.wait());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The child; without the variable it is a test that does nothing.
#[test]
fn child_obeys() {
    let Ok(text) = std::env::var(ORDER) else { return };
    let order = Order::decode(&text);
    let job = pipeline_in(&orders(), &Bomb::default(), &order.out)
        .start(order.options())
        .unwrap();
    if order.then == "finish" {
        assert_eq!(job.wait().unwrap().outcome, Some(Outcome::Finished));
        println!("\nsay:finished");
        return;
    }
    until(&job, "three checkpoints", |job| {
        job.status().checkpoints >= 3 && job.status().source_records >= 400
    });
    let said = match order.then {
        "checkpoints" => {
            let id = job.status().last_checkpoint.unwrap();
            let root = order.place.join("ckpt").join(JobId(order.job).to_string());
            root.join(format!("chk-{id}"))
        }
        format => {
            let format = match format {
                "native" => SavepointFormat::Native,
                _ => SavepointFormat::Canonical,
            };
            let taken = job.savepoint(format, Some(&order.place.join("sp"))).unwrap();
            let before = job.status().checkpoints;
            until(&job, "two more checkpoints", |job| {
                job.status().checkpoints >= before + 2
            });
            taken.location
        }
    };
    println!("\nsay:{}", said.display());
    loop {
        std::thread::park();
    }
}

/// Overwrites every file below a directory in place: same names, same lengths, other bytes.
fn poison(dir: &Path) -> usize {
    let mut poisoned = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            poisoned += poison(&entry.path());
            continue;
        }
        let length = entry.metadata().unwrap().len() as usize;
        let mut permissions = entry.metadata().unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "about to be poisoned")]
        permissions.set_readonly(false);
        fs::set_permissions(entry.path(), permissions).unwrap();
        let bytes: Vec<u8> = b"poison! ".iter().copied().cycle().take(length).collect();
        // In place: whoever shares the file by a hard link drinks from it, too.
        fs::write(entry.path(), bytes).unwrap();
        poisoned += 1;
    }
    poisoned
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A directory on another file system, if the machine has one.
fn elsewhere() -> Option<tempfile::TempDir> {
    use std::os::unix::fs::MetadataExt;
    let memory = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    let other = device(memory)? != device(&std::env::temp_dir())?;
    other.then(|| tempfile::tempdir_in(memory).ok()).flatten()
}

/// Moves a directory: renamed, copied, or copied to another file system. The old place stays, poisoned.
fn moved(from: &Path, base: &Path, how: usize, other: Option<&Path>) -> PathBuf {
    let to = match (how, other) {
        (2, Some(other)) => other.join(MOVED),
        _ => base.join(MOVED),
    };
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if how == 0 {
        fs::rename(from, &to).unwrap();
        copy_tree(&to, from);
    } else {
        copy_tree(from, &to);
    }
    poison(from);
    to
}

fn assert_output(out: &Path) {
    for (name, text) in expected_output(&orders()) {
        let found = fs::read(out.join(&name)).unwrap();
        assert!(
            found == text.as_bytes(),
            "{name} differs from that of a run that was never away"
        );
    }
}

/// A process writes; its savepoint is moved; another goes on elsewhere on the other backend at another parallelism;
/// a third goes on from that one's checkpoints, when nothing else is left.
fn savepoint_travels(format: &'static str, backends: [&'static str; 2], how: usize) {
    let base = tempfile::tempdir().unwrap();
    let other = elsewhere();
    let base = base.path();
    let first = Order {
        place: base.join("first"),
        out: base.join("out"),
        job: 7,
        parallelism: 2,
        backend: backends[0],
        restore: None,
        then: format,
    };
    let savepoint = first.run_and_kill();
    let here = moved(&savepoint, base, how, other.as_ref().map(tempfile::TempDir::path));
    assert!(poison(&first.place) > 3);
    let second = Order {
        place: base.join("second"),
        job: 8,
        parallelism: 3,
        backend: backends[1],
        restore: Some(if how == 1 {
            here.join("_metadata")
        } else {
            here.clone()
        }),
        then: "checkpoints",
        ..first.clone()
    };
    second.run_and_kill();
    // Its first checkpoint was a full one: nothing hangs on the savepoint any more, and local state on nothing.
    poison(&here);
    fs::remove_dir_all(second.place.join("work")).unwrap();
    let third = Order {
        parallelism: 1,
        backend: backends[0],
        restore: None,
        then: "finish",
        ..second
    };
    third.finish();
    assert_output(&first.out);
}

#[test]
fn d36_d37_a_native_savepoint_of_the_lsm_goes_on_elsewhere_on_the_heap() {
    savepoint_travels("native", ["lsm", "heap"], 0);
}

#[test]
fn d36_d37_a_native_savepoint_of_the_heap_goes_on_elsewhere_on_the_lsm() {
    savepoint_travels("native", ["heap", "lsm"], 1);
}

#[test]
fn d37_d40_a_canonical_savepoint_of_the_lsm_goes_on_elsewhere_on_the_heap() {
    savepoint_travels("canonical", ["lsm", "heap"], 2);
}

#[test]
fn d37_d40_a_canonical_savepoint_of_the_heap_goes_on_elsewhere_on_the_lsm() {
    savepoint_travels("canonical", ["heap", "lsm"], 1);
}

#[test]
fn d37_a_native_savepoint_goes_on_from_another_file_system() {
    savepoint_travels("native", ["lsm", "lsm"], 2);
}

#[test]
fn d39_d40_a_checkpoint_goes_on_on_the_other_backend_after_its_root_was_moved_as_a_whole() {
    // Shared tables would be looked for where the root was, or in another job's root.
    for (backends, how) in [(["lsm", "heap"], 0), (["heap", "lsm"], 2)] {
        let base = tempfile::tempdir().unwrap();
        let other = elsewhere();
        let base = base.path();
        let first = Order {
            place: base.join("first"),
            out: base.join("out"),
            job: 7,
            parallelism: 3,
            backend: backends[0],
            restore: None,
            then: "checkpoints",
        };
        let checkpoint = first.run_and_kill();
        // Its tables are links to those of the root.
        fs::remove_dir_all(first.place.join("work")).unwrap();
        // It went on for a moment before it was killed.
        let root = checkpoint.parent().unwrap();
        let here = moved(root, base, how, other.as_ref().map(tempfile::TempDir::path));
        poison(&first.place);
        let newest = fs::read_dir(&here).unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            let id = entry
                .file_name()
                .to_str()?
                .strip_prefix("chk-")?
                .parse::<u64>()
                .ok()?;
            entry.path().join("_metadata").exists().then_some(id)
        });
        let newest = here.join(format!("chk-{}", newest.max().unwrap()));
        let second = Order {
            place: base.join("second"),
            job: 8,
            parallelism: 7,
            backend: backends[1],
            restore: Some(newest),
            then: "checkpoints",
            ..first.clone()
        };
        second.run_and_kill();
        poison(&here);
        let third = Order {
            parallelism: 2,
            restore: None,
            then: "finish",
            ..second
        };
        third.finish();
        assert_output(&first.out);
    }
}
