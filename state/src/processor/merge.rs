//! The live entries of one family of a snapshot: runs merged, newest version wins, tombstones fall away.

use crate::{ScanEntry, backend::ContentScan, processor::verify_table};
use keybed_format::{Code, Error, Result};
use keybed_lsm::{
    EntryKind, KeyRange, Seqno, TableId, key,
    table::{BlockAccess, TableIter, TableReader, TableView},
};
use keybed_snapshot::{OpenFiles, RunHandle, TableHandle};
use std::{path::Path, vec};

/// Walks over the live entries of a stack of runs in key order.
///
/// Every file is verified to the last byte before its first entry is believed.
#[derive(Debug)]
pub(crate) struct RunMerge {
    /// Newest first; none stands behind its end.
    runs: Vec<RunCursor>,
    seqno_max: Seqno,
    /// Whether the tables are part of a snapshot, and damage in them is called so.
    of_snapshot: bool,
    /// The run on whose entry it stands.
    at: Option<usize>,
    /// The key to be stepped over; kept for its memory.
    key: Vec<u8>,
}

impl RunMerge {
    /// Opens the tables of `runs` (newest first).
    ///
    /// # Errors
    /// `SnapshotCorrupt`, `SnapshotIncomplete`; errors of `files`.
    pub(crate) fn open(runs: &[RunHandle], files: &dyn OpenFiles) -> Result<Self> {
        let open_run = |run: &RunHandle| {
            let views = run.tables.iter().map(|table| open_view(table, files));
            views.collect::<Result<Vec<_>>>()
        };
        let runs = runs.iter().map(open_run).collect::<Result<_>>()?;
        let mut merge = Self::over(runs).map_err(of_snapshot)?;
        merge.of_snapshot = true;
        Ok(merge)
    }

    /// Merges tables that are open already: runs newest first, the tables of a run in key order.
    ///
    /// # Errors
    /// `TableCorrupt`; reading may fail.
    pub(crate) fn over(runs: Vec<Vec<TableView>>) -> Result<Self> {
        let mut cursors = Vec::with_capacity(runs.len());
        let mut seqno_max = 0;
        for views in runs {
            seqno_max = views
                .iter()
                .fold(seqno_max, |max, view| max.max(view.reader.facts().seqno_max));
            let mut cursor = RunCursor {
                at: None,
                left: views.into_iter(),
            };
            if cursor.next_table()? {
                cursors.push(cursor);
            }
        }
        Ok(RunMerge {
            runs: cursors,
            seqno_max,
            of_snapshot: false,
            at: None,
            key: Vec::new(),
        })
    }

    /// The highest seqno in the tables, visible or not.
    pub(crate) fn seqno_max(&self) -> Seqno {
        self.seqno_max
    }

    /// The next live entry.
    ///
    /// # Errors
    /// As [`RunMerge::advance`].
    pub(crate) fn next_entry(&mut self) -> Result<Option<ScanEntry<'_>>> {
        Ok(self.advance()?.then(|| self.entry()))
    }

    fn move_on(&mut self) -> Result<bool> {
        loop {
            self.leave()?;
            // Newest first, so of equal keys the first run wins; within a run the newest version comes first.
            let Some(newest) = self.newest() else {
                return Ok(false);
            };
            self.at = Some(newest);
            match self.runs.get(newest).map(RunCursor::kind) {
                Some(EntryKind::Put) => return Ok(true),
                Some(EntryKind::Delete) | None => {}
                Some(EntryKind::PutStamped | EntryKind::MergeStamped) => {
                    return Err(Error::new(
                        Code::TableCorrupt,
                        "a table of keyed state holds a stamp of the engine",
                    )
                    .with("key", self.entry().0.escape_ascii()));
                }
                Some(EntryKind::Merge) => {
                    return Err(Error::new(
                        Code::TableCorrupt,
                        "a table of keyed state holds a merge operand",
                    )
                    .with("key", self.entry().0.escape_ascii()));
                }
            }
        }
    }

    /// Steps over all versions of the key on which it stands.
    fn leave(&mut self) -> Result {
        let Some(at) = self.at.take() else {
            return Ok(());
        };
        if let [run] = self.runs.as_mut_slice() {
            run.step_over()?;
        } else if let Some(run) = self.runs.get(at) {
            self.key.clear();
            self.key.extend_from_slice(run.key());
            for run in &mut self.runs {
                if !run.is_done() && key::equal(run.key(), &self.key) {
                    run.step_over()?;
                }
            }
        }
        if self.runs.iter().any(RunCursor::is_done) {
            self.runs.retain(|run| !run.is_done());
        }
        Ok(())
    }

    /// The newest run that stands on the smallest key.
    fn newest(&self) -> Option<usize> {
        let mut runs = self.runs.iter().enumerate();
        let mut smallest = runs.next()?;
        for run in runs {
            if key::less(run.1.key(), smallest.1.key()) {
                smallest = run;
            }
        }
        Some(smallest.0)
    }
}

impl ContentScan for RunMerge {
    /// # Errors
    /// `SnapshotCorrupt` (outside of snapshots `TableCorrupt`) if a table is damaged or holds what keyed state never
    /// writes.
    fn advance(&mut self) -> Result<bool> {
        match self.move_on() {
            Err(error) if self.of_snapshot => Err(of_snapshot(error)),
            moved => moved,
        }
    }

