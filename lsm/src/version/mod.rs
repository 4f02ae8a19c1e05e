//! Which tables hold a family's content.
//!
//! ```text
//! MANIFEST ── edits ──► VersionSet (set.rs: records) ── readers ──► Version (this file: what reads use)
//!
//! Version   run 9  tier 0   [table]                     newest
//!           run 8  tier 1   [table][table]
//!           run 0  bottom   [table][table][table]       oldest; disjoint visible ranges within a run
//! ```
//! A `Version` is immutable and shared by `Arc`; a new one is published whenever an edit is installed. A table's
//! file is removed when no version set names it and no `Version`, `View` or `PinnedFiles` holds it.

pub mod edit;
pub mod manifest;
pub mod set;

use crate::{
    cache::BlockCache,
    compaction::picker::Shape,
    key::{KEY_BYTES_MAX, KeyRange, Seqno, TableId, order_prefix},
    options::Access,
    range_delete::{RangeDeletes, Region},
    shared::block_access,
    sync::Mutex,
    table::{TableReader, TableView, open_files::OpenFiles},
};
use edit::{BOTTOM, TableRecord};
use keybed_format::{Code, Error, Result};
use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{self, AtomicBool},
    },
};

/// Files that nobody needs any more; filled by the last holder of a table, emptied by whoever owns a thread.
#[derive(Debug, Default)]
pub(crate) struct Graveyard {
    /// Guards the list alone; no I/O under it.
    files: Mutex<Vec<PathBuf>>,
}

impl Graveyard {
    /// Takes the list of files to remove.
    pub(crate) fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.files.lock())
    }

    fn bury(&self, file: PathBuf) {
        self.files.lock().push(file);
    }
}

/// How the tables of a store are opened.
#[derive(Debug)]
pub(crate) struct Opener {
    /// How blocks are read.
    pub(crate) access: Access,
    /// Where decoded blocks are kept.
    pub(crate) cache: Arc<BlockCache>,
    /// Files that are not mapped.
    pub(crate) files: Arc<OpenFiles>,
}

impl Opener {
    /// Opens the file of a table and compares it with what is recorded.
    fn open(&self, path: &Path, record: &TableRecord) -> Result<Arc<TableReader>> {
        let facts = &*record.facts;
        let source = Arc::new(self.files.file(path, facts.bytes));
        let access = block_access(self.access, record.origin, &self.cache);
        let reader = TableReader::open_based(source, (path, facts.id), access, record.seqno_base).map_err(
            |error| match error.code() {
                Code::NotFound => error.recode(Code::TableMissing).in_file(path),
                _ => error,
            },
        )?;
        if reader.facts() == facts {
            return Ok(reader);
        }
        Err(Error::new(
            Code::TableCorrupt,
            "the table is another one than the manifest names",
        )
        .in_file(path)
        .expected_found(
            format_args!("{:016x}", facts.digest),
            format_args!("{:016x}", reader.facts().digest),
        ))
    }
}

/// A table on disk, and its reader once somebody needed it.
#[derive(Debug)]
pub(crate) struct LiveTable {
    reader: OnceLock<Arc<TableReader>>,
    /// The file.
    pub(crate) path: PathBuf,
    /// What the manifest says about it, but for run, tier and visible range.
    pub(crate) record: TableRecord,
    /// Set once no version set names the table. Relaxed: it is read by the thread that drops the last `Arc`, which
    /// synchronises with the earlier drops.
    obsolete: AtomicBool,
    graveyard: Arc<Graveyard>,
    opener: Arc<Opener>,
}

impl LiveTable {
    /// A table that was not opened yet.
    pub(crate) fn new(
        path: PathBuf,
        record: TableRecord,
        graveyard: Arc<Graveyard>,
        opener: Arc<Opener>,
    ) -> Self {
        LiveTable {
            reader: OnceLock::new(),
            path,
            record,
            obsolete: AtomicBool::new(false),
            graveyard,
            opener,
        }
    }

    /// The reader, opened now if nobody did before.
    ///
    /// # Errors
    /// `TableMissing`, `TableCorrupt` with the file; the next call tries again.
    #[inline]
    pub(crate) fn reader(&self) -> Result<&Arc<TableReader>> {
        match self.reader.get() {
            Some(reader) => Ok(reader),
            None => self.open(),
        }
    }

