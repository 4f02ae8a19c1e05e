//! The FINISHED record: the job has ended for good, its results are durable, there is nothing to resume.
//!
//! Written once into the job root, after the last commit. A process killed before it restores the final checkpoint,
//! commits again (every commit is idempotent) and writes it then. Bytes: docs/format/job-root.md.

use crate::{CheckpointId, Generation, JobId, RootId};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};

const MAGIC: [u8; 8] = *b"KBFINIS\x01";
const VERSION: u32 = 1;
const FINISHED: u32 = 1;
/// Largest FINISHED record that is read, in bytes.
pub const FINISHED_BYTES_MAX: u64 = 64 << 10;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedRecord {
    /// The job.
    pub job: JobId,
    /// Its root.
    pub root: RootId,
    /// Generation that finished it.
    pub generation: Generation,
    /// Its final checkpoint, if it had any.
    pub checkpoint: Option<CheckpointId>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: u64,
}

impl FinishedRecord {
    /// The bytes of `FINISHED`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.u128(self.job.0)
            .u128(self.root.0)
            .u64(self.generation.0)
            .u64(self.timestamp_ms);
        out.bool(self.checkpoint.is_some())
            .u64(self.checkpoint.unwrap_or_default().0);
        envelope::write(
            MAGIC,
            VERSION,
            &[Section {
                tag: FINISHED,
                version: 1,
                bytes: out.into_vec(),
            }],
        )
    }

    /// Reads and checks the record.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with the offset; `UnsupportedFormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read_record(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    }
}

fn read_record(bytes: &[u8]) -> Result<FinishedRecord> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "the FINISHED record has one section").at(12));
    };
    if (section.tag, section.version) != (FINISHED, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the FINISHED record is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let (job, root, generation) = (JobId(c.u128()?), RootId(c.u128()?), Generation(c.u64()?));
    let timestamp_ms = c.u64()?;
    let (some, id) = (c.bool()?, CheckpointId(c.u64()?));
    c.finish()?;
    Ok(FinishedRecord {
        job,
        root,
        generation,
        checkpoint: some.then_some(id),
        timestamp_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_reads_back_and_every_flipped_bit_is_found() {
        for checkpoint in [None, Some(CheckpointId(9))] {
            let (job, root, generation) = (JobId(1), RootId(2), Generation(3));
            let record = FinishedRecord {
                job,
                root,
                generation,
                checkpoint,
                timestamp_ms: 4,
            };
            let good = record.encode();
            assert_eq!(FinishedRecord::decode(&good).unwrap(), record);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(FinishedRecord::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn finished_is_as_on_its_page() {
        let page = include_str!("../../docs/format/job-root.md");
        let (job, root, generation) = (JobId(1), RootId(2), Generation(3));
        let record = FinishedRecord {
            job,
            root,
            generation,
            checkpoint: Some(CheckpointId(9)),
            timestamp_ms: 1_700_000_000_000,
        };
        crate::golden::assert_as_on_page(&record.encode(), page, 1);
    }
}
