//! One value per key: what a reader sees of merged versions.

use super::MergeIter;
use crate::{
    key::EntryKind,
    merge_operator::{MergeOperator, fold},
};
use keybed_format::Result;
use std::ops::ControlFlow;

/// Keys with their values, deleted ones left out, operands folded; up or down, as the merge goes.
pub(crate) struct VisibleIter<'a> {
    /// Inside of the bounds by itself. Stands at the key that was returned.
    merge: MergeIter<'a>,
    operator: Option<&'a dyn MergeOperator>,
    /// The folded value; without one the merge stands at the version that holds it.
    folded: Option<Vec<u8>>,
    state: State,
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
    pub(crate) fn new(merge: MergeIter<'a>, operator: Option<&'a dyn MergeOperator>) -> Self {
        VisibleIter {
            merge,
            operator,
            folded: None,
            state: State::Fresh,
        }
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
            match kind {
                EntryKind::Put => self.folded = None,
                EntryKind::Delete => {
                    self.merge.step_key()?;
                    continue;
                }
                EntryKind::Merge => self.folded = Some(self.fold()?),
            }
            self.state = State::AtKey;
            return Ok(true);
        }
    }

    /// Folds the versions of the key it stands at.
    #[cold]
    fn fold(&mut self) -> Result<Vec<u8>> {
        let mut operands = Vec::new();
        let mut base = None;
        self.merge.versions(|entry| {
            match entry.kind {
                EntryKind::Merge => {
                    operands.push(entry.value.to_vec());
                    return ControlFlow::Continue(());
                }
                EntryKind::Put => base = Some(entry.value.to_vec()),
                EntryKind::Delete => {}
            }
            ControlFlow::Break(())
        })?;
        fold(self.operator, base.as_deref(), &operands)
    }

    /// Key and value it stands at.
    #[inline]
    pub(crate) fn entry(&self) -> Option<(&[u8], &[u8])> {
        if self.state != State::AtKey {
            return None;
        }
        let entry = self.merge.top()?;
        Some((entry.key, self.folded.as_deref().unwrap_or(entry.value)))
    }
}
