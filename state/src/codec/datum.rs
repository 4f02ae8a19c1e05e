//! Values without the types of the program: bytes and a schema are enough.
//!
//! ```
//! use keybed_snapshot::Schema;
//! use keybed_state::codec::Datum;
//!
//! let schema = Schema::parse("struct order{1:id:u32,2:sku:option<string>}")?;
//! let datum = Datum::decode(&schema, &[7, 0, 0, 0, 1, 2, b'm', b'8'])?;
//! assert_eq!(datum.to_string(), r#"{"id":7,"sku":"m8"}"#);
//! # Ok::<(), keybed_format::Error>(())
//! ```

use keybed_format::{Cursor, Error, Result};
use keybed_snapshot::schema::{Primitive, Record, Schema};
use std::fmt;

/// Most parts of a datum, nested ones included: what a hostile value may cost to be shown.
pub const DATUM_PARTS_MAX: usize = 1 << 24;

/// A value of any schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// Nothing.
    Void,
    /// True or false.
    Bool(bool),
    /// An unsigned integer of any width.
    Unsigned(u128),
    /// A signed integer of any width.
    Signed(i128),
    /// A float of 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// A character.
    Char(char),
    /// A text.
    String(String),
    /// Bytes, also fixed runs and foreign ones.
    Bytes(Vec<u8>),
    /// A span of time, or a point of time since 1970: seconds and nanoseconds.
    Time(i128, u32),
    /// A value or none.
    Option(Option<Box<Datum>>),
    /// Elements of a list or array, parts of a tuple.
    List(Vec<Datum>),
    /// Entries of a map.
    Map(Vec<(Datum, Datum)>),
    /// Fields with their names.
    Struct(Vec<(String, Datum)>),
    /// A variant's name and its fields.
    Variant(String, Vec<(String, Datum)>),
}

impl Datum {
    /// The value whose bytes are exactly `bytes`.
    ///
    /// # Errors
    /// `Malformed` if they are not one value of the schema, or it has more than [`DATUM_PARTS_MAX`] parts;
    /// `InvalidArgument` if the schema exceeds a bound.
    pub fn decode(schema: &Schema, bytes: &[u8]) -> Result<Datum> {
        schema.check()?;
        let mut reader = Reader {
            input: Cursor::new(bytes),
            parts: 0,
        };
        let datum = reader.datum(schema)?;
        reader.input.finish()?;
        Ok(datum)
    }
}

struct Reader<'a> {
    input: Cursor<'a>,
    parts: usize,
}

impl Reader<'_> {
    fn datum(&mut self, schema: &Schema) -> Result<Datum> {
        self.parts += 1;
        if self.parts > DATUM_PARTS_MAX {
            return Err(self.input.malformed("a value has too many parts to be shown"));
        }
        Ok(match schema {
            Schema::Primitive(primitive) => self.primitive(*primitive)?,
            Schema::FixedBytes(bytes) => Datum::Bytes(self.input.take(*bytes as usize)?.to_vec()),
            Schema::Foreign(..) => Datum::Bytes(self.input.bytes()?.to_vec()),
            Schema::Option(inner) => Datum::Option(match self.input.bool()? {
                true => Some(Box::new(self.datum(inner)?)),
                false => None,
            }),
            Schema::List(inner) => {
                let count = self.input.count(inner.bytes_min())?;
                Datum::List(self.many(count, inner)?)
            }
            Schema::Array(inner, count) => Datum::List(self.many(*count as usize, inner)?),
            Schema::Map(key, value) => {
                let count = self
                    .input
                    .count(key.bytes_min().saturating_add(value.bytes_min()))?;
                let entries = (0..count).map(|_| Ok((self.datum(key)?, self.datum(value)?)));
                Datum::Map(entries.collect::<Result<_>>()?)
            }
            Schema::Tuple(parts) => {
                let parts = parts.iter().map(|part| self.datum(part));
                Datum::List(parts.collect::<Result<_>>()?)
            }
            Schema::Struct(record) => Datum::Struct(self.fields(record)?),
            Schema::Enum(choice) => {
                let id = self.input.varint()?;
                let known = u32::try_from(id).ok().and_then(|id| choice.find(id));
                let unknown = || {
                    self.input
                        .malformed("a variant is unknown to the schema")
                        .with("found", id)
                };
                let variant = known.ok_or_else(unknown)?;
                Datum::Variant(variant.name.clone(), self.fields(&variant.content)?)
            }
        })
    }

    fn many(&mut self, count: usize, schema: &Schema) -> Result<Vec<Datum>> {
        (0..count).map(|_| self.datum(schema)).collect()
    }

    fn fields(&mut self, record: &Record) -> Result<Vec<(String, Datum)>> {
        let fields = record.fields.iter();
        fields
            .map(|field| Ok((field.name.clone(), self.datum(&field.schema)?)))
            .collect()
    }

    fn primitive(&mut self, primitive: Primitive) -> Result<Datum> {
        let input = &mut self.input;
        Ok(match primitive {
            Primitive::Void => Datum::Void,
            Primitive::Bool => Datum::Bool(input.bool()?),
            Primitive::U8 => Datum::Unsigned(input.u8()?.into()),
            Primitive::U16 => Datum::Unsigned(input.u16()?.into()),
            Primitive::U32 => Datum::Unsigned(input.u32()?.into()),
            Primitive::U64 => Datum::Unsigned(input.u64()?.into()),
            Primitive::U128 => Datum::Unsigned(input.u128()?),
            Primitive::I8 => Datum::Signed(i8::from_le_bytes(input.array()?).into()),
            Primitive::I16 => Datum::Signed(i16::from_le_bytes(input.array()?).into()),
            Primitive::I32 => Datum::Signed(i32::from_le_bytes(input.array()?).into()),
            Primitive::I64 => Datum::Signed(input.i64()?.into()),
            Primitive::I128 => Datum::Signed(i128::from_le_bytes(input.array()?)),
            Primitive::F32 => Datum::F32(f32::from_le_bytes(input.array()?)),
            Primitive::F64 => Datum::F64(f64::from_le_bytes(input.array()?)),
            Primitive::Char => Datum::Char(super::decode_char(input)?),
            Primitive::String => Datum::String(input.text(usize::MAX)?.to_owned()),
            Primitive::Bytes => Datum::Bytes(input.bytes()?.to_vec()),
            Primitive::Duration => Datum::Time(input.u64()?.into(), super::decode_nanos(input)?),
            Primitive::Timestamp => Datum::Time(input.i64()?.into(), super::decode_nanos(input)?),
        })
    }
}

