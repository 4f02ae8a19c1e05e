//! A directory of its own in which the binary runs, and what it leaves there.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Longest that a test waits for something to happen, before it fails; generous, because nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The place: working directory, state directory and output of one test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The binary with `words`, nothing else said.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keybed"));
        command.current_dir(self.dir.path()).args(words);
        // Jobs of other tests and of the user are not found, nor ours by them.
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("runtime"));
        command
            .env_remove("KEYBED_CONTROL_TOKEN")
            .env_remove("KEYBED_SAVEPOINT_DIR");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `keybed run flights --json` over the repository's input, with the directories of this place and more words.
    pub(crate) fn flights(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["run", "flights", "--json", "--state-dir", "state", "--out", "out"]);
        if !words.contains(&"--input") {
            command.arg("--input").arg(crate::fold::input());
        }
        command.args(words);
        command
    }

    /// Runs [`Place::flights`] to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Run {
        Run::of(self.flights(words).output().unwrap())
    }

    /// An output file.
    pub(crate) fn output(&self, name: &str) -> String {
        fs::read_to_string(self.path("out").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Compares both output files with the fold.
    pub(crate) fn assert_output(&self, expected: &crate::fold::Expected) {
        same("aircraft.csv", &self.output("aircraft.csv"), &expected.aircraft);
        same("daily.csv", &self.output("daily.csv"), &expected.daily);
    }

    /// The whole lines of the event log.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.last_events(usize::MAX)
    }

    /// The last whole lines of the event log, quickly.
    pub(crate) fn last_events(&self, count: usize) -> Vec<Value> {
        let Ok(text) = fs::read_to_string(self.state_dir().join("events.jsonl")) else {
            return Vec::new();
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole
            .lines()
            .rev()
            .take(count)
            .collect::<Vec<_>>()
            .into_iter()
            .rev();
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the events fulfil a condition; the child must live meanwhile.
    pub(crate) fn wait_for(&self, child: &mut Child, what: &str, mut holds: impl FnMut(&[Value]) -> bool) {
        let start = Instant::now();
        while !holds(&self.events()) {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the run ended ({status}) while the test waited for: {what}");
            }
            assert!(
                start.elapsed() < PATIENCE,
                "never happened: {what}; events: {:?}",
                self.events()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The checkpoint root's only job root that is not older than the others.
    pub(crate) fn job_root(&self) -> PathBuf {
        let record: Value =
            serde_json::from_slice(&fs::read(self.state_dir().join("job.json")).unwrap()).unwrap();
        self.state_dir()
            .join("checkpoints")
            .join(record["job_id"].as_str().unwrap())
    }
}

fn same(name: &str, found: &str, expected: &str) {
    if found == expected {
        return;
    }
    let differs = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
    panic!(
        "{name} differs: {} lines instead of {}; first difference (found, expected): {differs:?}",
        found.lines().count(),
        expected.lines().count()
    );
}

/// A finished process.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Run {
        Run {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The JSON object on standard output; the run must have exited 0.
    pub(crate) fn summary(&self) -> Value {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// The error object, after checking code and exit status; no panic may be behind it.
    pub(crate) fn error(&self, code: &str, status: i32) -> Value {
        let all = format!("stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!all.contains("panicked"), "{all}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{all}"));
        let error = object["error"].clone();
        assert_eq!(
            (error["code"].as_str(), self.status),
            (Some(code), status),
            "{all}"
        );
        assert_eq!(error["exit_code"], status, "{all}");
        error
    }
}

/// Sends a signal by the shell's `kill`.
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success());
}

/// All files below a directory, relative to it, sorted.
pub(crate) fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(dir).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}
