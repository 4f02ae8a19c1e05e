//! The canonical text of a schema. Page: docs/format/schema.md.
//!
//! ```text
//! u64   option<u64>   list<string>   array<f64,3>   map<string,u32>   tuple<u8,bool>   bytes[16]
//! struct order{1:id:u64,2:sku:string,4:paid:bool=00,!3}        id:name:schema=default in hex, !retired
//! enum side{0:buy,1:limit{1:price:u64},!2}                     id:name{fields}
//! opaque"orders of the old shop"   postcard"order 3"           \" and \\ are the only escapes
//! ```
//! Equal schemas have equal texts: there is no blank but the one behind `struct` and `enum`, and numbers have no
//! leading zero. Reading is by recursion, bounded by the depth.

use super::{
    Choice, Foreign, Primitive, Record, SCHEMA_DEPTH_MAX, SCHEMA_PARTS_MAX, Schema, Variant, check::in_name,
};
use crate::catalogue::SCHEMA_BYTES_MAX;
use keybed_format::{Code, Error, Result};
use std::fmt;

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schema::Primitive(primitive) => f.write_str(primitive.as_str()),
            Schema::FixedBytes(bytes) => write!(f, "bytes[{bytes}]"),
            Schema::Option(inner) => write!(f, "option<{inner}>"),
            Schema::List(inner) => write!(f, "list<{inner}>"),
            Schema::Array(inner, count) => write!(f, "array<{inner},{count}>"),
            Schema::Map(key, value) => write!(f, "map<{key},{value}>"),
            Schema::Tuple(parts) => {
                f.write_str("tuple<")?;
                separated(f, parts, |f, part| write!(f, "{part}"))?;
                f.write_str(">")
            }
            Schema::Struct(record) => {
                write!(f, "struct {}", record.name)?;
                braces(f, record)
            }
            Schema::Enum(choice) => {
                write!(f, "enum {}{{", choice.name)?;
                separated(f, &choice.variants, |f, variant| {
                    write!(f, "{}:{}", variant.id, variant.name)?;
                    match variant.content == Record::default() {
                        true => Ok(()),
                        false => braces(f, &variant.content),
                    }
                })?;
                retired(f, &choice.retired, choice.variants.is_empty())
            }
            Schema::Foreign(foreign, name) => {
                let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "{}\"{escaped}\"", foreign.as_str())
            }
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    parts: &[T],
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write(f, part)?;
    }
    Ok(())
}

