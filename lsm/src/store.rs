//! The owner's handle of a store.

use crate::{
    budget::MemoryBudget,
    family::{Family, OwnedFamily},
    flush,
    journal::Journal,
    key::Seqno,
    memtable::{Active, Memtable, Sealed},
    pressure::{self, Debt},
    shared::Shared,
    stats::count,
    version::Version,
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
    pub(crate) looked_at: usize,
    /// Delay that was not slept yet.
    pub(crate) owed: Duration,
    /// Bytes in sealed memtables.
    pub(crate) sealed_bytes: usize,
    /// Debt of merges, as of the last refresh; its memory is not kept.
    pub(crate) merge_debt: Debt,
    pub(crate) random: Random,
    pub(crate) scratch: Vec<u8>,
    /// A value behind its stamp, on its way to a memtable.
    pub(crate) stamped: Vec<u8>,
    /// When the batch that is being applied was stamped; later than everything while none is.
    pub(crate) applies_since: u64,
    /// The log's end that writes go through.
    pub(crate) journal: Journal,
    /// Opened to be read.
    pub(crate) is_read_only: bool,
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
            stamped: Vec::new(),
            applies_since: u64::MAX,
            journal: Journal::default(),
            is_read_only: false,
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

    /// Whether a write must look at the background first.
    #[inline(always)]
    pub(crate) fn is_attention_due(&self) -> bool {
        self.shared.generation.load(Ordering::Acquire) != self.seen || self.active_bytes >= self.attend_at
    }

    /// What every write does first: two plain loads and compares, nothing else on the usual path.
    #[inline(always)]
    pub(crate) fn before_write(&mut self) -> Result {
        if self.is_attention_due() {
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
                    let sealed = Arc::new(Sealed::new(memtable, owned.epoch, Arc::default(), &[]));
                    sealed.hand_over();
                    self.shared.note_lingering(&sealed);
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
        sealed.expiry = family.expiry();
        sealed.expiry.now = sealed.expiry.now.min(self.applies_since);
        sealed.active_since = {
            let state = self.shared.state.lock();
            if state.replaying {
                sealed.expiry.now = 0;
            }
            state.families.get(number).map_or(0, |slot| slot.active_since)
        };
        let sealed = Arc::new(sealed);
        sealed.hand_over();
        family.sealed.insert(0, sealed.clone());
        self.sealed_bytes += sealed.memtable.bytes();
        {
            let mut state = self.shared.state.lock();
            if let Some(slot) = state.families.get_mut(number) {
                // A merge must not take the next memtable's time for that of this one.
                slot.active_since = sealed.expiry.now;
                slot.sealed.insert(0, sealed.clone());
            }
            state.note_empty(&self.families);
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
