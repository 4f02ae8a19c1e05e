//! One value per key: what a reader sees of merged versions.

use super::MergeIter;
use crate::{
    key::EntryKind,
    merge_operator::{MergeOperator, fold},
};
use keybed_format::Result;

/// Keys with their values, deleted ones left out, operands folded.
pub(crate) struct VisibleIter<'a> {
    merge: MergeIter<'a>,
    operator: Option<&'a dyn MergeOperator>,
    /// First key behind the range.
    end: Option<Vec<u8>>,
    key: Vec<u8>,
    /// The folded value; without one the merge stands at the version that holds it.
    folded: Option<Vec<u8>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The merge stands at a key that was not looked at yet.
    Fresh,
    /// The merge stands at the version that was returned.
    AtTop,
    /// Over, or failed.
    Done,
}

impl<'a> VisibleIter<'a> {
    /// `merge` stands at the start of the range.
    pub(crate) fn new(
        merge: MergeIter<'a>,
        operator: Option<&'a dyn MergeOperator>,
        end: Option<Vec<u8>>,
    ) -> Self {
        VisibleIter {
            merge,
            operator,
            end,
            key: Vec::new(),
            folded: None,
            state: State::Fresh,
        }
    }

    /// Moves to the next key; false behind the last. After an error it is over.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let result = self.step();
        if !matches!(result, Ok(true)) {
            self.state = State::Done;
        }
        result
    }

    fn step(&mut self) -> Result<bool> {
        match self.state {
            State::Fresh => {}
            State::AtTop => self.merge.skip(&self.key)?,
            State::Done => return Ok(false),
        }
        self.state = State::Fresh;
        self.folded = None;
        loop {
            let Some(entry) = self.merge.top() else {
                return Ok(false);
            };
            if self.end.as_ref().is_some_and(|end| entry.key >= end.as_slice()) {
                return Ok(false);
            }
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            match entry.kind {
                EntryKind::Put => {
                    self.state = State::AtTop;
                    return Ok(true);
                }
                EntryKind::Delete => self.merge.skip(&self.key)?,
                EntryKind::Merge => {
                    self.folded = Some(self.fold()?);
                    return Ok(true);
                }
            }
        }
    }

    /// Folds the versions of the key it stands at and moves past them.
    fn fold(&mut self) -> Result<Vec<u8>> {
        let mut operands = Vec::new();
        loop {
            match self.merge.top() {
                Some(entry) if crate::key::equal(entry.key, &self.key) => match entry.kind {
                    EntryKind::Merge => operands.push(entry.value.to_vec()),
                    kind => {
                        let base = (kind == EntryKind::Put).then_some(entry.value);
                        let value = fold(self.operator, base, &operands)?;
                        self.merge.skip(&self.key)?;
                        return Ok(value);
                    }
                },
                _ => return fold(self.operator, None, &operands),
            }
            self.merge.advance()?;
        }
    }

    /// The key it stands at.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value of that key.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match &self.folded {
            Some(value) => value,
            None => self.merge.top().map_or(&[], |entry| entry.value),
        }
    }
}
