//! The heap backend: ordered maps in memory, one per family and key group, copied on write.
//!
//! ```text
//! HeapBackend ─▶ family ─▶ key group ─▶ Arc<Group> ─▶ entries: key → (epoch, value)
//!                                                     removed: key → epoch
//! ```
//! An *epoch* is the time between two snapshots. Preparing a snapshot clones the `Arc`s of the groups that changed
//! and starts a new epoch; a group is copied when it is written to while a snapshot still reads it. The stamps say
//! what changed since any earlier epoch, so an incremental snapshot needs no log of writes.

use super::{
    BackendOptions, BackendStats, Captured, CapturedContent, Change, Changer, ContentScan, EntryScan,
    KeyedBackend, ReadScans, Restored, ScanEntry,
    ahead::{Ahead, HeapEntry},
    heap_snapshot::Chain,
    ledger::Ledger,
    seqno_too_low, work_dir,
};
use crate::{
    PendingSnapshot, StateFamily, canonical::stored_entries, current::group_of_entry, processor::RunMerge,
};
use keybed_format::{Error, Result, Sink};
use keybed_lsm::{EntryKind, key::check_sizes};
use keybed_snapshot::{CheckpointId, KeyGroup, KeyGroupRange, OpenFiles, SnapshotRequest};
use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Bound,
    sync::Arc,
};

/// A value and the epoch in which it was written.
#[derive(Clone, Debug)]
pub(super) struct Stamped {
    pub(super) epoch: u64,
    pub(super) value: Vec<u8>,
}

/// One key group of one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) entries: BTreeMap<Vec<u8>, Stamped>,
    /// Keys that are absent now and were removed in that epoch.
    pub(super) removed: BTreeMap<Vec<u8>, u64>,
    /// Epoch of the last write.
    pub(super) changed: u64,
}

/// Key groups of one family, by group − first group of the range.
#[derive(Clone, Debug, Default)]
pub(super) struct HeapFamily {
    pub(super) groups: Vec<Arc<Group>>,
}

/// Keyed state in ordered maps.
pub struct HeapBackend {
    /// Where tables are written on their way into a snapshot.
    pub(super) options: BackendOptions,
    pub(super) range: KeyGroupRange,
    pub(super) families: [HeapFamily; 4],
    /// Stamp of the writes of now; above every seqno of what was restored.
    pub(super) epoch: u64,
    /// Whether some checkpoint may need to know which keys were removed.
    pub(super) tracks_removals: bool,
    pub(super) ledger: Ledger<Chain>,
    scratch: Sink,
}

/// Restored entries of one key group that are not in its maps yet.
#[derive(Default)]
struct Loading {
    group: Option<KeyGroup>,
    entries: [Vec<(Vec<u8>, Stamped)>; 4],
}

impl HeapBackend {
    /// An empty backend for these key groups. Its work directory is wiped.
    ///
    /// # Errors
    /// Those of the work directory.
    pub(crate) fn create(options: BackendOptions, range: KeyGroupRange) -> Result<Self> {
        Self::over(options, range, 1, None)
    }

    /// The backend that the runs of a snapshot describe. Its work directory is wiped.
    ///
    /// # Errors
    /// `SnapshotCorrupt`, `SnapshotIncomplete`; those of the work directory.
    pub(crate) fn restore(
        options: BackendOptions,
        range: KeyGroupRange,
        content: Restored<'_>,
        files: &dyn OpenFiles,
    ) -> Result<Self> {
        let Restored {
            runs,
            canonical,
            catalogue,
        } = content;
        let epoch = runs.next_seqno;
        let mut backend = Self::over(options, range, epoch, None)?;
        let mut loading = Loading::default();
        for (family, runs) in StateFamily::ALL.into_iter().zip(&runs.families) {
            let mut merge = RunMerge::open(runs, files)?;
            if merge.seqno_max() >= epoch {
                return Err(seqno_too_low(epoch, merge.seqno_max() + 1));
            }
            while let Some((key, value)) = merge.next_entry()? {
                // Restored entries are older than the first epoch, so they belong to no delta.
                backend.load(&mut loading, epoch - 1, family, key, value)?;
            }
            backend.settle(&mut loading)?;
        }
        stored_entries(catalogue, canonical, files, &mut |family, key, value| {
            backend.load(&mut loading, epoch - 1, family, key, value)
        })?;
        backend.settle(&mut loading)?;
        for group in backend.families.iter_mut().flat_map(|family| &mut family.groups) {
            if let Some(group) = Arc::get_mut(group) {
                group.changed = epoch - 1;
            }
        }
        backend.tracks_removals = canonical.is_empty() && runs.may_be_carried_on();
        backend.ledger = Ledger::new(backend.tracks_removals.then(|| Chain {
            epoch: epoch - 1,
            runs,
        }));
        Ok(backend)
    }

