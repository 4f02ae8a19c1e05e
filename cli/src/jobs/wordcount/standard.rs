//! Standard input as a source: a thread waits for lines, so that the task never does.
//!
//! It is read once. A position only says how many lines came before: whoever starts from a snapshot gives the rest of
//! the text on standard input.

use super::source::{Line, record, text_of};
use crate::{args::OnBadRecord, input::Lines};
use keybed::{
    Result,
    runtime::{Polled, SourceReader},
};
use std::{
    path::Path,
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
    time::Duration,
};

/// Lines that the thread reads ahead.
const AHEAD_MAX: usize = 1024;
/// How long to wait when there is no line.
const PAUSE: Duration = Duration::from_millis(5);
/// How errors name it.
const NAME: &str = "standard input";

/// Lines from the thread.
pub(super) struct StandardReader {
    /// `None`: somebody else reads.
    lines: Option<Receiver<Result<Vec<u8>>>>,
    /// Lines that came, those before the snapshot included.
    read: u64,
    on_bad_record: OnBadRecord,
}

impl StandardReader {
    /// For a subtask that has no split.
    pub(super) fn nothing() -> Self {
        StandardReader {
            lines: None,
            read: 0,
            on_bad_record: OnBadRecord::Fail,
        }
    }

    /// Reads on behind `position` lines.
    pub(super) fn start(position: u64, on_bad_record: OnBadRecord) -> Self {
        let (to, lines) = sync_channel(AHEAD_MAX);
        // Ends with the input or with the process: a read from a terminal cannot be called off.
        #[expect(
            clippy::disallowed_methods,
            reason = "a read that blocks for ever must not hold a thread of the scheduler"
        )]
        let _detached = thread::spawn(move || {
            let mut lines = match Lines::of(std::io::stdin(), Path::new(NAME)) {
                Ok(lines) => lines,
                Err(error) => return drop(to.send(Err(error))),
            };
            loop {
                let line = match lines.next() {
                    Ok(Some((_, bytes))) => Ok(bytes.to_vec()),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let failed = line.is_err();
                if to.send(line).is_err() || failed {
                    return;
                }
            }
        });
        StandardReader {
            lines: Some(lines),
            read: position,
            on_bad_record,
        }
    }
}

impl SourceReader<Line> for StandardReader {
    fn poll_next(&mut self) -> Result<Polled<Line>> {
        let Some(lines) = &self.lines else {
            return Ok(Polled::End);
        };
        let bytes = match lines.try_recv() {
            Ok(line) => line?,
            Err(TryRecvError::Empty) => return Ok(Polled::Pending(PAUSE)),
            Err(TryRecvError::Disconnected) => return Ok(Polled::End),
        };
        self.read += 1;
        match text_of(&bytes, Path::new(NAME), self.read) {
            Ok(text) => Ok(record(0, self.read, self.read, text)),
            Err(_) if self.on_bad_record == OnBadRecord::Skip => Ok(Polled::Skipped {
                split: 0,
                next: self.read,
            }),
            Err(bad) => Err(bad),
        }
    }
}
