//! The write-ahead log: what was written and lies in no table yet.
//!
//! ```text
//! WAL-000007   header (76)  magic "KBWALOG1" · version u32 · number u64 · store id u128 · first seqno u64
//!                           · previous number u64 · previous end u64 · previous synced u64 · xxh3-64
//!              frames       keybed_format::frame, log id = !store id ^ number; payload: first seqno u64, operations
//!
//!  owner    writer.rs   append ──► WAL-7 ──full──► WAL-8 …          one write(2) per write or batch
//!  anybody  sync.rs     sync_to(position)                           one leader syncs for all who wait
//!  open     reader.rs   which files and frames are good (pure), then replay above each family's flushed seqno
//!  owner    tidy.rs     a file goes when every family's part of it is flushed; families that hold the oldest back
//!                       are sealed when all files together are too long
//! ```
//! A *position* counts bytes over all files of the log, from the moment the store was opened.
//!
//! A file is not written any more once the next one was begun, and never recycled. What is torn is cut off when the
//! store is opened, and what came after it removed. Page: docs/format/wal.md.

pub(crate) mod fuzz;
pub(crate) mod reader;
pub(crate) mod sync;
pub(crate) mod tidy;
pub(crate) mod writer;

use crate::key::{SEQNO_MAX, Seqno};
use keybed_format::{Code, Cursor, Error, Result, Sink, checksum, frame};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"KBWALOG1";
/// Newest version of the log's layout.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 76;
/// Longest file that is read: a file that is full takes one more frame.
const FILE_BYTES_MAX: u64 = writer::FILE_BYTES_MAX + (frame::PAYLOAD_BYTES_MAX as u64) + (1 << 20);

/// Name of log file `number`.
pub(crate) fn file_name(number: u64) -> String {
    format!("WAL-{number:06}")
}

/// The number in a log file's name.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("WAL-")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The log file `number` in `dir`.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

/// What the frames of a file are bound to.
pub(crate) fn log_id(store_id: u128, number: u64) -> u128 {
    !store_id ^ u128::from(number)
}

/// What a log file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Number in its name.
    pub(crate) number: u64,
    /// The store it belongs to.
    pub(crate) store_id: u128,
    /// Smaller seqnos are in earlier files.
    pub(crate) first_seqno: Seqno,
    /// Number of the file before it; 0 = none.
    pub(crate) previous: u64,
    /// Where that file ended.
    pub(crate) previous_end: u64,
    /// Up to where that file was known to be durable when this one was begun.
    pub(crate) previous_synced: u64,
}

