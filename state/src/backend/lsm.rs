//! The LSM backend: a `keybed_lsm::Store` in the subtask's work directory.
//!
//! Nothing local is made durable: the checkpoint is the log. After a restart the directory is wiped and the tables of
//! the checkpoint are fetched, verified to the last byte and mounted through their visible ranges, without a rewrite.

use super::{
    BackendOptions, BackendStats, Captured, Change, Changer, EntryScan, KeyedBackend, Restored, ScanEntry,
    ledger::Ledger,
    lsm_snapshot::{CapturedStore, Held},
    prefix::prefix_of_keys,
    seqno_too_low, work_dir,
};
use crate::{
    PendingSnapshot, StateFamily,
    canonical::ingest,
    current::PREFIX_BYTES,
    processor::{of_snapshot, verify_table},
    runs::Runs,
};
use keybed_format::{Result, Sink};
use keybed_lsm::{
    BOTTOM, Durability, Family, FamilyOptions, KeyRange, MemtableKind, Mount, MountFamily, MountRun,
    MountTable, PrefixRule, Range, Store, StoreOptions, TableId, Update,
};
use keybed_snapshot::{CheckpointId, KeyGroupRange, OpenFiles, RunHandle, SnapshotRequest, StateCatalogue};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::Path,
};

/// Bytes of a key after whose change a table may end: the key group, so that few tables straddle two subtasks.
const CUT_PREFIX: u8 = 2;

/// Keyed state in a store.
#[derive(Debug)]
pub struct LsmBackend {
    pub(super) store: Store,
    pub(super) options: BackendOptions,
    pub(super) range: KeyGroupRange,
    /// By [`StateFamily`]; created by the first write.
    families: [Option<Family>; 4],
    pub(super) ledger: Ledger<Held>,
    /// What entries of one list or map have in common.
    prefix: PrefixRule,
    scratch: Sink,
}

impl LsmBackend {
    /// An empty backend for these key groups and states. Its work directory is wiped.
    ///
    /// # Errors
    /// `Locked` if another store lives there; those of the file system.
    pub(crate) fn create(
        options: BackendOptions,
        range: KeyGroupRange,
        catalogue: &StateCatalogue,
    ) -> Result<Self> {
        work_dir::wipe(&*options.fs, &options.dir)?;
        let store = Store::open(&options.dir, store_options(&options))?;
        Ok(Self::over(store, options, range, prefix_of_keys(catalogue), None))
    }

    /// The backend that the runs of a snapshot describe. Its work directory is wiped.
    ///
    /// # Errors
    /// `SnapshotCorrupt`, `SnapshotIncomplete`; those of the file system.
    pub(crate) fn restore(
        mut options: BackendOptions,
        range: KeyGroupRange,
        content: &Restored<'_>,
        files: &dyn OpenFiles,
    ) -> Result<Self> {
        work_dir::wipe(&*options.fs, &options.dir)?;
        let runs = &content.runs;
        fetch(&options, runs, files)?;
        let ingested = ingest(&mut options, content.catalogue, content.canonical, files)?;
        let mut families = Vec::new();
        let prefix = prefix_of_keys(content.catalogue);
        for ((family, runs), tables) in StateFamily::ALL.into_iter().zip(&runs.families).zip(ingested) {
            let mut runs: Vec<_> = runs.iter().map(|run| mount_run(run, &options.dir)).collect();
            // No key is in both, so any place will do.
            runs.extend((!tables.is_empty()).then_some(MountRun { tier: BOTTOM, tables }));
            if !runs.is_empty() {
                let (name, options) = (family.name().into(), family_options(family, prefix));
                families.push((
                    family,
                    MountFamily {
                        name,
                        options,
                        runs,
                        floors: Vec::new(),
                    },
                ));
            }
        }
        let (mounted, families): (Vec<_>, Vec<_>) = families.into_iter().unzip();
        let next_seqno = runs.next_seqno;
        let mount = Mount { families, next_seqno };
        // The files are as they were written, so what the store cannot read is the fault of the snapshot.
        let store = Store::mount(&options.dir, store_options(&options), mount).map_err(of_snapshot)?;
        if store.next_seqno() > runs.next_seqno {
            return Err(seqno_too_low(runs.next_seqno, store.next_seqno()));
        }
        let carried_on = content.canonical.is_empty() && runs.may_be_carried_on();
        let held = carried_on.then(|| {
            runs.tables()
                .map(|table| (table.file.content, table.file.clone()))
                .collect::<BTreeMap<_, _>>()
        });
        let mut backend = Self::over(store, options, range, prefix, held);
        for family in mounted {
            backend.family_mut(family)?;
        }
        Ok(backend)
    }

    fn over(
        store: Store,
        options: BackendOptions,
        range: KeyGroupRange,
        prefix: PrefixRule,
        held: Option<Held>,
    ) -> Self {
        let (families, scratch) = ([None; 4], Sink::new());
        LsmBackend {
            store,
            options,
            range,
            families,
            ledger: Ledger::new(held),
            prefix,
            scratch,
        }
    }

    #[inline]
    fn family(&self, family: StateFamily) -> Option<Family> {
        self.families[family.index()]
    }

