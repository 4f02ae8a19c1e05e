//! Doing what the picker says: one merge, from plan to installed edit.
//!
//! ```text
//! pick (facts) ─► merge inputs, clipped to the slice ─► output files ─► edit: inputs out, outputs in ─► install
//! ```
//! The edit's append to the manifest makes the merge visible. A crash before leaves the inputs in charge and stray
//! files that the next open removes; after it the inputs are strays.

use super::{
    output::{Output, OutputOptions},
    picker::{self, LevelFacts, PartFacts, PickOptions, Plan, RunFacts},
    resolve::{Outcome, Resolver},
};
use crate::{
    iter::{MergeIter, RunIter, Source},
    key::KeyRange,
    merge_operator::MergeOperator,
    shared::{Shared, State},
    table::TableOptions,
    version::{
        LiveView, Run, Version,
        edit::{BOTTOM, Change, DRAINING, Edit, TableRecord},
    },
};
use keybed_env::Priority;
use keybed_format::Result;
use std::sync::{Arc, atomic::Ordering};

/// A merge that is due: what a job needs to know.
pub(crate) struct Work {
    id: u32,
    cut_prefix: u8,
    partition_prefix: u8,
    prefix_bytes: u16,
    bottom_filter: bool,
    operator: Option<Arc<dyn MergeOperator>>,
    version: Arc<Version>,
    plan: Plan,
}

/// Facts about a version, for the picker.
pub(crate) fn facts(version: &Version, requested: bool) -> LevelFacts {
    let part = |live: &LiveView| PartFacts {
        id: live.table.id(),
        visible_start: live.visible.start.clone(),
        first: live.first.clone(),
        last: live.last.clone(),
        bytes: live.bytes(),
    };
    let run = |run: &Run| RunFacts {
        number: run.number,
        tier: run.tier,
        tables: run.tables.iter().map(part).collect(),
    };
    LevelFacts {
        runs: version.runs.iter().map(run).collect(),
        requested,
    }
}

/// The next merge of the store, if one is due and allowed. Called under the state lock, which the owner waits for:
/// no I/O, and no look at the tables unless a merge is due.
pub(crate) fn next(shared: &Shared, state: &mut State) -> Option<Work> {
    let options = PickOptions {
        fan_in: shared.options.fan_in,
        runs_max: shared.options.runs_max,
        slice_bytes: shared.options.target_file_bytes.saturating_mul(4),
    };
    for family in &mut state.families {
        // An operator that the program has not named yet cannot be applied.
        if family.dropped || family.operator_missing || (!shared.options.compaction && !family.requested) {
            continue;
        }
        let (version, requested) = (&family.version, family.requested);
        let tiers = version.runs.iter().map(|run| run.tier);
        let is_due = picker::may_be_due(tiers, requested, &options);
        let plan = is_due.then(|| picker::pick(&facts(version, requested), &options));
        let Some(plan) = plan.flatten() else {
            family.requested = false;
            continue;
        };
        return Some(Work {
            id: family.id,
            cut_prefix: family.options.cut_prefix,
            partition_prefix: family.options.partition_prefix,
            prefix_bytes: family.options.prefix_bytes,
            bottom_filter: family.options.bottom_filter,
            operator: family.options.merge.clone(),
            version: family.version.clone(),
            plan,
        });
    }
    None
}

/// Starts a compaction if one is due and none is under way.
pub(crate) fn schedule(shared: &Arc<Shared>) {
    let work = {
        let mut state = shared.state.lock();
        if state.compacting || state.closing || state.poisoned.is_some() || state.compaction_error.is_some() {
            return;
        }
        let Some(work) = next(shared, &mut state) else {
            return;
        };
        state.compacting = true;
        work
    };
    let priority = if work.plan.output_tier == BOTTOM {
        Priority::Bottom
    } else {
        Priority::Upper
    };
    let shared_for_job = shared.clone();
    shared.scheduler.submit(
        priority,
        Box::new(move || {
            let ended = Ended(shared_for_job);
            let timings = &ended.0.timings.compaction;
            let result = ended.0.timed(timings, || run(&ended.0, &work));
            drop(work);
            ended.0.bury_the_dead();
            ended.end(result);
        }),
    );
}

