//! What can be said after `keybed sst`.

use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SstCommand {
    /// Print what is known about a table: counts, key range, sections.
    Props {
        /// The table's file (`*.sst`), of a store, a snapshot or none.
        file: PathBuf,
    },
    /// Read every byte of tables and compare it with the checksums, the index and the filters.
    Verify {
        /// Files of tables.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the blocks of a table, or its entries.
    Dump {
        /// The table's file.
        file: PathBuf,
        /// Print entries in place of blocks: key, seqno, kind, value.
        #[arg(long)]
        entries: bool,
        /// The most entries to print.
        #[arg(long, value_name = "COUNT", default_value_t = 1000, requires = "entries")]
        limit: u64,
    },
}
