//! Medians, ratios and verdicts as a Markdown page.

use crate::{
    arguments::Options,
    children::Outcome,
    compare::Run,
    machine,
    measure::median,
    rows::{BOUNDS, ROWS, Row, WALL_SHARE},
};
use std::fmt::{Result, Write as _};

pub struct Report {
    options: Options,
    runs: Vec<Run>,
}

/// CPU or wall time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Cpu,
    Wall,
}

/// A peer's best configuration for a row.
pub struct Best<'a> {
    run: &'a Run,
    source: &'static str,
    /// Median nanoseconds per operation.
    pub ns: f64,
}

impl Best<'_> {
    fn name(&self) -> &str {
        self.run
            .contender
            .name
            .split_once('-')
            .map_or("", |(_, rest)| rest)
    }
}

/// Peers beside keybed, with the names of their columns.
pub const PEERS: [(&str, &str); 4] = [
    ("rocksdb", "RocksDB"),
    ("fjall", "fjall"),
    ("redb", "redb"),
    ("std", "std map"),
];

fn right(run: &Run) -> impl Iterator<Item = &Outcome> {
    run.rounds.iter().filter(|round| round.failure.is_none())
}

fn pick(clock: Clock, (cpu, wall): (f64, f64)) -> f64 {
    match clock {
        Clock::Cpu => cpu,
        Clock::Wall => wall,
    }
}

fn ns_text(ns: f64) -> String {
    match ns {
        ns if ns >= 1e7 => format!("{:.1} ms", ns / 1e6),
        ns if ns >= 1e5 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 20.0 => format!("{ns:.1}"),
        ns => format!("{ns:.0}"),
    }
}

impl Report {
    pub fn new(options: &Options, runs: Vec<Run>) -> Self {
        Report {
            options: options.clone(),
            runs,
        }
    }

