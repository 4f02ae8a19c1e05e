//! The canonical format: keyed state uniformly, whoever wrote it. Page: docs/format/canonical.md.
//!
//! ```text
//!   capture (owner thread) ─▶ scans ─▶ export ─▶ writer ─▶ one file per subtask ─▶ KeyedHandle, family `canonical`
//!                                        └ sort: windows and timers, key first        │
//!   LSM:  ingest: sorted tables, mounted ◀─┐                                          │
//!   heap: ordered maps                   ◀─┴── import ◀── reader (its key groups only) ◀┘
//! ```
//! A file holds entries by key group, state and components with the key first, list elements one by one: nothing of
//! runs, chunks, seqnos or the order in which windows and timers are stored. Equal content at equal parallelism gives
//! equal bytes.

mod convert;
mod export;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod import;
mod ingest;
mod layout;
mod pending;
mod reader;
mod sort;
#[cfg(test)]
mod tests;
mod window;
mod writer;

pub(crate) use convert::{to_canonical, to_tables};
pub use header::CanonicalHeader;
pub(crate) use import::stored_entries;
pub(crate) use ingest::ingest;
pub(crate) use pending::PendingCanonical;

use keybed_format::{Code, Error, Result};
use keybed_snapshot::{
    BackendKind, FamilyHandle, FileHandle, KeyGroupRange, KeyedHandle, RunHandle, TableHandle, rescale::clip,
};

/// First bytes of a file.
pub(crate) const MAGIC: [u8; 8] = *b"KBCANON1";
/// Last bytes of a footer before its checksum.
const FOOTER_MAGIC: [u8; 8] = *b"KBCANOFT";
/// Newest version that is written and read.
const VERSION: u32 = 1;
/// Kind of file in the trailer.
const KIND: u32 = u32::from_le_bytes(*b"cano");
const HEAD_BYTES: u64 = 16;
const FOOTER_BYTES: u64 = 32;

/// Name of the family under which a handle refers to canonical files. Their visible range cuts between key groups.
pub const FAMILY: &str = "canonical";
/// Seqno of every entry that is restored from a canonical file, and the first one that is free then.
pub(crate) const SEQNO: u64 = 1;
pub(crate) const NEXT_SEQNO: u64 = SEQNO + 1;
/// Tier of a canonical file in its handle, and of the tables made from it: the bottom.
const TIER: u8 = keybed_lsm::BOTTOM;

/// What a finished file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CanonicalFacts {
    /// Names the bytes, and is made from them.
    pub(crate) content: u128,
    pub(crate) digest: u64,
    /// Bytes of the whole file.
    pub(crate) bytes: u64,
    /// Entries; every list element and timer counts.
    pub(crate) entries: u64,
}

/// Key groups of a canonical file that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CanonicalPart {
    pub(crate) file: FileHandle,
    pub(crate) range: KeyGroupRange,
    /// Number of key groups that the file's must equal, where it is known.
    pub(crate) max_parallelism: Option<u32>,
}

/// The handle of a subtask whose state is in one canonical file.
fn handle_of(file: FileHandle, range: KeyGroupRange, backend: BackendKind, entries: u64) -> KeyedHandle {
    let table = TableHandle {
        file,
        visible_start: range.start_key().to_vec(),
        visible_end: Some(range.end_key().to_vec()),
        entries,
    };
    let runs = vec![RunHandle {
        tier: TIER,
        tables: vec![table],
    }];
    KeyedHandle {
        range,
        backend,
        next_seqno: NEXT_SEQNO,
        families: vec![FamilyHandle {
            name: FAMILY.into(),
            runs,
        }],
    }
}

/// Takes the canonical files out of `handles`, as far as they lie in `range`; they come by key group.
///
/// # Errors
/// `SnapshotCorrupt` if a file is cut inside of a key group, or two files show the same one.
pub(crate) fn separate(
    handles: &[KeyedHandle],
    range: KeyGroupRange,
) -> Result<(Vec<KeyedHandle>, Vec<CanonicalPart>)> {
    let (mut others, mut parts) = (Vec::new(), Vec::new());
    for handle in handles {
        let Some(both) = handle.range.intersection(range) else {
            continue;
        };
        let mut handle = if handle.families.iter().any(|family| family.name == FAMILY) {
            clip(handle, both)
        } else {
            handle.clone()
        };
        for family in handle.families.extract_if(.., |family| family.name == FAMILY) {
            for table in family.runs.into_iter().flat_map(|run| run.tables) {
                parts.push(part_of(table, both)?);
            }
        }
        others.push(handle);
    }
    parts.sort_by_key(|part| part.range);
    let overlap = parts
        .windows(2)
        .find(|pair| matches!(pair, [low, high] if low.range.last >= high.range.first));
    match overlap {
        Some([_, high]) => Err(Error::new(
            Code::SnapshotCorrupt,
            "two canonical files show the same key groups",
        )
        .in_file(high.file.object.as_str())),
        _ => Ok((others, parts)),
    }
}

/// The key groups that a clipped view shows.
fn part_of(table: TableHandle, both: KeyGroupRange) -> Result<CanonicalPart> {
    let bound = |key: &[u8]| -> Option<u16> {
        match key {
            [] => Some(both.first.0),
            [high, low] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    };
    let end = table.visible_end.as_deref().unwrap_or_default();
    let range = bound(&table.visible_start)
        .zip(bound(end).and_then(|end| end.checked_sub(1)))
        .and_then(|(first, last)| KeyGroupRange::new(first, last).ok())
        .and_then(|range| range.intersection(both));
    match range {
        Some(range) => Ok(CanonicalPart {
            file: table.file,
            range,
            max_parallelism: None,
        }),
        None => Err(Error::new(
            Code::SnapshotCorrupt,
            "a canonical file is seen through something else than key groups",
        )
        .in_file(table.file.object.as_str())),
    }
}
