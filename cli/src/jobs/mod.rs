//! The jobs that the command can run, by name.

mod deal;
mod flights;
mod wordcount;

use crate::{args::OnBadRecord, inputs::Inputs};
use keybed::{Code, Error, Result, runtime::Pipeline};
use std::path::{Path, PathBuf};

/// A job by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobName {
    /// Aircraft and days of the New York flights of 2013.
    Flights,
    /// Words of a text.
    Wordcount,
}

const ALL: &[(&str, JobName)] = &[("flights", JobName::Flights), ("wordcount", JobName::Wordcount)];

impl JobName {
    /// The job called `name`.
    ///
    /// # Errors
    /// `UnknownJob`, naming the nearest job and listing all.
    pub(crate) fn find(name: &str) -> Result<JobName> {
        if let Some((_, job)) = ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*job);
        }
        let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_lowercase());
        let nearest = ALL
            .iter()
            .map(|(known, _)| *known)
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let known: Vec<&str> = ALL.iter().map(|(known, _)| *known).collect();
        let mut error = Error::new(Code::UnknownJob, format!("there is no job called `{name}`"));
        if let Some(nearest) = nearest {
            error = error.with("nearest", nearest);
        }
        Err(error.with("jobs", known.join(", ")))
    }

    /// The name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            JobName::Flights => "flights",
            JobName::Wordcount => "wordcount",
        }
    }

    /// What it reads if nothing is named.
    ///
    /// # Errors
    /// `IoFailed` if the working directory is gone.
    pub(crate) fn default_input(self) -> Result<Inputs> {
        match self {
            JobName::Flights => {
                let named = Inputs::named(&[PathBuf::from(flights::INPUT)])?;
                Ok(named.unwrap_or(Inputs::Standard))
            }
            JobName::Wordcount => Ok(Inputs::Standard),
        }
    }

    /// Names of its output files.
    pub(crate) fn outputs(self) -> &'static [&'static str] {
        match self {
            JobName::Flights => &flights::OUTPUTS,
            JobName::Wordcount => &wordcount::OUTPUTS,
        }
    }

    /// The program.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot read such an input.
    pub(crate) fn pipeline(self, input: &Inputs, out: &Path, on_bad_record: OnBadRecord) -> Result<Pipeline> {
        Ok(match self {
            JobName::Flights => flights::pipeline(input.one_file()?.to_path_buf(), out, on_bad_record),
            JobName::Wordcount => wordcount::pipeline(input.clone(), out, on_bad_record),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_found_by_its_name() {
        for (name, job) in ALL {
            assert_eq!(JobName::find(name).unwrap(), *job);
            assert_eq!(job.as_str(), *name);
        }
    }

    #[test]
    fn a_typing_error_suggests_the_nearest() {
        let error = JobName::find("fligths").unwrap_err();
        assert_eq!((error.code(), error.exit_code()), (Code::UnknownJob, 2));
        assert_eq!(error.fields()[0], ("nearest", "flights".to_owned()));
    }
}
