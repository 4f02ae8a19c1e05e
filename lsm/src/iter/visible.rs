//! One value per key: what a reader sees of merged versions.

use super::{MergeIter, Told, meter::Meter};
use crate::{
    expiry::{Expiry, Fold},
    key::EntryKind,
    merge_operator::MergeOperator,
};
use keybed_format::Result;

/// Keys with their values, deleted ones left out, operands folded; up or down, as the merge goes.
pub(crate) struct VisibleIter<'a> {
    /// Inside of the bounds by itself. Stands at the key that was returned.
    merge: MergeIter<'a>,
    operator: Option<&'a dyn MergeOperator>,
    /// What has expired for whoever reads.
    expiry: Expiry,
    /// The folded value; without one the merge stands at the version that holds it.
    folded: Option<Vec<u8>>,
    /// Bytes of stamps before that value.
    stamp_bytes: usize,
    state: State,
    meter: Meter<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The merge stands at a key that was not looked at yet.
    Fresh,
    /// The merge stands at the key that was returned.
    AtKey,
    /// Over, or failed.
    Done,
}

impl<'a> VisibleIter<'a> {
    /// `merge` stands at the start of the range, seen in the direction it goes.
    pub(crate) fn new(merge: MergeIter<'a>, operator: Option<&'a dyn MergeOperator>, expiry: Expiry) -> Self {
        VisibleIter {
            merge,
            operator,
            expiry,
            folded: None,
            stamp_bytes: 0,
            state: State::Fresh,
            meter: Meter::off(),
        }
    }

    /// Tells somebody where tombstones are dense in the sources from `counted_from` on.
    pub(crate) fn telling(mut self, told: Told<'a>, counted_from: usize) -> Self {
        self.meter = Meter::on(told, counted_from);
        self
    }

    /// Moves to the next key; false behind the last. After an error it is over.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let result = self.step();
        if !matches!(result, Ok(true)) {
            self.state = State::Done;
        }
        result
    }

    #[inline]
    fn step(&mut self) -> Result<bool> {
        match self.state {
            State::Fresh => {}
            State::AtKey => self.merge.step_key()?,
            State::Done => return Ok(false),
        }
        loop {
            let Some(kind) = self.merge.top_kind() else {
                return Ok(false);
            };
            let is_there = match kind {
                EntryKind::Put if self.expiry.is_off() => {
                    (self.folded, self.stamp_bytes) = (None, 0);
                    true
                }
                EntryKind::Delete => {
                    if self.meter.met_dead(self.merge.top_source())
                        && let Some(entry) = self.merge.top()
                    {
                        self.meter.look(entry.key);
                    }
                    false
                }
                EntryKind::Put | EntryKind::PutStamped => {
                    (self.folded, self.stamp_bytes) = (None, kind.stamp_bytes());
                    let top = self.merge.top();
                    top.is_some_and(|entry| !self.expiry.is_gone(kind, entry.value))
                }
                EntryKind::Merge | EntryKind::MergeStamped => {
                    self.folded = self.fold()?;
                    self.folded.is_some()
                }
            };
            if is_there {
                self.state = State::AtKey;
                self.meter.met_living();
                return Ok(true);
            }
            self.merge.step_key()?;
        }
    }

    /// Folds the versions of the key it stands at.
    #[cold]
    fn fold(&mut self) -> Result<Option<Vec<u8>>> {
        let mut fold = Fold::new(self.expiry);
        self.merge.versions(|entry| fold.see(&entry))?;
        Ok(fold.value(self.operator)?.map(|(value, _)| value))
    }

    /// Key and value it stands at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        if self.state != State::AtKey {
            return None;
        }
        let entry = self.merge.top()?;
        let value = match &self.folded {
            Some(folded) => folded,
            None => entry.value.get(self.stamp_bytes..)?,
        };
        Some((entry.key, value))
    }
}
