//! Canonical files as sorted tables in the work directory of a store, ready to be mounted: no entry is put.

use super::{
    CanonicalPart, SEQNO,
    import::{StoredVisitor, stored_entries},
    pending::sort_bytes,
    sort::Sorter,
};
use crate::{
    BackendOptions, StateFamily,
    backend::table_path,
    current::{PREFIX_BYTES, TIMERS},
};
use keybed_env::random::Ids;
use keybed_format::Result;
use keybed_lsm::{
    Entry, EntryKind, KeyRange, MountTable, TableId,
    table::{TableBuilder, TableOptions},
};
use keybed_snapshot::{OpenFiles, StateCatalogue};
use std::path::PathBuf;

/// Size at which a table is closed and the next one begun, in bytes.
const TABLE_BYTES: u64 = 64 << 20;

/// Builds tables from `parts`, one run per family (by [`StateFamily::ALL`]), and hands out what to mount.
///
/// # Errors
/// As [`stored_entries`]; those of the file system.
pub(crate) fn ingest(
    options: &mut BackendOptions,
    catalogue: &StateCatalogue,
    parts: &[CanonicalPart],
    files: &dyn OpenFiles,
) -> Result<[Vec<MountTable>; 4]> {
    let mut runs = [(); 4].map(|()| TableRun {
        ids: options.ids.fork(),
        open: None,
        tables: Vec::new(),
    });
    let ids = options.ids.fork();
    let options = &*options;
    sorted_entries(
        (options, ids),
        catalogue,
        parts,
        files,
        &mut |family, key, value| runs[family.index()].add(key, value, options),
    )?;
    for run in &mut runs {
        run.close()?;
    }
    Ok(runs.map(|run| run.tables))
}

/// Hands what `parts` hold to `visit`, the entries of each family in their stored order. Windows and timers are sorted
/// in the memory and the directory of `options`.
///
/// # Errors
/// As [`stored_entries`]; those of the file system.
pub(super) fn sorted_entries(
    (options, ids): (&BackendOptions, Ids),
    catalogue: &StateCatalogue,
    parts: &[CanonicalPart],
    files: &dyn OpenFiles,
    visit: &mut StoredVisitor<'_>,
) -> Result {
    let mut sorter = Sorter::new(&*options.fs, &options.dir, ids, sort_bytes(options));
    let mut group = [0; 2];
    stored_entries(catalogue, parts, files, &mut |family, key, value| {
        if !key.starts_with(&group) {
            settle(&mut sorter, visit)?;
            group.copy_from_slice(&key[..2]);
        }
        match family {
            StateFamily::Point | StateFamily::Prefix => visit(family, key, value),
            StateFamily::Window | StateFamily::Timer => sorter.push(key, value),
        }
    })?;
    settle(&mut sorter, visit)
}

/// Hands on the windows and timers of a key group, now that all of them are there.
fn settle(sorter: &mut Sorter<'_>, visit: &mut StoredVisitor<'_>) -> Result {
    sorter.drain(&mut |key, value| {
        let family = if key.get(2..PREFIX_BYTES) == Some(&TIMERS.0.to_be_bytes()) {
            StateFamily::Timer
        } else {
            StateFamily::Window
        };
        visit(family, key, value)
    })
}

/// The tables of one run, one after the other.
struct TableRun {
    ids: Ids,
    open: Option<(PathBuf, TableBuilder)>,
    tables: Vec<MountTable>,
}

impl TableRun {
    fn add(&mut self, key: &[u8], value: &[u8], options: &BackendOptions) -> Result {
        let full = |(_, builder): &(PathBuf, TableBuilder)| builder.estimated_bytes() >= TABLE_BYTES;
        if self.open.as_ref().is_some_and(full) {
            self.close()?;
        }
        let entry = Entry {
            key,
            seqno: SEQNO,
            kind: EntryKind::Put,
            value,
        };
        match &mut self.open {
            Some((_, builder)) => builder.add(entry),
            None => {
                let id = self.ids.fresh()?;
                let path = table_path(&options.dir, id);
                let table = TableOptions {
                    partition_prefix: PREFIX_BYTES as u8,
                    ..TableOptions::default()
                };
                let builder = TableBuilder::new(&*options.fs, &path, TableId(id), table)?;
                self.open.insert((path, builder)).1.add(entry)
            }
        }
    }

    fn close(&mut self) -> Result {
        if let Some((path, builder)) = self.open.take() {
            let facts = builder.finish(false)?;
            let (start, mut end) = (facts.smallest, facts.largest);
            end.push(0);
            self.tables.push(MountTable {
                path,
                id: facts.id,
                seqno_base: 0,
                visible: KeyRange {
                    start,
                    end: Some(end),
                },
            });
        }
        Ok(())
    }
}
