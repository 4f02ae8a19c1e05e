//! Mounting: a new store around tables that are there already. Nothing is rewritten; a table of which only some keys
//! belong here is seen through a narrower range.

use crate::{
    cache::BlockCache,
    family::ttl_record,
    floor::Floor,
    key::{KeyRange, SEQNO_MAX, Seqno, TableId},
    open::{self, Locked},
    options::{FamilyOptions, StoreOptions},
    shared::{block_access, table_path},
    store::Store,
    version::{
        edit::{BOTTOM, Change, DRAINING, Edit, FamilyRecord, Origin, TableRecord},
        manifest,
        set::VersionSet,
    },
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What to mount.
#[derive(Clone, Debug, Default)]
pub struct Mount {
    /// The families of the new store.
    pub families: Vec<MountFamily>,
    /// Larger than every seqno in the tables; raised to that if it is not.
    pub next_seqno: Seqno,
}

/// One family to mount.
#[derive(Clone, Debug)]
pub struct MountFamily {
    /// Its name.
    pub name: String,
    /// Its options; the merge operator must be the one the tables were written with.
    pub options: FamilyOptions,
    /// Newest first.
    pub runs: Vec<MountRun>,
    /// Floors of the stores that the tables come from, of partitions whose keys are visible here; in any order.
    pub floors: Vec<Floor>,
}

/// One run to mount: for each key newer than all runs after it.
#[derive(Clone, Debug)]
pub struct MountRun {
    /// How often its data was merged. 255 makes the last run of a family its bottom; elsewhere it counts as 1.
    pub tier: u8,
    /// Tables with disjoint visible ranges.
    pub tables: Vec<MountTable>,
}

/// One table to mount.
#[derive(Clone, Debug)]
pub struct MountTable {
    /// The file, in the store's directory. It belongs to the store from now on: it gets the name of
    /// [`Store::table_path`], and is removed when the store does not need it any more.
    pub path: PathBuf,
    /// Names the content; the file's trailer must agree.
    pub id: TableId,
    /// The keys that may be seen; several parts of one file may be mounted.
    pub visible: KeyRange,
    /// As [`PinnedTable::seqno_base`](crate::PinnedTable::seqno_base): 0 unless the table was ingested.
    pub seqno_base: Seqno,
}

impl Store {
    /// The file of a table of the store in `dir`.
    pub fn table_path(dir: impl AsRef<Path>, id: TableId) -> PathBuf {
        table_path(dir.as_ref(), id)
    }

    /// Starts a store in `dir` with the content of tables that lie there already. The tables are read through the
    /// cache, never mapped: they may have links elsewhere.
    ///
    /// # Errors
    /// `TargetExists` if there is a store in `dir`; `TableMissing`, `TableCorrupt`; `InvalidArgument` if a table
    /// lies elsewhere, ranges of a run overlap, no seqnos are left, or an option is out of its bounds; `Locked`;
    /// errors of the file system.
    pub fn mount(dir: impl AsRef<Path>, options: StoreOptions, mount: Mount) -> Result<Store> {
        let dir = dir.as_ref();
        options.check()?;
        let fs = options.fs.clone();
        let locked = open::lock(&*fs, dir)?;
        if manifest::read_current(&*fs, dir)?.is_some() {
            return Err(Error::new(Code::TargetExists, "there is a store already").in_file(dir));
        }
        let set = settle(&*fs, dir, &options, &mount)?;
        // The files have new names now.
        let locked = Locked {
            files: open::files(&*fs, dir)?,
            ..locked
        };
        let mut store = open::create(dir, options, locked, set)?;
        for family in mount.families {
            store.family_with(&family.name, family.options)?;
        }
        Ok(store)
    }
}

/// Names the files and describes them in a set.
fn settle(fs: &dyn Fs, dir: &Path, options: &StoreOptions, mount: &Mount) -> Result<VersionSet> {
    let cache = Arc::new(BlockCache::new(options.cache_bytes));
    let mut known: HashMap<TableId, TableRecord> = HashMap::new();
    let mut edit = Edit::default();
    let mut next_seqno = mount.next_seqno;
    for (id, family) in (0..).zip(&mount.families) {
        family.options.check()?;
        edit.changes.push(Change::CreateFamily(FamilyRecord {
            id,
            name: family.name.clone(),
            merge: family
                .options
                .merge
                .as_ref()
                .map(|operator| operator.name().to_owned()),
            memtable: family.options.memtable,
            partition_prefix: family.options.partition_prefix,
            cut_prefix: family.options.cut_prefix,
            prefix_bytes: family.options.prefix_bytes,
            bottom_filter: family.options.bottom_filter,
        }));
        let now = options.clock.wall_millis();
        let mut began = family.options.clone();
        began.ttl_since = began.ttl.map(|_| began.ttl_since.unwrap_or(now));
        let record = ttl_record(&began).map(|record| Change::Expire(id, Some(record)));
        edit.changes.extend(record);
        for floor in &family.floors {
            floor.check(family.options.partition_prefix)?;
            next_seqno = next_seqno.max(floor.seqno + 1);
            edit.changes.push(Change::RaiseFloor(id, floor.clone()));
        }
        for (run, tier, tables) in numbered(&family.runs) {
            for table in &joined(tables) {
                let record = match known.get(&table.id) {
                    Some(record) => record.clone(),
                    None => {
                        let path = adopt(fs, dir, table)?;
                        let access = block_access(options.access, Origin::Mounted, &cache);
                        let reader = open::open_reader(fs, &path, table.id, access)?;
                        let facts = reader.facts();
                        let record = TableRecord {
                            run,
                            tier,
                            origin: Origin::Mounted,
                            facts: Arc::new(facts.clone()),
                            seqno_base: table.seqno_base,
                            visible: facts.range(),
                        };
                        known.insert(table.id, record.clone());
                        record
                    }
                };
                next_seqno = next_seqno.max(record.seqno_max() + 1);
                // Merges put tables between those of the bottom, by their keys: there a range must not claim more
                // than the keys it shows. Parts of other origins may come with the range of all they own.
                let visible = if tier == BOTTOM {
                    table.visible.clip(&record.visible)
                } else {
                    table.visible.clone()
                };
                if !visible.is_empty() {
                    let record = TableRecord {
                        run,
                        tier,
                        visible,
                        ..record
                    };
                    edit.changes.push(Change::AddTable(id, record));
                }
            }
        }
    }
    // A manifest with more could not be read again.
    if next_seqno > SEQNO_MAX {
        return Err(Error::invalid("no seqnos are left for what is written next")
            .expected_found(format_args!("at most {SEQNO_MAX}"), next_seqno));
    }
    edit.changes
        .extend([Change::NextSeqno(next_seqno), Change::NotDurable(true)]);
    // What the manifest's reader would refuse must not get into a manifest: the store could never be opened again.
    Edit::decode(&edit.encode(), 0)
        .and_then(|edit| {
            let mut set = VersionSet::default();
            set.apply(&edit).map(|()| set)
        })
        .map_err(|error| error.recode_malformed(Code::InvalidArgument))
}

/// Runs with their numbers (larger is newer, the bottom is 0) and tiers.
fn numbered(runs: &[MountRun]) -> Vec<(u64, u8, &[MountTable])> {
    let count = runs.len() as u64;
    (0..)
        .zip(runs)
        .map(|(at, run)| match run.tier {
            BOTTOM if at + 1 == count => (0, BOTTOM, run.tables.as_slice()),
            BOTTOM | DRAINING => (count - at, 1, run.tables.as_slice()),
            tier => (count - at, tier, run.tables.as_slice()),
        })
        .collect()
}

/// The visible parts of a run in order, adjacent parts of one table as one: what was split by a rescale is whole
/// again.
fn joined(tables: &[MountTable]) -> Vec<MountTable> {
    let mut parts: Vec<&MountTable> = tables.iter().filter(|table| !table.visible.is_empty()).collect();
    parts.sort_by(|a, b| a.visible.start.cmp(&b.visible.start));
    let mut joined: Vec<MountTable> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.id == part.id && last.visible.end.as_ref() == Some(&part.visible.start) => {
                last.visible.end.clone_from(&part.visible.end);
            }
            _ => joined.push(part.clone()),
        }
    }
    joined
}

/// Gives a file the name of its table.
fn adopt(fs: &dyn Fs, dir: &Path, table: &MountTable) -> Result<PathBuf> {
    let path = table_path(dir, table.id);
    if table.path == path {
        return Ok(path);
    }
    if table.path.parent() != Some(dir) {
        return Err(
            Error::invalid("a mounted table lies outside of the store's directory").in_file(&table.path),
        );
    }
    if fs.facts(&path)?.is_none() {
        fs.rename(&table.path, &path)
            .map_err(|error| match error.code() {
                Code::NotFound => error.recode(Code::TableMissing),
                _ => error,
            })?;
    }
    Ok(path)
}
