//! What the owner and the background jobs of one store share.
//!
//! ```text
//! owner (Store) ──seal──► state.queue ──► flush job ──┐
//!       ▲                                             ├──► install: manifest (visible here) ──► state.families
//!       │                 state.families ─► compaction ┘                                             │
//!       └───────────── generation rose? then lock `state` and take the new versions ◄────────────────┘
//! ```
//! Locks: `manifest` before `state`. `state` is held for a few moves of pointers, never across I/O. `manifest` is
//! held across its own append: it is what puts edits in order; the owner takes it only to create or drop a family.

use crate::{
    budget::{MemoryBudget, WriteMemory},
    cache::BlockCache,
    compaction::{density::Density, picker::Wishes},
    expiry::{Lifetime, WallTime},
    floor::Floors,
    install::Catalogue,
    key::TableId,
    memtable::Sealed,
    options::{Access, FamilyOptions, StoreOptions},
    stats::{AtomicHistogram, BackgroundCounters, Handles, OwnerCounters, Timings, WaitReason, nanos},
    sync::{AtomicU64, Condvar, Mutex},
    table::BlockAccess,
    version::{Graveyard, Opener, Version, edit::Origin},
    view,
    wal::sync::LogSync,
    write_memory::Tenancy,
};
use keybed_env::{Fs, Priority, Scheduler, Waker, fs::FileLock, random::Ids};
use keybed_format::{Code, Error, Result, hex};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

/// How long one wait for a background job lasts before the waiter looks again whether it can help.
const WAIT_STEP: Duration = Duration::from_millis(2);

/// A family, as the background sees it.
#[derive(Debug)]
pub(crate) struct SharedFamily {
    /// Number in the manifest.
    pub(crate) id: u32,
    /// Name.
    pub(crate) name: String,
    /// Options; the operator is missing until the program names it, unless it is a built-in one.
    pub(crate) options: FamilyOptions,
    /// The manifest names an operator that the program has not given yet.
    pub(crate) operator_missing: bool,
    /// Name of the operator in the manifest.
    pub(crate) operator_name: Option<String>,
    /// Newest version.
    pub(crate) version: Arc<Version>,
    /// Memtables that wait for their flush, newest first.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    /// What merges are wanted beyond those that the shape asks for.
    pub(crate) wishes: Wishes,
    /// Where scans step over tombstones; most families have none.
    pub(crate) density: Option<Box<Density>>,
    /// Dropped: nothing is read or written any more.
    pub(crate) dropped: bool,
    /// The floors that the manifest names: those of the last flush. What is older than they are and below is gone for
    /// good, so merges drop it; floors that were raised since would be forgotten by a crash.
    pub(crate) floors: Option<Arc<Floors>>,
    /// Range deletes or floors were flushed since covered tables were looked for.
    pub(crate) covers_changed: bool,
    /// How often it was cleared. What was sealed or picked in an earlier epoch is not installed.
    pub(crate) epoch: u64,
    /// For how long its entries live; none = they do not expire.
    pub(crate) lifetime: Option<Box<Lifetime>>,
    /// No write to the active memtable touched a key before this moment, if entries expire.
    pub(crate) active_since: u64,
}

/// What changes under the `state` lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// In the order of their tokens.
    pub(crate) families: Vec<SharedFamily>,
    /// Sealed memtables in the order of their seals.
    pub(crate) queue: VecDeque<(usize, Arc<Sealed>)>,
    /// The number of the next flushed run.
    pub(crate) next_run: u64,
    /// A flush job is queued or runs.
    pub(crate) flushing: bool,
    /// Why the last attempt to flush failed.
    pub(crate) flush_error: Option<Error>,
    /// Failed attempts since the store was opened.
    pub(crate) flush_failures: u64,
    /// Failed jobs since the last flush that worked.
    pub(crate) flush_failures_in_a_row: u32,
    /// A flush will be tried again by itself.
    pub(crate) flush_retry: bool,
    /// A compaction job is queued or runs.
    pub(crate) compacting: bool,
    /// Where the search for the next work begins among the families.
    pub(crate) next_family: usize,
    /// Guards that keep merges from running.
    pub(crate) paused: usize,
    /// A look whether the store is at rest is to come.
    pub(crate) settling: bool,
    /// The value of `next_run` at which it was at rest.
    pub(crate) settled_at: Option<u64>,
    /// When a look for files that have expired is to come, by the wall's time.
    pub(crate) look_at: Option<u64>,
    /// The log is being replayed: what is still to come of it may stand on what has expired since.
    pub(crate) replaying: bool,
    /// Jobs that free memory and files for the owner.
    pub(crate) tidying: usize,
    /// Why the last compaction failed; none is started until its pause is over or somebody asks.
    pub(crate) compaction_error: Option<Error>,
    /// Failed compactions in a row.
    pub(crate) compaction_failures: u32,
    /// A failed write of the manifest.
    pub(crate) poisoned: Option<Error>,
    /// The store is closing: jobs end early.
    pub(crate) closing: bool,
    /// The store was opened to be read: nothing is flushed.
    pub(crate) is_read_only: bool,
}

