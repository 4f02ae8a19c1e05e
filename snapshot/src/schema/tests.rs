//! Texts, bounds, and every rule of compatibility both ways.

use super::{Compatibility::*, compatibility::*, *};
use keybed_format::Code;
use proptest::prelude::*;

/// Golden texts: what is written here is read for ever. The page has the same list.
const GOLDEN: &[&str] = &[
    "u64",
    "option<u64>",
    "list<string>",
    "array<f64,3>",
    "map<string,u32>",
    "tuple<u8,bool,timestamp>",
    "bytes[16]",
    "struct order{1:id:u64,2:sku:string,4:paid:bool=00,!3}",
    "enum side{0:buy,1:limit{1:price:u64},!2}",
    "struct nothing{}",
    "opaque\"orders of \\\"the\\\" old shop\"",
    "postcard\"order 3\"",
];

fn parse(text: &str) -> Schema {
    Schema::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn golden_texts_are_as_on_the_page() {
    let page = include_str!("../../../docs/format/schema.md");
    for text in GOLDEN {
        assert_eq!(parse(text).to_string(), *text);
        assert!(page.contains(text), "{text}");
        parse(text).check().unwrap();
    }
    for primitive in Primitive::ALL {
        assert_eq!(parse(primitive.as_str()), Schema::from(*primitive));
        assert!(
            page.contains(&format!("`{}`", primitive.as_str())),
            "{primitive:?}"
        );
    }
}

#[test]
fn texts_that_are_not_canonical_are_refused() {
    for text in [
        "",
        "u65",
        "u8 ",
        " u8",
        "tuple<>",
        "tuple<u8",
        "tuple<u8,>",
        "option<u8>x",
        "bytes[]",
        "bytes[-1]",
        "bytes[01]",
        "bytes[4294967296]",
        "array<u8>",
        "array<u8, 3>",
        "struct{}",
        "struct {}",
        "struct a",
        "struct a{1:x:u8,}",
        "struct a{,1:x:u8}",
        "struct a{1:x:u8=0}",
        "struct a{1:x:u8=0A}",
        "struct a{!1,2:x:u8}",
        "struct a{!2,!1}",
        "struct a{1:x:u8,1:y:u8}",
        "struct a{1:x:u8,2:x:u8}",
        "struct a{1:x:u8,!1}",
        "struct a{1::u8}",
        "struct a-b{}",
        "enum a{1:x,0:y}",
        "enum a{0:x{}}",
        "enum a{0:x,1:x}",
        "enum a{0:x,!0}",
        "list<void>",
        "map<void,u8>",
        "array<struct a{},3>",
        "opaque\"\"",
        "opaque\"a",
        "opaque\"\\n\"",
        "order{id:u64}",
        "bytes[1048577]",
    ] {
        let refused = Schema::parse(text).expect_err(text);
        assert!(
            matches!(refused.code(), Code::Malformed | Code::InvalidArgument),
            "{text}"
        );
    }
}

#[test]
fn nothing_is_nested_without_end() {
    let nested = |depth: usize| format!("{}u8{}", "option<".repeat(depth), ">".repeat(depth));
    assert!(Schema::parse(&nested(SCHEMA_DEPTH_MAX - 1)).is_ok());
    assert!(Schema::parse(&nested(SCHEMA_DEPTH_MAX)).is_err());
    assert!(Schema::parse(&"option<".repeat(9_000)).is_err());
    assert!(Schema::parse(&"x".repeat(70_000)).is_err());
    let mut deep = Schema::VOID;
    for _ in 0..SCHEMA_DEPTH_MAX {
        deep = deep.optional();
    }
    assert_eq!(deep.check().unwrap_err().code(), Code::InvalidArgument);
    let fields: Vec<_> = (0..=SCHEMA_PARTS_MAX)
        .map(|id| format!("{id}:f{id}:u8"))
        .collect();
    assert!(Schema::parse(&format!("struct a{{{}}}", fields.join(","))).is_err());
}

/// One rule: its outcome forwards and backwards.
#[track_caller]
fn rule(old: &str, new: &str, forwards: Compatibility, backwards: Compatibility) {
    let found = compare(&parse(old), &parse(new));
    assert_eq!(found.outcome(), forwards, "{old} → {new}: {found:?}");
    let found = compare(&parse(new), &parse(old));
    assert_eq!(found.outcome(), backwards, "{new} → {old}: {found:?}");
}

#[test]
fn integers_only_widen() {
    let integers: Vec<_> = Primitive::ALL.iter().filter(|p| p.integer().is_some()).collect();
    for old in &integers {
        for new in &integers {
            let ((from, negative), (to, signed)) = (old.integer().unwrap(), new.integer().unwrap());
            // Exactly if the lowest and the highest value of the old one are values of the new one.
            let highest = |bits: u32, signed: bool| bits - u32::from(signed);
            let fits = highest(from, negative) <= highest(to, signed) && (signed || !negative);
            let outcome = match (old == new, fits) {
                (true, _) => AsIs,
                (_, true) => AfterMigration,
                _ => Incompatible,
            };
            let found = compare(&Schema::from(**old), &Schema::from(**new));
            assert_eq!(found.outcome(), outcome, "{old:?} {new:?}");
        }
    }
    rule("f32", "f64", Incompatible, Incompatible);
    rule("bool", "u8", Incompatible, Incompatible);
    rule("char", "u32", Incompatible, Incompatible);
    rule("string", "bytes", Incompatible, Incompatible);
    rule("duration", "timestamp", Incompatible, Incompatible);
}

#[test]
fn required_becomes_optional_and_never_the_other_way() {
    rule("u8", "option<u8>", AfterMigration, Incompatible);
    rule("u8", "option<u16>", AfterMigration, Incompatible);
    rule("u16", "option<u8>", Incompatible, Incompatible);
    rule("option<u8>", "option<u32>", AfterMigration, Incompatible);
    rule("option<u8>", "option<option<u8>>", AfterMigration, Incompatible);
}

#[test]
fn containers_follow_what_they_contain() {
    rule("list<u8>", "list<u16>", AfterMigration, Incompatible);
    rule("list<u8>", "option<list<u8>>", AfterMigration, Incompatible);
    rule("list<u8>", "u8", Incompatible, Incompatible);
    rule("array<u8,2>", "array<u16,2>", AfterMigration, Incompatible);
    rule("array<u8,2>", "array<u8,3>", Incompatible, Incompatible);
    rule("array<u8,2>", "list<u8>", Incompatible, Incompatible);
    rule("bytes[2]", "bytes[3]", Incompatible, Incompatible);
    rule("map<u8,u8>", "map<u8,u16>", AfterMigration, Incompatible);
    rule("map<u8,u8>", "map<u16,u8>", Incompatible, Incompatible);
    rule("tuple<u8,bool>", "tuple<u16,bool>", AfterMigration, Incompatible);
    rule("tuple<u8>", "tuple<u8,bool>", Incompatible, Incompatible);
    rule("tuple<u8>", "struct a{1:x:u8}", Incompatible, Incompatible);
}

#[test]
fn fields_are_added_removed_moved_and_renamed() {
    rule(
        "struct a{1:x:u8}",
        "struct b{1:x:u8}",
        AfterReconfiguration,
        AfterReconfiguration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:y:u8}",
        AfterReconfiguration,
        AfterReconfiguration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u8=07}",
        AfterReconfiguration,
        AfterReconfiguration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u8,!2}",
        AfterReconfiguration,
        AfterReconfiguration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u16}",
        AfterMigration,
        Incompatible,
    );
    rule("struct a{1:x:u8}", "struct a{2:x:u8}", Incompatible, Incompatible);
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u8,2:y:u8}",
        Incompatible,
        AfterMigration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u8,2:y:u8=00}",
        AfterMigration,
        AfterMigration,
    );
    rule(
        "struct a{1:x:u8}",
        "struct a{1:x:u8,2:y:option<u8>}",
        Incompatible,
        AfterMigration,
    );
    rule(
        "struct a{1:x:u8,2:y:u8}",
        "struct a{2:y:u8,1:x:u8}",
        AfterMigration,
        AfterMigration,
    );
    rule(
        "struct a{1:x:u8,!2}",
        "struct a{1:x:u8,2:y:u8=00}",
        Incompatible,
        AfterMigration,
    );
    rule(
        "list<struct a{1:x:struct b{1:y:u8}}>",
        "list<struct a{1:x:struct b{1:y:u8,2:z:u8=00}}>",
        AfterMigration,
        AfterMigration,
    );
}

