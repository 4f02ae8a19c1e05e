//! The files that a flush or a compaction writes.
//!
//! A file under construction that fails is abandoned: closed, removed as far as that is possible, and never written
//! again; the work starts anew under new table ids.

use super::resolve::Keep;
use crate::{
    budget::{Lease, Pool},
    key::{Entry, KeyRange, TableId},
    planted,
    range_delete::{RangeDeletes, TABLE_RANGE_DELETE_BYTES_MAX, TABLE_RANGE_DELETES_MAX},
    shared::Shared,
    table::{TableBuilder, TableFacts, TableOptions},
    version::{
        LiveTable,
        edit::{Origin, TableRecord},
    },
};
use keybed_format::{Code, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the output goes and how it is cut.
#[derive(Clone, Debug)]
pub(crate) struct OutputOptions {
    /// How tables are built.
    pub(crate) table: TableOptions,
    /// Number of the output run.
    pub(crate) run: u64,
    /// Tier of the output run.
    pub(crate) tier: u8,
    /// Target of a file; `None` = one file, however large.
    pub(crate) target_file_bytes: Option<u64>,
    /// A file is cut where this many first bytes of the key change, unless it is twice its target.
    pub(crate) cut_prefix: u8,
}

/// What a version takes in a file besides key and value, at most.
const ENTRY_BYTES_MAX: u64 = 64;

/// Versions after which the lease follows what the builder takes.
const ENTRIES_PER_LEASE: u64 = 1024;

/// Writes versions to files.
pub(crate) struct Output<'a> {
    shared: &'a Shared,
    options: OutputOptions,
    builder: Option<(TableBuilder, PathBuf)>,
    /// More bytes than the open file can have: its size when it was asked last, plus all that was added since.
    bytes_max: u64,
    finished: Vec<(TableFacts, PathBuf)>,
    /// Range deletes of the open file and those behind it.
    deletes: RangeDeletes,
    /// Where files are cut because there would be too many range deletes in one; the next one last.
    cuts: Vec<Vec<u8>>,
    /// What the open file takes of the memory budget; overdrawn, because flushes and merges must get on.
    lease: Lease,
    kept: u64,
}

impl<'a> Output<'a> {
    /// Nothing written.
    pub(crate) fn new(shared: &'a Shared, options: OutputOptions) -> Self {
        Output {
            shared,
            options,
            builder: None,
            bytes_max: 0,
            finished: Vec::new(),
            deletes: RangeDeletes::new(),
            cuts: Vec::new(),
            lease: shared.budget.lease(Pool::Compaction),
            kept: 0,
        }
    }

    /// What the files say of deleted ranges; before anything is written. Each file gets what lies between it and the
    /// next one.
    pub(crate) fn set_range_deletes(&mut self, deletes: RangeDeletes) {
        let mut rest = deletes.clone();
        while let Some(cut) = rest.split_point(TABLE_RANGE_DELETES_MAX, TABLE_RANGE_DELETE_BYTES_MAX) {
            let cut = cut.to_vec();
            rest = rest.split_off(&cut);
            self.cuts.push(cut);
        }
        self.cuts.reverse();
        self.deletes = deletes;
    }

    fn open(&mut self) -> Result<&mut TableBuilder> {
        if self.builder.is_none() {
            let id = TableId(self.shared.fresh_id()?);
            let path = self.shared.table_path(id);
            // A failed create may have left the name; one that found the name taken has not.
            let create = || TableBuilder::new(&*self.shared.fs, &path, id, self.options.table.clone());
            let files = &self.shared.opener.files;
            let builder = files.with_room(create).inspect_err(|error| {
                if error.code() != Code::TargetExists {
                    self.shared.remove_quietly(&path);
                }
            })?;
            self.builder = Some((builder, path));
        }
        match &mut self.builder {
            Some((builder, _)) => Ok(builder),
            None => unreachable!("a builder was just opened"),
        }
    }

