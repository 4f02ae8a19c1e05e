//! Names and records of parts. Page: docs/format/file-sink.md.
//!
//! ```text
//! name    <lineage, 32 hex>-<upper half of the operator id, 16 hex>-<subtask>-<attempt>-<sequence>
//! item    name (text) · length u64 · digest u64 (xxh3-64 of the content) · lines u64
//! ```
//! The lineage is the id of the job that began the history; it lies in the committer's state and stays over every
//! resume. Attempts are unique over the life of a job, so no name is ever used twice.

use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::{OperatorSnapshot, OperatorStateHandle, OperatorStateMode, OperatorUid};
use std::fmt;

const PARTS: &str = "parts";
/// Operator state that names the history.
pub(crate) const LINEAGE: &str = "lineage";
/// Longest name of a part, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A part as the committer's state holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) digest: u64,
    pub(super) lines: u64,
}

/// What all names of one sink in one history begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lineage {
    pub(super) id: u128,
    pub(super) uid_hash: u64,
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameFacts {
    pub(super) lineage: Lineage,
    pub(super) attempt: u64,
}

impl Lineage {
    pub(super) fn new(id: u128, uid: &OperatorUid) -> Self {
        Lineage {
            id,
            uid_hash: (uid.id().0 >> 64) as u64,
        }
    }

    /// What its names begin with.
    pub(super) fn prefix(self) -> String {
        format!("{:032x}-{:016x}", self.id, self.uid_hash)
    }

    pub(super) fn name(self, subtask: u32, attempt: u64, sequence: impl fmt::Display) -> String {
        format!("{}-{subtask}-{attempt}-{sequence}", self.prefix())
    }

    /// The lineage that a name begins with, and what follows; `None` if no sink gave it.
    pub(super) fn split(name: &str) -> Option<(Lineage, &str)> {
        let (id, rest) = name.split_once('-')?;
        let (uid, rest) = rest.split_once('-')?;
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (id.len() == 32 && uid.len() == 16 && hex(id) && hex(uid)).then_some(())?;
        let lineage = Lineage {
            id: u128::from_str_radix(id, 16).ok()?,
            uid_hash: u64::from_str_radix(uid, 16).ok()?,
        };
        Some((lineage, rest))
    }

    /// Reads a file name; `None` if no sink gave it.
    pub(super) fn of_name(name: &str) -> Option<NameFacts> {
        let (lineage, rest) = Lineage::split(name)?;
        let fields: Vec<_> = rest.split('-').collect();
        let [subtask, attempt, _] = fields[..] else {
            return None;
        };
        subtask.parse::<u32>().ok()?;
        Some(NameFacts {
            lineage,
            attempt: attempt.parse().ok()?,
        })
    }
}

impl Part {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        out.text(&self.name)
            .u64(self.length)
            .u64(self.digest)
            .u64(self.lines);
        out.into_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut c = Cursor::new(bytes);
        let part = Part::read(&mut c)?;
        c.finish()?;
        Ok(part)
    }

    /// Reads one of several.
    pub(super) fn read(c: &mut Cursor<'_>) -> Result<Self> {
        let name = c.text(NAME_BYTES_MAX)?.to_owned();
        let part = Part {
            name,
            length: c.u64()?,
            digest: c.u64()?,
            lines: c.u64()?,
        };
        if Lineage::of_name(&part.name).is_none() {
            return Err(Error::new(Code::Malformed, "no sink gives a part this name").with("name", part.name));
        }
        Ok(part)
    }
}

/// The committer's state.
pub(super) fn to_state(lineage: Lineage, parts: &[Part]) -> Vec<OperatorStateHandle> {
    let list = |name: &str, items| OperatorStateHandle {
        name: name.into(),
        mode: OperatorStateMode::Split,
        items,
    };
    vec![
        list(LINEAGE, vec![lineage.id.to_le_bytes().to_vec()]),
        list(PARTS, parts.iter().map(Part::encode).collect()),
    ]
}

/// The lineage and the parts in order that a snapshot of a sink holds; `None` if it holds no lineage.
///
/// # Errors
/// `SnapshotCorrupt` if an item cannot be read.
pub(super) fn from_snapshot(operator: &OperatorSnapshot) -> Result<Option<(Lineage, Vec<Part>)>> {
    let items = |name: &'static str| {
        let lists = operator
            .subtasks
            .iter()
            .flat_map(|s| &s.operator)
            .filter(move |o| o.name == name);
        lists.flat_map(|o| &o.items)
    };
    let Some(id) = items(LINEAGE).next() else {
        return Ok(None);
    };
    let read = || {
        let id = Cursor::new(id).u128()?;
        let parts = items(PARTS)
            .map(|item| Part::decode(item))
            .collect::<Result<Vec<_>>>()?;
        Ok((Lineage::new(id, &operator.uid), parts))
    };
    read().map(Some).map_err(|e: Error| {
        e.recode_malformed(Code::SnapshotCorrupt)
            .with("uid", &operator.uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_names_pin_the_format() {
        let lineage = Lineage::new(0xabc, &OperatorUid::new("totals").unwrap());
        let name = lineage.name(3, 1 << 32, 7);
        assert_eq!(
            name,
            "00000000000000000000000000000abc-e1c18c9f4c80c9dc-3-4294967296-7"
        );
        assert_eq!(
            Lineage::of_name(&name),
            Some(NameFacts {
                lineage,
                attempt: 1 << 32
            })
        );
        let part = Part {
            name: name.clone(),
            length: 1,
            digest: 2,
            lines: 3,
        };
        let bytes = part.encode();
        assert_eq!(bytes[0] as usize, name.len());
        assert_eq!(bytes[1..=name.len()], *name.as_bytes());
        let numbers = [1_u64, 2, 3].map(u64::to_le_bytes).concat();
        assert_eq!(bytes[1 + name.len()..], numbers);
        assert_eq!(Part::decode(&bytes).unwrap(), part);
        for n in 0..bytes.len() {
            assert!(Part::decode(&bytes[..n]).is_err());
        }
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in ["", "notes.txt", "a-b-c-d-e", "probe-12", &"0".repeat(32)] {
            assert_eq!(Lineage::of_name(name), None, "{name}");
        }
    }
}
