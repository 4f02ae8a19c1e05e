//! Which job roots a path means, and which of them a later run of the same state directory gave up.

use crate::run::JobRecord;
use keybed::{
    Code, Error, Result,
    env::{Fs, OsFs, fs::FileKind},
    snapshot::{JobId, LocalStorage, gc::job_of},
};
use std::path::{Path, PathBuf};

/// A job root.
#[derive(Clone, Debug)]
pub(super) struct JobRoot {
    pub(super) path: PathBuf,
    pub(super) job: JobId,
    /// Whether the state directory around it went on with another job.
    pub(super) given_up: bool,
}

/// The roots that a path means.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) roots: Vec<JobRoot>,
    /// The job of the last run, if the path is a state directory.
    current: Option<JobId>,
}

impl Scope {
    /// The job root at a path; or all in a checkpoint root or a state directory.
    ///
    /// # Errors
    /// `NotASnapshot` if there is none; the errors of a damaged job record.
    pub(super) fn of(path: &Path) -> Result<Scope> {
        if is_job_root(path)? {
            let root = JobRoot {
                path: path.to_path_buf(),
                job: job_of(&LocalStorage::at(std::sync::Arc::new(OsFs), path))?,
                given_up: false,
            };
            return Ok(Scope {
                roots: vec![root],
                current: None,
            });
        }
        let record = JobRecord::read(&OsFs, path)?;
        let current = record.map(|record| record.id);
        let checkpoints = match current {
            Some(_) => path.join("checkpoints"),
            None => path.to_path_buf(),
        };
        let entries = match OsFs.list(&checkpoints) {
            Err(e) if e.code() == Code::NotFound => Vec::new(),
            other => other?,
        };
        let mut roots = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind == FileKind::Dir) {
            let Ok(job) = entry.name.parse::<JobId>() else {
                continue;
            };
            roots.push(JobRoot {
                path: checkpoints.join(&entry.name),
                job,
                given_up: current.is_some_and(|current| current != job),
            });
        }
        if roots.is_empty() && current.is_none() {
            return Err(Error::new(
                Code::NotASnapshot,
                "there is no job root: name one, a checkpoint root, or a state directory",
            )
            .in_file(path));
        }
        Ok(Scope { roots, current })
    }

    /// Refuses to give up what is not there, or what a resume would go on with.
    ///
    /// # Errors
    /// `NotASnapshot`; `GcRefused`.
    pub(super) fn demand_given_up(&self, jobs: &[JobId]) -> Result {
        for job in jobs {
            if self.current == Some(*job) {
                return Err(Error::new(
                    Code::GcRefused,
                    "it is the job of the last run: `keybed run JOB --restart` gives it up first",
                )
                .with("reason", "current job")
                .with("job_id", job));
            }
            if !self.roots.iter().any(|root| root.job == *job) {
                return Err(
                    Error::new(Code::NotASnapshot, "there is no root of that job").with("job_id", job)
                );
            }
        }
        Ok(())
    }
}

fn is_job_root(path: &Path) -> Result<bool> {
    let owner = OsFs.facts(&path.join("owner"))?;
    Ok(owner.is_some_and(|facts| facts.kind == FileKind::Dir))
}
