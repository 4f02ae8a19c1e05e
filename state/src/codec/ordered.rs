//! Components of the logical key for the built-in types. Page: docs/format/logical-key.md.
//!
//! ```text
//! u8…u128        big-endian                          i8…i128   big-endian, sign bit flipped
//! f32, f64       bits; negative: all flipped, else sign bit flipped (the order of total_cmp)
//! bool           00 / 01                             char      u32 big-endian
//! string, bytes  each 00 as 00 FF, then 00 01        ()        no bytes
//! [u8; N]        as they are                         Option    00, or 01 and the component
//! tuples         components one after the other
//! ```

use super::KeyCodec;
use keybed_format::{Cursor, Result, Sink};
use keybed_snapshot::schema::{Primitive, Schema};

macro_rules! unsigned {
    ($($type:ident $primitive:ident)*) => {
        $(impl KeyCodec for $type {
            #[inline]
            fn encode_key(&self, out: &mut Sink) {
                out.raw(&self.to_be_bytes());
            }

            #[inline]
            fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
                Ok(<$type>::from_be_bytes(input.array()?))
            }

            fn key_schema() -> Schema {
                Primitive::$primitive.into()
            }
        })*
    };
}

macro_rules! signed {
    ($($type:ident as $unsigned:ident $primitive:ident)*) => {
        $(impl KeyCodec for $type {
            #[inline]
            fn encode_key(&self, out: &mut Sink) {
                (*self ^ $type::MIN).cast_unsigned().encode_key(out);
            }

            #[inline]
            fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
                Ok($unsigned::decode_key(input)?.cast_signed() ^ $type::MIN)
            }

            fn key_schema() -> Schema {
                Primitive::$primitive.into()
            }
        })*
    };
}

macro_rules! float {
    ($($type:ident as $bits:ident $primitive:ident)*) => {
        $(impl KeyCodec for $type {
            fn encode_key(&self, out: &mut Sink) {
                let bits = self.to_bits();
                let sign = 1 << ($bits::BITS - 1);
                (if bits & sign == 0 { bits ^ sign } else { !bits }).encode_key(out);
            }

            fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
                let bits = $bits::decode_key(input)?;
                let sign = 1 << ($bits::BITS - 1);
                Ok($type::from_bits(if bits & sign == 0 { !bits } else { bits ^ sign }))
            }

            fn key_schema() -> Schema {
                Primitive::$primitive.into()
            }
        })*
    };
}

unsigned!(u8 U8 u16 U16 u32 U32 u64 U64 u128 U128);
signed!(i8 as u8 I8 i16 as u16 I16 i32 as u32 I32 i64 as u64 I64 i128 as u128 I128);
float!(f32 as u32 F32 f64 as u64 F64);

impl KeyCodec for bool {
    fn encode_key(&self, out: &mut Sink) {
        out.bool(*self);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        input.bool()
    }

    fn key_schema() -> Schema {
        Primitive::Bool.into()
    }
}

impl KeyCodec for char {
    fn encode_key(&self, out: &mut Sink) {
        u32::from(*self).encode_key(out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        let code = u32::decode_key(input)?;
        char::from_u32(code).ok_or_else(|| input.malformed("a character is not Unicode").with("found", code))
    }

    fn key_schema() -> Schema {
        Primitive::Char.into()
    }
}

/// Escapes the zeros of `bytes` and appends the terminator.
fn escape(bytes: &[u8], out: &mut Sink) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.raw(&rest[..zero]).raw(&[0x00, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.raw(rest).raw(&[0x00, 0x01]);
}

fn unescape(input: &mut Cursor<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match input.u8()? {
            0 => match input.u8()? {
                0x01 => return Ok(bytes),
                0xff => bytes.push(0),
                other => {
                    return Err(input
                        .malformed("an escape in a component is none of ours")
                        .with("found", other));
                }
            },
            byte => bytes.push(byte),
        }
    }
}

impl KeyCodec for String {
    fn encode_key(&self, out: &mut Sink) {
        escape(self.as_bytes(), out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        String::from_utf8(unescape(input)?).map_err(|_| input.malformed("a text is not UTF-8"))
    }

    fn key_schema() -> Schema {
        Primitive::String.into()
    }
}

impl KeyCodec for Vec<u8> {
    fn encode_key(&self, out: &mut Sink) {
        escape(self, out);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        unescape(input)
    }

    fn key_schema() -> Schema {
        Primitive::Bytes.into()
    }
}

impl<const N: usize> KeyCodec for [u8; N] {
    fn encode_key(&self, out: &mut Sink) {
        out.raw(self);
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        input.array()
    }

    fn key_schema() -> Schema {
        Schema::FixedBytes(u32::try_from(N).unwrap_or(u32::MAX)) // refused by the check of schemas
    }
}

impl<K: KeyCodec> KeyCodec for Option<K> {
    fn encode_key(&self, out: &mut Sink) {
        out.bool(self.is_some());
        if let Some(key) = self {
            key.encode_key(out);
        }
    }

    fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
        if input.bool()? {
            K::decode_key(input).map(Some)
        } else {
            Ok(None)
        }
    }

    fn key_schema() -> Schema {
        K::key_schema().optional()
    }
}

impl KeyCodec for () {
    fn encode_key(&self, _: &mut Sink) {}

    fn decode_key(_: &mut Cursor<'_>) -> Result<Self> {
        Ok(())
    }

    fn key_schema() -> Schema {
        Schema::VOID
    }
}

macro_rules! tuples {
    ($(($($type:ident $index:tt),+))*) => {
        $(impl<$($type: KeyCodec),+> KeyCodec for ($($type,)+) {
            fn encode_key(&self, out: &mut Sink) {
                $(self.$index.encode_key(out);)+
            }

            fn decode_key(input: &mut Cursor<'_>) -> Result<Self> {
                Ok(($($type::decode_key(input)?,)+))
            }

            fn key_schema() -> Schema {
                Schema::Tuple(vec![$($type::key_schema()),+])
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
