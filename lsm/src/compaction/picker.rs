//! What to merge next. Pure: facts about runs in, a plan out.
//!
//! Lazy levelling: tiers of [`PickOptions::fan_in`] runs above one bottom run. The rules, in order:
//! 1. Runs that are draining go on into the bottom, the next slice of their keys.
//! 2. On request everything above the bottom starts to drain.
//! 3. A tier that is full (or, above [`PickOptions::runs_max`] runs, the youngest tiers that hold `fan_in` runs
//!    together) is merged into one run of the next tier; but if there is no bottom yet, or all upper runs together
//!    reach 1/`fan_in` of it, all upper runs start to drain instead.
//!
//! A slice ends where a bottom file begins, so a merge rewrites whole bottom files, at most about
//! [`PickOptions::slice_bytes`] of them, and needs no more extra space than that.

use crate::{
    key::{KeyRange, TableId},
    version::edit::{BOTTOM, DRAINING},
};

/// Highest tier of a merged run that is not the bottom.
const TIER_MAX: u8 = 200;

/// A visible part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFacts {
    /// The table.
    pub id: TableId,
    /// Start of its visible range.
    pub visible_start: Vec<u8>,
    /// First key that may be visible.
    pub first: Vec<u8>,
    /// Last key that may be visible.
    pub last: Vec<u8>,
    /// About how many bytes are visible.
    pub bytes: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Larger is newer; the bottom is 0.
    pub number: u64,
    /// Tier.
    pub tier: u8,
    /// In the order of their keys.
    pub tables: Vec<PartFacts>,
}

impl RunFacts {
    fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}

/// A family's runs, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelFacts {
    /// Newest first, the bottom last.
    pub runs: Vec<RunFacts>,
    /// Somebody asked for everything to go to the bottom.
    pub requested: bool,
}

/// Bounds of the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickOptions {
    /// Runs of a tier that are merged together; also the ratio of bottom to upper bytes.
    pub fan_in: usize,
    /// Runs above which tiers are merged early.
    pub runs_max: usize,
    /// Bottom bytes rewritten at a time.
    pub slice_bytes: u64,
}

/// One merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of the upper runs that are merged, newest first.
    pub runs: Vec<u64>,
    /// The keys that are merged; all of the input runs unless they drain.
    pub slice: KeyRange,
    /// Bottom tables that take part: id and start of the visible range.
    pub bottom: Vec<(TableId, Vec<u8>)>,
    /// Number of the output run.
    pub output_run: u64,
    /// Tier of the output run; [`BOTTOM`] if the runs drain.
    pub output_tier: u8,
}

/// Whether [`pick`] could find a merge, by the tiers of the runs alone: facts about thousands of tables are gathered
/// only then.
pub fn may_be_due(tiers: impl Iterator<Item = u8>, requested: bool, options: &PickOptions) -> bool {
    let (bottom, upper): (Vec<u8>, Vec<u8>) = tiers.partition(|tier| *tier == BOTTOM);
    let runs = bottom.len() + upper.len();
    upper.contains(&DRAINING) || (requested && !upper.is_empty()) || full_tier(upper, runs, options).is_some()
}

/// The next merge of a family, if any is due.
pub fn pick(facts: &LevelFacts, options: &PickOptions) -> Option<Plan> {
    let (bottom, upper): (Vec<&RunFacts>, Vec<&RunFacts>) =
        facts.runs.iter().partition(|run| run.tier == BOTTOM);
    let bottom = bottom.first().copied();
    let draining: Vec<_> = upper.iter().copied().filter(|run| run.tier == DRAINING).collect();
    if !draining.is_empty() {
        return drain(&draining, bottom, options);
    }
    if facts.requested && !upper.is_empty() {
        return drain(&upper, bottom, options);
    }
    let tiers = upper.iter().map(|run| run.tier).collect();
    let tier = full_tier(tiers, facts.runs.len(), options)?;
    let upper_bytes: u64 = upper.iter().map(|run| run.bytes()).sum();
    if bottom.is_none_or(|bottom| upper_bytes.saturating_mul(options.fan_in as u64) >= bottom.bytes()) {
        return drain(&upper, bottom, options);
    }
    // Mounted runs may come with tiers out of order: everything newer than the oldest member joins in.
    let oldest = upper.iter().rposition(|run| run.tier <= tier)?;
    let young = upper.get(..=oldest)?;
    Some(Plan {
        runs: young.iter().map(|run| run.number).collect(),
        slice: KeyRange::all(),
        bottom: Vec::new(),
        output_run: young.first()?.number,
        output_tier: tier.saturating_add(1).min(TIER_MAX),
    })
}

/// The tier up to which runs should be merged; `tiers` are those of the upper runs.
fn full_tier(mut tiers: Vec<u8>, runs: usize, options: &PickOptions) -> Option<u8> {
    tiers.sort_unstable();
    let crowded = runs > options.runs_max;
    let is_full = |tier: &u8| {
        let members = tiers
            .iter()
            .filter(|other| if crowded { *other <= tier } else { *other == tier });
        members.count() >= options.fan_in
    };
    let full = tiers.iter().copied().find(|tier| is_full(tier));
    // With a small bound on the runs there may be fewer upper runs than the fan-in.
    full.or_else(|| {
        if crowded && tiers.len() > 1 {
            tiers.last().copied()
        } else {
            None
        }
    })
}

/// Merges the next slice of `runs` into the bottom.
fn drain(runs: &[&RunFacts], bottom: Option<&RunFacts>, options: &PickOptions) -> Option<Plan> {
    let parts = || runs.iter().flat_map(|run| &run.tables);
    let mut start = parts().map(|part| &part.first).min()?.clone();
    let last = parts().map(|part| &part.last).max()?;
    let mut taken = Vec::new();
    let mut end = None;
    let mut bytes = 0_u64;
    for part in bottom.map(|run| run.tables.as_slice()).unwrap_or_default() {
        if part.last < start || part.first > *last {
            continue;
        }
        if !taken.is_empty() && bytes.saturating_add(part.bytes) > options.slice_bytes {
            end = Some(part.first.clone());
            break;
        }
        start = start.min(part.first.clone());
        bytes += part.bytes;
        taken.push((part.id, part.visible_start.clone()));
    }
    Some(Plan {
        runs: runs.iter().map(|run| run.number).collect(),
        slice: KeyRange { start, end },
        bottom: taken,
        output_run: 0,
        output_tier: BOTTOM,
    })
}
