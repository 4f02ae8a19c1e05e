//! The jobs that the command can run, by name.

pub(crate) mod flights;

use keybed::{Code, Error, Result};

/// A job by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobName {
    /// Aircraft and days of the New York flights of 2013.
    Flights,
}

const ALL: &[(&str, JobName)] = &[("flights", JobName::Flights)];

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
        }
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
