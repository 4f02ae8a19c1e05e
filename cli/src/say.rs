//! Text to standard output and standard error that never fails the command.
//!
//! A reader that went away (`keybed … | head`) is no reason to panic or to stop a job.

use std::{fmt::Display, io::Write};

/// A line on standard output.
pub(crate) fn out(line: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Text on standard error, as it is.
pub(crate) fn err(text: impl Display) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
}