/// Shared by owner and jobs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) dir: PathBuf,
    pub(crate) options: StoreOptions,
    /// How tables are opened.
    pub(crate) opener: Arc<Opener>,
    /// The time by which entries expire.
    pub(crate) wall: Arc<WallTime>,
    /// Bounds the memory of this store and of others.
    pub(crate) budget: MemoryBudget,
    /// What memtables are paid from.
    pub(crate) write_memory: WriteMemory,
    pub(crate) tenancy: Tenancy,
    /// Rises with every install and every failure. Release after the state changed; the owner's Acquire load before
    /// it looks is the partner.
    pub(crate) generation: AtomicU64,
    pub(crate) state: Mutex<State>,
    /// Notified when `generation` rises.
    changed: Condvar,
    /// Puts edits in order; held across the manifest's own I/O.
    pub(crate) catalogue: Mutex<Catalogue>,
    /// How far the log was written and synced.
    pub(crate) log: LogSync,
    /// Wakes the task that syncs the log every so often, when the store closes.
    pub(crate) log_waker: Mutex<Option<Waker>>,
    pub(crate) graveyard: Arc<Graveyard>,
    /// Memtables that wait for no flush and may still be held. Guards the list alone.
    pub(crate) lingering: Mutex<Vec<Weak<Sealed>>>,
    /// Views that may live. Guards the list alone.
    pub(crate) views: Mutex<Vec<Weak<view::Inner>>>,
    pub(crate) counters: BackgroundCounters,
    /// Written by the owner alone.
    pub(crate) owner_counters: OwnerCounters,
    /// Counters of the handles of a [`SharedStore`](crate::SharedStore).
    pub(crate) handles: Handles,
    pub(crate) timings: Timings,
    /// Bytes of the memtable being flushed that its table holds already. Relaxed: it is an estimate for the writer.
    pub(crate) flush_progress: AtomicU64,
    /// Guards the source of table ids alone.
    ids: Mutex<Ids>,
    /// Kept by pinned files, too: nobody may open the directory and tidy up while files of it are pinned.
    lock: Mutex<Option<Arc<dyn FileLock>>>,
}

/// An error for a job that panicked.
pub(crate) fn panicked(what: &str) -> Error {
    Error::new(Code::BackendReadOnly, format!("{what} panicked"))
}

