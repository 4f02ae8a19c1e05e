//! Where a value ends, by its schema alone.
//!
//! A [`Shape`] is a schema without names, compiled for one question: how many bytes does this value take? Neighbours
//! of fixed width are one number, and a list of them is skipped at once.

use keybed_format::{Cursor, Result};
use keybed_snapshot::schema::{Primitive, Schema};

/// A schema as far as lengths go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Fixed(usize),
    /// Bytes behind their length.
    Counted,
    Optional(Box<Shape>),
    List(Box<Shape>),
    Array(Box<Shape>, u32),
    Map(Box<Shape>, Box<Shape>),
    Sequence(Vec<Shape>),
    /// By variant id, ascending.
    Choice(Vec<(u64, Shape)>),
}

impl Shape {
    /// The shape of values of a schema that was checked.
    pub(super) fn of(schema: &Schema) -> Shape {
        match schema {
            Schema::Primitive(Primitive::String | Primitive::Bytes) | Schema::Foreign(..) => Shape::Counted,
            Schema::Primitive(_) | Schema::FixedBytes(_) => Shape::Fixed(schema.bytes_min()),
            Schema::Option(inner) => Shape::Optional(Box::new(Shape::of(inner))),
            Schema::List(inner) => Shape::List(Box::new(Shape::of(inner))),
            Schema::Array(inner, count) => match Shape::of(inner) {
                Shape::Fixed(bytes) => Shape::Fixed(bytes.saturating_mul(*count as usize)),
                inner => Shape::Array(Box::new(inner), *count),
            },
            Schema::Map(key, value) => Shape::Map(Box::new(Shape::of(key)), Box::new(Shape::of(value))),
            Schema::Tuple(parts) => Shape::sequence(parts.iter().map(Shape::of)),
            Schema::Struct(record) => Shape::sequence(record.fields.iter().map(|f| Shape::of(&f.schema))),
            Schema::Enum(choice) => {
                let variants = choice.variants.iter().map(|variant| {
                    let fields = variant.content.fields.iter();
                    let shape = Shape::sequence(fields.map(|field| Shape::of(&field.schema)));
                    (u64::from(variant.id), shape)
                });
                Shape::Choice(variants.collect())
            }
        }
    }

    /// Shapes one after the other.
    pub(super) fn sequence(parts: impl Iterator<Item = Shape>) -> Shape {
        let mut joined: Vec<Shape> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (Some(Shape::Fixed(before)), Shape::Fixed(bytes)) => *before = before.saturating_add(bytes),
                (_, part) => joined.push(part),
            }
        }
        match joined.len() {
            0 => Shape::Fixed(0),
            1 => joined.remove(0),
            _ => Shape::Sequence(joined),
        }
    }

    /// Moves behind one value.
    ///
    /// # Errors
    /// `Malformed` if the bytes end, a flag is none, or a variant is unknown. Texts and numbers are not looked into.
    pub(super) fn skip(&self, input: &mut Cursor<'_>) -> Result {
        match self {
            Shape::Fixed(bytes) => input.take(*bytes).map(drop),
            Shape::Counted => input.bytes().map(drop),
            Shape::Optional(inner) => match input.bool()? {
                true => inner.skip(input),
                false => Ok(()),
            },
            Shape::List(inner) => {
                let count = input.count(1)?;
                match **inner {
                    Shape::Fixed(bytes) => input.take(bytes.saturating_mul(count)).map(drop),
                    _ => (0..count).try_for_each(|_| inner.skip(input)),
                }
            }
            Shape::Array(inner, count) => (0..*count).try_for_each(|_| inner.skip(input)),
            Shape::Map(key, value) => {
                let count = input.count(1)?;
                (0..count).try_for_each(|_| {
                    key.skip(input)?;
                    value.skip(input)
                })
            }
            Shape::Sequence(parts) => parts.iter().try_for_each(|part| part.skip(input)),
            Shape::Choice(variants) => {
                let at = input.clone();
                let id = input.varint()?;
                match variants.binary_search_by_key(&id, |(id, _)| *id) {
                    Ok(index) => variants[index].1.skip(input),
                    Err(_) => Err(at
                        .malformed("a variant is unknown to the schema")
                        .with("found", id)),
                }
            }
        }
    }
}
