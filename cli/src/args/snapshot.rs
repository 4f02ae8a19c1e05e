//! What can be said after `keybed snapshot`.

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Print what a snapshot holds and which directories it depends on.
    Inspect {
        /// The directory of the snapshot (`chk-<n>`), or its `_metadata`.
        path: PathBuf,
    },
    /// Read every byte that a snapshot consists of and compare it with what was written.
    Verify {
        /// The directory of the snapshot (`chk-<n>`), or its `_metadata`.
        path: PathBuf,
    },
    /// Copy a snapshot into a directory of its own that can be moved anywhere; the last line is that directory.
    Export {
        /// The directory of the snapshot (`chk-<n>` or a savepoint), or its `_metadata`.
        path: PathBuf,
        /// Where the copy's directory is created.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Remove a savepoint: its own files and nothing else. Checkpoints in the root of a job are refused.
    Dispose {
        /// The directory of the savepoint, or its `_metadata`.
        path: PathBuf,
    },
}
