//! Looking at a store as a whole: every byte of its manifest, log and tables, compared with each other.
//!
//! Nothing is changed or locked. Damage is collected, not met one by one, so that a person sees how far it goes. An owner
//! may go on meanwhile: what does not fit is damage only if the manifest that is in charge afterwards says so, too.

use crate::{
    key::TableId,
    open::{files, open_reader},
    read_only::{ATTEMPTS, changing, may_pass},
    recover,
    shared::{table_id, table_path},
    table::BlockAccess,
    version::{edit::TableRecord, manifest, set::VersionSet},
    wal,
};
use keybed_env::{Fs, fs::FileLock};
use keybed_format::{Code, Error, Result};
use std::{collections::BTreeMap, io::ErrorKind::NotADirectory, path::Path, sync::Arc};

const LOCK: &str = "LOCK";

/// What a store was found to consist of.
#[derive(Debug, Default)]
pub struct Verified {
    /// Name of the manifest in charge.
    pub manifest: String,
    /// Bytes of a torn tail of the manifest; the next open drops them.
    pub torn_bytes: u64,
    /// Files of the log.
    pub log_files: u64,
    /// Bytes of a torn tail of the log; the next open drops them.
    pub log_torn_bytes: u64,
    /// Families.
    pub families: u64,
    /// Tables; one that is seen through several parts counts once.
    pub tables: u64,
    /// Bytes of those tables.
    pub table_bytes: u64,
    /// Versions in those tables.
    pub entries: u64,
    /// Files of the store's patterns that nothing refers to: an owner is just writing them, or the next open removes
    /// them.
    pub strays: Vec<String>,
    /// What is wrong, in the order in which it was found.
    pub damages: Vec<Error>,
}

/// The lock of a directory; none on a medium that cannot be written.
pub(crate) type Held = Option<Box<dyn FileLock>>;

/// # Errors
/// `NotFound` if the directory holds no file of a store.
fn check_there(fs: &dyn Fs, dir: &Path) -> Result {
    let is_ours = |name: &String| {
        name == manifest::CURRENT || manifest::file_number(name).is_some() || table_id(name).is_some()
    };
    let missing = |what| Err(Error::new(Code::NotFound, what).in_file(dir));
    match files(fs, dir) {
        Ok(names) if names.iter().any(is_ours) => Ok(()),
        Ok(_) => missing("there is no store in this directory"),
        Err(error) if error.code() == Code::NotFound => missing("there is no such directory"),
        Err(error) if error.io_kind() == Some(NotADirectory) => {
            Err(Error::invalid("a store is a directory, and this is a file").in_file(dir))
        }
        Err(error) => Err(error),
    }
}

/// The name of the manifest that CURRENT names.
///
/// # Errors
/// `NotFound` if there is no store; `ManifestCorrupt` if there is one without CURRENT, or CURRENT is damaged.
pub(crate) fn current(fs: &dyn Fs, dir: &Path) -> Result<String> {
    if let Some(name) = manifest::read_current(fs, dir)? {
        return Ok(name);
    }
    check_there(fs, dir)?;
    let error = Error::new(
        Code::ManifestCorrupt,
        "CURRENT is missing although there are files of a store",
    );
    Err(error.in_file(dir.join(manifest::CURRENT)))
}

/// Names of the files of a store that is there, and its lock.
///
/// # Errors
/// `Locked`; `NotFound` if the directory holds no store.
pub(crate) fn lock_existing(fs: &dyn Fs, dir: &Path) -> Result<(Vec<String>, Held)> {
    check_there(fs, dir)?;
    let lock = match fs.lock(&dir.join(LOCK)) {
        Ok(lock) => Some(lock),
        Err(error) if error.code() == Code::ReadOnlyMedium => None,
        Err(error) => return Err(error),
    };
    Ok((files(fs, dir)?, lock))
}

/// Opens the table of a record and compares it with what the manifest says.
///
/// # Errors
/// `TableMissing`, `TableCorrupt`, errors of the file system.
pub(crate) fn check_table(
    fs: &dyn Fs,
    dir: &Path,
    record: &TableRecord,
) -> Result<Arc<crate::table::TableReader>> {
    let path = table_path(dir, record.id());
    let reader = open_reader(fs, &path, record.id(), BlockAccess::Stream)?;
    let (facts, said) = (reader.facts(), &record.facts);
    let same = (facts.bytes, facts.digest, facts.entries, facts.seqno_max)
        == (said.bytes, said.digest, said.entries, said.seqno_max);
    if same {
        return Ok(reader);
    }
    let error = Error::new(
        Code::TableCorrupt,
        "the table is another one than the manifest names",
    );
    Err(error.in_file(&path).expected_found(
        format_args!("{:016x}", said.digest),
        format_args!("{:016x}", facts.digest),
    ))
}

