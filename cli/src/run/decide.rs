//! Whether a run starts anew, goes on, has nothing to do, or is refused: a pure decision over found facts.

use super::record::JobRecord;
use crate::inputs::Inputs;
use keybed::{Code, Error, Result};
use std::path::PathBuf;

/// What the user said about an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Neither flag.
    Nothing,
    /// `--resume`.
    Resume,
    /// `--restart`.
    Restart,
}

/// What the state directory holds.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The record of the last run.
    pub(crate) record: JobRecord,
    /// Whether that run finished.
    pub(crate) finished: bool,
}

/// What the user named; absolute, or `None` if left out.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Name of the job.
    pub(crate) job: String,
    /// The input.
    pub(crate) input: Option<Inputs>,
    /// The output directory.
    pub(crate) out: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A new job, replacing what the state directory held.
    Fresh,
    /// The recorded job goes on.
    Resume(JobRecord),
    /// The recorded job has finished: nothing is to be done.
    AlreadyFinished(JobRecord),
}

/// Decides.
///
/// # Errors
/// `InterruptedRun` if a run would be given up silently; `NotFound` if there is nothing to resume;
/// `InvalidArgument` if `--resume` names another job, input or output than the run it resumes.
pub(crate) fn decide(found: Option<Found>, wish: Wish, wanted: &Wanted) -> Result<Start> {
    let Some(Found { record, finished }) = found else {
        return match wish {
            Wish::Resume => Err(Error::new(
                Code::NotFound,
                "no run was ever started in this state directory",
            )),
            Wish::Nothing | Wish::Restart => Ok(Start::Fresh),
        };
    };
    match wish {
        Wish::Restart => Ok(Start::Fresh),
        Wish::Nothing if finished => Ok(Start::Fresh),
        Wish::Nothing => Err(Error::new(
            Code::InterruptedRun,
            format!(
                "an earlier run of `{}` was interrupted: say {}--restart to start anew",
                record.job,
                match record.input {
                    Inputs::Files(_) => "--resume to go on, ",
                    // Nobody could read on.
                    Inputs::Standard => "",
                }
            ),
        )
        .with("job", record.id)),
        Wish::Resume => {
            same("job", &record.job, Some(&wanted.job))?;
            same("input", &record.input, wanted.input.as_ref())?;
            same(
                "output",
                &record.out.display(),
                wanted.out.as_ref().map(|p| p.display()).as_ref(),
            )?;
            Ok(if finished {
                Start::AlreadyFinished(record)
            } else {
                Start::Resume(record)
            })
        }
    }
}

fn same<T: ToString>(what: &str, recorded: &T, named: Option<&T>) -> Result {
    match named {
        Some(named) if named.to_string() != recorded.to_string() => Err(Error::invalid(format!(
            "--resume goes on with the {what} of the interrupted run, not with another one"
        ))
        .expected_found(recorded.to_string(), named.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_identity::InputIdentity;
    use keybed::snapshot::JobId;

    fn found(finished: bool) -> Option<Found> {
        let record = JobRecord {
            job: "flights".into(),
            id: JobId(1),
            input: Inputs::Files(vec!["/in".into()]),
            identities: vec![InputIdentity::default()],
            out: "/out".into(),
            restore: None,
        };
        Some(Found { record, finished })
    }

    fn wanted() -> Wanted {
        Wanted {
            job: "flights".into(),
            input: None,
            out: None,
        }
    }

    #[test]
    fn the_table_of_all_cases() {
        let code = |found, wish| decide(found, wish, &wanted()).map_err(|e| e.code());
        let record = || found(true).unwrap().record;
        assert_eq!(code(None, Wish::Nothing), Ok(Start::Fresh));
        assert_eq!(code(None, Wish::Restart), Ok(Start::Fresh));
        assert_eq!(code(None, Wish::Resume), Err(Code::NotFound));
        assert_eq!(code(found(true), Wish::Nothing), Ok(Start::Fresh));
        assert_eq!(code(found(true), Wish::Restart), Ok(Start::Fresh));
        assert_eq!(
            code(found(true), Wish::Resume),
            Ok(Start::AlreadyFinished(record()))
        );
        assert_eq!(code(found(false), Wish::Nothing), Err(Code::InterruptedRun));
        assert_eq!(code(found(false), Wish::Restart), Ok(Start::Fresh));
        assert_eq!(code(found(false), Wish::Resume), Ok(Start::Resume(record())));
    }

    #[test]
    fn a_refusal_names_both_flags() {
        let error = decide(found(false), Wish::Nothing, &wanted()).unwrap_err();
        assert!(error.message().contains("--resume") && error.message().contains("--restart"));
        assert_eq!(error.exit_code(), 5);
    }

    #[test]
    fn resume_keeps_job_input_and_output() {
        let other = |change: fn(&mut Wanted)| {
            let mut wanted = wanted();
            change(&mut wanted);
            decide(found(false), Wish::Resume, &wanted).map_err(|e| e.code())
        };
        assert_eq!(other(|w| w.job = "nexmark".into()), Err(Code::InvalidArgument));
        assert_eq!(
            other(|w| w.input = Some(Inputs::Files(vec!["/other".into()]))),
            Err(Code::InvalidArgument)
        );
        assert_eq!(
            other(|w| w.out = Some("/other".into())),
            Err(Code::InvalidArgument)
        );
        assert!(other(|w| w.out = Some("/out".into())).is_ok());
    }
}
