//! Random schemas, random evolutions, random values: upgraded bytes against values migrated by a model.

use super::{Datum, UpgradeChain};
use keybed_env::Random;
use keybed_format::{Code, Sink};
use keybed_snapshot::schema::{
    Choice, Compatibility, Primitive, Record, Schema, Variant, compatibility::compare,
};

/// What invents schemas; ids are never used twice.
struct Inventor {
    random: Random,
    id_next: u32,
}

impl Inventor {
    fn below(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    fn id(&mut self) -> u32 {
        self.id_next += 1;
        self.id_next
    }

    fn schema(&mut self, depth: usize) -> Schema {
        let sort = self.below(if depth == 0 { 3 } else { 12 });
        let mut inner = || Box::new(self.schema(depth.saturating_sub(1)));
        let schema = match sort {
            3 => Schema::Option(inner()),
            4 => Schema::List(inner()),
            5 => Schema::Array(inner(), 2),
            6 => Schema::Map(inner(), inner()),
            7 => Schema::Tuple(vec![*inner(), *inner(), *inner()]),
            8..=10 => Schema::Struct(self.record("s", depth)),
            11 => Schema::Enum((0..3).fold(Choice::new("e"), |choice, _| {
                let (id, content) = (self.id(), self.record("", depth));
                choice.variant(id, &format!("v{id}"), content)
            })),
            0 => Schema::FixedBytes(3),
            _ => Schema::Primitive(Primitive::ALL[self.below(Primitive::ALL.len())]),
        };
        match schema.check() {
            Ok(()) => schema,
            Err(_) => Schema::Primitive(Primitive::U8), // elements without bytes
        }
    }

    fn record(&mut self, name: &str, depth: usize) -> Record {
        (0..self.below(4)).fold(Record::new(name), |record, _| {
            let (id, schema) = (self.id(), self.schema(depth.saturating_sub(1)));
            record.field(id, &format!("f{id}"), schema)
        })
    }

    /// A value's bytes.
    fn value(&mut self, schema: &Schema, out: &mut Sink) {
        match schema {
            Schema::Primitive(primitive) => match primitive {
                Primitive::Bool => drop(out.bool(self.below(2) == 1)),
                Primitive::Char => drop(out.u32(u32::from('é'))),
                Primitive::String => drop(out.text(["", "a", "größe"][self.below(3)])),
                Primitive::Bytes => drop(out.bytes(&[7, 0][..self.below(3)])),
                Primitive::Duration | Primitive::Timestamp => drop(out.u64(1 << 40).u32(999_999_999)),
                Primitive::F32 => drop(out.raw(&1.5_f32.to_le_bytes())),
                Primitive::F64 => drop(out.raw(&(-1.5_f64).to_le_bytes())),
                _ => (0..schema.bytes_min()).for_each(|_| {
                    out.u8(self.below(256) as u8);
                }),
            },
            Schema::FixedBytes(bytes) => (0..*bytes).for_each(|n| {
                out.u8(n as u8);
            }),
            Schema::Foreign(..) => drop(out.bytes(&[1, 2, 3])),
            Schema::Option(inner) => {
                let present = self.below(2) == 1;
                out.bool(present);
                if present {
                    self.value(inner, out);
                }
            }
            Schema::List(inner) => {
                let count = self.below(4);
                out.count(count);
                (0..count).for_each(|_| self.value(inner, out));
            }
            Schema::Array(inner, count) => (0..*count).for_each(|_| self.value(inner, out)),
            Schema::Map(key, value) => {
                let count = self.below(3);
                out.count(count);
                for _ in 0..count {
                    self.value(key, out);
                    self.value(value, out);
                }
            }
            Schema::Tuple(parts) => parts.iter().for_each(|part| self.value(part, out)),
            Schema::Struct(record) => record
                .fields
                .iter()
                .for_each(|field| self.value(&field.schema, out)),
            Schema::Enum(choice) => {
                let variant = &choice.variants[self.below(choice.variants.len())];
                out.varint(variant.id.into());
                let fields = variant.content.fields.iter();
                fields.for_each(|field| self.value(&field.schema, out));
            }
        }
    }

    /// A schema that reads what `old` wrote, by any of the rules.
    fn evolved(&mut self, old: &Schema) -> Schema {
        let new = match old {
            _ if self.below(12) == 0 => old.clone().optional(),
            Schema::Primitive(from) => {
                let wider = Primitive::ALL[self.below(Primitive::ALL.len())];
                match compare(&Schema::from(*from), &Schema::from(wider)).outcome() {
                    Compatibility::Incompatible => old.clone(),
                    _ => wider.into(),
                }
            }
            Schema::Option(inner) => self.evolved(inner).optional(),
            Schema::List(inner) => self.evolved(inner).list(),
            Schema::Array(inner, count) => Schema::Array(Box::new(self.evolved(inner)), *count),
            Schema::Map(key, value) => Schema::Map(key.clone(), Box::new(self.evolved(value))),
            Schema::Tuple(parts) => Schema::Tuple(parts.iter().map(|part| self.evolved(part)).collect()),
            Schema::Struct(record) => Schema::Struct(self.evolved_record(record)),
            Schema::Enum(choice) => {
                let mut new = Choice::new("other");
                for Variant { id, content, .. } in &choice.variants {
                    new = new.variant(*id, &format!("n{id}"), self.evolved_record(content));
                }
                let added = self.id();
                Schema::Enum(new.variant(added, "added", Record::default()))
            }
            Schema::FixedBytes(_) | Schema::Foreign(..) => old.clone(),
        };
        match new.check() {
            Ok(()) => new,
            Err(_) => old.clone(),
        }
    }

    fn evolved_record(&mut self, old: &Record) -> Record {
        let mut new = Record::new(&old.name);
        for field in &old.fields {
            match self.below(6) {
                0 => new = new.retire(&[field.id]),
                1 => new = new.field(field.id, &format!("n{}", field.id), self.evolved(&field.schema)),
                _ => new = new.field(field.id, &field.name, self.evolved(&field.schema)),
            }
            if self.below(4) == 0 {
                let (id, schema, mut default) = (self.id(), self.schema(1), Sink::new());
                self.value(&schema, &mut default);
                new = new.field_or(id, &format!("f{id}"), schema, default.into_vec());
            }
        }
        if self.below(3) == 0 {
            new.fields.reverse();
        }
        new
    }
}

/// What the rules say about values, not about bytes.
fn migrated(old: &Schema, new: &Schema, datum: Datum) -> Datum {
    let all = |a: &Schema, b: &Schema, items: Vec<Datum>| -> Vec<Datum> {
        items.into_iter().map(|item| migrated(a, b, item)).collect()
    };
    match (old, new, datum) {
        (Schema::Option(a), Schema::Option(b), Datum::Option(inner)) => {
            Datum::Option(inner.map(|inner| Box::new(migrated(a, b, *inner))))
        }
        (old, Schema::Option(inner), datum) => Datum::Option(Some(Box::new(migrated(old, inner, datum)))),
        (_, Schema::Primitive(new), Datum::Unsigned(n))
            if new.integer().is_some_and(|(_, signed)| signed) =>
        {
            Datum::Signed(n.try_into().unwrap())
        }
        (Schema::List(a), Schema::List(b), Datum::List(items)) => Datum::List(all(a, b, items)),
        (Schema::Array(a, _), Schema::Array(b, _), Datum::List(items)) => Datum::List(all(a, b, items)),
        (Schema::Map(_, a), Schema::Map(_, b), Datum::Map(entries)) => Datum::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key, migrated(a, b, value)))
                .collect(),
        ),
        (Schema::Tuple(a), Schema::Tuple(b), Datum::List(parts)) => {
            let parts = a.iter().zip(b).zip(parts);
            Datum::List(parts.map(|((a, b), part)| migrated(a, b, part)).collect())
        }
        (Schema::Struct(a), Schema::Struct(b), Datum::Struct(fields)) => {
            Datum::Struct(migrated_fields(a, b, &fields))
        }
        (Schema::Enum(a), Schema::Enum(b), Datum::Variant(name, fields)) => {
            let old = a.variants.iter().find(|variant| variant.name == name).unwrap();
            let new = b.find(old.id).unwrap();
            Datum::Variant(
                new.name.clone(),
                migrated_fields(&old.content, &new.content, &fields),
            )
        }
        (_, _, datum) => datum,
    }
}

