//! What to do next with a family's runs. Pure: facts about runs in, a plan out.
//!
//! Lazy levelling: tiers of [`PickOptions::fan_in`] runs above one bottom run. The rules, in order:
//! 1. Files of which everything has expired are dropped unread.
//! 2. Runs that are draining go on into the bottom, the next slice of their keys.
//! 3. On request, or where scans step over tombstones, what lies above the bottom in a range of keys goes into it.
//! 4. A tier is full (or, above [`PickOptions::runs_max`] runs, the youngest tiers hold `fan_in` runs together): it is
//!    merged into one run of the next tier. But if there is no bottom yet, or all upper runs together reach
//!    1/`fan_in` of it, all upper runs start to drain instead. So they do when they reach half of it, which bounds
//!    the dead bytes they hide, or when tombstones among them hide much of it.
//! 5. Files that hold entries which expired long ago are rewritten.
//! 6. A store at rest drains what hides more than a quarter of the bottom.
//!
//! Wherever runs would drain, files whose keys no other file touches are moved instead: sorted loads rewrite nothing.
//!
//! A slice ends where a bottom file begins, so a merge rewrites whole bottom files, at most about
//! [`PickOptions::slice_bytes`] of them, and needs no more extra space than that. [`slice_bytes`](super::slice_bytes) keeps it a small part
//! of the bottom: what a slice replaces goes when it is installed.

use super::{density, slice::slice};
use crate::{
    key::{KeyRange, TableId},
    version::edit::{BOTTOM, DRAINING},
};

/// Highest tier of a merged run that is not the bottom.
const TIER_MAX: u8 = 200;

/// Files moved or dropped by one edit.
const PARTS_PER_EDIT: usize = 256;

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
    /// `last` is the end of the visible range: no key, but the first one that is not visible.
    pub is_open: bool,
    /// About how many bytes are visible.
    pub bytes: u64,
    /// Versions in the file.
    pub entries: u64,
    /// Those that delete.
    pub tombstones: u64,
    /// Whether the file could stand in the bottom as it is.
    pub movable: bool,
    /// Oldest and newest stamp, in a family whose entries expire.
    pub stamps: Option<(u64, u64)>,
    /// Operands in it stand on entries of older runs with later stamps than this.
    pub stands_on: Option<u64>,
}

impl PartFacts {
    fn touches(&self, other: &PartFacts) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether some key of it may lie in `range`.
    pub(super) fn is_in(&self, range: &KeyRange) -> bool {
        range.touches(&self.first, &self.last) && !(self.is_open && self.last <= range.start)
    }

    fn part(&self, run: u64) -> Part {
        Part {
            run,
            id: self.id,
            visible_start: self.visible_start.clone(),
        }
    }
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
    /// Whether some part's keys meet those of `part`.
    fn touches(&self, part: &PartFacts) -> bool {
        let at = self.tables.partition_point(|table| table.last < part.first);
        self.tables.get(at).is_some_and(|table| table.touches(part))
    }
}

/// A family's runs, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelFacts {
    /// Newest first, the bottom last.
    pub runs: Vec<RunFacts>,
    /// Sizes of the same runs.
    pub shape: Shape,
    /// What is wanted beyond the rules of the shape.
    pub wishes: Wishes,
}

/// Sizes of a family, known without looking at its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// About how many bytes are visible in the bottom run.
    pub bottom_bytes: u64,
    /// Versions in its files.
    pub bottom_entries: u64,
    /// About how many bytes are visible above it.
    pub upper_bytes: u64,
    /// Versions in those files.
    pub upper_entries: u64,
    /// Those that delete.
    pub upper_tombstones: u64,
}

