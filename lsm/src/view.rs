//! A `View`: the content of a store at one moment, readable from any thread.
//!
//! ```text
//! Store::view      seal, capture sealed memtables and version
//! flush            each memtable becomes a table ─► the view is re-based: it reads that table and lets go of the memory
//! ```
//! So a view holds write memory only until the flushes that were due anyway. Scans that began before hold the
//! memtables they read by themselves.

use crate::{
    expiry::Expiry,
    family::Family,
    floor::Floors,
    iter::Told,
    key::{self, KeyRange, Seqno, TableId},
    memtable::{Held, Sealed},
    merge_operator::MergeOperator,
    read::{Sources, Value},
    scan::{self, Below, Direction, Range},
    shared::Shared,
    stats::ViewStats,
    store::Store,
    sync::Mutex,
    version::Version,
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::HashSet,
    ops::RangeBounds,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

/// The content of a store at the moment the view was taken. It holds the tables it saw, and the memtables until they
/// are flushed, so old versions need not be kept in new tables; drop it soon, it keeps files. Time stands still in it: it
/// shows what had not expired when it was taken. It should not outlive
/// the store: the next owner of the directory may remove files of it that were not opened yet, which are then
/// `TableMissing`.
#[derive(Clone, Debug)]
pub struct View(Arc<Inner>);

/// What all clones of a view share; the store knows it weakly.
#[derive(Debug)]
pub(crate) struct Inner {
    families: Vec<ViewFamily>,
    /// Whose view it is.
    shared: Weak<Shared>,
    seqno: Seqno,
    /// By the store's clock.
    taken: Duration,
}

#[derive(Debug)]
struct ViewFamily {
    name: Arc<str>,
    /// Newest first; none once they are all flushed. Guards the list alone.
    sealed: Mutex<Vec<Arc<Sealed>>>,
    version: Arc<Version>,
    floors: Option<Arc<Floors>>,
    /// The version with the tables of the memtables, or as it was if there were none. Set before the list is emptied.
    settled: OnceLock<Arc<Version>>,
    operator: Option<Arc<dyn MergeOperator>>,
    /// What had expired when the view was taken.
    expiry: Expiry,
    dropped: bool,
}

impl ViewFamily {
    /// Lets go of the memtables if all of them are flushed, and reads their tables from now on.
    fn rebase(&self) {
        if self.settled.get().is_some() {
            return;
        }
        let mut sealed = self.sealed.lock();
        let Some(version) = self.version.with_flushed(&sealed) else {
            return;
        };
        let _ = self.settled.set(version);
        let memtables = std::mem::take(&mut *sealed);
        drop(sealed);
        // Megabytes, perhaps; not under the lock.
        drop(memtables);
    }

    fn sources<'s>(&'s self, sealed: &'s [Arc<Sealed>], version: &'s Version) -> Sources<'s> {
        Sources {
            active: None,
            sealed,
            version,
            floors: self.floors.as_deref(),
            operator: self.operator.as_deref(),
            expiry: self.expiry,
        }
    }
}

