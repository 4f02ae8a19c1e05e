//! Scans: keys in order with their values, up or down.

use crate::{
    expiry::Expiry,
    family::Family,
    floor::Floors,
    iter::{MergeIter, RunIter, Source, Told, VisibleIter},
    key::{self, KeyRange, SEQNO_MAX},
    memtable::{Held, MemtableIter, Order},
    merge_operator::MergeOperator,
    read::Sources,
    store::Store,
    version::{Run, Version},
};
use keybed_format::Result;
use std::{
    ops::{Bound, RangeBounds},
    sync::Arc,
};

/// Entries of a range of keys, ascending, or descending where it was asked for. Nothing outside of the range is read.
///
/// [`Range::next_entry`] lends key and value without copying; as an `Iterator` it hands out copies. After an error
/// it is over.
pub struct Range<'a> {
    iter: VisibleIter<'a>,
}

impl std::fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.iter.entry().map_or(&[][..], |(key, _)| key);
        write!(f, "Range(at {})", key.escape_ascii())
    }
}

impl Range<'_> {
    /// Moves to the next entry, seen in the range's direction, and lends it; `None` behind the last.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `MergeFailed` if an operator refuses; errors of the file system.
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Ok(if self.iter.advance()? {
            self.iter.entry()
        } else {
            None
        })
    }
}

impl<'a> Range<'a> {
    /// Tells the store where tombstones are dense in sources from `counted_from` on.
    pub(crate) fn telling(mut self, told: Told<'a>, counted_from: usize) -> Self {
        self.iter = self.iter.telling(told, counted_from);
        self
    }
}

