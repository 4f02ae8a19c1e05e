//! Tables of which nothing is seen any more: they go by an edit, without being read.
//!
//! A table is covered if range deletes of one newer run, or the floors, hide all keys between its first and its last,
//! and are newer than everything in it. Its own range deletes hide nothing then that these do not hide, too. `View`s and
//! pinned files hold the versions they saw; memtables that are not flushed yet hold nothing older.

use super::picker::Part;
use crate::{
    floor::Floors,
    key::KeyRange,
    range_delete::RangeDeletes,
    version::{LiveView, Run, Version, region},
};
use keybed_format::Result;

/// The covered tables of a family.
///
/// # Errors
/// Those of opening a table that holds range deletes.
pub(crate) fn parts(version: &Version, floors: Option<&Floors>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let floors = floors.map(Floors::fragments);
    for (at, run) in version.runs.iter().enumerate() {
        for live in &run.tables {
            if is_covered(live, version.runs.get(..at).unwrap_or_default(), floors)? {
                parts.push(Part {
                    run: run.number,
                    id: live.table.id(),
                    visible_start: live.visible.start.clone(),
                });
            }
        }
    }
    Ok(parts)
}

fn is_covered(live: &LiveView, newer: &[Run], floors: Option<&RangeDeletes>) -> Result<bool> {
    let (range, seqno_max) = (live.hull(), live.table.record.seqno_max());
    if floors.is_some_and(|floors| floors.covers(&range, seqno_max)) {
        return Ok(true);
    }
    for run in newer.iter().filter(|run| run.has_range_deletes()) {
        if covers(run, &range, seqno_max)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether range deletes of `run` hide all of `range` that is not newer than `seqno`.
fn covers(run: &Run, range: &KeyRange, seqno: u64) -> Result<bool> {
    let mut from = range.start.clone();
    loop {
        let region = region(&run.tables, &from)?;
        if region.seqno.is_none_or(|deleted| deleted <= seqno) {
            return Ok(false);
        }
        match (region.keys.end, &range.end) {
            (None, _) => return Ok(true),
            (Some(end), Some(last)) if end >= *last => return Ok(true),
            (Some(end), _) => from = end,
        }
    }
}