/// Says that the compaction is over, whatever happened, and looks for the next one.
struct Ended(Arc<Shared>);

impl Ended {
    fn end(&self, result: Result<Outcome>) {
        let mut state = self.0.state.lock();
        if let Err(error) = result {
            state.compaction_error = Some(error);
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

/// Merges and installs.
fn run(shared: &Shared, work: &Work) -> Result<Outcome> {
    let plan = &work.plan;
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
    let mut merge = MergeIter::new(sources);
    merge.seek(&plan.slice.start)?;
    let mut output = Output::new(shared, output_options(shared, work));
    let cancelled = || shared.state.lock().closing;
    let resolver = Resolver {
        operator: work.operator.as_deref(),
        older,
        cancelled: &cancelled,
    };
    if resolver.run(&mut merge, plan.slice.end.as_deref(), &mut output)? == Outcome::Cancelled {
        return Ok(Outcome::Cancelled);
    }
    let read_bytes: u64 = clipped
        .iter()
        .flatten()
        .map(|live| live.table.record.facts.bytes)
        .sum();
    drop(merge);
    let tables = output.finish()?;
    let written_bytes: u64 = tables.iter().map(|table| table.record.facts.bytes).sum();
    let mut edit = removals(work, &inputs, &bottom);
    edit.changes.extend(
        tables
            .iter()
            .map(|table| Change::AddTable(work.id, table.record.clone())),
    );
    shared.install(work.id, &edit, tables, |_| {})?;
    let counters = &shared.counters;
    counters.compactions.fetch_add(1, Ordering::Relaxed);
    counters
        .bottom_compactions
        .fetch_add(u64::from(is_bottom), Ordering::Relaxed);
    counters
        .compaction_read_bytes
        .fetch_add(read_bytes, Ordering::Relaxed);
    counters
        .compaction_bytes
        .fetch_add(written_bytes, Ordering::Relaxed);
    Ok(Outcome::Complete)
}

fn output_options(shared: &Shared, work: &Work) -> OutputOptions {
    let is_bottom = work.plan.output_tier == BOTTOM;
    OutputOptions {
        table: TableOptions {
            block_bytes: shared.options.block_bytes,
            compression: if is_bottom {
                shared.options.bottom_compression
            } else {
                shared.options.upper_compression
            },
            filter: !is_bottom || work.bottom_filter,
            partition_prefix: work.partition_prefix,
            filter_prefix: work.prefix_bytes,
        },
        run: work.plan.output_run,
        tier: work.plan.output_tier,
        target_file_bytes: Some(shared.options.target_file_bytes),
        cut_prefix: work.cut_prefix,
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

/// Takes the inputs out. Of a draining run the part behind the slice stays.
fn removals(work: &Work, inputs: &[&Run], bottom: &[&LiveView]) -> Edit {
    let mut edit = Edit::default();
    let mut remove = |run: u64, live: &LiveView| {
        edit.changes.push(Change::RemoveTable {
            family: work.id,
            run,
            id: live.table.id(),
            visible_start: live.visible.start.clone(),
        });
    };
    for live in bottom {
        remove(0, live);
    }
    for run in inputs {
        run.tables.iter().for_each(|live| remove(run.number, live));
    }
    let Some(end) = &work.plan.slice.end else {
        return edit;
    };
    let rest = KeyRange {
        start: end.clone(),
        end: None,
    };
    for run in inputs {
        for live in &run.tables {
            let visible = live.visible.clip(&rest);
            if visible.touches(&live.first, &live.last) {
                let record = TableRecord {
                    run: run.number,
                    tier: DRAINING,
                    visible,
                    ..live.table.record.clone()
                };
                edit.changes.push(Change::AddTable(work.id, record));
            }
        }
    }
    edit
}
