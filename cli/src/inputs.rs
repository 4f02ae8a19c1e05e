//! What a job reads: files that can be read again from a position, or standard input, which cannot.

use crate::input_identity::InputIdentity;
use keybed::{Code, Error, Result};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How standard input is named on the command line.
const STANDARD: &str = "-";

/// The input of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// One file or several, read as one text in this order; absolute.
    Files(Vec<PathBuf>),
    /// Standard input.
    Standard,
}

impl Inputs {
    /// What was named; `None` if nothing was.
    ///
    /// # Errors
    /// `InvalidArgument` if standard input is named beside files; `IoFailed` if a path cannot be made absolute.
    pub(crate) fn named(words: &[PathBuf]) -> Result<Option<Inputs>> {
        let standard = words.iter().filter(|word| **word == Path::new(STANDARD)).count();
        match (words.len(), standard) {
            (0, _) => Ok(None),
            (1, 1) => Ok(Some(Inputs::Standard)),
            (_, 0) => {
                let absolute =
                    |path: &PathBuf| std::path::absolute(path).map_err(|e| Error::io("resolve", path, e));
                let files = words.iter().map(absolute).collect::<Result<_>>()?;
                Ok(Some(Inputs::Files(files)))
            }
            _ => Err(Error::invalid("standard input (-) is read alone")),
        }
    }

    /// The files; none if it is standard input.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match self {
            Inputs::Files(files) => files,
            Inputs::Standard => &[],
        }
    }

    /// By which a changed input is noticed, by file.
    ///
    /// # Errors
    /// `InputUnreadable`.
    pub(crate) fn identities(&self) -> Result<Vec<InputIdentity>> {
        self.files().iter().map(|file| InputIdentity::of(file)).collect()
    }

    /// Checks that every file is still the one that was read before: positions in another one mean other records.
    ///
    /// # Errors
    /// `InvalidArgument` if one has changed, or if it was standard input; `InputUnreadable`.
    pub(crate) fn check_unchanged(&self, before: &[InputIdentity]) -> Result {
        if *self == Inputs::Standard {
            let what = "the interrupted run read standard input, which is gone: start anew with --restart, or from \
                        one of its checkpoints with --restart -s PATH and the rest of the text";
            return Err(Error::invalid(what));
        }
        for (file, before) in self.files().iter().zip(before) {
            let now = InputIdentity::of(file)?;
            if now != *before {
                let what = "the input is not the one any more that the interrupted run has read; start anew with \
                            --restart";
                return Err(Error::invalid(what).in_file(file).expected_found(before, now));
            }
        }
        Ok(())
    }

    /// The one file of a job that reads one.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn one_file(&self) -> Result<&Path> {
        match self {
            Inputs::Files(files) if files.len() == 1 => Ok(&files[0]),
            _ => Err(Error::new(Code::InvalidArgument, "this job reads one file").with("input", self)),
        }
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inputs::Standard => f.write_str("standard input"),
            Inputs::Files(files) => {
                for (i, file) in files.iter().enumerate() {
                    let between = if i == 0 { "" } else { ", " };
                    write!(f, "{between}{}", file.display())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_standard_input_are_not_mixed() {
        let named = |words: &[&str]| Inputs::named(&words.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(named(&[]).unwrap(), None);
        assert_eq!(named(&["-"]).unwrap(), Some(Inputs::Standard));
        let two = named(&["/a", "/b"]).unwrap().unwrap();
        assert_eq!(two.to_string(), "/a, /b");
        assert!(two.one_file().is_err() && Inputs::Standard.one_file().is_err());
        assert_eq!(named(&["-", "/a"]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(named(&["-", "-"]).unwrap_err().code(), Code::InvalidArgument);
    }
}
