//! Fragments against a list of range deletes that is searched from end to end.

use super::*;
use proptest::prelude::*;

/// All keys of up to three letters out of a, b and c.
fn all_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..3 {
        let until = keys.len();
        for at in from..until {
            for letter in *b"abc" {
                keys.push([&keys[at][..], &[letter]].concat());
            }
        }
        from = until;
    }
    keys
}

#[derive(Clone, Debug)]
struct Model(Vec<(KeyRange, Seqno)>);

impl Model {
    fn covering(&self, key: &[u8]) -> Option<Seqno> {
        let covering = self.0.iter().filter(|(range, _)| range.contains(key));
        covering.map(|(_, seqno)| *seqno).max()
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"abc".to_vec()), 0..4)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop::option::weighted(0.9, key())).prop_map(|(start, end)| KeyRange { start, end })
}

fn deletes() -> impl Strategy<Value = Vec<(KeyRange, Seqno)>> {
    prop::collection::vec((range(), 1..8_u64), 0..12)
}

fn of(list: &[(KeyRange, Seqno)]) -> RangeDeletes {
    let mut deletes = RangeDeletes::new();
    for (range, seqno) in list {
        deletes.insert(range, *seqno);
    }
    deletes
}

/// What must hold of every set of fragments.
fn check(deletes: &RangeDeletes) {
    let fragments: Vec<_> = deletes.iter().collect();
    assert!(fragments.iter().all(|fragment| !fragment.range().is_empty()));
    for pair in fragments.windows(2) {
        let end = pair[0].end.expect("only the last one is unbounded");
        assert!(end <= pair[1].start);
        assert!(
            end < pair[1].start || pair[0].seqno != pair[1].seqno,
            "{deletes:?}"
        );
    }
    let bytes = fragments
        .iter()
        .map(|f| f.start.len() + f.end.map_or(0, <[u8]>::len));
    assert_eq!(deletes.key_bytes(), bytes.sum::<usize>());
}

proptest! {
    #[test]
    fn fragments_say_what_the_list_says(list in deletes()) {
        let (deletes, model) = (of(&list), Model(list));
        check(&deletes);
        for key in all_keys() {
            prop_assert_eq!(deletes.covering(&key), model.covering(&key), "{:?}", key);
            let region = deletes.region(&key);
            prop_assert!(region.keys.contains(&key));
            prop_assert_eq!(region.seqno, model.covering(&key));
            for other in all_keys().iter().filter(|other| region.keys.contains(other)) {
                prop_assert_eq!(model.covering(other), region.seqno);
            }
        }
        let mut joined = of(&model.0[..model.0.len() / 2]);
        joined.extend(&of(&model.0[model.0.len() / 2..]));
        prop_assert_eq!(joined, deletes);
    }

    #[test]
    fn bytes_survive_and_broken_ones_are_refused(list in deletes(), at: usize, bit in 0..8_u8) {
        let deletes = of(&list);
        let mut bytes = deletes.encode();
        prop_assert_eq!(RangeDeletes::decode(&bytes, 7).unwrap(), deletes);
        let at = at % bytes.len();
        prop_assert!(RangeDeletes::decode(&bytes[..at], 7).is_err());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = RangeDeletes::decode(&bytes, 7) {
            check(&other);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn parts_say_what_the_whole_says_about_their_keys(list in deletes(), part in range(), at in key(), seqno in 0..8_u64) {
        let deletes = of(&list);
        let clipped = deletes.clip(&part);
        let (mut left, mut pieces) = (deletes.clone(), deletes.clone());
        let right = left.split_off(&at);
        for key in all_keys() {
            let expected = deletes.covering(&key);
            prop_assert_eq!(clipped.covering(&key), expected.filter(|_| part.contains(&key)));
            prop_assert_eq!(left.covering(&key), expected.filter(|_| key < at));
            prop_assert_eq!(right.covering(&key), expected.filter(|_| key >= at));
        }
        [&clipped, &left, &right].into_iter().for_each(check);
        // The keys of the model are not all there are, so only one direction holds.
        if deletes.covers(&part, seqno) {
            let mut inside = all_keys().into_iter().filter(|key| part.contains(key));
            prop_assert!(inside.all(|key| deletes.covering(&key) > Some(seqno)));
        }
        let mut count = 0;
        while let Some(point) = pieces.split_point(2, 6).map(<[u8]>::to_vec) {
            let rest = pieces.split_off(&point);
            prop_assert!((1..=2).contains(&pieces.len()));
            count += pieces.len();
            pieces = rest;
        }
        prop_assert_eq!(count + pieces.len(), deletes.len());
    }
}

#[test]
fn whole_ranges_are_covered() {
    let part = |start: &[u8], end: &[u8]| KeyRange {
        start: start.to_vec(),
        end: Some(end.to_vec()),
    };
    let deletes = of(&[(part(b"b", b"d"), 5), (part(b"d", b"f"), 7)]);
    assert!(deletes.covers(&part(b"b", b"f"), 4) && deletes.covers(&part(b"bb", b"dd"), 4));
    assert!(!deletes.covers(&part(b"b", b"f"), 5) && !deletes.covers(&part(b"b", b"g"), 4));
    assert!(deletes.covers(&part(b"d", b"e"), 6) && !deletes.covers(&KeyRange::prefix(b"f"), 1));
    assert!(of(&[(KeyRange::all(), 1)]).covers(&KeyRange::all(), 0));
}

#[test]
fn bounds_behind_the_longest_key_are_bounds_of_keys() {
    let longest = vec![b'a'; KEY_BYTES_MAX];
    let behind = [&longest[..], &[0]].concat();
    let from = KeyRange {
        start: behind.clone(),
        end: None,
    };
    let deletes = of(&[(from, 3)]);
    assert_eq!(
        deletes.extent().unwrap().start,
        [&longest[..KEY_BYTES_MAX - 1], b"b"].concat()
    );
    let until = KeyRange {
        start: longest.clone(),
        end: Some(behind),
    };
    assert_eq!(of(&[(until, 3)]).covering(&longest), Some(3));
    let nothing = KeyRange {
        start: [&vec![0xff; KEY_BYTES_MAX][..], &[0]].concat(),
        end: None,
    };
    assert!(of(&[(nothing, 3)]).is_empty());
}

#[test]
fn a_write_marks_the_fragment_it_falls_into_and_no_other() {
    let mut deletes = of(&[(KeyRange::prefix(b"a"), 5), (KeyRange::prefix(b"c"), 6)]);
    deletes.note_write(b"b");
    assert!(!deletes.region(b"a").is_rewritten && !deletes.region(b"c").is_rewritten);
    deletes.note_write(b"c1");
    assert!(!deletes.region(b"a").is_rewritten && deletes.region(b"c").is_rewritten);
    deletes.insert(&KeyRange::prefix(b"c"), 9);
    assert!(!deletes.region(b"c").is_rewritten);
}

#[test]
fn a_section_with_too_many_fragments_is_refused() {
    let mut out = Sink::new();
    out.count(TABLE_RANGE_DELETES_MAX + 1);
    out.raw(&vec![0; 3 * (TABLE_RANGE_DELETES_MAX + 1)]);
    assert!(
        RangeDeletes::decode(out.as_slice(), 0)
            .unwrap_err()
            .to_string()
            .contains("too many")
    );
}