    /// Takes an entry that is restored; those of a key group come together, by family in any order.
    fn load(
        &mut self,
        loading: &mut Loading,
        epoch: u64,
        family: StateFamily,
        key: &[u8],
        value: &[u8],
    ) -> Result {
        let group = group_of_entry(key)?;
        if loading.group != Some(group) {
            self.settle(loading)?;
            loading.group = Some(group);
        }
        let value = value.to_vec();
        loading.entries[family.index()].push((key.to_vec(), Stamped { epoch, value }));
        Ok(())
    }

    /// Puts the loaded entries into their groups. A map is built at once from all that it will hold: twice as fast as
    /// entry by entry, and its nodes are full.
    fn settle(&mut self, loading: &mut Loading) -> Result {
        for family in StateFamily::ALL {
            let entries = std::mem::take(&mut loading.entries[family.index()]);
            let Some((key, _)) = entries.first() else {
                continue;
            };
            let group = self.group_mut(family, key)?;
            if group.entries.is_empty() {
                group.entries = BTreeMap::from_iter(entries);
            } else {
                group.entries.extend(entries);
            }
        }
        Ok(())
    }

    fn over(options: BackendOptions, range: KeyGroupRange, epoch: u64, chain: Option<Chain>) -> Result<Self> {
        work_dir::wipe(&*options.fs, &options.dir)?;
        Ok(HeapBackend {
            options,
            range,
            families: Default::default(),
            epoch,
            tracks_removals: false,
            ledger: Ledger::new(chain),
            scratch: Sink::new(),
        })
    }

    fn index(&self, key: &[u8]) -> Result<usize> {
        let group = group_of_entry(key)?;
        match group.0.checked_sub(self.range.first.0) {
            Some(index) if self.range.contains(group) => Ok(usize::from(index)),
            _ => {
                Err(Error::invalid("the key belongs to another subtask").expected_found(self.range, group.0))
            }
        }
    }

    /// Index of the group in which a bound of a scan lies, which need not be a whole key.
    fn index_at(&self, bound: &[u8]) -> usize {
        let byte = |at| bound.get(at).copied().unwrap_or(0);
        usize::from(u16::from_be_bytes([byte(0), byte(1)]).saturating_sub(self.range.first.0))
    }

    fn group(&self, family: StateFamily, key: &[u8]) -> Result<Option<&Group>> {
        let index = self.index(key)?;
        Ok(self.families[family.index()]
            .groups
            .get(index)
            .map(|group| &**group))
    }

    /// The group of `key`, ready to be written to.
    pub(super) fn group_mut(&mut self, family: StateFamily, key: &[u8]) -> Result<&mut Group> {
        let index = self.index(key)?;
        let groups = &mut self.families[family.index()].groups;
        if groups.is_empty() {
            let nothing = Arc::new(Group::default());
            groups.resize(self.range.count() as usize, nothing);
        }
        let group = Arc::make_mut(&mut groups[index]);
        group.changed = self.epoch;
        Ok(group)
    }
}

impl fmt::Debug for HeapBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = &self.options.dir;
        f.debug_struct("HeapBackend")
            .field("range", &self.range)
            .field("dir", dir)
            .finish_non_exhaustive()
    }
}

impl Group {
    pub(super) fn put(&mut self, epoch: u64, key: &[u8], value: &[u8]) {
        match self.entries.get_mut(key) {
            Some(stamped) => stamped.set(epoch, value),
            None => {
                self.removed.remove(key);
                self.entries.insert(
                    key.to_vec(),
                    Stamped {
                        epoch,
                        value: value.to_vec(),
                    },
                );
            }
        }
    }

    fn delete(&mut self, epoch: u64, key: &[u8], tracked: bool) {
        if let Some((key, _)) = self.entries.remove_entry(key)
            && tracked
        {
            self.removed.insert(key, epoch);
        }
    }
}

impl Stamped {
    fn set(&mut self, epoch: u64, value: &[u8]) {
        self.epoch = epoch;
        self.value.clear();
        self.value.extend_from_slice(value);
    }
}

impl KeyedBackend for HeapBackend {
    fn get(&self, family: StateFamily, key: &[u8], read: &mut dyn FnMut(&[u8]) -> Result) -> Result<bool> {
        match self.group(family, key)?.and_then(|group| group.entries.get(key)) {
            Some(stamped) => read(&stamped.value).map(|()| true),
            None => Ok(false),
        }
    }

    fn put(&mut self, family: StateFamily, key: &[u8], value: &[u8]) -> Result {
        check_sizes(key, value)?;
        let epoch = self.epoch;
        self.group_mut(family, key)?.put(epoch, key, value);
        Ok(())
    }

