//! Lines of a text file, plain or zstd, numbered from 1, read as a stream.
//!
//! A file starts with the zstd magic or is taken as plain text. Reading is bounded: one line at a time, at most
//! [`LINE_BYTES_MAX`]. A zstd stream that ends inside a frame is an error, never the end of the input.

use keybed::{Code, Error, Result};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Longest line, in bytes; protects against a file without line ends.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A reader of numbered lines.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    /// Opens a file at its first line.
    ///
    /// # Errors
    /// `InputUnreadable` with the file: it is missing, is no file, may not be read, or is compressed and this
    /// build cannot decompress.
    pub(crate) fn open(path: &Path) -> Result<Lines> {
        Self::of(open_file(path)?, path)
    }

    /// Reads bytes that come from somewhere else; `path` names that in errors.
    ///
    /// # Errors
    /// As [`Lines::open`].
    pub(crate) fn of(bytes: impl Read + Send + 'static, path: &Path) -> Result<Lines> {
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, bytes);
        let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
        raw.by_ref()
            .take(ZSTD_MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(|e| unreadable(path, "read", &e))?;
        let compressed = magic == ZSTD_MAGIC;
        let whole = io::Cursor::new(magic).chain(raw);
        let reader = if compressed {
            decompress(path, whole)?
        } else {
            Box::new(whole)
        };
        Ok(Lines {
            reader,
            path: path.into(),
            number: 0,
            line: Vec::new(),
        })
    }

    /// The next line without its end, and its number; `None` at the end of the input.
    ///
    /// # Errors
    /// `InputUnreadable` if the file cannot be read or decompressed; `BadRecord` if the line is too long.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => self.number += 1,
            Err(e) => return Err(unreadable(&self.path, "read", &e).with("line", self.number + 1)),
        }
        if self.line.len() > LINE_BYTES_MAX {
            return Err(Error::new(
                Code::BadRecord,
                format!("the line is longer than {LINE_BYTES_MAX} bytes"),
            )
            .in_file(&self.path)
            .with("line", self.number));
        }
        for end in [b'\n', b'\r'] {
            if self.line.last() == Some(&end) {
                self.line.pop();
            }
        }
        Ok(Some((self.number, &self.line)))
    }
}

/// Opens a regular file.
///
/// # Errors
/// `InputUnreadable` with the file.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| unreadable(path, "open", &e))?;
    let facts = file.metadata().map_err(|e| unreadable(path, "stat", &e))?;
    if facts.is_file() {
        return Ok(file);
    }
    let what = "it is no regular file, so it cannot be read again from a position";
    Err(Error::new(Code::InputUnreadable, what).in_file(path))
}

/// The error of an input that cannot be read.
pub(crate) fn unreadable(path: &Path, what: &str, error: &io::Error) -> Error {
    Error::new(Code::InputUnreadable, format!("{what}: {error}")).in_file(path)
}

#[cfg(feature = "zstd")]
fn decompress(path: &Path, bytes: impl Read + Send + 'static) -> Result<Box<dyn BufRead + Send>> {
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|e| unreadable(path, "decompress", &e))?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
}

#[cfg(not(feature = "zstd"))]
fn decompress(path: &Path, _: impl Read) -> Result<Box<dyn BufRead + Send>> {
    Err(Error::new(
        Code::InputUnreadable,
        "it is compressed with zstd and this keybed was built without the feature `zstd`; decompress it first",
    )
    .in_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn all(path: &Path) -> Result<Vec<String>> {
        let mut lines = Lines::open(path)?;
        let mut out = Vec::new();
        while let Some((number, line)) = lines.next()? {
            out.push(format!("{number}:{}", String::from_utf8_lossy(line)));
        }
        Ok(out)
    }

    fn with(bytes: &[u8]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        fs::write(&path, bytes).unwrap();
        all(&path)
    }

    #[test]
    fn line_ends_of_both_kinds_and_none_at_the_end() {
        assert_eq!(with(b"a\r\nb\n\nc").unwrap(), ["1:a", "2:b", "3:", "4:c"]);
        assert_eq!(with(b"").unwrap(), [""; 0]);
        assert_eq!(with(b"ab").unwrap(), ["1:ab"]);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let error = with(&vec![b'x'; LINE_BYTES_MAX * 3]).unwrap_err();
        assert_eq!(
            (error.code(), error.fields()[0].1.as_str()),
            (Code::BadRecord, "1")
        );
    }

    #[test]
    fn what_is_missing_or_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing"), dir.path().to_path_buf()] {
            let error = all(&path).unwrap_err();
            assert_eq!(
                (error.code(), error.file()),
                (Code::InputUnreadable, Some(path.as_path()))
            );
        }
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn zstd_is_recognised_and_a_cut_stream_is_an_error_at_every_length() {
        let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        let packed = zstd::stream::encode_all(text.as_bytes(), 3).unwrap();
        assert_eq!(with(&packed).unwrap().len(), 2000);
        for length in ZSTD_MAGIC.len()..packed.len() {
            let error = with(&packed[..length]).unwrap_err();
            assert_eq!(error.code(), Code::InputUnreadable, "cut to {length} bytes");
        }
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn zstd_without_the_feature_says_so() {
        let error = with(&[0x28, 0xb5, 0x2f, 0xfd, 0]).unwrap_err();
        assert!(error.message().contains("feature `zstd`"));
    }
}
