//! One bound on the memory of many stores.
//!
//! ```text
//!                     lendable                                    reserve
//! ├────────────────────────────────────────────────────────────┼───────────┤ total
//!   write │ meta │ compaction │ iterator │ block (cache last)    overdrafts
//! ```
//! Whoever takes much memory holds a [`Lease`] for it. A lease that *may* be refused ([`MemoryBudget::try_lease`])
//! stops at the lendable part; before it is refused the block cache gives way. A read and the work that frees memory
//! (flushes, merges) are never refused: they *overdraw* ([`MemoryBudget::overdraw`]), which the reserve is for, and
//! the cache gives back what they took. Nothing here waits: a writer that is refused asks a store to flush and waits
//! in `write_memory`.
//!
//! | file | idea |
//! |---|---|
//! | `allotment` | what a memtable takes, paid for before each write; the reserve of each store |
//! | `tenants` | the stores of a budget, and which of them shall flush |

mod allotment;
mod tenants;

pub use allotment::STORE_BYTES_MIN;
pub(crate) use allotment::{Allotment, WriteMemory};
pub(crate) use tenants::{Tenant, TenantFacts};

use crate::{cache::BlockCache, sync::Mutex};
use keybed_format::{Error, Result};
use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tenants::Tenants;

/// Least size of a budget in bytes.
pub const BUDGET_BYTES_MIN: usize = 1 << 20;
/// The reserve is this part of the budget …
const RESERVE_PART: usize = 8;
/// … and no more than this.
const RESERVE_BYTES_MAX: usize = 32 << 20;

/// Blocks that values keep take this part of the budget …
const PIN_PART: usize = 8;
/// … and no more than this.
const PIN_BYTES_MAX: usize = 64 << 20;

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Memtables: records and indexes, active and sealed.
    Write,
    /// Decoded blocks: cached, or pinned by a value that was read.
    Block,
    /// Indexes and filters of open tables.
    Meta,
    /// Blocks of scans that pass by the cache, and the order of a memtable that is scanned.
    Iterator,
    /// Tables under construction.
    Compaction,
}

/// All pools, in the order of [`BudgetStats::pools`].
pub const POOLS: [Pool; 5] = [
    Pool::Write,
    Pool::Block,
    Pool::Meta,
    Pool::Iterator,
    Pool::Compaction,
];

/// Bytes of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Leased now.
    pub bytes: usize,
    /// The most that was leased at a time.
    pub peak: usize,
}

/// What a budget lends, and how it went so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// The bound.
    pub total: usize,
    /// Leased now, over all pools.
    pub bytes: usize,
    /// The most that was leased at a time.
    pub peak: usize,
    /// In the order of [`POOLS`].
    pub pools: [PoolStats; 5],
    /// Leases that were refused.
    pub refused: u64,
    /// Leases that went beyond the lendable part.
    pub overdrafts: u64,
    /// Bytes of cached blocks that gave way.
    pub reclaimed: u64,
    /// Stores that were asked to flush.
    pub asked: u64,
    /// Stores that are open.
    pub stores: usize,
    /// Bytes of blocks that values keep which outlive writes.
    pub pinned: usize,
    /// Values that were copied because such blocks had reached their quota.
    pub pin_copies: u64,
}

impl BudgetStats {
    /// One pool.
    pub fn pool(&self, pool: Pool) -> PoolStats {
        self.pools[pool as usize]
    }
}

/// A bound on bytes that stores of one process share: give clones of it to their
/// [`StoreOptions`](crate::StoreOptions). Cheap to clone.
///
/// ```
/// use keybed_lsm::{MemoryBudget, Pool};
///
/// let budget = MemoryBudget::new(64 << 20);
/// let lease = budget.try_lease(Pool::Iterator, 1 << 20).expect("nothing is used yet");
/// assert_eq!(budget.stats().bytes, 1 << 20);
/// drop(lease);
/// assert_eq!(budget.stats().bytes, 0);
/// assert!(budget.try_lease(Pool::Iterator, 65 << 20).is_none());
/// ```
#[derive(Clone)]
pub struct MemoryBudget(Arc<Inner>);

/// All counters are relaxed: they bound sums and order no other memory.
struct Inner {
    total: usize,
    lendable: usize,
    bytes: AtomicUsize,
    peak: AtomicUsize,
    pools: [PoolCounter; 5],
    refused: AtomicU64,
    overdrafts: AtomicU64,
    reclaimed: AtomicU64,
    /// The cache that all stores of the budget share; guards the pointer alone.
    cache: Mutex<Weak<BlockCache>>,
    /// Bytes of sealed memtables, which their flush will free.
    sealed: AtomicUsize,
    tenants: Tenants,
    asked: AtomicU64,
    pinned: AtomicUsize,
    pin_copies: AtomicU64,
}

