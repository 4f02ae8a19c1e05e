//! Derived codecs: what they write, what they say about it, and how programs change.

use keybed_format::Code;
use keybed_snapshot::{Schema, StateCatalogue, schema::Compatibility, schema::compatibility::compare};
use keybed_state::{
    Codec, KeyCodec, catalogue,
    codec::{Datum, Upgrade, decode_key, decode_value, encode_key, encode_value},
};

#[derive(Codec, KeyCodec, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[keybed(crate = keybed_state, name = "side")]
enum Side {
    #[keybed(id = 0)]
    Buy,
    #[keybed(id = 1)]
    Limit {
        #[keybed(id = 1)]
        cents: u32,
    },
    #[keybed(id = 5)]
    Stop(#[keybed(id = 1)] i8, #[keybed(id = 2)] String),
}

#[derive(Codec, Debug, PartialEq)]
#[keybed(crate = keybed_state, retired(3))]
struct Order {
    #[keybed(id = 1)]
    id: u32,
    #[keybed(id = 2)]
    side: Side,
    #[keybed(id = 4, default = 7)]
    r#type: u8,
    #[keybed(id = 5, default)]
    notes: Vec<String>,
}

/// The program before.
mod before {
    use super::{Codec, Side};

    #[derive(Codec)]
    #[keybed(crate = keybed_state)]
    pub(super) struct Order {
        #[keybed(id = 1)]
        pub(super) id: u16,
        #[keybed(id = 3)]
        pub(super) gone: String,
        #[keybed(id = 2)]
        pub(super) side: Side,
    }
}

#[derive(Codec, Debug, PartialEq)]
#[keybed(crate = keybed_state)]
struct Pair<A, const N: usize>(#[keybed(id = 1)] A, #[keybed(id = 2)] [u16; N]);

#[derive(Codec)]
#[keybed(crate = keybed_state)]
struct Endless {
    #[keybed(id = 1)]
    inner: Vec<Endless>,
    #[keybed(id = 2)]
    other: Option<Box<Endless>>,
}

fn order() -> Order {
    Order {
        id: 1,
        side: Side::Stop(-1, "m8".into()),
        r#type: 9,
        notes: vec!["x".into()],
    }
}

#[test]
fn derived_bytes_and_texts_are_golden() {
    let bytes = encode_value(&order());
    assert_eq!(bytes, [1, 0, 0, 0, 5, 0xff, 2, b'm', b'8', 9, 1, 1, b'x']);
    assert_eq!(decode_value::<Order>(&bytes).unwrap(), order());
    assert_eq!(
        Order::schema().to_string(),
        "struct Order{1:id:u32,2:side:enum side{0:Buy,1:Limit{1:cents:u32},5:Stop{1:0:i8,2:1:string}},\
         4:type:u8=07,5:notes:list<string>=00,!3}"
    );
    let shown = Datum::decode(&Order::schema(), &bytes).unwrap();
    assert_eq!(
        shown.to_string(),
        r#"{"id":1,"side":{"Stop":{"0":-1,"1":"m8"}},"type":9,"notes":["x"]}"#
    );
    assert_eq!(decode_value::<Side>(&[2]).unwrap_err().code(), Code::Malformed);
    let pair = Pair(true, [1, 2]);
    assert_eq!(encode_value(&pair), [1, 1, 0, 2, 0]);
    assert_eq!(decode_value::<Pair<bool, 2>>(&[1, 1, 0, 2, 0]).unwrap(), pair);
    assert_eq!(
        Pair::<bool, 2>::schema().to_string(),
        "struct Pair{1:0:bool,2:1:array<u16,2>}"
    );
}

#[test]
fn derived_keys_sort_as_their_values() {
    let mut keys = [
        Side::Stop(1, String::new()),
        Side::Limit { cents: 256 },
        Side::Stop(-1, "b".into()),
        Side::Buy,
        Side::Stop(-1, "a".into()),
        Side::Limit { cents: 1 },
    ];
    keys.sort();
    let bytes: Vec<_> = keys.iter().map(encode_key).collect();
    assert!(bytes.is_sorted());
    for (key, bytes) in keys.iter().zip(&bytes) {
        assert_eq!(&decode_key::<Side>(bytes).unwrap(), key);
    }
    assert_eq!(bytes[0], [0]);
    assert_eq!(bytes[1], [1, 0, 0, 0, 1]);
    assert_eq!(Side::key_schema(), Side::schema());
}

#[test]
fn values_of_the_program_before_become_values_of_this_one() {
    let (old, new) = (before::Order::schema(), Order::schema());
    assert_eq!(compare(&old, &new).outcome(), Compatibility::AfterMigration);
    let bytes = encode_value(&before::Order {
        id: 500,
        gone: "gone".into(),
        side: Side::Limit { cents: 3 },
    });
    let mut out = keybed_format::Sink::new();
    Upgrade::between(&old, &new)
        .unwrap()
        .apply(&bytes, &mut out)
        .unwrap();
    let upgraded = decode_value::<Order>(out.as_slice()).unwrap();
    let expected = Order {
        id: 500,
        side: Side::Limit { cents: 3 },
        r#type: 7,
        notes: Vec::new(),
    };
    assert_eq!(upgraded, expected);
    let back = Upgrade::between(&new, &old).unwrap_err();
    assert_eq!(back.code(), Code::ValueSchemaIncompatible);
}

#[test]
fn a_type_that_contains_itself_is_refused_and_others_are_not_blamed() {
    assert!(Endless::schema().check().is_err());
    assert!(Order::schema().check().is_ok());
    let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
        states.value::<Endless>("endless")
    });
    let problems = opened.map(|_| ()).unwrap_err();
    assert_eq!(problems[0].code(), Code::InvalidArgument);
    assert!(
        problems[0].to_string().contains("contains itself"),
        "{}",
        problems[0]
    );
}

#[test]
fn a_restore_takes_schemas_of_the_same_bytes_and_tells_every_other_difference() {
    let open = |schema: Schema, restored: &StateCatalogue| {
        // What a program with this schema would have declared.
        let mut state = restored.find("order").map(|entry| entry.state.clone()).unwrap();
        state.value_schema = schema.to_string();
        catalogue::merge(restored, &[state])
    };
    let first = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
        states.value::<Order>("order")
    });
    let (_, first) = first.unwrap();
    let renamed = Order::schema().to_string().replace(":notes:", ":remarks:");
    let taken = open(Schema::parse(&renamed).unwrap(), &first).unwrap();
    assert_eq!(taken.find("order").unwrap().state.value_schema, renamed);
    let problems = open(before::Order::schema(), &first).unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("not all integers fit") && told[0].contains("path $.id"),
        "{}",
        told[0]
    );
    assert!(told[1].contains("a retired field is used again"), "{}", told[1]);
}