fn migrated_fields(old: &Record, new: &Record, fields: &[(String, Datum)]) -> Vec<(String, Datum)> {
    let of = |id: u32| old.fields.iter().zip(fields).find(|(field, _)| field.id == id);
    let value = |field: &keybed_snapshot::schema::Field| match of(field.id) {
        Some((old, (_, datum))) => migrated(&old.schema, &field.schema, datum.clone()),
        None => Datum::decode(&field.schema, field.default.as_ref().unwrap()).unwrap(),
    };
    new.fields
        .iter()
        .map(|field| (field.name.clone(), value(field)))
        .collect()
}

#[test]
fn upgraded_bytes_are_the_migrated_values_over_three_hops() {
    let programs = if std::env::var_os("KEYBED_TEST_FULL").is_some() {
        50_000
    } else {
        800
    };
    let mut migrations = 0;
    for seed in 0..programs {
        let random = Random::from_seed(seed);
        let mut inventor = Inventor { random, id_next: 0 };
        let mut chain = vec![inventor.schema(3)];
        for _ in 0..3 {
            let new = inventor.evolved(chain.last().unwrap());
            let hop = compare(chain.last().unwrap(), &new);
            assert!(
                hop.outcome() < Compatibility::Incompatible,
                "seed {seed}: {hop:?}"
            );
            migrations += u32::from(hop.outcome() == Compatibility::AfterMigration);
            assert_eq!(Schema::parse(&new.to_string()).unwrap(), new, "seed {seed}");
            chain.push(new);
        }
        let upgrades = UpgradeChain::along(&chain).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for _ in 0..4 {
            let mut bytes = Sink::new();
            inventor.value(&chain[0], &mut bytes);
            let mut expected = Datum::decode(&chain[0], bytes.as_slice()).unwrap();
            let mut stepwise = bytes.clone();
            for (hop, pair) in chain.windows(2).enumerate() {
                expected = migrated(&pair[0], &pair[1], expected);
                let one = UpgradeChain::along(pair).unwrap();
                let mut next = Sink::new();
                one.apply(0, stepwise.as_slice(), &mut next).unwrap();
                stepwise = next;
                // Whoever is half way has only the rest to go.
                let mut rest = Sink::new();
                upgrades.apply(hop + 1, stepwise.as_slice(), &mut rest).unwrap();
                let mut whole = Sink::new();
                upgrades.apply(0, bytes.as_slice(), &mut whole).unwrap();
                assert_eq!(rest, whole, "seed {seed}");
            }
            let read = Datum::decode(&chain[3], stepwise.as_slice());
            assert_eq!(read.unwrap(), expected, "seed {seed}: {chain:?}");
            // Damaged bytes give an error or a value, and never a panic.
            let mut damaged = bytes.into_vec();
            let at = inventor.below(damaged.len().max(1));
            match damaged.get_mut(at) {
                Some(byte) if inventor.random.below(2) == 0 => *byte = inventor.random.below(256) as u8,
                _ => damaged.truncate(at),
            }
            let mut out = Sink::new();
            if upgrades.apply(0, &damaged, &mut out).is_ok() {
                let _ = Datum::decode(&chain[3], out.as_slice());
            }
        }
    }
    assert!(migrations > 300, "{migrations} of the hops changed bytes");
}

