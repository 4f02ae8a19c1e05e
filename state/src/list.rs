//! A list per key, stored as chunks (docs/format/state-value.md).

use crate::{
    Change, Codec, KeyedState, StateAccess,
    chunk::{Chunk, TAIL},
    codec::decode_value,
    current::Slot,
};
use keybed_format::{Code, Error, Result, Sink};
use std::{fmt, marker::PhantomData};

/// A token for a list per key (and namespace, if declared so); elements keep the order in which they came.
///
/// ```text
/// entry   [key group][state id][key][chunk id]               key-first
///         [key group][state id][namespace][key][chunk id]    namespace-first
/// value   chunk: docs/format/state-value.md
/// ```
/// An empty list is an absent one. Appending costs one look-up and never reads more than the newest chunk.
pub struct ListState<T> {
    slot: Slot,
    marker: PhantomData<fn() -> T>,
}

impl<T> ListState<T> {
    pub(crate) fn new(slot: Slot) -> Self {
        ListState {
            slot,
            marker: PhantomData,
        }
    }
}

impl<T: Codec> ListState<T> {
    /// Appends one element.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `ValueTooLarge`; reading or writing may fail.
    pub fn push(self, ctx: &mut impl StateAccess, element: &T) -> Result {
        append(ctx.keyed(), self.slot, element)
    }

    /// Appends elements in order.
    ///
    /// # Errors
    /// As [`ListState::push`]; elements before the failed one were appended.
    pub fn extend<'a>(self, ctx: &mut impl StateAccess, elements: impl IntoIterator<Item = &'a T>) -> Result
    where
        T: 'a,
    {
        let state = ctx.keyed();
        elements
            .into_iter()
            .try_for_each(|element| append(state, self.slot, element))
    }

    /// All elements in order; empty if there are none.
    ///
    /// # Errors
    /// As [`ListState::iter`].
    pub fn get(self, ctx: &mut impl StateAccess) -> Result<Vec<T>> {
        self.iter(ctx)?.collect()
    }

    /// Walks over the elements in order, one chunk in memory at a time. Nothing can be written while it lives.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `Malformed` if the bytes are not `T`s; reading may fail.
    pub fn iter<A: StateAccess>(self, ctx: &mut A) -> Result<ListIter<'_, T>> {
        let state = ctx.keyed();
        let sealed = sealed_chunks(state, self.slot)?;
        let left = match sealed {
            None => 0..0,
            Some(sealed) => 0..u64::from(sealed) + 1,
        };
        Ok(ListIter {
            state,
            slot: self.slot,
            left,
            chunk: Vec::new(),
            at: 0,
            count: 0,
            marker: PhantomData,
        })
    }

    /// Whether the list has no element.
    ///
    /// # Errors
    /// As [`ListState::iter`].
    pub fn is_empty(self, ctx: &mut impl StateAccess) -> Result<bool> {
        Ok(sealed_chunks(ctx.keyed(), self.slot)?.is_none())
    }

    /// Replaces the whole list.
    ///
    /// # Errors
    /// As [`ListState::extend`].
    pub fn set<'a>(self, ctx: &mut impl StateAccess, elements: impl IntoIterator<Item = &'a T>) -> Result
    where
        T: 'a,
    {
        self.clear(ctx)?;
        self.extend(ctx, elements)
    }

    /// Removes all elements.
    ///
    /// # Errors
    /// As [`ListState::push`].
    pub fn clear(self, ctx: &mut impl StateAccess) -> Result {
        let state = ctx.keyed();
        let Some(sealed) = sealed_chunks(state, self.slot)? else {
            return Ok(());
        };
        for id in 0..u64::from(sealed) {
            state.remove_entry(self.slot, chunk_id(id))?;
        }
        state.remove_entry(self.slot, chunk_id(TAIL))
    }
}

fn chunk_id(id: u64) -> impl FnOnce(&mut Sink) {
    move |out| {
        out.raw(&id.to_be_bytes());
    }
}

/// How many sealed chunks lie before the tail; `None` if the list is empty.
fn sealed_chunks(state: &mut KeyedState, slot: Slot) -> Result<Option<u32>> {
    state.read_entry(slot, chunk_id(TAIL), |value| Ok(Chunk::parse(value)?.number))
}

/// Appends one element to the tail, which is sealed first if the element does not fit.
fn append<T: Codec>(state: &mut KeyedState, slot: Slot, element: &T) -> Result {
    let mut bytes = state.take_scratch();
    element.encode(&mut bytes);
    let appended = append_bytes(state, slot, bytes.as_slice());
    state.give_scratch(bytes);
    appended
}

fn append_bytes(state: &mut KeyedState, slot: Slot, element: &[u8]) -> Result {
    let full = state.change_entry(slot, chunk_id(TAIL), |old, out| {
        let tail = old.map(Chunk::parse).transpose()?.unwrap_or(Chunk::empty(0));
        if tail.has_room(element) {
            tail.write_with(element, out);
            return Ok((Change::Put, None));
        }
        let sealed = tail.number;
        let next = sealed.checked_add(1).ok_or_else(|| {
            Error::new(Code::ValueTooLarge, "a list has as many chunks as it can have").with("chunks", sealed)
        })?;
        Chunk::empty(next).write_with(element, out);
        Ok((Change::Put, old.map(|value| (sealed, value.to_vec()))))
    })?;
    match full {
        // The old tail's number is the id it now gets. If this write fails, the operator fails with it and restores
        // from the last checkpoint, so nobody sees the gap.
        Some((id, value)) => state.write_entry(slot, chunk_id(u64::from(id)), |out| {
            out.raw(&value);
        }),
        None => Ok(()),
    }
}

/// Elements of a list in order; ends after the first error.
pub struct ListIter<'a, T> {
    state: &'a mut KeyedState,
    slot: Slot,
    /// Chunks not read yet; the last of them is the tail.
    left: std::ops::Range<u64>,
    chunk: Vec<u8>,
    /// Elements of `chunk` not read yet, and where the next one starts.
    count: u32,
    at: usize,
    marker: PhantomData<fn() -> T>,
}

impl<T: Codec> ListIter<'_, T> {
    fn step(&mut self) -> Result<Option<T>> {
        while self.count == 0 {
            let Some(index) = self.left.next() else {
                return Ok(None);
            };
            let id = if self.left.is_empty() { TAIL } else { index };
            let found = self
                .state
                .read_entry(self.slot, chunk_id(id), |value| Ok(value.to_vec()))?;
            self.chunk = found.ok_or_else(|| {
                Error::new(Code::Malformed, "a chunk of a list is missing").with("chunk", id)
            })?;
            let chunk = Chunk::parse(&self.chunk)?;
            (self.count, self.at) = (chunk.count, 0);
        }
        let chunk = Chunk::parse(&self.chunk)?;
        let mut elements = chunk.elements_from(self.at, self.count);
        let element = elements.next_element()?.map(decode_value).transpose()?;
        self.count -= 1;
        self.at = elements.position();
        Ok(element)
    }
}

impl<T: Codec> Iterator for ListIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            (self.left, self.count) = (0..0, 0);
        }
        step
    }
}

impl<T> fmt::Debug for ListIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListIter").finish_non_exhaustive()
    }
}

impl<T> Clone for ListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ListState<T> {}

impl<T> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListState({:?})", self.slot)
    }
}
