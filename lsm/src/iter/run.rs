//! The tables of one run, one after the other, up and down.

use crate::{
    key::{Entry, EntryKind, KeyRange, Seqno},
    table::{TableIter, TableView},
    version::LiveView,
};
use keybed_format::Result;
use std::sync::Arc;

/// Walks a run. Opens a table when it gets there, and none that holds no key inside of the bounds.
pub(crate) struct RunIter<'a> {
    tables: &'a [LiveView],
    /// `None` = everything.
    bounds: Option<Arc<KeyRange>>,
    at: usize,
    iter: Option<TableIter<&'a TableView>>,
    streaming: bool,
}

impl<'a> RunIter<'a> {
    /// Everything, for a merge: reads ahead and leaves the cache alone. Not yet positioned.
    pub(crate) fn streaming(tables: &'a [LiveView]) -> Self {
        RunIter {
            tables,
            bounds: None,
            at: 0,
            iter: None,
            streaming: true,
        }
    }

    /// Keys inside of `bounds`, which are not empty. Not yet positioned.
    pub(crate) fn within(tables: &'a [LiveView], bounds: &Arc<KeyRange>) -> Self {
        RunIter {
            tables,
            bounds: (!bounds.is_all()).then(|| bounds.clone()),
            at: 0,
            iter: None,
            streaming: false,
        }
    }

    /// The run.
    pub(super) fn tables(&self) -> &'a [LiveView] {
        self.tables
    }

    /// A seqno that no version in it exceeds.
    pub(super) fn seqno_max(&self) -> Seqno {
        let newest = self.tables.iter().map(|live| live.table.record.seqno_max());
        newest.max().unwrap_or(0)
    }

    /// Opens table `at`; none outside of the run or the bounds.
    fn open(&mut self, at: usize) -> Result<Option<&mut TableIter<&'a TableView>>> {
        self.at = at;
        self.iter = None;
        let bounds = self.bounds.as_ref();
        let is_inside = |table: &&LiveView| bounds.is_none_or(|b| b.touches(&table.first, &table.last));
        let Some(table) = self.tables.get(at).filter(is_inside) else {
            return Ok(None);
        };
        let view = table.view()?;
        let iter = match bounds {
            _ if self.streaming => TableIter::streaming(view),
            Some(bounds) if bounds.start > table.first || bounds.ends_before(&table.last) => {
                TableIter::within(view, bounds.clone())
            }
            _ => TableIter::new(view),
        };
        Ok(Some(self.iter.insert(iter)))
    }

    /// Moves to the first key not below `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result {
        let bounds = self.bounds.clone();
        let key = bounds.as_ref().map_or(key, |bounds| key.max(&bounds.start));
        let at = self.tables.partition_point(|table| table.is_before(key));
        if let Some(iter) = self.open(at)? {
            iter.seek(key)?;
        }
        self.settle()
    }

    /// Moves to the last key below `key`; `None`: to the last of all.
    pub(crate) fn seek_before(&mut self, key: Option<&[u8]>) -> Result {
        let bounds = self.bounds.clone();
        let end = match (key, bounds.as_ref().and_then(|bounds| bounds.end.as_deref())) {
            (Some(key), Some(end)) => Some(key.min(end)),
            (one, other) => one.or(other),
        };
        // The last table that begins before the end.
        let behind = end.map_or(self.tables.len(), |end| {
            self.tables.partition_point(|table| table.first.as_slice() < end)
        });
        self.iter = None;
        let Some(at) = behind.checked_sub(1) else {
            return Ok(());
        };
        if let Some(iter) = self.open(at)? {
            iter.seek_before(end)?;
        }
        self.settle_down()
    }

    /// Goes to the next table while this one is used up.
    fn settle(&mut self) -> Result {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            if let Some(iter) = self.open(self.at + 1)? {
                iter.seek_to_first()?;
            }
        }
        Ok(())
    }

    /// Goes to the table before while this one is used up.
    fn settle_down(&mut self) -> Result {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            match self.at.checked_sub(1) {
                Some(at) => {
                    if let Some(iter) = self.open(at)? {
                        iter.seek_to_last()?;
                    }
                }
                None => self.iter = None,
            }
        }
        Ok(())
    }

    /// The version it stands at.
    #[inline]
    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        self.iter.as_ref().map(TableIter::entry)
    }

    /// What the version it stands at does.
    #[inline]
    pub(super) fn kind(&self) -> Option<EntryKind> {
        self.iter.as_ref().map(TableIter::kind)
    }

    /// The key it stands at.
    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.iter.as_ref().map(TableIter::key)
    }

    /// Moves to the next version.
    #[inline]
    pub(super) fn advance(&mut self) -> Result {
        let Some(iter) = &mut self.iter else { return Ok(()) };
        iter.next()?;
        if iter.valid() { Ok(()) } else { self.settle() }
    }

    /// Moves to the newest version of the next key.
    #[inline]
    pub(super) fn next_key(&mut self) -> Result {
        let Some(iter) = &mut self.iter else { return Ok(()) };
        iter.next_key()?;
        if iter.valid() { Ok(()) } else { self.settle() }
    }

    /// Moves to the newest version of the previous key.
    #[inline]
    pub(super) fn prev_key(&mut self) -> Result {
        let Some(iter) = &mut self.iter else { return Ok(()) };
        iter.prev_key()?;
        if iter.valid() { Ok(()) } else { self.settle_down() }
    }

    /// Moves to the next older version of the same key; false if the run has none.
    pub(super) fn older(&mut self) -> Result<bool> {
        // Versions of a key share a table.
        self.iter.as_mut().map_or(Ok(false), TableIter::older)
    }
}
