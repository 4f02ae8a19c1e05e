//! Values of the built-in types. Page: docs/format/state-value.md.
//!
//! Numbers are fixed-width little-endian, so that a counter overwrites itself in place.
//!
//! ```text
//! u8…u128, i8…i128, f32, f64   little-endian         bool      00 / 01        char   u32
//! string, list                 varint count, then bytes / elements            ()     no bytes
//! option                       00, or 01 and the value                        tuples one after the other
//! [u8; N]                      as they are
//! ```

use super::Codec;
use keybed_format::{Cursor, Result, Sink};

/// Longest text in a value, in bytes; the store's value limit is below it.
const TEXT_BYTES_MAX: usize = u32::MAX as usize;

macro_rules! number {
    ($($type:ident)*) => {
        $(impl Codec for $type {
            #[inline]
            fn encode(&self, out: &mut Sink) {
                out.raw(&self.to_le_bytes());
            }

            #[inline]
            fn decode(input: &mut Cursor<'_>) -> Result<Self> {
                Ok(<$type>::from_le_bytes(input.array()?))
            }

            fn schema() -> String {
                stringify!($type).into()
            }
        })*
    };
}

number!(u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

impl Codec for u8 {
    fn encode(&self, out: &mut Sink) {
        out.u8(*self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        input.u8()
    }

    fn schema() -> String {
        "u8".into()
    }

    fn encode_slice(values: &[Self], out: &mut Sink) {
        out.raw(values);
    }

    fn decode_many(count: usize, input: &mut Cursor<'_>) -> Result<Vec<Self>> {
        Ok(input.take(count)?.to_vec())
    }
}

impl Codec for bool {
    fn encode(&self, out: &mut Sink) {
        out.bool(*self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        input.bool()
    }

    fn schema() -> String {
        "bool".into()
    }
}

impl Codec for char {
    fn encode(&self, out: &mut Sink) {
        u32::from(*self).encode(out);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        let code = u32::decode(input)?;
        char::from_u32(code).ok_or_else(|| input.malformed("a character is not Unicode").with("found", code))
    }

    fn schema() -> String {
        "char".into()
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Sink) {
        out.text(self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        Ok(input.text(TEXT_BYTES_MAX)?.to_owned())
    }

    fn schema() -> String {
        "string".into()
    }
}

impl<const N: usize> Codec for [u8; N] {
    fn encode(&self, out: &mut Sink) {
        out.raw(self);
    }

    fn decode(input: &mut Cursor<'_>) -> Result<Self> {
        input.array()
    }

    fn schema() -> String {
        format!("bytes[{N}]")
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

    fn schema() -> String {
        format!("list<{}>", T::schema())
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

    fn schema() -> String {
        format!("option<{}>", T::schema())
    }
}

impl Codec for () {
    fn encode(&self, _: &mut Sink) {}

    fn decode(_: &mut Cursor<'_>) -> Result<Self> {
        Ok(())
    }

    fn schema() -> String {
        "void".into()
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

            fn schema() -> String {
                format!("tuple<{}>", [$($type::schema()),+].join(","))
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
}
