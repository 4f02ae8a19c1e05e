//! How values and keys of the program become bytes.
//!
//! ```text
//! trait      bytes are                                          used for
//! Codec      read back exactly, fixed width where possible      values, list elements
//! KeyCodec   ordered like the values, self-delimiting           keys, namespaces, map keys
//! ```
//! Both name their *schema text* (`u64`, `tuple<string,i32>`): a restore compares it with the text that the
//! snapshot recorded before the first record is processed. Layouts: docs/format/logical-key.md and
//! docs/format/state-value.md.

mod ordered;
mod value;

use keybed_format::{Cursor, Result, Sink};

/// A type that can be a state's value or a list's element.
///
/// `decode` reads exactly the bytes that `encode` wrote, whatever follows them. Elements of a `Vec` inside a value
/// take at least one byte each, so that a count can be checked before anything is allocated by it.
///
/// ```
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
///     fn schema() -> String {
///         "order{id:u64,sku:string}".into()
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

    /// Names the layout; equal texts mean equal bytes. At most 64 KiB.
    fn schema() -> String;

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

    /// Names the layout; equal texts mean equal bytes. At most 64 KiB.
    fn key_schema() -> String;
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
mod tests;