#[derive(Default)]
struct PoolCounter {
    bytes: AtomicUsize,
    peak: AtomicUsize,
}

impl MemoryBudget {
    /// A bound of `bytes`, at least [`BUDGET_BYTES_MIN`] (smaller is taken as that). One eighth, 32 MiB at most, is
    /// the reserve of reads and of work that frees memory.
    pub fn new(bytes: usize) -> Self {
        let total = bytes.max(BUDGET_BYTES_MIN);
        Self::with(total, total - (total / RESERVE_PART).min(RESERVE_BYTES_MAX))
    }

    /// Counts, and refuses nothing: stores are bounded by their own options alone.
    pub fn unlimited() -> Self {
        Self::with(usize::MAX, usize::MAX)
    }

    fn with(total: usize, lendable: usize) -> Self {
        MemoryBudget(Arc::new(Inner {
            total,
            lendable,
            bytes: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            pools: Default::default(),
            refused: AtomicU64::new(0),
            overdrafts: AtomicU64::new(0),
            reclaimed: AtomicU64::new(0),
            cache: Mutex::new(Weak::new()),
            sealed: AtomicUsize::new(0),
            tenants: Tenants::default(),
            asked: AtomicU64::new(0),
            pinned: AtomicUsize::new(0),
            pin_copies: AtomicU64::new(0),
        }))
    }

    /// The bound in bytes; `usize::MAX` if there is none.
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// A lease of `bytes`, or none if they are not there even after the block cache gave way.
    pub fn try_lease(&self, pool: Pool, bytes: usize) -> Option<Lease> {
        let mut lease = self.lease(pool);
        lease.try_grow(bytes).then_some(lease)
    }

    /// A lease of `bytes` for something that must not fail. The cache gives back as much as it can of what goes
    /// beyond the lendable part.
    pub fn overdraw(&self, pool: Pool, bytes: usize) -> Lease {
        let mut lease = self.lease(pool);
        lease.overdraw(bytes);
        lease
    }

    /// A lease of nothing, to grow.
    pub fn lease(&self, pool: Pool) -> Lease {
        Lease {
            budget: self.clone(),
            pool,
            bytes: 0,
        }
    }

    /// The numbers of the moment.
    pub fn stats(&self) -> BudgetStats {
        let inner = &*self.0;
        BudgetStats {
            total: inner.total,
            bytes: inner.bytes.load(Relaxed),
            peak: inner.peak.load(Relaxed),
            pools: inner.pools.each_ref().map(|pool| PoolStats {
                bytes: pool.bytes.load(Relaxed),
                peak: pool.peak.load(Relaxed),
            }),
            refused: inner.refused.load(Relaxed),
            overdrafts: inner.overdrafts.load(Relaxed),
            reclaimed: inner.reclaimed.load(Relaxed),
            asked: inner.asked.load(Relaxed),
            stores: inner.tenants.count(),
            pinned: inner.pinned.load(Relaxed),
            pin_copies: inner.pin_copies.load(Relaxed),
        }
    }

    /// The block cache of all stores of this budget: that of the first store still open, grown to `capacity_bytes`
    /// if it is smaller.
    pub(crate) fn shared_cache(&self, capacity_bytes: usize) -> Arc<BlockCache> {
        let mut slot = self.0.cache.lock();
        if let Some(cache) = slot.upgrade() {
            cache.raise_capacity(capacity_bytes);
            return cache;
        }
        let cache = Arc::new(BlockCache::within(self, capacity_bytes));
        *slot = Arc::downgrade(&cache);
        cache
    }

    /// Takes in a store: with a reserve of its own if the budget is bounded.
    ///
    /// # Errors
    /// `InvalidArgument` if the reserves of all stores would take more than half of the budget.
    pub(crate) fn admit(&self) -> Result<WriteMemory> {
        if self.0.total == usize::MAX {
            return Ok(WriteMemory::new(self, 0));
        }
        let stores = self.0.tenants.count() + 1;
        let needed = stores * STORE_BYTES_MIN;
        if needed > self.0.lendable / 2 {
            return Err(
                Error::invalid("the memory budget is too small for one more store: enlarge it")
                    .with("stores", stores)
                    .expected_found(format_args!("at least {} bytes", 2 * needed), self.0.lendable),
            );
        }
        Ok(WriteMemory::new(self, STORE_BYTES_MIN))
    }

