//! Doing what the picker says: one plan, from its inputs to the installed edit.
//!
//! ```text
//! pick (facts) ─► merge inputs, clipped to the slice ─► output files ─► edit: inputs out, outputs in ─► install
//! ```
//! The edit's append to the manifest makes the merge visible. A crash before leaves the inputs in charge and stray
//! files that the next open removes; after it the inputs are strays.
//!
//! A merge is pre-emptible: now and then it runs jobs that go first and wait, on this very thread. If it has to end
//! early (the store closes, compactions are paused) and goes to the bottom, what it has done is installed as a
//! shorter slice: a store that is never open for long gets on, too.

use super::{
    covered,
    filter::CompactionFilter,
    output::{Output, OutputOptions},
    picker::{Merge, Part, Plan},
    resolve::{Outcome, Resolver},
    work::Work,
};
use crate::{
    iter::{MergeIter, RunIter, Source},
    key::KeyRange,
    options::FamilyOptions,
    range_delete::RangeDeletes,
    shared::Shared,
    table::TableOptions,
    version::{
        LiveView, Run,
        edit::{BOTTOM, Change, DRAINING, Edit, TableRecord},
    },
};
use keybed_env::Priority;
use keybed_format::Result;
use std::{cell::Cell, sync::atomic::Ordering, time::Duration};

/// Jobs that a merge lets pass at a time.
const PASSING_MAX: usize = 8;

/// A merge that ends early keeps what it has done from this part of a file's target on.
const KEPT_FRACTION: u64 = 4;

/// Longest sleep while a merge is too fast for its rate.
const RATE_SLEEP_MAX: Duration = Duration::from_millis(10);

/// Does the plan.
pub(crate) fn run(shared: &Shared, work: &Work, priority: Priority) -> Result<Outcome> {
    match &work.plan {
        Plan::Merge(plan) => merge(shared, work, plan, priority),
        Plan::Move(parts) => move_parts(shared, work, parts),
        Plan::Drop(parts) => {
            let outcome = drop_parts(shared, work, parts)?;
            let (mut files, mut entries) = (0, 0);
            for (_, live) in find(work, parts) {
                let facts = &live.table.record.facts;
                (files, entries) = (files + 1, entries + facts.keys - facts.tombstones.min(facts.keys));
            }
            let counters = &shared.counters;
            counters.expired_files.fetch_add(files, Ordering::Relaxed);
            counters.expired_entries.fetch_add(entries, Ordering::Relaxed);
            Ok(outcome)
        }
        Plan::DropCovered => {
            let parts = covered::parts(&work.version, work.floors.as_deref())?;
            if parts.is_empty() {
                return Ok(Outcome::Complete);
            }
            drop_parts(shared, work, &parts)
        }
    }
}

/// A family's filter, and the time of the store's clock.
pub(crate) fn filter<'a>(
    shared: &Shared,
    options: &'a FamilyOptions,
) -> Option<(&'a dyn CompactionFilter, u64)> {
    let filter = options.filter.as_deref()?;
    Some((filter, shared.options.clock.wall_millis()))
}

/// Lets jobs pass that go before `priority`, keeps to the rate, and says whether to stop.
fn give_way(shared: &Shared, priority: Priority, bytes: u64) -> bool {
    let before = match priority {
        Priority::Bottom => Priority::Upper,
        _ => Priority::Flush,
    };
    for _ in 0..PASSING_MAX {
        if !shared.scheduler.help_up_to(before) {
            break;
        }
    }
    let must_stop = || {
        let state = shared.state.lock();
        state.closing || state.paused > 0
    };
    if let Some(rate) = &shared.options.merge_rate {
        let mut wait = rate.take(bytes, shared.options.clock.monotonic());
        while !wait.is_zero() && !must_stop() {
            if !shared.scheduler.help_up_to(before) {
                shared.rest(wait.min(RATE_SLEEP_MAX));
            }
            wait = rate.take(0, shared.options.clock.monotonic());
        }
    }
    must_stop()
}

