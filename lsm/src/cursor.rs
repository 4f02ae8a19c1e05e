//! A `Cursor`: an iterator of the owner that borrows nothing, so that writes go on between its steps.
//!
//! ```text
//! Store::cursor   captures version, sealed memtables, seqno; watches the active memtable (memtable/kept.rs)
//! next, prev      out of a batch of copied entries; an empty batch is filled by a scan of what was captured
//! ```
//! What a cursor sees does not change, so reading ahead is allowed, and a step costs no look at the sources. The
//! first batch after a seek is small; each further one larger.

use crate::{
    expiry::Expiry,
    family::Family,
    floor::Floors,
    iter::{MergeIter, RunIter, Source, Told, VisibleIter},
    key::{self, KeyRange, SEQNO_MAX, Seqno},
    memtable::{Held, MemtableIter, Order, Sealed, Watch},
    merge_operator::MergeOperator,
    range_delete::RangeDeletes,
    scan::Direction,
    shared::Shared,
    store::Store,
    version::Version,
};
use keybed_format::{Error, Result};
use std::{
    fmt,
    ops::RangeBounds,
    sync::{Arc, Weak},
};

/// Entries of the first batch after a seek; each further batch has [`BATCH_GROWTH`] times as many.
const BATCH_ENTRIES_FIRST: usize = 8;
const BATCH_GROWTH: usize = 4;
/// Entries of a batch at most, so that nobody who stops early has paid for much more than he saw.
const BATCH_ENTRIES_MAX: usize = 512;
/// A batch of this many bytes is full.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// The entries of a range of keys as they were when the cursor was made, walked in both directions while the store
/// is written.
///
/// Each step takes the [`Store`] that made the cursor. Writes made meanwhile are not seen. A new cursor stands before
/// the first entry; one that ran off an end comes back with a step in the other direction. `Send`, and independent of
/// other cursors.
///
/// It keeps tables it saw, and memtables until a step after their flush; but the memtable that took writes when it was
/// made stays with the cursor if it was written later, or if merges or the clock took keys before it was sealed. So a
/// cursor holds at most one memtable for long ([`StoreStats::lingering_bytes`](crate::StoreStats)). While that memtable
/// takes writes, a key that the cursor may see costs a copy with its first overwrite. Drop it when done.
pub struct Cursor {
    family: Family,
    /// Whose cursor it is.
    shared: Weak<Shared>,
    seqno: Seqno,
    bounds: Arc<KeyRange>,
    /// The memtable that took writes then, and the order of its keys then.
    active: Option<(Arc<Watch>, Order)>,
    /// Its range deletes then.
    range_deletes: Option<Arc<RangeDeletes>>,
    floors: Option<Arc<Floors>>,
    /// Newest first, with the order of their keys inside of the bounds.
    sealed: Vec<(Arc<Sealed>, Order)>,
    version: Arc<Version>,
    /// [`Version::removals`] then.
    removals: u64,
    operator: Option<Arc<dyn MergeOperator>>,
    /// What had expired then.
    expiry: Expiry,
    batch: Batch,
    at: At,
}

/// Where a cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Before,
    /// At this entry of the batch.
    Entry(usize),
    Behind,
    /// After an error.
    Nowhere,
}

/// Neighbouring entries, copied.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    /// End of the key and end of the value of each entry in `bytes`, in the order they were read.
    ends: Vec<(usize, usize)>,
    /// How they were read.
    direction: Direction,
    /// Nothing follows in that direction.
    is_last: bool,
    /// Entries to read next time.
    entries_next: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            bytes: Vec::new(),
            ends: Vec::new(),
            direction: Direction::Up,
            is_last: false,
            entries_next: BATCH_ENTRIES_FIRST,
        }
    }
}

impl Batch {
    fn entry(&self, at: usize) -> (&[u8], &[u8]) {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (key_end, end) = self.ends[at];
        (&self.bytes[start..key_end], &self.bytes[key_end..end])
    }

    fn is_full(&self) -> bool {
        self.ends.len() >= self.entries_next || self.bytes.len() >= BATCH_BYTES_MAX
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("seqno", &self.seqno)
            .field("bounds", &self.bounds)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A cursor over a range of keys as they are now. Seals nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if the store has no such family.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// store.put(orders, b"o-2", b"43")?;
    /// let mut cursor = store.cursor(orders, ..)?;
    /// while cursor.next(&store)? {
    ///     store.delete(orders, cursor.key())?;
    /// }
    /// assert!(cursor.prev(&store)?);
    /// assert_eq!((cursor.key(), cursor.value()), (&b"o-2"[..], &b"43"[..]));
    /// assert!(store.get(orders, b"o-2")?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn cursor<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Cursor> {
        self.cursor_within(family, KeyRange::of(&range))
    }

    /// A cursor over the keys that begin with `prefix`, as they are now.
    ///
    /// # Errors
    /// As [`Store::cursor`].
    pub fn prefix_cursor(&self, family: Family, prefix: &[u8]) -> Result<Cursor> {
        self.cursor_within(family, KeyRange::prefix(prefix))
    }