fn braces(f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
    f.write_str("{")?;
    separated(f, &record.fields, |f, field| {
        write!(f, "{}:{}:{}", field.id, field.name, field.schema)?;
        match &field.default {
            None => Ok(()),
            Some(bytes) => {
                f.write_str("=")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    })?;
    retired(f, &record.retired, record.fields.is_empty())
}

fn retired(f: &mut fmt::Formatter<'_>, ids: &[u32], first: bool) -> fmt::Result {
    if !first && !ids.is_empty() {
        f.write_str(",")?;
    }
    separated(f, ids, |f, id| write!(f, "!{id}"))?;
    f.write_str("}")
}

impl Schema {
    /// Reads a text.
    ///
    /// # Errors
    /// `Malformed` with the offset in the text if it is not canonical; `InvalidArgument` as [`Schema::check`].
    pub fn parse(text: &str) -> Result<Schema> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(Error::new(Code::Malformed, "the text of a schema is too long")
                .expected_found(SCHEMA_BYTES_MAX, text.len()));
        }
        let mut reader = Reader { text, position: 0 };
        let schema = reader.schema(1)?;
        if reader.position < text.len() {
            return Err(reader.malformed("a schema has something left over"));
        }
        schema.check_at(1)?;
        match schema.to_string() == text {
            true => Ok(schema),
            false => Err(Error::new(
                Code::Malformed,
                "the text of a schema is not canonical",
            )),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    #[cold]
    fn malformed(&self, message: &'static str) -> Error {
        Error::new(Code::Malformed, message).at(self.position as u64)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or("")
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.position += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result {
        match self.eat(token) {
            true => Ok(()),
            false => Err(self.malformed("a schema lacks a sign").with("expected", token)),
        }
    }

    /// The longest run of characters of this sort; may be empty.
    fn run(&mut self, sort: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !sort(c)).unwrap_or(rest.len());
        self.position += end;
        rest.get(..end).unwrap_or("")
    }

    fn number(&mut self) -> Result<u32> {
        let digits = self.run(|c| c.is_ascii_digit());
        match digits.parse() {
            Ok(number) if digits == "0" || !digits.starts_with('0') => Ok(number),
            _ => Err(self.malformed("a number of a schema is none, or not in its shortest form")),
        }
    }

    fn schema(&mut self, depth: usize) -> Result<Schema> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(self.malformed("a schema is nested too deeply"));
        }
        let start = self.position;
        let word = self.run(in_name);
        let schema = match word {
            "bytes" if self.eat("[") => {
                let bytes = self.number()?;
                self.expect("]")?;
                return Ok(Schema::FixedBytes(bytes));
            }
            "struct" => return self.named(depth).map(Schema::Struct),
            "enum" => return self.choice(depth).map(Schema::Enum),
            "opaque" => return self.foreign(Foreign::Opaque),
            "postcard" => return self.foreign(Foreign::Postcard),
            "option" | "list" | "array" | "map" | "tuple" => {
                self.expect("<")?;
                self.generic(word, depth)?
            }
            name => {
                let known = Primitive::ALL.iter().find(|known| known.as_str() == name);
                self.position = if known.is_some() { self.position } else { start };
                return known
                    .map(|primitive| Schema::Primitive(*primitive))
                    .ok_or_else(|| self.malformed("a schema has an unknown name"));
            }
        };
        self.expect(">")?;
        Ok(schema)
    }

    fn generic(&mut self, word: &str, depth: usize) -> Result<Schema> {
        let first = self.schema(depth + 1)?;
        Ok(match word {
            "option" => first.optional(),
            "list" => first.list(),
            "array" => {
                self.expect(",")?;
                Schema::Array(Box::new(first), self.number()?)
            }
            "map" => {
                self.expect(",")?;
                Schema::Map(Box::new(first), Box::new(self.schema(depth + 1)?))
            }
            _ => {
                let mut parts = vec![first];
                while self.eat(",") {
                    if parts.len() == SCHEMA_PARTS_MAX {
                        return Err(self.malformed("a tuple has too many parts"));
                    }
                    parts.push(self.schema(depth + 1)?);
                }
                Schema::Tuple(parts)
            }
        })
    }

    fn named(&mut self, depth: usize) -> Result<Record> {
        self.expect(" ")?;
        let name = self.run(in_name);
        self.expect("{")?;
        self.fields(Record::new(name), depth)
    }

    /// What stands behind the opening brace of fields, and the closing one.
    fn fields(&mut self, mut record: Record, depth: usize) -> Result<Record> {
        record.retired = self.parts(|reader| {
            let id = reader.number()?;
            reader.expect(":")?;
            let name = reader.run(in_name);
            reader.expect(":")?;
            let schema = reader.schema(depth + 1)?;
            let default = match reader.eat("=") {
                true => Some(reader.hex()?),
                false => None,
            };
            let fields = &mut record.fields;
            fields.push(super::Field {
                id,
                name: name.into(),
                schema,
                default,
            });
            Ok(fields.len())
        })?;
        Ok(record)
    }

    fn choice(&mut self, depth: usize) -> Result<Choice> {
        self.expect(" ")?;
        let mut choice = Choice::new(self.run(in_name));
        self.expect("{")?;
        choice.retired = self.parts(|reader| {
            let id = reader.number()?;
            reader.expect(":")?;
            let name = reader.run(in_name).into();
            let content = match reader.eat("{") {
                true => reader.fields(Record::default(), depth)?,
                false => Record::default(),
            };
            choice.variants.push(Variant { id, name, content });
            Ok(choice.variants.len())
        })?;
        Ok(choice)
    }

    /// Parts, then retired ids, then the closing brace; `part` reads one and returns how many there are now.
    fn parts(&mut self, mut part: impl FnMut(&mut Self) -> Result<usize>) -> Result<Vec<u32>> {
        let mut retired = Vec::new();
        let mut first = true;
        while !self.eat("}") {
            if !first {
                self.expect(",")?;
            }
            first = false;
            let count = if self.eat("!") {
                retired.push(self.number()?);
                retired.len()
            } else if retired.is_empty() {
                part(self)?
            } else {
                return Err(self.malformed("retired ids do not stand last"));
            };
            if count > SCHEMA_PARTS_MAX {
                return Err(self.malformed("a schema has too many fields, variants or retired ids"));
            }
        }
        Ok(retired)
    }

    fn hex(&mut self) -> Result<Vec<u8>> {
        let digits = self.run(|c| matches!(c, '0'..='9' | 'a'..='f')).as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        };
        match digits.as_chunks::<2>() {
            (pairs, []) => Ok(pairs
                .iter()
                .map(|[high, low]| value(*high) << 4 | value(*low))
                .collect()),
            _ => Err(self.malformed("a default in hex has half a byte")),
        }
    }

    fn foreign(&mut self, foreign: Foreign) -> Result<Schema> {
        self.expect("\"")?;
        let mut name = String::new();
        loop {
            name.push_str(self.run(|c| c != '"' && c != '\\'));
            if self.eat("\"") {
                return Ok(Schema::Foreign(foreign, name));
            } else if self.eat("\\\\") {
                name.push('\\');
            } else if self.eat("\\\"") {
                name.push('"');
            } else {
                return Err(self.malformed("a name in quotes does not end, or has an unknown escape"));
            }
        }
    }
}
