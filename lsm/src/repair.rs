//! Bringing back a store whose CURRENT or manifest is damaged, as far as that can be proved.
//!
//! ```text
//! CURRENT damaged, a manifest whole   ─► the newest whole manifest is in charge again        nothing is lost
//! manifest damaged from an offset on  ─► its edits before, if all tables they name are there  later edits are lost
//! no manifest can be read             ─► all tables, if the caller says whose they are        order by seqnos
//! ```
//! A plan changes nothing. Carrying it out writes a new manifest and a new CURRENT; every file that is not part of the
//! new store is first kept in [`LOST_AND_FOUND`]. Tables and logs are never repaired: their bytes are what they are. A log
//! that does not fit the repaired manifest is put aside whole.

use crate::{
    key::{KeyRange, TableId},
    memtable::MemtableKind,
    recover,
    shared::table_id,
    table::{BlockAccess, TableFacts},
    verify::{Held, check_table, lock_existing},
    version::{
        edit::{Change, Edit, FamilyRecord, Origin, TableRecord},
        manifest::{self, CURRENT, HEADER_BYTES, Manifest, Recovered},
        set::{LogSet, VersionSet},
    },
    wal,
};
use keybed_env::{Fs, random::Ids};
use keybed_format::{Code, Error, Result};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The directory inside of the store's that keeps what a repair took out of it.
pub const LOST_AND_FOUND: &str = "lost+found";

/// Longest file that is copied in memory where links are not possible.
const COPY_BYTES_MAX: u64 = 256 << 20;

/// What goes with edits, besides tables.
const WITH_EDITS: &str = "with them floors that rose, and families that were created, cleared, dropped or given other \
                          options: what they removed comes back";

/// What the caller knows and no file says: that all tables belong to one family, and to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneFamily {
    /// Name of the family.
    pub name: String,
    /// Name of its merge operator, if it has one.
    pub merge: Option<String>,
}

/// From what the store is rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairSource {
    /// CURRENT and the manifest are whole: there is nothing to do.
    Whole,
    /// This manifest is whole; CURRENT did not name it.
    Manifest(String),
    /// The edits of this manifest before the offset.
    ManifestBefore(String, u64),
    /// The tables alone, ordered by their seqnos.
    Tables,
}

/// What a repair would do.
#[derive(Debug)]
pub struct RepairPlan {
    /// From what the store is rebuilt.
    pub source: RepairSource,
    /// What was wrong.
    pub cause: Option<Error>,
    /// What will be missing, in sentences.
    pub lost: Vec<String>,
    /// Files that will be kept in [`LOST_AND_FOUND`].
    pub aside: Vec<String>,
    /// Families of the repaired store.
    pub families: u64,
    /// Tables of the repaired store.
    pub tables: u64,
    dir: PathBuf,
    number: u64,
    store_id: u128,
    set: VersionSet,
    _lock: Held,
}

struct Chosen {
    source: RepairSource,
    store_id: u128,
    set: VersionSet,
    lost: Vec<String>,
    /// The files of the log belong to the repaired store.
    has_log: bool,
}