/// Merges and installs.
fn merge(shared: &Shared, work: &Work, plan: &Merge, priority: Priority) -> Result<Outcome> {
    let inputs: Vec<&Run> = work
        .version
        .runs
        .iter()
        .filter(|run| plan.runs.contains(&run.number))
        .collect();
    let oldest = work
        .version
        .runs
        .iter()
        .rposition(|run| plan.runs.contains(&run.number));
    let is_bottom = plan.output_tier == BOTTOM;
    let older = match oldest {
        Some(at) if !is_bottom => work.version.runs.get(at + 1..).unwrap_or_default(),
        _ => &[],
    };
    let bottom: Vec<&LiveView> = (work
        .version
        .runs
        .iter()
        .filter(|run| is_bottom && run.is_bottom()))
    .flat_map(|run| &run.tables)
    .filter(|live| {
        plan.bottom
            .iter()
            .any(|(id, start)| live.table.id() == *id && live.visible.start == *start)
    })
    .collect();
    let clipped: Vec<Vec<LiveView>> = inputs
        .iter()
        .map(|run| clip(&run.tables, &plan.slice))
        .chain([bottom
            .iter()
            .map(|live| LiveView::new(live.table.clone(), live.visible.clone()))
            .collect()])
        .collect();
    let sources = clipped
        .iter()
        .map(|tables| Source::Run(RunIter::streaming(tables)))
        .collect();
    let mut merge = MergeIter::hiding(sources, work.floors.as_deref());
    merge.seek(&plan.slice.start)?;
    let mut output = Output::new(shared, output_options(shared, work, plan));
    let stops = |bytes: u64| give_way(shared, priority, bytes);
    let resolver = Resolver {
        operator: work.options.merge.as_deref(),
        older: &[older],
        expiry: work.expiry_within(plan, &inputs),
        expired: Cell::default(),
        filter: filter(shared, &work.options),
        stops: &stops,
    };
    output.set_range_deletes(resolver.kept_range_deletes(&range_deletes(&clipped)?));
    let outcome = resolver.run(&mut merge, plan.slice.end.as_deref(), &mut output)?;
    let mut slice = plan.slice.clone();
    if outcome == Outcome::Stopped {
        let is_worth_it = output.bytes() >= shared.options.target_file_bytes / KEPT_FRACTION;
        match merge.top() {
            Some(next) if is_bottom && is_worth_it => slice.end = Some(next.key.to_vec()),
            _ => return Ok(Outcome::Stopped),
        }
    }
    let read_bytes: u64 = clipped
        .iter()
        .flatten()
        .map(|live| live.table.record.facts.bytes)
        .sum();
    drop(merge);
    let expired = resolver.expired.get();
    let tables = output.finish()?;
    let written_bytes: u64 = tables.iter().map(|table| table.record.facts.bytes).sum();
    let mut edit = removals(work.id, plan, &slice, &inputs, &bottom);
    edit.changes.extend(
        tables
            .iter()
            .map(|table| Change::AddTable(work.id, table.record.clone())),
    );
    edit.changes.extend(work.time());
    if !shared.install((work.id, work.epoch), &edit, tables, |_| {})? {
        return Ok(outcome);
    }
    let counters = &shared.counters;
    counters.compactions.fetch_add(1, Ordering::Relaxed);
    counters.expired_entries.fetch_add(expired, Ordering::Relaxed);
    counters
        .bottom_compactions
        .fetch_add(u64::from(is_bottom), Ordering::Relaxed);
    counters
        .compaction_read_bytes
        .fetch_add(read_bytes, Ordering::Relaxed);
    counters
        .compaction_bytes
        .fetch_add(written_bytes, Ordering::Relaxed);
    Ok(outcome)
}

/// The parts among the runs of the version.
fn find<'a>(work: &'a Work, parts: &'a [Part]) -> impl Iterator<Item = (u64, &'a LiveView)> {
    let is_meant = |run: &Run, live: &LiveView| {
        parts.iter().any(|part| {
            run.number == part.run && live.table.id() == part.id && live.visible.start == part.visible_start
        })
    };
    work.version.runs.iter().flat_map(move |run| {
        let meant = run.tables.iter().filter(move |live| is_meant(run, live));
        meant.map(move |live| (run.number, live))
    })
}

fn remove(family: u32, run: u64, live: &LiveView) -> Change {
    Change::RemoveTable {
        family,
        run,
        id: live.table.id(),
        visible_start: live.visible.start.clone(),
    }
}

