//! Sweeping a job root: what nobody needs goes, decided by names.
//!
//! ```text
//!   a process owns the root:  CheckpointRoot::gc ─┐
//!   nobody does:              OpenRoot::look ─ gc ┴─▶ registry ─▶ plan (pure) ─▶ dry run: the plan is the answer
//!                              takes the lock                              └──▶ cleanup of what is planned, no more
//! ```
//! Garbage is what no published checkpoint references and what was born in a generation that is closed, or under a
//! checkpoint that is over: what [`SharedRegistry`] condemns. Void checkpoints go, those of abandoned timelines stay.
//! Retention is no garbage: only the owner knows how many checkpoints it keeps. Age is an extra brake and decides
//! nothing alone. Whatever cannot be read refuses the whole sweep before its first deletion.

mod plan;
mod retire;

pub use crate::root::gc;
pub use plan::{Garbage, plan};
pub use retire::{Retirement, retire};

use crate::{
    CheckpointStorage, JobId, ObjectPath, OwnerRecord, Place,
    owner::{OWNER_BYTES_MAX, Owners},
    registry::SharedRegistry,
};
use keybed_format::{Code, Error, Result};

/// How to sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only tell what would go.
    pub dry_run: bool,
    /// Garbage that is younger stays, in milliseconds; 0 asks for no age. Where the storage knows no age, everything is
    /// young.
    pub min_age_ms: u64,
    /// Now, in milliseconds since 1970-01-01T00:00:00Z, by the clock of the storage.
    pub now_ms: u64,
}

/// Something that went, or would.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Swept {
    /// Its path relative to the job root; that of a folder ends with a slash.
    pub path: String,
    /// Its bytes; 0 of a folder.
    pub bytes: u64,
}

/// What a sweep did, or in a dry run would do.
#[derive(Debug, Default)]
pub struct GcReport {
    /// In the order of deletion. A dry run and a sweep after it with nothing in between tell the same.
    pub swept: Vec<Swept>,
    /// What was to go and is still there; the next sweep tries again.
    pub left: Vec<Swept>,
    /// The first failure of a deletion.
    pub error: Option<Error>,
}

impl GcReport {
    /// Bytes of what went.
    pub fn bytes(&self) -> u64 {
        self.swept
            .iter()
            .map(|swept| swept.bytes)
            .fold(0, u64::saturating_add)
    }
}

/// The job whose root that storage is, by its owner records.
///
/// # Errors
/// `NotASnapshot` if there are none: it is no job root. `GcRefused` if they cannot be read.
pub fn job_of(storage: &dyn CheckpointStorage) -> Result<JobId> {
    let mut records = Vec::new();
    for listed in storage.list(Place::Owner)? {
        if let Some(path @ ObjectPath::Owner(_)) = Place::Owner.object(&listed.name) {
            let record = storage.read(&path, OWNER_BYTES_MAX);
            let record = record.and_then(|bytes| OwnerRecord::decode(&bytes));
            records.push(record.map_err(|e| unreadable(&e.in_file(storage.describe(&path))))?);
        }
    }
    let owners = Owners::new(records).map_err(|e| unreadable(&e))?;
    let newest = owners.newest().map(|owner| owner.job);
    newest.ok_or_else(|| Error::new(Code::NotASnapshot, "there is no job root: it has no owner record"))
}

/// The refusal because of something that cannot be read.
pub(crate) fn unreadable(error: &Error) -> Error {
    let refused = Error::new(Code::GcRefused, "unreadable metadata forbids every deletion")
        .with("reason", "unreadable metadata")
        .with("because", error);
    match error.file() {
        Some(file) => refused.in_file(file),
        None => refused,
    }
}

/// The refusal because a process owns the root.
pub(crate) fn live_owner(error: Error) -> Error {
    if error.code() != Code::Locked {
        return error;
    }
    let pid = error.fields().iter().find(|(name, _)| *name == "pid");
    let pid = pid.map_or_else(|| "unknown".to_owned(), |(_, pid)| pid.clone());
    let refused = Error::new(
        Code::GcRefused,
        "a live process owns the job root and sweeps it itself",
    )
    .with("reason", "live owner")
    .with("pid", pid);
    match error.file() {
        Some(file) => refused.in_file(file),
        None => refused,
    }
}

/// Marks what is younger than the options allow, so that it stays.
///
/// # Errors
/// Errors of the storage.
pub(crate) fn spare_young(
    registry: &mut SharedRegistry,
    storage: &dyn CheckpointStorage,
    options: &GcOptions,
) -> Result {
    if options.min_age_ms == 0 {
        return Ok(());
    }
    let is_young = |path: &ObjectPath| -> Result<bool> {
        let modified = storage.facts(path)?.and_then(|facts| facts.modified_ms);
        let age = modified.and_then(|then| options.now_ms.checked_sub(then));
        Ok(age.is_none_or(|age| age < options.min_age_ms))
    };
    let garbage = plan(registry)?;
    for id in garbage.checkpoints {
        if is_young(&ObjectPath::Metadata(id))? {
            registry.reader_came(id);
        }
    }
    for path in garbage.objects {
        if is_young(&path)? {
            registry.spare(path);
        }
    }
    Ok(())
}

/// Garbage with the bytes of each.
///
/// # Errors
/// Errors of the storage.
pub(crate) fn measure(garbage: &Garbage, storage: &dyn CheckpointStorage) -> Result<Vec<Swept>> {
    let mut swept = Vec::new();
    for path in garbage.files() {
        swept.push(Swept {
            path: path.to_string(),
            bytes: storage.facts(&path)?.map_or(0, |facts| facts.bytes),
        });
    }
    let folder = |id: &crate::CheckpointId| Swept {
        path: Place::Checkpoint(*id).describe(""),
        bytes: 0,
    };
    swept.extend(garbage.folders.iter().map(folder));
    Ok(swept)
}
