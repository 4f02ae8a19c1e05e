//! Schemas: what the bytes of a key or value are, readable without the types of the program.
//!
//! ```text
//!   derive / built-in codecs ──▶ Schema ──▶ text (canonical) ──▶ catalogue, metadata
//!                                   │
//!                                   ├──▶ compatibility: may the program read what the snapshot holds?
//!                                   └──▶ values without types, upgrades (keybed-state, codec)
//! ```
//! | file | idea |
//! |---|---|
//! | `text` | the canonical text, written and read; equal schemas have equal texts |
//! | `check` | bounds: depth, counts, ids and names that occur once |
//! | [`compatibility`] | four outcomes, each difference with its path |
//!
//! Fields and variants have *ids*. An id is what a name is in other systems: it stands for one meaning for ever, names
//! may change. Format: docs/format/schema.md.

mod check;
pub mod compatibility;
mod text;

#[cfg(test)]
mod tests;

pub use compatibility::{Comparison, Compatibility, Difference};

/// Deepest nesting of a schema; `option<u64>` has depth 2.
pub const SCHEMA_DEPTH_MAX: usize = 16;
/// Most fields of a struct or variant, variants of an enum, parts of a tuple, or retired ids of one of them.
pub const SCHEMA_PARTS_MAX: usize = 1024;
/// Longest name of a struct, enum, field or variant, in bytes.
pub const SCHEMA_NAME_BYTES_MAX: usize = 255;
/// Most elements of an array, and most bytes of a fixed run of bytes.
pub const SCHEMA_ARRAY_MAX: u32 = 1 << 20;

/// What bytes are.
///
/// ```
/// use keybed_snapshot::schema::{Primitive, Record, Schema};
///
/// let order = Record::new("order").field(1, "id", Schema::from(Primitive::U64)).field_or(
///     2,
///     "paid",
///     Schema::from(Primitive::Bool),
///     vec![0],
/// );
/// let schema = Schema::Struct(order);
/// assert_eq!(schema.to_string(), "struct order{1:id:u64,2:paid:bool=00}");
/// assert_eq!(Schema::parse("struct order{1:id:u64,2:paid:bool=00}")?, schema);
/// # Ok::<(), keybed_format::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// A number, text or other built-in scalar.
    Primitive(Primitive),
    /// So many bytes, as they are.
    FixedBytes(u32),
    /// A value or none.
    Option(Box<Schema>),
    /// Any number of elements.
    List(Box<Schema>),
    /// So many elements, without a count.
    Array(Box<Schema>, u32),
    /// Entries in ascending order of their keys.
    Map(Box<Schema>, Box<Schema>),
    /// Parts one after the other, by position.
    Tuple(Vec<Schema>),
    /// Fields one after the other in the order of the schema, identified by id.
    Struct(Record),
    /// One of several variants, identified by id.
    Enum(Choice),
    /// Bytes that somebody else defines, behind their length.
    Foreign(Foreign, String),
}

macro_rules! primitives {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A scalar that is built in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Primitive { $($(#[$doc])* $name,)* }

        impl Primitive {
            /// All of them.
            pub const ALL: &'static [Primitive] = &[$(Primitive::$name,)*];

            /// Its name in texts.
            pub fn as_str(self) -> &'static str {
                match self { $(Primitive::$name => $text,)* }
            }
        }
    };
}

primitives! {
    /// Nothing, no bytes.
    Void = "void";
    /// True or false.
    Bool = "bool";
    /// Unsigned, 8 bits.
    U8 = "u8";
    /// Unsigned, 16 bits.
    U16 = "u16";
    /// Unsigned, 32 bits.
    U32 = "u32";
    /// Unsigned, 64 bits.
    U64 = "u64";
    /// Unsigned, 128 bits.
    U128 = "u128";
    /// Signed, 8 bits.
    I8 = "i8";
    /// Signed, 16 bits.
    I16 = "i16";
    /// Signed, 32 bits.
    I32 = "i32";
    /// Signed, 64 bits.
    I64 = "i64";
    /// Signed, 128 bits.
    I128 = "i128";
    /// IEEE 754, 32 bits.
    F32 = "f32";
    /// IEEE 754, 64 bits.
    F64 = "f64";
    /// A Unicode scalar value.
    Char = "char";
    /// UTF-8 text.
    String = "string";
    /// Bytes of any number.
    Bytes = "bytes";
    /// A span of time: seconds and nanoseconds.
    Duration = "duration";
    /// A point of time: seconds since 1970 and nanoseconds.
    Timestamp = "timestamp";
}

impl Primitive {
    /// Width in bits and whether it is signed, if it is an integer.
    pub fn integer(self) -> Option<(u32, bool)> {
        Some(match self {
            Primitive::U8 => (8, false),
            Primitive::U16 => (16, false),
            Primitive::U32 => (32, false),
            Primitive::U64 => (64, false),
            Primitive::U128 => (128, false),
            Primitive::I8 => (8, true),
            Primitive::I16 => (16, true),
            Primitive::I32 => (32, true),
            Primitive::I64 => (64, true),
            Primitive::I128 => (128, true),
            _ => return None,
        })
    }
}

impl From<Primitive> for Schema {
    fn from(primitive: Primitive) -> Self {
        Schema::Primitive(primitive)
    }
}

/// Who defines foreign bytes. Their changes cannot be seen from outside, so the text must stay what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Foreign {
    /// A codec of the program; the text is a name the program chose. Flagged in reports.
    Opaque,
    /// A type of serde written by postcard; the text is a name the program chose. Flagged in reports.
    Postcard,
}

impl Foreign {
    /// Its name in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Foreign::Opaque => "opaque",
            Foreign::Postcard => "postcard",
        }
    }
}

