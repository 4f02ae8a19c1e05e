//! All versions of several sources, by key; for one key the newer source first. Upwards by versions or keys,
//! downwards by keys.

use super::{
    RunIter,
    hidden::{Hidden, Layer},
};
use crate::{
    floor::Floors,
    key::{self, Entry, EntryKind},
    memtable::MemtableIter,
};
use keybed_format::Result;
use std::{cmp::Ordering, ops::ControlFlow};

/// One sorted source of versions.
// A source is made once per scan and never moved on the way; a box would cost an allocation.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Source<'a> {
    /// A memtable.
    Memtable(MemtableIter<'a>),
    /// A run.
    Run(RunIter<'a>),
}

impl<'a> Source<'a> {
    /// Its range deletes.
    pub(super) fn layer(&self) -> Option<Layer<'a>> {
        match self {
            Source::Memtable(iter) => iter.range_deletes().cloned().map(Layer::Memtable),
            Source::Run(run) => {
                let tables = run.tables();
                let has = tables.iter().any(|table| table.has_range_deletes);
                has.then_some(Layer::Run(tables))
            }
        }
    }
}

impl Source<'_> {
    /// The version it stands at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Source::Memtable(iter) => iter.is_valid().then(|| iter.entry()),
            Source::Run(run) => run.entry(),
        }
    }

    /// Whether it stands at a version.
    #[inline(always)]
    fn is_valid(&self) -> bool {
        match self {
            Source::Memtable(iter) => iter.is_valid(),
            Source::Run(run) => run.key().is_some(),
        }
    }

    /// What the version it stands at does.
    #[inline]
    fn kind(&self) -> Option<EntryKind> {
        match self {
            Source::Memtable(iter) => iter.is_valid().then(|| iter.kind()),
            Source::Run(run) => run.kind(),
        }
    }

    #[inline(always)]
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Memtable(iter) => iter.is_valid().then(|| iter.key()),
            Source::Run(run) => run.key(),
        }
    }

    /// Moves to the next version.
    #[inline]
    fn advance(&mut self) -> Result {
        #[cfg(test)]
        super::tests::MOVES.set(super::tests::MOVES.get() + 1);
        match self {
            Source::Memtable(iter) => {
                iter.advance();
                Ok(())
            }
            Source::Run(run) => run.advance(),
        }
    }

    /// Moves to the newest version of the next key, or of the previous one.
    #[inline]
    pub(super) fn step(&mut self, down: bool) -> Result {
        #[cfg(test)]
        super::tests::MOVES.set(super::tests::MOVES.get() + 1);
        match (self, down) {
            (Source::Run(run), false) => run.next_key(),
            (Source::Run(run), true) => run.prev_key(),
            (Source::Memtable(iter), false) => {
                iter.next_key();
                Ok(())
            }
            (Source::Memtable(iter), true) => {
                iter.prev_key();
                Ok(())
            }
        }
    }

    /// Moves to the next older version of the same key; false if there is none in this source.
    fn older(&mut self) -> Result<bool> {
        match self {
            Source::Memtable(iter) => Ok(iter.older()),
            Source::Run(run) => run.older(),
        }
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result {
        #[cfg(test)]
        super::tests::MOVES.set(super::tests::MOVES.get() + 1);
        match self {
            Source::Memtable(iter) => {
                iter.seek(key);
                Ok(())
            }
            Source::Run(run) => run.seek(key),
        }
    }

    pub(super) fn seek_before(&mut self, key: Option<&[u8]>) -> Result {
        #[cfg(test)]
        super::tests::MOVES.set(super::tests::MOVES.get() + 1);
        match self {
            Source::Memtable(iter) => {
                iter.seek_before(key);
                Ok(())
            }
            Source::Run(run) => run.seek_before(key),
        }
    }
}

/// Sources merged. They are few, so their order is a sorted list: the top moves down past those that are before it.
///
/// After [`MergeIter::seek`] it goes up, after [`MergeIter::seek_before`] down. Going down, each source stands at the
/// newest version of its key, so that keys come in falling order, and the versions of each newest first. An error
/// leaves it in no defined place: seek again or drop it.
pub(crate) struct MergeIter<'a> {
    /// Newest first.
    sources: Vec<Source<'a>>,
    /// Sources that have a version, by (its key, age of the source).
    order: Vec<usize>,
    down: bool,
    /// What range deletes and floors hide; no source stands at a version that is hidden.
    hidden: Option<Box<Hidden<'a>>>,
}

impl<'a> MergeIter<'a> {
    /// `sources` newest first; not yet positioned.
    pub(crate) fn new(sources: Vec<Source<'a>>) -> Self {
        MergeIter {
            order: Vec::with_capacity(sources.len()),
            sources,
            down: false,
            hidden: None,
        }
    }

