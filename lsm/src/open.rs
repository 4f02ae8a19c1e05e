//! Opening a store: lock → CURRENT → manifest → log → tables → new manifest → tidy up → replay.
//!
//! ```text
//! LOCK  CURRENT  MANIFEST-000007  WAL-000012 …  0123…cdef.sst …
//! ```
//! Every open starts a new manifest, which drops a torn tail for good. Files are removed only under the lock, only by
//! names of the patterns above, and only after the new manifest is in charge.

use crate::{
    budget::MemoryBudget,
    compaction::{picker::Wishes, work},
    expiry::WallTime,
    family::{built_in, lifetime},
    install::{Catalogue, floors_of, version_of},
    journal::{self, Journal},
    key::TableId,
    options::{Durability, FamilyOptions, StoreOptions},
    recover,
    shared::{Shared, SharedFamily, State, table_id, table_path},
    store::Store,
    table::{TableReader, open_files::OpenFiles},
    version::{
        Graveyard, LiveTable, Opener,
        edit::TableRecord,
        manifest::{self, Manifest},
        set::VersionSet,
    },
    wal::{self, reader::Found, writer::Writer},
};
use keybed_env::{
    Fs, Random,
    fs::{FileKind, FileLock},
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::Path,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

const LOCK: &str = "LOCK";

/// A directory whose lock is held.
pub(crate) struct Locked {
    pub(crate) lock: Arc<dyn FileLock>,
    /// Names of regular files.
    pub(crate) files: Vec<String>,
}

/// Creates the directory if it is missing, and locks it.
pub(crate) fn lock(fs: &dyn Fs, dir: &Path) -> Result<Locked> {
    fs.create_dir_all(dir)?;
    let lock: Arc<dyn FileLock> = fs.lock(&dir.join(LOCK))?.into();
    Ok(Locked {
        lock,
        files: files(fs, dir)?,
    })
}

/// Names of the regular files in `dir`: the only ones that are ever removed.
pub(crate) fn files(fs: &dyn Fs, dir: &Path) -> Result<Vec<String>> {
    let entries = fs.list(dir)?.into_iter();
    let files = entries.filter(|entry| entry.kind == FileKind::File);
    Ok(files.map(|entry| entry.name).collect())
}

impl Store {
    /// Opens the store in `dir`, or creates it. The time it takes does not grow with the content: tables are looked
    /// for and measured, and opened when they are needed; the first read of a table that is damaged says so.
    ///
    /// # Errors
    /// `Locked` with the holder's `pid` if the directory is in use; `ManifestCorrupt`, `TableCorrupt`,
    /// `TableMissing` with the file if something is damaged; `UnsupportedFormatVersion`; `InvalidArgument` if an
    /// option is out of its bounds; errors of the file system.
    pub fn open(dir: impl AsRef<Path>, options: StoreOptions) -> Result<Store> {
        let dir = dir.as_ref();
        options.check()?;
        let fs = options.fs.clone();
        let locked = lock(&*fs, dir)?;
        match manifest::read_current(&*fs, dir)? {
            Some(name) => {
                let found = manifest::recover(&*fs, dir, &name)?;
                let number = found.number.checked_add(1).ok_or_else(|| {
                    Error::new(Code::ManifestCorrupt, "the numbers of manifests are used up")
                        .in_file(dir.join(name))
                })?;
                let mut start = Start {
                    number,
                    store_id: found.store_id,
                    set: found.set,
                };
                let log = recover::look(&*fs, dir, &locked.files, start.store_id, &start.set)?;
                let durable = options.durability != Durability::None;
                recover::mend(&*fs, dir, &log, durable, &mut start.set)?;
                assemble(dir, options, locked, start, found.torn_bytes, &log, Mode::Owner)
            }
            None => {
                let is_ours = |name: &&String| table_id(name).is_some() || wal::file_number(name).is_some();
                if let Some(file) = locked.files.iter().find(is_ours) {
                    return Err(Error::new(
                        Code::ManifestCorrupt,
                        "CURRENT is missing although there are tables or a log",
                    )
                    .in_file(dir.join(manifest::CURRENT))
                    .with("file", file));
                }
                create(dir, options, locked, VersionSet::default())
            }
        }
    }
}

impl Store {
    /// Rewrites what in `dir` names the versions of its formats (manifest, CURRENT) at the newest ones, and what the log
    /// holds into tables; afterwards older releases refuse the store with `UnsupportedFormatVersion`. There has been one
    /// version so far, so today this opens the store and closes it. Tables keep the version they were written with until
    /// they are merged: every release reads them.
    ///
    /// # Errors
    /// `NotFound` if there is no store; as [`Store::open`] and [`Store::close`].
    pub fn upgrade(dir: impl AsRef<Path>, options: StoreOptions) -> Result {
        let dir = dir.as_ref();
        if manifest::read_current(&*options.fs, dir)?.is_none() {
            return Err(Error::new(Code::NotFound, "there is no store").in_file(dir.join(manifest::CURRENT)));
        }
        Store::open(dir, options)?.close()
    }
}

/// Starts a new store with this content.
pub(crate) fn create(
    dir: &Path,
    mut options: StoreOptions,
    locked: Locked,
    set: VersionSet,
) -> Result<Store> {
    let store_id = options.ids.fresh()?;
    assemble(
        dir,
        options,
        locked,
        Start {
            number: 1,
            store_id,
            set,
        },
        0,
        &Found::default(),
        Mode::Owner,
    )
}

/// What the new manifest starts with.
pub(crate) struct Start {
    pub(crate) number: u64,
    pub(crate) store_id: u128,
    pub(crate) set: VersionSet,
}

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whoever owns the directory.
    Owner,
    /// Somebody who looks: nothing is written.
    ReadOnly,
}

