//! What the groups take a prefix and a range to be, and what they show.

use super::{super::MemtableKind, *};

fn rule(bytes: u16, pieces: u8) -> PrefixRule {
    PrefixRule { bytes, pieces }
}

#[test]
fn a_group_of_another_prefix_with_the_same_hash_is_not_shown() {
    let kind = MemtableKind::Prefix(rule(2, 0));
    let mut memtable = Memtable::new(kind, 1);
    for key in [b"aa1", b"zz1"] {
        let probe = memtable.find(key, key::hash(key));
        memtable.write(probe, key, 1, key::EntryKind::Put, b"");
    }
    // As if the hashes of the prefixes were that of another one, too.
    for (prefix, other) in [(b"aa", b"mm"), (b"zz", b"nn")] {
        let groups = memtable.groups.as_mut().expect("it has groups");
        let (Probe::Found { place: run, .. }, Probe::Vacant { slot, tag }) =
            (groups.find(key::hash(prefix)), groups.find(key::hash(other)))
        else {
            panic!("the one is there, the other is not")
        };
        groups.slots[run as usize] = header(key::hash(other), 1, 1);
        groups.index.insert(slot, tag, run);
        let order = memtable.order_of_group(&KeyRange::prefix(other));
        let Some(Order::Sorted(places)) = order else {
            panic!("keys of one prefix are in order")
        };
        assert!(places.is_empty(), "{other:?} shows {places:?}");
    }
}

#[test]
fn a_prefix_ends_behind_its_bytes_and_pieces() {
    let key = b"\x05\0\xffab\0\x01\0\x01rest";
    let cases = [
        (0, 0, 0),
        (3, 0, 3),
        (1, 1, 7),
        (1, 2, 9),
        (1, 3, 13),
        (6, 1, 9),
        (20, 1, 13),
    ];
    for (bytes, pieces, expected) in cases {
        assert_eq!(
            rule(bytes, pieces).prefix_bytes(key),
            expected,
            "{bytes} and {pieces}"
        );
    }
}

#[test]
fn a_range_lies_within_one_prefix_or_not() {
    let range = |start: &[u8], end: Option<&[u8]>| KeyRange {
        start: start.to_vec(),
        end: end.map(<[u8]>::to_vec),
    };
    let of = |range: &KeyRange| rule(2, 0).prefix_of(range).map(<[u8]>::to_vec);
    assert_eq!(of(&KeyRange::prefix(b"ab")), Some(b"ab".to_vec()));
    assert_eq!(of(&KeyRange::prefix(b"abc")), Some(b"ab".to_vec()));
    assert_eq!(of(&KeyRange::prefix(b"a\xff")), Some(b"a\xff".to_vec()));
    assert_eq!(of(&range(b"ab1", Some(b"ac"))), Some(b"ab".to_vec()));
    for (start, end) in [
        (&b"a"[..], Some(&b"b"[..])),
        (b"ab", Some(b"ad")),
        (b"ab", None),
        (b"\xff\xff", None),
        (b"", Some(b"ab")),
        (b"ab", Some(b"ac\0")),
    ] {
        assert_eq!(of(&range(start, end)), None, "{start:?} to {end:?}");
    }
    let strings = rule(1, 1);
    let whole = KeyRange::prefix(b"\x05ab\0\x01");
    assert_eq!(strings.prefix_of(&whole), Some(&b"\x05ab\0\x01"[..]));
    assert_eq!(strings.prefix_of(&KeyRange::prefix(b"\x05ab")), None);
}
