//! Looking at a closed store as a whole: every byte of its manifest, log and tables, compared with each other.
//!
//! Nothing is changed. Damage is collected, not met one by one, so that a person sees how far it goes.

use crate::{
    key::TableId,
    open::{files, open_reader},
    recover,
    shared::{table_id, table_path},
    table::BlockAccess,
    version::{edit::TableRecord, manifest},
    wal,
};
use keybed_env::{Fs, fs::FileLock};
use keybed_format::{Code, Error, Result};
use std::{collections::BTreeMap, path::Path, sync::Arc};

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
    /// Files of the store's patterns that nothing refers to; the next open removes them.
    pub strays: Vec<String>,
    /// What is wrong, in the order in which it was found.
    pub damages: Vec<Error>,
}

/// The lock of a directory; none on a medium that cannot be written.
pub(crate) type Held = Option<Box<dyn FileLock>>;

/// Names of the files of a store that is there, and its lock.
///
/// # Errors
/// `Locked`; `NotFound` if the directory holds no store.
pub(crate) fn lock_existing(fs: &dyn Fs, dir: &Path) -> Result<(Vec<String>, Held)> {
    let is_ours = |name: &String| {
        name == manifest::CURRENT || manifest::file_number(name).is_some() || table_id(name).is_some()
    };
    if !files(fs, dir)?.iter().any(is_ours) {
        return Err(Error::new(Code::NotFound, "there is no store in this directory").in_file(dir));
    }
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

/// Reads every byte of the store in `dir`, which nobody may have open, and compares its parts with each other: each
/// block with its checksum and its table's facts, each table and each file of the log with the manifest.
///
/// # Errors
/// `Locked` if somebody has the store open; `NotFound` if there is none; `ManifestCorrupt` if nothing can be compared
/// with anything; errors of the file system. Damage of tables is in [`Verified::damages`].
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
    let (names, _lock) = lock_existing(fs, dir)?;
    let Some(current) = manifest::read_current(fs, dir)? else {
        return Err(Error::new(
            Code::ManifestCorrupt,
            "CURRENT is missing although there are files of a store",
        )
        .in_file(dir.join(manifest::CURRENT)));
    };
    let found = manifest::recover(fs, dir, &current)?;
    let records: BTreeMap<TableId, &TableRecord> =
        found.set.tables().map(|record| (record.id(), record)).collect();
    let mut verified = Verified {
        torn_bytes: found.torn_bytes,
        families: found.set.families().count() as u64,
        tables: records.len() as u64,
        ..Verified::default()
    };
    for record in records.values() {
        verified.table_bytes += record.facts.bytes;
        verified.entries += record.facts.entries;
        let checked = check_table(fs, dir, record).and_then(|table| table.verify_all());
        if let Err(error) = checked {
            verified.damages.push(error);
        } else if record.seqno_max() >= found.set.next_seqno {
            let error = Error::new(
                Code::ManifestCorrupt,
                "a table is newer than the manifest's last write",
            );
            verified
                .damages
                .push(error.in_file(dir.join(&current)).with("table", record.id()));
        }
    }
    match recover::look(fs, dir, &names, found.store_id, &found.set) {
        Ok(log) => verified.log_torn_bytes = log.torn_bytes,
        Err(error) => verified.damages.push(error),
    }
    let log_files = names.iter().filter(|name| wal::file_number(name).is_some());
    verified.log_files = log_files.count() as u64;
    let is_stray = |name: &&String| match (table_id(name), manifest::file_number(name)) {
        (Some(id), _) => !records.contains_key(&id),
        (_, Some(_)) => **name != current,
        _ => false,
    };
    verified.strays = names.iter().filter(is_stray).cloned().collect();
    verified.manifest = current;
    Ok(verified)
}
