//! Holds: small files in `<dir>/.holds/` that keep parts from being removed. Page: docs/format/file-sink.md.
//!
//! ```text
//! <lineage>-<uid>-<checkpoint>-<attempt>    a savepoint of that history names these parts
//! <lineage>-<uid>-job                       the job of that history rests on these parts of other histories
//! <lineage>-<uid>-over                      the job of that history will never run again; holds nothing
//! ```
//! A hold is durable before what it stands for exists, and goes after it; so a crash leaves one too many at worst. A
//! removal reads all of them after it found its candidates, and removes nothing while one cannot be read.

use super::{
    SinkPlace,
    part::{Lineage, Part},
    unwritable,
};
use keybed_env::{Fs, fs::FileKind};
use keybed_format::{
    Code, Cursor, Error, Result, Sink,
    envelope::{self, Section},
};
use keybed_snapshot::{CheckpointId, OperatorUid};
use std::{collections::BTreeSet, path::Path};

const MAGIC: [u8; 8] = *b"KBHOLD\0\x01";
const VERSION: u32 = 1;
const BODY: u32 = 1;
/// Largest hold, in bytes: some 500,000 parts.
pub(super) const HOLD_BYTES_MAX: u64 = 64 << 20;
/// Longest name of a savepoint's directory, in bytes.
const LOCATION_BYTES_MAX: usize = 4096;
/// Longest uid, in bytes.
const UID_BYTES_MAX: usize = 1024;
const SAVEPOINT: u8 = 1;
const JOB: u8 = 2;
const OVER: u8 = 3;
/// Fewest bytes of a part in a hold.
const PART_BYTES_MIN: usize = 25;

/// Why parts are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A savepoint names them.
    Savepoint {
        checkpoint: CheckpointId,
        attempt: u64,
        /// Its directory, as the job knew it.
        location: String,
    },
    /// A job that is not over began with them.
    Job,
    /// Not held: the job of the lineage is finished or was given up, so only holds need its parts. If `sorted`, its
    /// committed parts are no result either.
    Over { sorted: bool },
}

/// One file in `.holds/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) lineage: Lineage,
    pub(super) uid: OperatorUid,
    pub(super) why: Why,
    pub(super) parts: Vec<Part>,
}

impl Hold {
    /// Its file's name.
    pub(super) fn name(&self) -> String {
        let lineage = self.lineage.prefix();
        match &self.why {
            Why::Savepoint {
                checkpoint, attempt, ..
            } => format!("{lineage}-{}-{attempt}", checkpoint.0),
            Why::Job => format!("{lineage}-job"),
            Why::Over { .. } => format!("{lineage}-over"),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Sink::new();
        let (kind, checkpoint, attempt, location, sorted) = match &self.why {
            Why::Savepoint {
                checkpoint,
                attempt,
                location,
            } => (SAVEPOINT, checkpoint.0, *attempt, location.as_str(), false),
            Why::Job => (JOB, 0, 0, "", false),
            Why::Over { sorted } => (OVER, 0, 0, "", *sorted),
        };
        out.u8(kind).u128(self.lineage.id).text(self.uid.as_str());
        out.u64(checkpoint).u64(attempt).text(location).bool(sorted);
        out.count(self.parts.len());
        for part in &self.parts {
            out.raw(&part.encode());
        }
        let body = Section {
            tag: BODY,
            version: 1,
            bytes: out.into_vec(),
        };
        envelope::write(MAGIC, VERSION, &[body])
    }

    /// Reads and checks a file of this name.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with the offset; `UnsupportedFormatVersion`.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let hold = decode(bytes).map_err(|e| e.recode_malformed(Code::SnapshotCorrupt))?;
        if hold.name() != name {
            let what = "a hold lies under another name than it was given";
            return Err(Error::new(Code::SnapshotCorrupt, what).expected_found(hold.name(), name));
        }
        Ok(hold)
    }

    /// Makes it durable, replacing an older one of its name.
    ///
    /// # Errors
    /// `OutputUnwritable`; `InvalidArgument` if it is too large to be read again.
    pub(super) fn store(&self, fs: &dyn Fs, place: &SinkPlace) -> Result {
        let (dir, name) = (place.holds(), self.name());
        let bytes = self.encode();
        if bytes.len() as u64 > HOLD_BYTES_MAX {
            return Err(Error::invalid("the snapshot of a sink names too many parts").in_file(dir.join(name)));
        }
        let temporary = dir.join(format!("{name}{TEMPORARY}"));
        let write = || {
            fs.create_dir_all(&dir)?;
            match fs.remove_file(&temporary) {
                Err(e) if e.code() != Code::NotFound => Err(e),
                _ => fs.write_atomic(&dir.join(&name), &temporary, &bytes),
            }
        };
        let written = match write() {
            // Another sink found the directory empty, and removed it.
            Err(e) if e.code() == Code::NotFound => write(),
            written => written,
        };
        written.map_err(|e| unwritable(e, &dir))
    }