/// What is wanted of a family beyond a good shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Somebody asked for everything in this range to go to the bottom.
    pub requested: Option<KeyRange>,
    /// Scans step over tombstones of upper runs here.
    pub dense: Option<Box<KeyRange>>,
    /// Bottom files that are to be rewritten, though nothing above touches them.
    pub rewritten: Vec<TableId>,
    /// Nothing was written for a while, or somebody waits until nothing is left to do.
    pub at_rest: bool,
    /// Entries with this stamp or an older one have expired.
    pub expired: Option<u64>,
    /// Entries with this stamp or an older one should not be on disk any more.
    pub overdue: Option<u64>,
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
    /// Smaller files are merged rather than moved.
    pub moved_bytes_min: u64,
}

/// Names a visible part of a table in a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of its run.
    pub run: u64,
    /// The table.
    pub id: TableId,
    /// Start of the visible range.
    pub visible_start: Vec<u8>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Merge runs.
    Merge(Merge),
    /// Let files stand in the bottom run as they are.
    Move(Vec<Part>),
    /// Let go of files without reading them.
    Drop(Vec<Part>),
    /// Look for files that range deletes or floors cover, and let go of them.
    DropCovered,
}

/// One merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Numbers of the upper runs that are merged, newest first.
    pub runs: Vec<u64>,
    /// The keys that are merged; all of the input runs if they are merged into an upper run.
    pub slice: KeyRange,
    /// Bottom tables that take part: id and start of the visible range.
    pub bottom: Vec<(TableId, Vec<u8>)>,
    /// Number of the output run.
    pub output_run: u64,
    /// Tier of the output run; [`BOTTOM`] if the runs drain.
    pub output_tier: u8,
    /// Whether what is left of the input runs goes on draining. Otherwise it keeps its tiers.
    pub drains: bool,
}

/// Whether [`pick`] could find work, by tiers and sizes alone: facts about thousands of tables are gathered only
/// then.
pub fn may_be_due(
    tiers: impl Iterator<Item = u8>,
    shape: &Shape,
    wishes: &Wishes,
    options: &PickOptions,
) -> bool {
    let (bottom, upper): (Vec<u8>, Vec<u8>) = tiers.partition(|tier| *tier == BOTTOM);
    let runs = bottom.len() + upper.len();
    if runs == 0 {
        return false;
    }
    wishes.expired.is_some()
        || wishes.overdue.is_some()
        || !wishes.rewritten.is_empty()
        || (!upper.is_empty() && (wishes.names_keys() || hides_much(shape, upper.len(), wishes)))
        || upper.contains(&DRAINING)
        || full_tier(upper, runs, options).is_some()
}

/// Whether the upper runs hide so much of the bottom that they should drain though no tier is full.
fn hides_much(shape: &Shape, upper_runs: usize, wishes: &Wishes) -> bool {
    let has_bottom = shape.bottom_bytes > 0;
    let upper_bytes = shape.upper_bytes;
    // One run alone is left to grow company: draining it would rewrite more than it hides.
    let half = has_bottom && upper_runs >= 2 && upper_bytes.saturating_mul(2) >= shape.bottom_bytes;
    let quarter = if has_bottom {
        upper_bytes.saturating_mul(4) > shape.bottom_bytes
    } else {
        upper_runs >= 2
    };
    let tombstones = shape.upper_tombstones;
    let dead = tombstones.saturating_mul(2) > shape.upper_entries
        && tombstones.saturating_mul(8) > shape.bottom_entries;
    half || dead || (wishes.at_rest && quarter)
}

