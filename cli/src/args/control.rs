//! What can be said to running jobs, and about how a run can be spoken to.

use super::location::location;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, str::FromStr};

/// Options of `keybed run` about its control endpoint.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// Port of the control endpoint on 127.0.0.1, or `off` [default: 8081, or the next free one].
    #[arg(long, value_name = "N|off")]
    pub(crate) control_port: Option<ControlPort>,
    /// Word that clients of the control endpoint must send (Authorization: Bearer WORD); also taken from
    /// KEYBED_CONTROL_TOKEN, where no list of processes shows it.
    #[arg(long, value_name = "WORD")]
    pub(crate) token: Option<String>,
    /// Directory in which savepoints are created that name none; also taken from KEYBED_SAVEPOINT_DIR.
    #[arg(long, value_name = "DIR")]
    pub(crate) savepoint_dir: Option<PathBuf>,
    /// Directory below which requests may have savepoints written and disposed of, beside the savepoint directory and
    /// the checkpoints; may be repeated [default: the working directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) allowed_root: Vec<PathBuf>,
}

impl EndpointArgs {
    /// As the options of the same names say, else the environment.
    pub(crate) fn or_environment(&self) -> EndpointArgs {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        EndpointArgs {
            token: self.token.clone().or_else(|| set(TOKEN_VARIABLE)),
            savepoint_dir: self
                .savepoint_dir
                .clone()
                .or_else(|| set("KEYBED_SAVEPOINT_DIR").map(PathBuf::from)),
            ..self.clone()
        }
    }
}

/// Where clients and jobs find the token.
pub(crate) const TOKEN_VARIABLE: &str = "KEYBED_CONTROL_TOKEN";

/// A port, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlPort {
    /// No endpoint.
    Off,
    /// This one and no other; 0 is any free one.
    Port(u16),
}

impl FromStr for ControlPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(ControlPort::Off);
        }
        let port = text.parse().map(ControlPort::Port);
        port.map_err(|_| "a port is a number from 0 to 65535, or `off`".to_owned())
    }
}

/// How a verb reaches its job.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServerArgs {
    /// Ask the endpoint at this address instead of the jobs of this user on this machine.
    #[arg(short = 'm', long = "jobmanager", value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// Token of that endpoint, if it is not in KEYBED_CONTROL_TOKEN.
    #[arg(long, value_name = "WORD", requires = "server")]
    pub(crate) token: Option<String>,
}

/// `keybed list`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs {
    /// Jobs that ended within the last hour, too.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Running jobs, which are listed anyway.
    #[arg(short, long, hide = true)]
    pub(crate) running: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `keybed savepoint`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SavepointArgs {
    /// Name or id of the job.
    #[arg(required_unless_present = "dispose")]
    pub(crate) job: Option<String>,
    /// Directory in which the savepoint's directory is created [default: the job's savepoint directory].
    #[arg(value_parser = location())]
    pub(crate) target: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: TakeArgs,
    /// Remove the savepoint at PATH instead; every running job is asked whether it needs it.
    #[arg(short, long, value_name = "PATH", value_parser = location(), conflicts_with_all = ["job", "detached"])]
    pub(crate) dispose: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// How a savepoint is taken.
#[derive(Args, Clone, Debug)]
pub(crate) struct TakeArgs {
    /// How its state is written.
    #[arg(long = "type", value_enum, ignore_case = true, default_value_t = FormatName::Native)]
    pub(crate) format: FormatName,
    /// Link the files of a native savepoint where the file system is the same, instead of copying them: it survives the
    /// deletion of the job's files, not damage to them.
    #[arg(long)]
    pub(crate) hard_links: bool,
    /// Do not wait; print the request's id, by which `keybed status` tells the outcome.
    #[arg(long)]
    pub(crate) detached: bool,
}

/// A savepoint format by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// Tables as they are: fast, and self-contained.
    Native,
    /// Every state uniformly, sorted by key: independent of the backend.
    Canonical,
}