impl Header {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Sink::with_capacity(HEADER_BYTES);
        out.raw(&MAGIC).u32(VERSION).u64(self.number).u128(self.store_id);
        out.u64(self.first_seqno).u64(self.previous);
        out.u64(self.previous_end).u64(self.previous_synced);
        let sum = checksum::hash(out.as_slice());
        out.u64(sum);
        out.into_vec()
    }

    /// Reads the header of the file `number` of the store `store_id`.
    ///
    /// # Errors
    /// `Malformed` with the offset; `UnsupportedFormatVersion` if it is newer.
    pub(crate) fn decode(bytes: &[u8], number: u64, store_id: u128) -> Result<Header> {
        let mut c = Cursor::new(bytes);
        let head = c.clone().take(HEADER_BYTES - 8)?;
        if c.array::<8>()? != MAGIC {
            return Err(Error::new(Code::Malformed, "the log's magic number is another one").at(0));
        }
        let version = c.u32()?;
        let header = Header {
            number: c.u64()?,
            store_id: c.u128()?,
            first_seqno: c.u64()?,
            previous: c.u64()?,
            previous_end: c.u64()?,
            previous_synced: c.u64()?,
        };
        if c.u64()? != checksum::hash(head) {
            return Err(Error::new(Code::Malformed, "the checksum of the log's header differs").at(0));
        }
        if version != VERSION {
            return Err(
                Error::new(Code::UnsupportedFormatVersion, "the log's version is not known")
                    .at(8)
                    .expected_found(VERSION, version),
            );
        }
        if (header.number, header.store_id) != (number, store_id) {
            return Err(Error::new(Code::Malformed, "the log is of another store or place").at(12));
        }
        if header.first_seqno > SEQNO_MAX || header.previous >= number {
            return Err(Error::new(Code::Malformed, "the log's header makes no sense").at(36));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        reader::{Known, examine, replay_file},
        tidy::Closed,
        writer::Writer,
        *,
    };
    use crate::batch::Op;
    use keybed_env::{Fs, SimFs};
    use std::sync::Arc;

    /// File 2 of store 0xabcd behind file 1, with a write and a batch.
    fn golden() -> (Arc<SimFs>, Vec<u8>) {
        let fs = Arc::new(SimFs::new());
        let mut writer = Writer::new(fs.clone(), PathBuf::new(), 0xabcd, 2, (1, 500), 1 << 20);
        writer.begin(7, 0).unwrap();
        let put = Op::Put {
            family: 0,
            key: b"key",
            stamp: None,
            value: b"value",
        };
        let append = Op::Append {
            family: 0,
            key: b"k",
            stamp: None,
            bytes: b"more",
        };
        let merge = Op::Merge {
            family: 1,
            key: b"n",
            stamp: None,
            operand: &[5; 8],
        };
        let delete = Op::Delete {
            family: 0,
            key: b"key",
        };
        // Tokens are not numbers of the manifest.
        writer
            .append(7, [put].into_iter(), |token| token + 300, 0)
            .unwrap();
        writer
            .append(8, [append, merge, delete].into_iter(), |token| token + 300, 100)
            .unwrap();
        let bytes = fs.read(&path(Path::new(""), 2), 1 << 20).unwrap();
        let closed = writer.close_current().unwrap();
        assert_eq!(
            closed,
            Closed {
                number: 2,
                seqno_max: 10,
                bytes: bytes.len() as u64
            }
        );
        (fs, bytes)
    }

    const KNOWN: Known = Known {
        store_id: 0xabcd,
        floor: 0,
        durable: 0,
        synced_seqno: 0,
        next_family: 400,
    };

    #[test]
    fn golden_bytes_pin_the_format() {
        let (fs, bytes) = golden();
        let hex: Vec<String> = bytes
            .chunks(32)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        let page = include_str!("../../../docs/format/wal.md");
        for line in &hex {
            assert!(
                page.contains(line.as_str()),
                "the page lacks {line}; all:\n{}",
                hex.join("\n")
            );
        }
        let facts = examine(2, &bytes, &KNOWN).unwrap();
        assert_eq!((facts.end, facts.seqno_max), (bytes.len() as u64, 10));
        assert!(facts.torn.is_none() && facts.is_witness);
        let good = reader::Good {
            number: 2,
            end: facts.end,
            seqno_max: 10,
            is_cut: false,
        };
        let mut seen = Vec::new();
        replay_file(&*fs, Path::new(""), &good, 0xabcd, |seqno, op| {
            seen.push((seqno, op.family()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(7, 300), (8, 300), (9, 301), (10, 300)]);
    }

    #[test]
    fn golden_bytes_pin_operations_with_stamps() {
        let stamp = Some(0x0198_7654_3210);
        let put = Op::Put {
            family: 0,
            key: b"key",
            stamp,
            value: b"value",
        };
        let merge = Op::Merge {
            family: 1,
            key: b"n",
            stamp,
            operand: &[5; 8],
        };
        let append = Op::Append {
            family: 0,
            key: b"k",
            stamp,
            bytes: b"more",
        };
        let fs = Arc::new(SimFs::new());
        let mut writer = Writer::new(fs.clone(), PathBuf::new(), 0xabcd, 2, (1, 500), 1 << 20);
        writer.begin(7, 0).unwrap();
        writer
            .append(7, [put, merge, append].into_iter(), |token| token + 300, 0)
            .unwrap();
        let bytes = fs.read(&path(Path::new(""), 2), 1 << 20).unwrap();
        let frame = &bytes[HEADER_BYTES..];
        let hex: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex: Vec<String> = hex.chunks(32).map(<[String]>::concat).collect();
        let page = include_str!("../../../docs/format/wal.md");
        assert!(
            page.contains(&hex.join("\n")),
            "the page lacks\n{}",
            hex.join("\n")
        );
        let good = reader::Good {
            number: 2,
            end: bytes.len() as u64,
            seqno_max: 9,
            is_cut: false,
        };
        let mut seen = Vec::new();
        replay_file(&*fs, Path::new(""), &good, 0xabcd, |seqno, op| {
            seen.push(match op {
                Op::Put { stamp, value, .. } => (seqno, stamp, value.to_vec()),
                Op::Merge { stamp, operand, .. } => (seqno, stamp, operand.to_vec()),
                Op::Append { stamp, bytes, .. } => (seqno, stamp, bytes.to_vec()),
                _ => panic!("three operations have stamps"),
            });
            Ok(())
        })
        .unwrap();
        let expected = [&b"value"[..], &[5; 8], b"more"];
        let expected = (7..)
            .zip(expected)
            .map(|(seqno, bytes)| (seqno, stamp, bytes.to_vec()));
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_file_of_another_store_place_or_version_is_not_taken() {
        let (_, bytes) = golden();
        assert!(examine(3, &bytes, &KNOWN).unwrap().header.is_err());
        let other = Known {
            store_id: 0xabce,
            ..KNOWN
        };
        assert!(examine(2, &bytes, &other).unwrap().header.is_err());
        let mut newer = bytes.clone();
        newer[8] = 2;
        let sum = checksum::hash(&newer[..HEADER_BYTES - 8]);
        newer[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        let error = examine(2, &newer, &KNOWN).unwrap_err();
        assert_eq!(error.code(), Code::UnsupportedFormatVersion);
        // The manifest never had family 300: what names it came after what the manifest holds.
        let older = Known {
            next_family: 300,
            ..KNOWN
        };
        assert!(
            examine(2, &bytes, &older).is_err(),
            "a frame says that it was durable"
        );
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(file_name(7), "WAL-000007");
        assert_eq!(file_number("WAL-1234567"), Some(1_234_567));
        for other in ["WAL-7", "WAL-0000007", "WAL-00000x", "MANIFEST-000007", "WAL-"] {
            assert_eq!(file_number(other), None, "{other}");
        }
    }
}
