//! What lies in a directory of sinks, by history: which parts are in doubt, and what holds them.

use super::{
    SinkPlace,
    commit::parts_in,
    hold::{Hold, Holds, Why},
    part::{Lineage, NameFacts},
    unwritable,
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{CheckpointId, JobId, OperatorUid};
use std::{collections::BTreeMap, path::Path};

/// A number of parts and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartCount {
    /// Parts.
    pub parts: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// What keeps parts from being removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A savepoint names them.
    Savepoint {
        /// The id it was taken under.
        checkpoint: CheckpointId,
        /// Its directory when it was taken; it may have been moved.
        location: String,
    },
    /// The job rests on these parts of other histories and is neither finished nor given up.
    Job,
}

/// Parts that one hold names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldParts {
    /// What holds them.
    pub by: HeldBy,
    /// How many, as they were when the hold was made.
    pub count: PartCount,
}

/// What one sink of one history has in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkHistory {
    /// The job that began the history.
    pub job: JobId,
    /// The sink, if a hold tells it.
    pub uid: Option<OperatorUid>,
    /// Upper half of the sink's operator id: what names of parts hold of the uid.
    pub uid_hash: u64,
    /// The job is finished or was given up; its parts are kept for holds only.
    pub is_over: bool,
    /// Parts that are the result, or that the sorted file is made of.
    pub committed: PartCount,
    /// Parts that are written and not part of the result.
    pub pending: PartCount,
    /// What holds parts on behalf of this history.
    pub holds: Vec<HeldParts>,
}

/// What lies in a directory of sinks.
#[derive(Debug, Default)]
pub struct SinkDirectory {
    /// By job and sink.
    pub histories: Vec<SinkHistory>,
    /// Holds that cannot be read: while there is one, nothing is removed.
    pub unreadable: Vec<Error>,
}

impl PartCount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.parts += 1;
        self.bytes += bytes;
    }
}

impl Hold {
    pub(super) fn held_parts(&self) -> Option<HeldParts> {
        let by = match &self.why {
            Why::Savepoint {
                checkpoint, location, ..
            } => HeldBy::Savepoint {
                checkpoint: *checkpoint,
                location: location.clone(),
            },
            Why::Job => HeldBy::Job,
            Why::Over { .. } => return None,
        };
        let mut count = PartCount::default();
        self.parts.iter().for_each(|part| count.add(part.length));
        Some(HeldParts { by, count })
    }
}

/// Looks at a directory of sinks; changes nothing, and needs no job.
///
/// # Errors
/// `NotFound` if the directory is not there; `OutputUnwritable` if it cannot be read.
pub fn list(fs: &dyn Fs, dir: &Path) -> Result<SinkDirectory> {
    let place = open(fs, dir)?;
    let mut found = BTreeMap::new();
    let holds = Holds::read(fs, &place)?;
    for hold in &holds.all {
        let history = history(&mut found, hold.lineage);
        history.uid = Some(hold.uid.clone());
        history.is_over |= matches!(hold.why, Why::Over { .. });
        history.holds.extend(hold.held_parts());
    }
    for (is_pending, folder) in [(true, place.pending()), (false, place.parts())] {
        for (name, NameFacts { lineage, .. }) in parts_in(fs, &folder)? {
            let path = folder.join(name);
            let Some(facts) = fs.facts(&path).map_err(|e| unwritable(e, &path))? else {
                continue; // removed since it was listed
            };
            let history = history(&mut found, lineage);
            match is_pending {
                true => history.pending.add(facts.len),
                false => history.committed.add(facts.len),
            }
        }
    }
    Ok(SinkDirectory {
        histories: found.into_values().collect(),
        unreadable: holds.unreadable.into_iter().map(|(_, error)| error).collect(),
    })
}

/// # Errors
/// `NotFound` if the directory is not there.
pub(super) fn open(fs: &dyn Fs, dir: &Path) -> Result<SinkPlace> {
    if fs.facts(dir)?.is_none() {
        return Err(Error::new(Code::NotFound, "there is no such directory").in_file(dir));
    }
    Ok(SinkPlace {
        dir: dir.to_path_buf(),
        sorted: None,
    })
}

fn history(found: &mut BTreeMap<Lineage, SinkHistory>, lineage: Lineage) -> &mut SinkHistory {
    found.entry(lineage).or_insert_with(|| SinkHistory {
        job: JobId(lineage.id),
        uid: None,
        uid_hash: lineage.uid_hash,
        is_over: false,
        committed: PartCount::default(),
        pending: PartCount::default(),
        holds: Vec::new(),
    })
}
