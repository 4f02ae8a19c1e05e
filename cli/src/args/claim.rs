//! What can be said after `keybed claim`.

use clap::Args;
use std::path::PathBuf;

/// Options of `keybed claim`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClaimArgs {
    /// Give this snapshot back that an ended job had claimed; it stays as it is.
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) release: PathBuf,
    /// Also if the job that claimed it is not found any more: it is gone for good.
    #[arg(long)]
    pub(crate) take_over: bool,
}
