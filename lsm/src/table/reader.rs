//! Reading a table: filter, fence, block hash, value.

use super::{Found, TableFacts};
use crate::{
    cache::BlockCache,
    key::{Entry, KeyRange, Seqno, TableId},
};
use keybed_env::{Fs, ReadFile};
use keybed_format::{Code, Error, Result};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How blocks reach memory.
#[derive(Clone, Debug)]
pub enum BlockAccess {
    /// Map the file where the file system can. Only for tables this process wrote in a directory it has locked.
    /// Compressed blocks, and files that cannot be mapped, go through the cache.
    Map(Arc<BlockCache>),
    /// Read at offsets, keep decoded blocks in the cache.
    Cache(Arc<BlockCache>),
}

/// An open table.
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    facts: TableFacts,
}

fn unfinished<T>() -> Result<T> {
    Err(Error::new(Code::Closed, "the table layer is not finished"))
}

impl TableReader {
    /// Opens the table `id` at `path`: checks trailer, footer, index, filter and properties; blocks are checked at
    /// their first use.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `UnsupportedFormatVersion`; `NotFound`, `IoFailed`.
    pub fn open(fs: &dyn Fs, path: &Path, id: TableId, access: BlockAccess) -> Result<Arc<TableReader>> {
        Self::open_file(fs.open(path)?, path, id, access)
    }

    /// As [`TableReader::open`], for a file that is open already; `path` only names it in errors.
    ///
    /// # Errors
    /// As there.
    pub fn open_file(
        file: Arc<dyn ReadFile>,
        path: &Path,
        id: TableId,
        access: BlockAccess,
    ) -> Result<Arc<TableReader>> {
        let _ = (file, path, id, access);
        unfinished()
    }

    /// The newest version of `key` with a seqno of at most `seqno_max`. `hash` is [`crate::key::hash`] of the key.
    ///
    /// # Errors
    /// `TableCorrupt` if the block is damaged; `IoFailed`.
    pub fn get(&self, key: &[u8], hash: u64, seqno_max: Seqno) -> Result<Option<Found<'_>>> {
        let _ = (key, hash, seqno_max);
        unfinished()
    }

    /// Hands every version of `key` with a seqno of at most `seqno_max` to `each`, newest first, until it breaks.
    ///
    /// # Errors
    /// As [`TableReader::get`].
    pub fn versions(
        &self,
        key: &[u8],
        hash: u64,
        seqno_max: Seqno,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let _ = (key, hash, seqno_max, each);
        unfinished()
    }

    /// Whether the table can hold a key of this hash: false is certain. True without a filter.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let _ = hash;
        true
    }

    /// Names the content.
    pub fn id(&self) -> TableId {
        self.facts.id
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything known about the table.
    pub fn facts(&self) -> &TableFacts {
        &self.facts
    }

    /// Bytes of the blocks that can hold keys of `range`, from the index.
    pub fn bytes_in(&self, range: &KeyRange) -> u64 {
        let _ = range;
        self.facts.bytes
    }

    /// Reads and checks every byte: trailer, sections, every block, order, hashes, filter, counts.
    ///
    /// # Errors
    /// `TableCorrupt` with the offset of the first damage.
    pub fn verify_all(&self) -> Result {
        unfinished()
    }
}
