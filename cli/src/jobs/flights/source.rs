//! The replayable source: lines of the input behind the header, [dealt](crate::jobs::deal) to splits.

use super::record::{Columns, Flight};
use crate::{
    args::OnBadRecord,
    input::Lines,
    jobs::deal::{PASSED_RECORDS_MAX, SPLITS, Starts},
};
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

/// Line of the first record; the header is line 1.
const FIRST_LINE: u64 = 2;
/// How far event times are out of order within a split, at most; the data stay within a day.
const OUT_OF_ORDERNESS: Duration = Duration::from_secs(48 * 60 * 60);

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
    starts: Starts,
    /// Records, of whatever split.
    read: u64,
}

impl FlightReader {
    fn open(path: &Path, splits: &[SplitStart], on_bad_record: OnBadRecord) -> Result<FlightReader> {
        let mut lines = Lines::open(path)?;
        let Some((line, header)) = lines.next()? else {
            let empty = Error::new(Code::BadRecord, "the input is empty, not even a header");
            return Err(empty.in_file(path).with("line", 1).with("column", "header"));
        };
        let columns = Columns::of_header(path, line, header)?;
        Ok(FlightReader {
            lines,
            path: path.into(),
            columns,
            on_bad_record,
            starts: Starts::of(splits)?,
            read: 0,
        })
    }
}

impl SourceReader<Flight> for FlightReader {
    fn poll_next(&mut self) -> Result<Polled<Flight>> {
        for _ in 0..PASSED_RECORDS_MAX {
            let Some((line, bytes)) = self.lines.next()? else {
                let reached = self.starts.demand_reached(self.read);
                return reached.map(|()| Polled::End).map_err(|e| e.in_file(&self.path));
            };
            let index = line.saturating_sub(FIRST_LINE);
            self.read = index + 1;
            let Some((split, next)) = self.starts.wants(index) else {
                continue;
            };
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
