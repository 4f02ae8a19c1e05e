//! One claim: who owns a snapshot, and since when. Bytes of `CLAIMED`: docs/format/claim.md.

use crate::{CheckpointId, JobId, RootId};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};

const MAGIC: [u8; 8] = *b"KBCLAIM\x01";
const VERSION: u32 = 1;
const CLAIM: u32 = 1;
/// Largest `CLAIMED` that is read, in bytes.
pub(crate) const CLAIM_BYTES_MAX: u64 = 64 << 10;
/// Longest path of a claimant's root, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a record at least.
pub(super) const RECORD_BYTES_MIN: usize = 8 + 8 + 16 + 16 + 8 + 1;

/// A job that owns, or wants to own, a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The job.
    pub job: JobId,
    /// Its root: the claim belongs to it, wherever it is moved.
    pub root: RootId,
    /// Where its root was when it claimed, for people and for asking whether it lives.
    pub path: String,
}

impl Claimant {
    /// Whether it is the same one, wherever its root lies now.
    pub fn is(&self, other: &Claimant) -> bool {
        (self.job, self.root) == (other.job, other.root)
    }
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The number of the claimed snapshot.
    pub checkpoint: CheckpointId,
    /// xxh3-64 of its whole `_metadata`: nothing else is ever deleted under the claim.
    pub digest: u64,
    /// Who claimed it.
    pub claimant: Claimant,
    /// Milliseconds since 1970-01-01T00:00:00Z, for people.
    pub since_ms: u64,
}

impl ClaimRecord {
    /// The bytes of `CLAIMED`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        self.write(&mut out);
        envelope::write(
            MAGIC,
            VERSION,
            &[Section {
                tag: CLAIM,
                version: 1,
                bytes: out.into_vec(),
            }],
        )
    }

    /// Reads and checks a record.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with the offset; `UnsupportedFormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read_marker(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    }

    pub(super) fn write(&self, out: &mut Sink) {
        out.u64(self.checkpoint.0)
            .u64(self.digest)
            .u128(self.claimant.job.0)
            .u128(self.claimant.root.0)
            .u64(self.since_ms)
            .text(&self.claimant.path);
    }

    pub(super) fn read(c: &mut Cursor<'_>) -> Result<Self> {
        let (checkpoint, digest) = (CheckpointId(c.u64()?), c.u64()?);
        let (job, root) = (JobId(c.u128()?), RootId(c.u128()?));
        let since_ms = c.u64()?;
        let path = c.text(PATH_BYTES_MAX)?.to_owned();
        let claimant = Claimant { job, root, path };
        Ok(ClaimRecord {
            checkpoint,
            digest,
            claimant,
            since_ms,
        })
    }
}

fn read_marker(bytes: &[u8]) -> Result<ClaimRecord> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "a claim has one section").at(12));
    };
    if (section.tag, section.version) != (CLAIM, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the claim is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let record = ClaimRecord::read(&mut c)?;
    c.finish()?;
    Ok(record)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn record(checkpoint: u64, job: u128) -> ClaimRecord {
        ClaimRecord {
            checkpoint: CheckpointId(checkpoint),
            digest: 11,
            claimant: Claimant {
                job: JobId(job),
                root: RootId(job + 1),
                path: "/ckpt/3".into(),
            },
            since_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_claim_is_as_on_its_page() {
        let page = include_str!("../../../docs/format/claim.md");
        crate::golden::assert_as_on_page(&record(7, 3).encode(), page, 0);
    }

    #[test]
    fn a_claim_reads_back_and_every_flipped_bit_is_found() {
        let record = record(7, 3);
        let good = record.encode();
        assert_eq!(ClaimRecord::decode(&good).unwrap(), record);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ClaimRecord::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