    /// Takes it away; the directory stays for others.
    ///
    /// # Errors
    /// `OutputUnwritable`.
    pub(super) fn remove(fs: &dyn Fs, place: &SinkPlace, name: &str) -> Result {
        let path = place.holds().join(name);
        match fs.remove_file(&path) {
            Err(e) if e.code() != Code::NotFound => Err(unwritable(e, &path)),
            _ => Ok(()),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Hold> {
    let (_, sections) = envelope::read(MAGIC, VERSION, bytes)?;
    let [(offset, section)] = sections.as_slice() else {
        return Err(Error::new(Code::Malformed, "a hold has one section").at(12));
    };
    if (section.tag, section.version) != (BODY, 1) {
        return Err(Error::new(Code::UnsupportedFormatVersion, "the hold is newer").at(*offset));
    }
    let mut c = Cursor::with_base(&section.bytes, *offset);
    let (kind, id) = (c.u8()?, c.u128()?);
    let uid = OperatorUid::new(c.text(UID_BYTES_MAX)?).map_err(|_| c.malformed("no uid"))?;
    let (checkpoint, attempt) = (CheckpointId(c.u64()?), c.u64()?);
    let (location, sorted) = (c.text(LOCATION_BYTES_MAX)?.to_owned(), c.bool()?);
    let mut parts = Vec::new();
    for _ in 0..c.count(PART_BYTES_MIN)? {
        parts.push(Part::read(&mut c)?);
    }
    let why = match kind {
        SAVEPOINT => Why::Savepoint {
            checkpoint,
            attempt,
            location,
        },
        JOB => Why::Job,
        OVER => Why::Over { sorted },
        other => return Err(c.malformed(format!("no kind of hold is {other}"))),
    };
    c.finish()?;
    Ok(Hold {
        lineage: Lineage::new(id, &uid),
        uid,
        why,
        parts,
    })
}

const TEMPORARY: &str = ".new";
/// What the name of a part ends in while it is found out once more whether nobody needs it.
pub(super) const REMOVING: &str = ".removing";

/// The lineage of a hold's name, and whether it can hold anything; `None` if no sink gave it.
pub(super) fn of_name(name: &str) -> Option<(Lineage, bool)> {
    let (lineage, rest) = Lineage::split(name)?;
    let savepoint = |rest: &str| {
        let (checkpoint, attempt) = rest.split_once('-')?;
        (checkpoint.parse::<u64>().is_ok() && attempt.parse::<u64>().is_ok()).then_some((lineage, true))
    };
    match rest {
        "job" => Some((lineage, true)),
        "over" => Some((lineage, false)),
        _ => savepoint(rest),
    }
}

/// Whether a hold's name is that of one of a savepoint.
pub(super) fn is_of_savepoint(name: &str) -> bool {
    Lineage::split(name).is_some_and(|(_, rest)| rest != "job" && rest != "over")
}

/// Everything that lies in `.holds/`.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) all: Vec<Hold>,
    /// Names of those that should hold something and cannot be read, with the reason.
    pub(super) unreadable: Vec<(String, Error)>,
}

impl Holds {
    /// Reads them all. What no sink wrote is passed over.
    ///
    /// # Errors
    /// `OutputUnwritable` if the directory cannot be listed.
    pub(super) fn read(fs: &dyn Fs, place: &SinkPlace) -> Result<Holds> {
        let dir = place.holds();
        let entries = match fs.list(&dir) {
            Err(e) if e.code() == Code::NotFound => return Ok(Holds::default()),
            entries => entries.map_err(|e| unwritable(e, &dir))?,
        };
        let mut holds = Holds::default();
        for entry in entries {
            let Some((_, holding)) = of_name(&entry.name) else {
                continue;
            };
            let path = dir.join(&entry.name);
            let read = match entry.kind {
                FileKind::File => fs
                    .read(&path, HOLD_BYTES_MAX)
                    .and_then(|bytes| Hold::decode(&entry.name, &bytes)),
                _ => Err(Error::new(Code::SnapshotCorrupt, "a hold is a file")),
            };
            match read {
                Ok(hold) => holds.all.push(hold),
                // Taken away since it was listed.
                Err(e) if e.code() == Code::NotFound => {}
                Err(e) if holding => holds.unreadable.push((entry.name, e.in_file(path))),
                Err(_) => {}
            }
        }
        Ok(holds)
    }

    /// The names of all parts that are held.
    pub(super) fn named(&self) -> BTreeSet<&str> {
        let parts = self.all.iter().flat_map(|hold| &hold.parts);
        parts.map(|part| part.name.as_str()).collect()
    }

    /// Divides parts that their job does not need into those that may be removed and those that stay.
    pub(super) fn divide(&self, candidates: Vec<String>) -> (Vec<String>, Vec<String>) {
        if candidates.is_empty() || !self.unreadable.is_empty() {
            return (Vec::new(), candidates);
        }
        let named = self.named();
        candidates
            .into_iter()
            .partition(|name| !named.contains(name.strip_suffix(REMOVING).unwrap_or(name)))
    }

    /// # Errors
    /// The first hold that cannot be read, if there is one.
    pub(super) fn demand_readable(&self) -> Result {
        let Some((_, first)) = self.unreadable.first() else {
            return Ok(());
        };
        Err(first
            .duplicate()
            .context("no part is removed while a hold cannot be read"))
    }

    /// If the lineage is known to be over: whether its committed parts are no result either.
    pub(super) fn over(&self, lineage: Lineage) -> Option<bool> {
        self.all.iter().find_map(|hold| match hold.why {
            Why::Over { sorted } if hold.lineage == lineage => Some(sorted),
            _ => None,
        })
    }
}

/// Removes what a crash left of holds of this lineage that were never complete.
pub(super) fn sweep_temporaries(fs: &dyn Fs, place: &SinkPlace, lineage: Lineage) -> Result {
    let dir = place.holds();
    let entries = match fs.list(&dir) {
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        entries => entries.map_err(|e| unwritable(e, &dir))?,
    };
    let unfinished = |name: &str| {
        let hold = name.strip_suffix(TEMPORARY).and_then(of_name);
        hold.is_some_and(|(of, _)| of == lineage)
    };
    let names: Vec<_> = entries
        .into_iter()
        .map(|e| e.name)
        .filter(|name| unfinished(name))
        .collect();
    super::commit::remove(fs, &dir, names.iter().map(String::as_str))?;
    Ok(())
}

/// A savepoint's directory as a hold tells it: cut where a path is longer than a hold can say.
pub(super) fn location(directory: &Path) -> String {
    let text = directory.to_string_lossy();
    let start = text.len().saturating_sub(LOCATION_BYTES_MAX);
    let start = (start..=text.len()).find(|&i| text.is_char_boundary(i));
    text[start.unwrap_or(text.len())..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(why: Why) -> Hold {
        let uid = OperatorUid::new("totals").unwrap();
        let lineage = Lineage::new(0xabc, &uid);
        let part = Part {
            name: lineage.name(3, 1 << 24, 7),
            length: 1,
            digest: 2,
            lines: 3,
        };
        Hold {
            lineage,
            uid,
            why,
            parts: vec![part],
        }
    }

    fn savepoint() -> Hold {
        hold(Why::Savepoint {
            checkpoint: CheckpointId(12),
            attempt: 1 << 24 | 2,
            location: "backup/savepoint-00000a-1".into(),
        })
    }

    #[test]
    fn golden_bytes_pin_the_format() {
        let hold = savepoint();
        assert_eq!(
            hold.name(),
            "00000000000000000000000000000abc-e1c18c9f4c80c9dc-12-16777218"
        );
        let bytes = hold.encode();
        let mut body = Sink::new();
        body.u8(1).u128(0xabc).text("totals").u64(12).u64((1 << 24) + 2);
        body.text("backup/savepoint-00000a-1").bool(false).count(1);
        body.text("00000000000000000000000000000abc-e1c18c9f4c80c9dc-3-16777216-7");
        body.u64(1).u64(2).u64(3);
        let body = Section {
            tag: 1,
            version: 1,
            bytes: body.into_vec(),
        };
        assert_eq!(bytes, envelope::write(*b"KBHOLD\0\x01", 1, &[body]));
        let digest = keybed_format::checksum::hash(&bytes);
        assert_eq!((bytes.len(), digest), (211, 12_807_405_136_520_228_669));
    }

    #[test]
    fn all_kinds_read_back_and_every_flipped_bit_is_found() {
        for hold in [
            savepoint(),
            hold(Why::Job),
            hold(Why::Over { sorted: true }),
            hold(Why::Over { sorted: false }),
        ] {
            let (name, bytes) = (hold.name(), hold.encode());
            assert_eq!(Hold::decode(&name, &bytes).unwrap(), hold);
            assert_eq!(of_name(&name).unwrap().0, hold.lineage);
            for n in 0..bytes.len() {
                assert!(Hold::decode(&name, &bytes[..n]).is_err());
                let mut flipped = bytes.clone();
                flipped[n] ^= 1 << (n % 8);
                assert!(Hold::decode(&name, &flipped).is_err(), "byte {n}");
            }
            let other = name.replace("abc", "abd");
            assert!(Hold::decode(&other, &bytes).is_err());
        }
    }

    #[test]
    fn foreign_names_are_passed_over() {
        let lineage = savepoint().lineage.prefix();
        let none = ["", "notes", "a-b-1-2", "1-2", &lineage, &format!("{lineage}-1")];
        for name in none.into_iter().map(str::to_owned).chain([
            format!("{lineage}-1-2-3"),
            format!("{lineage}-1-x"),
            format!("{lineage}-job.new"),
        ]) {
            assert_eq!(of_name(&name), None, "{name}");
        }
    }
}
