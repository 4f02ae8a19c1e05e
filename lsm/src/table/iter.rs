//! Walking a table in order, a block at a time, up and down.
//!
//! ```text
//! bounds      start ───────────────────────────────► end          (the view's visible range, narrowed further)
//! blocks      first_block │ … │ … │ last_block                    none outside of these is read
//! in a block  from ► index ► limit                                entries inside of the bounds
//! ```

use super::{
    TableReader, TableView,
    block::{Block, BlockView, Geometry, Version},
    reader::BlockRef,
};
use crate::key::{self, Entry, EntryKind, KeyRange, Seqno};
use keybed_format::Result;
use std::{borrow::Borrow, fmt, sync::Arc};

/// Walks the visible versions of a table by key ascending, then seqno descending.
///
/// `V` holds the view: `&TableView` for a scan inside a borrow, `TableView` or `Arc<TableView>` for an iterator that
/// owns what it reads. A new iterator stands nowhere: seek first. While [`TableIter::valid`], the accessors describe
/// the current version; otherwise they are empty.
///
/// Downwards it goes by keys: [`TableIter::prev_key`] and [`TableIter::seek_before`] stop at the newest version of a
/// key, from where [`TableIter::older`] leads to its older ones.
pub struct TableIter<V: Borrow<TableView>> {
    view: V,
    /// Whether blocks read are put into the cache.
    keep: bool,
    /// Narrower than what is visible.
    bounds: Option<Arc<KeyRange>>,
    /// The first block that can hold keys inside of the bounds.
    first_block: usize,
    /// The last one.
    last_block: usize,
    /// Every key has one version in the table.
    is_plain: bool,
    current: Option<Current>,
}

/// The block the iterator stands in, and where.
struct Current {
    block: usize,
    held: Held,
    geometry: Geometry,
    index: u32,
    /// First entry of the block inside of the bounds; [`UNKNOWN`] until somebody goes down.
    from: u32,
    /// First entry of the block behind the bounds.
    limit: u32,
    key_start: u32,
    key_end: u32,
    version: Version,
}

/// Entry numbers stay below 2^24.
const UNKNOWN: u32 = u32::MAX;

/// The bytes of a block, without borrowing from the view that the iterator holds itself.
enum Held {
    /// This range of the reader's map.
    Mapped(usize, usize),
    Cached(Arc<Block>),
}

impl Held {
    #[inline(always)]
    fn bytes<'a>(&'a self, reader: &'a TableReader) -> &'a [u8] {
        match self {
            Held::Mapped(start, end) => reader.source.mapped(*start, *end).unwrap_or_default(),
            Held::Cached(block) => block.bytes(),
        }
    }
}

impl<V: Borrow<TableView>> TableIter<V> {
    /// An iterator whose blocks are cached as those of point reads are.
    pub fn new(view: V) -> Self {
        Self::with(view, None, true)
    }

    /// As [`TableIter::new`], for the keys inside of `bounds` alone: no block outside of them is read.
    pub fn within(view: V, bounds: Arc<KeyRange>) -> Self {
        Self::with(view, Some(bounds), true)
    }

    /// An iterator for one pass over much data (compaction, export): uses cached blocks, caches none.
    pub fn streaming(view: V) -> Self {
        Self::with(view, None, false)
    }

    fn with(view: V, bounds: Option<Arc<KeyRange>>, keep: bool) -> Self {
        let mut iter = TableIter {
            view,
            keep,
            bounds,
            first_block: 0,
            last_block: 0,
            is_plain: false,
            current: None,
        };
        let fence = &iter.view.borrow().reader.fence;
        let first = fence.find(iter.start());
        let last = iter.end().map_or(fence.blocks() - 1, |end| fence.find_below(end));
        (iter.first_block, iter.last_block) = (first, last);
        let facts = iter.view.borrow().reader.facts();
        iter.is_plain = facts.keys == facts.entries;
        iter
    }

    /// The first key inside.
    fn start(&self) -> &[u8] {
        let visible = self.view.borrow().visible.start.as_slice();
        self.bounds
            .as_ref()
            .map_or(visible, |bounds| visible.max(&bounds.start))
    }