    #[inline]
    fn family_mut(&mut self, family: StateFamily) -> Result<Family> {
        if let Some(token) = self.families[family.index()] {
            return Ok(token);
        }
        let token = self
            .store
            .family_with(family.name(), family_options(family, self.prefix))?;
        self.families[family.index()] = Some(token);
        Ok(token)
    }
}

fn store_options(options: &BackendOptions) -> StoreOptions {
    let mut store = StoreOptions {
        fs: options.fs.clone(),
        ids: options.ids.clone(),
        durability: Durability::None,
        memtable_bytes: options.memtable_bytes,
        ..StoreOptions::default()
    };
    if let Some(scheduler) = &options.scheduler {
        store.scheduler = scheduler.clone();
    }
    store
}

fn family_options(family: StateFamily, prefix: PrefixRule) -> FamilyOptions {
    FamilyOptions {
        memtable: match family {
            StateFamily::Point => MemtableKind::Hash,
            StateFamily::Prefix => MemtableKind::Prefix(prefix),
            StateFamily::Window | StateFamily::Timer => MemtableKind::Ordered,
        },
        partition_prefix: PREFIX_BYTES as u8,
        cut_prefix: CUT_PREFIX,
        ..FamilyOptions::default()
    }
}

/// Brings every file of the runs into the work directory, once, and verifies it there.
fn fetch(options: &BackendOptions, runs: &Runs, files: &dyn OpenFiles) -> Result {
    let mut fetched = BTreeSet::new();
    for file in runs.tables().map(|table| &table.file) {
        if !fetched.insert(file.content) {
            continue;
        }
        let path = work_dir::table_path(&options.dir, file.content);
        files.fetch(file, &*options.fs, &path)?;
        verify_table(file, &*options.fs.open(&path)?)?;
    }
    Ok(())
}

fn mount_run(run: &RunHandle, dir: &Path) -> MountRun {
    let tables = run.tables.iter().map(|table| MountTable {
        path: work_dir::table_path(dir, table.file.content),
        id: TableId(table.file.content),
        seqno_base: 0,
        visible: KeyRange {
            start: table.visible_start.clone(),
            end: table.visible_end.clone(),
        },
    });
    MountRun {
        tier: run.tier,
        tables: tables.collect(),
    }
}

impl KeyedBackend for LsmBackend {
    fn get(&self, family: StateFamily, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Result) -> Result<bool> {
        let Some(family) = self.family(family) else {
            return Ok(false);
        };
        match self.store.get(family, key)? {
            Some(value) => read(&value).map(|()| true),
            None => Ok(false),
        }
    }

    fn put(&mut self, family: StateFamily, key: &[u8], value: &[u8]) -> Result {
        let family = self.family_mut(family)?;
        self.store.put(family, key, value)
    }

    fn delete(&mut self, family: StateFamily, key: &[u8]) -> Result {
        match self.family(family) {
            Some(family) => self.store.delete(family, key),
            None => Ok(()),
        }
    }

    fn update(&mut self, family: StateFamily, key: &[u8], change: &mut Changer<'_>) -> Result {
        let family = self.family_mut(family)?;
        let mut outcome = Ok(());
        let (out, failure) = (&mut self.scratch, &mut outcome);
        out.clear();
        self.store
            .update(family, key, move |old| match change(old, out) {
                Ok(Change::Keep) => Update::Keep,
                Ok(Change::Put) => Update::Put(out.as_slice()),
                Ok(Change::Delete) => Update::Delete,
                Err(error) => {
                    *failure = Err(error);
                    Update::Keep
                }
            })?;
        outcome
    }

    fn scan<'a>(
        &'a self,
        family: StateFamily,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Box<dyn EntryScan + 'a>> {
        let range = match self.family(family) {
            Some(family) => {
                let end = end.map_or(Bound::Unbounded, Bound::Excluded);
                Some(self.store.range(family, (Bound::Included(start), end))?)
            }
            None => None,
        };
        Ok(Box::new(LsmScan(range)))
    }

    fn prepare(&mut self, request: &SnapshotRequest) -> Result<Box<dyn PendingSnapshot>> {
        Ok(Box::new(self.pin(request)?))
    }

    fn capture(&mut self) -> Result<Captured> {
        let pinning = self.store.pin()?;
        let options = BackendOptions {
            ids: self.options.ids.fork(),
            ..self.options.clone()
        };
        let fs = options.fs.clone();
        let content = Box::new(CapturedStore { pinning, fs });
        Ok(Captured { content, options })
    }

    fn notify_complete(&mut self, checkpoint: CheckpointId) {
        self.ledger.complete(checkpoint);
    }

    fn notify_aborted(&mut self, checkpoint: CheckpointId) {
        // What was put stays in the storage until a later checkpoint completes without it, and may be used till then.
        self.ledger.aborted(checkpoint);
    }

    fn stats(&self) -> BackendStats {
        let stats = self.store.counts();
        BackendStats {
            flushes: stats.flushes,
            compactions: stats.compactions,
            bottom_compactions: stats.bottom_compactions,
            memtable_hits: stats.memtable_hits,
            table_gets: stats.table_gets,
        }
    }
}

struct LsmScan<'a>(Option<Range<'a>>);

impl EntryScan for LsmScan<'_> {
    fn next_entry(&mut self) -> Result<Option<ScanEntry<'_>>> {
        match &mut self.0 {
            Some(range) => range.next_entry(),
            None => Ok(None),
        }
    }
}
