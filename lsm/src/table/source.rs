//! Where the bytes of a table come from: a memory map, or a source read at offsets.

use keybed_env::{ReadFile, fs::Map};
use keybed_format::{Code, Error, Result};
use std::{borrow::Cow, fmt::Debug, sync::Arc};

/// Bytes read at once when a table is opened: index, properties and footer of most tables.
const TAIL_BYTES: u64 = 64 << 10;

/// Room of a buffer that is used again is a multiple of this.
const ROOM_BYTES: usize = 256;

/// What a table is read from: a local file, a file that is closed while it is not needed, or whatever else hands out
/// the bytes of an immutable file at offsets.
pub trait TableSource: Send + Sync + Debug {
    /// Bytes of the whole table.
    fn bytes(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `Malformed` (with offset) if the table ends before; `IoFailed`, `NotFound`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result;

    /// Tells that `bytes` from `offset` will be read soon. Returns at once; whoever can begin to fetch them does.
    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// The whole table mapped into memory, where that is possible.
    ///
    /// # Errors
    /// `IoFailed` if mapping was possible but failed.
    fn map(&self) -> Result<Option<Map>> {
        Ok(None)
    }
}

impl TableSource for Arc<dyn ReadFile> {
    fn bytes(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        self.read_exact_at(buffer, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        ReadFile::will_read(&**self, offset, bytes);
    }

    fn map(&self) -> Result<Option<Map>> {
        ReadFile::map(&**self)
    }
}

/// The bytes of a table.
pub(crate) enum Source {
    /// Mapped; the file itself is closed, the map keeps its pages alive.
    Map(Map),
    Read(Arc<dyn TableSource>),
}

impl Source {
    /// The source, mapped if asked for and possible.
    pub(super) fn new(source: Arc<dyn TableSource>, map: bool) -> Result<Source> {
        let mapped = if map { source.map()? } else { None };
        Ok(mapped.map_or(Source::Read(source), Source::Map))
    }

    /// Without a map.
    pub(crate) fn read_from(source: Arc<dyn TableSource>) -> Source {
        Source::Read(source)
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Source::Map(map) => map.len() as u64,
            Source::Read(source) => source.bytes(),
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Source::Map(_))
    }

    /// Bytes `start..end` of the map; `None` without one or outside of it.
    #[inline(always)]
    pub(super) fn mapped(&self, start: usize, end: usize) -> Option<&[u8]> {
        match self {
            Source::Map(map) => map.get(start..end),
            Source::Read(_) => None,
        }
    }

    /// Announces a read of `start..end`.
    pub(super) fn will_read(&self, start: u64, end: u64) {
        let bytes = end.saturating_sub(start);
        match self {
            Source::Map(map) => map.will_read(start, bytes),
            Source::Read(source) => source.will_read(start, bytes),
        }
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result {
        match self {
            Source::Map(_) => {
                buffer.copy_from_slice(&self.read(offset, offset.saturating_add(buffer.len() as u64))?);
                Ok(())
            }
            Source::Read(source) => source.read_at(buffer, offset),
        }
    }

    /// Bytes `start..end`, refused before anything is allocated if the file ends earlier.
    pub(super) fn read(&self, start: u64, end: u64) -> Result<Cow<'_, [u8]>> {
        let outside = || Error::new(Code::Malformed, "the file ends too early").at(start);
        if start > end || end > self.len() {
            return Err(outside().expected_found(end, self.len()));
        }
        match self {
            Source::Map(map) => map
                .get(start as usize..end as usize)
                .map(Cow::Borrowed)
                .ok_or_else(outside),
            Source::Read(source) => {
                let mut bytes = vec![0; usize::try_from(end - start).map_err(|_| outside())?];
                source.read_at(&mut bytes, start)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Bytes `start..end` into a buffer that was used before: what it had room for is not cleared first.
    pub(super) fn read_again(&self, start: u64, end: u64, buffer: &mut Vec<u8>) -> Result {
        let outside = || Error::new(Code::Malformed, "the file ends too early").at(start);
        if start > end || end > self.len() {
            return Err(outside().expected_found(end, self.len()));
        }
        let bytes = usize::try_from(end - start).map_err(|_| outside())?;
        if buffer.capacity() < bytes || buffer.capacity() / 2 > bytes + ROOM_BYTES {
            // Blocks are about equally large: with a little more room it serves for most of them.
            *buffer = vec![0; bytes.next_multiple_of(ROOM_BYTES)];
        }
        buffer.resize(bytes, 0);
        self.read_into(start, buffer)
    }

    /// The end of the file, read at once.
    pub(super) fn tail(&self) -> Result<Tail<'_>> {
        let start = self.len().saturating_sub(TAIL_BYTES);
        Ok(Tail {
            source: self,
            start,
            bytes: self.read(start, self.len())?,
        })
    }
}

/// A source whose last bytes are in memory already.
pub(super) struct Tail<'a> {
    source: &'a Source,
    start: u64,
    bytes: Cow<'a, [u8]>,
}

impl Tail<'_> {
    /// Bytes `start..end` of the file.
    pub(super) fn section(&self, start: u64, end: u64) -> Result<Cow<'_, [u8]>> {
        let at = |offset: u64| offset.checked_sub(self.start).map(|n| n as usize);
        match (at(start), at(end)) {
            (Some(from), Some(to)) if to <= self.bytes.len() && from <= to => {
                Ok(Cow::Borrowed(&self.bytes[from..to]))
            }
            _ => self.source.read(start, end),
        }
    }

    /// Fills `buffer` from `offset` of the file.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result {
        buffer.copy_from_slice(&self.section(offset, offset.saturating_add(buffer.len() as u64))?);
        Ok(())
    }
}