#[test]
fn variants_are_added_and_never_removed() {
    rule(
        "enum a{0:x}",
        "enum b{0:y}",
        AfterReconfiguration,
        AfterReconfiguration,
    );
    rule(
        "enum a{0:x}",
        "enum a{0:x,1:y}",
        AfterReconfiguration,
        Incompatible,
    );
    rule("enum a{0:x}", "enum a{1:x}", Incompatible, Incompatible);
    rule("enum a{0:x,!1}", "enum a{0:x,1:y}", Incompatible, Incompatible);
    rule(
        "enum a{0:x}",
        "enum a{0:x{1:n:u8=00}}",
        AfterMigration,
        AfterMigration,
    );
    rule(
        "enum a{0:x{1:n:u8}}",
        "enum a{0:x{1:n:u16}}",
        AfterMigration,
        Incompatible,
    );
}

#[test]
fn foreign_bytes_stay_what_they_are() {
    rule("opaque\"a\"", "opaque\"a\"", AsIs, AsIs);
    rule("opaque\"a\"", "opaque\"b\"", Incompatible, Incompatible);
    rule("opaque\"a\"", "postcard\"a\"", Incompatible, Incompatible);
    rule("opaque\"a\"", "option<opaque\"a\">", AfterMigration, Incompatible);
    assert!(parse("list<struct a{1:x:opaque\"b\"}>").is_foreign());
    assert!(!parse("list<struct a{1:x:bytes}>").is_foreign());
}

