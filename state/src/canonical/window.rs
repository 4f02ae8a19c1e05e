//! Reading a part of a file in order, every MiB of it verified before a byte of it is handed out.
//!
//! ```text
//!   file    … │ MiB n │ MiB n + 1 │ …        read whole, checked against the trailer
//!   buffer      [ ··· rest of n ··· n + 1 ]  what lies before the byte asked for is let go
//! ```
//! One pass: what was verified is what is decoded, whatever happens to the file meanwhile.

use keybed_env::ReadFile;
use keybed_format::{
    Code, Error, Result,
    trailer::{CHUNK_BYTES, ChunkSums},
};

/// Verified bytes of a file around the place where its reader is.
pub(super) struct Window<'a> {
    file: &'a dyn ReadFile,
    sums: ChunkSums,
    /// The bytes from `start` to a boundary of a MiB or the end of the content.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    /// A window that stands at the MiB of `offset`.
    ///
    /// # Errors
    /// Those of reading the trailer.
    pub(super) fn at(file: &'a dyn ReadFile, offset: u64) -> Result<Self> {
        let mut read_at = |at: u64, buffer: &mut [u8]| file.read_exact_at(buffer, at);
        let sums = ChunkSums::read(file.len(), &mut read_at)?;
        Ok(Window {
            file,
            sums,
            buffer: Vec::new(),
            start: offset - offset % CHUNK_BYTES as u64,
        })
    }

    /// `bytes` bytes from `offset`, which does not lie before that of the last call. The caller has bounded `bytes`.
    ///
    /// # Errors
    /// `Malformed` with the offset if the content ends before or a MiB of it is damaged.
    pub(super) fn get(&mut self, offset: u64, bytes: usize) -> Result<&[u8]> {
        let outside = || Error::new(Code::Malformed, "the content ends too early").at(offset);
        let from = offset.checked_sub(self.start).ok_or_else(outside)?;
        let mut from = usize::try_from(from).map_err(|_| outside())?;
        if self.buffer.len() < from.saturating_add(bytes) {
            let gone = from.min(self.buffer.len());
            self.buffer.drain(..gone);
            self.start += gone as u64;
            from -= gone;
            while self.buffer.len() < from.saturating_add(bytes) {
                self.load()
                    .and_then(|more| more.then_some(()).ok_or_else(outside))?;
            }
        }
        self.buffer
            .get(from..)
            .and_then(|rest| rest.get(..bytes))
            .ok_or_else(outside)
    }

    /// Appends the next MiB; `false` behind the last.
    fn load(&mut self) -> Result<bool> {
        let (old, offset) = (self.buffer.len(), self.start + self.buffer.len() as u64);
        let bytes = self.sums.chunk_bytes(offset);
        self.buffer.resize(old + bytes, 0);
        let chunk = &mut self.buffer[old..];
        let read = self.file.read_exact_at(chunk, offset);
        let checked = read.and_then(|()| self.sums.check(offset, &self.buffer[old..]));
        if checked.is_err() {
            self.buffer.truncate(old);
        }
        checked.map(|()| bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybed_env::{Fs, SimFs};
    use keybed_format::trailer::TrailerBuilder;
    use std::path::Path;

    /// Bytes that tell where they lie, and their file.
    fn file(bytes: usize) -> (Vec<u8>, SimFs) {
        let content: Vec<u8> = (0..bytes).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect();
        let mut trailer = TrailerBuilder::new(5, 6);
        trailer.update(&content);
        let fs = SimFs::without_history();
        let mut file = fs.create(Path::new("/f")).unwrap();
        file.append(&content).unwrap();
        file.append(&trailer.finish().0).unwrap();
        (content, fs)
    }

    #[test]
    fn every_piece_is_what_lies_there() {
        let (content, fs) = file(5 * CHUNK_BYTES / 2);
        let file = fs.open(Path::new("/f")).unwrap();
        for (first, piece) in [
            (0, 1000),
            (3, CHUNK_BYTES),
            (CHUNK_BYTES + 7, 64 << 10),
            (9, 2 * CHUNK_BYTES),
            (2 * CHUNK_BYTES, 1),
        ] {
            let mut window = Window::at(&*file, first as u64).unwrap();
            let mut at = first;
            while at + piece <= content.len() && at < first + 40 * piece {
                assert_eq!(window.get(at as u64, piece).unwrap(), &content[at..at + piece]);
                // What was seen may be asked for again.
                assert_eq!(window.get(at as u64, 1).unwrap(), &content[at..=at]);
                at += piece;
            }
            let end = content.len() as u64;
            assert_eq!(window.get(end, 0).unwrap(), b"");
            assert_eq!(window.get(end, 1).unwrap_err().code(), Code::Malformed);
            assert!(window.get(u64::MAX, usize::MAX).is_err());
        }
    }

    #[test]
    fn nothing_of_a_damaged_mib_is_handed_out() {
        let (content, fs) = file(3 * CHUNK_BYTES);
        let mut bytes = fs.read(Path::new("/f"), u64::MAX).unwrap();
        bytes[CHUNK_BYTES + 9] ^= 1;
        fs.create(Path::new("/bad")).unwrap().append(&bytes).unwrap();
        let file = fs.open(Path::new("/bad")).unwrap();
        let mut window = Window::at(&*file, 0).unwrap();
        assert_eq!(window.get(0, CHUNK_BYTES).unwrap(), &content[..CHUNK_BYTES]);
        for _ in 0..2 {
            let error = window.get(CHUNK_BYTES as u64 - 5, 10).unwrap_err();
            assert_eq!(error.offset(), Some(CHUNK_BYTES as u64));
        }
        let mut behind = Window::at(&*file, 2 * CHUNK_BYTES as u64 + 1).unwrap();
        assert!(behind.get(2 * CHUNK_BYTES as u64 + 1, 5).is_ok());
    }
}
