//! What the owner can ask of compactions: do this now, or nothing for a while.

use super::work;
use crate::{
    expiry::Expiry,
    family::Family,
    key::KeyRange,
    shared::{Shared, State},
    stats::WaitReason,
    store::{LONG, Store},
    version::LiveView,
};
use keybed_env::Priority;
use keybed_format::{Code, Error, Result};
use std::{ops::RangeBounds, sync::Arc};

/// While it lives no merge of its store starts, and one that is under way ends within milliseconds (a merge into the
/// bottom keeps what it has done). Flushes go on, so runs pile up and writes slow down: hold it for a restore or a
/// checkpoint, not for good.
#[derive(Debug)]
#[must_use = "compactions go on when it is dropped"]
pub struct CompactionPause {
    shared: Arc<Shared>,
}

impl Drop for CompactionPause {
    fn drop(&mut self) {
        self.shared.state.lock().paused -= 1;
        work::schedule(&self.shared);
    }
}

impl Store {
    /// Merges everything of a family into its bottom run and waits for it.
    ///
    /// # Errors
    /// As [`Store::flush`]; `Busy` while compactions are [paused](Store::pause_compaction); `TableCorrupt`,
    /// `MergeFailed` and errors of the file system from the merge.
    pub fn compact(&mut self, family: Family) -> Result {
        self.compact_range(family, ..)
    }

    /// Merges what a family holds in a range of keys into its bottom run and waits for it: deleted and overwritten
    /// entries there give up their space. Whole files of the bottom take part, so somewhat more is merged. In a family
    /// with a [`CompactionFilter`](crate::CompactionFilter) all entries of the range are shown to it.
    ///
    /// # Errors
    /// As [`Store::compact`].
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"2024-1", b"42")?;
    /// store.delete(orders, b"2024-1")?;
    /// store.compact_range(orders, &b"2024"[..]..&b"2025"[..])?;
    /// assert_eq!(store.stats().tables, 0);
    /// # Ok(()) }
    /// ```
    pub fn compact_range<'k>(&mut self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result {
        self.owned(family)?;
        let range = KeyRange::of(&range);
        self.flush()?;
        if range.is_empty() {
            return Ok(());
        }
        self.request_compaction(family, range)?;
        let result = self.shared.wait_for_compaction(family);
        self.refresh();
        result
    }

    /// Asks for a merge of what a family holds in tables.
    pub(crate) fn request_compaction(&self, family: Family, range: KeyRange) -> Result {
        self.owned(family)?;
        let mut state = self.shared.state.lock();
        if state.paused > 0 {
            return Err(Error::new(Code::Busy, "compactions are paused").with("pauses", state.paused));
        }
        state.compaction_error = None;
        if let Some(slot) = state.families.get_mut(family.0 as usize) {
            let expiry = slot
                .lifetime
                .as_ref()
                .map_or(Expiry::OFF, |lifetime| lifetime.expiry());
            let is_filtered = slot.options.filter.is_some();
            // Has entries that expired, or stamps of a time when entries did.
            let is_stale = |live: &LiveView| {
                let facts = &live.table.record.facts;
                let touched = facts.touched_since(expiry.since);
                let has_expired = touched.is_some_and(|(oldest, _)| expiry.is_over(oldest));
                has_expired || (expiry.is_off() && facts.has_stamps())
            };
            let bottom = slot.version.runs.iter().filter(|run| run.is_bottom());
            let inside = bottom
                .flat_map(|run| &run.tables)
                .filter(|live| range.touches(&live.first, &live.last) && (is_filtered || is_stale(live)));
            slot.wishes.rewritten = inside.map(|live| live.table.id()).collect();
            slot.wishes.requested = Some(range);
        }
        Ok(())
    }

    /// Lets no merge of this store run until the guard is dropped; several guards may be held.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let mut store = keybed_lsm::Store::open(dir.path().join("s"), keybed_lsm::StoreOptions::default())?;
    /// let pause = store.pause_compaction();
    /// let copied = store.pin()?.finish()?; // no merge competes for the disk meanwhile
    /// drop((copied, pause));
    /// # Ok(()) }
    /// ```
    pub fn pause_compaction(&self) -> CompactionPause {
        self.shared.state.lock().paused += 1;
        CompactionPause {
            shared: self.shared.clone(),
        }
    }
}

impl Shared {
    /// Waits until a merge that was asked for is done.
    pub(crate) fn wait_for_compaction(self: &Arc<Self>, family: Family) -> Result {
        work::schedule(self);
        let number = family.0 as usize;
        let mut result = Ok(());
        let ended = |state: &mut State| {
            if let Some(error) = state.compaction_error.as_ref().or(state.poisoned.as_ref()) {
                result = Err(error.duplicate());
                return !state.compacting;
            }
            state
                .families
                .get(number)
                .is_none_or(|slot| slot.wishes.requested.is_none() || slot.operator_missing)
        };
        self.waiting(WaitReason::Merge, || self.wait(Priority::Bottom, LONG, ended));
        result
    }
}