/// The next work of a family, if any is due.
pub fn pick(facts: &LevelFacts, options: &PickOptions) -> Option<Plan> {
    if let Some(plan) = drop_expired(facts) {
        return Some(plan);
    }
    let (bottom, upper): (Vec<&RunFacts>, Vec<&RunFacts>) =
        facts.runs.iter().partition(|run| run.tier == BOTTOM);
    let bottom = bottom.first().copied();
    let draining: Vec<_> = upper.iter().copied().filter(|run| run.tier == DRAINING).collect();
    if !draining.is_empty() {
        return drain(&draining, &upper, bottom, options);
    }
    if let Some(range) = &facts.wishes.requested
        && let Some(plan) = drain_range(range, &upper, bottom, options)
    {
        return Some(plan);
    }
    if let Some(plan) = rewrite(&facts.wishes.rewritten, bottom) {
        return Some(plan);
    }
    let met = density::still_met(&facts.wishes, &upper);
    if let Some(plan) = met.and_then(|range| drain_range(range, &upper, bottom, options)) {
        return Some(plan);
    }
    let tiers = upper.iter().map(|run| run.tier).collect();
    let full = full_tier(tiers, facts.runs.len(), options);
    let shape = &facts.shape;
    let is_large = shape.upper_bytes.saturating_mul(options.fan_in as u64) >= shape.bottom_bytes;
    let must_drain = full.is_some() && (bottom.is_none() || is_large);
    if !upper.is_empty() && (must_drain || hides_much(shape, upper.len(), &facts.wishes)) {
        return drain(&upper, &upper, bottom, options);
    }
    match full {
        Some(tier) => tiers_into_one(tier, &upper, bottom, options),
        None => rewrite_overdue(facts, &upper, bottom, options),
    }
}

