//! An operator with keyed state at some parallelism, driven by hand: its subtasks, its storage, its last checkpoint.

use crate::files::TestFiles;
use keybed_env::{Fs, ManualClock, Scheduler, SimFs, SimScheduler};
use keybed_format::Result;
use keybed_snapshot::{
    Anchor, Assignment, BackendKind, CheckpointId, FileHandle, KeyedHandle, SnapshotKind, SnapshotOwner,
    SnapshotRequest, StateCatalogue, SubtaskIndex, SubtaskState, key_group_of, rescale,
};
use keybed_state::{
    BackendOptions, BackendStats, KeyCodec, KeyedState, ListState, MapState, PendingSnapshot, SnapshotStats,
    StateRegistry, ValueState, catalogue,
    processor::{LogicalDigest, logical_digest},
};
use std::sync::Arc;

pub(crate) const MAX_PARALLELISM: u32 = 16;
pub(crate) const OPERATOR: &str = "totals";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    pub(crate) total: ValueState<u64>,
    pub(crate) recent: ListState<String>,
    pub(crate) by_sku: MapState<String, i32>,
    pub(crate) in_window: ValueState<u64>,
    pub(crate) window_skus: MapState<String, i32>,
}

impl Tokens {
    fn open(states: &mut StateRegistry) -> Result<Self> {
        Ok(Tokens {
            total: states.value("total")?,
            recent: states.list("recent")?,
            by_sku: states.map("by-sku")?,
            in_window: states.window_value::<i64, u64>("in-window")?,
            window_skus: states.window_map::<i64, String, i32>("window-skus")?,
        })
    }
}

pub(crate) struct World {
    pub(crate) kind: BackendKind,
    pub(crate) memtable_bytes: usize,
    pub(crate) tokens: Tokens,
    pub(crate) catalogue: Arc<StateCatalogue>,
    pub(crate) subtasks: Vec<KeyedState>,
    pub(crate) files: TestFiles,
    /// Handles of the last completed checkpoint.
    pub(crate) completed: Vec<KeyedHandle>,
    /// Stats of the checkpoint written last, summed over the subtasks.
    pub(crate) stats: SnapshotStats,
    /// Counters of the attempts before this one.
    past: BackendStats,
    fs: Arc<dyn Fs>,
    scheduler: Arc<dyn Scheduler>,
    attempts: u32,
}

/// A checkpoint on its way out.
pub(crate) struct Attempt {
    pub(crate) id: CheckpointId,
    kind: SnapshotKind,
    pub(crate) pending: Vec<Box<dyn PendingSnapshot>>,
}

impl World {
    /// On a disk of its own, in memory.
    pub(crate) fn new(kind: BackendKind, parallelism: u32, memtable_bytes: usize) -> Self {
        Self::on(
            Arc::new(SimFs::without_history()),
            kind,
            parallelism,
            memtable_bytes,
        )
    }

    /// On a given disk; background jobs run when somebody waits for them, in an order drawn from a fixed seed.
    pub(crate) fn on(fs: Arc<dyn Fs>, kind: BackendKind, parallelism: u32, memtable_bytes: usize) -> Self {
        let scheduler = Arc::new(SimScheduler::new(1, Arc::new(ManualClock::new())));
        Self::scheduled(fs, scheduler, kind, parallelism, memtable_bytes)
    }

