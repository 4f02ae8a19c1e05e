//! How values and keys of the program become bytes.
//!
//! ```text
//! trait      bytes are                                          used for
//! Codec      read back exactly, fixed width where possible      values, list elements
//! KeyCodec   ordered like the values, self-delimiting           keys, namespaces, map keys
//! ```
//! Both describe their bytes by a [`Schema`]: a restore compares it with the one that the snapshot recorded before the
//! first record is processed, and whoever has the schema can read the bytes. Layouts: docs/format/logical-key.md,
//! docs/format/state-value.md and docs/format/schema.md.
//!
//! | file | idea |
//! |---|---|
//! | `value`, `map`, `time` | values of the built-in types |
//! | `ordered` | components of keys of the built-in types |
//! | `framed` | bytes of the program's own, behind their length |
//! | `derived` | what derived codecs call |
//! | [`datum`] | values without types |
//! | `shape`, [`upgrade`] | bytes of an older schema as bytes of a newer one |

pub mod datum;
#[doc(hidden)]
pub mod derived;
mod framed;
mod map;
mod ordered;
mod shape;
mod time;
pub mod upgrade;
mod value;

pub use datum::Datum;
pub use framed::{decode_opaque, encode_opaque};
pub use upgrade::{Upgrade, UpgradeChain};

use keybed_format::{Cursor, Result, Sink};
use keybed_snapshot::Schema;
use time::decode_nanos;
use value::decode_char;

/// A type that can be a state's value or a list's element.
///
/// Derive it, or describe the bytes by hand; bytes that no schema describes are *opaque* ([`encode_opaque`]).
/// `decode` reads exactly the bytes that `encode` wrote, whatever follows them. Elements of a `Vec` inside a value take
/// at least one byte each, so that a count can be checked before anything is allocated by it.
///
/// ```
/// use keybed_state::Codec;
///
/// #[derive(Codec)]
/// #[keybed(crate = keybed_state)] // not needed with the crate `keybed`
/// struct Order {
///     #[keybed(id = 1)]
///     id: u64,
///     #[keybed(id = 2, default)] // orders of older snapshots have an empty one
///     sku: String,
/// }
///
/// assert_eq!(Order::schema().to_string(), "struct Order{1:id:u64,2:sku:string=00}");
/// ```
/// By hand:
/// ```
/// use keybed_snapshot::schema::{Record, Schema};
/// use keybed_state::codec::{self, Codec};
///
/// struct Order { id: u64, sku: String }
///
/// impl Codec for Order {
///     fn encode(&self, out: &mut keybed_format::Sink) {
///         self.id.encode(out);
///         self.sku.encode(out);
///     }
///     fn decode(input: &mut keybed_format::Cursor<'_>) -> keybed_format::Result<Self> {
///         Ok(Order { id: u64::decode(input)?, sku: String::decode(input)? })
///     }
///     fn schema() -> Schema {
///         Schema::Struct(Record::new("order").field(1, "id", u64::schema()).field(2, "sku", String::schema()))
///     }
/// }
///
/// let bytes = codec::encode_value(&Order { id: 7, sku: "bolt".into() });
/// assert_eq!(codec::decode_value::<Order>(&bytes)?.sku, "bolt");
/// # Ok::<(), keybed_format::Error>(())
/// ```
pub trait Codec: Sized {
    /// Appends the value's bytes.
    fn encode(&self, out: &mut Sink);

    /// Reads one value.
    ///
    /// # Errors
    /// `Malformed` if the bytes are none that `encode` writes.
    fn decode(input: &mut Cursor<'_>) -> Result<Self>;

    /// Describes the bytes; equal schemas mean equal bytes.
    fn schema() -> Schema;

    /// Appends all values of a slice; overridden where they are contiguous bytes already.
    #[doc(hidden)]
    fn encode_slice(values: &[Self], out: &mut Sink) {
        values.iter().for_each(|value| value.encode(out));
    }

    /// Reads `count` values; `count` is already bounded by the bytes that are left.
    #[doc(hidden)]
    fn decode_many(count: usize, input: &mut Cursor<'_>) -> Result<Vec<Self>> {
        (0..count).map(|_| Self::decode(input)).collect()
    }

    /// Reads `N` values.
    #[doc(hidden)]
    fn decode_array<const N: usize>(input: &mut Cursor<'_>) -> Result<[Self; N]> {
        let mut refused = None;
        let values = [(); N].map(|()| match &refused {
            None => Self::decode(input).map_err(|error| refused = Some(error)).ok(),
            Some(_) => None,
        });
        match refused {
            None => Ok(values.map(|value| value.expect("every value was read"))),
            Some(error) => Err(error),
        }
    }

    /// The schema of a list of these.
    #[doc(hidden)]
    fn list_schema() -> Schema {
        Self::schema().list()
    }

    /// The schema of an array of these.
    #[doc(hidden)]
    fn array_schema(count: u32) -> Schema {
        Schema::Array(Box::new(Self::schema()), count)
    }
}

/// A type that can be a key, a namespace or a map key: its bytes are a *component* of the logical key.
///
/// For all values `encode_key(a) < encode_key(b)` exactly if `a < b`, and no encoding is a prefix of another
/// one of the same type, so components can follow each other. Floats are ordered by `total_cmp`.
pub trait KeyCodec: Sized {
    /// Appends the component.
    fn encode_key(&self, out: &mut Sink);

    /// Reads one component.
    ///
    /// # Errors
    /// `Malformed` if the bytes are none that `encode_key` writes.
    fn decode_key(input: &mut Cursor<'_>) -> Result<Self>;

    /// Describes the bytes; equal schemas mean equal bytes.
    fn key_schema() -> Schema;
}

/// Bytes of one value.
pub fn encode_value<T: Codec>(value: &T) -> Vec<u8> {
    let mut out = Sink::new();
    value.encode(&mut out);
    out.into_vec()
}

/// The value whose bytes are exactly `bytes`.
///
/// # Errors
/// `Malformed` if they are not one value, or more.
pub fn decode_value<T: Codec>(bytes: &[u8]) -> Result<T> {
    let mut input = Cursor::new(bytes);
    let value = T::decode(&mut input)?;
    input.finish()?;
    Ok(value)
}

/// Bytes of one component.
pub fn encode_key<K: KeyCodec>(key: &K) -> Vec<u8> {
    let mut out = Sink::new();
    key.encode_key(&mut out);
    out.into_vec()
}

/// The key whose component is exactly `bytes`.
///
/// # Errors
/// `Malformed` if they are not one component, or more.
pub fn decode_key<K: KeyCodec>(bytes: &[u8]) -> Result<K> {
    let mut input = Cursor::new(bytes);
    let key = K::decode_key(&mut input)?;
    input.finish()?;
    Ok(key)
}

#[cfg(test)]
mod evolution_tests;
#[cfg(test)]
mod tests;
