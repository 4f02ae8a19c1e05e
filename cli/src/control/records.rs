//! Runtime records: which jobs of this user run on this machine, and where their endpoints listen.
//!
//! ```text
//!  $XDG_RUNTIME_DIR/keybed/           else <temporary directory>/keybed-<user id>/, mode 0700 and ours
//!    <job id>-<pid>.lock              locked as long as the process lives
//!    <job id>-<pid>.json              the record; says how the job ended once it has
//! ```
//! The lock is taken under another name first, so a record whose lock is free belongs to a process that is gone: it
//! is removed, unless the job ended in order within the last hour. Nothing is decided by process ids, which are
//! used again. Layout: docs/control.md.

use keybed::{
    Code, Error, Result,
    env::{
        Clock, Fs, OsFs, SystemClock,
        fs::{FileKind, FileLock},
    },
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const FORMAT: u64 = 1;
const BYTES_MAX: u64 = 64 << 10;
/// Jobs that ended are listed this long.
const ENDED_KEPT_MS: u64 = 3_600_000;

/// A process that runs a job, or ran one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Name of the job.
    pub(crate) name: String,
    /// Its id.
    pub(crate) job_id: String,
    /// The process.
    pub(crate) pid: u32,
    /// Where its endpoint listens, if it has one.
    pub(crate) address: Option<String>,
    /// What the endpoint wants to see.
    pub(crate) token: Option<String>,
    /// Absolute.
    pub(crate) state_dir: PathBuf,
    /// The snapshot that it started from, absolute.
    pub(crate) restored_from: Option<PathBuf>,
    /// When it began.
    pub(crate) start_ms: u64,
    /// How and when it ended.
    pub(crate) ended: Option<(String, u64)>,
}

impl Record {
    fn object(&self) -> Value {
        let ended = self.ended.as_ref();
        json!({
            "format": FORMAT,
            "name": self.name,
            "job_id": self.job_id,
            "pid": self.pid,
            "address": self.address,
            "token": self.token,
            "state_dir": self.state_dir.display().to_string(),
            "restored_from": self.restored_from.as_ref().map(|path| path.display().to_string()),
            "start_ms": self.start_ms,
            "state": ended.map(|(state, _)| state),
            "ended_ms": ended.map(|(_, at)| at),
        })
    }

    fn parse(bytes: &[u8]) -> Option<Record> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        (value["format"].as_u64()? == FORMAT).then_some(())?;
        Some(Record {
            name: text("name")?,
            job_id: text("job_id")?,
            pid: value["pid"].as_u64()?.try_into().ok()?,
            address: text("address"),
            token: text("token"),
            state_dir: text("state_dir")?.into(),
            restored_from: text("restored_from").map(PathBuf::from),
            start_ms: value["start_ms"].as_u64()?,
            ended: text("state").zip(value["ended_ms"].as_u64()),
        })
    }

    /// Whether the job runs, as far as the record knows.
    pub(crate) fn is_live(&self) -> bool {
        self.ended.is_none()
    }
}

/// The directory of the records.
pub(crate) struct Records {
    directory: PathBuf,
    fs: OsFs,
}

