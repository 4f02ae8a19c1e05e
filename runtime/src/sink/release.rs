//! Giving holds up by hand, and with them the parts that nobody needs any more.
//!
//! ```text
//! holds of the chosen savepoints go ─▶ candidates: parts of histories that are over ─ minus what is still held
//!      ─▶ set aside (renamed) ─▶ holds are read once more ─▶ held now: put back │ else removed
//! ```
//! Parts of a history that is not known to be over are its job's: it removes them itself when it starts or finishes.
//! Setting aside settles the race with a job that starts from a released savepoint this moment: it makes its hold first
//! and looks for the parts then, so either the hold is seen here or the part is missed there, before anything is built
//! on it. Why: docs/decisions/parts-outlive-their-job.md.

use super::{
    SinkPlace,
    commit::{parts_in, remove},
    hold::{self, Hold, Holds, REMOVING, Why},
    in_doubt::{HeldBy, HeldParts, PartCount, open},
    part::Lineage,
    unwritable,
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Which holds are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseOf {
    /// Those of all savepoints, those that cannot be read included.
    All,
    /// Those of the savepoint whose directory had this name, or lay at this path, when it was taken.
    Savepoint(String),
}

/// What was given up, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// The holds.
    pub holds: Vec<HeldParts>,
    /// Holds that could not be read.
    pub unreadable: u64,
    /// Parts that are removed.
    pub removed: PartCount,
}

/// Gives up holds of savepoints and removes the parts of finished and given up histories that no other hold names.
/// A savepoint whose hold is gone can still be restored as long as its parts are there.
///
/// # Errors
/// `NotFound` if no hold is the savepoint's; `SnapshotCorrupt` if another hold cannot be read: the chosen ones are
/// gone then, and no part is; `OutputUnwritable`.
pub fn release(fs: &dyn Fs, dir: &Path, which: &ReleaseOf, dry_run: bool) -> Result<Released> {
    let place = open(fs, dir)?;
    let mut holds = Holds::read(fs, &place)?;
    let (chosen, unreadable) = choose(&mut holds, which)?;
    let released = Released {
        holds: chosen.iter().filter_map(Hold::held_parts).collect(),
        unreadable: unreadable.len() as u64,
        removed: PartCount::default(),
    };
    if !dry_run {
        let names = chosen.iter().map(Hold::name).chain(unreadable);
        for name in names {
            Hold::remove(fs, &place, &name)?;
        }
    }
    let candidates = candidates(fs, &place, &holds)?;
    let removed = match dry_run {
        true => {
            holds.demand_readable()?;
            candidates
                .into_iter()
                .filter(|(_, (_, name, _))| !holds.divide(vec![name.clone()]).0.is_empty())
                .fold(PartCount::default(), |mut count, (_, (.., bytes))| {
                    count.add(bytes);
                    count
                })
        }
        false => {
            let removed = remove_unheld(fs, &place, &holds, candidates)?;
            forget_the_over(fs, &place)?;
            removed
        }
    };
    Ok(Released { removed, ..released })
}

/// Takes the chosen holds out of `holds`; gives them and the names of chosen ones that cannot be read.
fn choose(holds: &mut Holds, which: &ReleaseOf) -> Result<(Vec<Hold>, Vec<String>)> {
    let is_chosen = |hold: &Hold| match (&hold.why, which) {
        (Why::Savepoint { .. }, ReleaseOf::All) => true,
        (Why::Savepoint { location, .. }, ReleaseOf::Savepoint(wanted)) => {
            let wanted = Path::new(wanted);
            let location = Path::new(location);
            location == wanted || location.file_name() == Some(wanted.as_os_str())
        }
        _ => false,
    };
    let (chosen, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut holds.all).into_iter().partition(is_chosen);
    holds.all = rest;
    if let (ReleaseOf::Savepoint(wanted), true) = (which, chosen.is_empty()) {
        let known = holds.all.iter().filter_map(Hold::held_parts);
        let known = known.filter_map(|held| match held.by {
            HeldBy::Savepoint { location, .. } => Some(location),
            HeldBy::Job => None,
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        known.dedup();
        let error = Error::new(Code::NotFound, "no parts are held for this savepoint");
        return Err(error.with("savepoint", wanted).with("known", known.join(", ")));
    }
    let mut unreadable = Vec::new();
    if *which == ReleaseOf::All {
        let all = std::mem::take(&mut holds.unreadable);
        let (gone, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(name, _)| hold::is_of_savepoint(name));
        holds.unreadable = rest;
        unreadable = gone.into_iter().map(|(name, _)| name).collect();
    }
    Ok((chosen, unreadable))
}

/// Parts of histories that are over, by path; with their lineage, their name and their bytes.
type Candidates = BTreeMap<PathBuf, (Lineage, String, u64)>;

fn candidates(fs: &dyn Fs, place: &SinkPlace, holds: &Holds) -> Result<Candidates> {
    let mut found = Candidates::new();
    for (is_pending, folder) in [(true, place.pending()), (false, place.parts())] {
        for (name, of) in parts_in(fs, &folder)? {
            // Committed parts of a sink without a sorted file are its result.
            if !holds.over(of.lineage).is_some_and(|sorted| is_pending || sorted) {
                continue;
            }
            let path = folder.join(&name);
            if let Some(facts) = fs.facts(&path).map_err(|e| unwritable(e, &path))? {
                found.insert(path, (of.lineage, name, facts.len));
            }
        }
    }
    Ok(found)
}

fn remove_unheld(fs: &dyn Fs, place: &SinkPlace, holds: &Holds, candidates: Candidates) -> Result<PartCount> {
    holds.demand_readable()?;
    let mut aside = Vec::new();
    for (path, (_, name, bytes)) in candidates {
        let plain = name.strip_suffix(REMOVING).map(str::to_owned);
        let is_aside = plain.is_some();
        let plain = plain.unwrap_or(name);
        // What a release before this one left aside is looked at again, held or not.
        if !is_aside && holds.divide(vec![plain.clone()]).0.is_empty() {
            continue;
        }
        let home = path.with_file_name(&plain);
        let away = path.with_file_name(format!("{plain}{REMOVING}"));
        if !is_aside {
            fs.rename(&home, &away).map_err(|e| unwritable(e, &home))?;
        }
        aside.push((home, away, plain, bytes));
    }
    let now = Holds::read(fs, place)?;
    let mut removed = PartCount::default();
    for (home, away, plain, bytes) in aside {
        if now.divide(vec![plain]).0.is_empty() {
            fs.rename(&away, &home).map_err(|e| unwritable(e, &home))?;
        } else {
            remove(fs, Path::new(""), away.to_str())?;
            removed.add(bytes);
        }
    }
    now.demand_readable().map(|()| removed)
}

/// Removes the markers of histories of which nothing is left, and folders that are empty.
fn forget_the_over(fs: &dyn Fs, place: &SinkPlace) -> Result {
    let holds = Holds::read(fs, place)?;
    let left = candidates(fs, place, &holds)?;
    let over = holds
        .all
        .iter()
        .filter(|hold| matches!(hold.why, Why::Over { .. }));
    for hold in over.filter(|hold| left.values().all(|(lineage, ..)| *lineage != hold.lineage)) {
        Hold::remove(fs, place, &hold.name())?;
    }
    for dir in [place.parts(), place.pending(), place.holds()] {
        let _ = fs.remove_dir(&dir);
    }
    Ok(())
}
