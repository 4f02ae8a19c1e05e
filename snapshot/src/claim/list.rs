//! All claims on the checkpoints of one job root, as one list per change. Bytes of `claims/<n>`: docs/format/claim.md.
//!
//! Lists are created if absent and never changed or deleted; the newest counts. What was claimed once stays listed, so
//! that the root's own job knows which ids are taken and which of its checkpoints went with a claimant.

use super::{ClaimRecord, record::RECORD_BYTES_MIN};
use crate::{CheckpointId, CheckpointStorage, JobId, LocalStorage, ObjectPath, Place, RootId};
use keybed_env::Fs;
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

const MAGIC: [u8; 8] = *b"KBCLMS\0\x01";
const VERSION: u32 = 1;
const LIST: u32 = 1;
/// Largest list that is read, in bytes.
pub(crate) const LIST_BYTES_MAX: u64 = 64 << 20;

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The claimant owns the checkpoint.
    Live,
    /// It was given back: the checkpoint is its root's again.
    Released,
    /// The claimant deleted the checkpoint.
    Removed,
}

/// The claims on the checkpoints of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimList {
    /// The job whose root it is.
    pub job: JobId,
    /// The root.
    pub root: RootId,
    /// Its number: each change writes the next one.
    pub number: u64,
    /// The last claim on each checkpoint.
    pub claims: BTreeMap<CheckpointId, (ClaimRecord, ClaimState)>,
}

impl ClaimList {
    /// The list of a root without claims.
    pub fn none(job: JobId, root: RootId) -> Self {
        ClaimList {
            job,
            root,
            number: 0,
            claims: BTreeMap::new(),
        }
    }

    /// The living claim on a checkpoint.
    pub fn live(&self, checkpoint: CheckpointId) -> Option<&ClaimRecord> {
        match self.claims.get(&checkpoint) {
            Some((record, ClaimState::Live)) => Some(record),
            _ => None,
        }
    }

    /// All living claims.
    pub fn all_live(&self) -> impl Iterator<Item = &ClaimRecord> {
        let claims = self.claims.values();
        claims
            .filter(|(_, state)| *state == ClaimState::Live)
            .map(|(record, _)| record)
    }

    /// Claims whose checkpoints their claimants deleted, the highest first.
    pub fn removed(&self) -> impl Iterator<Item = &ClaimRecord> {
        let claims = self.claims.values().rev();
        claims
            .filter(|(_, state)| *state == ClaimState::Removed)
            .map(|(record, _)| record)
    }

    /// The next list, in which this claim stands so.
    #[must_use]
    pub fn next(&self, record: ClaimRecord, state: ClaimState) -> Self {
        let mut next = self.clone();
        next.number = self.number.saturating_add(1);
        next.claims.insert(record.checkpoint, (record, state));
        next
    }

    /// The bytes of `claims/<number>`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.u128(self.job.0).u128(self.root.0).u64(self.number);
        out.count(self.claims.len());
        for (record, state) in self.claims.values() {
            out.u8(match state {
                ClaimState::Live => 1,
                ClaimState::Released => 2,
                ClaimState::Removed => 3,
            });
            record.write(&mut out);
        }
        envelope::write(
            MAGIC,
            VERSION,
            &[Section {
                tag: LIST,
                version: 1,
                bytes: out.into_vec(),
            }],
        )
    }

    /// Reads and checks a list.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with the offset; `UnsupportedFormatVersion`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read_list(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))
    }
}

fn read_list(bytes: &[u8]) -> Result<ClaimList> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "a list of claims has one section").at(12));
    };
    if (section.tag, section.version) != (LIST, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the list of claims is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let (job, root, number) = (JobId(c.u128()?), RootId(c.u128()?), c.u64()?);
    let mut claims: BTreeMap<CheckpointId, (ClaimRecord, ClaimState)> = BTreeMap::new();
    for _ in 0..c.count(1 + RECORD_BYTES_MIN)? {
        let state = match c.u8()? {
            1 => ClaimState::Live,
            2 => ClaimState::Released,
            3 => ClaimState::Removed,
            other => {
                return Err(c
                    .malformed("a state of a claim is not known")
                    .with("found", other));
            }
        };
        let record = ClaimRecord::read(&mut c)?;
        if claims
            .last_key_value()
            .is_some_and(|(last, _)| *last >= record.checkpoint)
        {
            return Err(c.malformed("claims are not sorted"));
        }
        claims.insert(record.checkpoint, (record, state));
    }
    c.finish()?;
    Ok(ClaimList {
        job,
        root,
        number,
        claims,
    })
}

/// The newest list of a storage; `None` if nothing was ever claimed there.
///
/// # Errors
/// `SnapshotCorrupt` if it cannot be read or has another number than its name.
pub(crate) fn newest(storage: &dyn CheckpointStorage) -> Result<Option<ClaimList>> {
    let names = storage.list(Place::Claims)?;
    let numbers = names
        .iter()
        .filter_map(|listed| match Place::Claims.object(&listed.name) {
            Some(ObjectPath::Claims(number)) => Some(number),
            _ => None,
        });
    let Some(number) = numbers.max() else {
        return Ok(None);
    };
    let path = ObjectPath::Claims(number);
    let name = |e: Error| {
        e.recode_malformed(Code::SnapshotCorrupt)
            .in_file(storage.describe(&path))
    };
    let list = storage
        .read(&path, LIST_BYTES_MAX)
        .and_then(|bytes| ClaimList::decode(&bytes))
        .map_err(name)?;
    if list.number == number {
        Ok(Some(list))
    } else {
        let wrong = Error::new(Code::SnapshotCorrupt, "the list of claims has another number");
        Err(name(wrong.expected_found(number, list.number)))
    }
}

/// As [`newest`], of the job root in a directory.
pub(crate) fn newest_at(fs: &Arc<dyn Fs>, root: &Path) -> Result<Option<ClaimList>> {
    newest(&LocalStorage::at(fs.clone(), root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::record::tests::record;

    fn list() -> ClaimList {
        let none = ClaimList::none(JobId(1), RootId(2));
        none.next(record(7, 3), ClaimState::Live)
            .next(record(9, 5), ClaimState::Removed)
    }

    #[test]
    fn a_list_is_as_on_its_page() {
        let page = include_str!("../../../docs/format/claim.md");
        crate::golden::assert_as_on_page(&list().encode(), page, 1);
    }

    #[test]
    fn a_list_reads_back_and_every_flipped_bit_is_found() {
        let good = list().encode();
        assert_eq!(ClaimList::decode(&good).unwrap(), list());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ClaimList::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_last_claim_on_a_checkpoint_counts() {
        let list = list();
        assert_eq!(list.live(CheckpointId(7)), Some(&record(7, 3)));
        assert_eq!(
            (list.live(CheckpointId(9)), list.removed().next()),
            (None, Some(&record(9, 5)))
        );
        let released = list.next(record(7, 3), ClaimState::Released);
        assert_eq!((released.number, released.all_live().count()), (3, 0));
    }
}
