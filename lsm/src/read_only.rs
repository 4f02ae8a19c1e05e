//! Opening a store to look at it: nothing is written, nothing is locked.
//!
//! ```text
//! CURRENT → manifest → every table opened → log, as it is now ─► memory
//!     ▲                                        │
//!     └── a live owner changed something meanwhile: again
//! ```
//! The owner may flush, merge and remove files meanwhile. Whatever is missing or does not fit is looked for again from
//! CURRENT on, as long as what the manifest says keeps changing.

use crate::{
    key::{Seqno, TableId},
    open::{self, Locked, Mode, Start},
    options::{Access, Durability, StoreOptions},
    recover,
    store::Store,
    verify,
    version::{edit::TableRecord, manifest, set::VersionSet},
};
use keybed_env::{Fs, WriteFile, fs::FileLock};
use keybed_format::{Code, Error, ErrorKind, Result};
use std::{collections::HashSet, path::Path, sync::Arc};

/// Attempts to see a store at rest.
pub(crate) const ATTEMPTS: u32 = 100;

/// Nothing is held: the owner is not disturbed.
#[derive(Debug)]
struct NoLock;

impl FileLock for NoLock {}

/// The file of a manifest that is not written.
#[derive(Debug)]
pub(crate) struct NoFile;

/// Why nothing can be changed.
#[cold]
pub(crate) fn refused() -> Error {
    Error::new(
        Code::ReadOnlyMedium,
        "the store was opened to be read; open it with Store::open to change it",
    )
}

impl WriteFile for NoFile {
    fn append(&mut self, _: &[u8]) -> Result {
        Err(refused())
    }

    fn len(&self) -> u64 {
        0
    }

    fn reserve(&mut self, _: u64) -> Result {
        Err(refused())
    }

    fn sync(&mut self) -> Result {
        Err(refused())
    }
}

impl Store {
    /// Opens the store in `dir` as it is now, to read: a closed one, one whose process died, or one that another
    /// process is writing, which is not disturbed. Nothing is written at all; what the log holds is replayed into
    /// memory. Later changes are not seen.
    ///
    /// Families, reads, scans and views work as ever (name custom merge operators with
    /// [`Store::family_with`]); everything that would change the store is `ReadOnlyMedium`. All tables are kept open, so
    /// that an owner who removes files later takes nothing away: mind the limit of open files.
    ///
    /// # Errors
    /// `NotFound` if there is no store; as [`Store::open`], but for `Locked`; `Busy` if the owner changes the store
    /// faster than it can be opened.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let dir = place.path().join("s");
    /// # use keybed_lsm::{Store, StoreOptions};
    /// let mut owner = Store::open(&dir, StoreOptions::default())?;
    /// let orders = owner.family("orders")?;
    /// owner.put(orders, b"o-1", b"42")?;
    /// let mut reader = Store::open_read_only(&dir, StoreOptions::default())?;
    /// let orders = reader.family("orders")?;
    /// assert_eq!(reader.get(orders, b"o-1")?.unwrap(), b"42");
    /// assert!(reader.put(orders, b"o-1", b"43").is_err());
    /// # Ok(()) }
    /// ```
    pub fn open_read_only(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Store> {
        let dir = dir.as_ref();
        let options = StoreOptions {
            durability: Durability::None,
            access: Access::Cache,
            open_files_max: 1 << 20,
            compaction: false,
            ..options
        };
        options.check()?;
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let (seen, result) = attempt(dir, &options);
            match result {
                // Files that are missing or do not fit: the owner went on, unless the manifest is as it was.
                Err(error) if may_pass(&error) && before.as_ref() != Some(&seen) => before = Some(seen),
                result => return result,
            }
        }
        Err(changing(dir))
    }
}