impl Records {
    /// Of this user.
    ///
    /// # Errors
    /// `CannotClaim` if the directory belongs to somebody else or others may look into it; errors of the file system.
    pub(crate) fn of_user() -> Result<Records> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let directory = match runtime {
            Some(runtime) => runtime.join("keybed"),
            None => std::env::temp_dir().join(format!("keybed-{}", owner::of_this_process()?)),
        };
        Records::at(directory)
    }

    fn at(directory: PathBuf) -> Result<Records> {
        owner::private_directory(&directory)?;
        Ok(Records { directory, fs: OsFs })
    }

    fn path(&self, record: &Record, extension: &str) -> PathBuf {
        let name = format!("{}-{}.{extension}", record.job_id, record.pid);
        self.directory.join(name)
    }

    /// Writes the record of this process; it stands until the value is dropped or the process dies.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(crate) fn enter(self, record: Record) -> Result<Entered> {
        let (lock, hidden) = (self.path(&record, "lock"), self.path(&record, "lock.new"));
        let held = self.fs.lock(&hidden)?;
        self.fs.rename(&hidden, &lock)?;
        let entered = Entered {
            records: self,
            record,
            _lock: held,
        };
        entered.write()?;
        Ok(entered)
    }

    /// All records of jobs that run or ended lately; those of processes that are gone are removed.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(crate) fn all(&self) -> Result<Vec<Record>> {
        let now = SystemClock::new().wall_millis();
        let mut found = Vec::new();
        for entry in self.fs.list(&self.directory)? {
            let json = self.directory.join(&entry.name);
            if entry.kind != FileKind::File || json.extension() != Some("json".as_ref()) {
                continue;
            }
            // Gone meanwhile, or not ours to understand.
            let Some(record) = self
                .fs
                .read(&json, BYTES_MAX)
                .ok()
                .and_then(|bytes| Record::parse(&bytes))
            else {
                continue;
            };
            let lock = json.with_extension("lock");
            match self.fs.lock(&lock) {
                Err(e) if e.code() == Code::Locked => found.push(record),
                Err(e) => return Err(e),
                Ok(_free) => match &record.ended {
                    Some((_, at)) if now.saturating_sub(*at) <= ENDED_KEPT_MS => found.push(record),
                    _ => {
                        for gone in [&json, &lock] {
                            match self.fs.remove_file(gone) {
                                Err(e) if e.code() != Code::NotFound => return Err(e),
                                _ => {}
                            }
                        }
                    }
                },
            }
        }
        found.sort_by(|a, b| (&a.name, a.start_ms, &a.job_id).cmp(&(&b.name, b.start_ms, &b.job_id)));
        Ok(found)
    }
}

/// The record of this process.
pub(crate) struct Entered {
    records: Records,
    record: Record,
    _lock: Box<dyn FileLock>,
}

impl Entered {
    fn write(&self) -> Result {
        let (path, new) = (
            self.records.path(&self.record, "json"),
            self.records.path(&self.record, "json.new"),
        );
        let text = format!("{:#}\n", self.record.object());
        self.records.fs.write_atomic(&path, &new, text.as_bytes())
    }

    /// Says how the job ended.
    ///
    /// # Errors
    /// Errors of the file system.
    pub(crate) fn ended(&mut self, state: &str, at_ms: u64) -> Result {
        self.record.ended = Some((state.to_owned(), at_ms));
        self.write()
    }
}

impl Drop for Entered {
    /// A record without an end is removed: the process goes on, and the job never began.
    fn drop(&mut self) {
        if self.record.is_live() {
            for extension in ["json", "lock"] {
                let _ = fs::remove_file(self.records.path(&self.record, extension));
            }
        }
    }
}

/// Whose a directory is.
#[cfg(unix)]
mod owner {
    use super::{Code, Error, Path, Result, fs};
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    /// The user id, by what the system says of a file of ours.
    pub(super) fn of_this_process() -> Result<u32> {
        if let Ok(facts) = fs::metadata("/proc/self") {
            return Ok(facts.uid());
        }
        let probe = std::env::temp_dir().join(format!("keybed-whoami-{}", std::process::id()));
        let owner = fs::File::create_new(&probe).and_then(|file| file.metadata());
        let _ = fs::remove_file(&probe);
        owner
            .map(|facts| facts.uid())
            .map_err(|e| Error::io("find out the user", &probe, e))
    }

    /// Creates a directory that nobody else can look into, or sees that it is one.
    pub(super) fn private_directory(directory: &Path) -> Result {
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        created.map_err(|e| Error::io("create", directory, e))?;
        let facts = fs::symlink_metadata(directory).map_err(|e| Error::io("look at", directory, e))?;
        let why = if !facts.is_dir() {
            "it is no directory"
        } else if facts.uid() != of_this_process()? {
            "it belongs to another user"
        } else if facts.mode() & 0o077 != 0 {
            "other users may use it (mode 0700 is needed)"
        } else {
            return Ok(());
        };
        let what = format!("the directory of running jobs cannot be trusted: {why}");
        Err(Error::new(Code::CannotClaim, what).in_file(directory))
    }
}

