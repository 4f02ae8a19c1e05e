//! The heap backend: ordered maps in memory, one per family and key group, copied on write.
//!
//! ```text
//! HeapBackend ─▶ family ─▶ key group ─▶ Arc<Group> ─▶ entries: key → (epoch, value)
//!                                                     removed: key → epoch
//! ```
//! An *epoch* is the time between two snapshots. Preparing a snapshot clones the `Arc`s of the groups that changed
//! and starts a new epoch; a group is copied when it is written to while a snapshot still reads it. The stamps say
//! what changed since any earlier epoch, so an incremental snapshot needs no log of writes.

use super::{BackendOptions, Change, Changer, EntryScan, KeyedBackend, ScanEntry};
use crate::{PendingSnapshot, StateFamily, current::group_of_entry};
use keybed_format::{Error, Result, Sink};
use keybed_snapshot::{CheckpointId, KeyGroupRange, SnapshotRequest};
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
    pub(super) epoch: u64,
    scratch: Sink,
}

impl HeapBackend {
    /// An empty backend for these key groups whose writes carry `epoch`.
    pub(crate) fn new(options: BackendOptions, range: KeyGroupRange, epoch: u64) -> Self {
        HeapBackend {
            options,
            range,
            families: Default::default(),
            epoch,
            scratch: Sink::new(),
        }
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

    fn delete(&mut self, epoch: u64, key: &[u8]) {
        if let Some((key, _)) = self.entries.remove_entry(key) {
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
        let epoch = self.epoch;
        self.group_mut(family, key)?.put(epoch, key, value);
        Ok(())
    }

    fn delete(&mut self, family: StateFamily, key: &[u8]) -> Result {
        let epoch = self.epoch;
        let present = self
            .group(family, key)?
            .is_some_and(|group| group.entries.contains_key(key));
        if present {
            self.group_mut(family, key)?.delete(epoch, key);
        }
        Ok(())
    }

    fn update(&mut self, family: StateFamily, key: &[u8], change: &mut Changer<'_>) -> Result {
        let epoch = self.epoch;
        let mut new = std::mem::take(&mut self.scratch);
        new.clear();
        let group = self.group_mut(family, key)?;
        match group.entries.get_mut(key) {
            Some(stamped) => match change(Some(&stamped.value), &mut new)? {
                Change::Keep => {}
                Change::Put => stamped.set(epoch, new.as_slice()),
                Change::Delete => group.delete(epoch, key),
            },
            None => {
                if change(None, &mut new)? == Change::Put {
                    group.put(epoch, key, new.as_slice());
                }
            }
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

    fn prepare(&mut self, _: &SnapshotRequest) -> Result<Box<dyn PendingSnapshot>> {
        Err(Error::invalid("snapshots of the heap backend are not built yet"))
    }

    fn notify_complete(&mut self, _: CheckpointId) {}

    fn notify_aborted(&mut self, _: CheckpointId) {}
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
