//! Walking a table in order.

use super::TableView;
use crate::key::{Entry, EntryKind, Seqno};
use keybed_format::{Code, Error, Result};
use std::borrow::Borrow;

/// Walks the visible versions of a table by key ascending, then seqno descending.
///
/// `V` holds the view: `&TableView` for a scan inside a borrow, `TableView` or `Arc<TableView>` for an iterator that
/// owns what it reads. A new iterator stands nowhere: seek first. While [`TableIter::valid`], the accessors describe
/// the current version; otherwise they are empty.
#[derive(Debug)]
pub struct TableIter<V: Borrow<TableView>> {
    view: V,
}

fn unfinished<T>() -> Result<T> {
    Err(Error::new(Code::Closed, "the table layer is not finished"))
}

impl<V: Borrow<TableView>> TableIter<V> {
    /// An iterator whose blocks are cached as those of point reads are.
    pub fn new(view: V) -> Self {
        TableIter { view }
    }

    /// An iterator for one pass over much data (compaction, export): uses cached blocks, caches none.
    pub fn streaming(view: V) -> Self {
        TableIter { view }
    }

    /// Moves to the newest version of the first visible key at or behind `key`.
    ///
    /// # Errors
    /// `TableCorrupt`, `IoFailed`; the iterator is then not valid.
    pub fn seek(&mut self, key: &[u8]) -> Result {
        let _ = key;
        unfinished()
    }

    /// Moves to the first visible version.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    pub fn seek_to_first(&mut self) -> Result {
        unfinished()
    }

    /// Moves to the next version; nothing happens behind the last.
    ///
    /// # Errors
    /// As [`TableIter::seek`].
    // A lending iterator cannot be `Iterator`; the verb is the one users know.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result {
        unfinished()
    }

    /// Whether the iterator stands on a version.
    #[inline]
    pub fn valid(&self) -> bool {
        false
    }

    /// Key of the current version.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &[]
    }

    /// Seqno of the current version.
    #[inline]
    pub fn seqno(&self) -> Seqno {
        0
    }

    /// Kind of the current version.
    #[inline]
    pub fn kind(&self) -> EntryKind {
        EntryKind::Put
    }

    /// Value of the current version.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &[]
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
