//! The owner's handle of a store.

use crate::{
    budget::MemoryBudget,
    compaction::work,
    family::{Family, OwnedFamily},
    flush,
    journal::Journal,
    key::Seqno,
    memtable::{Active, Memtable, Sealed},
    pressure::{self, Debt},
    shared::{Shared, State},
    stats::{WaitReason, count},
    version::Version,
    wait::read_only,
};
use keybed_env::{Priority, Random};
use keybed_format::{Code, Error, Result};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Background work may take long; whoever waits for it without a bound of his own looks again after this time.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A family with this many times [`runs_max`](crate::StoreOptions::runs_max) runs makes writes wait for merges: the
/// last resort, when slowing down to a megabyte per second was not enough.
const RUNS_STOP_FACTOR: usize = 8;

/// What one write owes at most, however large it is.
const OWED_MAX: Duration = Duration::from_millis(5);

/// An ordered key/value store in one directory, owned by one thread at a time.
///
/// Writes take `&mut self`, scans borrow `&self`, so the borrow checker keeps scans and in-place updates apart; the
/// owner's path takes no lock and no atomic read-modify-write. While nobody writes, several threads may read through
/// one `&Store`; otherwise they read through a [`View`](crate::View) and copy files through
/// [`PinnedFiles`](crate::PinnedFiles).
///
/// Keys have at most 65,535 bytes and compare as bytes; values have at most 64 MiB.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{Store, StoreOptions};
///
/// let mut store = Store::open(dir.path().join("orders"), StoreOptions::default())?;
/// let orders = store.family("orders")?;
/// store.put(orders, b"o-1", b"42")?;
/// for entry in store.range(orders, &b"o-"[..]..)? {
///     let (key, value) = entry?;
///     assert_eq!((key.as_slice(), value.as_slice()), (&b"o-1"[..], &b"42"[..]));
/// }
/// let pinned = store.pin()?.finish()?; // immutable files stay until `pinned` drops
/// assert_eq!(pinned.families.len(), 1);
/// drop(pinned);
/// store.close()
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    /// In the order of their tokens, like those in `shared.state`.
    pub(crate) families: Vec<OwnedFamily>,
    /// The seqno of the next write.
    pub(crate) next_seqno: Seqno,
    /// The generation of the shared state this owner has taken notice of.
    pub(crate) seen: u64,
    /// Bytes in all active memtables.
    pub(crate) active_bytes: usize,
    /// With this many bytes in active memtables a write looks at the background: the write memory, or less while
    /// writes are slowed down; 0 sends every write to [`Store::attend`], which refuses it.
    pub(crate) attend_at: usize,
    /// Bytes in active memtables when the background was looked at last.
    looked_at: usize,
    /// Delay that was not slept yet.
    owed: Duration,
    /// Bytes in sealed memtables.
    sealed_bytes: usize,
    /// Debt of merges, as of the last refresh; its memory is not kept.
    merge_debt: Debt,
    pub(crate) random: Random,
    pub(crate) scratch: Vec<u8>,
    /// The log's end that writes go through.
    pub(crate) journal: Journal,
    pub(crate) closed: bool,
}

#[cold]
fn no_family() -> Error {
    Error::invalid("there is no such family in this store")
}

#[cold]
fn closed() -> Error {
    Error::new(Code::Closed, "the store is closed")
}

