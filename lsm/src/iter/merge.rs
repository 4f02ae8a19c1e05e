//! All versions of several sources, by key; for one key the newer source first.

use crate::{
    key::Entry,
    memtable::MemtableIter,
    table::{TableIter, TableView},
    version::LiveView,
};
use keybed_format::Result;

/// Tables of one run, one after the other.
pub(crate) struct RunIter<'a> {
    tables: &'a [LiveView],
    at: usize,
    iter: Option<TableIter<&'a TableView>>,
    streaming: bool,
}

impl<'a> RunIter<'a> {
    /// Not yet positioned. `streaming` reads ahead and leaves the cache alone.
    pub(crate) fn new(tables: &'a [LiveView], streaming: bool) -> Self {
        RunIter {
            tables,
            at: 0,
            iter: None,
            streaming,
        }
    }

    fn open(&self) -> Result<Option<TableIter<&'a TableView>>> {
        let Some(table) = self.tables.get(self.at) else {
            return Ok(None);
        };
        let view = table.view()?;
        Ok(Some(if self.streaming {
            TableIter::streaming(view)
        } else {
            TableIter::new(view)
        }))
    }

    /// Moves to the first key not below `key`.
    fn seek(&mut self, key: &[u8]) -> Result {
        self.at = self.tables.partition_point(|table| table.is_before(key));
        self.iter = self.open()?;
        if let Some(iter) = &mut self.iter {
            iter.seek(key)?;
        }
        self.settle()
    }

    /// Goes to the next table while this one is used up.
    fn settle(&mut self) -> Result {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            self.at += 1;
            self.iter = self.open()?;
            if let Some(iter) = &mut self.iter {
                iter.seek_to_first()?;
            }
        }
        Ok(())
    }
}

/// One sorted source of versions.
pub(crate) enum Source<'a> {
    /// A memtable.
    Memtable(MemtableIter<'a>),
    /// A run.
    Run(RunIter<'a>),
}

impl Source<'_> {
    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Source::Memtable(iter) => iter.is_valid().then(|| iter.entry()),
            Source::Run(run) => run.iter.as_ref().map(TableIter::entry),
        }
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Memtable(iter) => iter.is_valid().then(|| iter.key()),
            Source::Run(run) => run.iter.as_ref().map(TableIter::key),
        }
    }

    #[inline]
    fn advance(&mut self) -> Result {
        match self {
            Source::Memtable(iter) => {
                iter.advance();
                Ok(())
            }
            Source::Run(run) => {
                if let Some(iter) = &mut run.iter {
                    iter.next()?;
                    if !iter.valid() {
                        return run.settle();
                    }
                }
                Ok(())
            }
        }
    }

    fn seek(&mut self, key: &[u8]) -> Result {
        match self {
            Source::Memtable(iter) => {
                iter.seek(key);
                Ok(())
            }
            Source::Run(run) => run.seek(key),
        }
    }
}

/// Sources merged. They are few, so their order is a sorted list: the top moves down past those that are before it.
pub(crate) struct MergeIter<'a> {
    /// Newest first.
    sources: Vec<Source<'a>>,
    /// Sources that have a version, by (its key, age of the source).
    order: Vec<usize>,
}

impl<'a> MergeIter<'a> {
    /// `sources` newest first; not yet positioned.
    pub(crate) fn new(sources: Vec<Source<'a>>) -> Self {
        MergeIter {
            order: Vec::with_capacity(sources.len()),
            sources,
        }
    }

    /// Moves to the first key not below `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result {
        self.order.clear();
        for number in 0..self.sources.len() {
            self.sources[number].seek(key)?;
            if self.sources[number].key().is_some() {
                self.order.push(number);
                let mut at = self.order.len() - 1;
                while at > 0 && self.is_before(number, self.order[at - 1]) {
                    self.order.swap(at, at - 1);
                    at -= 1;
                }
            }
        }
        Ok(())
    }

    /// Whether the version of source `a` comes before that of `b`.
    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.sources[a].key(), self.sources[b].key()) {
            (Some(x), Some(y)) => match x.cmp(y) {
                std::cmp::Ordering::Equal => a < b,
                order => order.is_lt(),
            },
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// The version it stands at.
    #[inline]
    pub(crate) fn top(&self) -> Option<Entry<'_>> {
        self.sources[*self.order.first()?].entry()
    }

    /// Moves to the next version.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result {
        let Some(&top) = self.order.first() else {
            return Ok(());
        };
        self.sources[top].advance()?;
        if self.sources[top].key().is_none() {
            self.order.remove(0);
            return Ok(());
        }
        let mut at = 0;
        while at + 1 < self.order.len() && self.is_before(self.order[at + 1], top) {
            self.order.swap(at, at + 1);
            at += 1;
        }
        Ok(())
    }

    /// Moves past all versions of `key`, which it stands at.
    #[inline]
    pub(crate) fn skip(&mut self, key: &[u8]) -> Result {
        loop {
            self.advance()?;
            match self.order.first().and_then(|&top| self.sources[top].key()) {
                Some(next) if crate::key::equal(next, key) => {}
                _ => return Ok(()),
            }
        }
    }
}