    #[cold]
    #[inline(never)]
    fn open(&self) -> Result<&Arc<TableReader>> {
        let reader = self.opener.open(&self.path, &self.record)?;
        // Two threads may open it; one reader stays.
        Ok(self.reader.get_or_init(|| reader))
    }

    /// Names the content.
    pub(crate) fn id(&self) -> TableId {
        self.record.id()
    }

    /// Whether no version set names it any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.obsolete.load(atomic::Ordering::Relaxed)
    }

    /// Lets the file be removed when the last holder drops it.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, atomic::Ordering::Relaxed);
    }
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        if self.obsolete.load(atomic::Ordering::Relaxed) {
            self.graveyard.bury(std::mem::take(&mut self.path));
        }
    }
}

/// The visible part of a table in a run.
#[derive(Debug)]
pub(crate) struct LiveView {
    view: OnceLock<TableView>,
    /// The table.
    pub(crate) table: Arc<LiveTable>,
    /// The keys that may be seen.
    pub(crate) visible: KeyRange,
    /// First key that may be visible.
    pub(crate) first: Vec<u8>,
    /// Last key that may be visible, or the visible end itself; never below the visible start.
    pub(crate) last: Vec<u8>,
    /// [`order_prefix`] of `first` and `last`: most look-ups need no more.
    first_prefix: u64,
    last_prefix: u64,
    /// Whether some range delete of the table may be visible.
    pub(crate) has_range_deletes: bool,
}

impl LiveView {
    /// `visible` part of `table`.
    pub(crate) fn new(table: Arc<LiveTable>, visible: KeyRange) -> Self {
        let facts = &*table.record.facts;
        let visible_deletes = facts
            .deleted
            .as_ref()
            .filter(|deleted| deleted.intersects(&visible));
        // Range deletes reach beyond the entries: the search must find the table for the keys they hide.
        let (mut first, mut last) = (facts.smallest.as_slice(), facts.largest.as_slice());
        if let Some(deleted) = visible_deletes {
            first = first.min(&deleted.start);
            last = last.max(deleted.end.as_deref().unwrap_or(&BEHIND_ALL_KEYS));
        }
        let first = first.max(&visible.start).to_vec();
        let last = match &visible.end {
            Some(end) => last.min(end),
            None => last,
        };
        // A view may show nothing, because all keys lie before it. It still stands in its place among the others of
        // the run, or the search among them would go astray.
        let last = last.max(&visible.start).to_vec();
        LiveView {
            view: OnceLock::new(),
            first_prefix: order_prefix(&first),
            last_prefix: order_prefix(&last),
            has_range_deletes: visible_deletes.is_some(),
            table,
            visible,
            first,
            last,
        }
    }

    /// The visible part as something to read; opens the table if nobody did before.
    ///
    /// # Errors
    /// As [`LiveTable::reader`].
    #[inline]
    pub(crate) fn view(&self) -> Result<&TableView> {
        match self.view.get() {
            Some(view) => Ok(view),
            None => self.open(),
        }
    }

    #[cold]
    #[inline(never)]
    fn open(&self) -> Result<&TableView> {
        let view = TableView::new(self.table.reader()?.clone(), self.visible.clone());
        Ok(self.view.get_or_init(|| view))
    }

    /// About how many bytes of the file are visible: from the index if the table is open, else all of them.
    pub(crate) fn bytes(&self) -> u64 {
        match self.table.reader.get().filter(|_| !self.visible.is_all()) {
            Some(reader) => reader.bytes_in(&self.visible),
            None => self.table.record.facts.bytes,
        }
    }

    /// The range deletes; they say more than is visible.
    ///
    /// # Errors
    /// As [`LiveTable::reader`].
    pub(crate) fn range_deletes(&self) -> Result<Option<&RangeDeletes>> {
        if !self.has_range_deletes {
            return Ok(None);
        }
        Ok(self.table.reader()?.range_deletes().map(Arc::as_ref))
    }

