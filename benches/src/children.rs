//! Children: every engine runs every programme in a process of its own, so that memory, CPU and bytes written are its
//! alone. The parent watches memory and disk from outside, where watching costs the child nothing.

use crate::{
    confine::Group,
    engines::Contender,
    measure::{Said, disk_bytes, parse, proc_field},
    programs::Program,
};
use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// What one engine did in one round of one programme.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub said: Vec<Said>,
    /// Peak of the anonymous memory, bytes.
    pub anonymous_max: f64,
    /// Peak of the mapped file pages, bytes.
    pub mapped_max: f64,
    /// Peak of the files in its directory, bytes.
    pub disk_max: f64,
    /// Bytes that the process handed to the kernel by write calls.
    pub written: f64,
    /// Why nothing of it counts.
    pub failure: Option<String>,
    /// The failure is that this machine cannot run it.
    pub skipped: bool,
}

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Outcome {
    /// Nanoseconds of CPU and wall time per operation.
    pub fn cost(&self, wanted: &str) -> Option<(f64, f64)> {
        self.said.iter().find_map(|said| match said {
            Said::Cost { row, cpu, wall, .. } if row == wanted => Some((*cpu, *wall)),
            _ => None,
        })
    }

    /// p50, p99, p99.9 and maximum.
    pub fn latency(&self, wanted: &str) -> Option<[f64; 4]> {
        self.said.iter().find_map(|said| match said {
            Said::Latency { row, at } if row == wanted => Some(*at),
            _ => None,
        })
    }

    /// Any other figure.
    pub fn number(&self, wanted: &str) -> Option<f64> {
        self.said.iter().find_map(|said| match said {
            Said::Number(name, value) if name == wanted => Some(*value),
            _ => None,
        })
    }

    /// The engine's own words.
    pub fn facts(&self) -> &str {
        self.said
            .iter()
            .find_map(|said| match said {
                Said::Facts(text) => Some(text.as_str()),
                _ => None,
            })
            .unwrap_or("")
    }
}

/// Runs one child to its end.
pub fn run(contender: &Contender, program: &Program, keys: u64, ops: u64, dir: &Path) -> Outcome {
    // Not by its path: a build may replace the file meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["child", contender.name, program.name])
        .args([keys.to_string(), ops.to_string()])
        .arg(dir);
    let Some(bytes) = program.confined(keys) else {
        return watch(&mut command, dir);
    };
    match Group::new(bytes) {
        Ok(group) => watch(command.arg(group.path()), dir),
        Err(error) => Outcome {
            failure: Some(format!("a memory cgroup cannot be made: {error}")),
            skipped: true,
            ..Outcome::default()
        },
    }
}

/// Runs a command that says figures, and watches it.
pub fn watch(command: &mut Command, dir: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("this program can be started again");
    let pid = child.id().to_string();
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        let mut pipe = pipe.expect("the pipe was asked for");
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let errors = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = loop {
        let look = |file, field| proc_field(&pid, file, field).unwrap_or(0.0);
        outcome.anonymous_max = outcome.anonymous_max.max(look("status", "RssAnon"));
        outcome.mapped_max = outcome.mapped_max.max(look("status", "RssFile"));
        outcome.written = outcome.written.max(look("io", "wchar"));
        outcome.disk_max = outcome.disk_max.max(disk_bytes(dir) as f64);
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(LOOK),
            Err(error) => panic!("a child cannot be waited for: {error}"),
        }
    };
    let text = out.join().unwrap_or_default();
    outcome.said = text.lines().filter_map(parse).collect();
    if !status.success() || outcome.said.last() != Some(&Said::Done) {
        let errors = errors.join().unwrap_or_default();
        let why = errors.lines().filter(|line| !line.trim().is_empty()).take(3);
        outcome.failure = Some(format!("{status}: {}", why.collect::<Vec<_>>().join(" / ")));
    }
    outcome
}