#[test]
fn all_differences_are_told_with_their_places() {
    let old = parse("struct a{1:items:list<struct item{1:price:i64}>,2:side:enum s{0:buy,1:sell{1:at:u64}}}");
    let new = parse("struct a{1:items:list<struct item{1:cost:i32}>,2:side:enum s{0:buy{1:at:u8}}}");
    let found = compare(&old, &new);
    let told: Vec<_> = found
        .of(Incompatible)
        .map(|d| (d.path.as_str(), d.rule, d.old.as_str(), d.new.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("$.items[].cost", "not all integers fit", "i64", "i32"),
            ("$.side::buy.at", "added without a default", "", "u8"),
            ("$.side::sell", "variant removed", "1", ""),
        ]
    );
}

#[test]
fn an_id_never_comes_back_however_long_ago() {
    let chain = |texts: &[&str]| texts.iter().map(|text| parse(text)).collect::<Vec<_>>();
    let new = parse("option<struct a{1:x:u8,2:again:u8=00}>");
    let gone = chain(&[
        "struct a{1:x:u8,2:y:string}",
        "struct a{1:x:u8}",
        "struct a{1:z:u8}",
    ]);
    let found = compare_chain(&gone, &new);
    let told: Vec<_> = found
        .of(Incompatible)
        .map(|d| (d.path.as_str(), d.old.as_str()))
        .collect();
    assert_eq!(told, [("$.again", "2")]);
    assert_eq!(compare_chain(&gone[1..], &new).outcome(), AfterMigration);
    let retired = chain(&["list<enum e{0:x,!1}>", "list<enum e{0:x}>"]);
    assert_eq!(
        compare_chain(&retired, &parse("list<enum e{0:x,1:y}>")).outcome(),
        Incompatible
    );
    assert_eq!(
        compare_chain(&retired, &parse("list<enum e{0:x,2:y}>")).outcome(),
        AfterReconfiguration
    );
    assert_eq!(compare_chain(&[], &new).outcome(), AsIs);
}

/// Any schema that passes the check.
pub(crate) fn any_schema() -> impl Strategy<Value = Schema> {
    let leaf = prop_oneof![
        8 => proptest::sample::select(Primitive::ALL).prop_map(Schema::from),
        1 => (0_u32..9).prop_map(Schema::FixedBytes),
        1 => "[a-z \"\\\\]{1,5}".prop_map(|name| Schema::opaque(&name)),
    ];
    let any = leaf.prop_recursive(3, 16, 4, |inner| {
        let record = |name: &'static str| {
            let field = (0_u32..9, inner.clone(), proptest::option::of(any::<[u8; 2]>()));
            let retired = proptest::collection::btree_set(10_u32..20, 0..3);
            (proptest::collection::vec(field, 0..4), retired).prop_map(move |(fields, retired)| {
                let mut record = Record::new(name);
                for (id, schema, default) in fields {
                    if record.find(id).is_none() {
                        record = record.push(id, &format!("f{id}"), schema, default.map(Vec::from));
                    }
                }
                record.retire(&Vec::from_iter(retired))
            })
        };
        prop_oneof![
            inner.clone().prop_map(Schema::optional),
            inner.clone().prop_map(Schema::list),
            (inner.clone(), 0_u32..4).prop_map(|(part, count)| Schema::Array(Box::new(part), count)),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| Schema::Map(Box::new(k), Box::new(v))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Schema::Tuple),
            record("größe").prop_map(Schema::Struct),
            proptest::collection::btree_map(0_u32..9, record(""), 0..4).prop_map(|variants| {
                let empty = Choice::new("e");
                Schema::Enum(variants.into_iter().fold(empty, |choice, (id, content)| {
                    choice.variant(id, &format!("v{id}"), content)
                }))
            }),
        ]
    });
    any.prop_filter("elements without bytes", |schema| schema.check().is_ok())
}

proptest! {
    #[test]
    fn every_schema_comes_back_and_equals_itself(schema in any_schema(), other in any_schema()) {
        let text = schema.to_string();
        prop_assert_eq!(&Schema::parse(&text).unwrap(), &schema);
        prop_assert_eq!(compare(&schema, &schema), Comparison::default());
        prop_assert_eq!(compare(&schema, &other).outcome() == AsIs, schema == other);
        let chain = [schema.clone(), schema.clone(), schema.clone()];
        prop_assert_eq!(compare_chain(&chain, &other).outcome(), compare(&schema, &other).outcome());
    }

    #[test]
    fn damaged_texts_never_panic(schema in any_schema(), at: prop::sample::Index, with in "[a-z0-9<>{},:=!\"\\\\ ]{0,2}") {
        let mut text: Vec<char> = schema.to_string().chars().collect();
        let at = at.index(text.len());
        text.splice(at..=at, with.chars());
        let text = String::from_iter(text);
        if let Ok(read) = Schema::parse(&text) {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}
