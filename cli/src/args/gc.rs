//! What can be said after `keybed gc`.

use clap::Args;
use keybed::snapshot::JobId;
use std::path::PathBuf;

/// Options of `keybed gc`.
#[derive(Args, Clone, Debug)]
pub(crate) struct GcArgs {
    /// A job root, a checkpoint root with the roots of several jobs, or a state directory.
    pub(crate) root: PathBuf,
    /// Only print what would go; a sweep after it deletes exactly that.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave garbage that is younger, for example 10m or 2h.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) min_age: humantime::Duration,
    /// Remove the whole root of this job, whose history was given up (`run --restart`); may be repeated.
    #[arg(long, value_name = "JOB-ID")]
    pub(crate) given_up: Vec<JobId>,
}