    /// The least range that everything visible lies in.
    pub(crate) fn hull(&self) -> KeyRange {
        let end = (self.last.len() <= KEY_BYTES_MAX).then(|| [&self.last[..], &[0]].concat());
        self.visible.clip(&KeyRange {
            start: self.first.clone(),
            end,
        })
    }

    /// The seqno below which versions of `key`, which is visible, are gone: of this table, and all of older runs.
    #[inline]
    pub(crate) fn covering(&self, key: &[u8]) -> Result<Option<Seqno>> {
        Ok(self.range_deletes()?.and_then(|deletes| deletes.covering(key)))
    }

    /// Whether everything visible lies below `key`.
    #[inline]
    pub(crate) fn is_before(&self, key: &[u8]) -> bool {
        self.last.as_slice() < key || self.visible.ends_before(key)
    }
}

/// Longer than a key may be, and not below any.
pub(crate) static BEHIND_ALL_KEYS: [u8; KEY_BYTES_MAX + 1] = [0xff; KEY_BYTES_MAX + 1];

/// Tables with disjoint visible ranges, in the order of their keys; all data in a run is newer than in the next one
/// for the same key.
#[derive(Debug)]
pub(crate) struct Run {
    /// Larger is newer; 0 is the bottom.
    pub(crate) number: u64,
    /// How often its data was merged.
    pub(crate) tier: u8,
    /// In the order of their keys.
    pub(crate) tables: Vec<LiveView>,
}

impl Run {
    /// The one table that can hold `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&LiveView> {
        let prefix = order_prefix(key);
        let is_before = |table: &LiveView| match table.last_prefix.cmp(&prefix) {
            Ordering::Less => true,
            Ordering::Equal => table.is_before(key),
            // The last key, and with it the visible end, lies behind the key.
            Ordering::Greater => false,
        };
        let table = match self.tables.as_slice() {
            [only] => only,
            tables => tables.get(tables.partition_point(is_before))?,
        };
        if table.first_prefix < prefix && prefix < table.last_prefix {
            return Some(table);
        }
        (table.first.as_slice() <= key && !table.is_before(key)).then_some(table)
    }

    /// Whether it can hold a key that begins with `prefix`, all of which lie before `end`: false is certain.
    pub(crate) fn may_hold_prefix(&self, prefix: &[u8], end: Option<&[u8]>) -> bool {
        let first = self.tables.partition_point(|table| table.is_before(prefix));
        let tables = self.tables.get(first..).unwrap_or_default();
        tables
            .iter()
            .take_while(|table| end.is_none_or(|end| table.first.as_slice() < end))
            // Who reads a table that cannot be opened is told.
            .any(|table| {
                table
                    .view()
                    .map_or(true, |view| view.reader.may_contain_prefix(prefix))
            })
    }

    /// Whether some of its tables hold range deletes.
    pub(crate) fn has_range_deletes(&self) -> bool {
        self.tables.iter().any(|table| table.has_range_deletes)
    }

    /// The least range that everything lies in which can be visible inside of `range`; `None` if nothing can.
    pub(crate) fn hull_within(&self, range: &KeyRange) -> Option<KeyRange> {
        let from = self.tables.partition_point(|table| table.is_before(&range.start));
        let behind = self
            .tables
            .partition_point(|table| !range.ends_before(&table.first));
        let inside = self.tables.get(from..behind)?;
        let (first, last) = (inside.first()?, inside.last()?);
        let end = (last.last.len() <= KEY_BYTES_MAX).then(|| [&last.last[..], &[0]].concat());
        Some(range.clip(&KeyRange {
            start: first.first.clone(),
            end,
        }))
    }

    /// Whether it is the bottom run.
    pub(crate) fn is_bottom(&self) -> bool {
        self.tier == BOTTOM
    }
}

/// What the range deletes of tables of one run say around `key`.
///
/// # Errors
/// As [`LiveTable::reader`].
pub(crate) fn region(tables: &[LiveView], key: &[u8]) -> Result<Region> {
    let at = tables.partition_point(|table| table.is_before(key));
    let behind = |end: Option<Vec<u8>>| Region {
        keys: KeyRange {
            start: key.to_vec(),
            end,
        },
        ..Region::default()
    };
    Ok(match tables.get(at) {
        None => behind(None),
        Some(table) if table.first.as_slice() > key => behind(Some(table.first.clone())),
        Some(table) => match table.range_deletes()? {
            Some(deletes) => deletes.region(key),
            None => Region::default(),
        }
        .clip(&table.visible),
    })
}