impl Store {
    /// Lets `replay` write to memory without bound, and nothing else from then on.
    pub(crate) fn read_only(&mut self, replay: impl FnOnce(&mut Store) -> Result) -> Result {
        {
            let mut state = self.shared.state.lock();
            state.is_read_only = true;
            state.flush_error = Some(refused());
        }
        self.attend_at = usize::MAX;
        replay(self)?;
        // Every write goes by way of `attend`, which refuses it.
        self.attend_at = 0;
        self.is_read_only = true;
        Ok(())
    }

    /// Whether the store shows all that its owner wrote before it was opened. A store that was opened to be read while
    /// another process writes it knows of the owner's last flushes only, if the owner keeps no log
    /// ([`Durability::None`]); otherwise this is true.
    pub fn sees_unflushed(&self) -> bool {
        !self.is_read_only || !self.shared.is_volatile()
    }

    /// Refuses what would change a store that was opened to be read.
    pub(crate) fn check_writable(&self) -> Result {
        if self.is_read_only { Err(refused()) } else { Ok(()) }
    }
}

/// Whether a look that failed like this may succeed when the owner has gone on.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.kind() == ErrorKind::Corruption || matches!(error.code(), Code::NotFound | Code::Busy)
}

/// The owner does not leave a moment for a look.
pub(crate) fn changing(dir: &Path) -> Error {
    Error::new(Code::Busy, "the store changes faster than it can be opened").in_file(dir)
}

/// Whether the log, which was read after the manifest, does not belong to what the manifest said: a file of it was
/// flushed and may be gone, or it goes on after a clear, a drop or an ingest that are in the manifest alone. Merges do
/// not matter.
fn has_moved_on(fs: &dyn Fs, dir: &Path, seen: &(String, u64), set: &VersionSet) -> Result<bool> {
    let name = manifest::read_current(fs, dir)?.unwrap_or_default();
    let is_same = name == seen.0
        && fs
            .facts(&dir.join(&name))?
            .is_some_and(|facts| facts.len == seen.1);
    if is_same {
        return Ok(false);
    }
    let now = manifest::recover(fs, dir, &name)?.set;
    let flushed = |set: &VersionSet| -> Vec<(u32, Seqno)> {
        let families = set.families();
        families
            .map(|family| (family.record.id, family.flushed))
            .collect()
    };
    let ingested = |set: &VersionSet| -> HashSet<TableId> {
        let tables = set.tables().filter(|table| table.seqno_base > 0);
        tables.map(TableRecord::id).collect()
    };
    Ok(now.log.floor != set.log.floor
        || flushed(&now) != flushed(set)
        || !ingested(&now).is_subset(&ingested(set)))
}

/// Tries once; says what the manifest looked like.
fn attempt(dir: &Path, options: &StoreOptions) -> ((String, u64), Result<Store>) {
    let mut seen = (String::new(), 0);
    let result = look(dir, options, &mut seen);
    (seen, result)
}

fn look(dir: &Path, options: &StoreOptions, seen: &mut (String, u64)) -> Result<Store> {
    let fs = &*options.fs;
    let name = verify::current(fs, dir)?;
    seen.0.clone_from(&name);
    seen.1 = fs.facts(&dir.join(&name))?.map_or(0, |facts| facts.len);
    let found = manifest::recover(fs, dir, &name)?;
    // Listed after the manifest was read: what it needs is there, or it has changed.
    let files = open::files(fs, dir)?;
    let log = recover::look(fs, dir, &files, found.store_id, &found.set)?;
    if has_moved_on(fs, dir, seen, &found.set)? {
        return Err(changing(dir));
    }
    let mut set = found.set;
    if let Some(last) = log.good.last() {
        set.next_seqno = set.next_seqno.max(last.seqno_max + 1);
    }
    let start = Start {
        number: found.number,
        store_id: found.store_id,
        set,
    };
    let locked = Locked {
        lock: Arc::new(NoLock),
        files,
    };
    open::assemble(
        dir,
        options.clone(),
        locked,
        start,
        found.torn_bytes,
        &log,
        Mode::ReadOnly,
    )
}
