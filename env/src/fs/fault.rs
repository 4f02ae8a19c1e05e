//! A file system that fails when told to: the n-th call, once or from then on.
//!
//! The method is SQLite's: run a scenario with a fault at call 1, 2, 3, … until it ends without having met the
//! fault, and look at the outcome each time.
//!
//! ```
//! use keybed_env::{Fs, fs::{Fault, FaultFs, FaultPlan, SimFs}};
//! use std::{path::Path, sync::Arc};
//! for nth in 1.. {
//!     let fs = FaultFs::new(Arc::new(SimFs::new()));
//!     fs.arm(FaultPlan::new(Fault::Eio, nth));
//!     let outcome = fs.write_atomic(Path::new("a"), Path::new("a.tmp"), b"bytes");
//!     if fs.triggered() == 0 {
//!         outcome.unwrap();
//!         break;
//!     }
//!     fs.heal();
//!     // … whatever happened, `a` is whole or absent.
//!     assert!(fs.facts(Path::new("a")).unwrap().is_none_or(|facts| facts.len == 5));
//! }
//! ```

use super::{DirEntry, FileFacts, FileLock, Fs, FsOp, Map, ReadFile, WriteFile};
use keybed_format::{Code, Error, Result};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The medium fails: any call but a hint.
    Eio,
    /// The medium is full: calls that need space. An appended piece is not written at all. Appends to space that was
    /// [reserved](super::WriteFile::reserve), and their sync, do not meet it.
    Enospc,
    /// A read ends before the buffer is full.
    ShortRead,
    /// The first half of an appended piece arrives, then the medium fails.
    ShortWrite,
    /// A sync fails and the bytes that it should have made durable are lost, though still readable.
    FailedSync,
    /// The medium went read-only: every call that modifies.
    Erofs,
    /// The process has no file descriptors left: every call that opens something.
    Emfile,
}

impl Fault {
    /// Every fault.
    pub const ALL: &'static [Fault] = &[
        Fault::Eio,
        Fault::Enospc,
        Fault::ShortRead,
        Fault::ShortWrite,
        Fault::FailedSync,
        Fault::Erofs,
        Fault::Emfile,
    ];

    /// Whether a call of this kind can meet the fault.
    pub fn applies_to(self, op: FsOp) -> bool {
        use FsOp::{
            Copy, Create, CreateDir, Link, List, Lock, Map, Open, OpenAppend, Read, Rename, Reserve, Sync,
            SyncDir, Truncate, Write,
        };
        match self {
            // A hint has nobody to tell.
            Fault::Eio => op != FsOp::WillRead,
            Fault::Enospc => matches!(
                op,
                Create | Write | Reserve | Sync | SyncDir | Rename | Link | Copy | CreateDir | Lock
            ),
            Fault::ShortRead => op == Read,
            Fault::ShortWrite => op == Write,
            Fault::FailedSync => matches!(op, Sync | SyncDir),
            Fault::Erofs => op.modifies(),
            Fault::Emfile => {
                matches!(
                    op,
                    Open | Create | OpenAppend | Truncate | Copy | List | SyncDir | Lock | Map
                )
            }
        }
    }

    fn error(self, op: FsOp, path: &Path) -> Error {
        let errno = match self {
            Fault::ShortRead => {
                return Error::new(Code::Malformed, "the file ends too early (injected)").in_file(path);
            }
            Fault::Eio | Fault::ShortWrite | Fault::FailedSync => libc::EIO,
            Fault::Enospc => libc::ENOSPC,
            Fault::Erofs => libc::EROFS,
            Fault::Emfile => libc::EMFILE,
        };
        Error::io(op.as_str(), path, io::Error::from_raw_os_error(errno))
            .with("injected", format_args!("{self:?}"))
    }
}

type OnPath = dyn Fn(&Path) -> bool + Send + Sync;

/// Which calls fail, and how.
#[derive(Clone)]
pub struct FaultPlan {
    fault: Fault,
    nth: u64,
    forever: bool,
    ops: Option<Vec<FsOp>>,
    path: Option<Arc<OnPath>>,
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.forever { "and every later" } else { "only" };
        write!(f, "{:?} at matching call {} ({how})", self.fault, self.nth)
    }
}

