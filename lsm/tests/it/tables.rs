//! Building and opening tables in tests.

use keybed_env::{OsFs, ReadFile};
use keybed_format::{Code, Error, Result};
use keybed_lsm::{
    BlockCache, Entry, EntryKind, Seqno, TableId,
    key::hash,
    table::{BlockAccess, TableBuilder, TableFacts, TableIter, TableOptions, TableReader, TableView},
};
use std::{ops::ControlFlow, path::Path, sync::Arc};

/// An owned version.
pub(crate) type Version = (Vec<u8>, Seqno, EntryKind, Vec<u8>);

pub(crate) fn entry(version: &Version) -> Entry<'_> {
    Entry {
        key: &version.0,
        seqno: version.1,
        kind: version.2,
        value: &version.3,
    }
}

pub(crate) fn owned(entry: Entry<'_>) -> Version {
    (entry.key.to_vec(), entry.seqno, entry.kind, entry.value.to_vec())
}

pub(crate) fn build(
    path: &Path,
    id: TableId,
    options: &TableOptions,
    versions: &[Version],
) -> Result<TableFacts> {
    let mut builder = TableBuilder::new(&OsFs, path, id, options.clone())?;
    for version in versions {
        builder.add(entry(version))?;
    }
    builder.finish(false)
}

pub(crate) fn mapped() -> BlockAccess {
    BlockAccess::Map(Arc::new(BlockCache::new(1 << 20)))
}

pub(crate) fn cached() -> BlockAccess {
    BlockAccess::Cache(Arc::new(BlockCache::new(1 << 20)))
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl ReadFile for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        match rest.and_then(|rest| rest.get(..buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(Code::Malformed, "the file ends too early").at(offset)),
        }
    }
}

/// Opens bytes as a table, blocks going through a cache.
pub(crate) fn open_bytes(bytes: Vec<u8>, id: TableId) -> Result<Arc<TableReader>> {
    TableReader::open_file(Arc::new(Bytes(bytes)), Path::new("bytes.sst"), id, cached())
}

/// Every visible version in order.
pub(crate) fn scan(view: &TableView) -> Result<Vec<Version>> {
    let mut all = Vec::new();
    let mut iter = TableIter::new(view);
    iter.seek_to_first()?;
    while iter.valid() {
        all.push(owned(iter.entry()));
        iter.next()?;
    }
    Ok(all)
}

/// All versions of a key, newest first.
pub(crate) fn versions(view: &TableView, key: &[u8], seqno_max: Seqno) -> Result<Vec<Version>> {
    let mut all = Vec::new();
    let flow = view.versions(key, hash(key), seqno_max, &mut |entry| {
        all.push(owned(entry));
        ControlFlow::Continue(())
    })?;
    assert!(flow.is_continue());
    Ok(all)
}

/// The answer of `get`, owned.
pub(crate) fn get(view: &TableView, key: &[u8], seqno_max: Seqno) -> Result<Option<Version>> {
    let found = view.get(key, hash(key), seqno_max)?;
    Ok(found.map(|found| (key.to_vec(), found.seqno, found.kind, found.value.to_vec())))
}