    /// About how many bytes were written.
    pub(crate) fn bytes(&self) -> u64 {
        let finished: u64 = self.finished.iter().map(|(facts, _)| facts.bytes).sum();
        finished
            + self
                .builder
                .as_ref()
                .map_or(0, |(builder, _)| builder.estimated_bytes())
    }

    /// Whether the file should end before `key`.
    fn is_cut(&mut self, key: &[u8]) -> bool {
        let (Some(target), Some((builder, _))) = (self.options.target_file_bytes, &self.builder) else {
            return false;
        };
        if self.bytes_max < target {
            return false;
        }
        let bytes = builder.estimated_bytes();
        self.bytes_max = bytes;
        let last = builder.last_key();
        if bytes < target || key == last {
            return false;
        }
        let prefix = usize::from(self.options.cut_prefix);
        prefix == 0 || bytes >= 2 * target || key.get(..prefix) != last.get(..prefix)
    }

    /// Ends the open file; the next one starts at `next`, if there will be one.
    fn finish_file(&mut self, next: Option<&[u8]>) -> Result {
        if !self.deletes.is_empty() {
            let behind = next.map(|next| self.deletes.split_off(next)).unwrap_or_default();
            let deletes = std::mem::replace(&mut self.deletes, behind);
            if !deletes.is_empty() {
                self.open()?.set_range_deletes(&deletes)?;
            }
        }
        if let Some((builder, path)) = self.builder.take() {
            let facts = builder
                .finish(self.shared.is_durable() && !planted::is("table-not-synced"))
                .inspect_err(|_| self.shared.remove_quietly(&path))?;
            self.finished.push((facts, path));
            self.bytes_max = 0;
            self.lease.set(0);
        }
        Ok(())
    }

    /// Opens the finished tables. On an error, and when this is dropped unfinished, the files are removed.
    ///
    /// # Errors
    /// Those of writing and opening.
    pub(crate) fn finish(mut self) -> Result<Vec<Arc<LiveTable>>> {
        while let Some(cut) = self.cuts.pop() {
            self.finish_file(Some(&cut))?;
        }
        self.finish_file(None)?;
        let is_forgotten = planted::is("name-of-table-not-synced");
        if self.shared.is_durable() && !self.finished.is_empty() && !is_forgotten {
            self.shared.fs.sync_dir(&self.shared.dir)?;
        }
        let tables = self
            .finished
            .iter()
            .map(|(facts, path)| self.live(facts, path))
            .collect::<Result<_>>()?;
        self.finished.clear();
        Ok(tables)
    }

    fn live(&self, facts: &TableFacts, path: &Path) -> Result<Arc<LiveTable>> {
        let record = TableRecord {
            run: self.options.run,
            tier: self.options.tier,
            origin: Origin::Own,
            facts: Arc::new(facts.clone()),
            seqno_base: 0,
            visible: if self.options.target_file_bytes.is_some() {
                facts.range()
            } else {
                KeyRange::all()
            },
        };
        let table = LiveTable::new(
            path.to_path_buf(),
            record,
            self.shared.graveyard.clone(),
            self.shared.opener.clone(),
        );
        // What cannot be read is written again.
        table.reader()?;
        Ok(Arc::new(table))
    }
}

impl Keep for Output<'_> {
    fn keep(&mut self, entry: Entry<'_>) -> Result {
        while let Some(cut) = self.cuts.pop_if(|cut| cut.as_slice() <= entry.key) {
            self.finish_file(Some(&cut))?;
        }
        if self.is_cut(entry.key) {
            self.finish_file(Some(entry.key))?;
        }
        self.open()?.add(entry)?;
        self.kept += 1;
        if self.kept.is_multiple_of(ENTRIES_PER_LEASE)
            && let Some((builder, _)) = &self.builder
        {
            self.lease.set(builder.memory_bytes());
        }
        self.bytes_max += (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES_MAX;
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        let under_way = self.builder.take().map(|(builder, path)| {
            drop(builder);
            path
        });
        let finished = std::mem::take(&mut self.finished)
            .into_iter()
            .map(|(_, path)| path);
        for path in finished.chain(under_way) {
            self.shared.remove_quietly(&path);
        }
    }
}
