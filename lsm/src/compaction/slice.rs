//! How much of the bottom one merge rewrites, and which files that are.

use super::picker::{PickOptions, RunFacts};
use crate::key::{KeyRange, TableId};

/// A slice of the bottom is at most a sixteenth of it...
const SLICE_FRACTION: u64 = 16;
/// ... or so many files, if that is less.
const SLICE_FILES_MAX: u64 = 4;

/// [`PickOptions::slice_bytes`](PickOptions::slice_bytes) for a bottom of so many bytes in files of `file_bytes`: one file and the small one that
/// may lie beside it, more in a large bottom. Small slices cost little more and keep the extra space of a merge small.
pub fn slice_bytes(bottom_bytes: u64, file_bytes: u64) -> u64 {
    let least = file_bytes.saturating_add(file_bytes / 2);
    (bottom_bytes / SLICE_FRACTION).clamp(least, file_bytes.saturating_mul(SLICE_FILES_MAX).max(least))
}

/// The slice from `first` on and the bottom files in it: whole ones, so it may begin before `first`.
pub(super) fn slice(
    (first, last): (Vec<u8>, &[u8]),
    bottom: Option<&RunFacts>,
    options: &PickOptions,
) -> (KeyRange, Vec<(TableId, Vec<u8>)>) {
    let mut start = first;
    let mut taken = Vec::new();
    let mut end = None;
    let mut bytes = 0_u64;
    for part in bottom.map(|run| run.tables.as_slice()).unwrap_or_default() {
        if part.last < start || part.first.as_slice() > last {
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
    (KeyRange { start, end }, taken)
}
