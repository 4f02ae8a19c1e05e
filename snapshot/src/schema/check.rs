//! Bounds of a schema, whoever made it.
//!
//! What passes is safe to walk by recursion, and no value of it takes more steps to read than it has bytes, times the
//! parts of the schema: elements of lists, arrays and maps have at least one byte each.

use super::{
    Choice, Record, SCHEMA_ARRAY_MAX, SCHEMA_DEPTH_MAX, SCHEMA_NAME_BYTES_MAX, SCHEMA_PARTS_MAX, Schema,
};
use crate::catalogue::SCHEMA_BYTES_MAX;
use keybed_format::{Error, Result};

impl Schema {
    /// Checks every bound; [`Schema::parse`] returns only what passes.
    ///
    /// # Errors
    /// `InvalidArgument` if it is nested too deeply, an id or name occurs twice, a retired id is in use, a name has
    /// characters other than letters, digits, `_` and those beyond ASCII, elements have no bytes, or the text
    /// exceeds 64 KiB.
    pub fn check(&self) -> Result {
        self.check_at(1)?;
        match self.to_string().len() {
            ..=SCHEMA_BYTES_MAX => Ok(()),
            bytes => {
                Err(Error::invalid("the text of a schema is too long")
                    .expected_found(SCHEMA_BYTES_MAX, bytes))
            }
        }
    }

    pub(super) fn check_at(&self, depth: usize) -> Result {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(Error::invalid(
                "a schema is nested too deeply; a type that contains itself has no schema",
            )
            .with("max", SCHEMA_DEPTH_MAX));
        }
        let own = match self {
            Schema::FixedBytes(bytes) if *bytes > SCHEMA_ARRAY_MAX => Err("a fixed run of bytes is too long"),
            Schema::Array(_, count) if *count > SCHEMA_ARRAY_MAX => Err("an array is too long"),
            Schema::Tuple(parts) if parts.len() > SCHEMA_PARTS_MAX => Err("a tuple has too many parts"),
            Schema::Tuple(parts) if parts.is_empty() => Err("a tuple has no parts"),
            Schema::Struct(record) => named(&record.name).and_then(|()| fields(record)),
            Schema::Enum(choice) => variants(choice),
            Schema::Foreign(_, name) if name.is_empty() => Err("foreign bytes have no name"),
            _ => Ok(()),
        };
        own.map_err(|message| Error::invalid(message).with("schema", self.head()))?;
        for part in self.children() {
            part.check_at(depth + 1)?;
        }
        let repeated = match self {
            Schema::List(inner) | Schema::Array(inner, _) => Some(&**inner),
            Schema::Map(key, _) => Some(&**key),
            _ => None,
        };
        match repeated {
            Some(element) if element.bytes_min() == 0 => {
                Err(Error::invalid("elements without bytes cannot be counted").with("schema", self.head()))
            }
            _ => Ok(()),
        }
    }

    /// What kind of schema it is and its name, without parts: for errors about schemas of any size.
    fn head(&self) -> String {
        match self {
            Schema::Struct(record) => format!("struct {}", record.name.escape_debug()),
            Schema::Enum(choice) => format!("enum {}", choice.name.escape_debug()),
            Schema::Tuple(_) => "tuple".into(),
            Schema::Array(..) => "array".into(),
            Schema::List(_) => "list".into(),
            Schema::Map(..) => "map".into(),
            Schema::Foreign(foreign, _) => foreign.as_str().into(),
            Schema::FixedBytes(bytes) => format!("bytes[{bytes}]"),
            Schema::Option(_) => "option".into(),
            Schema::Primitive(primitive) => primitive.as_str().into(),
        }
    }
}

/// Whether a character may be part of a name. Beyond ASCII all may: what a letter is changes with Unicode.
pub(super) fn in_name(c: char) -> bool {
    !c.is_ascii() || c.is_ascii_alphanumeric() || c == '_'
}

fn named(name: &str) -> Result<(), &'static str> {
    match (1..=SCHEMA_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(in_name) {
        true => Ok(()),
        false => Err("a name is empty, too long, or has a character that is none of names"),
    }
}

fn fields(record: &Record) -> Result<(), &'static str> {
    record.fields.iter().try_for_each(|field| named(&field.name))?;
    unique(record.fields.iter().map(|field| field.name.as_str()).collect())?;
    ids(
        record.fields.iter().map(|field| field.id).collect(),
        &record.retired,
    )
}

fn variants(choice: &Choice) -> Result<(), &'static str> {
    named(&choice.name)?;
    for variant in &choice.variants {
        named(&variant.name)?;
        if !variant.content.name.is_empty() {
            return Err("the content of a variant has a name of its own");
        }
        fields(&variant.content)?;
    }
    if !choice.variants.is_sorted_by_key(|variant| variant.id) {
        return Err("variants do not ascend by id");
    }
    unique(
        choice
            .variants
            .iter()
            .map(|variant| variant.name.as_str())
            .collect(),
    )?;
    ids(
        choice.variants.iter().map(|variant| variant.id).collect(),
        &choice.retired,
    )
}

fn unique(mut names: Vec<&str>) -> Result<(), &'static str> {
    names.sort_unstable();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err("a name occurs twice"),
        false => Ok(()),
    }
}

fn ids(mut used: Vec<u32>, retired: &[u32]) -> Result<(), &'static str> {
    if used.len() > SCHEMA_PARTS_MAX || retired.len() > SCHEMA_PARTS_MAX {
        return Err("too many fields, variants or retired ids");
    }
    if !retired.is_sorted_by(|a, b| a < b) {
        return Err("retired ids do not ascend");
    }
    used.sort_unstable();
    if used.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("an id occurs twice");
    }
    match used.iter().any(|id| retired.binary_search(id).is_ok()) {
        true => Err("a retired id is in use"),
        false => Ok(()),
    }
}
