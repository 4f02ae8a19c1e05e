//! What can be said after `keybed store`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Print families, runs, bytes and everything else that a store says about itself.
    Stats {
        /// The directory of the store.
        dir: PathBuf,
        /// In the text format of Prometheus.
        #[arg(long)]
        prometheus: bool,
    },
    /// Print entries in the order of their keys, one per line: key, tab, value.
    Scan(ScanArgs),
    /// Print the value of a key.
    Get {
        /// The directory of the store.
        dir: PathBuf,
        /// The key.
        key: String,
        #[command(flatten)]
        family: FamilyArgs,
    },
    /// Merge everything into the bottom run: what was deleted or overwritten gives up its space.
    Compact {
        /// The directory of the store.
        dir: PathBuf,
        /// Only this family; without it all.
        #[arg(long, value_name = "NAME")]
        family: Option<String>,
    },
    /// Read every byte of a store, and compare its parts with each other.
    Verify {
        /// The directory of the store.
        dir: PathBuf,
    },
    /// Tell what can be done about a damaged CURRENT or manifest; with --write, do it.
    ///
    /// Only what can be proved is done, and what will be missing is said before. Files that are not part of the repaired
    /// store are kept in its directory lost+found. Tables are never repaired.
    Repair {
        /// The directory of the store.
        dir: PathBuf,
        /// Do it; without this nothing is changed.
        #[arg(long)]
        write: bool,
        /// All tables belong to one family, and this is its name: permits to rebuild a store of which no manifest can
        /// be read from its tables alone.
        #[arg(long, value_name = "NAME")]
        one_family: Option<String>,
        /// The name of that family's merge operator, if it has one.
        #[arg(long, value_name = "NAME", requires = "one_family")]
        merge_operator: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FamilyArgs {
    /// The family; may be left out if there is only one.
    #[arg(long, value_name = "NAME")]
    pub(crate) family: Option<String>,
    /// Keys are given, keys and values are printed, as hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// The directory of the store.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) family: FamilyArgs,
    /// The first key.
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<String>,
    /// The key before which the scan ends.
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<String>,
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<String>,
    /// The last key first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Entries at most.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}
