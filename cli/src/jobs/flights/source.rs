//! The replayable source: lines of the input dealt to splits.
//!
//! ```text
//! line    1 | 2 … 65 | 66 … 129 | … | 962 … 1025 | 1026 … 1089 | …
//!   header  | split 0| split 1  | … | split 15   | split 0     | …
//! ```
//! Small blocks, so that event time advances alike in all splits however they are shared among subtasks. The number
//! of splits belongs to the input, not to the parallelism: a split moves as a whole, and its state is its next line,
//! counted inside the split; so the positions of all splits add up to the records read.

use super::record::{Columns, Flight};
use crate::{args::OnBadRecord, input::Lines};
use keybed::{
    Code, Error, Result,
    env::Fs,
    runtime::{Polled, Source, SourceReader, SplitStart},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Splits of the input, for ever: part of what a checkpoint means.
pub(crate) const SPLITS: u32 = 16;
/// Lines of one block, for ever likewise.
const BLOCK_LINES: u64 = 64;
/// Line of the first record; the header is line 1.
const FIRST_LINE: u64 = 2;
/// Lines of other splits or of before the position that are passed over in one go, so that barriers are not held up.
const PASSED_LINES_MAX: u32 = 4096;
/// How far event times are out of order within a split, at most; the data stay within a day.
const OUT_OF_ORDERNESS: Duration = Duration::from_secs(48 * 60 * 60);

/// The split of a record's line, and its place in there from 0.
fn deal(line: u64) -> (u32, u64) {
    let index = line.saturating_sub(FIRST_LINE);
    let (block, in_block) = (index / BLOCK_LINES, index % BLOCK_LINES);
    let splits = u64::from(SPLITS);
    ((block % splits) as u32, block / splits * BLOCK_LINES + in_block) // the remainder is below SPLITS
}

/// The flights data as a source.
pub(crate) struct FlightSource {
    /// The file.
    pub(crate) input: PathBuf,
    /// What to do with lines that cannot be understood.
    pub(crate) on_bad_record: OnBadRecord,
}

impl Source for FlightSource {
    type Record = Flight;

    fn splits(&self) -> u32 {
        SPLITS
    }

    fn out_of_orderness(&self) -> Duration {
        OUT_OF_ORDERNESS
    }

    fn open(&self, _: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<Flight>>> {
        Ok(Box::new(FlightReader::open(
            &self.input,
            splits,
            self.on_bad_record,
        )?))
    }
}

/// Reads the records of some splits in the order of the file.
struct FlightReader {
    lines: Lines,
    path: PathBuf,
    columns: Columns,
    on_bad_record: OnBadRecord,
    /// Place of the first record to return, by split; `None` = somebody else's split.
    starts: Vec<Option<u64>>,
}

impl FlightReader {
    fn open(path: &Path, splits: &[SplitStart], on_bad_record: OnBadRecord) -> Result<FlightReader> {
        let mut lines = Lines::open(path)?;
        let Some((line, header)) = lines.next()? else {
            let empty = Error::new(Code::BadRecord, "the input is empty, not even a header");
            return Err(empty.in_file(path).with("line", 1).with("column", "header"));
        };
        let columns = Columns::of_header(path, line, header)?;
        let mut starts = vec![None; SPLITS as usize];
        for split in splits {
            match starts.get_mut(split.split as usize) {
                Some(start) => *start = Some(split.position),
                None => return Err(Error::invalid("the input has fewer splits").with("split", split.split)),
            }
        }
        Ok(FlightReader {
            lines,
            path: path.into(),
            columns,
            on_bad_record,
            starts,
        })
    }
}

impl SourceReader<Flight> for FlightReader {
    fn poll_next(&mut self) -> Result<Polled<Flight>> {
        for _ in 0..PASSED_LINES_MAX {
            let Some((line, bytes)) = self.lines.next()? else {
                return Ok(Polled::End);
            };
            let (split, place) = deal(line);
            let start = self.starts.get(split as usize).copied().flatten();
            if start.is_none_or(|start| place < start) {
                continue;
            }
            let next = place + 1;
            return match Flight::of_line(&self.path, &self.columns, line, bytes) {
                Ok(value) => Ok(Polled::Record {
                    split,
                    next,
                    timestamp: value.time,
                    value,
                }),
                Err(_) if self.on_bad_record == OnBadRecord::Skip => Ok(Polled::Skipped { split, next }),
                Err(bad) => Err(bad),
            };
        }
        Ok(Polled::Pending(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fs};

    const HEADER: &str = "dep_time,dep_delay,tailnum,origin,dest,distance,minute,time_hour\n";

    /// A file of `records` good records; the tail number tells the line.
    fn input(records: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.csv");
        let line = |n| format!("1,0,N{n},A,B,1,0,2013-01-01T00:00:00Z\n");
        let text: String = (FIRST_LINE..FIRST_LINE + records).map(line).collect();
        fs::write(&path, format!("{HEADER}{text}")).unwrap();
        (dir, path)
    }

    fn starts(splits: impl IntoIterator<Item = u32>) -> Vec<SplitStart> {
        splits
            .into_iter()
            .map(|split| SplitStart { split, position: 0 })
            .collect()
    }

    /// Reads at most so many records; gives their lines, moves `splits` on, counts what was passed over.
    fn read(path: &Path, splits: &mut [SplitStart], at_most: usize) -> (Vec<u64>, u64) {
        let mut reader = FlightReader::open(path, splits, OnBadRecord::Skip).unwrap();
        let mut positions: BTreeMap<u32, &mut u64> =
            splits.iter_mut().map(|s| (s.split, &mut s.position)).collect();
        let (mut lines, mut bad) = (Vec::new(), 0);
        while lines.len() < at_most {
            match reader.poll_next().unwrap() {
                Polled::Record {
                    split, next, value, ..
                } => {
                    assert_eq!(value.tailnum, Some(format!("N{}", value.line)));
                    lines.push(value.line);
                    **positions.get_mut(&split).unwrap() = next;
                }
                Polled::Skipped { split, next } => {
                    bad += 1;
                    **positions.get_mut(&split).unwrap() = next;
                }
                Polled::Pending(_) => {}
                Polled::End => break,
                other => panic!("{other:?}"),
            }
        }
        (lines, bad)
    }

    fn all_lines(records: u64) -> Vec<u64> {
        (FIRST_LINE..FIRST_LINE + records).collect()
    }

    #[test]
    fn golden_deals_pin_what_a_position_means() {
        assert_eq!(deal(2), (0, 0));
        assert_eq!(deal(65), (0, 63));
        assert_eq!(deal(66), (1, 0));
        assert_eq!(deal(1025), (15, 63));
        assert_eq!(deal(1026), (0, 64));
        assert_eq!(deal(336_777), (14, 20_999));
    }

    #[test]
    fn subtasks_together_read_every_line_once() {
        let (_dir, path) = input(10_000);
        for parallelism in [1, 2, 3, 7, 16] {
            let mut seen = Vec::new();
            for subtask in 0..parallelism {
                let mut own = starts((0..SPLITS).filter(|s| s % parallelism == subtask));
                seen.extend(read(&path, &mut own, usize::MAX).0);
            }
            seen.sort_unstable();
            assert_eq!(seen, all_lines(10_000));
        }
    }

    #[test]
    fn positions_go_on_where_reading_stopped_whoever_gets_the_splits() {
        let (_dir, path) = input(3_000);
        for stop in [0, 1, 63, 64, 65, 1_500, 2_999, 3_000] {
            let mut splits = starts(0..SPLITS);
            let (mut seen, _) = read(&path, &mut splits, stop);
            let read_so_far: u64 = splits.iter().map(|s| s.position).sum();
            assert_eq!(read_so_far, stop as u64, "positions add up to the records read");
            let (left, right) = splits.split_at_mut(5);
            for own in [left, right] {
                seen.extend(read(&path, own, usize::MAX).0);
            }
            seen.sort_unstable();
            assert_eq!(seen, all_lines(3_000), "stopped after {stop}");
        }
    }

    #[test]
    fn bad_lines_are_passed_over_or_end_the_reading() {
        let (_dir, path) = input(10);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + "what is this\n").unwrap();
        let mut splits = starts(0..SPLITS);
        let (lines, bad) = read(&path, &mut splits, usize::MAX);
        assert_eq!((lines.len(), bad, splits[0].position), (10, 1, 11));

        let mut failing = FlightReader::open(&path, &splits[..1], OnBadRecord::Fail).unwrap();
        assert!(
            matches!(failing.poll_next(), Ok(Polled::End)),
            "the bad line lies before the position"
        );
        let mut failing = FlightReader::open(&path, &starts([0]), OnBadRecord::Fail).unwrap();
        let error = std::iter::repeat_with(|| failing.poll_next())
            .find_map(Result::err)
            .unwrap();
        assert_eq!(
            (error.code(), error.fields()[0].1.as_str()),
            (Code::BadRecord, "12")
        );
    }

    #[test]
    fn an_empty_input_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        fs::write(&path, "").unwrap();
        let result = FlightReader::open(&path, &[], OnBadRecord::Fail);
        assert!(result.is_err_and(|e| e.code() == Code::BadRecord));
    }
}