/// As JSON, on one line.
///
/// Integers of more than 53 bits, floats that are not finite, times and bytes (in hex) are texts; none is `null`;
/// a map is a list of pairs; a variant is its name, or an object with its name and its fields.
impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXACT: u128 = 1 << 53;
        match self {
            Datum::Void => f.write_str("null"),
            Datum::Bool(value) => write!(f, "{value}"),
            Datum::Unsigned(value) if *value > EXACT => write!(f, "\"{value}\""),
            Datum::Unsigned(value) => write!(f, "{value}"),
            Datum::Signed(value) if value.unsigned_abs() > EXACT => write!(f, "\"{value}\""),
            Datum::Signed(value) => write!(f, "{value}"),
            Datum::F32(value) if value.is_finite() => write!(f, "{value:?}"),
            Datum::F32(value) => write!(f, "\"{value}\""),
            Datum::F64(value) if value.is_finite() => write!(f, "{value:?}"),
            Datum::F64(value) => write!(f, "\"{value}\""),
            Datum::Char(value) => quoted(f, value.encode_utf8(&mut [0; 4])),
            Datum::String(text) => quoted(f, text),
            Datum::Bytes(bytes) => {
                f.write_str("\"")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("\"")
            }
            Datum::Time(seconds, nanos) => write!(f, "\"{seconds}.{nanos:09}\""),
            Datum::Option(None) => f.write_str("null"),
            Datum::Option(Some(inner)) => write!(f, "{inner}"),
            Datum::List(items) => between(f, "[", items, "]", |f, item| write!(f, "{item}")),
            Datum::Map(entries) => between(f, "[", entries, "]", |f, (key, value)| {
                write!(f, "[{key},{value}]")
            }),
            Datum::Struct(fields) => object(f, fields),
            Datum::Variant(name, fields) if fields.is_empty() => quoted(f, name),
            Datum::Variant(name, fields) => {
                f.write_str("{")?;
                quoted(f, name)?;
                f.write_str(":")?;
                object(f, fields)?;
                f.write_str("}")
            }
        }
    }
}

fn between<T>(
    f: &mut fmt::Formatter<'_>,
    open: &str,
    parts: &[T],
    close: &str,
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str(open)?;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write(f, part)?;
    }
    f.write_str(close)
}

fn object(f: &mut fmt::Formatter<'_>, fields: &[(String, Datum)]) -> fmt::Result {
    between(f, "{", fields, "}", |f, (name, value)| {
        quoted(f, name)?;
        write!(f, ":{value}")
    })
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Checks that the defaults of a schema are values of their fields.
///
/// # Errors
/// `InvalidArgument` with the name of the field.
pub(crate) fn check_defaults(schema: &Schema) -> Result {
    let records: Box<dyn Iterator<Item = &Record>> = match schema {
        Schema::Option(inner) | Schema::List(inner) | Schema::Array(inner, _) => {
            return check_defaults(inner);
        }
        Schema::Map(key, value) => {
            check_defaults(key)?;
            return check_defaults(value);
        }
        Schema::Tuple(parts) => return parts.iter().try_for_each(check_defaults),
        Schema::Struct(record) => Box::new([record].into_iter()),
        Schema::Enum(choice) => Box::new(choice.variants.iter().map(|variant| &variant.content)),
        Schema::Primitive(_) | Schema::FixedBytes(_) | Schema::Foreign(..) => return Ok(()),
    };
    for field in records.flat_map(|record| &record.fields) {
        check_defaults(&field.schema)?;
        if let Some(bytes) = &field.default {
            Datum::decode(&field.schema, bytes).map_err(|cause| {
                Error::invalid("the default of a field is not one of its values")
                    .with("field", &field.name)
                    .with("cause", cause)
            })?;
        }
    }
    Ok(())
}