    /// Remembers a store, to ask it for memory.
    pub(crate) fn register(&self, tenant: Weak<dyn Tenant>) {
        self.0.tenants.add(tenant);
    }

    /// A store was closed: nobody keeps blocks for stores that are gone.
    pub(crate) fn tidy_up(&self) {
        if self.0.tenants.count() == 0 {
            self.reclaim(usize::MAX);
        }
    }

    /// Asks the store whose flush brings most; false if all were asked or have nothing.
    pub(crate) fn press(&self) -> bool {
        let pressed = self.0.tenants.press();
        self.0.asked.fetch_add(u64::from(pressed), Relaxed);
        pressed
    }

    /// Whether so little is left that a flush should begin, those that are under way considered.
    pub(crate) fn is_tight(&self) -> bool {
        let inner = &*self.0;
        let bytes = inner
            .bytes
            .load(Relaxed)
            .saturating_sub(inner.sealed.load(Relaxed));
        bytes > inner.lendable - inner.lendable / 8
    }

    /// Bytes that are free, or will be: the block cache gives way, and sealed memtables are being flushed.
    pub(crate) fn left_to_others(&self) -> usize {
        let inner = &*self.0;
        let coming = inner.pools[Pool::Block as usize].bytes.load(Relaxed) + inner.sealed.load(Relaxed);
        inner
            .lendable
            .saturating_sub(inner.bytes.load(Relaxed).saturating_sub(coming))
    }

    /// Bytes leased now.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// A part of the quota of blocks that values keep; none if it is used up.
    pub(crate) fn pin(&self, bytes: usize) -> Option<PinnedBytes> {
        let quota = (self.0.lendable / PIN_PART).min(PIN_BYTES_MAX);
        let within = |pinned: usize| pinned.checked_add(bytes).filter(|after| *after <= quota);
        if self.0.pinned.fetch_update(Relaxed, Relaxed, within).is_err() {
            self.0.pin_copies.fetch_add(1, Relaxed);
            return None;
        }
        Some(PinnedBytes {
            budget: self.clone(),
            bytes,
        })
    }

    /// Notes that a flush will free `bytes`; they are freed when the note goes.
    pub(crate) fn sealed(&self, bytes: usize) -> SealedBytes {
        self.0.sealed.fetch_add(bytes, Relaxed);
        SealedBytes {
            budget: self.clone(),
            bytes,
        }
    }

    /// Lets the cache give back `bytes`, as far as it has them.
    fn reclaim(&self, bytes: usize) {
        let cache = self.0.cache.lock().upgrade();
        if let Some(cache) = cache {
            let freed = cache.shrink(bytes);
            self.0.reclaimed.fetch_add(freed as u64, Relaxed);
        }
    }

    /// Adds `bytes` if they are there.
    fn take(&self, pool: Pool, bytes: usize) -> Result<(), usize> {
        let inner = &*self.0;
        let mut missing = 0;
        let taken = inner.bytes.fetch_update(Relaxed, Relaxed, |used| {
            let after = used.saturating_add(bytes);
            missing = after.saturating_sub(inner.lendable);
            (missing == 0).then_some(after)
        });
        match taken {
            Ok(before) => {
                self.note(pool, before + bytes, bytes);
                Ok(())
            }
            Err(_) => Err(missing),
        }
    }

    fn note(&self, pool: Pool, total: usize, bytes: usize) {
        self.0.peak.fetch_max(total, Relaxed);
        let pool = &self.0.pools[pool as usize];
        let after = pool.bytes.fetch_add(bytes, Relaxed) + bytes;
        pool.peak.fetch_max(after, Relaxed);
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// Bytes of a budget in use; dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    budget: MemoryBudget,
    pool: Pool,
    bytes: usize,
}

impl Lease {
    /// Bytes it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more, unless they are not there even after the block cache gave way.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(self.pool, bytes).or_else(|missing| {
            self.budget.reclaim(missing);
            self.budget.take(self.pool, bytes)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        } else {
            self.budget.0.refused.fetch_add(1, Relaxed);
        }
        taken.is_ok()
    }

    /// Takes `bytes` more for something that must not fail.
    pub fn overdraw(&mut self, bytes: usize) {
        let inner = &*self.budget.0;
        let after = inner.bytes.fetch_add(bytes, Relaxed) + bytes;
        self.budget.note(self.pool, after, bytes);
        self.bytes += bytes;
        if after > inner.lendable {
            inner.overdrafts.fetch_add(1, Relaxed);
            self.budget.reclaim(after - inner.lendable);
        }
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// If it stands for less.
    pub fn shrink(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "a lease gives back more than it has");
        self.bytes -= bytes;
        self.budget.0.pools[self.pool as usize]
            .bytes
            .fetch_sub(bytes, Relaxed);
        self.budget.0.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Stands for `bytes` from now on; what is more is overdrawn.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.overdraw(more),
            None => self.shrink(self.bytes - bytes),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// Part of the quota of blocks that values keep. The blocks themselves count as all blocks do.
pub(crate) struct PinnedBytes {
    budget: MemoryBudget,
    bytes: usize,
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        self.budget.0.pinned.fetch_sub(self.bytes, Relaxed);
    }
}

