//! What a store has to merge, who does it, and when it is tried again.
//!
//! One job per store is queued or runs at a time; it does one plan, and its end looks for the next. So a pool serves
//! hundreds of stores in turn, and a long merge is many short jobs.

use super::{
    expire, job,
    picker::{self, LevelFacts, Merge, PartFacts, PickOptions, Plan, RunFacts, Wishes},
    resolve::Outcome,
};
use crate::{
    expiry::Expiry,
    floor::Floors,
    options::FamilyOptions,
    planted,
    shared::{Shared, SharedFamily, State},
    version::{
        LiveView, Run, Version,
        edit::{BOTTOM, Change},
    },
};
use keybed_env::Priority;
use keybed_format::{Error, ErrorKind, Result};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// First pause before failed work is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A store that flushed nothing for so long is at rest and settles.
const REST: Duration = Duration::from_secs(5);

/// Files below this part of their target are merged rather than moved into the bottom.
const MOVED_FRACTION: u64 = 16;

/// Work that is due: what a job needs to know.
pub(crate) struct Work {
    pub(crate) id: u32,
    pub(crate) options: FamilyOptions,
    pub(crate) version: Arc<Version>,
    /// Those that the manifest names.
    pub(crate) floors: Option<Arc<Floors>>,
    /// Of the family; what was picked before a clear is not installed after it.
    pub(crate) epoch: u64,
    /// What has expired and may be forgotten.
    expiry: Expiry,
    pub(crate) plan: Plan,
}

impl Work {
    fn new(family: &SharedFamily, expiry: Expiry, plan: Plan) -> Work {
        Work {
            expiry,
            id: family.id,
            options: family.options.clone(),
            version: family.version.clone(),
            floors: family.floors.clone(),
            epoch: family.epoch,
            plan,
        }
    }

    /// What may be forgotten where these runs are merged: what operands above them stand on may not.
    pub(crate) fn expiry_within(&self, plan: &Merge, inputs: &[&Run]) -> Expiry {
        let mut expiry = self.expiry;
        if expiry.is_off() {
            return expiry;
        }
        let runs = &self.version.runs;
        let is_input = |run: &Run| inputs.iter().any(|input| input.number == run.number);
        let is_lowest = |run: &Run| match plan.output_tier {
            BOTTOM => run.is_bottom(),
            _ => is_input(run),
        };
        let below = runs.iter().rposition(is_lowest).unwrap_or(runs.len());
        let newer = runs.iter().take(below).filter(|run| !is_input(run));
        for live in newer.flat_map(|run| &run.tables) {
            if plan.slice.touches(&live.first, &live.last) {
                let first = live.table.record.facts.first_touched_since(expiry.since);
                expiry.now = first.map_or(expiry.now, |first| expiry.now.min(first));
            }
        }
        expiry
    }

    /// What the manifest is told of the time when entries were forgotten.
    pub(crate) fn time(&self) -> Option<Change> {
        (!self.expiry.is_off()).then_some(Change::Time(self.expiry.now))
    }
}

/// Facts about a version, for the picker.
fn facts(version: &Version, expiry: &Expiry, wishes: Wishes, can_move: bool) -> LevelFacts {
    let part = |live: &LiveView| {
        let facts = &live.table.record.facts;
        let is_whole = live.bytes().saturating_mul(2) >= live.table.record.facts.bytes;
        PartFacts {
            id: live.table.id(),
            visible_start: live.visible.start.clone(),
            first: live.first.clone(),
            last: live.last.clone(),
            is_open: live.visible.ends_before(&live.last),
            bytes: live.bytes(),
            entries: facts.entries,
            tombstones: facts.tombstones,
            movable: can_move
                && is_whole
                && facts.tombstones == 0
                && facts.merges == 0
                && !(expiry.is_off() && facts.has_stamps())
                && !live.has_range_deletes,
            stamps: facts.touched_since(expiry.since).filter(|_| !expiry.is_off()),
            stands_on: facts
                .first_touched_since(expiry.since)
                .filter(|_| !expiry.is_off())
                .map(|first| first.saturating_sub(expiry.ttl)),
        }
    };
    let run = |run: &Run| RunFacts {
        number: run.number,
        tier: run.tier,
        tables: run.tables.iter().map(part).collect(),
    };
    LevelFacts {
        runs: version.runs.iter().map(run).collect(),
        shape: version.shape,
        wishes,
    }
}

/// The next work of the store, if some is due and allowed. Called under the state lock, which the owner waits for: no
/// I/O, and no look at the tables unless a plan is likely.
pub(crate) fn next(shared: &Shared, state: &mut State) -> Option<Work> {
    if state.paused > 0 {
        return None;
    }
    let count = state.families.len();
    // Families take turns, or the first ones would keep the others waiting.
    for step in 0..count {
        let at = (state.next_family + step) % count;
        let replaying = state.replaying;
        let Some(family) = state.families.get_mut(at) else {
            continue;
        };
        if let Some(work) = next_of(shared, family, replaying) {
            state.next_family = at + 1;
            return Some(work);
        }
    }
    None
}