impl Store {
    /// The owner of `shared`.
    pub(crate) fn new(shared: Arc<Shared>, next_seqno: Seqno, mut random: Random) -> Store {
        let families = shared
            .state
            .lock()
            .families
            .iter()
            .map(|family| OwnedFamily::new(family, random.u64(), &shared.write_memory))
            .collect();
        Store {
            families,
            next_seqno,
            seen: shared.generation.load(Ordering::Acquire),
            active_bytes: 0,
            attend_at: shared.options.memtable_bytes,
            looked_at: 0,
            owed: Duration::ZERO,
            sealed_bytes: 0,
            merge_debt: Debt::default(),
            shared,
            random,
            scratch: Vec::new(),
            journal: Journal::default(),
            closed: false,
        }
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// What the store's memory counts against.
    pub fn budget(&self) -> &MemoryBudget {
        &self.shared.budget
    }

    /// The seqno of the next write; larger than every one in the store.
    pub fn next_seqno(&self) -> Seqno {
        self.next_seqno
    }

    #[inline(always)]
    pub(crate) fn owned(&self, family: Family) -> Result<&OwnedFamily> {
        match self.families.get(family.0 as usize) {
            Some(family) if !family.dropped => Ok(family),
            _ => Err(no_family()),
        }
    }

    #[inline(always)]
    pub(crate) fn owned_mut(&mut self, family: Family) -> Result<&mut OwnedFamily> {
        match self.families.get_mut(family.0 as usize) {
            Some(family) if !family.dropped => Ok(family),
            _ => Err(no_family()),
        }
    }

    pub(crate) fn check_open(&self) -> Result {
        if self.closed { Err(closed()) } else { Ok(()) }
    }

    /// What every write does first: two plain loads and compares, nothing else on the usual path.
    #[inline(always)]
    pub(crate) fn before_write(&mut self) -> Result {
        if self.shared.generation.load(Ordering::Acquire) != self.seen || self.active_bytes >= self.attend_at
        {
            self.attend()
        } else {
            Ok(())
        }
    }

    /// What every write does last. `grown` are the bytes its memtable took.
    #[inline(always)]
    pub(crate) fn after_write(&mut self, family: Family, grown: usize) {
        self.next_seqno += 1;
        count(&self.shared.owner_counters.writes);
        if grown != 0 {
            self.active_bytes += grown;
            self.shared
                .owner_counters
                .active_bytes
                .set(self.active_bytes as u64);
            let memtable = &mut self.families[family.0 as usize].active.memtable;
            let kept = memtable.take_kept_bytes();
            if kept != 0 {
                self.shared.owner_counters.kept_bytes.add(kept as u64);
            }
            if memtable.must_seal() {
                self.seal(family.0 as usize);
            }
        }
    }

    /// Takes notice of the background, and makes room if the write memory is used up.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) -> Result {
        self.check_open()?;
        self.refresh();
        if let Some(error) = &self.shared.state.lock().poisoned {
            return Err(error.duplicate());
        }
        self.bound_log()?;
        self.flush_if_asked();
        if self.active_bytes >= self.shared.options.memtable_bytes {
            self.make_room()?;
        }
        self.slow_down();
        Ok(())
    }

    fn debt(&self) -> Debt {
        let options = &self.shared.options;
        let flushed = self.shared.flush_progress.load(Ordering::Relaxed) as usize;
        Debt {
            memory_bytes: (self.active_bytes + self.sealed_bytes.saturating_sub(flushed)) as u64,
            memory_bytes_max: ((options.sealed_max + 1) * options.memtable_bytes) as u64,
            ..self.merge_debt
        }
    }

    /// Pays for what was written since the last look, in small sleeps, if the background falls behind.
    fn slow_down(&mut self) {
        let memtable_bytes = self.shared.options.memtable_bytes;
        let written = self.active_bytes.saturating_sub(self.looked_at) as u64;
        let mut delay = pressure::nanos_per_byte(&self.debt());
        self.owed = (self.owed + Duration::from_nanos(delay.saturating_mul(written))).min(OWED_MAX);
        while delay > 0 && self.owed >= pressure::SLEEP_MIN {
            let slept = self.shared.rest(self.owed.min(pressure::SLEEP_MAX));
            self.shared.timings.waited(WaitReason::Delay, slept);
            self.owed = self.owed.saturating_sub(slept);
            self.refresh();
            delay = pressure::nanos_per_byte(&self.debt());
        }
        if delay == 0 {
            self.owed = Duration::ZERO;
        }
        self.looked_at = self.active_bytes;
        if self.attend_at != 0 {
            let next = match delay {
                0 => memtable_bytes,
                _ => pressure::bytes_until_next_look(delay, memtable_bytes as u64) as usize,
            };
            self.attend_at = memtable_bytes.min(self.active_bytes.saturating_add(next));
        }
    }