impl FaultPlan {
    /// `fault` at the `nth` call (from 1) of those that can meet it, counted from the moment of arming; once.
    pub fn new(fault: Fault, nth: u64) -> Self {
        FaultPlan {
            fault,
            nth,
            forever: false,
            ops: None,
            path: None,
        }
    }

    /// Every later matching call fails too.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// Only calls of these kinds match.
    #[must_use]
    pub fn only(mut self, ops: &[FsOp]) -> Self {
        self.ops = Some(ops.to_vec());
        self
    }

    /// Only calls on these paths match; a rename, link or copy is asked about its target.
    #[must_use]
    pub fn on_path(mut self, matches: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        self.path = Some(Arc::new(matches));
        self
    }

    fn matches(&self, op: FsOp, path: &Path) -> bool {
        self.fault.applies_to(op)
            && self.ops.as_ref().is_none_or(|ops| ops.contains(&op))
            && self.path.as_ref().is_none_or(|matches| matches(path))
    }
}

/// One call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsCall {
    /// Number of the call, from 1.
    pub number: u64,
    /// What was called.
    pub op: FsOp,
    /// On what; the target of a rename, link or copy.
    pub path: PathBuf,
    /// The fault it met.
    pub fault: Option<Fault>,
}

impl fmt::Display for FsCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}: {} {}", self.number, self.op, self.path.display())?;
        self.fault.map_or(Ok(()), |fault| write!(f, " → {fault:?}"))
    }
}

/// Most calls that the log keeps; older ones are forgotten.
pub const LOG_CALLS_MAX: usize = 1024;

/// Passes calls on to another file system until a plan says that one fails. Clones share plan, counters and log.
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults(Mutex<FaultState>);

#[derive(Debug, Default)]
struct FaultState {
    plan: Option<FaultPlan>,
    matched: u64,
    calls: u64,
    triggered: u64,
    first: Option<FsCall>,
    log: VecDeque<FsCall>,
}

impl Faults {
    /// Notes a call and says whether it fails.
    fn meet(&self, op: FsOp, path: &Path) -> Option<Fault> {
        self.meet_if(op, path, |_| true)
    }

    /// As `meet`, for a call that some faults cannot meet now.
    fn meet_if(&self, op: FsOp, path: &Path, can_meet: impl Fn(Fault) -> bool) -> Option<Fault> {
        let state = &mut *self.0.lock();
        state.calls += 1;
        let fault = state
            .plan
            .as_ref()
            .filter(|plan| plan.matches(op, path) && can_meet(plan.fault))
            .and_then(|plan| {
                state.matched += 1;
                let hit = state.matched == plan.nth || (plan.forever && state.matched > plan.nth);
                hit.then_some(plan.fault)
            });
        let call = FsCall {
            number: state.calls,
            op,
            path: path.into(),
            fault,
        };
        if fault.is_some() {
            state.triggered += 1;
            state.first.get_or_insert_with(|| call.clone());
        }
        if state.log.len() == LOG_CALLS_MAX {
            state.log.pop_front();
        }
        state.log.push_back(call);
        fault
    }

    fn check(&self, op: FsOp, path: &Path) -> Result {
        self.meet(op, path)
            .map_or(Ok(()), |fault| Err(fault.error(op, path)))
    }
}

