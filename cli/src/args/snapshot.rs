//! What can be said after `keybed snapshot`.

use super::{FormatName, location::location};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List the snapshots at and below directories: kind, id, job, time, standing, bytes, what they depend on.
    Ls {
        /// Job roots, checkpoint roots, state directories, savepoint targets, or whatever holds them.
        #[arg(required = true, value_name = "DIR")]
        paths: Vec<PathBuf>,
    },
    /// Print what a snapshot holds and which directories it depends on.
    Inspect {
        /// The directory of the snapshot (`chk-<n>`), or its `_metadata`.
        #[arg(value_parser = location())]
        path: PathBuf,
    },
    /// Read every byte that a snapshot consists of and compare it with what was written.
    Verify {
        /// The directory of the snapshot (`chk-<n>`), or its `_metadata`.
        #[arg(value_parser = location())]
        path: PathBuf,
    },
    /// Copy a snapshot into a directory of its own that can be moved anywhere; the last line is that directory.
    Export {
        /// The directory of the snapshot (`chk-<n>` or a savepoint), or its `_metadata`.
        #[arg(value_parser = location())]
        path: PathBuf,
        /// Where the copy's directory is created.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Link files in place of copying them where that is possible. Safe against deletion of the original, not
        /// against damage in place; `inspect` tells which directories share storage.
        #[arg(long)]
        hard_links: bool,
    },
    /// Write a snapshot of any kind as a savepoint in a format; the last line is the new directory.
    Convert {
        /// The directory of the snapshot (`chk-<n>` or a savepoint), or its `_metadata`.
        #[arg(value_parser = location())]
        path: PathBuf,
        /// The format: native (tables as the store has them) or canonical (uniform, independent of the store).
        #[arg(long, value_enum, value_name = "FORMAT")]
        to: FormatName,
        /// Where the new directory is created.
        #[arg(value_name = "DIR")]
        target: PathBuf,
    },
    /// Remove a savepoint: its own files and nothing else. Checkpoints in the root of a job are refused.
    Dispose {
        /// The directory of the savepoint, or its `_metadata`.
        #[arg(value_parser = location())]
        path: PathBuf,
        /// Only list what would go and what would stay.
        #[arg(long)]
        dry_run: bool,
    },
}