    /// Seals the largest memtable; if the sealed ones exceed their bound, which slowing down should have prevented,
    /// after waiting until they do not.
    fn make_room(&mut self) -> Result {
        let max = self.shared.options.sealed_max * self.shared.options.memtable_bytes;
        while self.sealed_bytes >= max {
            count(&self.shared.owner_counters.stalls);
            flush::schedule(&self.shared);
            let has_room = |state: &State| {
                let waiting: usize = state
                    .queue
                    .iter()
                    .map(|(_, sealed)| sealed.memtable.bytes())
                    .sum();
                waiting < max
            };
            let failed =
                |state: &State| state.poisoned.is_some() || (state.flush_error.is_some() && !state.flushing);
            let at_most = self.shared.options.write_wait_max;
            let mut has_failed = false;
            let in_time = self.shared.waiting(WaitReason::Stop, || {
                self.shared.wait(Priority::Flush, at_most, |state| {
                    has_failed = failed(state);
                    has_room(state) || has_failed
                })
            });
            self.refresh();
            if self.sealed_bytes >= max && (has_failed || !in_time) {
                return Err(self.why_no_room(in_time));
            }
        }
        self.wait_for_merges();
        let largest = (0..self.families.len()).max_by_key(|&at| self.families[at].active.memtable.bytes());
        if let Some(largest) = largest {
            self.seal(largest);
        }
        Ok(())
    }

    /// Stops writes once some family has far too many runs although they were slowed down. Gives up after a while:
    /// too many runs make reads slow, not wrong.
    fn wait_for_merges(&mut self) {
        let options = &self.shared.options;
        let max = options.runs_max.saturating_mul(RUNS_STOP_FACTOR);
        if !options.compaction || self.merge_debt.runs <= max as u64 {
            return;
        }
        count(&self.shared.owner_counters.stalls);
        work::schedule(&self.shared);
        self.shared.waiting(WaitReason::Stop, || {
            self.shared
                .wait(Priority::Bottom, options.write_wait_max, |state| {
                    !state.compacting
                        || state
                            .families
                            .iter()
                            .all(|family| family.version.runs.len() <= max)
                })
        });
        self.refresh();
    }

    pub(crate) fn why_no_room(&self, in_time: bool) -> Error {
        let state = self.shared.state.lock();
        match (&state.poisoned, &state.flush_error) {
            (Some(error), _) => error.duplicate(),
            (None, Some(error)) => read_only(error),
            (None, None) => Error::new(Code::Busy, "sealed memtables wait for their flush")
                .with("limit", "sealed_max")
                .with("waited", !in_time),
        }
    }

    /// Takes over what the background published.
    pub(crate) fn refresh(&mut self) {
        let seen = self.shared.generation.load(Ordering::Acquire);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        let mut garbage: Vec<(Arc<Version>, Vec<Arc<Sealed>>)> = Vec::new();
        {
            let state = self.shared.state.lock();
            if state.poisoned.is_some() {
                self.attend_at = 0;
            }
            for (owned, shared) in self.families.iter_mut().zip(&state.families) {
                if (owned.dropped, owned.epoch) != (shared.dropped, shared.epoch) {
                    (owned.dropped, owned.epoch) = (shared.dropped, shared.epoch);
                    self.active_bytes -= owned.active.memtable.bytes();
                    self.shared
                        .owner_counters
                        .active_bytes
                        .set(self.active_bytes as u64);
                    let kind = owned.options.memtable;
                    let seed = self.random.u64();
                    let fresh = Active::new(Memtable::within(kind, seed, &self.shared.write_memory));
                    let memtable = std::mem::replace(&mut owned.active, fresh).memtable;
                    // Cursors go on reading what they saw.
                    Arc::new(Sealed::new(memtable, owned.epoch, Arc::default(), &[])).hand_over();
                }
                if !Arc::ptr_eq(&owned.version, &shared.version) || owned.sealed.len() != shared.sealed.len()
                {
                    let version = std::mem::replace(&mut owned.version, shared.version.clone());
                    let sealed = std::mem::replace(&mut owned.sealed, shared.sealed.clone());
                    garbage.push((version, sealed));
                }
            }
        }
        self.take_stock();
        self.discard(garbage);
        self.retire_log_files();
    }