/// Reads every byte of the store in `dir`, and compares its parts with each other: each block with its checksum and its
/// table's facts, each table and each file of the log with the manifest. Nothing is locked or written; if an owner changes
/// the store meanwhile, tables that it replaced may be left out, and torn bytes may be writes on their way.
///
/// # Errors
/// `NotFound` if there is no store; `ManifestCorrupt` if nothing can be compared with anything; `Busy` if the owner changes
/// the store faster than it can be looked at; errors of the file system. Damage of tables is in [`Verified::damages`].
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{Store, StoreOptions, verify};
///
/// let path = dir.path().join("orders");
/// let mut store = Store::open(&path, StoreOptions::default())?;
/// let orders = store.family("orders")?;
/// store.put(orders, b"o-1", b"42")?;
/// store.close()?;
/// let found = verify::verify(&*StoreOptions::default().fs, &path)?;
/// assert_eq!((found.tables, found.damages.len()), (1, 0));
/// # Ok(()) }
/// ```
pub fn verify(fs: &dyn Fs, dir: &Path) -> Result<Verified> {
    let found = settled(fs, dir, || manifest_of(fs, dir))?;
    let records: BTreeMap<TableId, &TableRecord> =
        found.set.tables().map(|record| (record.id(), record)).collect();
    let mut verified = Verified {
        torn_bytes: found.torn_bytes,
        families: found.set.families().count() as u64,
        ..Verified::default()
    };
    for record in records.values() {
        let checked = check_table(fs, dir, record).and_then(|table| table.verify_all());
        if let Err(error) = checked {
            if is_replaced(fs, dir, record)? {
                continue;
            }
            verified.damages.push(error);
        } else if record.seqno_max() >= found.set.next_seqno {
            let error = Error::new(
                Code::ManifestCorrupt,
                "a table is newer than the manifest's last write",
            );
            verified
                .damages
                .push(error.in_file(dir.join(&found.name)).with("table", record.id()));
        }
        verified.tables += 1;
        verified.table_bytes += record.facts.bytes;
        verified.entries += record.facts.entries;
    }
    // Only now: the files are those that are left when all tables were read.
    let mut names = Vec::new();
    let log = settled(fs, dir, || {
        let found = manifest_of(fs, dir)?;
        names = files(fs, dir)?;
        let log = recover::look(fs, dir, &names, found.store_id, &found.set);
        log.map(|log| (found, log.torn_bytes))
    });
    let log_files = names.iter().filter(|name| wal::file_number(name).is_some());
    verified.log_files = log_files.count() as u64;
    let found = match log {
        Ok((found, torn_bytes)) => {
            verified.log_torn_bytes = torn_bytes;
            found
        }
        Err(error) => {
            verified.damages.push(error);
            found
        }
    };
    let named = found.set.table_ids();
    let is_stray = |name: &&String| match (table_id(name), manifest::file_number(name)) {
        (Some(id), _) => !named.contains(&id),
        (_, Some(_)) => **name != found.name,
        _ => false,
    };
    verified.strays = names.iter().filter(is_stray).cloned().collect();
    verified.manifest = found.name;
    Ok(verified)
}

/// The manifest in charge.
struct InCharge {
    name: String,
    torn_bytes: u64,
    store_id: u128,
    set: VersionSet,
}

fn manifest_of(fs: &dyn Fs, dir: &Path) -> Result<InCharge> {
    let name = current(fs, dir)?;
    let found = manifest::recover(fs, dir, &name)?;
    Ok(InCharge {
        name,
        torn_bytes: found.torn_bytes,
        store_id: found.store_id,
        set: found.set,
    })
}

/// Looks again as long as what does not fit may be the owner's doing: CURRENT and the manifest keep changing.
fn settled<R>(fs: &dyn Fs, dir: &Path, mut look: impl FnMut() -> Result<R>) -> Result<R> {
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let seen = seen(fs, dir);
        match look() {
            Err(error) if may_pass(&error) && before.as_ref() != Some(&seen) => before = Some(seen),
            result => return result,
        }
    }
    Err(changing(dir))
}

/// The name of the manifest and its length.
fn seen(fs: &dyn Fs, dir: &Path) -> Option<(String, u64)> {
    let name = manifest::read_current(fs, dir).ok()??;
    let len = fs.facts(&dir.join(&name)).ok()??.len;
    Some((name, len))
}

/// Whether a manifest that came later does not name the table any more.
fn is_replaced(fs: &dyn Fs, dir: &Path, record: &TableRecord) -> Result<bool> {
    let now = settled(fs, dir, || manifest_of(fs, dir))?;
    Ok(!now.set.table_ids().contains(&record.id()))
}