    /// The first key behind.
    fn end(&self) -> Option<&[u8]> {
        let visible = self.view.borrow().visible.end.as_deref();
        match (
            visible,
            self.bounds.as_ref().and_then(|bounds| bounds.end.as_deref()),
        ) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    /// Moves to the newest version of the first visible key at or behind `key`.
    ///
    /// # Errors
    /// `TableCorrupt`, `IoFailed`; the iterator is then not valid.
    pub fn seek(&mut self, key: &[u8]) -> Result {
        self.current = None;
        let reader = &self.view.borrow().reader;
        let key = key.max(self.start());
        let block = reader.fence.find(key);
        if block > self.last_block {
            return Ok(());
        }
        let mut current = self.enter(block)?;
        current.index = reader.sane(block, current.view(reader).lower_bound(key))?;
        self.settle(current)
    }

    /// Moves to the first visible version.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn seek_to_first(&mut self) -> Result {
        self.seek(&[])
    }

    /// Moves to the newest version of the last visible key before `key`; `None` = of the last one of all.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn seek_before(&mut self, key: Option<&[u8]>) -> Result {
        self.current = None;
        let reader = &self.view.borrow().reader;
        let end = match (key, self.end()) {
            (Some(key), Some(end)) => Some(key.min(end)),
            (one, other) => one.or(other),
        };
        let block = end.map_or(self.last_block, |end| reader.fence.find_below(end));
        if block < self.first_block || self.last_block < self.first_block {
            return Ok(());
        }
        let mut current = self.enter(block)?;
        current.index = match end {
            Some(end) => reader.sane(block, current.view(reader).lower_bound(end))?,
            None => current.limit,
        };
        self.settle_down(current)
    }

    /// Moves to the newest version of the last visible key.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn seek_to_last(&mut self) -> Result {
        self.seek_before(None)
    }

    /// Moves to the next version; nothing happens behind the last.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    // A lending iterator cannot be `Iterator`; the verb is the one users know.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.index += 1;
        if current.index < current.limit && current.decode(&self.view.borrow().reader) {
            return Ok(());
        }
        match self.current.take() {
            Some(current) => self.settle(current),
            None => Ok(()),
        }
    }

    /// Moves to the newest version of the next key; nothing happens behind the last.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    #[inline]
    pub fn next_key(&mut self) -> Result {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(());
            };
            let (start, end) = (current.key_start, current.key_end);
            current.index += 1;
            if self.is_plain {
                if current.index < current.limit && current.decode(&self.view.borrow().reader) {
                    return Ok(());
                }
                break;
            }
            // Versions of a key share a block.
            if current.index >= current.limit || !current.decode(&self.view.borrow().reader) {
                break;
            }
            let bytes = current.held.bytes(&self.view.borrow().reader);
            let last = bytes.get(start as usize..end as usize).unwrap_or_default();
            let now = bytes.get(current.key_start as usize..current.key_end as usize);
            if !key::equal(now.unwrap_or_default(), last) {
                return Ok(());
            }
        }
        match self.current.take() {
            Some(current) => self.settle(current),
            None => Ok(()),
        }
    }

    /// Moves to the next older version of the same key, if there is one; else stays and returns false.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn older(&mut self) -> Result<bool> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        let reader = &self.view.borrow().reader;
        let view = current.view(reader);
        let key = view
            .bytes
            .get(current.key_start as usize..current.key_end as usize);
        let found = view.older(current.index, key.unwrap_or_default());
        let Some((next, _)) = reader.sane(current.block, found)? else {
            return Ok(false);
        };
        current.index = next;
        let decoded = current.decode(reader);
        reader.sane(current.block, decoded.then_some(true))
    }

    /// Moves to the newest version of the previous key; nothing is valid before the first.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn prev_key(&mut self) -> Result {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let reader = &self.view.borrow().reader;
        current.index = reader.sane(current.block, current.newest(reader, current.index))?;
        self.settle_down(current)
    }

    /// Stands in a block, on no entry yet.
    fn enter(&self, block: usize) -> Result<Current> {
        let reader = &self.view.borrow().reader;
        let loaded = reader.block(block, self.keep)?;
        let view = loaded.view();
        let limit = match self.end() {
            Some(end) if block == self.last_block => reader.sane(block, view.lower_bound(end))?,
            _ => view.geometry.entries(),
        };
        let geometry = *view.geometry;
        let held = match loaded {
            BlockRef::Mapped(view) => {
                let start = reader.fence.place(block).0 as usize;
                Held::Mapped(start, start + view.bytes.len())
            }
            BlockRef::Cached(block) => Held::Cached(block),
        };
        let version = Version {
            seqno: 0,
            kind: EntryKind::Put,
            value_start: 0,
            value_end: 0,
        };
        Ok(Current {
            block,
            held,
            geometry,
            index: 0,
            from: if block == self.first_block { UNKNOWN } else { 0 },
            limit,
            key_start: 0,
            key_end: 0,
            version,
        })
    }

    /// Decodes the entry at `current.index`, or that at the start of the next block that has one.
    #[inline(never)]
    fn settle(&mut self, mut current: Current) -> Result {
        while current.index >= current.limit {
            if current.block >= self.last_block {
                return Ok(());
            }
            current = self.enter(current.block + 1)?;
        }
        self.stand(current)
    }

    /// Decodes the newest version of the key before `current.index`, be it in a block before.
    #[inline(never)]
    fn settle_down(&mut self, mut current: Current) -> Result {
        let reader = &self.view.borrow().reader;
        loop {
            if current.from == UNKNOWN {
                let from = current.view(reader).lower_bound(self.start());
                current.from = reader.sane(current.block, from)?;
            }
            if current.index > current.from {
                break;
            }
            if current.block <= self.first_block {
                return Ok(());
            }
            current = self.enter(current.block - 1)?;
            current.index = current.limit;
        }
        current.index = reader.sane(current.block, current.newest(reader, current.index - 1))?;
        self.stand(current)
    }

    fn stand(&mut self, mut current: Current) -> Result {
        let reader = &self.view.borrow().reader;
        let decoded = current.decode(reader);
        reader.sane(current.block, decoded.then_some(()))?;
        self.current = Some(current);
        Ok(())
    }

    /// Whether the iterator stands on a version.
    #[inline]
    pub fn valid(&self) -> bool {
        self.current.is_some()
    }

    #[inline(always)]
    fn part(&self, place: impl FnOnce(&Current) -> (u32, u32)) -> &[u8] {
        let Some(current) = &self.current else { return &[] };
        let (start, end) = place(current);
        let bytes = current.held.bytes(&self.view.borrow().reader);
        bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Key of the current version.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.part(|c| (c.key_start, c.key_end))
    }

    /// Seqno of the current version.
    #[inline]
    pub fn seqno(&self) -> Seqno {
        self.current.as_ref().map_or(0, |c| c.version.seqno)
    }

    /// Kind of the current version.
    #[inline]
    pub fn kind(&self) -> EntryKind {
        self.current.as_ref().map_or(EntryKind::Put, |c| c.version.kind)
    }

    /// Value of the current version.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.part(|c| (c.version.value_start, c.version.value_end))
    }

    /// The current version.
    #[inline]
    pub fn entry(&self) -> Entry<'_> {
        let Some(current) = &self.current else {
            return Entry {
                key: &[],
                seqno: 0,
                kind: EntryKind::Put,
                value: &[],
            };
        };
        let bytes = current.held.bytes(&self.view.borrow().reader);
        let part = |start: u32, end: u32| bytes.get(start as usize..end as usize).unwrap_or_default();
        let version = &current.version;
        Entry {
            key: part(current.key_start, current.key_end),
            seqno: version.seqno,
            kind: version.kind,
            value: part(version.value_start, version.value_end),
        }
    }

    /// The view it walks.
    pub fn view(&self) -> &TableView {
        self.view.borrow()
    }
}

