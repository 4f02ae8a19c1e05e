//! A map per key; entries are stored one by one, in the order of the encoded map key.

use crate::{
    Change, Codec, EntryScan, KeyCodec, StateAccess,
    codec::{decode_key, decode_value},
    current::Slot,
};
use keybed_format::Result;
use std::{fmt, marker::PhantomData};

/// Entries removed per scan by [`MapState::clear`].
const CLEAR_BATCH: usize = 1024;

/// A token for a map per key (and namespace, if declared so).
///
/// ```text
/// entry   [key group][state id][key][map key]               key-first
///         [key group][state id][namespace][key][map key]    namespace-first
/// value   the codec's bytes
/// ```
/// Verbs on one map key touch that entry alone, however large the map is.
pub struct MapState<K, V> {
    slot: Slot,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K, V> MapState<K, V> {
    pub(crate) fn new(slot: Slot) -> Self {
        MapState {
            slot,
            marker: PhantomData,
        }
    }
}

impl<K: KeyCodec, V: Codec> MapState<K, V> {
    /// The value under `key`.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `Malformed` if the bytes are not a `V`; reading may fail.
    pub fn get(self, ctx: &mut impl StateAccess, key: &K) -> Result<Option<V>> {
        ctx.keyed()
            .read_entry(self.slot, |out| key.encode_key(out), decode_value)
    }

    /// Whether there is a value under `key`; the value is not decoded.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; reading may fail.
    pub fn contains(self, ctx: &mut impl StateAccess, key: &K) -> Result<bool> {
        Ok(ctx
            .keyed()
            .read_entry(self.slot, |out| key.encode_key(out), |_| Ok(()))?
            .is_some())
    }

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; `KeyTooLarge`, `ValueTooLarge`; writing may fail.
    pub fn put(self, ctx: &mut impl StateAccess, key: &K, value: &V) -> Result {
        ctx.keyed()
            .write_entry(self.slot, |out| key.encode_key(out), |out| value.encode(out))
    }

    /// Removes the value under `key`, whether there is one or not.
    ///
    /// # Errors
    /// As [`MapState::put`].
    pub fn remove(self, ctx: &mut impl StateAccess, key: &K) -> Result {
        ctx.keyed().remove_entry(self.slot, |out| key.encode_key(out))
    }

    /// Replaces the value under `key` by `change` of it and returns the new one; one look-up.
    ///
    /// # Errors
    /// As [`MapState::get`] and [`MapState::put`].
    pub fn update(
        self,
        ctx: &mut impl StateAccess,
        key: &K,
        change: impl FnOnce(Option<V>) -> V,
    ) -> Result<V> {
        ctx.keyed().change_entry(
            self.slot,
            |out| key.encode_key(out),
            |old, out| {
                let new = change(old.map(decode_value).transpose()?);
                new.encode(out);
                Ok((Change::Put, new))
            },
        )
    }

    /// All entries in the order of the encoded map key. Nothing can be written while it lives.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; reading may fail.
    pub fn iter<A: StateAccess>(self, ctx: &mut A) -> Result<MapIter<'_, K, V>> {
        let (prefix_bytes, scan) = ctx.keyed().scan_entries(self.slot)?;
        Ok(MapIter {
            scan,
            prefix_bytes,
            failed: false,
            marker: PhantomData,
        })
    }

    /// Whether the map has no entry.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn is_empty(self, ctx: &mut impl StateAccess) -> Result<bool> {
        let (_, mut scan) = ctx.keyed().scan_entries(self.slot)?;
        Ok(scan.next_entry()?.is_none())
    }

    /// Removes all entries; holds the keys of at most a thousand of them in memory.
    ///
    /// # Errors
    /// As [`MapState::iter`] and [`MapState::put`].
    pub fn clear(self, ctx: &mut impl StateAccess) -> Result {
        let state = ctx.keyed();
        loop {
            let mut keys = Vec::new();
            let (_, mut scan) = state.scan_entries(self.slot)?;
            while keys.len() < CLEAR_BATCH
                && let Some((key, _)) = scan.next_entry()?
            {
                keys.push(key.to_vec());
            }
            drop(scan);
            for key in &keys {
                state.remove_key(self.slot.family, key)?;
            }
            if keys.len() < CLEAR_BATCH {
                return Ok(());
            }
        }
    }
}

/// Entries of a map in the order of the encoded map key; ends after the first error.
pub struct MapIter<'a, K, V> {
    scan: Box<dyn EntryScan + 'a>,
    prefix_bytes: usize,
    failed: bool,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> MapIter<'_, K, V> {
    fn step(&mut self) -> Result<Option<(K, V)>> {
        let Some((key, value)) = self.scan.next_entry()? else {
            return Ok(None);
        };
        // A scan yields only keys that start with the prefix.
        Ok(Some((
            decode_key(&key[self.prefix_bytes..])?,
            decode_value(value)?,
        )))
    }
}

impl<K: KeyCodec, V: Codec> Iterator for MapIter<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = !matches!(step, Some(Ok(_)));
        step
    }
}

impl<K, V> fmt::Debug for MapIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIter").finish_non_exhaustive()
    }
}

impl<K, V> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for MapState<K, V> {}

impl<K, V> fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapState({:?})", self.slot)
    }
}
