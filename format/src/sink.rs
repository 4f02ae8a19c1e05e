//! Writing the bytes that a [`Cursor`](crate::Cursor) reads.

/// A growing byte buffer; every method returns the sink, so calls chain. Integers are little-endian.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sink(Vec<u8>);

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])*
        #[inline]
        pub fn $name(&mut self, value: $type) -> &mut Self {
            self.raw(&value.to_le_bytes())
        })*
    };
}

impl Sink {
    /// An empty sink.
    pub fn new() -> Self {
        Sink(Vec::new())
    }

    /// An empty sink with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Sink(Vec::with_capacity(bytes))
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

    /// A flag as one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Shortest LEB128 form.
    #[inline]
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// A count or length as a varint.
    #[inline]
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.varint(value as u64)
    }

    /// Bytes as they are, without a length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Varint length, then the bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).raw(bytes)
    }

    /// Varint length in bytes, then UTF-8.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Forgets the content, keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The buffer, to be appended to by what knows vectors only.
    pub fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}
