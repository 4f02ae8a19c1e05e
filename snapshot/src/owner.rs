//! Who owns a job root: one immutable record per generation, and what follows from them.
//!
//! ```text
//!   owner/1  first 1  restored –        chk-1 chk-2 chk-3
//!   owner/2  first 4  restored 3                          chk-4 chk-5
//!   owner/3  first 6  restored 2                                      chk-6      timeline: 6 2 1
//! ```
//! A process that takes a root over writes the next record, create-if-absent, and so fences every older generation:
//! that one re-reads the newest record before and after it publishes and before it deletes, and finds itself stale.
//! What it published all the same, unseen by the newer generation, is *void*: metadata of generation g with an id
//! at or above the first id of a later generation is never restored.
//!
//! The *timeline* is what the newest generation continues: its own checkpoints, then its restore source, then that
//! one's predecessors. Checkpoints of abandoned timelines are kept and listed, never chosen. Bytes of the record:
//! docs/format/job-root.md. Everything but the codec is pure.

use crate::{CheckpointId, Generation, JobId, RootId};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};
use std::collections::BTreeMap;

const MAGIC: [u8; 8] = *b"KBOWNER\x01";
const VERSION: u32 = 1;
const OWNER: u32 = 1;
/// Largest owner record that is read, in bytes.
pub const OWNER_BYTES_MAX: u64 = 64 << 10;
/// Longest location of a restored snapshot, in bytes.
const LOCATION_BYTES_MAX: usize = 4096;

/// What a job may do with a snapshot that it restores and does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimMode {
    /// Nothing; the first checkpoint copies what it needs.
    NoClaim,
    /// The job owns it from now on.
    Claim,
    /// Reference it, never delete it.
    Legacy,
}

/// What a generation started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreSource {
    /// Empty state.
    Nothing,
    /// A checkpoint of this root.
    Checkpoint(CheckpointId),
    /// A snapshot elsewhere.
    Snapshot {
        /// Where it was.
        location: String,
        /// What may be done with it.
        mode: ClaimMode,
    },
}

/// The record of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The job that owns the root.
    pub job: JobId,
    /// The root, named by its first generation.
    pub root: RootId,
    /// Number of this ownership.
    pub generation: Generation,
    /// Every checkpoint of this generation has this id or a higher one.
    pub first_checkpoint: CheckpointId,
    /// What it started from.
    pub restored: RestoreSource,
    /// Process id of the owner, for people.
    pub pid: u32,
    /// Milliseconds since 1970-01-01T00:00:00Z at the start, for people.
    pub started_ms: u64,
}

impl OwnerRecord {
    /// The bytes of `owner/<generation>`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.u128(self.job.0)
            .u128(self.root.0)
            .u64(self.generation.0)
            .u64(self.first_checkpoint.0);
        out.u32(self.pid).u64(self.started_ms);
        match &self.restored {
            RestoreSource::Nothing => out.u8(0),
            RestoreSource::Checkpoint(id) => out.u8(1).u64(id.0),
            RestoreSource::Snapshot { location, mode } => {
                let mode = match mode {
                    ClaimMode::NoClaim => 1,
                    ClaimMode::Claim => 2,
                    ClaimMode::Legacy => 3,
                };
                out.u8(2).u8(mode).text(location)
            }
        };
        envelope::write(
            MAGIC,
            VERSION,
            &[Section {
                tag: OWNER,
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
        read_record(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    }
}

fn read_record(bytes: &[u8]) -> Result<OwnerRecord> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "an owner record has one section").at(12));
    };
    if (section.tag, section.version) != (OWNER, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the owner record is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let (job, root) = (JobId(c.u128()?), RootId(c.u128()?));
    let (generation, first_checkpoint) = (Generation(c.u64()?), CheckpointId(c.u64()?));
    let (pid, started_ms) = (c.u32()?, c.u64()?);
    let restored = match c.u8()? {
        0 => RestoreSource::Nothing,
        1 => RestoreSource::Checkpoint(CheckpointId(c.u64()?)),
        2 => {
            let mode = match c.u8()? {
                1 => ClaimMode::NoClaim,
                2 => ClaimMode::Claim,
                3 => ClaimMode::Legacy,
                other => return Err(c.malformed("a claim mode is not known").with("found", other)),
            };
            RestoreSource::Snapshot {
                location: c.text(LOCATION_BYTES_MAX)?.to_owned(),
                mode,
            }
        }
        other => return Err(c.malformed("a restore source is not known").with("found", other)),
    };
    c.finish()?;
    Ok(OwnerRecord {
        job,
        root,
        generation,
        first_checkpoint,
        restored,
        pid,
        started_ms,
    })
}

