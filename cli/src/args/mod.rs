//! What can be said on the command line: the commands; the options of each are in the file of its name.

mod claim;
mod control;
mod flink;
mod gc;
mod location;
mod restore;
mod run;
mod sink;
mod snapshot;
mod sst;
mod store;

pub(crate) use claim::ClaimArgs;
pub(crate) use control::{
    CancelArgs, CheckpointArgs, ControlPort, EndpointArgs, FormatName, ListArgs, SavepointArgs, ServerArgs,
    StatusArgs, StopArgs, TOKEN_VARIABLE, TakeArgs,
};
pub(crate) use gc::GcArgs;
pub(crate) use restore::RestoreArgs;
pub(crate) use run::{BackendName, OnBadRecord, RunArgs};
pub(crate) use sink::SinkCommand;
pub(crate) use snapshot::SnapshotCommand;
pub(crate) use sst::SstCommand;
pub(crate) use store::{FamilyArgs, ScanArgs, StoreCommand};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::ffi::OsString;

/// Runs stateful stream jobs on keybed and looks after their snapshots.
///
/// Without a command it runs the job `flights` with its defaults.
#[derive(Debug, Parser)]
#[command(name = "keybed", version, after_help = EXIT_CODES)]
pub(crate) struct CommandLine {
    /// Print the result (or the error) as one JSON object on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed or stopped, 2 usage, 3 corruption found, 4 busy or locked, \
                          5 refused (incompatible, or would lose data).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job until its input ends, taking checkpoints.
    Run(Box<RunArgs>),
    /// List running jobs.
    List(ListArgs),
    /// Take a savepoint of a running job, or dispose of one.
    Savepoint(SavepointArgs),
    /// Take a checkpoint of a running job now.
    Checkpoint(CheckpointArgs),
    /// Stop a running job with a savepoint.
    Stop(StopArgs),
    /// Cancel a running job; its checkpoints stay.
    Cancel(CancelArgs),
    /// Tell how a running job or a request stands.
    Status(StatusArgs),
    /// Look into snapshots; no running job is needed.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look into the files of tables.
    #[command(subcommand)]
    Sst(SstCommand),
    /// Give a snapshot back that a job had claimed.
    Claim(ClaimArgs),
    /// Look into output directories: parts that are in doubt, and what keeps them.
    #[command(subcommand)]
    Sink(SinkCommand),
    /// Look into a store of the engine, check and repair it; nobody else may have it open.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Delete what no snapshot needs from the roots of jobs; a running job is asked to do it itself.
    Gc(GcArgs),
    /// Tell who owns a file, which snapshots need it, and whether it may be deleted.
    Owners {
        /// A file in a job root or in the directory of a savepoint; it need not be there any more.
        file: std::path::PathBuf,
    },
}

impl CommandLine {
    /// Reads the words of a command line, the program's name first; Flink's words are understood.
    ///
    /// # Errors
    /// What to print instead of obeying; help and version, too.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let refuse = |sentence| CommandLine::command().error(ErrorKind::UnknownArgument, sentence);
        CommandLine::try_parse_from(flink::rewrite(words).map_err(refuse)?)
    }

    /// The command, which is `run flights` if none was given.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| {
            let words = ["keybed", "run", "flights"];
            CommandLine::parse_from(words)
                .command
                .unwrap_or_else(|| unreachable!("`run` is a command"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        CommandLine::command().debug_assert();
    }
}
