//! Order, round trip and hostile input of the built-in codecs.

use super::*;
use proptest::prelude::*;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

fn ordered<K: KeyCodec + PartialEq + std::fmt::Debug>(a: &K, b: &K, order: Ordering) {
    let (bytes_a, bytes_b) = (encode_key(a), encode_key(b));
    assert_eq!(bytes_a.cmp(&bytes_b), order, "{a:?} {b:?}");
    assert_eq!(&decode_key::<K>(&bytes_a).unwrap(), a);
    if order != Ordering::Equal {
        assert!(
            !bytes_b.starts_with(&bytes_a) && !bytes_a.starts_with(&bytes_b),
            "{a:?} {b:?}"
        );
    }
}

macro_rules! order_of {
    ($($name:ident: $type:ty;)*) => {
        proptest! {
            $(#[test]
            fn $name(a: $type, b: $type) {
                ordered(&a, &b, a.cmp(&b));
                ordered(&a, &a, Ordering::Equal);
            })*
        }
    };
}

order_of! {
    order_of_u8: u8;
    order_of_u16: u16;
    order_of_u32: u32;
    order_of_u64: u64;
    order_of_u128: u128;
    order_of_i8: i8;
    order_of_i16: i16;
    order_of_i32: i32;
    order_of_i64: i64;
    order_of_i128: i128;
    order_of_bool: bool;
    order_of_char: char;
    order_of_string: String;
    order_of_bytes: Vec<u8>;
    order_of_fixed_bytes: [u8; 3];
    order_of_option: Option<Vec<u8>>;
    order_of_pair: (Vec<u8>, i32);
    order_of_triple: (Option<String>, bool, Vec<u8>);
    order_of_quadruple: (i8, Vec<u8>, Vec<u8>, u16);
    order_of_nested: ((Vec<u8>, u8), Option<(String, i64)>);
}

/// Short strings over few bytes meet the escape and each other's prefixes far more often than random ones.
fn zeros() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xfe), Just(0xff)], 0..5)
}

proptest! {
    #[test]
    fn order_around_the_escape(a in (zeros(), zeros()), b in (zeros(), zeros())) {
        ordered(&a, &b, a.cmp(&b));
    }

    #[test]
    fn order_of_floats_is_total_cmp(a: u64, b: u64, c: u32, d: u32) {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        prop_assert_eq!(encode_key(&a).cmp(&encode_key(&b)), a.total_cmp(&b));
        prop_assert_eq!(decode_key::<f64>(&encode_key(&a)).unwrap().to_bits(), a.to_bits());
        let (c, d) = (f32::from_bits(c), f32::from_bits(d));
        prop_assert_eq!(encode_key(&c).cmp(&encode_key(&d)), c.total_cmp(&d));
        prop_assert_eq!(decode_key::<f32>(&encode_key(&c)).unwrap().to_bits(), c.to_bits());
    }

    #[test]
    fn values_come_back(
        a: (u8, u16, u32, u64, u128, bool),
        b: (i8, i16, i32, i64, i128, char),
        c: (String, Vec<u8>, Option<Vec<String>>, [u8; 4], Vec<(u32, bool)>, ()),
        tail: Vec<u8>,
    ) {
        let value = (a, b, c);
        let mut bytes = encode_value(&value);
        prop_assert_eq!(&decode_value::<Everything>(&bytes).unwrap(), &value);
        let end = bytes.len();
        bytes.extend_from_slice(&tail);
        let mut input = Cursor::new(&bytes);
        prop_assert_eq!(&Everything::decode(&mut input).unwrap(), &value);
        prop_assert_eq!(input.position(), end);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        // What matters is that these return; most are errors.
        let _ = decode_value::<Everything>(&bytes);
        let _ = decode_value::<(Vec<Vec<String>>, Option<char>)>(&bytes);
        let _ = decode_key::<(Option<String>, Vec<u8>, char, bool)>(&bytes);
    }
}

type Everything = (
    (u8, u16, u32, u64, u128, bool),
    (i8, i16, i32, i64, i128, char),
    (
        String,
        Vec<u8>,
        Option<Vec<String>>,
        [u8; 4],
        Vec<(u32, bool)>,
        (),
    ),
);