/// An owner record must have been there and is gone.
pub(crate) fn missing_record(generation: Generation) -> Error {
    let name = format!("owner/{generation}");
    Error::new(
        Code::SnapshotIncomplete,
        "an owner record of the job root is missing",
    )
    .with("missing", name)
}

/// All records of a root, by generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Generation, OwnerRecord>);

impl Owners {
    /// The records of one root.
    ///
    /// # Errors
    /// `SnapshotCorrupt` if they do not belong to one job and root; `SnapshotIncomplete` if one below the newest is
    /// missing: without it nobody knows what is void and what continues what.
    pub fn new(records: impl IntoIterator<Item = OwnerRecord>) -> Result<Self> {
        let owners = Owners(
            records
                .into_iter()
                .map(|record| (record.generation, record))
                .collect(),
        );
        let places: Vec<_> = owners
            .0
            .values()
            .map(|record| (record.job, record.root))
            .collect();
        if places.windows(2).any(|pair| matches!(pair, [a, b] if a != b)) {
            return Err(Error::new(
                Code::SnapshotCorrupt,
                "owner records of several jobs or roots lie in one root",
            ));
        }
        let generations = owners.0.keys().map(|generation| generation.0);
        if let Some((missing, _)) = (1..).zip(generations).find(|(expected, found)| expected != found) {
            return Err(missing_record(Generation(missing)));
        }
        Ok(owners)
    }

    /// These records and a newer one.
    #[must_use]
    pub fn with(mut self, record: OwnerRecord) -> Self {
        self.0.insert(record.generation, record);
        self
    }

    /// The newest record; `None` for a new root.
    pub fn newest(&self) -> Option<&OwnerRecord> {
        self.0.values().next_back()
    }

    /// The generations, oldest first.
    pub fn generations(&self) -> impl DoubleEndedIterator<Item = Generation> {
        self.0.keys().copied()
    }

