//! Bytes of the program's own, behind their length, so that whoever cannot read them can pass over them.

use keybed_format::{Cursor, Result, Sink};

/// Appends bytes that only the program can read: what `write` appends, behind its length as a varint.
///
/// For codecs whose schema is [`Schema::opaque`](keybed_snapshot::Schema::opaque).
///
/// ```
/// use keybed_format::{Cursor, Result, Sink};
/// use keybed_snapshot::Schema;
/// use keybed_state::codec::{self, Codec, decode_opaque, encode_opaque};
///
/// struct Sketch(Vec<u8>);
///
/// impl Codec for Sketch {
///     fn encode(&self, out: &mut Sink) {
///         encode_opaque(out, |out| {
///             out.raw(&self.0);
///         });
///     }
///     fn decode(input: &mut Cursor<'_>) -> Result<Self> {
///         decode_opaque(input, |bytes| Ok(Sketch(bytes.to_vec())))
///     }
///     fn schema() -> Schema {
///         Schema::opaque("sketch 1") // another layout needs another name
///     }
/// }
///
/// assert_eq!(codec::encode_value(&Sketch(vec![7, 7])), [2, 7, 7]);
/// ```
pub fn encode_opaque(out: &mut Sink, write: impl FnOnce(&mut Sink)) {
    let mut framed = Sink::new();
    write(&mut framed);
    out.bytes(framed.as_slice());
}

/// Reads what [`encode_opaque`] wrote; `read` gets exactly the bytes.
///
/// # Errors
/// `Malformed` if the bytes end too early; errors of `read`.
pub fn decode_opaque<T>(input: &mut Cursor<'_>, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    read(input.bytes()?)
}
