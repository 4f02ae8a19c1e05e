//! The exactly-once file sink.
//!
//! ```text
//!   writer 0 ─╮  lines ─▶ part ─▶ .pending/<part>         (written and synced in the asynchronous part)
//!   writer 1 ─┼─ name, length, digest of the part, ahead of the barrier
//!        …    ▼
//!   committer (one): list of parts in its state ── checkpoint complete ──▶ parts/<part>   (linked, never replaced)
//!                                               ── final one complete ──▶ one sorted file (renamed into place)
//! ```
//! Every step can be repeated. A part that a completed checkpoint names is committed, by whoever restores it if not
//! by the attempt that wrote it; a part that neither one nor a hold names is removed; parts of abandoned histories never
//! enter the sorted file, because only parts in the committer's list do. Page: docs/format/file-sink.md.

mod commit;
mod committer;
mod hold;
mod in_doubt;
mod merge;
mod part;
mod release;
mod writer;

pub(crate) use committer::SinkCommitterNode;
pub use in_doubt::{HeldBy, HeldParts, PartCount, SinkDirectory, SinkHistory, list};
pub(crate) use part::LINEAGE;
pub use release::{ReleaseOf, Released, release};
pub(crate) use writer::SinkWriterNode;

use keybed_env::Fs;
use keybed_format::{Code, Error, ErrorKind, Result};
use keybed_snapshot::{JobId, OperatorUid};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Makes a sort key of a line.
type LineKey = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Writes each record as one line, exactly once.
///
/// Without [`FileSink::sorted_file`] the result is the set of files in `<dir>/parts`.
pub struct FileSink<T> {
    line: Arc<dyn Fn(&T) -> String + Send + Sync>,
    place: Arc<SinkPlace>,
}

/// Where a sink's files lie.
pub(crate) struct SinkPlace {
    pub(crate) dir: PathBuf,
    pub(crate) sorted: Option<SortedFile>,
}

/// The one file that a sink leaves at the end of the job.
pub(crate) struct SortedFile {
    name: String,
    header: String,
    key: LineKey,
}

impl<T> FileSink<T> {
    /// Lines go to files below `dir`, which is created if missing. `line` gives the text of a record without its
    /// line end; a text with a line end in it fails the job.
    pub fn new(dir: impl Into<PathBuf>, line: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        FileSink {
            line: Arc::new(line),
            place: Arc::new(SinkPlace {
                dir: dir.into(),
                sorted: None,
            }),
        }
    }

    /// When the job is finished, all lines are in the one file `<dir>/<name>`: the header, then the lines sorted by
    /// `key` of the line, ties by the line itself. The file appears whole or not at all and replaces an older one;
    /// the parts are removed.
    #[must_use]
    pub fn sorted_file(
        self,
        name: &str,
        header: &str,
        key: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let sorted = SortedFile {
            name: name.into(),
            header: header.into(),
            key: Arc::new(key),
        };
        let place = SinkPlace {
            dir: self.place.dir.clone(),
            sorted: Some(sorted),
        };
        FileSink {
            line: self.line,
            place: Arc::new(place),
        }
    }

    pub(crate) fn place(&self) -> Arc<SinkPlace> {
        self.place.clone()
    }
}

impl SinkPlace {
    /// Parts that no completed checkpoint names yet.
    pub(crate) fn pending(&self) -> PathBuf {
        self.dir.join(".pending")
    }

    /// Committed parts.
    pub(crate) fn parts(&self) -> PathBuf {
        self.dir.join("parts")
    }

    /// What keeps parts from being removed.
    pub(crate) fn holds(&self) -> PathBuf {
        self.dir.join(".holds")
    }

    fn make_folders(&self, fs: &dyn Fs) -> Result {
        fs.create_dir_all(&self.pending())?;
        fs.create_dir_all(&self.parts())
    }

    /// Does a step, once more if a folder was missing: a sink of another job, or a release, found it empty and removed
    /// it.
    pub(crate) fn in_folders<T>(&self, fs: &dyn Fs, step: impl Fn() -> Result<T>) -> Result<T> {
        match step() {
            Err(e) if e.code() == Code::NotFound => {
                self.make_folders(fs)?;
                step()
            }
            done => done,
        }
    }

    /// Makes the directories, and finds out whether something can be written there.
    ///
    /// # Errors
    /// `OutputUnwritable`.
    pub(crate) fn prepare(&self, fs: &dyn Fs, job: JobId, uid: &OperatorUid) -> Result {
        if let Some(sorted) = &self.sorted {
            let plain =
                !sorted.name.is_empty() && !sorted.name.contains('/') && !sorted.name.starts_with('.');
            if !plain {
                return Err(Error::invalid("the output file needs a plain name").with("name", &sorted.name));
            }
            let taken = fs
                .facts(&self.dir.join(&sorted.name))
                .map_err(|e| unwritable(e, &self.dir))?;
            if taken.is_some_and(|facts| facts.kind != keybed_env::fs::FileKind::File) {
                let what = "the output's name is taken by something that is not a file";
                return Err(Error::new(Code::OutputUnwritable, what).in_file(self.dir.join(&sorted.name)));
            }
        }
        self.make_folders(fs).map_err(|e| unwritable(e, &self.dir))?;
        // A name that the committer's sweep removes if this process dies right here.
        let probe = self
            .pending()
            .join(part::Lineage::new(job.0, uid).name(0, 0, "probe"));
        let try_it = || {
            match fs.remove_file(&probe) {
                Err(e) if e.code() != Code::NotFound => return Err(e),
                _ => drop(fs.create(&probe)?),
            }
            fs.remove_file(&probe)
        };
        try_it().map_err(|e| unwritable(e, &self.dir))
    }
}

/// Names failures of the output place as such; what is wrong with data keeps its name.
pub(crate) fn unwritable(error: Error, at: &Path) -> Error {
    let place = matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound)
        || matches!(error.code(), Code::TargetExists | Code::ReadOnlyMedium);
    if place {
        error.in_file(at).recode(Code::OutputUnwritable)
    } else {
        error
    }
}
