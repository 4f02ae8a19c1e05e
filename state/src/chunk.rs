//! Lists as chunks. Page: docs/format/state-value.md.
//!
//! ```text
//! key … │ chunk id u64 BE          value: number u32 │ count u32 │ count × { length varint │ element }
//!
//!   0, 1, 2 …   sealed chunks, full, never changed; `number` is the chunk id
//!   u64::MAX    the tail, where elements are appended; `number` is how many sealed chunks there are
//! ```
//! Whoever knows the key knows the tail's key, so an append is one look-up and never a scan; a list that fits one
//! chunk (about 4 KiB) is read with one look-up. A list without a tail is empty, and the other way round.

use keybed_format::{Code, Cursor, Error, Result, Sink};

/// Chunk id of the tail: behind all sealed chunks in key order.
pub(crate) const TAIL: u64 = u64::MAX;
/// A tail is sealed before it grows above this; only a chunk of a single element may be larger.
pub(crate) const CHUNK_BYTES_MAX: usize = 4096;
const HEADER_BYTES: usize = 8;

/// A chunk's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// Sealed chunks before the tail, or a sealed chunk's own id.
    pub(crate) number: u32,
    /// Elements in the chunk.
    pub(crate) count: u32,
    elements: &'a [u8],
}

impl<'a> Chunk<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(value);
        let (number, count) = (cursor.u32()?, cursor.u32()?);
        let elements = cursor.take(cursor.remaining())?;
        Ok(Chunk {
            number,
            count,
            elements,
        })
    }

    /// An empty tail behind `number` sealed chunks.
    pub(crate) fn empty(number: u32) -> Self {
        Chunk {
            number,
            count: 0,
            elements: &[],
        }
    }

    /// Whether this element still belongs into this tail.
    pub(crate) fn has_room(&self, element: &[u8]) -> bool {
        let bytes = varint_bytes(element.len()) + element.len();
        self.count == 0 || HEADER_BYTES + self.elements.len() + bytes < CHUNK_BYTES_MAX
    }

    /// Writes the chunk's value with one more element.
    pub(crate) fn write_with(&self, element: &[u8], out: &mut Sink) {
        out.u32(self.number)
            .u32(self.count + 1)
            .raw(self.elements)
            .bytes(element);
    }

    /// The elements' bytes in order.
    pub(crate) fn elements(&self) -> Elements<'a> {
        self.elements_from(0, self.count)
    }

    /// The last `left` elements, which start at `at` (a position that [`Elements::position`] returned).
    pub(crate) fn elements_from(&self, at: usize, left: u32) -> Elements<'a> {
        let rest = self.elements.get(at..).unwrap_or_default();
        Elements {
            left,
            at,
            cursor: Cursor::with_base(rest, (HEADER_BYTES + at) as u64),
        }
    }
}

/// Gathers the elements of a whole list in the chunks that appending them one by one would have made.
#[derive(Debug, Default)]
pub(crate) struct ChunkBuilder {
    number: u32,
    count: u32,
    elements: Sink,
}

impl ChunkBuilder {
    /// Whether the element still belongs into this chunk.
    pub(crate) fn has_room(&self, element: &[u8]) -> bool {
        let chunk = Chunk {
            number: self.number,
            count: self.count,
            elements: self.elements.as_slice(),
        };
        chunk.has_room(element)
    }

    pub(crate) fn push(&mut self, element: &[u8]) {
        self.elements.bytes(element);
        self.count += 1;
    }

    /// Begins another list; keeps the memory.
    pub(crate) fn clear(&mut self) {
        (self.number, self.count) = (0, 0);
        self.elements.clear();
    }

    /// Writes the chunk's value.
    pub(crate) fn write(&self, out: &mut Sink) {
        out.u32(self.number).u32(self.count).raw(self.elements.as_slice());
    }

    /// Writes the chunk as a sealed one, whose id is returned, and begins the next.
    ///
    /// # Errors
    /// `ValueTooLarge` if the list has as many chunks as it can have.
    pub(crate) fn seal(&mut self, out: &mut Sink) -> Result<u32> {
        self.write(out);
        let id = self.number;
        self.number = id.checked_add(1).ok_or_else(|| {
            Error::new(Code::ValueTooLarge, "a list has as many chunks as it can have").with("chunks", id)
        })?;
        self.count = 0;
        self.elements.clear();
        Ok(id)
    }
}

/// Length of a varint.
fn varint_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Walks over the elements of one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    left: u32,
    at: usize,
    cursor: Cursor<'a>,
}

impl<'a> Elements<'a> {
    /// The next element's bytes.
    ///
    /// # Errors
    /// `Malformed` if the chunk ends early or holds more than it says.
    pub(crate) fn next_element(&mut self) -> Result<Option<&'a [u8]>> {
        if self.left == 0 {
            return self.cursor.clone().finish().map(|()| None);
        }
        self.left -= 1;
        self.cursor.bytes().map(Some)
    }

    /// Where the next element starts.
    pub(crate) fn position(&self) -> usize {
        self.at + self.cursor.position()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_chunk_pins_the_format() {
        let (mut first, mut out) = (Sink::new(), Sink::new());
        Chunk::empty(3).write_with(b"ab", &mut first);
        Chunk::parse(first.as_slice()).unwrap().write_with(b"", &mut out);
        assert_eq!(out.as_slice(), [3, 0, 0, 0, 2, 0, 0, 0, 2, b'a', b'b', 0]);
        let chunk = Chunk::parse(out.as_slice()).unwrap();
        let mut elements = chunk.elements();
        assert_eq!(elements.next_element().unwrap(), Some(&b"ab"[..]));
        assert_eq!(elements.next_element().unwrap(), Some(&b""[..]));
        assert_eq!(elements.next_element().unwrap(), None);
    }

    #[test]
    fn a_damaged_chunk_is_an_error() {
        assert!(Chunk::parse(&[0; 7]).is_err());
        let short = [0, 0, 0, 0, 2, 0, 0, 0, 1, 7];
        let mut elements = Chunk::parse(&short).unwrap().elements();
        elements.next_element().unwrap();
        assert!(elements.next_element().is_err());
        let long = [0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(Chunk::parse(&long).unwrap().elements().next_element().is_err());
    }

    #[test]
    fn only_a_single_element_may_exceed_a_chunk() {
        let big = vec![0; CHUNK_BYTES_MAX];
        assert!(Chunk::empty(0).has_room(&big));
        let chunk = |bytes| Chunk {
            number: 0,
            count: 1,
            elements: &big[..bytes],
        };
        assert!(chunk(4000).has_room(&big[..85]) && !chunk(4000).has_room(&big[..87]));
        assert_eq!([0, 127, 128, 16_383, 16_384].map(varint_bytes), [1, 1, 2, 2, 3]);
    }
}
