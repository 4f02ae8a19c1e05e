//! A store for many threads: one writer at a time, readers beside each other.
//!
//! ```text
//! SharedStore (one per thread, cloned) ──► Lock<Store> ──► Store ──► Shared ◄── background
//!      │ counters of the handle              │ read: get, range, …
//!      └─ no thread writes another's         └ write: put, …; waits happen outside of the lock
//! ```
//! | file | idea |
//! |---|---|
//! | `lock` | which lock it is |
//! | `read` | get, multi_get, range |
//! | `range` | ranges and cursors of one moment |
//! | `write` | put, merge, update, … |
//! | `transaction` | commits |
//!
//! Page: docs/decisions/shared-store-lock.md.

mod lock;
mod range;
mod read;
mod transaction;
mod write;

pub use range::{SharedCursor, SharedRange};
pub use transaction::{SharedTransaction, TRANSACT_ATTEMPTS_MAX};

use crate::{
    family::Family,
    key::KeyRange,
    options::{Durability, FamilyOptions, StoreOptions},
    pin::Pinning,
    room::Waited,
    shared::Shared,
    stats::{HandleCounters, StatsReader, StoreCounts, StoreStats, WaitReason},
    store::Store,
    view::View,
};
use keybed_format::{Code, Error, Result};
use lock::{Lock, WriteGuard};
use std::{fmt, ops::RangeBounds, path::Path, sync::Arc};

/// A store that any number of threads read and write: cheap to clone, `Send` and `Sync`.
///
/// Every operation takes effect at one moment between its call and its return, for all threads alike. Reads run
/// beside each other; a write excludes them for the time it changes the memtable, not while it waits for a flush, a
/// merge or the disk. A closure that is given to [`SharedStore::get_with`] or [`SharedStore::update`] runs under the
/// lock: it must be short, and must not use the store.
///
/// Clone a handle for each thread: a handle counts its own reads, and threads that share one disturb each other.
/// Threads that need no sharing are better served by one [`Store`] each.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{SharedStore, StoreOptions};
///
/// let store = SharedStore::open(dir.path().join("orders"), StoreOptions::default())?;
/// let orders = store.family("orders")?;
/// std::thread::scope(|scope| {
///     for thread in 0..4_u8 {
///         let store = store.clone();
///         scope.spawn(move || store.put(orders, &[b'o', thread], b"42"));
///     }
/// });
/// assert_eq!(store.range(orders, ..)?.count(), 4);
/// store.close()
/// # }
/// ```
pub struct SharedStore {
    inner: Arc<Inner>,
    /// Reads through this handle.
    counters: Arc<HandleCounters>,
}

struct Inner {
    store: Lock<Store>,
    shared: Arc<Shared>,
}

impl Clone for SharedStore {
    fn clone(&self) -> Self {
        SharedStore {
            inner: self.inner.clone(),
            counters: self.inner.shared.handles.join(),
        }
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.inner.shared.handles.leave(&self.counters);
    }
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore")
            .field("dir", &self.inner.shared.dir)
            .finish_non_exhaustive()
    }
}

impl From<Store> for SharedStore {
    fn from(store: Store) -> Self {
        let shared = store.shared.clone();
        SharedStore {
            counters: shared.handles.join(),
            inner: Arc::new(Inner {
                store: Lock::new(store),
                shared,
            }),
        }
    }
}

fn closed() -> Error {
    Error::new(Code::Closed, "the store is closed")
}