impl FaultFs {
    /// Fails nothing until armed.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        FaultFs {
            inner,
            faults: Arc::default(),
        }
    }

    /// From now on this plan holds, instead of an earlier one; matching calls and triggered faults count anew.
    pub fn arm(&self, plan: FaultPlan) {
        let state = &mut *self.faults.0.lock();
        state.plan = Some(plan);
        state.matched = 0;
        state.triggered = 0;
        state.first = None;
    }

    /// Nothing fails any more. [`FaultFs::triggered`] keeps what was.
    pub fn heal(&self) {
        self.faults.0.lock().plan = None;
    }

    /// Calls made so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.faults.0.lock().calls
    }

    /// Calls since the last arming that failed by plan.
    pub fn triggered(&self) -> u64 {
        self.faults.0.lock().triggered
    }

    /// The first call since the last arming that failed by plan.
    pub fn first_fault(&self) -> Option<FsCall> {
        self.faults.0.lock().first.clone()
    }

    /// The last [`LOG_CALLS_MAX`] calls, oldest first.
    pub fn log(&self) -> Vec<FsCall> {
        self.faults.0.lock().log.iter().cloned().collect()
    }

    fn pass(&self, op: FsOp, path: &Path) -> Result<&dyn Fs> {
        self.faults.check(op, path)?;
        Ok(&*self.inner)
    }

    fn writer(&self, inner: Box<dyn WriteFile>, path: &Path) -> Box<dyn WriteFile> {
        Box::new(FaultWriteFile {
            reserved: inner.len(),
            inner,
            path: path.into(),
            faults: self.faults.clone(),
        })
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let inner = self.pass(FsOp::Open, path)?.open(path)?;
        Ok(Arc::new(FaultReadFile {
            inner,
            path: path.into(),
            faults: self.faults.clone(),
        }))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        Ok(self.writer(self.pass(FsOp::Create, path)?.create(path)?, path))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        Ok(self.writer(self.pass(FsOp::OpenAppend, path)?.append(path)?, path))
    }

    fn truncate(&self, path: &Path, len: u64) -> Result {
        self.pass(FsOp::Truncate, path)?.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        self.pass(FsOp::Rename, to)?.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> Result {
        self.pass(FsOp::Link, to)?.link(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result {
        self.pass(FsOp::Copy, to)?.copy(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result {
        self.pass(FsOp::RemoveFile, path)?.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result {
        self.pass(FsOp::RemoveDir, path)?.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> Result {
        self.pass(FsOp::CreateDir, path)?.create_dir(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.pass(FsOp::List, dir)?.list(dir)
    }

    fn facts(&self, path: &Path) -> Result<Option<FileFacts>> {
        self.pass(FsOp::Facts, path)?.facts(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result {
        self.pass(FsOp::SyncDir, dir)?.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.pass(FsOp::Lock, path)?.lock(path)
    }

    fn hold(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        self.pass(FsOp::Lock, path)?.hold(path)
    }

    fn namespace(&self) -> Option<u64> {
        self.inner.namespace()
    }

    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.inner.absolute(path)
    }
}

#[derive(Debug)]
struct FaultReadFile {
    inner: Arc<dyn ReadFile>,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl ReadFile for FaultReadFile {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result {
        let Some(fault) = self.faults.meet(FsOp::Read, &self.path) else {
            return self.inner.read_exact_at(buffer, offset);
        };
        if fault == Fault::ShortRead {
            let half = buffer.len() / 2;
            self.inner.read_exact_at(&mut buffer[..half], offset)?;
        }
        Err(fault.error(FsOp::Read, &self.path).at(offset))
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        self.inner.will_read(offset, bytes);
    }

    fn map(&self) -> Result<Option<Map>> {
        self.faults.check(FsOp::Map, &self.path)?;
        self.inner.map()
    }
}

#[derive(Debug)]
struct FaultWriteFile {
    inner: Box<dyn WriteFile>,
    /// Up to here there is space for sure.
    reserved: u64,
    path: PathBuf,
    faults: Arc<Faults>,
}

impl WriteFile for FaultWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result {
        let has_space = self.inner.len() + bytes.len() as u64 <= self.reserved;
        let can_meet = |fault| !(has_space && fault == Fault::Enospc);
        let Some(fault) = self.faults.meet_if(FsOp::Write, &self.path, can_meet) else {
            return self.inner.append(bytes);
        };
        if fault == Fault::ShortWrite {
            self.inner.append(&bytes[..bytes.len() / 2])?;
        }
        Err(fault.error(FsOp::Write, &self.path))
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn reserve(&mut self, bytes: u64) -> Result {
        self.faults.check(FsOp::Reserve, &self.path)?;
        self.inner.reserve(bytes)?;
        self.reserved = self.reserved.max(self.inner.len() + bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result {
        let has_space = self.inner.len() <= self.reserved;
        let can_meet = |fault| !(has_space && fault == Fault::Enospc);
        let Some(fault) = self.faults.meet_if(FsOp::Sync, &self.path, can_meet) else {
            return self.inner.sync();
        };
        self.inner.fail_sync();
        Err(fault.error(FsOp::Sync, &self.path))
    }

    fn fail_sync(&mut self) {
        self.inner.fail_sync();
    }
}