    fn delete(&mut self, family: StateFamily, key: &[u8]) -> Result {
        let (epoch, tracked) = (self.epoch, self.tracks_removals);
        let present = self
            .group(family, key)?
            .is_some_and(|group| group.entries.contains_key(key));
        if present {
            self.group_mut(family, key)?.delete(epoch, key, tracked);
        }
        Ok(())
    }

    fn update(&mut self, family: StateFamily, key: &[u8], change: &mut Changer<'_>) -> Result {
        check_sizes(key, &[])?;
        let (epoch, tracked) = (self.epoch, self.tracks_removals);
        let mut new = std::mem::take(&mut self.scratch);
        new.clear();
        let group = self.group_mut(family, key)?;
        let old = group.entries.get_mut(key);
        match (
            change(old.as_ref().map(|stamped| stamped.value.as_slice()), &mut new)?,
            old,
        ) {
            (Change::Put, old) => {
                check_sizes(key, new.as_slice())?;
                match old {
                    Some(stamped) => stamped.set(epoch, new.as_slice()),
                    None => group.put(epoch, key, new.as_slice()),
                }
            }
            (Change::Delete, Some(_)) => group.delete(epoch, key, tracked),
            (Change::Keep, _) | (Change::Delete, None) => {}
        }
        self.scratch = new;
        Ok(())
    }

    fn scan<'a>(
        &'a self,
        family: StateFamily,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Box<dyn EntryScan + 'a>> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let groups = &self.families[family.index()].groups;
        let first = self.index_at(start).min(groups.len());
        // A key of the end's own group may still lie before the end.
        let last = end.map_or(groups.len(), |end| (self.index_at(end) + 1).min(groups.len()));
        let mut entries = Vec::new();
        if end.is_none_or(|end| start < end) {
            entries.extend(
                groups[first..last]
                    .iter()
                    .map(|group| group.entries.range::<[u8], _>(bounds)),
            );
        }
        Ok(Box::new(HeapScan {
            entries: entries.into_iter().flatten(),
        }))
    }

    fn prepare(&mut self, request: &SnapshotRequest) -> Result<Box<dyn PendingSnapshot>> {
        Ok(Box::new(self.capture(request)?))
    }

    fn capture(&mut self) -> Result<Captured> {
        let options = BackendOptions {
            ids: self.options.ids.fork(),
            ..self.options.clone()
        };
        let content = Box::new(CapturedHeap(self.families.clone()));
        Ok(Captured { content, options })
    }

    fn notify_complete(&mut self, checkpoint: CheckpointId) {
        let Some(chain) = self.ledger.complete(checkpoint) else {
            return;
        };
        for group in self.families.iter_mut().flat_map(|family| &mut family.groups) {
            // A group that another snapshot still reads keeps its removals until the next completion.
            if !group.removed.is_empty()
                && let Some(group) = Arc::get_mut(group)
            {
                group.removed.retain(|_, epoch| *epoch > chain.epoch);
            }
        }
    }

    fn notify_aborted(&mut self, checkpoint: CheckpointId) {
        self.ledger.forget(checkpoint);
    }

    fn stats(&self) -> BackendStats {
        BackendStats::default()
    }
}

/// The groups of one moment; one that is written to meanwhile is copied.
struct CapturedHeap([HeapFamily; 4]);

impl fmt::Debug for CapturedHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturedHeap").finish_non_exhaustive()
    }
}

impl CapturedContent for CapturedHeap {
    fn read(self: Box<Self>, read: &mut ReadScans<'_>) -> Result {
        read(self.0.each_ref().map(|family| {
            let entries = family.groups.iter().flat_map(|group| &group.entries);
            let entries = entries.map(|(key, stamped)| -> HeapEntry<'_> {
                (key.as_slice(), EntryKind::Put, stamped.value.as_slice())
            });
            let (entries, at) = (Ahead::new(entries), None);
            Box::new(CapturedScan { entries, at }) as Box<dyn ContentScan>
        }))
    }
}

struct CapturedScan<'a, I> {
    entries: Ahead<'a, I>,
    at: Option<HeapEntry<'a>>,
}

impl<'a, I: Iterator<Item = HeapEntry<'a>>> ContentScan for CapturedScan<'a, I> {
    fn advance(&mut self) -> Result<bool> {
        self.at = self.entries.next();
        Ok(self.at.is_some())
    }

    fn entry(&self) -> ScanEntry<'_> {
        self.at.map_or((&[], &[]), |(key, _, value)| (key, value))
    }
}

struct HeapScan<'a> {
    entries: std::iter::Flatten<std::vec::IntoIter<btree_map::Range<'a, Vec<u8>, Stamped>>>,
}

impl EntryScan for HeapScan<'_> {
    fn next_entry(&mut self) -> Result<Option<ScanEntry<'_>>> {
        Ok(self
            .entries
            .next()
            .map(|(key, stamped)| (key.as_slice(), stamped.value.as_slice())))
    }
}