impl RepairPlan {
    /// Finds out what can be done for the store in `dir`, and changes nothing. `one_family` permits to rebuild from the
    /// tables alone.
    ///
    /// # Errors
    /// `Locked`; `NotFound` if there is no store; `ManifestCorrupt`, `TableCorrupt` or `TableMissing` with the reason if
    /// nothing can be proved; errors of the file system.
    pub fn make(fs: &dyn Fs, dir: &Path, one_family: Option<&OneFamily>) -> Result<RepairPlan> {
        let (names, lock) = lock_existing(fs, dir)?;
        let mut manifests: Vec<u64> = names
            .iter()
            .filter_map(|name| manifest::file_number(name))
            .collect();
        manifests.sort_unstable_by(|a, b| b.cmp(a));
        let (chosen, cause) = choose(fs, dir, &names, &manifests, one_family)?;
        let named = chosen.set.table_ids();
        let aside = names.iter().filter(|name| match table_id(name) {
            Some(id) => !named.contains(&id),
            None if wal::file_number(name).is_some() => !chosen.has_log,
            None => *name == CURRENT || manifest::file_number(name).is_some(),
        });
        let aside: Vec<String> = match chosen.source {
            RepairSource::Whole => Vec::new(),
            _ => aside.cloned().collect(),
        };
        let number = manifests.first().copied().unwrap_or(0).checked_add(1);
        Ok(RepairPlan {
            source: chosen.source,
            cause,
            lost: chosen.lost,
            aside,
            families: chosen.set.families().count() as u64,
            tables: named.len() as u64,
            dir: dir.to_path_buf(),
            number: number.ok_or_else(|| Error::invalid("the numbers of manifests are used up"))?,
            store_id: chosen.store_id,
            set: chosen.set,
            _lock: lock,
        })
    }

    /// Carries the plan out. A crash leaves the store as it was or as it shall be; what was put aside stays.
    ///
    /// # Errors
    /// Those of the file system; it may be tried again.
    pub fn execute(self, fs: &dyn Fs) -> Result {
        if self.source == RepairSource::Whole {
            return Ok(());
        }
        let aside = self.dir.join(LOST_AND_FOUND);
        fs.create_dir_all(&aside)?;
        for name in &self.aside {
            keep(fs, &self.dir.join(name), &aside.join(name))?;
        }
        fs.sync_dir(&aside)?;
        fs.sync_dir(&self.dir)?;
        // From the rename of CURRENT in here on the store is the repaired one.
        drop(Manifest::create(
            fs,
            &self.dir,
            self.number,
            self.store_id,
            self.set,
        )?);
        for name in self.aside.iter().filter(|name| *name != CURRENT) {
            fs.remove_file(&self.dir.join(name))?;
        }
        fs.sync_dir(&self.dir)
    }
}

/// Gives a file a second name, or copies it where that is not possible.
fn keep(fs: &dyn Fs, from: &Path, to: &Path) -> Result {
    if fs.facts(to)?.is_some() {
        // Of an earlier attempt, or of an earlier repair: the names of manifests come again.
        fs.remove_file(to)?;
    }
    if fs.link(from, to).is_ok() {
        return Ok(());
    }
    let bytes = fs.read(from, COPY_BYTES_MAX)?;
    let mut file = fs.create(to)?;
    file.append(&bytes)?;
    file.sync()
}

/// The best source there is, and what was wrong.
fn choose(
    fs: &dyn Fs,
    dir: &Path,
    names: &[String],
    manifests: &[u64],
    one_family: Option<&OneFamily>,
) -> Result<(Chosen, Option<Error>)> {
    let cause = match manifest::read_current(fs, dir) {
        Ok(Some(name)) => match manifest::recover(fs, dir, &name) {
            Ok(found) => {
                recover::look(fs, dir, names, found.store_id, &found.set).map_err(|error| {
                    error.context("a log cannot be repaired; bring the file back from a copy")
                })?;
                check_tables(fs, dir, &found.set).map_err(|error| {
                    error.context("tables cannot be repaired; bring the file back from a copy")
                })?;
                return Ok((found_whole(found, RepairSource::Whole), None));
            }
            Err(error) => error,
        },
        Ok(None) => Error::new(Code::ManifestCorrupt, "CURRENT is missing").in_file(dir.join(CURRENT)),
        Err(error) => error,
    };
    if cause.code() != Code::ManifestCorrupt {
        return Err(cause);
    }
    let mut reasons = Vec::new();
    for &number in manifests {
        match from_manifest(fs, dir, number) {
            Ok(mut chosen) => {
                note_unnamed(fs, dir, names, &mut chosen)?;
                fit_log(fs, dir, names, &mut chosen);
                return Ok((chosen, Some(cause)));
            }
            Err(error) => reasons.push(error),
        }
    }
    if let Some(one_family) = one_family {
        let chosen = from_tables(fs, dir, names, one_family)?;
        return Ok((chosen, Some(cause)));
    }
    let error = cause.context(
        "no manifest can be proved to describe the tables; if all of them belong to one family, say which",
    );
    Err(match reasons.first() {
        Some(reason) => error.with("reason", reason),
        None => error,
    })
}

