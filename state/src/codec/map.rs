//! Maps inside a value: a count, then keys and values in ascending order of the keys, each key once.
//!
//! Large maps whose entries are used one by one belong into a [`MapState`](crate::MapState); these are read and
//! written whole.

use super::Codec;
use keybed_format::{Cursor, Result, Sink};
use keybed_snapshot::Schema;
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash},
};

fn encode_sorted<'a, K: Codec + 'a, V: Codec + 'a>(
    entries: impl ExactSizeIterator<Item = (&'a K, &'a V)>,
    out: &mut Sink,
) {
    out.count(entries.len());
    for (key, value) in entries {
        key.encode(out);
        value.encode(out);
    }
}

fn decode_sorted<K: Codec + Ord, V: Codec>(input: &mut Cursor<'_>) -> Result<Vec<(K, V)>> {
    let mut entries: Vec<(K, V)> = Vec::new();
    for _ in 0..input.count(1)? {
        let key = K::decode(input)?;
        if entries.last().is_some_and(|(before, _)| *before >= key) {
            return Err(input.malformed("keys of a map do not ascend"));
        }
        entries.push((key, V::decode(input)?));
    }
    Ok(entries)
}

fn schema<K: Codec, V: Codec>() -> Schema {
    Schema::Map(Box::new(K::schema()), Box::new(V::schema()))
}

impl<K: Codec + Ord, V: Codec> Codec for BTreeMap<K, V> {
    fn encode(&self, out: &mut Sink) {
        encode_sorted(self.iter(), out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(decode_sorted(input)?.into_iter().collect())
    }

    fn schema() -> Schema {
        schema::<K, V>()
    }
}

/// The same bytes as a [`BTreeMap`]: equal maps have equal bytes, however they hash.
impl<K: Codec + Ord + Hash, V: Codec, S: BuildHasher + Default> Codec for HashMap<K, V, S> {
    fn encode(&self, out: &mut Sink) {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        encode_sorted(entries.into_iter(), out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(decode_sorted(input)?.into_iter().collect())
    }

    fn schema() -> Schema {
        schema::<K, V>()
    }
}