/// What a read of a view looks at.
enum Reading<'v> {
    /// Tables alone.
    Settled(&'v Version),
    /// The memtables, and the tables below them.
    Held(Vec<Arc<Sealed>>, &'v Version),
}

impl Store {
    /// Takes a view. Seals the non-empty memtables, so each view costs small tables: take it per snapshot or query,
    /// never per record.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`; `Busy` if views hold more than
    /// [`view_bytes_max`](crate::StoreOptions::view_bytes_max).
    pub fn view(&mut self) -> Result<View> {
        let (max, held) = (self.shared.options.view_bytes_max, self.shared.view_stats());
        if held.memtable_bytes + held.file_bytes > max {
            return Err(Error::new(Code::Busy, "views hold too much; drop old ones")
                .with("limit", "view_bytes_max")
                .expected_found(max, held.memtable_bytes + held.file_bytes));
        }
        self.seal_all()?;
        let families = self.families.iter().map(|family| ViewFamily {
            name: family.name.clone(),
            sealed: Mutex::new(family.sealed.clone()),
            version: family.version.clone(),
            floors: family.active.memtable.floors().cloned(),
            settled: OnceLock::new(),
            operator: family.options.merge.clone(),
            expiry: family.expiry(),
            dropped: family.dropped,
        });
        let view = Arc::new(Inner {
            families: families.collect(),
            shared: Arc::downgrade(&self.shared),
            seqno: self.next_seqno,
            taken: self.shared.options.clock.monotonic(),
        });
        self.shared.views.lock().push(Arc::downgrade(&view));
        // A flush that ended before the view was known has not re-based it.
        view.families.iter().for_each(ViewFamily::rebase);
        Ok(View(view))
    }
}

impl Shared {
    fn live_views(&self) -> Vec<Arc<Inner>> {
        let mut views = self.views.lock();
        views.retain(|view| view.strong_count() > 0);
        views.iter().filter_map(Weak::upgrade).collect()
    }

    /// Lets views go over to the table that the flush of a memtable of family `number` made.
    pub(crate) fn rebase_views(&self, number: usize) {
        for view in self.live_views() {
            if let Some(family) = view.families.get(number) {
                family.rebase();
            }
        }
    }

    /// What views hold.
    pub(crate) fn view_stats(&self) -> ViewStats {
        let views = self.live_views();
        let mut stats = ViewStats {
            views: views.len() as u64,
            ..ViewStats::default()
        };
        let (mut memtables, mut tables): (HashSet<*const Sealed>, HashSet<TableId>) = Default::default();
        for family in views.iter().flat_map(|view| &view.families) {
            for sealed in &*family.sealed.lock() {
                if memtables.insert(Arc::as_ptr(sealed)) {
                    stats.memtable_bytes += sealed.memtable.bytes() as u64;
                }
            }
            let version = family.settled.get().unwrap_or(&family.version);
            for live in version.runs.iter().flat_map(|run| &run.tables) {
                if live.table.is_retired() && tables.insert(live.table.id()) {
                    stats.file_bytes += live.table.record.facts.bytes;
                }
            }
        }
        if let Some(oldest) = views.iter().map(|view| view.taken).min() {
            let age = self.options.clock.monotonic().saturating_sub(oldest);
            stats.oldest_nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        }
        stats
    }
}

impl View {
    /// All writes with smaller seqnos are seen, no others.
    pub fn seqno(&self) -> Seqno {
        self.0.seqno
    }

    /// The token of a family, if it existed when the view was taken.
    pub fn family(&self, name: &str) -> Option<Family> {
        let number = self
            .0
            .families
            .iter()
            .position(|family| !family.dropped && &*family.name == name)?;
        Some(Family(number as u32))
    }

    fn read(&self, family: Family) -> Result<(&ViewFamily, Reading<'_>)> {
        let family = match self.0.families.get(family.0 as usize) {
            Some(family) if !family.dropped => family,
            _ => return Err(Error::invalid("the view has no such family")),
        };
        if let Some(version) = family.settled.get() {
            return Ok((family, Reading::Settled(version)));
        }
        let sealed = family.sealed.lock().clone();
        // Re-based between the two looks: the list is empty, and the version was set before.
        Ok(match family.settled.get() {
            Some(version) => (family, Reading::Settled(version)),
            None => (family, Reading::Held(sealed, &family.version)),
        })
    }

    fn scan(
        &self,
        family: Family,
        (range, prefix): (KeyRange, Option<&[u8]>),
        direction: Direction,
    ) -> Result<Range<'_>> {
        let told = Told::Weakly(&self.0.shared, family.0 as usize);
        let (family, reading) = self.read(family)?;
        let (sealed, version) = match reading {
            Reading::Settled(version) => (Vec::new(), version),
            Reading::Held(sealed, version) => (sealed, version),
        };
        let floors = family.floors.as_deref();
        let hides = floors.is_some()
            || version.has_range_deletes
            || sealed.iter().any(|sealed| sealed.memtable.covers().is_some());
        let held = sealed.into_iter().map(|sealed| {
            let order = sealed.order_in(&range);
            (Held::Sealed(sealed), order)
        });
        let below = Below {
            version,
            floors,
            hides,
            operator: family.operator.as_deref(),
            expiry: family.expiry,
        };
        let range = scan::open(held.collect(), below, (range, prefix), direction)?;
        Ok(range.telling(told, 0))
    }

    /// The values of many keys then, each what [`View::get`] answers.
    pub(crate) fn get_many<K: AsRef<[u8]>>(
        &self,
        family: Family,
        keys: &[K],
    ) -> Result<Vec<Result<Option<Value<'_>>>>> {
        let (family, reading) = self.read(family)?;
        Ok(match reading {
            Reading::Settled(version) => family.sources(&[], version).multi_get(keys),
            Reading::Held(sealed, version) => {
                let found = family.sources(&sealed, version).multi_get(keys);
                found
                    .into_iter()
                    .map(|found| Ok(found?.map(Value::into_owned)))
                    .collect()
            }
        })
    }

    /// The value of `key` then.
    ///
    /// # Errors
    /// As [`Store::get`]; `InvalidArgument` if the family did not exist.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'_>>> {
        let (family, reading) = self.read(family)?;
        let hash = key::hash(key);
        match reading {
            Reading::Settled(version) => family.sources(&[], version).get(key, hash),
            Reading::Held(sealed, version) => {
                let found = family.sources(&sealed, version).get(key, hash)?;
                // The memtable may be gone before the value is.
                Ok(found.map(Value::into_owned))
            }
        }
    }

    /// Entries of a range of keys then, ascending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn range<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.scan(family, (KeyRange::of(&range), None), Direction::Up)
    }

    /// As [`View::range`], descending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn range_rev<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<Range<'_>> {
        self.scan(family, (KeyRange::of(&range), None), Direction::Down)
    }

    /// Entries whose keys begin with `prefix` then, ascending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn prefix(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.scan(family, (KeyRange::prefix(prefix), Some(prefix)), Direction::Up)
    }

    /// Entries whose keys begin with `prefix` then, descending.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn prefix_rev(&self, family: Family, prefix: &[u8]) -> Result<Range<'_>> {
        self.scan(family, (KeyRange::prefix(prefix), Some(prefix)), Direction::Down)
    }
}