    pub(crate) fn scheduled(
        fs: Arc<dyn Fs>,
        scheduler: Arc<dyn Scheduler>,
        kind: BackendKind,
        parallelism: u32,
        memtable_bytes: usize,
    ) -> Self {
        let opened = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), Tokens::open);
        let (tokens, catalogue) = opened.unwrap();
        let mut world = World {
            kind,
            memtable_bytes,
            tokens,
            catalogue,
            subtasks: Vec::new(),
            files: TestFiles::default(),
            completed: Vec::new(),
            stats: SnapshotStats::default(),
            past: BackendStats::default(),
            fs,
            scheduler,
            attempts: 0,
        };
        world.restore(parallelism).unwrap();
        world
    }

    /// Starts anew from the last completed checkpoint.
    pub(crate) fn restore(&mut self, parallelism: u32) -> Result {
        self.past = self.counters();
        self.subtasks.clear();
        self.attempts += 1;
        let old: Vec<_> = (0..)
            .zip(&self.completed)
            .map(|(index, handle)| SubtaskState {
                keyed: Some(handle.clone()),
                ..SubtaskState::empty(SubtaskIndex(index))
            })
            .collect();
        for Assignment {
            index, range, keyed, ..
        } in rescale(&old, MAX_PARALLELISM, parallelism)?
        {
            // Every third attempt finds the directories of an earlier one and has to wipe them.
            let dir = format!("/work/{}-{index}", self.attempts % 3);
            let mut options = match self.kind {
                BackendKind::Heap => BackendOptions::heap(dir),
                BackendKind::Lsm => BackendOptions::lsm(dir),
            };
            options.memtable_bytes = self.memtable_bytes;
            options.fs = self.fs.clone();
            options.scheduler = Some(self.scheduler.clone());
            let catalogue = self.catalogue.clone();
            let state = KeyedState::restore(options, range, MAX_PARALLELISM, catalogue, &keyed, &self.files)?;
            self.subtasks.push(state);
        }
        Ok(())
    }

    /// Counters of all subtasks and attempts.
    pub(crate) fn counters(&self) -> BackendStats {
        self.subtasks
            .iter()
            .map(KeyedState::stats)
            .fold(self.past, |sum, stats| BackendStats {
                flushes: sum.flushes + stats.flushes,
                compactions: sum.compactions + stats.compactions,
                bottom_compactions: sum.bottom_compactions + stats.bottom_compactions,
                memtable_hits: sum.memtable_hits + stats.memtable_hits,
                table_gets: sum.table_gets + stats.table_gets,
            })
    }

    /// Runs the background jobs that wait, and those that they start.
    pub(crate) fn run_background(&self) {
        while self.scheduler.help() {}
    }

    /// The subtask of a key, with the key current.
    pub(crate) fn at(&mut self, key: u64) -> &mut KeyedState {
        let component = key.to_be_bytes();
        let group = key_group_of(&component, MAX_PARALLELISM);
        let state = self
            .subtasks
            .iter_mut()
            .find(|state| state.range().contains(group))
            .unwrap();
        state.set_key(&component).unwrap();
        state
    }

    pub(crate) fn prepare(&mut self, id: u64, kind: SnapshotKind) -> Attempt {
        let id = CheckpointId(id);
        let request = SnapshotRequest {
            checkpoint: id,
            kind,
            timestamp_ms: 0,
        };
        let prepare = |state: &mut KeyedState| state.prepare(&request).unwrap();
        Attempt {
            id,
            kind,
            pending: self.subtasks.iter_mut().map(prepare).collect(),
        }
    }

    pub(crate) fn write(&mut self, attempt: Attempt) -> Vec<KeyedHandle> {
        self.try_write(attempt).unwrap()
    }

    pub(crate) fn try_write(&mut self, attempt: Attempt) -> Result<Vec<KeyedHandle>> {
        let mut handles = Vec::new();
        self.stats = SnapshotStats::default();
        for pending in attempt.pending {
            let written = pending.write(&self.files)?;
            self.stats.new_bytes += written.stats.new_bytes;
            self.stats.total_bytes += written.stats.total_bytes;
            self.stats.files_new += written.stats.files_new;
            self.stats.files_reused += written.stats.files_reused;
            self.stats.sort_bytes_max = self.stats.sort_bytes_max.max(written.stats.sort_bytes_max);
            self.stats.sort_files += written.stats.sort_files;
            let own = |file: &FileHandle| file.anchor == Anchor::SelfDir;
            let savepoint = attempt.kind.owner() == SnapshotOwner::User;
            assert!(
                written.handle.files().all(|file| own(file) == savepoint),
                "only savepoints own their files"
            );
            handles.push(written.handle);
        }
        Ok(handles)
    }

    pub(crate) fn complete(&mut self, id: CheckpointId, handles: Vec<KeyedHandle>) {
        self.completed = handles;
        self.subtasks
            .iter_mut()
            .for_each(|state| state.notify_complete(id));
    }

    pub(crate) fn abort(&mut self, id: CheckpointId) {
        self.subtasks
            .iter_mut()
            .for_each(|state| state.notify_aborted(id));
    }

    pub(crate) fn checkpoint(&mut self, id: u64) -> Vec<KeyedHandle> {
        let attempt = self.prepare(id, SnapshotKind::Checkpoint);
        let handles = self.write(attempt);
        self.complete(CheckpointId(id), handles.clone());
        handles
    }

    pub(crate) fn digest(&self, handles: &[KeyedHandle]) -> LogicalDigest {
        logical_digest(OPERATOR, &self.catalogue, handles, &self.files).unwrap()
    }
}
