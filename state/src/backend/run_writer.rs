//! Sorted entries as the tables of one run, each put into the snapshot as soon as it is full.

use super::work_dir::table_path;
use crate::current::PREFIX_BYTES;
use keybed_env::{Fs, random::Ids};
use keybed_format::Result;
use keybed_lsm::{
    Entry, TableId,
    table::{TableBuilder, TableFacts, TableOptions},
};
use keybed_snapshot::{LocalFile, PutFiles, Scope, TableHandle};
use std::path::{Path, PathBuf};

/// Size at which a table is closed and the next one of the run begun, in bytes.
const TABLE_BYTES: u64 = 64 << 20;

/// Writes sorted entries into tables and puts each into the snapshot as soon as it is full.
pub(crate) struct RunWriter<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    ids: &'a mut Ids,
    files: &'a dyn PutFiles,
    scope: Scope,
    filter: bool,
    open: Option<(PathBuf, TableBuilder)>,
    tables: Vec<TableHandle>,
}

impl<'a> RunWriter<'a> {
    /// A run whose tables are built in `dir` of `fs` and put into `files`.
    pub(crate) fn new(
        fs: &'a dyn Fs,
        dir: &'a Path,
        ids: &'a mut Ids,
        files: &'a dyn PutFiles,
        scope: Scope,
    ) -> Self {
        RunWriter {
            fs,
            dir,
            ids,
            files,
            scope,
            filter: true,
            open: None,
            tables: Vec::new(),
        }
    }

    /// Tables without filters, a quarter cheaper to write: for a heap, which reads its tables from end to end. A store
    /// that mounts one looks into its blocks for absent keys until it merges it.
    #[must_use]
    pub(crate) fn without_filter(mut self) -> Self {
        self.filter = false;
        self
    }

    /// Ends the run and hands out its tables.
    pub(crate) fn finish(mut self) -> Result<Vec<TableHandle>> {
        self.close()?;
        Ok(std::mem::take(&mut self.tables))
    }

    /// Takes the next entry in key order.
    pub(crate) fn add(&mut self, entry: Entry<'_>) -> Result {
        if self
            .open
            .as_ref()
            .is_some_and(|(_, builder)| builder.estimated_bytes() >= TABLE_BYTES)
        {
            self.close()?;
        }
        match &mut self.open {
            Some((_, builder)) => builder.add(entry),
            None => {
                let id = self.ids.fresh()?;
                let path = table_path(self.dir, id);
                let options = TableOptions {
                    partition_prefix: PREFIX_BYTES as u8,
                    filter: self.filter,
                    ..TableOptions::default()
                };
                let builder = TableBuilder::new(self.fs, &path, TableId(id), options)?;
                self.open.insert((path, builder)).1.add(entry)
            }
        }
    }

    /// Finishes the open table and puts it into the snapshot; the local file goes either way.
    fn close(&mut self) -> Result {
        let Some((path, builder)) = self.open.take() else {
            return Ok(());
        };
        let put = builder.finish(false).and_then(|facts| {
            let TableFacts {
                id, digest, bytes, ..
            } = facts;
            let file = self.files.give_file(
                self.scope,
                LocalFile {
                    fs: self.fs,
                    path: &path,
                    content: id.0,
                    digest,
                    bytes,
                },
            )?;
            self.tables.push(TableHandle {
                file,
                visible_end: Some(behind(facts.largest)),
                visible_start: facts.smallest,
                entries: facts.entries,
            });
            Ok(())
        });
        let removed = self.fs.remove_file(&path);
        put.and(removed)
    }
}

impl Drop for RunWriter<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = self.open.take() {
            // The error that ended the run is what matters; the next restore wipes the directory.
            let _ = self.fs.remove_file(&path);
        }
    }
}

/// The first key behind `key`.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
