//! What can be said after `keybed run`.

use super::{EndpointArgs, RestoreArgs};
use clap::{Args, ValueEnum};
use std::{num::NonZeroU32, path::PathBuf};

/// Options of `keybed run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Name of the job: flights, wordcount.
    pub(crate) job: String,
    /// Go on from the last completed checkpoint of an interrupted run.
    #[arg(long, conflicts_with = "restart")]
    pub(crate) resume: bool,
    /// Give up an interrupted run and start anew.
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) restore: RestoreArgs,
    /// With --claim-mode claim: take the snapshot from a job that has claimed it and has ended, or is not found any more.
    /// A job that lives is never displaced: its lock tells.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Subtasks per operator; may differ from the interrupted run's.
    #[arg(short, long, default_value_t = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN), value_name = "N")]
    pub(crate) parallelism: NonZeroU32,
    /// Input, plain or compressed with zstd. flights: one CSV file [default: examples/data/flights-2013.csv.zst].
    /// wordcount: text files in this order, or - for standard input [default: -].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) input: Vec<PathBuf>,
    /// Directory of the output files [default: out].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// State directory: job record, event log, local stores, checkpoints.
    #[arg(long, value_name = "DIR", default_value = crate::run::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Time from one checkpoint to the next, for example 200ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(crate) checkpoint_interval: humantime::Duration,
    /// Completed checkpoints that are kept.
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN))]
    pub(crate) retain: NonZeroU32,
    /// Most records per second that the sources emit together; unlimited if left out.
    #[arg(long, value_name = "EVENTS_PER_SECOND")]
    pub(crate) throttle: Option<NonZeroU32>,
    /// Where keyed state lives while the job runs.
    #[arg(long, value_enum, default_value_t = BackendName::Lsm)]
    pub(crate) backend: BackendName,
    /// Bytes at which a subtask's memtable is flushed to a table, for example 256KiB [default: 64MiB].
    #[arg(long, value_name = "BYTES")]
    pub(crate) memtable: Option<bytesize::ByteSize>,
    /// What to do with a line that cannot be understood.
    #[arg(long, value_enum, default_value_t = OnBadRecord::Fail)]
    pub(crate) on_bad_record: OnBadRecord,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
}

/// A state backend by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Log-structured merge tree: state may exceed memory.
    Lsm,
    /// Ordered maps in memory.
    Heap,
}

/// What a source does with a record that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBadRecord {
    /// The job fails, naming file, line and column.
    Fail,
    /// The record is left out and counted.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::super::{Command, CommandLine};
    use super::*;
    use clap::Parser;

    fn run(words: &[&str]) -> Result<RunArgs, clap::Error> {
        let line = CommandLine::try_parse_from(["keybed"].iter().chain(words))?;
        match line.into_command() {
            Command::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_command_runs_flights_with_defaults() {
        let args = run(&[]).unwrap();
        assert_eq!(
            (args.job.as_str(), args.parallelism.get(), args.retain.get()),
            ("flights", 2, 3)
        );
        assert_eq!(*args.checkpoint_interval, std::time::Duration::from_secs(2));
        assert_eq!(args.state_dir, PathBuf::from("keybed-state"));
        assert!(!args.resume && !args.restart);
    }

    #[test]
    fn options_take_units() {
        let args = run(&[
            "run",
            "flights",
            "-p",
            "7",
            "--checkpoint-interval",
            "200ms",
            "--memtable",
            "256KiB",
        ])
        .unwrap();
        assert_eq!(args.parallelism.get(), 7);
        assert_eq!(args.checkpoint_interval.as_millis(), 200);
        assert_eq!(args.memtable.unwrap().as_u64(), 262_144);
        let plain = run(&["run", "flights", "--memtable", "262144"]).unwrap();
        assert_eq!(plain.memtable, args.memtable);
        let short = run(&["run", "flights", "-s", "sp 1"]).unwrap();
        let long = run(&["run", "flights", "--restart", "--from", "sp 1"]).unwrap();
        assert_eq!(
            (&short.restore.from, &long.restore.from),
            (&Some("sp 1".into()), &Some("sp 1".into()))
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(run(&["run", "flights", "--resume", "--restart"]).is_err());
        assert!(run(&["run", "flights", "-p", "0"]).is_err());
        assert!(run(&["run", "flights", "--resume", "-s", "sp"]).is_err());
        assert!(run(&["run"]).is_err());
        assert!(run(&["run", "flights", "--checkpoint-interval", "soon"]).is_err());
        assert!(run(&["run", "flights", "--throttle", "0"]).is_err());
    }
}