    fn cursor_within(&self, family: Family, bounds: KeyRange) -> Result<Cursor> {
        let owned = self.owned(family)?;
        let seqno = self.next_seqno;
        let active = (!owned.active.memtable.is_empty() && !bounds.is_empty())
            .then(|| (owned.active.memtable.watch(seqno), owned.active.order_in(&bounds)));
        let sealed = owned.sealed.iter().filter(|_| !bounds.is_empty());
        let sealed = sealed.map(|sealed| (sealed.clone(), sealed.order_in(&bounds)));
        Ok(Cursor {
            sealed: sealed.collect(),
            family,
            shared: Arc::downgrade(&self.shared),
            seqno,
            bounds: Arc::new(bounds),
            active,
            range_deletes: owned.active.memtable.range_deletes().cloned(),
            floors: owned.active.memtable.floors().cloned(),
            removals: owned.version.removals,
            version: owned.version.clone(),
            operator: owned.options.merge.clone(),
            expiry: owned.expiry(),
            batch: Batch::default(),
            at: At::Before,
        })
    }
}

impl Cursor {
    /// All writes with smaller seqnos are seen, no others.
    pub fn seqno(&self) -> Seqno {
        self.seqno
    }

    /// Whether it stands at an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        matches!(self.at, At::Entry(_))
    }

    /// The key it stands at; empty if it stands at none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        match self.at {
            At::Entry(at) => self.batch.entry(at).0,
            _ => &[],
        }
    }

    /// The value of that key; empty if it stands at none.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.at {
            At::Entry(at) => self.batch.entry(at).1,
            _ => &[],
        }
    }

    /// Moves to the first entry; false if there is none.
    ///
    /// # Errors
    /// As [`Range::next_entry`](crate::Range::next_entry); the cursor then stands nowhere until the next seek.
    /// `InvalidArgument` if `store` did not make this cursor.
    pub fn seek_to_first(&mut self, store: &Store) -> Result<bool> {
        self.seek_within(store, (*self.bounds).clone(), Direction::Up)
    }

    /// Moves to the last entry; false if there is none.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek_to_last(&mut self, store: &Store) -> Result<bool> {
        self.seek_within(store, (*self.bounds).clone(), Direction::Down)
    }

    /// Moves to the first entry whose key is not below `key`; false if there is none.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek(&mut self, store: &Store, key: &[u8]) -> Result<bool> {
        let range = KeyRange {
            start: key.to_vec(),
            end: None,
        };
        self.seek_within(store, self.bounds.clip(&range), Direction::Up)
    }

    /// Moves to the last entry whose key is not above `key`; false if there is none.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek_for_prev(&mut self, store: &Store, key: &[u8]) -> Result<bool> {
        let range = KeyRange {
            start: Vec::new(),
            end: Some(key::behind(key)),
        };
        self.seek_within(store, self.bounds.clip(&range), Direction::Down)
    }

    fn seek_within(&mut self, store: &Store, range: KeyRange, direction: Direction) -> Result<bool> {
        self.batch.entries_next = BATCH_ENTRIES_FIRST;
        self.fill(store, range, direction)
    }

    /// Moves to the next entry; false behind the last.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn next(&mut self, store: &Store) -> Result<bool> {
        self.step(store, Direction::Up)
    }

    /// Moves to the previous entry; false before the first.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn prev(&mut self, store: &Store) -> Result<bool> {
        self.step(store, Direction::Down)
    }

    #[inline]
    fn step(&mut self, store: &Store, direction: Direction) -> Result<bool> {
        if self.step_in_batch(direction) {
            return Ok(true);
        }
        self.step_out(store, direction)
    }

    /// A step for which the store is not needed; false if it is.
    #[inline]
    pub(crate) fn step_in_batch(&mut self, direction: Direction) -> bool {
        if let At::Entry(at) = self.at {
            let next = if direction == self.batch.direction {
                (at + 1 < self.batch.ends.len()).then_some(at + 1)
            } else {
                at.checked_sub(1)
            };
            if let Some(next) = next {
                self.at = At::Entry(next);
                return true;
            }
        }
        false
    }

    /// A step out of the batch.
    #[inline(never)]
    fn step_out(&mut self, store: &Store, direction: Direction) -> Result<bool> {
        let narrowed = match (self.at, direction) {
            (At::Nowhere, _) | (At::Before, Direction::Down) | (At::Behind, Direction::Up) => {
                return Ok(false);
            }
            (At::Before, _) | (At::Behind, _) => KeyRange::all(),
            (At::Entry(_), _) if self.batch.is_last && direction == self.batch.direction => {
                self.at = At::off(direction);
                return Ok(false);
            }
            (At::Entry(_), Direction::Up) => KeyRange {
                start: key::behind(self.key()),
                end: None,
            },
            (At::Entry(_), Direction::Down) => KeyRange {
                start: Vec::new(),
                end: Some(self.key().to_vec()),
            },
        };
        self.fill(store, self.bounds.clip(&narrowed), direction)
    }

    /// Lets go of memtables that were flushed since, and reads their tables from now on. The one that took writes when
    /// the cursor was made has to stay if it was written later: its table holds the newest versions alone. It stays, too,
    /// if keys went below it or expired before it was sealed: its table does not hide what the cursor has below, or does
    /// not hold what had not expired for the cursor.
    fn rebase(&mut self) {
        let handed_over = self.active.as_ref().and_then(|(watch, _)| watch.sealed.get());
        let shows_the_same = |sealed: &&Arc<Sealed>| {
            sealed.memtable.seqnos().1 < self.seqno
                && sealed.removals == self.removals
                && sealed.expiry == self.expiry
        };
        let unwritten = handed_over.filter(shows_the_same).cloned();
        let whole: Vec<Arc<Sealed>> = unwritten
            .iter()
            .chain(self.sealed.iter().map(|(sealed, _)| sealed))
            .cloned()
            .collect();
        if whole.is_empty() {
            return;
        }
        if let Some(version) = self.version.with_flushed(&whole) {
            self.version = version;
            self.sealed.clear();
            if unwritten.is_some() {
                self.active = None;
            }
        }
    }

    /// Reads the next batch and moves to its first entry.
    fn fill(&mut self, store: &Store, range: KeyRange, direction: Direction) -> Result<bool> {
        self.at = At::Nowhere;
        if !std::ptr::eq(self.shared.as_ptr(), Arc::as_ptr(&store.shared)) {
            return Err(Error::invalid("the cursor is one of another store"));
        }
        self.rebase();
        let mut batch = std::mem::take(&mut self.batch);
        batch.bytes.clear();
        batch.ends.clear();
        batch.direction = direction;
        let result = self.read(store, range, &mut batch);
        self.batch = batch;
        result?;
        self.batch.entries_next = (self.batch.entries_next * BATCH_GROWTH).min(BATCH_ENTRIES_MAX);
        self.at = if self.batch.ends.is_empty() {
            At::off(direction)
        } else {
            At::Entry(0)
        };
        Ok(self.valid())
    }

    fn read(&self, store: &Store, range: KeyRange, batch: &mut Batch) -> Result {
        batch.is_last = true;
        if range.is_empty() {
            return Ok(());
        }
        let sources = self.sources(store, &Arc::new(range))?;
        let hides = self.version.has_range_deletes
            || self.floors.is_some()
            || self.range_deletes.is_some()
            || self
                .sealed
                .iter()
                .any(|(sealed, _)| sealed.memtable.covers().is_some());
        let mut merge = match hides {
            true => MergeIter::hiding(sources, self.floors.as_deref()),
            false => MergeIter::new(sources),
        };
        match batch.direction {
            Direction::Up => merge.seek(&[])?,
            Direction::Down => merge.seek_before(None)?,
        }
        let told = Told::Store(&store.shared, self.family.0 as usize);
        let mut visible = VisibleIter::new(merge, self.operator.as_deref(), self.expiry)
            .telling(told, usize::from(self.active.is_some()));
        while visible.advance()? {
            if batch.is_full() {
                batch.is_last = false;
                break;
            }
            let Some((key, value)) = visible.entry() else {
                break;
            };
            batch.bytes.extend_from_slice(key);
            let key_end = batch.bytes.len();
            batch.bytes.extend_from_slice(value);
            batch.ends.push((key_end, batch.bytes.len()));
        }
        Ok(())
    }

    /// What was captured, newest first.
    fn sources<'s>(&'s self, store: &'s Store, bounds: &Arc<KeyRange>) -> Result<Vec<Source<'s>>> {
        let mut sources = Vec::with_capacity(1 + self.sealed.len() + self.version.runs.len());
        if let Some((watch, order)) = &self.active {
            // The owner hands it over when it takes the memtable out of use; until then it is the active one.
            let memtable = match watch.sealed.get() {
                Some(sealed) => &sealed.memtable,
                None => &store.owned(self.family)?.active.memtable,
            };
            let iter = MemtableIter::within(Held::Borrowed(memtable), order.clone(), bounds, self.seqno);
            let iter = iter.with_range_deletes(self.range_deletes.clone());
            sources.push(Source::Memtable(iter));
        }
        sources.extend(self.sealed.iter().map(|(sealed, order)| {
            let held = Held::Borrowed(&sealed.memtable);
            Source::Memtable(MemtableIter::within(held, order.clone(), bounds, SEQNO_MAX))
        }));
        let runs = self.version.runs.iter();
        sources.extend(runs.map(|run| Source::Run(RunIter::within(&run.tables, bounds))));
        Ok(sources)
    }
}

impl At {
    /// Off the end that lies in this direction.
    fn off(direction: Direction) -> At {
        match direction {
            Direction::Up => At::Behind,
            Direction::Down => At::Before,
        }
    }
}