/// `keybed checkpoint`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckpointArgs {
    /// Name or id of the job.
    pub(crate) job: String,
    /// Refer to no file of an earlier checkpoint.
    #[arg(long)]
    pub(crate) full: bool,
    /// Do not wait; print the request's id.
    #[arg(long)]
    pub(crate) detached: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `keybed stop`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// Name or id of the job.
    pub(crate) job: String,
    /// Directory in which the savepoint's directory is created [default: the job's savepoint directory].
    #[arg(
        short = 'p',
        long = "savepointPath",
        visible_alias = "savepoint-path",
        value_name = "DIR", value_parser = location()
    )]
    pub(crate) target: Option<PathBuf>,
    /// End the input first: timers and windows fire, and the result is complete. Not for a job that is to go on.
    #[arg(short, long)]
    pub(crate) drain: bool,
    #[command(flatten)]
    pub(crate) how: TakeArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `keybed cancel`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CancelArgs {
    /// Name or id of the job.
    #[arg(required_unless_present = "savepoint")]
    pub(crate) job: Option<String>,
    /// Take a savepoint first: the same as `keybed stop`, which is to be preferred.
    #[arg(short = 's', long = "withSavepoint", visible_alias = "with-savepoint", value_name = "DIR", num_args = 0..=1, value_parser = location())]
    pub(crate) savepoint: Option<Option<PathBuf>>,
    /// How the savepoint's state is written.
    #[arg(long = "type", value_enum, ignore_case = true, default_value_t = FormatName::Native)]
    pub(crate) format: FormatName,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl CancelArgs {
    /// The job and the target. After `-s` a single word is the job, as Flink reads it.
    pub(crate) fn job_and_target(&self) -> (Option<String>, Option<PathBuf>) {
        match (&self.job, &self.savepoint) {
            (None, Some(Some(word))) => (Some(word.display().to_string()), None),
            (job, target) => (job.clone(), target.clone().flatten()),
        }
    }
}

/// `keybed status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Name or id of the job.
    #[arg(required_unless_present = "state_dir")]
    pub(crate) job: Option<String>,
    /// Tell what came of this request instead, also when the job is over.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// Look up the request in this state directory, for jobs that are over.
    #[arg(long, value_name = "DIR", requires = "request", conflicts_with = "server")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[cfg(test)]
mod tests {
    use super::super::{Command, CommandLine};
    use super::*;

    fn read(words: &str) -> Result<Command, clap::Error> {
        let words = ["keybed"].into_iter().chain(words.split(' '));
        CommandLine::read(words.map(Into::into)).map(CommandLine::into_command)
    }

    #[test]
    fn verbs_as_typed_for_flink_are_understood() {
        let Command::Savepoint(args) = read("savepoint -type canonical flights /sp -detached").unwrap()
        else {
            panic!("no savepoint");
        };
        assert_eq!(
            (args.job.as_deref(), args.target),
            (Some("flights"), Some("/sp".into()))
        );
        assert_eq!(
            (args.how.format, args.how.detached),
            (FormatName::Canonical, true)
        );
        let Command::Savepoint(args) = read("savepoint -d file:/sp/a").unwrap() else {
            panic!("no savepoint");
        };
        assert_eq!((args.job, args.dispose), (None, Some("/sp/a".into())));
        for words in [
            "stop -p /sp -d flights",
            "stop --savepointPath /sp --drain flights",
            "stop -savepointPath /sp -drain flights --type NATIVE",
        ] {
            let Command::Stop(args) = read(words).unwrap() else {
                panic!("no stop");
            };
            assert_eq!(
                (args.job.as_str(), args.target, args.drain, args.how.format),
                ("flights", Some("/sp".into()), true, FormatName::Native)
            );
        }
        let Command::List(args) = read("list -a -m localhost:8081").unwrap() else {
            panic!("no list");
        };
        assert!(args.all && args.server.server.as_deref() == Some("localhost:8081"));
        let Command::Checkpoint(args) = read("checkpoint -full flights").unwrap() else {
            panic!("no checkpoint");
        };
        assert!(args.full);
    }

    #[test]
    fn a_cancel_with_a_savepoint_reads_words_as_flink_does() {
        for (words, job, savepoint, target) in [
            ("cancel j", "j", false, None),
            ("cancel j -s", "j", true, None),
            ("cancel -s j", "j", true, None),
            ("cancel -s /sp j", "j", true, Some("/sp")),
            ("cancel j -s /sp", "j", true, Some("/sp")),
            ("cancel --withSavepoint /sp j", "j", true, Some("/sp")),
        ] {
            let Command::Cancel(args) = read(words).unwrap() else {
                panic!("no cancel");
            };
            assert_eq!(
                (args.job_and_target(), args.savepoint.is_some()),
                ((Some(job.to_owned()), target.map(PathBuf::from)), savepoint),
                "{words}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            "savepoint",
            "savepoint j -d /sp",
            "savepoint j --type fast",
            "checkpoint",
            "stop",
            "cancel",
            "cancel -yid x",
            "list --token x",
            "status",
            "status --state-dir d",
            "run flights --control-port 65536",
            "run flights --control-port on",
        ] {
            assert!(read(words).is_err(), "{words}");
        }
        for (text, port) in [
            ("off", ControlPort::Off),
            ("0", ControlPort::Port(0)),
            ("9", ControlPort::Port(9)),
        ] {
            assert_eq!(text.parse(), Ok(port));
        }
    }
}
