//! keybed against RocksDB, fjall, redb and the maps of the standard library, in one run on one machine.
//!
//! Every round runs every engine once, in turn, on the same keys in the same order, so that a change of the
//! machine's speed hits all alike; figures are medians over rounds, ratios are medians of per-round ratios. CPU is
//! that of the whole process, background threads included. The results of every engine are checked before its
//! figures count. See README.md beside this crate for what is equal and what cannot be.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and starts threads and processes"
)]

mod arguments;
mod children;
mod compare;
mod confine;
mod content;
#[cfg(feature = "rocksdb")]
mod differential;
mod engines;
mod loads;
mod machine;
mod measure;
mod plot;
mod programs;
mod report;
mod rows;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        Some("child") => child(&words[1..]),
        Some("sustained") => loads::sustained(&words[1..]),
        Some("big") => loads::big(&words[1..]),
        Some("tombstones") => loads::tombstones(&words[1..]),
        #[cfg(feature = "rocksdb")]
        Some("differential") => differential::run(&words[1..]),
        _ => arguments::Options::parse(&words).and_then(|options| compare::run(&options)),
    };
    match result {
        Ok(code) => code,
        Err(text) => {
            eprintln!("{text}\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

/// `child ENGINE PROGRAM KEYS OPS DIR [CGROUP]`: one programme with one engine; see `children`.
fn child(words: &[String]) -> Result<ExitCode, String> {
    let [engine, program, keys, ops, dir, group @ ..] = words else {
        return Err("child wants an engine, a programme, keys, operations and a directory".into());
    };
    if let [group] = group {
        confine::join(group.as_ref()).map_err(|error| format!("{group}: {error}"))?;
    }
    let contender = engines::contender(engine).ok_or(format!("{engine}: no such engine"))?;
    let program = programs::PROGRAMS
        .iter()
        .find(|candidate| candidate.name == program)
        .ok_or(format!("{program}: no such programme"))?;
    let keys: u64 = arguments::positive(keys)?;
    let bench = programs::Bench {
        contender,
        keys: program.keys(keys),
        ops: arguments::positive(ops)?,
        dir: dir.into(),
        setup: program.setup(keys),
    };
    (program.run)(&bench);
    println!("done");
    Ok(ExitCode::SUCCESS)
}