/// Named fields in the order of their bytes: a struct, or the content of a variant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Name of the struct, for people; of a variant, see [`Variant::name`], this is empty.
    pub name: String,
    /// Fields in the order of their bytes.
    pub fields: Vec<Field>,
    /// Ids of fields that are gone, ascending; they are never used again.
    pub retired: Vec<u32>,
}

/// A field of a struct or variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What identifies it, for ever.
    pub id: u32,
    /// Its name now.
    pub name: String,
    /// What it holds.
    pub schema: Schema,
    /// Bytes of the value that it has in entries which were written before it existed.
    pub default: Option<Vec<u8>>,
}

impl Record {
    /// A record without fields.
    pub fn new(name: &str) -> Self {
        Record {
            name: name.into(),
            ..Record::default()
        }
    }

    /// Appends a field without a default.
    #[must_use]
    pub fn field(self, id: u32, name: &str, schema: Schema) -> Self {
        self.push(id, name, schema, None)
    }

    /// Appends a field with the bytes of its default.
    #[must_use]
    pub fn field_or(self, id: u32, name: &str, schema: Schema, default: Vec<u8>) -> Self {
        self.push(id, name, schema, Some(default))
    }

    fn push(mut self, id: u32, name: &str, schema: Schema, default: Option<Vec<u8>>) -> Self {
        self.fields.push(Field {
            id,
            name: name.into(),
            schema,
            default,
        });
        self
    }

    /// Says that no field has these ids any more; any order.
    #[must_use]
    pub fn retire(mut self, ids: &[u32]) -> Self {
        self.retired.extend_from_slice(ids);
        self.retired.sort_unstable();
        self
    }

    /// The field of that id.
    pub fn find(&self, id: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }
}

/// Variants of an enum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Name of the enum, for people.
    pub name: String,
    /// Variants, ascending by id.
    pub variants: Vec<Variant>,
    /// Ids of variants that are gone, ascending; they are never used again.
    pub retired: Vec<u32>,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What identifies it, for ever.
    pub id: u32,
    /// Its name now.
    pub name: String,
    /// What it holds; the record has no name of its own.
    pub content: Record,
}

impl Choice {
    /// An enum without variants.
    pub fn new(name: &str) -> Self {
        Choice {
            name: name.into(),
            ..Choice::default()
        }
    }

    /// Adds a variant; any order.
    #[must_use]
    pub fn variant(mut self, id: u32, name: &str, content: Record) -> Self {
        let name = name.into();
        self.variants.push(Variant { id, name, content });
        self.variants.sort_by_key(|variant| variant.id);
        self
    }

    /// Says that no variant has these ids any more; any order.
    #[must_use]
    pub fn retire(mut self, ids: &[u32]) -> Self {
        self.retired.extend_from_slice(ids);
        self.retired.sort_unstable();
        self
    }

    /// The variant of that id.
    pub fn find(&self, id: u32) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.id == id)
    }
}

impl Schema {
    /// No bytes.
    pub const VOID: Schema = Schema::Primitive(Primitive::Void);

    /// A value of this or none.
    #[must_use]
    pub fn optional(self) -> Self {
        Schema::Option(Box::new(self))
    }

    /// Any number of these.
    #[must_use]
    pub fn list(self) -> Self {
        Schema::List(Box::new(self))
    }

    /// Bytes of a codec of the program, which only the program can read. `name` must change when the bytes do.
    ///
    /// Such bytes stand behind their length (a varint), also as a whole value.
    pub fn opaque(name: &str) -> Self {
        Schema::Foreign(Foreign::Opaque, name.into())
    }

    /// Parts that this schema consists of directly.
    fn children(&self) -> Box<dyn Iterator<Item = &Schema> + '_> {
        match self {
            Schema::Primitive(_) | Schema::FixedBytes(_) | Schema::Foreign(..) => Box::new([].into_iter()),
            Schema::Option(inner) | Schema::List(inner) | Schema::Array(inner, _) => {
                Box::new([&**inner].into_iter())
            }
            Schema::Map(key, value) => Box::new([&**key, &**value].into_iter()),
            Schema::Tuple(parts) => Box::new(parts.iter()),
            Schema::Struct(record) => Box::new(record.fields.iter().map(|field| &field.schema)),
            Schema::Enum(choice) => Box::new(
                choice
                    .variants
                    .iter()
                    .flat_map(|variant| variant.content.fields.iter().map(|field| &field.schema)),
            ),
        }
    }

    /// Whether a part of it is foreign: reports flag such states, because changes of the bytes cannot be seen.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Schema::Foreign(..)) || self.children().any(Schema::is_foreign)
    }

    /// Fewest bytes of a value.
    pub fn bytes_min(&self) -> usize {
        match self {
            Schema::Primitive(primitive) => match primitive {
                Primitive::Void => 0,
                Primitive::Bool | Primitive::String | Primitive::Bytes => 1,
                Primitive::F32 | Primitive::Char => 4,
                Primitive::F64 => 8,
                Primitive::Duration | Primitive::Timestamp => 12,
                integer => integer.integer().map_or(0, |(bits, _)| bits as usize / 8),
            },
            Schema::FixedBytes(bytes) => *bytes as usize,
            Schema::Option(_) | Schema::List(_) | Schema::Map(..) | Schema::Enum(_) | Schema::Foreign(..) => {
                1
            }
            Schema::Array(inner, count) => inner.bytes_min().saturating_mul(*count as usize),
            Schema::Tuple(_) | Schema::Struct(_) => self
                .children()
                .fold(0, |sum, part| sum.saturating_add(part.bytes_min())),
        }
    }
}