fn found_whole(found: Recovered, source: RepairSource) -> Chosen {
    Chosen {
        source,
        store_id: found.store_id,
        set: found.set,
        lost: Vec::new(),
        has_log: true,
    }
}

fn check_tables(fs: &dyn Fs, dir: &Path, set: &VersionSet) -> Result {
    let mut seen = HashSet::new();
    for record in set.tables() {
        if seen.insert(record.id()) {
            check_table(fs, dir, record)?;
        }
    }
    Ok(())
}

/// What a manifest says, up to its first damage.
fn from_manifest(fs: &dyn Fs, dir: &Path, number: u64) -> Result<Chosen> {
    let name = manifest::file_name(number);
    let path = dir.join(&name);
    let mut bytes = fs.read(&path, COPY_BYTES_MAX)?;
    let whole = bytes.len();
    let chosen = loop {
        match manifest::decode(number, &bytes) {
            Ok(found) if bytes.len() == whole => {
                let torn = found.torn_bytes;
                let mut chosen = found_whole(found, RepairSource::Manifest(name.clone()));
                if torn > 0 {
                    chosen.lost.push(format!(
                        "the last {torn} bytes of {name}, which are no whole edit"
                    ));
                    chosen.lost.push(WITH_EDITS.to_owned());
                }
                break chosen;
            }
            Ok(found) => {
                let at = bytes.len() as u64;
                let mut chosen = found_whole(found, RepairSource::ManifestBefore(name.clone(), at));
                let behind = whole - bytes.len();
                chosen.lost.push(format!(
                    "the edits in the {behind} bytes of {name} from byte {at} on"
                ));
                chosen.lost.push(WITH_EDITS.to_owned());
                break chosen;
            }
            Err(error) => match error.offset().and_then(|at| usize::try_from(at).ok()) {
                Some(at) if at > HEADER_BYTES && at < bytes.len() => bytes.truncate(at),
                _ => return Err(error.in_file(path).recode_malformed(Code::ManifestCorrupt)),
            },
        }
    };
    check_tables(fs, dir, &chosen.set)?;
    Ok(chosen)
}

/// Says which tables on disk the set does not name: after lost edits they may hold writes.
fn note_unnamed(fs: &dyn Fs, dir: &Path, names: &[String], chosen: &mut Chosen) -> Result {
    if chosen.lost.is_empty() {
        return Ok(());
    }
    let named = chosen.set.table_ids();
    for name in names {
        let Some(id) = table_id(name).filter(|id| !named.contains(id)) else {
            continue;
        };
        chosen.lost.push(match facts(fs, dir, name, id) {
            Ok(facts) => format!(
                "{name}: {} versions and {} range deletes, seqnos {} to {}, which only lost edits may name",
                facts.entries, facts.range_deletes, facts.seqno_min, facts.seqno_max
            ),
            Err(error) => format!("{name}: {error}"),
        });
        // New writes must be newer than any that may come back.
        if let Ok(facts) = facts(fs, dir, name, id) {
            chosen.set.next_seqno = chosen.set.next_seqno.max(facts.seqno_max + 1);
        }
    }
    Ok(())
}

fn facts(fs: &dyn Fs, dir: &Path, name: &str, id: TableId) -> Result<TableFacts> {
    let reader = crate::open::open_reader(fs, &dir.join(name), id, BlockAccess::Stream)?;
    Ok(reader.facts().clone())
}

