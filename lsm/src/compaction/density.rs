//! When scans ask for a merge: where they step over tombstones that a merge would drop.
//!
//! ```text
//! scan (iter/meter.rs)   64 tombstones, hardly anything that lives ──► this range, so many steps
//! Density                steps summed up, while the ranges touch
//! is_worth               GAIN × steps ≥ entries that the merge would look at ──► Wishes::dense
//! ```
//! So merges that scans ask for cost at most a constant times what the scans have wasted, and none is asked for where
//! the upper runs hold no such tombstones: a view may walk what went long ago, and what is in the bottom has to stay.

use super::{
    picker::{Plan, RunFacts, Wishes},
    work,
};
use crate::{
    key::KeyRange,
    shared::{Shared, State},
    version::{Version, edit::BOTTOM},
};
use std::sync::Arc;

/// Entries that a merge may look at for each step that scans took in vain.
const GAIN: u64 = 4;

/// Where scans of a family met tombstones in tables, and how many, since a merge was asked for last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Density {
    range: Option<KeyRange>,
    steps: u64,
}

/// What tables hold in a range of keys; files count as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InRange {
    /// Versions.
    pub entries: u64,
    /// Those above the bottom that delete.
    pub upper_tombstones: u64,
}

impl Density {
    /// A scan stepped over so many tombstones in `range`, one after the other or nearly so. Of ranges that lie apart the
    /// one with more steps is remembered, and fades.
    pub fn note(&mut self, range: &KeyRange, steps: u64) {
        match &mut self.range {
            Some(known) if touch(known, range) => {
                *known = hull(known, range);
                self.steps = self.steps.saturating_add(steps);
            }
            Some(_) if self.steps / 2 >= steps => self.steps /= 2,
            _ => (self.range, self.steps) = (Some(range.clone()), steps),
        }
    }

    /// Where, if anywhere.
    pub fn range(&self) -> Option<&KeyRange> {
        self.range.as_ref()
    }

    /// Whether a merge of the range, which holds this, costs little beside what scans wasted there. The last of them took
    /// `steps`: if tables have much fewer tombstones, others were met.
    pub fn is_worth(&self, held: &InRange, steps: u64) -> bool {
        held.upper_tombstones.saturating_mul(2) >= steps.max(1)
            && self.steps.saturating_mul(GAIN) >= held.entries
    }
}

/// Whether the ranges have a key in common, or nothing lies between them.
fn touch(a: &KeyRange, b: &KeyRange) -> bool {
    let reaches = |a: &KeyRange, b: &KeyRange| a.end.as_ref().is_none_or(|end| *end >= b.start);
    reaches(a, b) && reaches(b, a)
}

fn hull(a: &KeyRange, b: &KeyRange) -> KeyRange {
    KeyRange {
        start: a.start.as_slice().min(&b.start).to_vec(),
        end: a.end.as_ref().zip(b.end.as_ref()).map(|(a, b)| a.max(b).clone()),
    }
}

impl Wishes {
    /// Whether what lies above the bottom is wanted there, somewhere.
    pub(super) fn names_keys(&self) -> bool {
        self.requested.is_some() || self.dense.is_some()
    }

    /// What of the wishes is left once `plan` is under way: tombstones are asked for once, a slice after the other.
    pub fn begin(&mut self, plan: &Plan) {
        let Plan::Merge(merge) = plan else { return };
        if merge.output_tier != BOTTOM || merge.runs.is_empty() {
            return;
        }
        self.dense = self.dense.take().and_then(|mut range| {
            range.start = range.start.max(merge.slice.end.clone()?);
            (!range.is_empty()).then_some(range)
        });
    }
}

/// Where scans stepped over tombstones, if upper runs still hold some there: a merge into the bottom drops them.
pub(super) fn still_met<'w>(wishes: &'w Wishes, upper: &[&RunFacts]) -> Option<&'w KeyRange> {
    let range = wishes.dense.as_deref()?;
    let mut parts = upper.iter().flat_map(|run| &run.tables);
    parts
        .any(|part| part.tombstones > 0 && part.is_in(range))
        .then_some(range)
}

fn in_range(version: &Version, range: &KeyRange) -> InRange {
    let mut held = InRange::default();
    for run in &version.runs {
        let from = run.tables.partition_point(|table| table.is_before(&range.start));
        let tables = run.tables.get(from..).unwrap_or_default();
        for live in tables.iter().take_while(|live| !range.ends_before(&live.first)) {
            let facts = &live.table.record.facts;
            held.entries = held.entries.saturating_add(facts.entries);
            if !run.is_bottom() {
                held.upper_tombstones = held.upper_tombstones.saturating_add(facts.tombstones);
            }
        }
    }
    held
}

/// Takes notice of a scan; true if a merge is wanted now.
fn note(state: &mut State, number: usize, range: &KeyRange, steps: u64) -> bool {
    if state.is_read_only || state.closing {
        return false;
    }
    let Some(family) = state.families.get_mut(number) else {
        return false;
    };
    if family.dropped {
        return false;
    }
    let density = family.density.get_or_insert_default();
    density.note(range, steps);
    let Some(range) = density.range() else {
        return false;
    };
    if !density.is_worth(&in_range(&family.version, range), steps) {
        return false;
    }
    let range = family.density.take().and_then(|density| density.range);
    let wished = family.wishes.dense.take();
    family.wishes.dense = range.map(|range| match wished {
        Some(wished) if touch(&wished, &range) => Box::new(hull(&wished, &range)),
        _ => Box::new(range),
    });
    true
}

impl Shared {
    /// A scan of family `number` stepped over so many tombstones in `range`. Asks for a merge of them once that is worth it.
    pub(crate) fn stepped_over(self: &Arc<Self>, number: usize, range: &KeyRange, steps: u64) {
        if self.options.compaction && note(&mut self.state.lock(), number, range, steps) {
            work::schedule(self);
        }
    }
}
