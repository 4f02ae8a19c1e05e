//! Memory for writes: paid for before a write begins, or waited for.
//!
//! ```text
//! has_room? ─yes─► write
//!     │ no
//! prepare ─► budget (the block cache gives way) ─► reserve of the store ─► write
//!     │ refused
//! ask the store whose flush brings most ─► seal own memtables ─► wait, helping the background ─► Busy
//! ```
//! The owner waits here alone, never under a lock, and never after his write has begun. A sealed memtable waits for
//! nothing: its flush overdraws.

use crate::{
    batch::WriteBatch,
    budget::{Tenant, TenantFacts},
    family::Family,
    flush,
    shared::{Shared, State},
    stats::{WaitReason, count},
    store::Store,
    sync::{AtomicBool, AtomicU64},
    wait::read_only,
};
use keybed_env::Priority;
use keybed_format::{Code, Error, Result};
use std::{sync::atomic::Ordering, time::Duration};

/// Value bytes that an update, whose value is not known yet, is expected to need at most; a larger value is paid for
/// when it is known.
pub(crate) const UPDATE_BYTES: usize = 1 << 10;

/// How long a writer waits for the memory of others before he gives up his own.
const OTHERS_WAIT: Duration = Duration::from_millis(10);
/// How long one wait lasts before he asks the next store.
const ASK_WAIT: Duration = Duration::from_millis(20);

/// What the budget knows about a store.
#[derive(Debug, Default)]
pub(crate) struct Tenancy {
    /// The owner is asked to flush. Release by whoever asks, before the generation rises; the owner's swap is the
    /// partner.
    asked: AtomicBool,
    /// Writes when the present period began. Relaxed: it is for a score.
    writes_before: AtomicU64,
    /// The store is closed, although a job may still hold its shell.
    left: AtomicBool,
}

impl Tenancy {
    /// The store is closed.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }
}

impl Tenant for Shared {
    fn facts(&self) -> TenantFacts {
        let writes = self.owner_counters.writes.get();
        TenantFacts {
            bytes: self.owner_counters.active_bytes.get() as usize,
            writes: writes.saturating_sub(self.tenancy.writes_before.load(Ordering::Relaxed)),
            asked: self.tenancy.asked.load(Ordering::Relaxed),
        }
    }

    fn has_left(&self) -> bool {
        self.tenancy.left.load(Ordering::Acquire)
    }

