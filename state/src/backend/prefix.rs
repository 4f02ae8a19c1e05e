//! What the entries of one list or map have in common, for the memtables that hold them: key group, state and key.
//!
//! A key's component has a fixed length, or pieces that say themselves where they end; its schema tells which. What
//! follows a part that cannot be told is left out: the prefix is then shorter, and holds the entries of several keys.

use crate::current::PREFIX_BYTES;
use keybed_lsm::PrefixRule;
use keybed_snapshot::StateCatalogue;

/// The prefix that every scan of a list or map of these states asks for, or a beginning of it.
pub(super) fn prefix_of_keys(catalogue: &StateCatalogue) -> PrefixRule {
    // All living states of an operator have the same keys.
    let living = catalogue.entries().iter().find(|entry| !entry.dropped);
    prefix_of(living.map_or("", |entry| &entry.state.key_schema))
}

fn prefix_of(key_schema: &str) -> PrefixRule {
    let mut rule = PrefixRule {
        bytes: PREFIX_BYTES as u16,
        pieces: 0,
    };
    for part in key_schema.split([',', '<', '>']) {
        match part {
            "tuple" | "void" | "" => {}
            "string" | "bytes" if rule.pieces < u8::MAX => rule.pieces += 1,
            _ => match width(part).and_then(|width| rule.bytes.checked_add(width)) {
                Some(bytes) if rule.pieces == 0 => rule.bytes = bytes,
                _ => break,
            },
        }
    }
    rule
}

/// Bytes of a component that is always as long.
fn width(schema: &str) -> Option<u16> {
    Some(match schema {
        "bool" | "u8" | "i8" => 1,
        "u16" | "i16" => 2,
        "u32" | "i32" | "f32" | "char" => 4,
        "u64" | "i64" | "f64" => 8,
        "u128" | "i128" => 16,
        _ => schema.strip_prefix("bytes[")?.strip_suffix(']')?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyCodec, codec::encode_key};

    fn whole<K: KeyCodec>(keys: &[K]) {
        let rule = prefix_of(&K::key_schema().to_string());
        for key in keys {
            let prefix = [&[0; PREFIX_BYTES][..], &encode_key(key)].concat();
            let entry = [&prefix[..], b"\0\x01 map key"].concat();
            assert_eq!(rule.prefix_bytes(&entry), prefix.len(), "{}", K::key_schema());
        }
    }

    #[test]
    fn the_prefix_is_the_whole_key() {
        whole(&[0_u8, 1, 255]);
        whole(&[1_u64 << 8, 0]);
        whole(&[-1_i128]);
        whole(&[true, false]);
        whole(&['x']);
        whole(&[0.5_f64]);
        whole(&[(), ()]);
        whole(&[String::new(), "a\0b".into(), "\u{1}\0".into()]);
        whole(&[b"\0\x01".to_vec(), vec![0xff]]);
        whole(&[[0_u8, 1, 2]]);
        whole(&[(7_u16, "a".to_owned()), (1, "\0\u{1}".to_owned())]);
        whole(&[("a".to_owned(), "b".to_owned())]);
        whole(&[(1_u8, (2_u32, b"\0".to_vec()))]);
    }

    #[test]
    fn the_prefix_is_a_beginning_of_the_key() {
        for (schema, bytes, pieces) in [
            ("", 4, 0),
            ("option<u64>", 4, 0),
            ("tuple<u8,option<u8>,u8>", 5, 0),
            ("tuple<string,u64>", 4, 1),
            ("my::Key", 4, 0),
            ("bytes[65535]", 4, 0),
        ] {
            assert_eq!(prefix_of(schema), PrefixRule { bytes, pieces }, "{schema}");
        }
    }
}