fn next_of(shared: &Shared, family: &mut SharedFamily, replaying: bool) -> Option<Work> {
    let is_wanted = shared.options.compaction || family.wishes.requested.is_some();
    // An operator that the program has not named yet cannot be applied.
    if family.dropped || family.operator_missing || !is_wanted {
        return None;
    }
    let expiry = expire::forgettable(shared, family, replaying);
    if family.covers_changed {
        return Some(Work::new(family, expiry, Plan::DropCovered));
    }
    expire::wish(family, &expiry);
    let fan_in = match family.options.fan_in {
        0 => shared.options.fan_in,
        own => usize::from(own),
    };
    let file_bytes = shared.options.target_file_bytes;
    let options = PickOptions {
        fan_in,
        runs_max: shared.options.runs_max,
        slice_bytes: super::slice_bytes(family.version.shape.bottom_bytes, file_bytes),
        moved_bytes_min: file_bytes / MOVED_FRACTION,
    };
    let version = &family.version;
    let tiers = version.runs.iter().map(|run| run.tier);
    let is_due = picker::may_be_due(tiers, &version.shape, &family.wishes, &options);
    // A file that is moved stays as it was written.
    let can_move = shared.options.bottom_compression == shared.options.upper_compression
        && family.options.bottom_filter
        && family.options.filter.is_none();
    let plan = is_due.then(|| {
        let facts = facts(version, &expiry, family.wishes.clone(), can_move);
        picker::pick(&facts, &options)
    });
    let Some(plan) = plan.flatten() else {
        family.wishes = Wishes::default();
        return None;
    };
    family.wishes.begin(&plan);
    Some(Work::new(family, expiry, plan))
}

/// Starts a job if work is due and none is under way.
pub(crate) fn schedule(shared: &Arc<Shared>) {
    let work = {
        let mut state = shared.state.lock();
        if state.compacting || state.closing || state.poisoned.is_some() || state.compaction_error.is_some() {
            return;
        }
        let Some(work) = next(shared, &mut state) else {
            drop(state);
            // Wishes that leave nothing to do were dropped just now: whoever waits for his looks again.
            if !planted::is("end-of-merge-not-told") {
                shared.announce_quietly();
            }
            settle_later(shared);
            expire::look_later(shared);
            return;
        };
        state.compacting = true;
        if work.plan == Plan::DropCovered
            && let Some(slot) = state.families.iter_mut().find(|slot| slot.id == work.id)
        {
            slot.covers_changed = false;
        }
        work
    };
    let priority = match &work.plan {
        Plan::Merge(merge) if merge.output_tier == BOTTOM => Priority::Bottom,
        _ => Priority::Upper,
    };
    let shared_for_job = shared.clone();
    shared.scheduler.submit(
        priority,
        Box::new(move || {
            let ended = Ended(shared_for_job);
            let timings = &ended.0.timings.compaction;
            let result = ended.0.timed(timings, || job::run(&ended.0, &work, priority));
            drop(work);
            ended.0.bury_the_dead();
            ended.end(result);
        }),
    );
}

/// Says that the job is over, whatever happened, and looks for the next one.
struct Ended(Arc<Shared>);

impl Ended {
    fn end(&self, result: Result<Outcome>) {
        match result {
            Ok(_) => self.0.state.lock().compaction_failures = 0,
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: Error) {
        // Damage does not pass by itself, nor does what an operator refuses; whoever asks tries again.
        let passes = matches!(error.kind(), ErrorKind::Io);
        let failures = {
            let mut state = self.0.state.lock();
            state.compaction_error = Some(error);
            state.compaction_failures += 1;
            state.compaction_failures
        };
        if passes {
            later(&self.0, retry_delay(failures), Priority::Bottom, |shared| {
                shared.state.lock().compaction_error = None;
                schedule(shared);
            });
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        {
            let mut state = self.0.state.lock();
            state.compacting = false;
            if std::thread::panicking() {
                state.compaction_error = Some(crate::shared::panicked("a compaction"));
            }
        }
        self.0.announce();
        schedule(&self.0);
    }
}

/// How long to wait after so many failures in a row.
pub(crate) fn retry_delay(failures: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(RETRY_MAX)
}

/// Does something later unless the store is gone by then. Does not keep it.
pub(crate) fn later(
    shared: &Arc<Shared>,
    delay: Duration,
    priority: Priority,
    then: impl FnOnce(&Arc<Shared>) + Send + 'static,
) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    shared.scheduler.submit_after(
        delay,
        priority,
        Box::new(move || {
            if let Some(shared) = weak.upgrade()
                && !shared.state.lock().closing
            {
                then(&shared);
            }
        }),
    );
}

/// Nothing is due: once nothing was flushed for a while, what is worth merging at rest is.
fn settle_later(shared: &Arc<Shared>) {
    let flushed = {
        let mut state = shared.state.lock();
        let is_settled = state.settled_at == Some(state.next_run);
        if state.settling || is_settled || state.closing || !shared.options.compaction {
            return;
        }
        state.settling = true;
        state.next_run
    };
    later(shared, REST, Priority::Bottom, move |shared| {
        {
            let mut state = shared.state.lock();
            state.settling = false;
            if state.next_run == flushed {
                state.settle();
            }
        }
        schedule(shared);
    });
}

impl State {
    /// Lets every family be merged as if nothing more were written.
    pub(crate) fn settle(&mut self) {
        self.settled_at = Some(self.next_run);
        for family in &mut self.families {
            family.wishes.at_rest = true;
        }
    }
}
