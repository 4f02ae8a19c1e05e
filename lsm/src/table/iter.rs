//! Walking a table in order, a block at a time.

use super::{
    TableReader, TableView,
    block::{Block, BlockView, Geometry, Version},
    reader::BlockRef,
};
use crate::key::{self, Entry, EntryKind, Seqno};
use keybed_format::Result;
use std::{borrow::Borrow, fmt, sync::Arc};

/// Walks the visible versions of a table by key ascending, then seqno descending.
///
/// `V` holds the view: `&TableView` for a scan inside a borrow, `TableView` or `Arc<TableView>` for an iterator that
/// owns what it reads. A new iterator stands nowhere: seek first. While [`TableIter::valid`], the accessors describe
/// the current version; otherwise they are empty.
pub struct TableIter<V: Borrow<TableView>> {
    view: V,
    /// Whether blocks read are put into the cache.
    keep: bool,
    /// The last block that can hold visible keys.
    last_block: usize,
    current: Option<Current>,
}

/// The block the iterator stands in, and where.
struct Current {
    block: usize,
    held: Held,
    geometry: Geometry,
    index: u32,
    /// First entry of the block that is not visible any more.
    limit: u32,
    key_start: u32,
    key_end: u32,
    version: Version,
}

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
        Self::with(view, true)
    }

    /// An iterator for one pass over much data (compaction, export): uses cached blocks, caches none.
    pub fn streaming(view: V) -> Self {
        Self::with(view, false)
    }

    fn with(view: V, keep: bool) -> Self {
        let TableView { reader, visible } = view.borrow();
        let last_block = match &visible.end {
            Some(end) => reader.fence.find(end),
            None => reader.fence.blocks() - 1,
        };
        TableIter {
            view,
            keep,
            last_block,
            current: None,
        }
    }

    /// Moves to the newest version of the first visible key at or behind `key`.
    ///
    /// # Errors
    /// `TableCorrupt`, `IoFailed`; the iterator is then not valid.
    pub fn seek(&mut self, key: &[u8]) -> Result {
        self.current = None;
        let TableView { reader, visible } = self.view.borrow();
        let key = key.max(&visible.start);
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
        while let Some(current) = &mut self.current {
            let (start, end, block) = (current.key_start, current.key_end, current.block);
            self.next()?;
            let Some(current) = &self.current else { break };
            // Versions of a key share a block.
            if current.block != block {
                break;
            }
            let bytes = current.held.bytes(&self.view.borrow().reader);
            let last = bytes.get(start as usize..end as usize).unwrap_or_default();
            if !key::equal(self.key(), last) {
                break;
            }
        }
        Ok(())
    }

    /// Stands in a block, on no entry yet.
    fn enter(&self, block: usize) -> Result<Current> {
        let TableView { reader, visible } = self.view.borrow();
        let loaded = reader.block(block, self.keep)?;
        let view = loaded.view();
        let limit = match &visible.end {
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
        Entry {
            key: self.key(),
            seqno: self.seqno(),
            kind: self.kind(),
            value: self.value(),
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
