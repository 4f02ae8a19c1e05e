//! Replaying the log of a store that is being opened.
//!
//! ```text
//! look     which files and frames are good                       changes nothing
//! mend     what is torn is cut off, what came after it removed; what is replayed becomes durable
//! replay   every operation above its family's flushed seqno       flushes meanwhile if memory is used up
//! ```
//! A crash between any two of these steps leaves a log that says the same. A merge is never applied twice: a family's
//! flushed seqno is in the edit that made its table visible, and a batch of which only some families were flushed is
//! replayed for the others.

use crate::{
    batch::Op,
    family::Family,
    key::Seqno,
    planted,
    store::Store,
    version::set::VersionSet,
    wal::{
        path,
        reader::{self, Found, Good, Known},
        tidy::Closed,
    },
};
use keybed_env::Fs;
use keybed_format::Result;
use std::{collections::HashMap, path::Path};

/// Finds out what the log in `dir` holds beyond the set.
///
/// # Errors
/// As [`reader::find`].
pub(crate) fn look(
    fs: &dyn Fs,
    dir: &Path,
    names: &[String],
    store_id: u128,
    set: &VersionSet,
) -> Result<Found> {
    let known = Known {
        store_id,
        floor: set.log.floor,
        durable: set.log.durable,
        synced_seqno: set.log.synced,
        next_family: set.next_family(),
    };
    reader::find(fs, dir, names, &known)
}

/// Makes the log end where it was found to end, durably if `durable`, and tells the set.
///
/// # Errors
/// Those of the file system; it may be tried again.
pub(crate) fn mend(fs: &dyn Fs, dir: &Path, found: &Found, durable: bool, set: &mut VersionSet) -> Result {
    for number in found.dropped.iter().rev() {
        fs.remove_file(&path(dir, *number))?;
    }
    for good in &found.good {
        let path = path(dir, good.number);
        if good.is_cut {
            fs.truncate(&path, good.end)?;
        }
        if durable || good.is_cut {
            fs.append(&path)?.sync()?;
        }
    }
    if !found.dropped.is_empty() || (durable && !found.good.is_empty()) {
        fs.sync_dir(dir)?;
    }
    if let Some(last) = found.good.last() {
        set.next_seqno = set.next_seqno.max(last.seqno_max + 1);
        if durable {
            set.log.durable = set.log.durable.max(last.number);
            set.log.synced = set.log.synced.max(last.seqno_max);
        }
    }
    Ok(())
}

/// The good files as files that take no writes any more.
pub(crate) fn kept(found: &Found) -> Vec<Closed> {
    let closed = |good: &Good| Closed {
        number: good.number,
        seqno_max: good.seqno_max,
        bytes: good.end,
    };
    found.good.iter().map(closed).collect()
}

impl Store {
    /// Applies what the log holds beyond the tables.
    ///
    /// # Errors
    /// As [`Store::write`]; `ManifestCorrupt` if a file is not what it was a moment ago.
    pub(crate) fn replay(&mut self, found: &Found, store_id: u128, set: &VersionSet) -> Result {
        let flushed: HashMap<u32, Seqno> = set
            .families()
            .map(|family| (family.record.id, family.flushed))
            .collect();
        // Tokens are in the order of the families.
        let tokens: HashMap<u32, (u32, Seqno)> = (0..)
            .zip(&self.families)
            .map(|(token, family)| (family.id, (token, flushed.get(&family.id).copied().unwrap_or(0))))
            .collect();
        let next_seqno = self.next_seqno;
        self.shared.state.lock().replaying = !found.good.is_empty();
        let (fs, dir) = (self.shared.fs.clone(), self.shared.dir.clone());
        for good in &found.good {
            reader::replay_file(&*fs, &dir, good, store_id, |seqno, op| {
                match tokens.get(&op.family()) {
                    Some((token, flushed)) if seqno > *flushed || planted::is("replayed-twice") => {
                        self.replay_one(seqno, op.with_family(*token))
                    }
                    // Flushed, or of a family that was dropped since.
                    _ => Ok(()),
                }
            })?;
        }
        self.next_seqno = next_seqno;
        let mut state = self.shared.state.lock();
        state.replaying = false;
        state.note_empty(&self.families);
        Ok(())
    }

    fn replay_one(&mut self, seqno: Seqno, op: Op<'_>) -> Result {
        match op {
            Op::Put { key, value: body, .. }
            | Op::Merge {
                key, operand: body, ..
            }
            | Op::Append { key, bytes: body, .. } => {
                self.before_write_of(Family(op.family()), key, body.len())?;
            }
            Op::Delete { key, .. } => self.before_write_of(Family(op.family()), key, 0)?,
            Op::DeleteRange { .. } | Op::RaiseFloor { .. } => self.before_write()?,
        }
        self.next_seqno = seqno;
        let mut out = std::mem::take(&mut self.scratch);
        let result = self.apply_one(op, None, &mut out);
        self.scratch = out;
        result
    }
}