#[test]
fn golden_components_pin_the_format() {
    assert_eq!(encode_key(&0x0102_u16), [1, 2]);
    assert_eq!(encode_key(&-1_i32), [0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(encode_key(&1_i64), [0x80, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(encode_key(&1.0_f64), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        encode_key(&-1.0_f64),
        [0x40, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
    );
    assert_eq!(encode_key(&"ab".to_owned()), [b'a', b'b', 0, 1]);
    assert_eq!(encode_key(&vec![1_u8, 0, 2]), [1, 0, 0xff, 2, 0, 1]);
    assert_eq!(encode_key(&Some(7_u8)), [1, 7]);
    assert_eq!(encode_key(&None::<u8>), [0]);
    assert_eq!(encode_key(&(true, 'A')), [1, 0, 0, 0, 0x41]);
    assert_eq!(encode_key(&()), []);
}

#[test]
fn golden_values_pin_the_format() {
    assert_eq!(encode_value(&0x0102_u16), [2, 1]);
    assert_eq!(encode_value(&-2_i32), [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(encode_value(&"ab".to_owned()), [2, b'a', b'b']);
    assert_eq!(encode_value(&vec![5_u16, 6]), [2, 5, 0, 6, 0]);
    assert_eq!(encode_value(&(Some(true), None::<u8>)), [1, 1, 0]);
    assert_eq!(encode_value(&1.5_f32), [0, 0, 0xc0, 0x3f]);
}

#[test]
fn schema_texts_pin_the_format() {
    let text = |schema: Schema| {
        schema.check().unwrap();
        schema.to_string()
    };
    assert_eq!(
        text(<(u64, Option<String>)>::schema()),
        "tuple<u64,option<string>>"
    );
    assert_eq!(text(<Vec<(f64, [u8; 3])>>::schema()), "list<tuple<f64,bytes[3]>>");
    assert_eq!(text(<(i32, Vec<u8>, ())>::key_schema()), "tuple<i32,bytes,void>");
    assert_eq!(
        text(<([u16; 3], Vec<u8>, Box<char>)>::schema()),
        "tuple<array<u16,3>,bytes,char>"
    );
    assert_eq!(
        text(HashMap::<String, Duration>::schema()),
        "map<string,duration>"
    );
    assert_eq!(text(BTreeMap::<u8, SystemTime>::schema()), "map<u8,timestamp>");
}

#[test]
fn a_list_of_nothing_is_no_bomb() {
    let mut out = Sink::new();
    out.varint(u64::MAX);
    assert!(decode_value::<Vec<()>>(out.as_slice()).is_err());
}

#[test]
fn golden_maps_arrays_and_times_pin_the_format() {
    let map = HashMap::<u16, bool>::from_iter([(7, true), (3, false)]);
    let bytes = [2, 3, 0, 0, 7, 0, 1];
    assert_eq!(encode_value(&map), bytes);
    assert_eq!(decode_value::<HashMap<u16, bool>>(&bytes).unwrap(), map);
    assert_eq!(
        decode_value::<BTreeMap<u16, bool>>(&bytes).unwrap(),
        BTreeMap::from_iter(map)
    );
    assert!(decode_value::<BTreeMap<u16, bool>>(&[2, 3, 0, 0, 3, 0, 1]).is_err());
    assert_eq!(encode_value(&[1_u16, 2]), [1, 0, 2, 0]);
    assert_eq!(decode_value::<[u16; 2]>(&[1, 0, 2, 0]).unwrap(), [1, 2]);
    assert!(decode_value::<[u16; 2]>(&[1, 0, 2]).is_err());
    let span = Duration::new(1, 2);
    assert_eq!(encode_value(&span), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(encode_key(&span), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    assert!(decode_value::<Duration>(&[0xff; 12]).is_err());
    let point = SystemTime::UNIX_EPOCH - Duration::from_nanos(1);
    assert_eq!(encode_value(&point)[..8], [0xff; 8]);
    assert_eq!(encode_value(&point)[8..], 999_999_999_u32.to_le_bytes());
}

proptest! {
    #[test]
    fn order_of_times(a: (u64, u32), b: (u64, u32), c: (i32, u32), d: (i32, u32)) {
        let span = |(seconds, nanos): (u64, u32)| Duration::new(seconds >> 1, nanos % 1_000_000_000);
        let (a, b) = (span(a), span(b));
        ordered(&a, &b, a.cmp(&b));
        prop_assert_eq!(decode_value::<Duration>(&encode_value(&a)).unwrap(), a);
        let point = |(seconds, nanos): (i32, u32)| {
            let span = Duration::new(seconds.unsigned_abs().into(), nanos % 1_000_000_000);
            if seconds < 0 { SystemTime::UNIX_EPOCH - span } else { SystemTime::UNIX_EPOCH + span }
        };
        let (c, d) = (point(c), point(d));
        ordered(&c, &d, c.cmp(&d));
        prop_assert_eq!(decode_value::<SystemTime>(&encode_value(&c)).unwrap(), c);
    }
}
