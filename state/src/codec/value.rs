//! Values of the built-in types. Page: docs/format/state-value.md.
//!
//! Numbers are fixed-width little-endian, so that a counter overwrites itself in place.
//!
//! ```text
//! u8…u128, i8…i128, f32, f64   little-endian         bool      00 / 01        char   u32
//! string, list                 varint count, then bytes / elements            ()     no bytes
//! option                       00, or 01 and the value                        tuples one after the other
//! [T; N]                       elements
//! ```

use super::Codec;
use keybed_format::{Cursor, Result, Sink};
use keybed_snapshot::schema::{Primitive, Schema};

/// Longest text in a value, in bytes; the store's value limit is below it.
const TEXT_BYTES_MAX: usize = u32::MAX as usize;

macro_rules! number {
    ($($type:ident $primitive:ident)*) => {
        $(impl Codec for $type {
            #[inline]
            fn encode(&self, out: &mut Sink) {
                out.raw(&self.to_le_bytes());
            }

            #[inline]
            fn decode(input: &mut Cursor<'_>) -> Result<Self> {
                Ok(<$type>::from_le_bytes(input.array()?))
            }

            fn schema() -> Schema {
                Primitive::$primitive.into()
            }
        })*
    };
}

number! {
    u16 U16 u32 U32 u64 U64 u128 U128
    i8 I8 i16 I16 i32 I32 i64 I64 i128 I128
    f32 F32 f64 F64
}

impl Codec for u8 {
    fn encode(&self, out: &mut Sink) {
        out.u8(*self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        input.u8()
    }

    fn schema() -> Schema {
        Primitive::U8.into()
    }

    fn encode_slice(values: &[Self], out: &mut Sink) {
        out.raw(values);
    }

    fn decode_many(count: usize, input: &mut Cursor<'_>) -> Result<Vec<Self>> {
        Ok(input.take(count)?.to_vec())
    }

    fn decode_array<const N: usize>(input: &mut Cursor<'_>) -> Result<[Self; N]> {
        input.array()
    }

    fn list_schema() -> Schema {
        Primitive::Bytes.into()
    }

    fn array_schema(count: u32) -> Schema {
        Schema::FixedBytes(count)
    }
}

impl Codec for bool {
    fn encode(&self, out: &mut Sink) {
        out.bool(*self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        input.bool()
    }

    fn schema() -> Schema {
        Primitive::Bool.into()
    }
}

/// A character of a value.
pub(super) fn decode_char(input: &mut Cursor<'_>) -> Result<char> {
    let code = input.u32()?;
    char::from_u32(code).ok_or_else(|| input.malformed("a character is not Unicode").with("found", code))
}

impl Codec for char {
    fn encode(&self, out: &mut Sink) {
        u32::from(*self).encode(out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        decode_char(input)
    }

    fn schema() -> Schema {
        Primitive::Char.into()
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Sink) {
        out.text(self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(input.text(TEXT_BYTES_MAX)?.to_owned())
    }

    fn schema() -> Schema {
        Primitive::String.into()
    }
}

impl<T: Codec, const N: usize> Codec for [T; N] {
    fn encode(&self, out: &mut Sink) {
        T::encode_slice(self, out);
    }

    #[inline]
    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        T::decode_array(input)
    }

    fn schema() -> Schema {
        T::array_schema(u32::try_from(N).unwrap_or(u32::MAX)) // refused by the check of schemas
    }
}

impl<T: Codec> Codec for Box<T> {
    fn encode(&self, out: &mut Sink) {
        (**self).encode(out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        T::decode(input).map(Box::new)
    }

    fn schema() -> Schema {
        T::schema()
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, out: &mut Sink) {
        out.count(self.len());
        T::encode_slice(self, out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        let count = input.count(1)?;
        T::decode_many(count, input)
    }

    fn schema() -> Schema {
        T::list_schema()
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, out: &mut Sink) {
        out.bool(self.is_some());
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        if input.bool()? {
            T::decode(input).map(Some)
        } else {
            Ok(None)
        }
    }

    fn schema() -> Schema {
        T::schema().optional()
    }
}

impl Codec for () {
    fn encode(&self, _: &mut Sink) {}

    fn decode(_: &mut Cursor<'_>) -> Result<Self> {
        Ok(())
    }

    fn schema() -> Schema {
        Schema::VOID
    }
}

macro_rules! tuples {
    ($(($($type:ident $index:tt),+))*) => {
        $(impl<$($type: Codec),+> Codec for ($($type,)+) {
            fn encode(&self, out: &mut Sink) {
                $(self.$index.encode(out);)+
            }

            fn decode(input: &mut Cursor<'_>) -> Result<Self> {
                Ok(($($type::decode(input)?,)+))
            }

            fn schema() -> Schema {
                Schema::Tuple(vec![$($type::schema()),+])
            }
        })*
    };
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11)
}