    /// Counts what the background has to do, after it published something.
    fn take_stock(&mut self) {
        let options = &self.shared.options;
        let mut debt = Debt {
            runs_max: options.runs_max as u64,
            ..Debt::default()
        };
        self.sealed_bytes = 0;
        for family in &self.families {
            let sealed = family.sealed.iter().map(|sealed| sealed.memtable.bytes());
            self.sealed_bytes += sealed.sum::<usize>();
            let version = &family.version;
            debt.runs = debt.runs.max(version.runs.len() as u64);
            let (memtable_bytes, fan_in) = (options.memtable_bytes as u64, options.fan_in as u64);
            let usual = pressure::merge_bytes_usual(memtable_bytes, fan_in, version.shape.bottom_bytes);
            let (above, most) = (version.shape.upper_bytes, debt.merge_bytes_max.max(1));
            if u128::from(above) * u128::from(most) > u128::from(debt.merge_bytes) * u128::from(usual) {
                (debt.merge_bytes, debt.merge_bytes_max) = (above, usual);
            }
        }
        // Nobody merges: then waiting for it is pointless.
        self.merge_debt = if options.compaction { debt } else { Debt::default() };
    }

    /// Freeing megabytes and unmapping files takes time that the owner does not have.
    fn discard(&self, garbage: Vec<(Arc<Version>, Vec<Arc<Sealed>>)>) {
        if garbage.is_empty() || self.closed {
            return;
        }
        self.shared.state.lock().tidying += 1;
        let shared = self.shared.clone();
        self.shared.scheduler.submit(
            Priority::Upper,
            Box::new(move || {
                drop(garbage);
                shared.bury_the_dead();
                shared.state.lock().tidying -= 1;
                shared.announce_quietly();
            }),
        );
    }

    /// Seals one memtable and queues its flush.
    pub(crate) fn seal(&mut self, number: usize) {
        let waits = |family: &OwnedFamily| !family.active.memtable.is_empty() || !family.sealed.is_empty();
        let needs_log = self.journal.is_on()
            && self
                .families
                .iter()
                .enumerate()
                .any(|(other, family)| other != number && waits(family));
        let family = &mut self.families[number];
        if family.active.memtable.is_empty() {
            return;
        }
        count(&self.shared.owner_counters.seals);
        self.active_bytes -= family.active.memtable.bytes();
        self.shared
            .owner_counters
            .active_bytes
            .set(self.active_bytes as u64);
        self.looked_at = self.looked_at.min(self.active_bytes);
        let fresh = family
            .active
            .memtable
            .successor(family.options.memtable, self.random.u64());
        let memtable = std::mem::replace(&mut family.active, Active::new(fresh)).memtable;
        let mut sealed = Sealed::new(memtable, family.epoch, family.version.clone(), &family.sealed);
        sealed.needs_log = needs_log;
        let sealed = Arc::new(sealed);
        sealed.hand_over();
        family.sealed.insert(0, sealed.clone());
        self.sealed_bytes += sealed.memtable.bytes();
        {
            let mut state = self.shared.state.lock();
            if let Some(slot) = state.families.get_mut(number) {
                slot.sealed.insert(0, sealed.clone());
            }
            state.queue.push_back((number, sealed));
        }
        flush::schedule(&self.shared);
    }

    /// Seals every non-empty memtable.
    pub(crate) fn seal_all(&mut self) -> Result {
        self.check_open()?;
        self.refresh();
        if let Some(error) = &self.shared.state.lock().poisoned {
            return Err(error.duplicate());
        }
        for number in 0..self.families.len() {
            self.seal(number);
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Reads may happen on several threads at once while nobody writes: a shared store rests on it.
const _: fn() = || {
    fn readable_by_many<T: Send + Sync>() {}
    readable_by_many::<Store>();
};
