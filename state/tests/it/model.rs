//! What keyed state should do, in plain maps; shares no code with the crate, encodings included.

use keybed_format::checksum;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) totals: BTreeMap<u64, u64>,
    pub(crate) lists: BTreeMap<u64, Vec<String>>,
    pub(crate) maps: BTreeMap<u64, BTreeMap<String, i32>>,
    /// By window, then key.
    pub(crate) windows: BTreeMap<(i64, u64), u64>,
    pub(crate) window_maps: BTreeMap<(i64, u64), BTreeMap<String, i32>>,
    /// Time, key, namespace.
    pub(crate) timers: BTreeSet<(i64, u64, Option<i64>)>,
}

fn number(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn signed(value: i64) -> Vec<u8> {
    let shifted = (i128::from(value) + (1_i128 << 63)) as u64;
    number(shifted)
}

fn escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(255);
        }
    }
    out.extend([0, 1]);
    out
}

fn with_length(bytes: &[u8], out: &mut Vec<u8>) {
    let mut left = bytes.len();
    loop {
        let low = (left % 128) as u8;
        left /= 128;
        if left == 0 {
            out.push(low);
            break;
        }
        out.push(low + 128);
    }
    out.extend(bytes);
}

impl Model {
    /// Count of entries and the sum of their hashes, from the definition of the logical digest.
    pub(crate) fn digest(&self, operator: &str) -> (u64, u128) {
        let mut entries = Vec::new();
        let mut add = |state: &str, components: Vec<u8>, index: usize, value: Vec<u8>| {
            let mut bytes = Vec::new();
            with_length(operator.as_bytes(), &mut bytes);
            with_length(state.as_bytes(), &mut bytes);
            with_length(&components, &mut bytes);
            bytes.extend((index as u64).to_le_bytes());
            with_length(&value, &mut bytes);
            entries.push(bytes);
        };
        for (key, total) in &self.totals {
            add("total", number(*key), 0, total.to_le_bytes().into());
        }
        for (key, list) in &self.lists {
            for (index, element) in list.iter().enumerate() {
                let mut value = Vec::new();
                with_length(element.as_bytes(), &mut value);
                add("recent", number(*key), index, value);
            }
        }
        for (key, map) in &self.maps {
            for (name, count) in map {
                add(
                    "by-sku",
                    [number(*key), escaped(name)].concat(),
                    0,
                    count.to_le_bytes().into(),
                );
            }
        }
        for ((window, key), count) in &self.windows {
            add(
                "in-window",
                [signed(*window), number(*key)].concat(),
                0,
                count.to_le_bytes().into(),
            );
        }
        for ((window, key), map) in &self.window_maps {
            for (name, count) in map {
                let components = [signed(*window), number(*key), escaped(name)].concat();
                add("window-skus", components, 0, count.to_le_bytes().into());
            }
        }
        for (time, key, namespace) in &self.timers {
            let namespace = namespace.map(signed).unwrap_or_default();
            add(
                "",
                [signed(*time), number(*key), namespace].concat(),
                0,
                Vec::new(),
            );
        }
        let hash = |bytes: &[u8]| {
            let (high, low) = (checksum::bound(bytes, 0, 0), checksum::bound(bytes, 1, 0));
            (u128::from(high) << 64) + u128::from(low)
        };
        let sum = entries
            .iter()
            .fold(0_u128, |sum, bytes| sum.wrapping_add(hash(bytes)));
        (entries.len() as u64, sum)
    }
}