/// Merges the runs up to `tier` into one run of the next tier.
fn tiers_into_one(
    tier: u8,
    upper: &[&RunFacts],
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> Option<Plan> {
    if let Some(plan) = move_alone(upper, upper, bottom, options) {
        return Some(plan);
    }
    // Mounted runs may come with tiers out of order: everything newer than the oldest member joins in.
    let oldest = upper.iter().rposition(|run| run.tier <= tier)?;
    let young = upper.get(..=oldest)?;
    Some(Plan::Merge(Merge {
        runs: young.iter().map(|run| run.number).collect(),
        slice: KeyRange::all(),
        bottom: Vec::new(),
        output_run: young.first()?.number,
        output_tier: tier.saturating_add(1).min(TIER_MAX),
        drains: false,
    }))
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

/// Files whose newest entry has expired, unless they hide one in an older run that has not, or one in a newer run
/// stands on it.
fn drop_expired(facts: &LevelFacts) -> Option<Plan> {
    let expired = facts.wishes.expired?;
    let mut stay: Vec<&PartFacts> = Vec::new();
    let mut dropped = Vec::new();
    for (at, run) in facts.runs.iter().enumerate().rev() {
        let newer = facts.runs.get(..at).unwrap_or_default().iter();
        let needed = newer
            .flat_map(|run| &run.tables)
            .filter_map(|part| part.stands_on);
        let expired = needed.min().map_or(expired, |needed| needed.min(expired));
        let older = stay.len();
        for part in &run.tables {
            let is_over = part.stamps.is_some_and(|(_, newest)| newest <= expired);
            let hides = || stay.iter().take(older).any(|other| other.touches(part));
            if is_over && !hides() {
                dropped.push(part.part(run.number));
            } else {
                stay.push(part);
            }
        }
    }
    dropped.truncate(PARTS_PER_EDIT);
    (!dropped.is_empty()).then_some(Plan::Drop(dropped))
}

/// The next of these bottom files that is still there.
fn rewrite(tables: &[TableId], bottom: Option<&RunFacts>) -> Option<Plan> {
    let part = bottom?.tables.iter().find(|part| tables.contains(&part.id))?;
    Some(rewrite_one(part))
}

/// Reads a bottom file and writes it again.
fn rewrite_one(part: &PartFacts) -> Plan {
    Plan::Merge(Merge {
        runs: Vec::new(),
        slice: KeyRange {
            start: part.first.clone(),
            end: Some(behind(&part.last)),
        },
        bottom: vec![(part.id, part.visible_start.clone())],
        output_run: 0,
        output_tier: BOTTOM,
        drains: false,
    })
}

/// Files with entries that should not be on disk any more.
fn rewrite_overdue(
    facts: &LevelFacts,
    upper: &[&RunFacts],
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> Option<Plan> {
    let overdue = facts.wishes.overdue?;
    let is_overdue = |part: &&PartFacts| part.stamps.is_some_and(|(oldest, _)| oldest <= overdue);
    if upper
        .iter()
        .flat_map(|run| &run.tables)
        .any(|part| is_overdue(&part))
    {
        return drain(upper, upper, bottom, options);
    }
    let bottom = bottom?;
    let part = bottom.tables.iter().find(is_overdue)?;
    // What lies above the file's keys has to join in, or the slice would not hold the newest versions.
    let range = KeyRange {
        start: part.first.clone(),
        end: Some(behind(&part.last)),
    };
    drain_range(&range, upper, Some(bottom), options).or_else(|| Some(rewrite_one(part)))
}

fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Parts of `runs` whose keys no other part of the family touches go to the bottom unread.
fn move_alone(
    runs: &[&RunFacts],
    upper: &[&RunFacts],
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> Option<Plan> {
    let mut alone = Vec::new();
    for run in runs {
        for part in &run.tables {
            let others = upper
                .iter()
                .copied()
                .chain(bottom)
                .filter(|other| other.number != run.number);
            if part.movable
                && part.bytes >= options.moved_bytes_min
                && !others.into_iter().any(|other| other.touches(part))
            {
                alone.push(part.part(run.number));
            }
        }
    }
    alone.truncate(PARTS_PER_EDIT);
    (!alone.is_empty()).then_some(Plan::Move(alone))
}

/// Merges the next slice of `runs` into the bottom.
fn drain(
    runs: &[&RunFacts],
    upper: &[&RunFacts],
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> Option<Plan> {
    if let Some(plan) = move_alone(runs, upper, bottom, options) {
        return Some(plan);
    }
    let parts = || runs.iter().flat_map(|run| &run.tables);
    let first = parts().map(|part| &part.first).min()?;
    let last = parts().map(|part| &part.last).max()?;
    let range = (first.clone(), last.as_slice());
    let (slice, taken) = slice(range, bottom, options);
    Some(Plan::Merge(Merge {
        runs: runs.iter().map(|run| run.number).collect(),
        slice,
        bottom: taken,
        output_run: 0,
        output_tier: BOTTOM,
        drains: true,
    }))
}

/// Merges the next slice of what lies above the bottom in `range`; the rest of the runs stays what it is.
fn drain_range(
    range: &KeyRange,
    upper: &[&RunFacts],
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> Option<Plan> {
    if range.is_all() {
        return drain(upper, upper, bottom, options);
    }
    let parts = || {
        let parts = upper.iter().flat_map(|run| &run.tables);
        parts.filter(|part| part.is_in(range))
    };
    let first = parts().map(|part| &part.first).min()?.max(&range.start).clone();
    let last = parts().map(|part| &part.last).max()?;
    let last = match &range.end {
        Some(end) => last.min(end),
        None => last,
    };
    let (mut slice, taken) = slice((first, last), bottom, options);
    if slice.end.is_none()
        && let Some(end) = &range.end
    {
        // Bottom files that take part are rewritten whole.
        let files = bottom.map(|run| run.tables.as_slice()).unwrap_or_default();
        let is_taken = |part: &&PartFacts| {
            taken
                .iter()
                .any(|(id, start)| part.id == *id && part.visible_start == *start)
        };
        let files_end = files.iter().rfind(is_taken).map(|part| behind(&part.last));
        slice.end = Some(files_end.map_or(end.clone(), |files_end| files_end.max(end.clone())));
        // The file behind may begin before that only if it was not taken because nothing above touches it.
        let next = files
            .iter()
            .find(|part| !is_taken(part) && part.first >= slice.start);
        if let (Some(next), Some(end)) = (next, &mut slice.end)
            && next.first < *end
        {
            end.clone_from(&next.first);
        }
    }
    let members = upper
        .iter()
        .filter(|run| run.tables.iter().any(|part| part.is_in(&slice)));
    Some(Plan::Merge(Merge {
        runs: members.map(|run| run.number).collect(),
        slice,
        bottom: taken,
        output_run: 0,
        output_tier: BOTTOM,
        drains: false,
    }))
}