/// Opens the tables, starts the manifest, tidies up.
pub(crate) fn assemble(
    dir: &Path,
    mut options: StoreOptions,
    locked: Locked,
    start: Start,
    torn_bytes: u64,
    log: &Found,
    mode: Mode,
) -> Result<Store> {
    let fs = options.fs.clone();
    let graveyard = Arc::new(Graveyard::default());
    let budget = options.budget.get_or_insert_with(MemoryBudget::unlimited).clone();
    let write_memory = budget.admit()?;
    let cache = budget.shared_cache(options.cache_bytes);
    let opener = Arc::new(Opener {
        access: options.access,
        cache,
        files: OpenFiles::new(fs.clone(), options.open_files_max),
    });
    let mut tables: HashMap<TableId, Arc<LiveTable>> = HashMap::new();
    for record in start.set.tables() {
        if let Entry::Vacant(place) = tables.entry(record.id()) {
            let path = table_path(dir, record.id());
            check_table(&*fs, &path, record)?;
            let table = LiveTable::new(path, record.clone(), graveyard.clone(), opener.clone());
            place.insert(Arc::new(table));
        }
    }
    let Start {
        number,
        store_id,
        mut set,
    } = start;
    if mode == Mode::Owner {
        make_durable(&*fs, dir, options.durability, &mut set)?;
    }
    let manifest = match mode {
        Mode::Owner => Manifest::create(&*fs, dir, number, store_id, set.clone())?,
        Mode::ReadOnly => {
            // The owner may remove the files of tables that are not open.
            tables.values().try_for_each(|table| table.reader().map(drop))?;
            Manifest::unwritten(dir, number, store_id, set.clone())
        }
    };
    let named = set.table_ids();
    let strays = locked.files.iter().filter(|_| mode == Mode::Owner);
    for name in strays.filter(|name| is_stray(name, number, set.log.floor, &named)) {
        fs.remove_file(&dir.join(name))?;
    }
    let wall = Arc::new(WallTime::new(options.clock.clone(), set.time));
    let mut families = Vec::new();
    for family in manifest.set().families() {
        let version = version_of(&manifest, &tables, family.record.id)?;
        let record = &family.record;
        let merge = record.merge.as_deref().and_then(built_in);
        let options = FamilyOptions {
            merge: merge.clone(),
            memtable: record.memtable,
            partition_prefix: record.partition_prefix,
            cut_prefix: record.cut_prefix,
            prefix_bytes: record.prefix_bytes,
            bottom_filter: record.bottom_filter,
            ttl: family.ttl.map(|ttl| Duration::from_millis(ttl.ttl_millis)),
            ttl_since: family.ttl.map(|ttl| ttl.since_millis),
            ..FamilyOptions::default()
        };
        families.push(SharedFamily {
            id: record.id,
            name: record.name.clone(),
            operator_missing: record.merge.is_some() && merge.is_none(),
            operator_name: record.merge.clone(),
            lifetime: lifetime(&options, &wall),
            active_since: if log.good.is_empty() { wall.now() } else { 0 },
            options,
            version: version.into_shared(),
            sealed: Vec::new(),
            wishes: Wishes::default(),
            density: None,
            floors: floors_of(&manifest, family.record.id),
            covers_changed: false,
            epoch: 0,
            dropped: false,
        });
    }
    let state = State {
        families,
        next_run: manifest.set().run_max(),
        ..State::default()
    };
    // 0 stands for "nothing yet" where the manifest tells up to which write something holds.
    let next_seqno = manifest.set().next_seqno.max(1);
    let seed = options.ids.fresh()? as u64;
    let catalogue = Catalogue { manifest, tables };
    let shared = Shared::new(
        dir,
        options,
        locked.lock,
        catalogue,
        graveyard,
        (opener, write_memory, wall),
        state,
    );
    let tenant: Weak<Shared> = Arc::downgrade(&shared);
    shared.budget.register(tenant);
    let torn_bytes = torn_bytes + log.torn_bytes;
    shared.counters.torn_bytes.store(torn_bytes, Ordering::Relaxed);
    let mut store = Store::new(shared, next_seqno, Random::from_seed(seed));
    if mode == Mode::ReadOnly {
        store.read_only(|store| store.replay(log, store_id, &set))?;
        return Ok(store);
    }
    store.replay(log, store_id, &set)?;
    let options = &store.shared.options;
    let writer = (options.durability != Durability::None).then(|| {
        let previous = log.good.last().map_or((0, 0), |last| (last.number, last.end));
        Writer::new(
            fs.clone(),
            dir.to_path_buf(),
            store_id,
            log.number_max.max(set.log.floor) + 1,
            previous,
            options.wal_bytes_max,
        )
    });
    store.journal = Journal::new(writer, recover::kept(log));
    store.retire_log_files();
    journal::start_interval(&store.shared);
    if store.families.iter().any(|family| family.lifetime.is_some()) {
        work::schedule(&store.shared);
    }
    Ok(store)
}