/// Bytes of a sealed memtable.
#[derive(Debug)]
pub(crate) struct SealedBytes {
    budget: MemoryBudget,
    bytes: usize,
}

impl Drop for SealedBytes {
    fn drop(&mut self) {
        self.budget.0.sealed.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_is_counted_by_pool_and_given_back() {
        let budget = MemoryBudget::new(16 << 20);
        let mut write = budget.try_lease(Pool::Write, 3 << 20).unwrap();
        let meta = budget.overdraw(Pool::Meta, 1 << 20);
        assert!(write.try_grow(1 << 20));
        write.shrink(2 << 20);
        write.set(5 << 20);
        let stats = budget.stats();
        assert_eq!(stats.bytes, 6 << 20);
        assert_eq!(
            (stats.pool(Pool::Write).bytes, stats.pool(Pool::Meta).bytes),
            (5 << 20, 1 << 20)
        );
        drop((write, meta));
        let stats = budget.stats();
        assert_eq!((stats.bytes, stats.peak), (0, 6 << 20));
        assert_eq!(
            stats.pool(Pool::Write),
            PoolStats {
                bytes: 0,
                peak: 5 << 20
            }
        );
        assert_eq!((stats.refused, stats.overdrafts), (0, 0));
    }

    #[test]
    fn the_lendable_part_is_never_exceeded_by_what_may_be_refused() {
        let budget = MemoryBudget::new(16 << 20);
        let lendable = 14 << 20;
        let mut lease = budget.try_lease(Pool::Write, lendable).unwrap();
        assert!(!lease.try_grow(1));
        assert!(budget.try_lease(Pool::Block, 1).is_none());
        let over = budget.overdraw(Pool::Block, 2 << 20);
        assert_eq!(budget.stats().bytes, 16 << 20);
        assert_eq!((budget.stats().refused, budget.stats().overdrafts), (2, 1));
        drop(over);
        lease.shrink(10);
        assert!(lease.try_grow(10));
    }

    #[test]
    fn leases_of_many_threads_add_up() {
        let budget = MemoryBudget::new(8 << 20);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let budget = &budget;
                scope.spawn(move || {
                    let mut leases = Vec::new();
                    for i in 0..2_000_usize {
                        leases.extend(budget.try_lease(POOLS[(i + thread) % 5], 1 + i * 37 % 18_000));
                        if i % 3 == 0 {
                            leases.pop();
                        }
                        assert!(budget.stats().bytes <= 8 << 20);
                    }
                });
            }
        });
        let stats = budget.stats();
        assert_eq!(stats.bytes, 0);
        assert!(stats.pools.iter().all(|pool| pool.bytes == 0));
        assert!(stats.peak <= (8 << 20) - (8 << 20) / RESERVE_PART);
        assert!(stats.refused > 0);
    }

    #[test]
    fn the_cache_gives_way_to_whatever_asks() {
        let budget = MemoryBudget::new(8 << 20);
        let cache = budget.shared_cache(6 << 20);
        assert!(Arc::ptr_eq(&cache, &budget.shared_cache(1 << 20)));
        let reader = cache.reader();
        for i in 0..600 {
            let block = crate::table::Block::of_bytes(16 << 10).charge(&budget, Pool::Block);
            cache.insert(reader, i, &Arc::new(block));
        }
        let cached = cache.stats().bytes;
        assert!(cached > 5 << 20, "{cached}");
        let write = budget
            .try_lease(Pool::Write, 6 << 20)
            .expect("the cache gives way");
        assert!(cache.stats().bytes <= 2 << 20);
        let stats = budget.stats();
        assert!(stats.bytes <= 8 << 20 && stats.reclaimed > 0, "{stats:?}");
        drop((write, cache));
        assert_eq!(budget.stats().bytes, 0);
    }
}