fn parse(text: &str) -> Schema {
    Schema::parse(text).unwrap()
}

#[test]
fn a_default_comes_from_the_schema_that_introduced_the_field() {
    let chain = [
        parse("struct a{1:x:u8}"),
        parse("struct a{1:x:u8,2:y:u8=07}"),
        parse("struct a{2:y:option<u16>=00,1:x:i32}"),
    ];
    let upgrades = UpgradeChain::along(&chain).unwrap();
    let upgraded = |from: usize, bytes: &[u8]| {
        let mut out = Sink::new();
        upgrades.apply(from, bytes, &mut out).unwrap();
        out.into_vec()
    };
    // Not none, which is the default of the last schema: the entry has been without the field since the first one.
    assert_eq!(upgraded(0, &[0xff]), [1, 7, 0, 0xff, 0, 0, 0]);
    assert_eq!(upgraded(1, &[0xff, 9]), [1, 9, 0, 0xff, 0, 0, 0]);
    assert_eq!(upgraded(2, &[0, 1, 0, 0, 0]), [0, 1, 0, 0, 0]);
    assert_eq!(
        upgrades.apply(3, &[], &mut Sink::new()).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert!(upgrades.apply(0, &[], &mut Sink::new()).is_err());
    assert!(upgrades.apply(0, &[1, 2], &mut Sink::new()).is_err());
}

#[test]
fn there_is_no_way_between_incompatible_schemas() {
    let refused = UpgradeChain::along(&[parse("struct a{1:x:u16}"), parse("struct a{1:y:u8}")]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "ValueSchemaIncompatible: the value had another schema: not all integers fit \
         [path $.y, expected u16, found u8]"
    );
    let again = [
        "struct a{1:x:u8,2:y:u8}",
        "struct a{1:x:u8}",
        "struct a{1:x:u8,2:z:u8=00}",
    ]
    .map(parse);
    assert_eq!(
        UpgradeChain::along(&again).unwrap_err().code(),
        Code::ValueSchemaIncompatible
    );
}

#[test]
fn values_are_shown_as_json() {
    let shown =
        |schema: &str, bytes: &[u8]| Datum::decode(&parse(schema), bytes).map(|datum| datum.to_string());
    assert_eq!(shown("u64", &[0xff; 8]).unwrap(), "\"18446744073709551615\"");
    assert_eq!(shown("i8", &[0xff]).unwrap(), "-1");
    assert_eq!(shown("string", b"\x03a\"\n").unwrap(), r#""a\"\u000a""#);
    assert_eq!(shown("map<u8,bool>", &[1, 5, 1]).unwrap(), "[[5,true]]");
    assert_eq!(shown("opaque\"x\"", &[2, 0xab, 1]).unwrap(), "\"ab01\"");
    assert_eq!(shown("f32", &f32::NAN.to_le_bytes()).unwrap(), "\"NaN\"");
    assert_eq!(
        shown("duration", &[1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]).unwrap(),
        "\"1.000000005\""
    );
    let side = "enum side{0:buy,1:limit{1:price:u8}}";
    assert_eq!(shown(side, &[0]).unwrap(), "\"buy\"");
    assert_eq!(shown(side, &[1, 9]).unwrap(), r#"{"limit":{"price":9}}"#);
    assert_eq!(shown(side, &[2]).unwrap_err().code(), Code::Malformed);
    assert!(shown("list<u64>", &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
}
