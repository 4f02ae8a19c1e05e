//! External sort in bounded memory: entries by key, spilled as tables into the work directory.
//!
//! ```text
//!   push ──▶ buffer ──full──▶ sorted table in a scratch file
//!   drain ─▶ buffer alone, or all scratch files merged
//! ```

use crate::processor::RunMerge;
use keybed_env::{Fs, random::Ids};
use keybed_format::{Code, Error, Result, hex};
use keybed_lsm::{
    Entry, EntryKind, TableId,
    table::{BlockAccess, TableBuilder, TableOptions, TableReader, TableView},
};
use std::path::{Path, PathBuf};

/// Scratch files that are merged at once.
const FILES_MAX: usize = 32;
/// Bytes of memory per entry besides key and value.
const RECORD_BYTES: usize = size_of::<Record>();

/// What a sort took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SortFacts {
    /// Most bytes of entries that were in memory at once.
    pub(crate) bytes_max: u64,
    /// Scratch files that were written.
    pub(crate) files: u32,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    start: usize,
    key_bytes: u32,
    value_bytes: u32,
}

/// Sorts entries; reused for key group after key group.
#[derive(Debug)]
pub(crate) struct Sorter<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    ids: Ids,
    /// Bytes of entries that stay in memory; a single larger entry does, too.
    bytes_max: usize,
    bytes: Vec<u8>,
    records: Vec<Record>,
    files: Vec<(PathBuf, TableId)>,
    facts: SortFacts,
}

impl<'a> Sorter<'a> {
    /// A sorter whose scratch files lie in `dir`.
    pub(crate) fn new(fs: &'a dyn Fs, dir: &'a Path, ids: Ids, bytes_max: usize) -> Self {
        Sorter {
            fs,
            dir,
            ids,
            bytes_max,
            bytes: Vec::new(),
            records: Vec::new(),
            files: Vec::new(),
            facts: SortFacts::default(),
        }
    }

    pub(crate) fn facts(&self) -> SortFacts {
        self.facts
    }

