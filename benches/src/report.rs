//! Medians and ratios as a Markdown page.

use crate::{
    measure::median,
    workload::{Figures, PHASES, Workload},
};
use std::fmt::Write as _;

pub struct Report {
    keys: u64,
    ops: u64,
    rounds: usize,
    runs: Vec<Run>,
}

struct Run {
    name: &'static str,
    group: &'static str,
    rounds: Vec<Figures>,
}

impl Report {
    pub fn new(workload: &Workload, rounds: usize) -> Self {
        Report {
            keys: workload.keys,
            ops: workload.ops,
            rounds,
            runs: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &'static str, group: &'static str, figures: Figures) {
        match self.runs.iter_mut().find(|r| r.name == name) {
            Some(run) => run.rounds.push(figures),
            None => self.runs.push(Run {
                name,
                group,
                rounds: vec![figures],
            }),
        }
    }

    fn cost(run: &Run, phase: usize, wall: bool) -> f64 {
        median(run.rounds.iter().map(|f| {
            if wall {
                f.costs[phase].wall
            } else {
                f.costs[phase].cpu
            }
        }))
    }

    /// The peer's cheapest configuration for a phase.
    fn best(&self, group: &str, phase: usize, wall: bool) -> Option<&Run> {
        self.runs
            .iter()
            .filter(|r| r.group == group)
            .min_by(|a, b| Self::cost(a, phase, wall).total_cmp(&Self::cost(b, phase, wall)))
    }

    /// Median over rounds of peer / keybed.
    fn ratio(&self, peer: &Run, phase: usize, wall: bool) -> Option<f64> {
        let keybed = self.runs.iter().find(|r| r.group == "keybed")?;
        let pick = |f: &Figures| {
            if wall {
                f.costs[phase].wall
            } else {
                f.costs[phase].cpu
            }
        };
        Some(median(
            peer.rounds
                .iter()
                .zip(&keybed.rounds)
                .map(|(p, k)| pick(p) / pick(k)),
        ))
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# keybed against RocksDB and fjall\n")?;
        writeln!(
            out,
            "Made by `benches/run --keys {} --ops {} --rounds {}`: keys, operations per phase, and rounds, of which the \
             median counts.\nWhat is equal for all engines and what cannot be: README.md.",
            self.keys, self.ops, self.rounds
        )?;
        writeln!(out, "Machine: {}.\n", machine())?;
        for (wall, title) in [
            (false, "CPU of the whole process, ns per operation"),
            (true, "Wall time, ns per operation"),
        ] {
            writeln!(out, "## {title}\n")?;
            writeln!(
                out,
                "| workload | keybed | RocksDB (best configuration) | fjall | RocksDB / keybed | fjall / keybed |"
            )?;
            writeln!(out, "|---|---|---|---|---|---|")?;
            for (phase, name) in PHASES.iter().enumerate() {
                let cell = |group| {
                    self.best(group, phase, wall)
                        .map(|r| (r, Self::cost(r, phase, wall)))
                };
                let plain = |group| cell(group).map_or("–".into(), |(_, ns)| format!("{ns:.0}"));
                let named = cell("rocksdb").map_or("–".into(), |(r, ns)| format!("{ns:.0} ({})", r.name));
                let ratio = |group| {
                    let peer = self.best(group, phase, wall);
                    peer.and_then(|p| self.ratio(p, phase, wall))
                        .map_or("–".into(), |x| format!("{x:.1}×"))
                };
                writeln!(
                    out,
                    "| {name} | {} | {named} | {} | {} | {} |",
                    plain("keybed"),
                    plain("fjall"),
                    ratio("rocksdb"),
                    ratio("fjall")
                )?;
            }
            writeln!(out)?;
        }
        writeln!(out, "## Space and shape after the last phase\n")?;
        writeln!(
            out,
            "| engine | bytes on disk / live bytes | its own words |\n|---|---|---|"
        )?;
        for run in &self.runs {
            let amplification = median(
                run.rounds
                    .iter()
                    .map(|f| f.disk_bytes as f64 / f.live_bytes as f64),
            );
            let facts = run.rounds.last().map_or("", |f| f.facts.as_str());
            writeln!(out, "| {} | {amplification:.2} | {facts} |", run.name)?;
        }
        Ok(())
    }
}

/// Processor model and count, kernel, memory.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split(':').nth(1))
            .unwrap_or("?")
            .trim()
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} × {}, {} memory, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        kernel.trim()
    )
}