    /// All records, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &OwnerRecord> {
        self.0.values()
    }

    /// The record of a generation.
    pub fn get(&self, generation: Generation) -> Option<&OwnerRecord> {
        self.0.get(&generation)
    }

    /// Whether metadata of this generation and id was published after a newer owner had taken over.
    pub fn is_void(&self, generation: Generation, id: CheckpointId) -> bool {
        self.0
            .range(generation..)
            .any(|(later, record)| *later > generation && record.first_checkpoint <= id)
    }

    /// The checkpoints that the newest generation continues, newest first, out of the published ones (id and
    /// generation each). A restore source that is no longer published ends it.
    pub fn timeline(&self, published: &BTreeMap<CheckpointId, Generation>) -> Vec<CheckpointId> {
        self.walk(published, |source, _| published.get(&source).copied())
    }

    /// As [`Owners::timeline`], and then what is older than a restore source that is gone: it was subsumed before that
    /// one, and is there because its deletion failed or waited for a reader. To be swept, never to be chosen; empty if
    /// the timeline is.
    pub fn lineage(&self, published: &BTreeMap<CheckpointId, Generation>) -> Vec<CheckpointId> {
        if self.timeline(published).is_empty() {
            return Vec::new();
        }
        // Ids rise from generation to generation, so the number tells who took it.
        let of = |source: CheckpointId, later: Generation| {
            let mut older = self.0.range(..later).rev();
            let (of, _) = older.find(|(_, record)| record.first_checkpoint <= source)?;
            Some(*of)
        };
        self.walk(published, |source, later| {
            published.get(&source).copied().or_else(|| of(source, later))
        })
    }

    /// Own checkpoints of the newest generation, then what it was restored from, of the generation that `of` tells.
    fn walk(
        &self,
        published: &BTreeMap<CheckpointId, Generation>,
        of: impl Fn(CheckpointId, Generation) -> Option<Generation>,
    ) -> Vec<CheckpointId> {
        let mut timeline = Vec::new();
        let mut at = self
            .newest()
            .map(|record| (record.generation, CheckpointId(u64::MAX)));
        while let Some((generation, id_max)) = at {
            let own = published
                .range(..=id_max)
                .rev()
                .filter(|(_, of)| **of == generation);
            timeline.extend(own.map(|(id, _)| *id).filter(|id| !self.is_void(generation, *id)));
            at = match self.get(generation).map(|record| &record.restored) {
                Some(RestoreSource::Checkpoint(source)) => of(*source, generation)
                    // A generation restores from an older one; anything else is a lie that must not loop.
                    .filter(|of| *of < generation && !self.is_void(*of, *source))
                    .map(|of| (of, *source)),
                _ => None,
            };
        }
        timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64, first: u64, restored: RestoreSource) -> OwnerRecord {
        OwnerRecord {
            job: JobId(1),
            root: RootId(2),
            generation: Generation(generation),
            first_checkpoint: CheckpointId(first),
            restored,
            pid: 77,
            started_ms: 1_700_000_000_000,
        }
    }

    fn published(pairs: &[(u64, u64)]) -> BTreeMap<CheckpointId, Generation> {
        pairs
            .iter()
            .map(|(id, generation)| (CheckpointId(*id), Generation(*generation)))
            .collect()
    }

    fn timeline(owners: &Owners, pairs: &[(u64, u64)]) -> Vec<u64> {
        owners
            .timeline(&published(pairs))
            .into_iter()
            .map(|id| id.0)
            .collect()
    }

    #[test]
    fn records_read_back_and_every_flipped_bit_is_found() {
        let elsewhere = RestoreSource::Snapshot {
            location: "file:///s".into(),
            mode: ClaimMode::NoClaim,
        };
        for restored in [
            RestoreSource::Nothing,
            RestoreSource::Checkpoint(CheckpointId(3)),
            elsewhere,
        ] {
            let record = record(2, 4, restored);
            let good = record.encode();
            assert_eq!(OwnerRecord::decode(&good).unwrap(), record);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(OwnerRecord::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn the_owner_record_is_as_on_its_page() {
        let page = include_str!("../../docs/format/job-root.md");
        let record = record(2, 4, RestoreSource::Checkpoint(CheckpointId(3)));
        crate::golden::assert_as_on_page(&record.encode(), page, 0);
    }

    #[test]
    fn what_a_fenced_generation_publishes_is_void() {
        let owners = Owners::new([
            record(1, 1, RestoreSource::Nothing),
            record(2, 8, RestoreSource::Checkpoint(CheckpointId(7))),
        ])
        .unwrap();
        assert!(!owners.is_void(Generation(1), CheckpointId(7)));
        assert!(owners.is_void(Generation(1), CheckpointId(8)));
        assert!(!owners.is_void(Generation(2), CheckpointId(8)));
        assert_eq!(timeline(&owners, &[(6, 1), (7, 1), (8, 1)]), [7, 6]);
        assert_eq!(timeline(&owners, &[(6, 1), (7, 1), (8, 2), (9, 2)]), [9, 8, 7, 6]);
    }

    #[test]
    fn an_abandoned_timeline_is_never_chosen() {
        let owners = Owners::new([
            record(1, 1, RestoreSource::Nothing),
            record(2, 4, RestoreSource::Checkpoint(CheckpointId(3))),
            record(3, 6, RestoreSource::Checkpoint(CheckpointId(2))),
        ])
        .unwrap();
        let all = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)];
        assert_eq!(timeline(&owners, &all), [2, 1]);
        assert_eq!(timeline(&owners, &[&all[..], &[(6, 3)]].concat()), [6, 2, 1]);
        assert_eq!(
            timeline(&owners, &[(1, 1), (3, 1), (4, 2)]),
            [0; 0],
            "the restore source is gone"
        );
        // What is older than a source that was subsumed is swept with it, as soon as there is something newer.
        let gone = [(1, 1), (3, 1), (4, 2), (6, 3)];
        assert_eq!(timeline(&owners, &gone), [6]);
        let lineage = owners.lineage(&published(&gone));
        assert_eq!(lineage, [6, 1].map(CheckpointId));
        assert_eq!(owners.lineage(&published(&gone[..3])), [CheckpointId(0); 0]);
        let fresh = Owners::new([
            record(1, 1, RestoreSource::Nothing),
            record(2, 4, RestoreSource::Nothing),
        ])
        .unwrap();
        assert_eq!(timeline(&fresh, &[(1, 1), (2, 1)]), [0; 0]);
        assert_eq!(timeline(&Owners::default(), &[]), [0; 0]);
    }

    #[test]
    fn records_that_lie_do_not_loop() {
        let owners = Owners::new([record(1, 1, RestoreSource::Checkpoint(CheckpointId(1)))]).unwrap();
        assert_eq!(timeline(&owners, &[(1, 1)]), [1]);
        let mut foreign = record(2, 2, RestoreSource::Nothing);
        foreign.root = RootId(9);
        assert!(Owners::new([record(1, 1, RestoreSource::Nothing), foreign]).is_err());
    }
}