    /// Takes an entry, in any order; no key comes twice between two drains.
    ///
    /// # Errors
    /// `KeyTooLarge`, `ValueTooLarge`; writing a scratch file may fail.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result {
        let more = key.len() + value.len() + RECORD_BYTES;
        if !self.records.is_empty() && self.in_memory() + more > self.bytes_max {
            self.spill()?;
        }
        self.records.push(Record {
            start: self.bytes.len(),
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.facts.bytes_max = self.facts.bytes_max.max(self.in_memory() as u64);
        Ok(())
    }

    fn in_memory(&self) -> usize {
        self.bytes.len() + self.records.len() * RECORD_BYTES
    }

    /// Hands out all entries in the order of their keys; then the sorter is empty.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if a key came twice; errors of `visit` and of scratch files.
    pub(crate) fn drain(&mut self, visit: &mut dyn FnMut(&[u8], &[u8]) -> Result) -> Result {
        if self.files.is_empty() {
            self.sort()?;
            let mut entries = self.records.iter().map(|record| entry(&self.bytes, *record));
            entries.try_for_each(|(key, value)| visit(key, value))?;
            self.bytes.clear();
            self.records.clear();
            return Ok(());
        }
        self.spill()?;
        let mut merge = self.merged()?;
        while let Some((key, value)) = merge.next_entry()? {
            visit(key, value)?;
        }
        drop(merge);
        self.remove_files(self.files.len())
    }

    fn sort(&mut self) -> Result {
        let bytes = &self.bytes;
        self.records
            .sort_unstable_by(|a, b| entry(bytes, *a).0.cmp(entry(bytes, *b).0));
        let twice = |pair: &[Record]| matches!(pair, [a, b] if entry(bytes, *a).0 == entry(bytes, *b).0);
        if self.records.windows(2).any(twice) {
            return Err(Error::new(Code::SnapshotCorrupt, "two entries have one key"));
        }
        Ok(())
    }

    /// Writes the buffer as a scratch file.
    fn spill(&mut self) -> Result {
        if self.records.is_empty() {
            return Ok(());
        }
        self.sort()?;
        if self.files.len() >= FILES_MAX {
            self.merge_files()?;
        }
        let mut builder = self.begin_file()?;
        for record in &self.records {
            let (key, value) = entry(&self.bytes, *record);
            builder.add(put(key, value))?;
        }
        builder.finish(false)?;
        self.bytes.clear();
        self.records.clear();
        Ok(())
    }

    /// Makes one scratch file of all.
    fn merge_files(&mut self) -> Result {
        let mut merge = self.merged()?;
        let old = self.files.len();
        let mut builder = self.begin_file()?;
        while let Some((key, value)) = merge.next_entry()? {
            builder.add(put(key, value))?;
        }
        builder.finish(false)?;
        drop(merge);
        self.remove_files(old)
    }

    fn begin_file(&mut self) -> Result<TableBuilder> {
        let id = self.ids.fresh()?;
        let path = self.dir.join(format!("sort-{}", hex::encode(id)));
        let options = TableOptions {
            filter: false,
            ..TableOptions::default()
        };
        let builder = TableBuilder::new(self.fs, &path, TableId(id), options)?;
        self.files.push((path, TableId(id)));
        self.facts.files += 1;
        Ok(builder)
    }

    fn merged(&self) -> Result<RunMerge> {
        let open = |(path, id): &(PathBuf, TableId)| {
            let reader = TableReader::open(self.fs, path, *id, BlockAccess::Stream)?;
            Ok(vec![TableView::whole(reader)])
        };
        RunMerge::over(self.files.iter().map(open).collect::<Result<_>>()?)
    }

    /// Removes the oldest scratch files; those that are left when one fails go when the sorter is dropped.
    fn remove_files(&mut self, count: usize) -> Result {
        for _ in 0..count {
            if let Some((path, _)) = self.files.first() {
                self.fs.remove_file(path)?;
                self.files.remove(0);
            }
        }
        Ok(())
    }
}

impl Drop for Sorter<'_> {
    fn drop(&mut self) {
        for (path, _) in self.files.drain(..) {
            // The error that ended the sort is what matters; the next restore wipes the directory.
            let _ = self.fs.remove_file(&path);
        }
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Entry<'a> {
    Entry {
        key,
        seqno: 1,
        kind: EntryKind::Put,
        value,
    }
}

fn entry(bytes: &[u8], record: Record) -> (&[u8], &[u8]) {
    let key_end = record.start + record.key_bytes as usize;
    (
        &bytes[record.start..key_end],
        &bytes[key_end..key_end + record.value_bytes as usize],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::{Random, SimFs};

    #[test]
    fn more_than_fits_is_sorted_within_the_bound_and_leaves_no_files() {
        let fs = SimFs::without_history();
        let dir = Path::new("/work");
        fs.create_dir_all(dir).unwrap();
        let mut random = Random::from_seed(1);
        let ids = Ids::Seeded(random.fork());
        let mut sorter = Sorter::new(&fs, dir, ids, 1000);
        for count in [0, 5, 3000, 40] {
            let mut keys: Vec<u64> = (0..count).map(|n| n * 3).collect();
            for n in 0..keys.len() {
                let other = random.index(keys.len());
                keys.swap(n, other);
            }
            for key in &keys {
                sorter.push(&key.to_be_bytes(), &key.to_le_bytes()).unwrap();
            }
            let mut found = Vec::new();
            sorter
                .drain(&mut |key, value| {
                    assert_eq!(
                        key.iter().rev().collect::<Vec<_>>(),
                        value.iter().collect::<Vec<_>>()
                    );
                    found.push(u64::from_be_bytes(key.try_into().unwrap()));
                    Ok(())
                })
                .unwrap();
            keys.sort_unstable();
            assert_eq!(found, keys);
            assert!(fs.list(dir).unwrap().is_empty());
        }
        let facts = sorter.facts();
        assert!(
            facts.bytes_max <= 1000 && facts.files > 2 * FILES_MAX as u32,
            "{facts:?}"
        );
    }

    #[test]
    fn a_key_that_comes_twice_is_corruption() {
        let fs = SimFs::without_history();
        let mut sorter = Sorter::new(&fs, Path::new("/"), Ids::Entropy, 1000);
        sorter.push(b"a", b"1").unwrap();
        sorter.push(b"a", b"2").unwrap();
        let error = sorter.drain(&mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.code(), Code::SnapshotCorrupt);
    }
}