impl Shared {
    /// Puts the parts together; `state` holds the families already.
    pub(crate) fn new(
        dir: &Path,
        options: StoreOptions,
        lock: Arc<dyn FileLock>,
        catalogue: Catalogue,
        graveyard: Arc<Graveyard>,
        (opener, write_memory, wall): (Arc<Opener>, WriteMemory, Arc<WallTime>),
        state: State,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            fs: options.fs.clone(),
            scheduler: options.scheduler.clone(),
            flush_progress: AtomicU64::new(0),
            dir: dir.to_path_buf(),
            ids: Mutex::new(options.ids.clone()),
            options,
            wall,
            budget: opener.cache.budget().clone(),
            opener,
            write_memory,
            tenancy: Tenancy::default(),
            generation: AtomicU64::new(1),
            state: Mutex::new(state),
            changed: Condvar::new(),
            catalogue: Mutex::new(catalogue),
            log: LogSync::default(),
            log_waker: Mutex::new(None),
            graveyard,
            lingering: Mutex::default(),
            views: Mutex::default(),
            counters: BackgroundCounters::default(),
            owner_counters: OwnerCounters::default(),
            handles: Handles::default(),
            timings: Timings::default(),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// A fresh table id.
    pub(crate) fn fresh_id(&self) -> Result<u128> {
        self.ids.lock().fresh()
    }

    /// The file of a table.
    pub(crate) fn table_path(&self, id: TableId) -> PathBuf {
        table_path(&self.dir, id)
    }

    /// The cache of blocks of tables that are not mapped.
    pub(crate) fn cache(&self) -> &BlockCache {
        &self.opener.cache
    }

    /// Does `work`, which waits, and notes for how long and why.
    pub(crate) fn waiting<R>(&self, reason: WaitReason, work: impl FnOnce() -> R) -> R {
        let started = self.options.clock.monotonic();
        let result = work();
        let took = self.options.clock.monotonic().saturating_sub(started);
        self.timings.waited(reason, took);
        result
    }

    /// Does `work`, and notes in `durations` how long it took if it succeeds.
    pub(crate) fn timed<R>(
        &self,
        durations: &AtomicHistogram,
        work: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let started = self.options.clock.monotonic();
        let result = work()?;
        durations.record(nanos(self.options.clock.monotonic().saturating_sub(started)));
        Ok(result)
    }

    /// Removes a file that nobody refers to; if that fails the next open does it.
    pub(crate) fn remove_quietly(&self, path: &Path) {
        if self.fs.remove_file(path).is_ok() {
            self.counters.files_removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the files of tables that nobody holds any more.
    pub(crate) fn bury_the_dead(&self) {
        for path in self.graveyard.take() {
            self.remove_quietly(&path);
        }
    }

    /// The lock of the directory, to keep it held; `None` once the store is closed.
    pub(crate) fn hold(&self) -> Option<Arc<dyn FileLock>> {
        self.lock.lock().clone()
    }

    /// Lets go of everything that keeps files open or the directory locked. Jobs have ended; a closure that a
    /// scheduler has not freed yet may keep the empty shell alive.
    pub(crate) fn release(&self) {
        let (families, queue) = {
            let mut state = self.state.lock();
            (
                std::mem::take(&mut state.families),
                std::mem::take(&mut state.queue),
            )
        };
        drop((families, queue));
        self.catalogue.lock().tables.clear();
        self.tenancy.leave();
        self.write_memory.give_back_reserve();
        self.budget.tidy_up();
        self.bury_the_dead();
        *self.lock.lock() = None;
    }

    /// Tells the owner and all waiters that something changed.
    pub(crate) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.announce_quietly();
    }

    /// Tells all waiters to look again.
    pub(crate) fn announce_quietly(&self) {
        // A waiter checks its condition under the lock; passing through it makes sure that none misses the call.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits until `done` says so: helps the scheduler with jobs up to the priority `last`, which must include those
    /// that are waited for, else sleeps until something changes.
    ///
    /// Returns false if `at_most` passed without.
    pub(crate) fn wait(
        &self,
        last: Priority,
        at_most: Duration,
        mut done: impl FnMut(&mut State) -> bool,
    ) -> bool {
        // Counted in steps, so that no clock is needed here.
        let mut waited = Duration::ZERO;
        loop {
            if done(&mut self.state.lock()) {
                return true;
            }
            if self.scheduler.help_up_to(last) {
                continue;
            }
            if waited >= at_most {
                return done(&mut self.state.lock());
            }
            if let Some(passed) = self.scheduler.pass_time(WAIT_STEP) {
                waited += passed;
                continue;
            }
            let mut state = self.state.lock();
            if done(&mut state) {
                return true;
            }
            if self.changed.wait_for(&mut state, WAIT_STEP).timed_out() {
                waited += WAIT_STEP;
            }
        }
    }

    /// Rests for at most this time, less if something changes; lets a scheduler without threads work meanwhile.
    /// Returns how long it took.
    pub(crate) fn rest(&self, at_most: Duration) -> Duration {
        if let Some(passed) = self.scheduler.pass_time(at_most) {
            return passed;
        }
        let started = self.options.clock.monotonic();
        self.changed.wait_for(&mut self.state.lock(), at_most);
        self.options.clock.monotonic().saturating_sub(started)
    }
}

/// The file of a table in `dir`.
pub(crate) fn table_path(dir: &Path, id: TableId) -> PathBuf {
    dir.join(format!("{}.sst", hex::encode(id.0)))
}

/// The table a file name stands for.
pub(crate) fn table_id(name: &str) -> Option<TableId> {
    name.strip_suffix(".sst")?.parse().ok()
}

/// How blocks of a table are read: mapped only if this store wrote it.
pub(crate) fn block_access(access: Access, origin: Origin, cache: &Arc<BlockCache>) -> BlockAccess {
    match (access, origin) {
        (Access::Map, Origin::Own) => BlockAccess::Map(cache.clone()),
        _ => BlockAccess::Cache(cache.clone()),
    }
}
