//! Reading bytes from outside: never panics, never allocates by an unchecked length.
//!
//! All integers are little-endian unless a method says otherwise. Varints are LEB128, at most ten bytes, and only
//! the shortest form is accepted, so equal values have equal bytes.

use crate::{Code, Error, Result};

/// A forward reader over a byte slice.
///
/// Errors are [`Code::Malformed`] and carry the offset (`base` + position); the caller adds the file.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    base: u64,
}

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[inline]
        pub fn $name(&mut self) -> Result<$type> {
            Ok(<$type>::from_le_bytes(self.array()?))
        })*
    };
}

impl<'a> Cursor<'a> {
    /// Reads `bytes` from their start; offsets in errors count from 0.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor {
            bytes,
            position: 0,
            base: 0,
        }
    }

    /// Reads `bytes` that lie at offset `base` of their file.
    pub fn with_base(bytes: &'a [u8], base: u64) -> Self {
        Cursor {
            bytes,
            position: 0,
            base,
        }
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Position from the start of the slice, in bytes.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Offset in the file of the next byte.
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.position as u64)
    }

    /// An error at the current offset.
    #[cold]
    pub fn malformed(&self, message: impl Into<String>) -> Error {
        Error::new(Code::Malformed, message).at(self.offset())
    }

    /// The next `n` bytes, borrowed.
    ///
    /// # Errors
    /// `Malformed` if fewer are left.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.position..).and_then(|rest| rest.get(..n)) {
            Some(taken) => {
                self.position += n;
                Ok(taken)
            }
            None => Err(self
                .malformed("ends too early")
                .expected_found(n, self.remaining())),
        }
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// `Malformed` if fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fixed! {
        /// One byte.
        u8: u8;
        /// Two bytes, little-endian.
        u16: u16;
        /// Four bytes, little-endian.
        u32: u32;
        /// Eight bytes, little-endian.
        u64: u64;
        /// Sixteen bytes, little-endian.
        u128: u128;
        /// Eight bytes, little-endian, two's complement.
        i64: i64;
    }

    /// A byte that must be 0 or 1.
    ///
    /// # Errors
    /// `Malformed` on any other value.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.malformed("a flag is neither 0 nor 1").with("found", other)),
        }
    }

    /// A canonical LEB128 varint of at most 64 bits.
    ///
    /// # Errors
    /// `Malformed` if it is cut off, longer than needed, or above 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                return Err(self.malformed("a varint exceeds 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.malformed("a varint is longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(self.malformed("a varint exceeds 64 bits"))
    }

    /// A varint that counts items of at least `item_bytes_min` bytes each; checked against what is left before
    /// anybody allocates by it.
    ///
    /// # Errors
    /// `Malformed` if that many items cannot fit.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize> {
        let count = self.varint()?;
        let max = self.remaining() / item_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(self
                .malformed("a count exceeds the bytes that are left")
                .with("count", count)),
        }
    }

    /// Bytes after their varint length.
    ///
    /// # Errors
    /// `Malformed` if the length exceeds what is left.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.count(1)?;
        self.take(n)
    }

    /// UTF-8 text after its varint length in bytes, at most `bytes_max` long.
    ///
    /// # Errors
    /// `Malformed` if it is too long or not UTF-8.
    pub fn text(&mut self, bytes_max: usize) -> Result<&'a str> {
        let bytes = self.bytes()?;
        if bytes.len() > bytes_max {
            return Err(self
                .malformed("a text is too long")
                .expected_found(bytes_max, bytes.len()));
        }
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    /// Demands that nothing is left.
    ///
    /// # Errors
    /// `Malformed` if bytes are left over.
    pub fn finish(self) -> Result {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self
                .malformed("bytes are left over")
                .with("left", self.remaining()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sink;
    use proptest::prelude::*;

    #[test]
    fn long_forms_of_a_varint_are_refused() {
        assert!(Cursor::new(&[0x80, 0]).varint().is_err());
        assert!(Cursor::new(&[0xff; 11]).varint().is_err());
        assert_eq!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])
                .varint()
                .ok(),
            Some(u64::MAX)
        );
        assert!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2])
                .varint()
                .is_err()
        );
    }

    #[test]
    fn a_huge_count_is_refused_before_allocation() {
        let mut sink = Sink::new();
        sink.varint(1 << 62);
        assert!(Cursor::new(sink.as_slice()).count(1).is_err());
    }

    #[test]
    fn errors_name_the_offset_in_the_file() {
        let mut c = Cursor::with_base(&[1, 2], 100);
        c.u8().unwrap();
        assert_eq!(c.u16().unwrap_err().offset(), Some(101));
    }

    proptest! {
        #[test]
        fn what_a_sink_writes_a_cursor_reads(a: u64, b: u16, text in ".{0,20}", c: i64, d: u128, e: bool) {
            let mut sink = Sink::new();
            sink.varint(a).u16(b).text(&text).i64(c).u128(d).bool(e);
            let mut cursor = Cursor::new(sink.as_slice());
            prop_assert_eq!(cursor.varint().unwrap(), a);
            prop_assert_eq!(cursor.u16().unwrap(), b);
            prop_assert_eq!(cursor.text(1000).unwrap(), text.as_str());
            prop_assert_eq!(cursor.i64().unwrap(), c);
            prop_assert_eq!(cursor.u128().unwrap(), d);
            prop_assert_eq!(cursor.bool().unwrap(), e);
            cursor.finish().unwrap();
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut c = Cursor::new(&bytes);
            while c.text(8).is_ok() && !c.is_empty() {}
            let mut c = Cursor::new(&bytes);
            while c.varint().is_ok() && !c.is_empty() {}
        }
    }
}