    fn ask(&self) {
        self.tenancy.asked.store(true, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn begin_period(&self) {
        self.tenancy
            .writes_before
            .store(self.owner_counters.writes.get(), Ordering::Relaxed);
    }
}

/// Room that a record needs at most: a value that outgrew its record gets up to as much again.
#[inline(always)]
fn room_for(key: &[u8], value_bytes: usize) -> usize {
    key.len() + 2 * value_bytes + RECORD_BYTES
}

/// What a record takes besides key and value, at most.
const RECORD_BYTES: usize = 64;

impl Store {
    /// What every write of one key does first.
    #[inline(always)]
    pub(crate) fn before_write_of(&mut self, family: Family, key: &[u8], value_bytes: usize) -> Result {
        self.before_write()?;
        let room = room_for(key, value_bytes);
        match self.families.get(family.0 as usize) {
            Some(owned) if owned.active.memtable.has_room(room) => Ok(()),
            _ => self.find_room(family, room, 1),
        }
    }

    /// What every write of a batch does first.
    pub(crate) fn before_write_batch(&mut self, batch: &WriteBatch) -> Result {
        self.before_write()?;
        // Records take more than operations do; where they all fit there is nothing to count.
        let bound = 2 * batch.bytes() + RECORD_BYTES * batch.len();
        let is_roomy = |store: &Store, family: u32| {
            let owned = store.families.get(family as usize);
            owned.is_some_and(|owned| owned.active.memtable.has_room_for(bound, batch.len()))
        };
        if batch.ops().all(|op| is_roomy(self, op.family())) {
            return Ok(());
        }
        let mut needs: Vec<(u32, usize, usize)> = Vec::new();
        for op in batch.ops() {
            let bytes = 2 * op.bytes() + RECORD_BYTES;
            match needs.iter_mut().find(|need| need.0 == op.family()) {
                Some(need) => (need.1, need.2) = (need.1 + bytes, need.2 + 1),
                None => needs.push((op.family(), bytes, 1)),
            }
        }
        // Finding room for one family may seal the memtable in which another one had it.
        while let Some(&(family, bytes, keys)) = needs.iter().find(|(family, bytes, keys)| {
            let owned = self.families.get_mut(*family as usize);
            !owned.is_some_and(|owned| owned.active.memtable.prepare(*bytes, *keys))
        }) {
            self.find_room(Family(family), bytes, keys)?;
        }
        Ok(())
    }

    /// Pays for `bytes` of records of `keys` keys, waiting if it must. May seal memtables, so places and probes of
    /// before are void.
    #[cold]
    #[inline(never)]
    pub(crate) fn find_room(&mut self, family: Family, bytes: usize, keys: usize) -> Result {
        // An owner who rests cannot be made to flush, so nobody takes more than he leaves to others.
        if self.active_bytes > self.shared.budget.left_to_others() {
            self.seal_heavy();
        }
        if self.owned_mut(family)?.active.memtable.prepare(bytes, keys) {
            if self.shared.budget.is_tight() {
                self.shared.budget.press();
                self.flush_if_asked();
                // Sealed, perhaps: paid for again.
                return match self.owned_mut(family)?.active.memtable.prepare(bytes, keys) {
                    true => Ok(()),
                    false => self.wait_for_room(family, bytes, keys),
                };
            }
            return Ok(());
        }
        count(&self.shared.owner_counters.stalls);
        let started = self.shared.options.clock.monotonic();
        let result = self.wait_for_room(family, bytes, keys);
        let took = self.shared.options.clock.monotonic().saturating_sub(started);
        self.shared.timings.waited(WaitReason::Budget, took);
        result
    }

    fn wait_for_room(&mut self, family: Family, bytes: usize, keys: usize) -> Result {
        let at_most = self.shared.options.write_wait_max;
        let mut waited = Duration::ZERO;
        loop {
            self.shared.budget.press();
            self.flush_if_asked();
            if waited >= OTHERS_WAIT {
                self.seal_heavy();
            }
            if self.owned_mut(family)?.active.memtable.prepare(bytes, keys) {
                return Ok(());
            }
            if waited >= at_most {
                return Err(self.no_memory(bytes));
            }
            let step = if waited < OTHERS_WAIT {
                OTHERS_WAIT
            } else {
                ASK_WAIT
            };
            // A step that ended because something happened is short; it counts, so that there is an end.
            waited += match self.wait_for_release(step)? {
                true => step / 100,
                false => step,
            };
        }
    }

    /// Waits until memory was given back, by this store's flush or by others; false if none was in this time.
    fn wait_for_release(&mut self, step: Duration) -> Result<bool> {
        flush::schedule(&self.shared);
        let budget = self.shared.budget.clone();
        let seen = budget.bytes();
        let mut failed = None;
        let done = |state: &mut State| {
            let error = state.poisoned.as_ref().or(state.flush_error.as_ref());
            failed = error.filter(|_| !state.flushing).map(Error::duplicate);
            failed.is_some() || budget.bytes() < seen
        };
        let in_time = self.shared.wait(Priority::Flush, step, done);
        self.refresh();
        match failed {
            Some(error) => Err(read_only(&error)),
            None => Ok(in_time),
        }
    }

    /// Seals the memtables that hold most, up to half of all bytes, if the budget asks for it.
    pub(crate) fn flush_if_asked(&mut self) {
        if self.shared.tenancy.asked.swap(false, Ordering::Acquire) {
            self.seal_heavy();
        }
    }

    fn seal_heavy(&mut self) {
        let before = self.active_bytes;
        let mut largest: Vec<usize> = (0..self.families.len()).collect();
        largest.sort_by_key(|&at| std::cmp::Reverse(self.families[at].active.memtable.bytes()));
        for number in largest {
            if self.active_bytes <= before / 2 || self.families[number].active.memtable.is_empty() {
                break;
            }
            self.seal(number);
        }
    }

    fn no_memory(&self, bytes: usize) -> Error {
        let stats = self.shared.budget.stats();
        Error::new(
            Code::Busy,
            "the memory budget is used up: enlarge it, or let idle stores of it flush",
        )
        .with("limit", "budget")
        .with("stores", stats.stores)
        .with("used", stats.bytes)
        .with("total", stats.total)
        .with("wanted", bytes)
    }
}