/// All tables as runs of one family, newer ones before older ones.
fn from_tables(fs: &dyn Fs, dir: &Path, names: &[String], one_family: &OneFamily) -> Result<Chosen> {
    let mut tables = Vec::new();
    for name in names {
        if let Some(id) = table_id(name) {
            tables.push(facts(fs, dir, name, id)?);
        }
    }
    tables.sort_by_key(|facts| (facts.seqno_max, facts.id));
    order_is_certain(&tables)?;
    if one_family.merge.is_none()
        && let Some(merged) = tables.iter().find(|facts| facts.merges > 0)
    {
        return Err(
            Error::invalid("a table holds operands; say the name of the merge operator")
                .with("table", merged.id)
                .with("merges", merged.merges),
        );
    }
    let mut set = VersionSet::default();
    let id = set.next_family();
    let mut changes = vec![Change::CreateFamily(FamilyRecord {
        id,
        name: one_family.name.clone(),
        merge: one_family.merge.clone(),
        memtable: MemtableKind::default(),
        partition_prefix: 0,
        cut_prefix: 0,
        prefix_bytes: 0,
        bottom_filter: true,
    })];
    for (run, facts) in (1..).zip(&tables) {
        let next = facts.seqno_max + 1;
        changes.push(Change::NextSeqno(next));
        changes.push(Change::AddTable(
            id,
            TableRecord {
                run,
                tier: 1,
                origin: Origin::Own,
                facts: Arc::new(facts.clone()),
                seqno_base: 0,
                visible: KeyRange::all(),
            },
        ));
    }
    set.apply(&Edit { changes })?;
    // Who wrote them, and what he promised, nobody knows.
    set.is_volatile = true;
    let lost = vec![
        "the options of the family, and other families if there were any".to_owned(),
        "what was written after the last flush".to_owned(),
        "the time to live, if entries expired: what had expired and was not merged away yet comes back".to_owned(),
        "floors, which no table holds: what lay below them and was not merged away yet comes back".to_owned(),
        "deletions, if a table is among these that a merge or a clear had replaced and nobody had removed yet"
            .to_owned(),
    ];
    Ok(Chosen {
        source: RepairSource::Tables,
        store_id: Ids::Entropy.fresh()?,
        set,
        lost,
        has_log: false,
    })
}

/// Keeps the log if it fits the set, else lets it be put aside.
fn fit_log(fs: &dyn Fs, dir: &Path, names: &[String], chosen: &mut Chosen) {
    let numbers = || names.iter().filter_map(|name| wal::file_number(name));
    let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else {
        return;
    };
    if !chosen.lost.is_empty() {
        // Files may be gone because edits that are lost said that they are not needed.
        chosen.set.log.floor = chosen.set.log.floor.max(first);
    }
    if let Err(error) = recover::look(fs, dir, names, chosen.store_id, &chosen.set) {
        chosen.lost.push(format!(
            "what was written after the last flush, in the log: {error}"
        ));
        chosen.has_log = false;
        chosen.set.log = LogSet {
            floor: last + 1,
            durable: last,
            synced: 0,
        };
    }
}

/// Tables that share keys must not share seqnos: one of them may be made of the other. The seqno of one that was
/// ingested stood in the manifest alone.
fn order_is_certain(tables: &[TableFacts]) -> Result {
    for (at, newer) in tables.iter().enumerate() {
        for older in &tables[..at] {
            // Range deletes included.
            let shares_keys = newer.range().intersects(&older.range());
            let is_ingested = older.seqno_max == 0;
            if shares_keys && (is_ingested || newer.seqno_min <= older.seqno_max) {
                return Err(Error::new(
                    Code::ManifestCorrupt,
                    "two tables hold the same keys of the same time: which one replaced the other is not known",
                )
                .with("table", newer.id)
                .with("other", older.id));
            }
        }
    }
    Ok(())
}