/// As many tombstones as a range delete counts where it is asked how much the upper runs hide.
const RANGE_DELETE_TOMBSTONES: u64 = 32;

/// All runs of a family at one moment.
#[derive(Debug, Default)]
pub(crate) struct Version {
    /// Newest first.
    pub(crate) runs: Vec<Run>,
    /// Sizes of the runs.
    pub(crate) shape: Shape,
    /// Whether some table holds range deletes: else no reader looks for any.
    pub(crate) has_range_deletes: bool,
    /// When keys were touched last.
    pub(crate) touches: Touches,
    /// How often tables went from the family's versions before this one: two with the same number differ in what was
    /// added alone.
    pub(crate) removals: u64,
}

/// When the keys of tables were touched last: what tells whether some may have expired.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touches {
    /// The oldest of all.
    pub(crate) oldest: Option<u64>,
    /// Of the newest of each table, the oldest.
    pub(crate) newest: Option<u64>,
    /// Some keys have no stamp.
    pub(crate) has_unstamped: bool,
}

impl Touches {
    fn of(runs: &[Run]) -> Self {
        let mut touches = Touches::default();
        for live in runs.iter().flat_map(|run| &run.tables) {
            let facts = &live.table.record.facts;
            touches.has_unstamped |= facts.has_unstamped();
            if let Some((oldest, newest)) = facts.touched {
                touches.oldest = Some(touches.oldest.map_or(oldest, |other| other.min(oldest)));
                touches.newest = Some(touches.newest.map_or(newest, |other| other.min(newest)));
            }
        }
        touches
    }
}

/// The version of every family that has no tables.
static EMPTY: LazyLock<Arc<Version>> = LazyLock::new(Arc::default);

impl Version {
    /// Without tables; all families that have none share it.
    pub(crate) fn empty() -> Arc<Version> {
        EMPTY.clone()
    }

    /// To be shared by readers.
    pub(crate) fn into_shared(self) -> Arc<Version> {
        match self.runs.is_empty() && self.removals == 0 {
            true => Version::empty(),
            false => Arc::new(self),
        }
    }

    /// These runs, newest first.
    pub(crate) fn new(runs: Vec<Run>) -> Version {
        let mut shape = Shape::default();
        for run in &runs {
            for live in &run.tables {
                let facts = &live.table.record.facts;
                if run.is_bottom() {
                    shape.bottom_bytes += live.bytes();
                    shape.bottom_entries += facts.entries;
                } else {
                    shape.upper_bytes += live.bytes();
                    shape.upper_entries += facts.entries;
                    let deletes = facts.range_deletes.saturating_mul(RANGE_DELETE_TOMBSTONES);
                    shape.upper_tombstones = shape
                        .upper_tombstones
                        .saturating_add(facts.tombstones.saturating_add(deletes));
                }
            }
        }
        Version {
            has_range_deletes: runs.iter().any(Run::has_range_deletes),
            touches: Touches::of(&runs),
            runs,
            shape,
            removals: 0,
        }
    }
}

impl Version {
    /// Bytes of tables of which everything visible lies inside of `range`.
    pub(crate) fn bytes_inside(&self, range: &KeyRange) -> u64 {
        let inside = |run: &Run| -> u64 {
            let from = run.tables.partition_point(|table| table.first < range.start);
            let tables = run.tables.get(from..).unwrap_or_default();
            let inside = tables.iter().take_while(|table| !range.ends_before(&table.last));
            inside.map(|table| table.table.record.facts.bytes).sum()
        };
        self.runs.iter().map(inside).sum()
    }
}

/// Whether some run can hold `key`: false is certain.
pub(crate) fn may_hold(runs: &[Run], key: &[u8], hash: u64) -> bool {
    runs.iter().any(|run| {
        run.find(key).is_some_and(|table| {
            // A table that cannot be opened may hold everything.
            table.view().map_or(true, |view| view.may_contain(key, hash))
        })
    })
}
