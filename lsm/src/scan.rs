//! Scans: keys in order with their values.

use crate::{
    family::Family,
    iter::{MergeIter, Source, VisibleIter, merge::RunIter},
    key::prefix_end,
    memtable::MemtableIter,
    read::Sources,
    store::Store,
    version::Run,
};
use keybed_format::Result;
use std::ops::{Bound, RangeBounds};

/// Entries of a range of keys, ascending.
///
/// [`Range::next_entry`] lends key and value without copying; as an `Iterator` it hands out copies. After an error
/// it is over.
pub struct Range<'a> {
    iter: VisibleIter<'a>,
}

impl std::fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Range(at {})", self.iter.key().escape_ascii())
    }
}

impl Range<'_> {
    /// Moves to the next entry and lends it; `None` behind the last.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `MergeFailed` if an operator refuses; errors of the file system.
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Ok(if self.iter.advance()? {
            Some((self.iter.key(), self.iter.value()))
        } else {
            None
        })
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .transpose()
    }
}

/// Inclusive start and exclusive end of a range: the first key behind a key is the key and a zero byte.
pub(crate) fn bounds<'k>(range: &impl RangeBounds<&'k [u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    let behind = |key: &[u8]| [key, &[0]].concat();
    let start = match range.start_bound() {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => behind(key),
        Bound::Unbounded => Vec::new(),
    };
    let end = match range.end_bound() {
        Bound::Included(key) => Some(behind(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    (start, end)
}

impl<'a> Sources<'a> {
    /// Entries of a range.
    pub(crate) fn range<'k>(&self, range: &impl RangeBounds<&'k [u8]>) -> Result<Range<'a>> {
        let (start, end) = bounds(range);
        self.scan(&start, end, |_, _| true)
    }

    /// Entries whose keys begin with `prefix`.
    pub(crate) fn prefix(&self, prefix: &[u8]) -> Result<Range<'a>> {
        self.scan(prefix, prefix_end(prefix), |run, end| {
            run.may_hold_prefix(prefix, end)
        })
    }

    /// `may_hold` says whether a run can hold keys of the range, of which it is given the end.
    fn scan(
        &self,
        start: &[u8],
        end: Option<Vec<u8>>,
        may_hold: impl Fn(&Run, Option<&[u8]>) -> bool,
    ) -> Result<Range<'a>> {
        let mut sources = Vec::with_capacity(1 + self.sealed.len() + self.version.runs.len());
        if let Some(active) = self.active.filter(|active| !active.memtable.is_empty()) {
            sources.push(Source::Memtable(MemtableIter::new(
                &active.memtable,
                active.order(),
            )));
        }
        sources.extend(self.sealed.iter().map(|sealed| Source::Memtable(sealed.iter())));
        sources.extend(
            self.version
                .runs
                .iter()
                .filter(|run| may_hold(run, end.as_deref()))
                .map(|run| Source::Run(RunIter::new(&run.tables, false))),
        );
        let mut merge = MergeIter::new(sources);
        merge.seek(start)?;
        Ok(Range {
            iter: VisibleIter::new(merge, self.operator, end),
        })
    }
}

impl Store {
    /// Entries of a range of keys, ascending. Reads the memtable directly and seals nothing; writes wait until the
    /// range is dropped.
    ///
    /// # Errors
    /// As [`Range::next_entry`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// store.put(orders, b"o-2", b"43")?;
    /// let mut range = store.range(orders, &b"o-2"[..]..)?;
    /// assert_eq!(range.next_entry()?, Some((&b"o-2"[..], &b"43"[..])));
    /// assert_eq!(range.next_entry()?, None);
    /// # Ok(()) }
    /// ```
    pub fn range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.owned(family)?.sources().range(&range)
    }

    /// Entries whose keys begin with `prefix`, ascending.
    ///
    /// # Errors
    /// As [`Range::next_entry`].
    pub fn prefix(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.owned(family)?.sources().prefix(prefix)
    }
}
