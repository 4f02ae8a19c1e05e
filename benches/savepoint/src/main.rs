//! Savepoints of a generator job's state against what the same bytes cost without keybed, in one run.
//!
//! Every round does everything once, in turn, so that a change of the machine's speed hits all alike; figures are
//! medians over rounds, ratios medians of the rounds' ratios. What is restored is checked before a figure counts.

#![allow(
    clippy::disallowed_methods,
    reason = "real time is what is measured, and what is removed lies in a directory of this program's own"
)]

mod content;
mod measure;
mod plain;
mod report;
mod rounds;
mod savepoint;

use content::Content;
use keybed_lsm::table::Compression;
use keybed_snapshot::BackendKind;
use std::{path::PathBuf, process::ExitCode};

/// Errors end the run; their text is all that matters.
pub type Answer<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: keybed-bench-savepoint [--bytes 1GB] [--rounds 3] [--dir DIR]… [--backend lsm|heap] \
                     [--compression none|lz4|zstd] [--random] [--phase TEXT] [--markdown FILE]";

pub struct Options {
    bytes: u64,
    rounds: usize,
    dirs: Vec<PathBuf>,
    backends: Vec<BackendKind>,
    random: bool,
    compression: Compression,
    /// Measure nothing but the memory of the canonical writer, on the savepoint there; print it in bytes.
    writer_of: Option<PathBuf>,
    /// Only phases whose name contains this.
    phase: Option<String>,
    markdown: Option<PathBuf>,
}

fn bytes_in(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        bytes: 1_000_000_000,
        rounds: 3,
        dirs: Vec::new(),
        backends: Vec::new(),
        random: false,
        compression: Compression::None,
        writer_of: None,
        phase: None,
        markdown: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} wants a value"));
        match flag.as_str() {
            "--bytes" => {
                let text = value()?;
                options.bytes = bytes_in(&text).ok_or(format!("{text}: no size like 250MB or 1GB"))?;
            }
            "--rounds" => {
                let text = value()?;
                let rounds = text.parse().ok().filter(|n| *n > 0);
                options.rounds = rounds.ok_or(format!("{text}: not a positive number"))?;
            }
            "--dir" => options.dirs.push(value()?.into()),
            "--backend" => options.backends.push(match value()?.as_str() {
                "lsm" => BackendKind::Lsm,
                "heap" => BackendKind::Heap,
                other => return Err(format!("{other}: no backend")),
            }),
            "--compression" => {
                options.compression = match value()?.as_str() {
                    "none" => Compression::None,
                    "lz4" => Compression::Lz4,
                    "zstd" => Compression::Zstd(1),
                    other => return Err(format!("{other}: no compression")),
                }
            }
            "--random" => options.random = true,
            "--writer-of" => options.writer_of = Some(value()?.into()),
            "--phase" => options.phase = Some(value()?),
            "--markdown" => options.markdown = Some(value()?.into()),
            other => return Err(format!("{other}: unknown")),
        }
    }
    if options.dirs.is_empty() {
        options.dirs.push(std::env::temp_dir());
    }
    if options.backends.is_empty() {
        options.backends = vec![BackendKind::Lsm, BackendKind::Heap];
    }
    Ok(options)
}

fn run(options: &Options) -> Answer<()> {
    let content = Content::of_bytes(options.bytes, options.random);
    if let Some(native) = &options.writer_of {
        return rounds::print_writer_memory(options, content, native);
    }
    let mut report = report::Report::new(options, content);
    for dir in &options.dirs {
        for kind in &options.backends {
            rounds::run(options, content, dir, *kind, &mut report)?;
        }
    }
    print!("{}", report.render());
    if let Some(file) = &options.markdown {
        std::fs::write(file, report.render())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
