//! The stop record: the job is to end with a savepoint, and this is where it will lie.
//!
//! ```text
//!  STOP ─ directory, files, … ─ `_metadata` of the savepoint ─ STOPPED ─ sinks commit ─ FINISHED
//!                                          ↑ only forward from here
//! ```
//! `STOP` is durable before the first byte of the savepoint and says where to look: a recovery that finds no metadata
//! there removes what was begun and goes on from the newest checkpoint; one that finds it only commits what the
//! savepoint names. `STOPPED` repeats the record once the savepoint exists: from then on sinks may have committed, so
//! a savepoint that cannot be found any more stops every recovery. Bytes: docs/format/job-root.md.

use crate::{CheckpointId, Generation, JobId, RootId};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"KBSTOP\0\x01";
const VERSION: u32 = 1;
const STOP: u32 = 1;
/// Largest stop record that is read, in bytes.
pub const STOP_BYTES_MAX: u64 = 64 << 10;
/// Longest path of a savepoint's directory, in bytes.
const DIRECTORY_BYTES_MAX: usize = 4096;

/// A stop with a savepoint that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRecord {
    /// The job.
    pub job: JobId,
    /// Its root.
    pub root: RootId,
    /// Generation that began the stop.
    pub generation: Generation,
    /// Attempt that began it.
    pub attempt: u64,
    /// The id under which the savepoint is taken.
    pub checkpoint: CheckpointId,
    /// Whether the input was ended first, so that the result is complete.
    pub drained: bool,
    /// Milliseconds since 1970-01-01T00:00:00Z, for people.
    pub timestamp_ms: u64,
    /// The savepoint's directory, found from anywhere.
    pub directory: PathBuf,
}

impl StopRecord {
    /// The bytes of `STOP` and `STOPPED`.
    ///
    /// # Errors
    /// `InvalidArgument` if the directory cannot be recorded: it is no UTF-8 or too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let directory = directory_text(&self.directory)?;
        let mut out = Sink::new();
        out.u128(self.job.0).u128(self.root.0).u64(self.generation.0);
        out.u64(self.attempt).u64(self.checkpoint.0).bool(self.drained);
        out.u64(self.timestamp_ms).text(directory);
        let section = Section {
            tag: STOP,
            version: 1,
            bytes: out.into_vec(),
        };
        Ok(envelope::write(MAGIC, VERSION, &[section]))
    }

    /// Reads and checks a record.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with the offset; `UnsupportedFormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read_record(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    }
}

/// A path as records hold it.
///
/// # Errors
/// `InvalidArgument` if it is no UTF-8 or too long.
pub fn directory_text(path: &Path) -> Result<&str> {
    path.to_str()
        .filter(|text| text.len() <= DIRECTORY_BYTES_MAX)
        .ok_or_else(|| {
            Error::invalid("the directory of the savepoint cannot be recorded: it is no UTF-8 or too long")
                .in_file(path)
                .with("limit", DIRECTORY_BYTES_MAX)
        })
}

fn read_record(bytes: &[u8]) -> Result<StopRecord> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "the stop record has one section").at(12));
    };
    if (section.tag, section.version) != (STOP, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the stop record is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let (job, root, generation) = (JobId(c.u128()?), RootId(c.u128()?), Generation(c.u64()?));
    let (attempt, checkpoint) = (c.u64()?, CheckpointId(c.u64()?));
    let (drained, timestamp_ms) = (c.bool()?, c.u64()?);
    let directory = PathBuf::from(c.text(DIRECTORY_BYTES_MAX)?);
    c.finish()?;
    Ok(StopRecord {
        job,
        root,
        generation,
        attempt,
        checkpoint,
        drained,
        timestamp_ms,
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> StopRecord {
        StopRecord {
            job: JobId(1),
            root: RootId(2),
            generation: Generation(3),
            attempt: (3 << 24) | 1,
            checkpoint: CheckpointId(9),
            drained: true,
            timestamp_ms: 1_700_000_000_000,
            directory: "/sp/savepoint-000000-0123456789ab".into(),
        }
    }

    #[test]
    fn the_record_reads_back_and_every_flipped_bit_is_found() {
        for drained in [false, true] {
            let record = StopRecord { drained, ..record() };
            let good = record.encode().unwrap();
            assert_eq!(StopRecord::decode(&good).unwrap(), record);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(StopRecord::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn the_stop_record_is_as_on_its_page() {
        let page = include_str!("../../docs/format/job-root.md");
        crate::golden::assert_as_on_page(&record().encode().unwrap(), page, 2);
    }

    #[test]
    fn a_directory_that_cannot_be_recorded_is_refused() {
        let long = "d".repeat(DIRECTORY_BYTES_MAX + 1).into();
        let refused = StopRecord {
            directory: long,
            ..record()
        }
        .encode()
        .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}
