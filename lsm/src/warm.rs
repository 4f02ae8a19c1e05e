//! Reading many keys at a time: everything that will be looked at is touched before, so that the cache misses of
//! different keys overlap.
//!
//! ```text
//! 16 keys ─► hash all ─► index slots of all ─► records of all ─► (not in a memtable) filters of all ─► blocks of all
//!                                                                ─► slots of all ─► rows of all ─► heaps of all
//!         ─► get each, from the processor's cache
//! ```
//! One look-up waits two to five times for memory, each time for what it read before; sixteen look-ups in phases wait
//! as often in all. Blocks that are not in memory are announced together, then read (`crate::table::warm`). Touching
//! changes nothing and can fail in nothing: what is not there yet, or makes no sense, is left to the look-up itself, so
//! a batch answers what single reads answer.

use crate::{
    family::Family,
    key,
    memtable::Memtable,
    read::{Sources, Value},
    store::Store,
    table::TableReader,
    view::View,
};
use keybed_format::Result;
use std::hint::black_box;

/// Keys that are looked up together. The processor follows about this many misses at a time.
const BATCH: usize = 16;

/// A key on its way through the phases.
#[derive(Clone, Copy)]
struct Wanted<'k> {
    key: &'k [u8],
    hash: u64,
}

impl<'a> Sources<'a> {
    /// Touches what reading `keys` will look at; at most [`BATCH`] of them.
    fn warm(&self, keys: &[Wanted<'_>]) {
        let mut absent = [false; BATCH];
        absent[..keys.len()].fill(true);
        for memtable in self.memtables() {
            if !memtable.is_empty() {
                warm_memtable(memtable, keys, &mut absent);
            }
        }
        if absent.contains(&true) {
            self.warm_tables(keys, &absent);
        }
    }

    fn warm_tables(&self, keys: &[Wanted<'_>], absent: &[bool; BATCH]) {
        let mut chosen: [Option<(&TableReader, usize)>; BATCH] = [None; BATCH];
        for run in &self.version.runs {
            let mut tables: [Option<&TableReader>; BATCH] = [None; BATCH];
            for (at, wanted) in keys.iter().enumerate() {
                if absent[at] && chosen[at].is_none() {
                    let view = run.find(wanted.key).and_then(|table| table.view().ok());
                    tables[at] = view.map(|view| &*view.reader);
                }
            }
            // Without a branch on the answer, the loads of all filters are under way at the same time.
            let mut may = [false; BATCH];
            for (at, wanted) in keys.iter().enumerate() {
                may[at] = tables[at].is_some_and(|table| table.may_contain(wanted.key, wanted.hash));
            }
            for (at, wanted) in keys.iter().enumerate() {
                if let (true, Some(table)) = (may[at], tables[at]) {
                    chosen[at] = Some((table, table.block_of(wanted.key)));
                }
            }
        }
        crate::table::warm(keys.iter().zip(&chosen).filter_map(|(wanted, chosen)| {
            let (table, block) = (*chosen)?;
            Some((table, block, wanted.hash))
        }));
    }
}

/// Touches slots, then records; whoever is likely to be here is not looked for elsewhere.
#[inline]
fn warm_memtable(memtable: &Memtable, keys: &[Wanted<'_>], absent: &mut [bool; BATCH]) {
    let mut touched = 0;
    for wanted in keys {
        touched ^= memtable.touch_slot(wanted.hash);
    }
    black_box(touched);
    for (at, wanted) in keys.iter().enumerate() {
        if absent[at]
            && let Some(byte) = memtable.touch_record(wanted.hash)
        {
            touched ^= u64::from(byte);
            absent[at] = false;
        }
    }
    black_box(touched);
}

/// Does `work` for batches of keys whose memory was touched.
fn in_batches<'k, K: AsRef<[u8]>>(sources: &Sources<'_>, keys: &'k [K], mut work: impl FnMut(&Wanted<'k>)) {
    for batch in keys.chunks(BATCH) {
        let mut wanted = [Wanted { key: &[], hash: 0 }; BATCH];
        for (wanted, key) in wanted.iter_mut().zip(batch) {
            let key = key.as_ref();
            *wanted = Wanted {
                key,
                hash: key::hash(key),
            };
        }
        let wanted = &wanted[..batch.len()];
        // A key alone has nobody to share its waiting with.
        if wanted.len() > 1 {
            sources.warm(wanted);
        }
        wanted.iter().for_each(&mut work);
    }
}

impl<'a> Sources<'a> {
    /// The values of many keys.
    pub(crate) fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Value<'a>>>> {
        let mut values = Vec::with_capacity(keys.len());
        in_batches(self, keys, |wanted| {
            values.push(self.get(wanted.key, wanted.hash));
        });
        values
    }
}

impl Store {
    /// The values of many keys, in their order: each what [`Store::get`] answers. Much faster than single reads if
    /// the keys are scattered over more memory than the processor's caches hold, or blocks of them are not in memory:
    /// the device reads those of sixteen keys at the same time.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store; for each key those of [`Store::get`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?;
    /// let values = store.multi_get(orders, &["o-1", "o-2"])?;
    /// for (key, value) in ["o-1", "o-2"].iter().zip(values) {
    ///     println!("{key}: {:?}", value?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        family: Family,
        keys: &[K],
    ) -> Result<Vec<Result<Option<Value<'_>>>>> {
        let owned = self.owned(family)?;
        self.shared.owner_counters.reads.multi_gets.add(keys.len() as u64);
        Ok(owned.sources().multi_get(keys))
    }

    /// Brings what reads and updates of `keys` will look at into the processor's caches, and blocks of tables that
    /// are not mapped into the block cache. A hint: it changes no answer, and an error waits for the read that meets
    /// it. Worth it for some 4 to 64 keys right before they are used.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let totals = store.family("totals")?;
    /// let records = [("ada", 3_u8), ("bob", 4)];
    /// store.prefetch(totals, &records.map(|(user, _)| user))?;
    /// for (user, amount) in records {
    ///     store.put(totals, user.as_bytes(), &[amount])?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn prefetch<K: AsRef<[u8]>>(&self, family: Family, keys: &[K]) -> Result {
        in_batches(&self.owned(family)?.sources(), keys, |_| {});
        Ok(())
    }
}

impl View {
    /// The values of many keys then, in their order; see [`Store::multi_get`].
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        family: Family,
        keys: &[K],
    ) -> Result<Vec<Result<Option<Value<'_>>>>> {
        self.get_many(family, keys)
    }
}
