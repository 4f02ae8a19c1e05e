//! Writing a table.

use super::{TableFacts, TableOptions};
use crate::key::{Entry, TableId};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::path::Path;

/// Writes one table; entries come sorted by key ascending, then seqno descending.
///
/// Blocks go to the file as they fill; in memory stay the open block, the fence and eight bytes per key for the
/// filter. A builder that met an error, or is dropped unfinished, leaves a file without trailer: whoever owns the
/// directory removes it, and the table is rebuilt under a new id.
#[derive(Debug)]
pub struct TableBuilder {
    id: TableId,
    options: TableOptions,
}

fn unfinished<T>() -> Result<T> {
    Err(Error::new(Code::Closed, "the table layer is not finished"))
}

impl TableBuilder {
    /// Creates the file `path`, which must not exist.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of bounds or zstd without its feature; errors of [`Fs::create`].
    pub fn new(fs: &dyn Fs, path: &Path, id: TableId, options: TableOptions) -> Result<TableBuilder> {
        let _ = (fs, path);
        Ok(TableBuilder { id, options })
    }

    /// Adds the next version.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not lie behind the last one; `KeyTooLarge`, `ValueTooLarge`; `IoFailed`: the
    /// builder must be dropped.
    pub fn add(&mut self, entry: Entry<'_>) -> Result {
        let _ = (entry, self.id, &self.options);
        unfinished()
    }

    /// Versions added so far.
    pub fn entries(&self) -> u64 {
        0
    }

    /// About how large the file would be if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        0
    }

    /// Writes what is left and closes the file; with `sync` its bytes are durable afterwards (its name is not).
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was added; `IoFailed`: the file must be abandoned.
    pub fn finish(self, sync: bool) -> Result<TableFacts> {
        let _ = sync;
        unfinished()
    }
}
