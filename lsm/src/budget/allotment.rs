//! What one part of a memtable (arena, index, tree) takes of the budget.
//!
//! ```text
//! before a write:  prepay(growth) ─► budget ─► else the store's own reserve ─► else refused: the writer waits
//! at the growth:   charge(growth)    from what was prepaid; what was not is overdrawn
//! ```
//! Memory is paid for before a write begins, because a write that has begun cannot stop half-way. A store's reserve
//! is never lent to others, so that every store gets on, however little: by small memtables, flushed one by one.

use super::{Lease, MemoryBudget, Pool, SealedBytes};
use crate::sync::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Write memory that every store of a bounded budget keeps for itself, in bytes.
pub const STORE_BYTES_MIN: usize = 64 << 10;

/// Write memory of one store: its part of the budget.
#[derive(Clone, Debug)]
pub(crate) struct WriteMemory {
    budget: MemoryBudget,
    reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct Reserve {
    /// Bytes of the reserve that are free. Relaxed: it bounds, and orders nothing.
    free: AtomicUsize,
    /// Guards the lease alone.
    lease: Mutex<Lease>,
}

impl Reserve {
    fn take(&self, bytes: usize) -> bool {
        self.free
            .fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes))
            .is_ok()
    }
}

impl WriteMemory {
    /// With a reserve of `reserve_bytes`.
    pub(crate) fn new(budget: &MemoryBudget, reserve_bytes: usize) -> Self {
        WriteMemory {
            budget: budget.clone(),
            reserve: Arc::new(Reserve {
                free: AtomicUsize::new(reserve_bytes),
                lease: Mutex::new(budget.overdraw(Pool::Write, reserve_bytes)),
            }),
        }
    }

    /// Nothing yet.
    pub(crate) fn allotment(&self) -> Allotment {
        Allotment(Some(Paid {
            lease: self.budget.lease(Pool::Write),
            reserve: self.reserve.clone(),
            from_reserve: 0,
            prepaid: 0,
        }))
    }

    /// Memory beside the memtables that their users cannot do without.
    pub(crate) fn overdraw(&self, pool: Pool, bytes: usize) -> Lease {
        self.budget.overdraw(pool, bytes)
    }

    /// Notes that a flush will free `bytes`.
    pub(crate) fn promise(&self, bytes: usize) -> SealedBytes {
        self.budget.sealed(bytes)
    }

    /// The store is closed and writes no more.
    pub(crate) fn give_back_reserve(&self) {
        self.reserve.lease.lock().set(0);
    }

    /// Bytes of the reserve that are free.
    #[cfg(test)]
    fn reserve_free(&self) -> usize {
        self.reserve.free.load(Relaxed)
    }
}

/// Bytes paid for by one user of write memory; given back when it goes. The default counts nothing.
#[derive(Debug, Default)]
pub(crate) struct Allotment(Option<Paid>);

#[derive(Debug)]
struct Paid {
    lease: Lease,
    reserve: Arc<Reserve>,
    /// Bytes that came from the reserve, where they return to.
    from_reserve: usize,
    /// Bytes paid for and not in use yet.
    prepaid: usize,
}

impl Allotment {
    /// Pays for a growth to come; false if the memory is not there.
    #[must_use]
    pub(crate) fn prepay(&mut self, bytes: usize) -> bool {
        let Some(paid) = &mut self.0 else { return true };
        let missing = bytes.saturating_sub(paid.prepaid);
        if missing == 0 || paid.lease.try_grow(missing) {
            paid.prepaid += missing;
            true
        } else if paid.reserve.take(missing) {
            paid.from_reserve += missing;
            paid.prepaid += missing;
            true
        } else {
            false
        }
    }

    /// Memory was taken.
    pub(crate) fn charge(&mut self, bytes: usize) {
        if let Some(paid) = &mut self.0 {
            let missing = bytes.saturating_sub(paid.prepaid);
            paid.prepaid -= bytes - missing;
            if missing > 0 {
                paid.lease.overdraw(missing);
            }
        }
    }

    /// Memory was given back.
    pub(crate) fn refund(&mut self, bytes: usize) {
        if let Some(paid) = &mut self.0 {
            let leased = bytes.min(paid.lease.bytes());
            paid.lease.shrink(leased);
            paid.give_back(bytes - leased);
        }
    }

    /// Bytes paid for.
    pub(crate) fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |paid| paid.lease.bytes() + paid.from_reserve)
    }
}

impl Paid {
    fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.from_reserve);
        self.from_reserve -= bytes;
        self.reserve.free.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.give_back(self.from_reserve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_paid_before_and_given_back_after() {
        let budget = MemoryBudget::new(1 << 20);
        let memory = WriteMemory::new(&budget, STORE_BYTES_MIN);
        let mut allotment = memory.allotment();
        assert!(allotment.prepay(4096));
        assert!(allotment.prepay(4000), "paid already");
        assert_eq!(allotment.bytes(), 4096);
        allotment.charge(4096);
        allotment.charge(100);
        assert_eq!(allotment.bytes(), 4196);
        allotment.refund(4096);
        assert_eq!(budget.stats().bytes, 100 + STORE_BYTES_MIN);
        drop((allotment, memory));
        assert_eq!(budget.stats().bytes, 0);
    }

    #[test]
    fn a_store_gets_on_with_its_reserve_when_others_took_everything() {
        let budget = MemoryBudget::new(1 << 20);
        let memory = WriteMemory::new(&budget, STORE_BYTES_MIN);
        let others = budget
            .try_lease(Pool::Write, (1 << 20) / 8 * 7 - STORE_BYTES_MIN)
            .unwrap();
        let (mut one, mut two) = (memory.allotment(), memory.allotment());
        assert!(one.prepay(STORE_BYTES_MIN / 2) && two.prepay(STORE_BYTES_MIN / 2));
        assert!(!one.prepay(STORE_BYTES_MIN));
        one.charge(STORE_BYTES_MIN / 2);
        one.refund(STORE_BYTES_MIN / 4);
        assert!(two.prepay(STORE_BYTES_MIN / 4 * 3));
        drop(one);
        assert_eq!(memory.reserve_free(), STORE_BYTES_MIN / 4);
        drop(two);
        assert_eq!(memory.reserve_free(), STORE_BYTES_MIN);
        drop(others);
        assert_eq!(budget.stats().bytes, STORE_BYTES_MIN);
    }
}