impl Current {
    #[inline(always)]
    fn view<'a>(&'a self, reader: &'a TableReader) -> BlockView<'a> {
        BlockView {
            bytes: self.held.bytes(reader),
            geometry: &self.geometry,
        }
    }

    /// The newest version of the key of entry `index`; `None` if the block makes no sense.
    fn newest(&self, reader: &TableReader, mut index: u32) -> Option<u32> {
        let view = self.view(reader);
        let key = view.key(index)?;
        while index > 0 && key::equal(view.key(index - 1)?, key) {
            index -= 1;
        }
        Some(index)
    }

    /// Decodes the entry at `index`; false if it makes no sense.
    #[inline(always)]
    fn decode(&mut self, reader: &TableReader) -> bool {
        let view = self.view(reader);
        let decoded = view.key_place(self.index).and_then(|(start, end)| {
            let mut version = view.version(self.index, end)?;
            version.seqno = version.seqno.max(reader.seqno_base);
            Some((start, end, version))
        });
        let Some((start, end, version)) = decoded else {
            return false;
        };
        (self.key_start, self.key_end, self.version) = (start, end, version);
        true
    }
}

impl<V: Borrow<TableView>> fmt::Debug for TableIter<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TableIter");
        if self.valid() {
            out.field("at", &self.entry());
        }
        out.finish_non_exhaustive()
    }
}