/// Syncs tables of an owner who promised nothing before one who does names them; or remembers that there may be some.
fn make_durable(fs: &dyn Fs, dir: &Path, durability: Durability, set: &mut VersionSet) -> Result {
    if durability == Durability::None {
        set.is_volatile = true;
    } else if std::mem::take(&mut set.is_volatile) {
        for id in set.table_ids() {
            fs.append(&table_path(dir, id))?.sync()?;
        }
        fs.sync_dir(dir)?;
    }
    Ok(())
}

/// Whether a file of our patterns is nobody's.
fn is_stray(name: &str, manifest_number: u64, log_floor: u64, named: &HashSet<TableId>) -> bool {
    if let Some(number) = wal::file_number(name) {
        return number < log_floor;
    }
    match (table_id(name), manifest::file_number(name)) {
        (Some(id), _) => !named.contains(&id),
        (_, Some(number)) => number != manifest_number,
        _ => false,
    }
}

/// Looks whether the file of a table is there and as long as it should be; its content is looked at when it is
/// needed.
fn check_table(fs: &dyn Fs, path: &Path, record: &TableRecord) -> Result {
    let Some(found) = fs.facts(path)?.filter(|found| found.kind == FileKind::File) else {
        return Err(
            Error::new(Code::TableMissing, "a table that the manifest names is missing").in_file(path),
        );
    };
    let bytes = record.facts.bytes;
    if found.len == bytes {
        return Ok(());
    }
    let error = Error::new(
        Code::TableCorrupt,
        "the table has another length than the manifest says",
    );
    Err(error
        .in_file(path)
        .at(found.len.min(bytes))
        .expected_found(bytes, found.len))
}

/// Opens a table that must be there.
pub(crate) fn open_reader(
    fs: &dyn Fs,
    path: &Path,
    id: TableId,
    access: crate::table::BlockAccess,
) -> Result<Arc<TableReader>> {
    TableReader::open(fs, path, id, access).map_err(|error| match error.code() {
        Code::NotFound => error.recode(Code::TableMissing),
        _ => error,
    })
}