    /// As [`MergeIter::new`], without what the sources' range deletes and these floors hide.
    pub(crate) fn hiding(sources: Vec<Source<'a>>, floors: Option<&'a Floors>) -> Self {
        MergeIter {
            hidden: Hidden::over(&sources, floors),
            ..MergeIter::new(sources)
        }
    }

    /// Moves a source past what is hidden.
    #[inline]
    fn reveal(&mut self, number: usize) -> Result {
        match &mut self.hidden {
            Some(hidden) => hidden.reveal(number, &mut self.sources[number], self.down),
            None => Ok(()),
        }
    }

    /// Moves to the first key not below `key`; goes up from there.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result {
        self.down = false;
        for number in 0..self.sources.len() {
            self.sources[number].seek(key)?;
            self.reveal(number)?;
        }
        self.sort();
        Ok(())
    }

    /// Moves to the last key below `key` (`None`: the last of all); goes down from there.
    pub(crate) fn seek_before(&mut self, key: Option<&[u8]>) -> Result {
        self.down = true;
        for number in 0..self.sources.len() {
            self.sources[number].seek_before(key)?;
            self.reveal(number)?;
        }
        self.sort();
        Ok(())
    }

    fn sort(&mut self) {
        self.order.clear();
        for number in 0..self.sources.len() {
            if self.sources[number].key().is_some() {
                self.order.push(number);
                let mut at = self.order.len() - 1;
                while at > 0 && self.is_before(number, self.order[at - 1]) {
                    self.order.swap(at, at - 1);
                    at -= 1;
                }
            }
        }
    }

    /// Whether the version of source `a` comes before that of `b`.
    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.sources[a].key(), self.sources[b].key()) {
            (Some(x), Some(y)) => match key::compare(x, y) {
                Ordering::Equal => a < b,
                order => order.is_lt() != self.down,
            },
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// Puts the source at `at` of the order, which moved, in its place among those behind it.
    #[inline]
    fn settle(&mut self, mut at: usize) {
        let moved = self.order[at];
        if self.sources[moved].key().is_none() {
            self.order.remove(at);
            return;
        }
        while at + 1 < self.order.len() && self.is_before(self.order[at + 1], moved) {
            self.order.swap(at, at + 1);
            at += 1;
        }
    }

    /// What the version it stands at does.
    #[inline]
    pub(crate) fn top_kind(&self) -> Option<EntryKind> {
        self.sources[*self.order.first()?].kind()
    }

    /// The number of the source of the version it stands at, the newest source being 0.
    #[inline]
    pub(super) fn top_source(&self) -> usize {
        self.order.first().copied().unwrap_or(0)
    }

    /// The version it stands at.
    #[inline]
    pub(crate) fn top(&self) -> Option<Entry<'_>> {
        self.sources[*self.order.first()?].entry()
    }

    /// Moves to the next version, going up.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result {
        let Some(&top) = self.order.first() else {
            return Ok(());
        };
        self.sources[top].advance()?;
        self.reveal(top)?;
        self.settle(0);
        Ok(())
    }

    /// Moves past all versions of the key it stands at, in the direction it goes.
    #[inline]
    pub(crate) fn step_key(&mut self) -> Result {
        if let [only] = *self.order.as_slice() {
            self.sources[only].step(self.down)?;
            self.reveal(only)?;
            if !self.sources[only].is_valid() {
                self.order.clear();
            }
            return Ok(());
        }
        self.step_among()
    }

    fn step_among(&mut self) -> Result {
        let same = self.same_key();
        for at in 0..same {
            let number = self.order[at];
            self.sources[number].step(self.down)?;
            self.reveal(number)?;
        }
        for at in (0..same).rev() {
            self.settle(at);
        }
        Ok(())
    }

    /// How many sources, first in the order, stand at the key of the first one.
    #[inline]
    fn same_key(&self) -> usize {
        let Some((first, rest)) = self.order.split_first() else {
            return 0;
        };
        let key = self.sources[*first].key().unwrap_or_default();
        let is_same = |other: &&usize| {
            self.sources[**other]
                .key()
                .is_some_and(|other| key::equal(key, other))
        };
        1 + rest.iter().take_while(is_same).count()
    }

    /// Shows all versions of the key it stands at, newest first, until `each` has seen enough; stays at this key.
    pub(crate) fn versions(&mut self, mut each: impl FnMut(Entry<'_>) -> ControlFlow<()>) -> Result {
        for at in 0..self.same_key() {
            let number = self.order[at];
            let source = &mut self.sources[number];
            loop {
                if let Some(hidden) = &mut self.hidden
                    && hidden.hides(number, source)?
                {
                    return Ok(());
                }
                if source.entry().is_some_and(|entry| each(entry).is_break()) {
                    return Ok(());
                }
                if !source.older()? {
                    break;
                }
            }
        }
        Ok(())
    }
}
