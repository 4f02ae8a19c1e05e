//! Lines as a source: of files, [dealt](crate::jobs::deal) to splits and read again from any position; or of standard
//! input, one split, read once.
//!
//! The event time of a line is its number, counted from 1 over all files.

use super::standard::StandardReader;
use crate::{
    args::OnBadRecord,
    input::Lines,
    inputs::Inputs,
    jobs::deal::{PASSED_RECORDS_MAX, SPLITS, Starts},
};
use keybed::{
    Code, Error, Result,
    env::Fs,
    runtime::{Polled, Source, SourceReader, SplitStart},
};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A line of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1, over all files.
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// The text as a source.
pub(crate) struct TextSource {
    input: Inputs,
    on_bad_record: OnBadRecord,
    /// Standard input was opened; what was read of it then is gone.
    taken: AtomicBool,
}

impl TextSource {
    pub(crate) fn new(input: Inputs, on_bad_record: OnBadRecord) -> Self {
        TextSource {
            input,
            on_bad_record,
            taken: AtomicBool::new(false),
        }
    }
}

impl Source for TextSource {
    type Record = Line;

    fn splits(&self) -> u32 {
        match self.input {
            Inputs::Files(_) => SPLITS,
            Inputs::Standard => 1,
        }
    }

    fn open(&self, _: &Arc<dyn Fs>, splits: &[SplitStart]) -> Result<Box<dyn SourceReader<Line>>> {
        match &self.input {
            Inputs::Files(files) => Ok(Box::new(TextReader {
                files: files.iter().cloned().collect(),
                current: None,
                read: 0,
                on_bad_record: self.on_bad_record,
                starts: Starts::of(splits)?,
            })),
            Inputs::Standard => {
                let Some(start) = splits.first() else {
                    return Ok(Box::new(StandardReader::nothing()));
                };
                if self.taken.swap(true, Ordering::Relaxed) {
                    let what = "standard input cannot be read a second time";
                    return Err(Error::new(Code::InputUnreadable, what));
                }
                Ok(Box::new(StandardReader::start(
                    start.position,
                    self.on_bad_record,
                )))
            }
        }
    }
}

/// The text of a line, whose number in its file is `in_file`.
///
/// # Errors
/// `BadRecord` if it is not UTF-8.
pub(super) fn text_of(bytes: &[u8], path: &Path, in_file: u64) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| {
        Error::new(Code::BadRecord, "the line is not UTF-8")
            .in_file(path)
            .with("line", in_file)
            .with("column", e.valid_up_to() + 1)
    })
}

/// Reads the lines of some splits in the order of the files.
struct TextReader {
    /// Those that were not begun.
    files: VecDeque<PathBuf>,
    current: Option<(PathBuf, Lines)>,
    /// Lines read, of whatever split.
    read: u64,
    on_bad_record: OnBadRecord,
    starts: Starts,
}

impl SourceReader<Line> for TextReader {
    fn poll_next(&mut self) -> Result<Polled<Line>> {
        for _ in 0..PASSED_RECORDS_MAX {
            let Some((path, lines)) = &mut self.current else {
                let Some(path) = self.files.pop_front() else {
                    return self.starts.demand_reached(self.read).map(|()| Polled::End);
                };
                let lines = Lines::open(&path)?;
                self.current = Some((path, lines));
                continue;
            };
            let Some((in_file, bytes)) = lines.next()? else {
                self.current = None;
                continue;
            };
            let index = self.read;
            self.read += 1;
            let Some((split, next)) = self.starts.wants(index) else {
                continue;
            };
            return match text_of(bytes, path, in_file) {
                Ok(text) => Ok(record(split, next, index + 1, text)),
                Err(_) if self.on_bad_record == OnBadRecord::Skip => Ok(Polled::Skipped { split, next }),
                Err(bad) => Err(bad),
            };
        }
        Ok(Polled::Pending(Duration::ZERO))
    }
}

/// A line on its way.
pub(super) fn record(split: u32, next: u64, number: u64, text: String) -> Polled<Line> {
    Polled::Record {
        split,
        next,
        timestamp: i64::try_from(number).unwrap_or(i64::MAX - 1),
        value: Line { number, text },
    }
}
