//! A range of a shared store: one moment, read in pieces, so that no lock is held between two entries.
//!
//! The first piece is copied under the lock. Most ranges end within it; a longer one starts again from a
//! [`View`], which seals the memtables.

use super::SharedStore;
use crate::{family::Family, scan::Range, view::View};
use keybed_format::Result;
use std::ops::Bound;

/// Entries and bytes of a piece.
const PIECE_ENTRIES: usize = 256;
const PIECE_BYTES: usize = 64 << 10;

/// Entries of a range of keys of one moment, ascending. Holds no lock. After an error it is over.
#[derive(Debug)]
pub struct SharedRange {
    family: Family,
    end: Option<Vec<u8>>,
    /// For what comes behind the piece; none if nothing does.
    view: Option<View>,
    piece: Piece,
    at: usize,
}

/// Entries one behind the other.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// End of each key and of its value in `bytes`.
    ends: Vec<(usize, usize)>,
    /// Nothing comes behind it.
    is_last: bool,
}

impl Piece {
    fn fill(&mut self, range: &mut Range<'_>) -> Result {
        self.bytes.clear();
        self.ends.clear();
        while self.ends.len() < PIECE_ENTRIES && self.bytes.len() < PIECE_BYTES {
            let Some((key, value)) = range.next_entry()? else {
                self.is_last = true;
                return Ok(());
            };
            self.bytes.extend_from_slice(key);
            let key_end = self.bytes.len();
            self.bytes.extend_from_slice(value);
            self.ends.push((key_end, self.bytes.len()));
        }
        Ok(())
    }

    fn entry(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let (key_end, end) = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((&self.bytes[start..key_end], &self.bytes[key_end..end]))
    }
}

/// The range as the engine takes it.
fn slices<'k>(start: Bound<&'k [u8]>, end: Option<&'k [u8]>) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    (start, end.map_or(Bound::Unbounded, Bound::Excluded))
}

impl SharedRange {
    pub(super) fn new(
        store: &SharedStore,
        family: Family,
        start: &[u8],
        end: Option<Vec<u8>>,
    ) -> Result<Self> {
        let mut piece = Piece::default();
        let bounds = slices(Bound::Included(start), end.as_deref());
        store.beside(|store| piece.fill(&mut store.range(family, bounds)?))?;
        let mut view = None;
        if !piece.is_last {
            let taken = store.view()?;
            piece.fill(&mut taken.range(family, bounds)?)?;
            view = Some(taken);
        }
        Ok(SharedRange {
            family,
            end,
            view,
            piece,
            at: 0,
        })
    }

    /// Moves to the next entry and lends it; `None` behind the last.
    ///
    /// # Errors
    /// `TableCorrupt` with file and offset; `MergeFailed` if an operator refuses; errors of the file system.
    pub fn next_entry(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.at == self.piece.ends.len() && !self.piece.is_last {
            let last = self.at.checked_sub(1).and_then(|at| self.piece.entry(at));
            let last = last.map_or_else(Vec::new, |(key, _)| key.to_vec());
            self.at = 0;
            let result = match &self.view {
                Some(view) => {
                    let bounds = slices(Bound::Excluded(&last), self.end.as_deref());
                    view.range(self.family, bounds)
                        .and_then(|mut range| self.piece.fill(&mut range))
                }
                None => Ok(()),
            };
            if let Err(error) = result {
                self.piece = Piece {
                    is_last: true,
                    ..Piece::default()
                };
                return Err(error);
            }
        }
        let at = self.at;
        self.at = (at + 1).min(self.piece.ends.len());
        Ok(self.piece.entry(at))
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
