//! One value per key.

use crate::{Change, Codec, StateAccess, codec::decode_value, current::Slot};
use keybed_format::Result;
use std::{fmt, marker::PhantomData};

/// A token for one value per key (and namespace, if declared so).
///
/// ```text
/// entry   [key group][state id][key]                 key-first
///         [key group][state id][namespace][key]      namespace-first
/// value   the codec's bytes
/// ```
/// Copy it freely; the data lies in the [`KeyedState`](crate::KeyedState) that every verb takes.
pub struct ValueState<T> {
    slot: Slot,
    marker: PhantomData<fn() -> T>,
}

impl<T> ValueState<T> {
    pub(crate) fn new(slot: Slot) -> Self {
        ValueState {
            slot,
            marker: PhantomData,
        }
    }
}

impl<T: Codec> ValueState<T> {
    /// The current key's value; absent is `None`.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `Malformed` if the bytes are not a `T`; reading may fail.
    pub fn get(self, ctx: &mut impl StateAccess) -> Result<Option<T>> {
        ctx.keyed().read_entry(self.slot, |_| (), decode_value)
    }

    /// Sets the current key's value.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `ValueTooLarge`; writing may fail.
    pub fn set(self, ctx: &mut impl StateAccess, value: &T) -> Result {
        ctx.keyed()
            .write_entry(self.slot, |_| (), |out| value.encode(out))
    }

    /// Removes the current key's value.
    ///
    /// # Errors
    /// As [`ValueState::set`].
    pub fn clear(self, ctx: &mut impl StateAccess) -> Result {
        ctx.keyed().remove_entry(self.slot, |_| ())
    }

    /// Replaces the current key's value by `change` of it and returns the new one; one look-up.
    ///
    /// # Errors
    /// As [`ValueState::get`] and [`ValueState::set`].
    pub fn update(self, ctx: &mut impl StateAccess, change: impl FnOnce(Option<T>) -> T) -> Result<T> {
        ctx.keyed().change_entry(
            self.slot,
            |_| (),
            |old, out| {
                let new = change(old.map(decode_value).transpose()?);
                new.encode(out);
                Ok((Change::Put, new))
            },
        )
    }
}

impl<T> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ValueState<T> {}

impl<T> fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueState({:?})", self.slot)
    }
}
