//! How the records of a text input are dealt to splits.
//!
//! ```text
//! record  0 … 63 | 64 … 127 | … | 960 … 1023 | 1024 … 1087 | …
//!        split 0 | split 1  | … | split 15   | split 0     | …
//! ```
//! Small blocks, so that event time advances alike in all splits however they are shared among subtasks. The number
//! of splits belongs to the input, not to the parallelism: a split moves as a whole, and its state is its next record,
//! counted inside the split; so the positions of all splits add up to the records read.

use keybed::{Error, Result, runtime::SplitStart};

/// Splits of an input, for ever: part of what a checkpoint means.
pub(crate) const SPLITS: u32 = 16;
/// Records of one block, for ever likewise.
const BLOCK_RECORDS: u64 = 64;
/// Records of other splits or of before the position that are passed over in one go, so that barriers are not held up.
pub(crate) const PASSED_RECORDS_MAX: u32 = 4096;

/// The split of a record, counted from 0, and its place in there.
pub(crate) fn deal(index: u64) -> (u32, u64) {
    let (block, in_block) = (index / BLOCK_RECORDS, index % BLOCK_RECORDS);
    let splits = u64::from(SPLITS);
    ((block % splits) as u32, block / splits * BLOCK_RECORDS + in_block) // the remainder is below SPLITS
}

/// Where to begin in the splits of one subtask.
pub(crate) struct Starts(Vec<Option<u64>>);

impl Starts {
    /// # Errors
    /// `InvalidArgument` if a split is none of the input's.
    pub(crate) fn of(splits: &[SplitStart]) -> Result<Starts> {
        let mut starts = vec![None; SPLITS as usize];
        for split in splits {
            match starts.get_mut(split.split as usize) {
                Some(start) => *start = Some(split.position),
                None => return Err(Error::invalid("the input has fewer splits").with("split", split.split)),
            }
        }
        Ok(Starts(starts))
    }

    /// The split of a record and the position after it, if it is to be read.
    pub(crate) fn wants(&self, index: u64) -> Option<(u32, u64)> {
        let (split, place) = deal(index);
        let start = self.0.get(split as usize).copied().flatten()?;
        (place >= start).then_some((split, place + 1))
    }

    /// Refuses an input that ends, after `records`, before a place where reading was to begin.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn demand_reached(&self, records: u64) -> Result {
        for (split, start) in (0..).zip(&self.0) {
            let there = records_of(split, records);
            if let Some(start) = start.filter(|start| *start > there) {
                let what = "the input ends before the place where reading is to go on, so it is not the one that was \
                            read before";
                return Err(Error::invalid(what)
                    .with("split", split)
                    .with("position", start)
                    .with("records", there));
            }
        }
        Ok(())
    }
}

/// How many of so many records are a split's.
fn records_of(split: u64, records: u64) -> u64 {
    let round = BLOCK_RECORDS * u64::from(SPLITS);
    let begun = (records % round).saturating_sub(split * BLOCK_RECORDS);
    records / round * BLOCK_RECORDS + begun.min(BLOCK_RECORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_ends_too_early_is_refused() {
        // A run from a savepoint over a shorter file read nothing, and finished.
        for records in [0, 1, 63, 64, 65, 1023, 1024, 1025, 336_776] {
            let mut counts = vec![0; SPLITS as usize];
            (0..records).for_each(|index| counts[deal(index).0 as usize] += 1);
            for (split, count) in (0..).zip(&counts) {
                assert_eq!(records_of(u64::from(split), records), *count);
                let start = |position| Starts::of(&[SplitStart { split, position }]).unwrap();
                start(*count).demand_reached(records).unwrap();
                let error = start(count + 1).demand_reached(records).unwrap_err();
                assert_eq!(error.exit_code(), 2, "{error}");
            }
        }
    }

    #[test]
    fn golden_deals_pin_what_a_position_means() {
        assert_eq!(deal(0), (0, 0));
        assert_eq!(deal(63), (0, 63));
        assert_eq!(deal(64), (1, 0));
        assert_eq!(deal(1023), (15, 63));
        assert_eq!(deal(1024), (0, 64));
        assert_eq!(deal(336_775), (14, 20_999));
    }
}