impl Range<'_> {
    /// The entry it stands at; `None` before the first step and behind the last.
    #[inline]
    pub(crate) fn current(&self) -> Option<(&[u8], &[u8])> {
        self.iter.entry()
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

impl KeyRange {
    /// The keys inside of bounds of any kind.
    pub(crate) fn of<'k>(range: &impl RangeBounds<&'k [u8]>) -> KeyRange {
        let start = match range.start_bound() {
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => key::behind(key),
            Bound::Unbounded => Vec::new(),
        };
        let end = match range.end_bound() {
            Bound::Included(key) => Some(key::behind(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        KeyRange { start, end }
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl<'a> Sources<'a> {
    /// Entries inside of `range`.
    pub(crate) fn scan(&self, range: KeyRange, direction: Direction) -> Result<Range<'a>> {
        open(self.held(&range), self.below(), (range, None), direction)
    }

    /// Entries whose keys begin with `prefix`.
    pub(crate) fn scan_prefix(&self, prefix: &[u8], direction: Direction) -> Result<Range<'a>> {
        let range = KeyRange::prefix(prefix);
        let held = self.held(&range);
        open(held, self.below(), (range, Some(prefix)), direction)
    }

    fn below(&self) -> Below<'a> {
        Below {
            version: self.version,
            floors: self.floors,
            hides: self.hides(),
            operator: self.operator,
            expiry: self.expiry,
        }
    }

    /// Whether a scan's newest source is the active memtable.
    fn has_active(&self) -> bool {
        self.active.is_some_and(|active| !active.memtable.is_empty())
    }

    /// The memtables, and the order of their keys inside of `range`.
    fn held(&self, range: &KeyRange) -> Vec<(Held<'a>, Order)> {
        let mut held = Vec::with_capacity(1 + self.sealed.len());
        if let Some(active) = self.active.filter(|_| self.has_active()) {
            held.push((Held::Borrowed(&active.memtable), active.order_in(range)));
        }
        let sealed = self.sealed.iter();
        held.extend(sealed.map(|sealed| (Held::Borrowed(&sealed.memtable), sealed.order_in(range))));
        held
    }
}

/// What a scan looks at besides memtables, and how.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    pub(crate) version: &'a Version,
    pub(crate) floors: Option<&'a Floors>,
    /// There are range deletes or floors, in a memtable or below.
    pub(crate) hides: bool,
    pub(crate) operator: Option<&'a dyn MergeOperator>,
    /// What has expired for whoever reads: as of the beginning of the scan, or of the view.
    pub(crate) expiry: Expiry,
}

/// Scans memtables, newest first, and what lies below them. A prefix rules out runs by their filters.
pub(crate) fn open<'a>(
    memtables: Vec<(Held<'a>, Order)>,
    below: Below<'a>,
    (range, prefix): (KeyRange, Option<&[u8]>),
    direction: Direction,
) -> Result<Range<'a>> {
    let version = below.version;
    let mut sources = Vec::new();
    if !range.is_empty() {
        sources.reserve_exact(memtables.len() + version.runs.len());
        let bounds = Arc::new(range);
        let memtables = memtables.into_iter();
        sources
            .extend(memtables.map(|(held, order)| {
                Source::Memtable(MemtableIter::within(held, order, &bounds, SEQNO_MAX))
            }));
        // A run that holds no key of the range may still hide those of older ones.
        let hides = |run: &Run| version.has_range_deletes && run.has_range_deletes();
        let may_hold = |run: &&Run| match prefix {
            Some(prefix) => run.may_hold_prefix(prefix, bounds.end.as_deref()) || hides(run),
            None => true,
        };
        let runs = version.runs.iter().filter(may_hold);
        sources.extend(runs.map(|run| Source::Run(RunIter::within(&run.tables, &bounds))));
    }
    let mut merge = if below.hides {
        MergeIter::hiding(sources, below.floors)
    } else {
        MergeIter::new(sources)
    };
    // Each source keeps to the range by itself.
    match direction {
        Direction::Up => merge.seek(&[])?,
        Direction::Down => merge.seek_before(None)?,
    }
    Ok(Range {
        iter: VisibleIter::new(merge, below.operator, below.expiry),
    })
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
        self.scan(family, KeyRange::of(&range), Direction::Up)
    }

    /// As [`Store::range`], descending.
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
    /// let mut range = store.range_rev(orders, ..)?;
    /// assert_eq!(range.next_entry()?, Some((&b"o-2"[..], &b"43"[..])));
    /// assert_eq!(range.next_entry()?, Some((&b"o-1"[..], &b"42"[..])));
    /// # Ok(()) }
    /// ```
    pub fn range_rev<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.scan(family, KeyRange::of(&range), Direction::Down)
    }

    /// Entries whose keys begin with `prefix`, ascending.
    ///
    /// # Errors
    /// As [`Range::next_entry`].
    pub fn prefix(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.scan_prefix(family, prefix, Direction::Up)
    }

    /// Entries whose keys begin with `prefix`, descending.
    ///
    /// # Errors
    /// As [`Range::next_entry`].
    pub fn prefix_rev(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.scan_prefix(family, prefix, Direction::Down)
    }

    /// Entries inside of `range`; tombstones that it meets are told of.
    pub(crate) fn scan(&self, family: Family, range: KeyRange, direction: Direction) -> Result<Range<'_>> {
        let sources = self.owned(family)?.sources();
        Ok(self.told_by(family, &sources, sources.scan(range, direction)?))
    }

    fn scan_prefix(&self, family: Family, prefix: &[u8], direction: Direction) -> Result<Range<'_>> {
        let sources = self.owned(family)?.sources();
        Ok(self.told_by(family, &sources, sources.scan_prefix(prefix, direction)?))
    }

    /// A scan of a family's sources as one that tells this store of tombstones.
    pub(crate) fn told_by<'a>(
        &'a self,
        family: Family,
        sources: &Sources<'a>,
        range: Range<'a>,
    ) -> Range<'a> {
        let told = Told::Store(&self.shared, family.0 as usize);
        range.telling(told, usize::from(sources.has_active()))
    }
}