impl SharedStore {
    /// Opens the store in `dir`, or creates it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(dir: impl AsRef<Path>, options: StoreOptions) -> Result<SharedStore> {
        Store::open(dir, options).map(SharedStore::from)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.shared.dir
    }

    /// Does `work` as the only thread that uses the store; for everything that has no verb of its own here. All
    /// other threads wait meanwhile, also if `work` waits.
    ///
    /// # Errors
    /// `Closed`; those of `work`.
    pub fn exclusive<R>(&self, work: impl FnOnce(&mut Store) -> Result<R>) -> Result<R> {
        let store = self.alone();
        store.check_open()?;
        self.finish(store, work)
    }

    /// Does `work`, and lets go of the lock. Threads that write durably share a sync, for which they wait outside of it.
    #[inline]
    fn finish<R>(
        &self,
        mut store: WriteGuard<'_, Store>,
        work: impl FnOnce(&mut Store) -> Result<R>,
    ) -> Result<R> {
        if store.shared.options.durability != Durability::Sync {
            return work(&mut store);
        }
        let before = store.sync_ticket();
        store.defer_sync(true);
        let result = work(&mut store);
        store.defer_sync(false);
        let after = store.sync_ticket();
        drop(store);
        if after > before {
            self.inner.shared.sync_log(after)?;
        }
        result
    }

    /// As [`Store::sync`]; other threads write on meanwhile, and those that wait for a sync share it.
    ///
    /// # Errors
    /// As there.
    pub fn sync(&self) -> Result {
        let ticket = self.exclusive(Store::ticket_to_sync)?;
        self.inner.shared.sync_log(ticket)
    }

    #[inline]
    fn alone(&self) -> WriteGuard<'_, Store> {
        match self.inner.store.try_write() {
            Some(store) => store,
            None => self.alone_at_last(),
        }
    }

    #[cold]
    fn alone_at_last(&self) -> WriteGuard<'_, Store> {
        self.inner
            .shared
            .waiting(WaitReason::Lock, || self.inner.store.write())
    }

    /// Does `work`, a write, as the only thread that uses the store. What the write has to wait for before, it waits
    /// for without the lock.
    #[inline]
    fn write_alone<R>(&self, work: impl FnOnce(&mut Store) -> Result<R>) -> Result<R> {
        let mut store = self.alone();
        if store.is_attention_due() {
            drop(store);
            store = self.alone_with_room()?;
        }
        self.finish(store, work)
    }

    #[cold]
    #[inline(never)]
    fn alone_with_room(&self) -> Result<WriteGuard<'_, Store>> {
        let mut waited = Waited::default();
        loop {
            let mut store = self.alone();
            let Some(pause) = store.attend_step(&mut waited)? else {
                return Ok(store);
            };
            drop(store);
            self.inner.shared.pause(pause, &mut waited);
        }
    }

    /// Does `work` beside other readers.
    #[inline]
    fn beside<R>(&self, work: impl FnOnce(&Store) -> Result<R>) -> Result<R> {
        let store = self.inner.store.read();
        if store.closed {
            return Err(closed());
        }
        work(&store)
    }

    /// As [`Store::family`].
    ///
    /// # Errors
    /// As there.
    pub fn family(&self, name: &str) -> Result<Family> {
        self.exclusive(|store| store.family(name))
    }

    /// As [`Store::family_with`].
    ///
    /// # Errors
    /// As there.
    pub fn family_with(&self, name: &str, options: FamilyOptions) -> Result<Family> {
        self.exclusive(|store| store.family_with(name, options))
    }

    /// Names of the families, in the order of their creation; none of a closed store.
    pub fn family_names(&self) -> Vec<String> {
        let store = self.inner.store.read();
        store.family_names().map(str::to_owned).collect()
    }

    /// As [`Store::drop_family`].
    ///
    /// # Errors
    /// As there.
    pub fn drop_family(&self, family: Family) -> Result {
        self.exclusive(|store| store.drop_family(family))
    }

    /// As [`Store::view`].
    ///
    /// # Errors
    /// As there.
    pub fn view(&self) -> Result<View> {
        self.exclusive(Store::view)
    }

    /// As [`Store::pin`].
    ///
    /// # Errors
    /// As there.
    pub fn pin(&self) -> Result<Pinning> {
        self.exclusive(Store::pin)
    }

    /// Writes everything in memory to tables and waits for it; others go on meanwhile, and what they write is not
    /// waited for unless it is flushed before.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn flush(&self) -> Result {
        let pinning = self.pin()?;
        let shared = &self.inner.shared;
        match shared.waiting(WaitReason::Flush, || pinning.finish()) {
            // A family that was dropped meanwhile needs no flush.
            Err(error) if error.code() == Code::Closed && !shared.state.lock().closing => Ok(()),
            result => result.map(drop),
        }
    }

    /// Merges everything of a family into its bottom run and waits for it; others go on meanwhile.
    ///
    /// # Errors
    /// As [`Store::compact`].
    pub fn compact(&self, family: Family) -> Result {
        self.compact_range(family, ..)
    }

    /// As [`Store::compact_range`]; others go on meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn compact_range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result {
        let range = KeyRange::of(&range);
        self.flush()?;
        if range.is_empty() {
            return Ok(());
        }
        self.exclusive(|store| store.request_compaction(family, range))?;
        self.inner.shared.wait_for_compaction(family)
    }

    /// Waits until nothing is left to flush or to merge. All other threads wait meanwhile.
    ///
    /// # Errors
    /// As [`Store::wait_for_background`].
    pub fn wait_for_background(&self) -> Result {
        self.exclusive(Store::wait_for_background)
    }

    /// What the store has done so far, and how it stands.
    pub fn stats(&self) -> StoreStats {
        self.inner.shared.stats()
    }

    /// What the store has done so far, in a few counters that are cheap to read.
    pub fn counts(&self) -> StoreCounts {
        self.inner.shared.counts()
    }

    /// A handle for the statistics alone.
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader::new(self.inner.shared.clone())
    }

    /// Flushes, ends background work and releases the directory, for all handles: what they do afterwards fails with
    /// `Closed`. Dropping the last handle without closing discards what was not flushed, as with [`Store::close`].
    ///
    /// # Errors
    /// As [`Store::close`].
    pub fn close(&self) -> Result {
        self.exclusive(|store| {
            let result = store.flush().and_then(|()| store.end_log());
            store.shut_down();
            result
        })
    }
}