/// Puts parts that no other table touches into the bottom run.
fn move_parts(shared: &Shared, work: &Work, parts: &[Part]) -> Result<Outcome> {
    let mut edit = Edit::default();
    for (run, live) in find(work, parts) {
        edit.changes.push(remove(work.id, run, live));
        // There a range must not claim more than the keys it shows: others will be put beside it.
        let facts = &live.table.record.facts;
        let keys = KeyRange {
            start: facts.smallest.clone(),
            end: Some([&facts.largest[..], &[0]].concat()),
        };
        let record = TableRecord {
            run: 0,
            tier: BOTTOM,
            visible: live.visible.clip(&keys),
            ..live.table.record.clone()
        };
        edit.changes.push(Change::AddTable(work.id, record));
    }
    shared.install((work.id, work.epoch), &edit, Vec::new(), |_| {})?;
    let moved = parts.len() as u64;
    shared.counters.moved_files.fetch_add(moved, Ordering::Relaxed);
    Ok(Outcome::Complete)
}

/// Lets go of parts of which everything is gone.
fn drop_parts(shared: &Shared, work: &Work, parts: &[Part]) -> Result<Outcome> {
    let removed = find(work, parts).map(|(run, live)| remove(work.id, run, live));
    let edit = Edit {
        changes: removed.chain(work.time()).collect(),
    };
    shared.install((work.id, work.epoch), &edit, Vec::new(), |_| {})?;
    let dropped = parts.len() as u64;
    shared
        .counters
        .dropped_files
        .fetch_add(dropped, Ordering::Relaxed);
    Ok(Outcome::Complete)
}

fn output_options(shared: &Shared, work: &Work, plan: &Merge) -> OutputOptions {
    let is_bottom = plan.output_tier == BOTTOM;
    OutputOptions {
        table: TableOptions {
            block_bytes: shared.options.table_block_bytes(),
            compression: if is_bottom {
                shared.options.bottom_compression
            } else {
                shared.options.upper_compression
            },
            filter: !is_bottom || work.options.bottom_filter,
            partition_prefix: work.options.partition_prefix,
            filter_prefix: work.options.prefix_bytes,
        },
        run: plan.output_run,
        tier: plan.output_tier,
        target_file_bytes: Some(shared.options.target_file_bytes),
        cut_prefix: work.options.cut_prefix,
    }
}

/// The parts of tables inside of a slice.
fn clip(tables: &[LiveView], slice: &KeyRange) -> Vec<LiveView> {
    tables
        .iter()
        .filter(|live| slice.touches(&live.first, &live.last))
        .map(|live| LiveView::new(live.table.clone(), live.visible.clip(slice)))
        .collect()
}

/// All range deletes that are visible in these tables.
fn range_deletes(runs: &[Vec<LiveView>]) -> Result<RangeDeletes> {
    let mut all = RangeDeletes::new();
    for live in runs.iter().flatten() {
        if let Some(deletes) = live.range_deletes()? {
            all.extend(&deletes.clip(&live.visible));
        }
    }
    Ok(all)
}

/// Takes the inputs out. What of them lies outside of the slice stays.
fn removals(family: u32, plan: &Merge, slice: &KeyRange, inputs: &[&Run], bottom: &[&LiveView]) -> Edit {
    let mut edit = Edit::default();
    let bottom = bottom.iter().map(|live| (0, BOTTOM, *live));
    let upper = inputs.iter().flat_map(|run| {
        let tier = if plan.drains { DRAINING } else { run.tier };
        run.tables.iter().map(move |live| (run.number, tier, live))
    });
    for (run, tier, live) in bottom.chain(upper) {
        edit.changes.push(remove(family, run, live));
        for rest in outside(slice) {
            let visible = live.visible.clip(&rest);
            if visible.touches(&live.first, &live.last) {
                let record = TableRecord {
                    run,
                    tier,
                    visible,
                    ..live.table.record.clone()
                };
                edit.changes.push(Change::AddTable(family, record));
            }
        }
    }
    edit
}

/// The keys before and behind a slice.
fn outside(slice: &KeyRange) -> Vec<KeyRange> {
    let before = (!slice.start.is_empty()).then(|| KeyRange {
        start: Vec::new(),
        end: Some(slice.start.clone()),
    });
    let behind = slice.end.clone().map(|start| KeyRange { start, end: None });
    before.into_iter().chain(behind).collect()
}