    fn entry(&self) -> ScanEntry<'_> {
        let run = self.at.and_then(|at| self.runs.get(at));
        run.map_or((&[], &[]), |run| (run.key(), run.value()))
    }
}

fn open_view(table: &TableHandle, files: &dyn OpenFiles) -> Result<TableView> {
    let file = files.open(&table.file)?;
    verify_table(&table.file, &*file)?;
    let name = Path::new(table.file.object.as_str());
    let access = BlockAccess::Stream;
    let reader =
        TableReader::open_file(file, name, TableId(table.file.content), access).map_err(of_snapshot)?;
    let visible = KeyRange {
        start: table.visible_start.clone(),
        end: table.visible_end.clone(),
    };
    Ok(TableView::new(reader, visible))
}

/// Names a damaged table for what it is here: a part of a snapshot.
pub(crate) fn of_snapshot(error: Error) -> Error {
    if error.code() == Code::TableCorrupt {
        error.recode(Code::SnapshotCorrupt)
    } else {
        error
    }
}

/// Stands on an entry of a run, whose tables follow each other.
#[derive(Debug)]
struct RunCursor {
    at: Option<TableIter<TableView>>,
    left: vec::IntoIter<TableView>,
}

impl RunCursor {
    /// Moves to the first entry of the next table that has one; `false` behind the last.
    fn next_table(&mut self) -> Result<bool> {
        self.at = None;
        for view in self.left.by_ref() {
            // Only the engine lets them hide what older runs hold; without them deleted keys would come back.
            if view.reader.range_deletes().is_some() {
                return Err(Error::new(
                    Code::UnsupportedFormatVersion,
                    "a table holds range deletes, which only a store applies",
                )
                .in_file(view.reader.path()));
            }
            let mut iter = TableIter::streaming(view);
            iter.seek_to_first()?;
            if iter.valid() {
                self.at = Some(iter);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_done(&self) -> bool {
        self.at.is_none()
    }

    /// Moves to the next key. Its newest version comes first.
    fn step_over(&mut self) -> Result {
        if let Some(iter) = &mut self.at {
            iter.next_key()?;
            if !iter.valid() {
                self.next_table()?;
            }
        }
        Ok(())
    }

    fn key(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], TableIter::key)
    }

    fn kind(&self) -> EntryKind {
        self.at.as_ref().map_or(EntryKind::Delete, TableIter::kind)
    }

    fn value(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], TableIter::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::{Random, SimFs};
    use keybed_lsm::{
        Entry,
        table::{TableBuilder, TableOptions},
    };
    use std::collections::BTreeMap;

    /// A table of these versions, by key, then the newest first.
    fn table(fs: &SimFs, id: u128, versions: &[(u16, Seqno, Option<u64>)]) -> TableView {
        let path = format!("/{id}");
        let options = TableOptions {
            block_bytes: 512,
            ..TableOptions::default()
        };
        let mut builder = TableBuilder::new(fs, Path::new(&path), TableId(id), options).unwrap();
        for (key, seqno, value) in versions {
            let (kind, value) = match value {
                Some(value) => (EntryKind::Put, value.to_be_bytes()),
                None => (EntryKind::Delete, [0; 8]),
            };
            let value = if kind == EntryKind::Put { &value[..] } else { &[] };
            let (key, seqno) = (&key.to_be_bytes(), *seqno);
            builder
                .add(Entry {
                    key,
                    seqno,
                    kind,
                    value,
                })
                .unwrap();
        }
        builder.finish(false).unwrap();
        let access = BlockAccess::Stream;
        TableView::whole(TableReader::open(fs, Path::new(&path), TableId(id), access).unwrap())
    }

    #[test]
    fn runs_are_merged_as_a_map_would_be_written() {
        for seed in 0..60 {
            let mut random = Random::from_seed(seed);
            let (fs, mut model) = (SimFs::without_history(), BTreeMap::new());
            let (mut runs, mut seqno, mut id) = (Vec::new(), 1, 0);
            for _ in 0..random.below(4) {
                // Oldest first; of some keys there are several versions, and a run may be cut into two tables.
                let mut versions = BTreeMap::new();
                for _ in 0..random.below(400) {
                    let key = random.below(300) as u16;
                    let value = (!random.one_in(4)).then(|| random.u64());
                    versions.insert((key, u64::MAX - seqno), (key, seqno, value));
                    model.insert(key, value);
                    seqno += 1;
                }
                let versions: Vec<_> = versions.into_values().collect();
                let middle = random.below(300) as u16;
                let (low, high) = versions.split_at(versions.partition_point(|version| version.0 < middle));
                let halves = [low, high].into_iter().filter(|half| !half.is_empty());
                let tables = halves.map(|half| {
                    id += 1;
                    table(&fs, id, half)
                });
                runs.insert(0, tables.collect());
            }
            let mut merge = RunMerge::over(runs).unwrap();
            let mut found = Vec::new();
            while let Some((key, value)) = merge.next_entry().unwrap() {
                found.push((key.to_vec(), value.to_vec()));
            }
            assert_eq!(merge.entry(), (&[][..], &[][..]), "it stands on nothing");
            let live = model.into_iter().filter_map(|(key, value)| Some((key, value?)));
            let live = live.map(|(key, value)| (key.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()));
            assert_eq!(found, live.collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
