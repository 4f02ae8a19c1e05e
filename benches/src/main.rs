//! keybed against RocksDB and fjall, in one run on one machine.
//!
//! Every round runs every engine once, in turn, on the same keys in the same order, so that a change of the
//! machine's speed hits all alike; figures are medians over rounds, ratios are medians of per-round ratios. CPU is
//! that of the whole process, background threads included. The results of every engine are checked before its
//! figures count. See README.md beside this crate for what is equal and what cannot be.

mod engine;
#[cfg(feature = "fjall")]
mod fjall_engine;
mod keybed_engine;
mod measure;
mod report;
#[cfg(feature = "rocksdb")]
mod rocksdb_engine;
mod workload;

use engine::Engine;
use std::{path::Path, process::ExitCode};
use workload::Workload;

type Open = fn(&Path) -> Box<dyn Engine>;

/// Name, peer group (RocksDB's configurations count as one peer, the best taken) and constructor.
fn engines() -> Vec<(&'static str, &'static str, Open)> {
    let mut engines: Vec<(&'static str, &'static str, Open)> = Vec::new();
    engines.push(("keybed", "keybed", |dir| {
        Box::new(keybed_engine::Keybed::open(dir))
    }));
    #[cfg(feature = "rocksdb")]
    {
        engines.push(("rocksdb-flink", "rocksdb", |dir| {
            Box::new(rocksdb_engine::RocksDb::flink(dir))
        }));
        engines.push(("rocksdb-tuned", "rocksdb", |dir| {
            Box::new(rocksdb_engine::RocksDb::tuned(dir))
        }));
    }
    #[cfg(feature = "fjall")]
    engines.push(("fjall", "fjall", |dir| Box::new(fjall_engine::Fjall::open(dir))));
    engines
}

const USAGE: &str =
    "usage: keybed-benches [--keys N] [--ops N] [--rounds N] [--only ENGINE] [--dir DIR] [--markdown FILE]";

struct Options {
    keys: u64,
    ops: u64,
    rounds: usize,
    only: Option<String>,
    dir: Option<String>,
    markdown: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        keys: 1_000_000,
        ops: 1_000_000,
        rounds: 3,
        only: None,
        dir: None,
        markdown: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} wants a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .ok()
                .filter(|n| *n > 0)
                .ok_or(format!("{text}: not a positive number"))
        };
        match flag.as_str() {
            "--keys" => options.keys = number(value()?)?,
            "--ops" => options.ops = number(value()?)?,
            "--rounds" => options.rounds = number(value()?)? as usize,
            "--only" => options.only = Some(value()?),
            "--dir" => options.dir = Some(value()?),
            "--markdown" => options.markdown = Some(value()?),
            other => return Err(format!("{other}: unknown")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> = engines()
        .into_iter()
        .filter(|e| options.only.as_deref().is_none_or(|only| e.0.starts_with(only)))
        .collect();
    if chosen.is_empty() {
        eprintln!("no engine has that name\n{USAGE}");
        return ExitCode::from(2);
    }
    let workload = Workload::new(options.keys, options.ops);
    let mut report = report::Report::new(&workload, options.rounds);
    for round in 0..options.rounds {
        for (name, group, open) in &chosen {
            let dir = match &options.dir {
                Some(parent) => tempfile::tempdir_in(parent),
                None => tempfile::tempdir(),
            }
            .expect("a scratch directory can be made");
            eprintln!("round {} of {}: {name}", round + 1, options.rounds);
            let figures = workload.run(dir.path(), *open);
            report.add(name, group, figures);
        }
    }
    let text = report.render();
    print!("{text}");
    if let Some(file) = options.markdown
        && let Err(error) = std::fs::write(&file, &text)
    {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