    /// The peer's cheapest configuration and way for a row.
    pub fn best(&self, peer: &str, row: &Row, clock: Clock) -> Option<Best<'_>> {
        let of_peer = self.runs.iter().filter(|run| run.contender.peer == peer);
        of_peer
            .flat_map(|run| row.sources.iter().map(move |source| (run, *source)))
            .filter_map(|(run, source)| {
                let ns = median(right(run).filter_map(|r| r.cost(source)).map(|c| pick(clock, c)));
                (!ns.is_nan()).then_some(Best { run, source, ns })
            })
            .min_by(|a, b| a.ns.total_cmp(&b.ns))
    }

    /// Median over rounds of the peer's cost over that of `ours`.
    pub fn ratio(&self, peer: &str, ours: &str, row: &Row, clock: Clock) -> Option<f64> {
        let (theirs, ours) = (self.best(peer, row, clock)?, self.best(ours, row, clock)?);
        let pairs = theirs.run.rounds.iter().zip(&ours.run.rounds);
        let ratio = median(pairs.filter_map(|(a, b)| {
            let whole = a.failure.is_none() && b.failure.is_none();
            let (a, b) = (a.cost(theirs.source)?, b.cost(ours.source)?);
            whole.then(|| pick(clock, a) / pick(clock, b))
        }));
        (!ratio.is_nan()).then_some(ratio)
    }

    /// Rows that some engine ran.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter()
            .filter(|row| self.best("keybed", row, Clock::Cpu).is_some())
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> Result {
        let o = &self.options;
        writeln!(out, "# keybed against RocksDB, fjall, redb and std maps\n")?;
        writeln!(
            out,
            "Made by `benches/run{} --keys {} --ops {} --rounds {}`: keys, operations per row, and rounds, of which the \
             median counts.\nWhat is equal for all engines and what cannot be: README.md.\nMachine: {}.\n",
            if o.quick { " --quick" } else { "" },
            o.keys,
            o.ops,
            o.rounds,
            machine::describe(o.dir.as_deref().unwrap_or("/tmp"))
        )?;
        self.losses(out)?;
        self.costs(out, Clock::Cpu)?;
        self.costs(out, Clock::Wall)?;
        self.bounds(out)?;
        self.latencies(out)?;
        self.resources(out)
    }

    fn verdict(&self, ours: &str, row: &Row, clock: Clock) -> Option<(f64, &'static str)> {
        let ratio = self.ratio("rocksdb", ours, row, clock)?;
        let share = if clock == Clock::Wall { WALL_SHARE } else { 1.0 };
        let verdict = match (row.floor, row.aim) {
            (Some(floor), _) if ratio < floor * share => "**missed**",
            (_, Some(aim)) if ratio >= aim * share => "aim",
            (Some(_), _) => "met",
            _ => "",
        };
        Some((ratio, verdict))
    }

    /// What is not as it should be comes first.
    fn losses(&self, out: &mut String) -> Result {
        writeln!(out, "## Where keybed misses its floors or loses\n")?;
        let mut none = true;
        for run in &self.runs {
            for round in &run.rounds {
                let Some(why) = &round.failure else { continue };
                none = false;
                writeln!(
                    out,
                    "- {} **{}** in `{}` and has no figures there: {why}",
                    run.contender.name,
                    if round.skipped { "was skipped" } else { "failed" },
                    run.program.name
                )?;
            }
        }
        for (ours, label) in [("keybed", "mapped"), ("keybed-unmapped", "unmapped")] {
            for row in self.rows() {
                for (clock, name) in [(Clock::Cpu, "CPU"), (Clock::Wall, "wall")] {
                    let Some((ratio, verdict)) = self.verdict(ours, row, clock) else {
                        continue;
                    };
                    if verdict == "**missed**" {
                        none = false;
                        writeln!(
                            out,
                            "- {}, {label}, {name}: {ratio:.2}× of RocksDB's best, floor {}×",
                            row.title,
                            row.floor.unwrap_or(0.0)
                        )?;
                    }
                    let dearer = |peer| {
                        self.ratio(peer, ours, row, clock)
                            .is_some_and(|ratio| ratio < 1.0)
                    };
                    for (peer, title) in PEERS.iter().filter(|(peer, _)| *peer != "std" && dearer(peer)) {
                        let ratio = self.ratio(peer, ours, row, clock).unwrap_or(f64::NAN);
                        none = false;
                        writeln!(
                            out,
                            "- {}, {label}, {name}: {title} is cheaper, {ratio:.2}×",
                            row.title
                        )?;
                    }
                }
            }
        }
        if none {
            writeln!(out, "Nowhere in this run.")?;
        }
        writeln!(out)
    }

    fn costs(&self, out: &mut String, clock: Clock) -> Result {
        writeln!(
            out,
            "## {}\n",
            match clock {
                Clock::Cpu => "CPU of the whole process, ns per operation",
                Clock::Wall => "Wall time, ns per operation (85 % of a floor is enough)",
            }
        )?;
        writeln!(
            out,
            "| workload | keybed | unmapped | RocksDB, best | fjall | redb | std map | RocksDB / keybed | \
             unmapped | fjall / keybed | floor | aim | verdict |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in self.rows() {
            let cell = |peer| {
                self.best(peer, row, clock)
                    .map_or("–".into(), |best| ns_text(best.ns))
            };
            let rocksdb = self.best("rocksdb", row, clock).map_or("–".into(), |best| {
                format!("{} ({})", ns_text(best.ns), best.name())
            });
            let times = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.1}×"));
            let plain = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x}×"));
            writeln!(
                out,
                "| {} | {} | {} | {rocksdb} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.title,
                cell("keybed"),
                cell("keybed-unmapped"),
                cell("fjall"),
                cell("redb"),
                cell("std"),
                times(self.ratio("rocksdb", "keybed", row, clock)),
                times(self.ratio("rocksdb", "keybed-unmapped", row, clock)),
                times(self.ratio("fjall", "keybed", row, clock)),
                plain(row.floor),
                plain(row.aim),
                self.verdict("keybed", row, clock)
                    .map_or("", |(_, verdict)| verdict),
            )?;
        }
        writeln!(out)
    }

    /// Median over rounds of a latency of a peer's best configuration.
    fn latency(&self, peer: &str, source: &str, percentile: usize) -> Option<f64> {
        let of_peer = self.runs.iter().filter(|run| run.contender.peer == peer);
        of_peer
            .map(|run| {
                median(
                    right(run)
                        .filter_map(|r| r.latency(source))
                        .map(|at| at[percentile]),
                )
            })
            .filter(|ns| !ns.is_nan())
            .min_by(f64::total_cmp)
    }

    fn bounds(&self, out: &mut String) -> Result {
        writeln!(out, "## Bounds\n")?;
        writeln!(
            out,
            "| what | keybed | unmapped | RocksDB, best | fjall | bound | verdict |\n|---|---|---|---|---|---|---|"
        )?;
        for bound in BOUNDS {
            let at = |peer| self.latency(peer, bound.source, bound.percentile);
            let Some(ours) = at("keybed") else { continue };
            let max = bound.ns_max.or(at("rocksdb"));
            let text = |ns: Option<f64>| ns.map_or("–".into(), |ns| format!("{:.1} µs", ns / 1e3));
            let verdict = match max {
                Some(max) if ours <= max => "met",
                Some(_) => "**missed**",
                None => "",
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {verdict} |",
                bound.title,
                text(Some(ours)),
                text(at("keybed-unmapped")),
                text(at("rocksdb")),
                text(at("fjall")),
                text(max)
            )?;
        }
        writeln!(out)
    }

    fn latencies(&self, out: &mut String) -> Result {
        writeln!(
            out,
            "## Latency of single operations, ns: p50 / p99 / p99.9\n\nFrom passes of their own, each operation timed \
             (about 25 ns of it are the clock); of several configurations the best p50. On two shared cores p99.9 above \
             20 µs is the scheduler.\n"
        )?;
        writeln!(
            out,
            "| workload | keybed | unmapped | RocksDB, best | fjall | redb |\n|---|---|---|---|---|---|"
        )?;
        for row in ROWS.iter().filter(|row| row.sources.len() == 1) {
            let source = row.sources[0];
            if self.latency("keybed", source, 0).is_none() {
                continue;
            }
            let cell = |peer| {
                let of_peer = self.runs.iter().filter(|run| run.contender.peer == peer);
                let figures = of_peer.filter_map(|run| {
                    let at = |n: usize| median(right(run).filter_map(|r| r.latency(source)).map(|l| l[n]));
                    (!at(0).is_nan()).then(|| [at(0), at(1), at(2)])
                });
                figures
                    .min_by(|a, b| a[0].total_cmp(&b[0]))
                    .map_or("–".into(), |at| {
                        format!("{} / {} / {}", ns_text(at[0]), ns_text(at[1]), ns_text(at[2]))
                    })
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                row.title,
                cell("keybed"),
                cell("keybed-unmapped"),
                cell("rocksdb"),
                cell("fjall"),
                cell("redb")
            )?;
        }
        writeln!(out)
    }

    fn resources(&self, out: &mut String) -> Result {
        writeln!(
            out,
            "## Memory, space and bytes written\n\nPeaks of the whole programme, seen from outside every 20 ms; \
             anonymous memory without the arrays of the bench itself. Bytes written are those of write calls. Space is \
             in multiples of the live bytes, where the programme knows them.\n"
        )?;
        writeln!(
            out,
            "| programme | engine | anonymous, MiB | mapped files, MiB | written, MiB | peak on disk, MiB | after \
             settling | its own words |\n|---|---|---|---|---|---|---|---|"
        )?;
        for run in self.runs.iter().filter(|run| right(run).next().is_some()) {
            let mib = |f: fn(&Outcome) -> f64| format!("{:.0}", median(right(run).map(f)) / 1048576.0);
            let space = median(right(run).filter_map(|r| {
                let at = |name: &str| r.number(name).or(r.number(&format!("cached-{name}")));
                Some(at("disk-bytes")? / at("live-bytes")?)
            }));
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                run.program.name,
                run.contender.name,
                mib(|r| r.anonymous_max - r.number("harness-bytes").unwrap_or(0.0)),
                mib(|r| r.mapped_max),
                mib(|r| r.written),
                mib(|r| r.disk_max),
                if space.is_nan() {
                    "–".into()
                } else {
                    format!("{space:.2}×")
                },
                right(run).last().map_or("", Outcome::facts),
            )?;
        }
        Ok(())
    }
}
