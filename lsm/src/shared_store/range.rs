//! Ranges and cursors of a shared store: one moment, read in batches, so that no lock is held between two entries.
//!
//! A [`Cursor`] keeps what it saw and copies entries in batches that grow; the lock is taken once for each batch.

use super::SharedStore;
use crate::{cursor::Cursor, scan::Direction};
use keybed_format::Result;

/// A [`Cursor`] of a shared store: the entries of a range of keys as they were when it was made, walked in both
/// directions while other threads write.
#[derive(Debug)]
pub struct SharedCursor {
    store: SharedStore,
    cursor: Cursor,
}

impl SharedCursor {
    pub(super) fn new(store: SharedStore, cursor: Cursor) -> Self {
        SharedCursor { store, cursor }
    }

    /// Whether it stands at an entry.
    pub fn valid(&self) -> bool {
        self.cursor.valid()
    }

    /// The key it stands at; empty if it stands at none.
    pub fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    /// The value of that key; empty if it stands at none.
    pub fn value(&self) -> &[u8] {
        self.cursor.value()
    }

    /// Moves to the first entry; false if there is none.
    ///
    /// # Errors
    /// `Closed`; as [`Cursor::seek_to_first`].
    pub fn seek_to_first(&mut self) -> Result<bool> {
        self.store.beside(|store| self.cursor.seek_to_first(store))
    }

    /// Moves to the last entry; false if there is none.
    ///
    /// # Errors
    /// As [`SharedCursor::seek_to_first`].
    pub fn seek_to_last(&mut self) -> Result<bool> {
        self.store.beside(|store| self.cursor.seek_to_last(store))
    }

    /// Moves to the first entry whose key is not below `key`; false if there is none.
    ///
    /// # Errors
    /// As [`SharedCursor::seek_to_first`].
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.store.beside(|store| self.cursor.seek(store, key))
    }

    /// Moves to the last entry whose key is not above `key`; false if there is none.
    ///
    /// # Errors
    /// As [`SharedCursor::seek_to_first`].
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.store.beside(|store| self.cursor.seek_for_prev(store, key))
    }

    /// Moves to the next entry; false behind the last.
    ///
    /// # Errors
    /// As [`SharedCursor::seek_to_first`].
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "a cursor has prev and seek, too")]
    pub fn next(&mut self) -> Result<bool> {
        if self.cursor.step_in_batch(Direction::Up) {
            return Ok(true);
        }
        self.store.beside(|store| self.cursor.next(store))
    }

    /// Moves to the previous entry; false before the first.
    ///
    /// # Errors
    /// As [`SharedCursor::seek_to_first`].
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        if self.cursor.step_in_batch(Direction::Down) {
            return Ok(true);
        }
        self.store.beside(|store| self.cursor.prev(store))
    }
}

/// Entries of a range of keys of one moment, ascending, or descending where it was asked for. Holds no lock. After an
/// error it is over.
#[derive(Debug)]
pub struct SharedRange {
    cursor: SharedCursor,
    direction: Direction,
    is_begun: bool,
}

impl SharedRange {
    pub(super) fn new(cursor: SharedCursor, direction: Direction) -> Self {
        SharedRange {
            cursor,
            direction,
            is_begun: false,
        }
    }

    /// Moves to the next entry, seen in the range's direction, and lends it; `None` behind the last.
    ///
    /// # Errors
    /// `Closed`; `TableCorrupt` with file and offset; `MergeFailed` if an operator refuses; errors of the file system.
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let found = match self.direction {
            Direction::Up => self.cursor.next()?,
            Direction::Down if is_first => self.cursor.seek_to_last()?,
            Direction::Down => self.cursor.prev()?,
        };
        Ok(found.then(|| (self.cursor.key(), self.cursor.value())))
    }
}

impl Iterator for SharedRange {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry()
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .transpose()
    }
}
