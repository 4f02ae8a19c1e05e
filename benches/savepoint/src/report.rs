//! Medians and ratios as a Markdown page.

use crate::{
    Options,
    content::Content,
    measure::{Cost, median},
    rounds::{Figures, PHASES},
};
use std::{fmt::Write as _, fs};

pub struct Report {
    content: Content,
    rounds: usize,
    command: String,
    load: String,
    runs: Vec<Figures>,
}

impl Report {
    pub fn new(options: &Options, content: Content) -> Self {
        Report {
            content,
            rounds: options.rounds,
            command: ["benches/savepoint/run".to_owned()]
                .into_iter()
                .chain(std::env::args().skip(1))
                .collect::<Vec<_>>()
                .join(" "),
            load: load(),
            runs: Vec::new(),
        }
    }

    pub fn add(&mut self, figures: Figures) {
        self.runs.push(figures);
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# Savepoints of a generator job\n\nMade by `{}`: {} bytes of keys and values in {} entries ({}), one subtask, \
             one thread; {} rounds, of which the medians count, ratios being medians of the rounds' ratios. What is equal \
             and what is not: [savepoint/README.md](savepoint/README.md).\n\nMachine: {}. Load average at the start {}, now {}: what waits \
             for a processor beside us makes wall time longer, CPU hardly.\n",
            self.command,
            self.content.logical_bytes(),
            self.content.entries(),
            if self.content.random {
                "nothing of them compressible"
            } else {
                "half of every value random"
            },
            self.rounds,
            machine(),
            self.load,
            load(),
        );
        for run in &self.runs {
            self.render_run(run, &mut out);
        }
        out
    }

    fn render_run(&self, run: &Figures, out: &mut String) {
        let _ = writeln!(
            out,
            "## {:?} on {}\n\nFilling the state took {:.1} s of CPU. Native files: {} bytes. Canonical file: {} bytes. Memory \
             that the canonical writer takes beside the state: {} KiB at most, {} KiB of them for sorting.\n",
            run.backend,
            run.place,
            run.fill.cpu,
            run.native_bytes,
            run.canonical_bytes,
            run.writer_bytes >> 10,
            run.sort_bytes >> 10,
        );
        let _ = writeln!(
            out,
            "| | wall s | CPU s | fastest to slowest round, wall s | state MB/s by wall | by CPU | time / plain one's, wall | CPU |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|---|---|---|");
        for (phase, name) in PHASES.iter().enumerate() {
            let costs: Vec<Cost> = run.rounds.iter().filter_map(|round| round[phase]).collect();
            if costs.is_empty() {
                continue;
            }
            let walls = || costs.iter().map(|cost| cost.wall);
            let wall = median(walls());
            let cpu = median(costs.iter().map(|cost| cost.cpu));
            let ratio = |of: fn(Cost) -> f64| {
                let plain = plain_of(phase)?;
                let ratios = run
                    .rounds
                    .iter()
                    .filter_map(|round| Some(of(round[phase]?) / of(round[plain]?)));
                Some(format!("{:.2}", median(ratios)))
            };
            let _ = writeln!(
                out,
                "| {name} | {wall:.2} | {cpu:.2} | {:.2}–{:.2} | {:.0} | {:.0} | {} | {} |",
                walls().fold(f64::INFINITY, f64::min),
                walls().fold(0.0, f64::max),
                self.content.logical_bytes() as f64 / wall / 1e6,
                self.content.logical_bytes() as f64 / cpu / 1e6,
                ratio(|cost| cost.wall).unwrap_or_default(),
                ratio(|cost| cost.cpu).unwrap_or_default()
            );
        }
        out.push('\n');
    }
}

/// Processors, memory and kernel.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(String::new, |rest| {
            rest.trim_start_matches([' ', '\t', ':']).to_owned()
        })
    };
    let processors = read("/proc/cpuinfo");
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let (model, memory) = (
        after(&processors, "model name"),
        after(&read("/proc/meminfo"), "MemTotal"),
    );
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} × {model}, {memory} memory, Linux {}", kernel.trim())
}

fn load() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split(' ').next().unwrap_or("unknown").to_owned()
}

/// The phase that does the same without keybed.
fn plain_of(phase: usize) -> Option<usize> {
    match phase {
        1 | 2 => Some(0),
        4 => Some(3),
        6 => Some(5),
        8 => Some(7),
        _ => None,
    }
}
