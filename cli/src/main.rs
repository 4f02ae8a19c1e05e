//! The `keybed` command: runs jobs, looks into snapshots.
//!
//! | file | idea |
//! |---|---|
//! | [`args`] | what can be said on the command line |
//! | [`control`] | `keybed list`, `savepoint`, `checkpoint`, `stop`, `cancel`, `status`: speaking to running jobs |
//! | [`run`] | `keybed run`: decide, start, watch, sum up |
//! | [`claim`] | `keybed claim --release` |
//! | [`sink`] | `keybed sink ls`, `release` |
//! | [`snapshot`] | `keybed snapshot ls`, `inspect`, `verify`, `export`, `convert`, `dispose` |
//! | [`sst`] | `keybed sst props`, `verify`, `dump` |
//! | [`store`] | `keybed store stats`, `scan`, `get`, `compact`, `verify`, `repair` |
//! | [`gc`] | `keybed gc`: what no snapshot needs goes |
//! | [`owners`] | `keybed owners`: who needs a file |
//! | [`jobs`] | the jobs by name: `flights`, `wordcount` |
//! | [`input`] | numbered lines of a plain or compressed file |
//! | [`inputs`] | what a job reads: files, or standard input |
//! | [`input_identity`] | by which a changed input is noticed |
//! | [`report`] | errors for people and for programs |
//! | [`say`] | output that never fails |
#![forbid(unsafe_code)]

mod args;
mod claim;
mod control;
mod gc;
mod input;
mod input_identity;
mod inputs;
mod jobs;
mod owners;
mod report;
mod run;
mod say;
mod sink;
mod snapshot;
mod sst;
mod store;

use args::{Command, CommandLine, SinkCommand, SnapshotCommand, SstCommand};
use clap::error::ErrorKind;
use keybed::{Error, Result, runtime::sink::ReleaseOf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = match CommandLine::read(std::env::args_os()) {
        Ok(line) => line,
        Err(error) => return usage(&error),
    };
    let json = line.json;
    obey(line.into_command(), json).unwrap_or_else(|error| fail(&error, json))
}

fn obey(command: Command, json: bool) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args, json),
        Command::Sink(SinkCommand::Ls { out }) => sink::ls::run(&out, json),
        Command::Sink(SinkCommand::Release {
            out,
            savepoint,
            dry_run,
            ..
        }) => {
            let which = savepoint.map_or(ReleaseOf::All, ReleaseOf::Savepoint);
            sink::release::run(&out, &which, dry_run, json)
        }
        Command::Claim(args) => claim::run(&args, json),
        Command::List(args) => control::list::run(&args, json),
        Command::Savepoint(args) => control::savepoint::run(&args, json),
        Command::Checkpoint(args) => control::savepoint::checkpoint(&args, json),
        Command::Stop(args) => control::stop::run(&args, json),
        Command::Cancel(args) => control::stop::cancel(&args, json),
        Command::Status(args) => control::status::run(&args, json),
        Command::Snapshot(SnapshotCommand::Inspect { path }) => snapshot::inspect::run(&path, json),
        Command::Snapshot(SnapshotCommand::Verify { path }) => snapshot::verify::run(&path, json),
        Command::Snapshot(SnapshotCommand::Ls { paths }) => snapshot::ls::run(&paths, json),
        Command::Snapshot(SnapshotCommand::Export { path, to, hard_links }) => {
            snapshot::export::run(&path, &to, hard_links, json)
        }
        Command::Snapshot(SnapshotCommand::Convert { path, to, target }) => {
            snapshot::convert::run(&path, to, &target, json)
        }
        Command::Snapshot(SnapshotCommand::Dispose { path, dry_run }) => {
            snapshot::dispose::run(&path, dry_run, json)
        }
        Command::Sst(SstCommand::Props { file }) => sst::props::run(&file, json),
        Command::Sst(SstCommand::Verify { files }) => sst::verify::run(&files, json),
        Command::Sst(SstCommand::Dump { file, entries, limit }) => {
            sst::dump::run(&file, entries, limit, json)
        }
        Command::Store(command) => store::run(command, json),
        Command::Gc(args) => gc::run(&args, json),
        Command::Owners { file } => owners::run(&file, json),
    }
}

fn fail(error: &Error, json: bool) -> ExitCode {
    if json {
        say::out(report::object(error));
    } else {
        say::err(report::block(error));
    }
    ExitCode::from(error.exit_code())
}

/// Mistakes on the command line, and the texts of `--help` and `--version`.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = std::env::args_os().any(|word| word == "--json");
    if json && !asked_for {
        return fail(&Error::invalid(first_paragraph(&error.to_string())), true);
    }
    let _ = error.print(); // a closed output is no reason to fail otherwise
    ExitCode::from(if asked_for { 0 } else { 2 })
}

/// What is wrong, without the usage behind it; names of missing arguments stand on lines of their own.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_which_arguments_are_missing() {
        let words = ["keybed", "snapshot", "convert", "/sp"].map(Into::into);
        let error = CommandLine::read(words).unwrap_err();
        let said = first_paragraph(&error.to_string());
        assert!(said.ends_with("were not provided: --to <FORMAT> <DIR>"), "{said}");
    }
}
