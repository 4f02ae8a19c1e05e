//! What can be said after `keybed sink`.

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SinkCommand {
    /// Print which parts lie in an output directory, of which jobs, and which savepoints hold them.
    Ls {
        /// The output directory.
        out: PathBuf,
    },
    /// Give up what is held for a savepoint, and remove the parts of finished jobs that nobody needs then.
    ///
    /// Without its parts the savepoint can only be restored with --accept-lost-transactions. Parts of a job that can
    /// still go on are left to it.
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Release {
        /// The output directory.
        out: PathBuf,
        /// The savepoint, by the name of its directory or by the path where it was taken.
        #[arg(long, value_name = "NAME", group = "which")]
        savepoint: Option<String>,
        /// All savepoints.
        #[arg(long, group = "which")]
        all: bool,
        /// Only tell what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}