#[cfg(not(unix))]
mod owner {
    use super::{Error, Path, Result, fs};

    /// The temporary directory is the user's own.
    pub(super) fn of_this_process() -> Result<&'static str> {
        Ok("user")
    }

    pub(super) fn private_directory(directory: &Path) -> Result {
        fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn record(job: u128, pid: u32) -> Record {
        Record {
            name: "flights".into(),
            job_id: format!("{job:032x}"),
            pid,
            address: Some("127.0.0.1:8081".into()),
            token: None,
            state_dir: "/s".into(),
            restored_from: Some("/sp/ä".into()),
            start_ms: 5,
            ended: None,
        }
    }

    fn records(dir: &tempfile::TempDir) -> Records {
        Records::at(dir.path().join("keybed")).unwrap()
    }

    fn names(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path().join("keybed")).unwrap().count()
    }

    #[test]
    fn a_record_stands_while_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let entered = records(&dir).enter(record(1, 7)).unwrap();
        let other = records(&dir).enter(record(1, 8)).unwrap();
        assert_eq!(records(&dir).all().unwrap(), [record(1, 7), record(1, 8)]);
        drop(other);
        assert_eq!(records(&dir).all().unwrap(), [record(1, 7)]);
        drop(entered);
        assert_eq!((records(&dir).all().unwrap(), names(&dir)), (vec![], 0));
    }

    #[test]
    fn a_dead_process_leaves_nothing_that_is_believed() {
        // A verb would speak to whatever listens on that port now.
        let dir = tempfile::tempdir().unwrap();
        let entered = records(&dir).enter(record(1, 7)).unwrap();
        let json = entered.records.path(&entered.record, "json");
        let text = fs::read(&json).unwrap();
        drop(entered);
        fs::write(&json, text).unwrap();
        fs::write(json.with_extension("lock"), "7\n").unwrap();
        assert_eq!((records(&dir).all().unwrap(), names(&dir)), (vec![], 0));
    }

    #[test]
    fn a_job_that_ended_is_kept_for_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock::new().wall_millis();
        for (at, kept) in [(now, 1), (now - ENDED_KEPT_MS - 60_000, 0)] {
            let mut entered = records(&dir).enter(record(1, 7)).unwrap();
            entered.ended("FINISHED", at).unwrap();
            drop(entered);
            let found = records(&dir).all().unwrap();
            assert_eq!((found.len(), names(&dir)), (kept, 2 * kept));
            assert!(
                found
                    .iter()
                    .all(|r| !r.is_live() && r.ended == Some(("FINISHED".into(), at)))
            );
        }
    }

    #[test]
    fn damaged_records_are_passed_by() {
        let dir = tempfile::tempdir().unwrap();
        let records = records(&dir);
        for text in ["", "{}", "[]", "{\"format\":1}", "{\"format\":2}", "\u{0}"] {
            fs::write(records.directory.join("x.json"), text).unwrap();
            assert_eq!(records.all().unwrap(), []);
        }
    }

    #[test]
    fn a_directory_that_others_can_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("keybed");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Records::at(open).err().unwrap().code(), Code::CannotClaim);
        let private = records_mode(&dir);
        assert_eq!(private & 0o777, 0o700);
        std::os::unix::fs::symlink(dir.path().join("fresh"), dir.path().join("link")).unwrap();
        assert_eq!(
            Records::at(dir.path().join("link")).err().unwrap().code(),
            Code::CannotClaim
        );
    }

    fn records_mode(dir: &tempfile::TempDir) -> u32 {
        let fresh = dir.path().join("fresh");
        Records::at(fresh.clone()).unwrap();
        fs::metadata(fresh).unwrap().permissions().mode()
    }
}
