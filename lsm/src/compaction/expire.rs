//! When files with expired entries are due, and what of them may be forgotten.
//!
//! An operand stands on what lived when it was written. So what has expired by now may still be needed: by operands in
//! runs above it (see [`Work`](super::work::Work)), or in memtables, of which only the owner knows what they hold.
//! In families with an operator it is forgotten only if it had expired before anything unflushed can have been written.

use super::work;
use crate::{
    expiry::Expiry,
    family::OwnedFamily,
    shared::{Shared, SharedFamily, State},
    version::Version,
};
use keybed_env::Priority;
use std::{sync::Arc, time::Duration};

/// An owner with empty memtables may be about to write an operand that it has stamped already; not for this long.
const STAMPED_MILLIS_MAX: u64 = 60_000;

/// A look comes at least this often while something is to expire: wall clocks jump.
const LOOK_MAX: Duration = Duration::from_secs(3600);

/// What of a family has expired and stands below no operand in a memtable; nothing while the log is replayed.
pub(super) fn forgettable(shared: &Shared, family: &SharedFamily, replaying: bool) -> Expiry {
    let Some(lifetime) = &family.lifetime else {
        return Expiry::OFF;
    };
    if replaying {
        return lifetime.expiry_at(0);
    }
    let mut expiry = lifetime.expiry();
    if family.operator_name.is_some() {
        let oldest = family.sealed.last();
        let since = oldest.map_or(family.active_since, |sealed| sealed.active_since);
        let is_empty = oldest.is_none() && shared.owner_counters.active_bytes.get() == 0;
        expiry.now = match is_empty {
            true => since
                .max(expiry.now.saturating_sub(STAMPED_MILLIS_MAX))
                .min(expiry.now),
            false => since.min(expiry.now),
        };
    }
    expiry
}

impl State {
    /// The owner between two writes says which memtables are empty: no operand in them can be older than now.
    pub(crate) fn note_empty(&mut self, owned: &[OwnedFamily]) {
        for (slot, owned) in self.families.iter_mut().zip(owned) {
            if let Some(lifetime) = slot.lifetime.as_ref().filter(|_| !self.replaying)
                && owned.active.memtable.is_empty()
            {
                slot.active_since = lifetime.wall.now();
            }
        }
    }
}

/// Says what the picker should look for, if there can be any.
pub(super) fn wish(family: &mut SharedFamily, expiry: &Expiry) {
    let touches = &family.version.touches;
    let since = touches.has_unstamped.then_some(expiry.since);
    let is_there = |touch: Option<u64>, until: &u64| touch.into_iter().chain(since).any(|t| t <= *until);
    let until = expiry.now.checked_sub(expiry.ttl).filter(|_| !expiry.is_off());
    let age = family
        .lifetime
        .as_ref()
        .map_or(0, |lifetime| lifetime.expired_age_max);
    let overdue = until.and_then(|until| until.checked_sub(age));
    family.wishes.expired = until.filter(|until| is_there(touches.newest, until));
    family.wishes.overdue = overdue.filter(|until| is_there(touches.oldest, until));
}

/// When the next of a family's files will be due, by the wall's time; what is due already was looked at.
fn next_due(family: &SharedFamily) -> Option<u64> {
    let lifetime = family.lifetime.as_ref().filter(|_| !family.dropped)?;
    let (expiry, age) = (lifetime.expiry(), lifetime.expired_age_max);
    let margin = family.operator_name.as_ref().map_or(0, |_| STAMPED_MILLIS_MAX);
    let dues = |version: &Version| {
        let tables = version.runs.iter().flat_map(|run| &run.tables);
        let touched = tables.filter_map(|live| live.table.record.facts.touched_since(expiry.since));
        let dues = touched.flat_map(|(oldest, newest)| [newest, oldest.saturating_add(age)]);
        let dues = dues.map(|due| due.saturating_add(expiry.ttl).saturating_add(margin));
        dues.filter(|due| *due > expiry.now).min()
    };
    dues(&family.version)
}

/// Nothing is due now: looks again when the next file will be.
pub(super) fn look_later(shared: &Arc<Shared>) {
    let now = shared.wall.now();
    let due = {
        let mut state = shared.state.lock();
        if !shared.options.compaction || state.closing || state.is_read_only || state.paused > 0 {
            return;
        }
        let due = state.families.iter().filter_map(next_due).min();
        let Some(due) = due.filter(|due| state.look_at.is_none_or(|planned| *due < planned)) else {
            return;
        };
        state.look_at = Some(due);
        due
    };
    let delay = Duration::from_millis(due.saturating_sub(now).max(1)).min(LOOK_MAX);
    work::later(shared, delay, Priority::Bottom, move |shared| {
        {
            let mut state = shared.state.lock();
            // A look that was planned for later gives way to an earlier one, and comes all the same.
            if state.look_at == Some(due) {
                state.look_at = None;
            }
        }
        work::schedule(shared);
    });
}
