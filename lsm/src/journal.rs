//! The store's side of its log: what a write does before it is applied, and which files go when.
//!
//! ```text
//! write ─► journal: frame ─► kernel (Buffered, Interval) ─► fsync (Sync) ─► memtable
//!              │ file full: close it, begin the next; the log too long: seal who holds its oldest file back
//! flush ─► refresh: files whose writes are all in tables ─► manifest (log floor) ─► removed, in the background
//! ```

use crate::{
    batch::Op,
    expiry,
    family::{Family, OwnedFamily},
    flush,
    key::{EntryKind, Seqno},
    options::Durability,
    shared::{Shared, State},
    stats::{WaitReason, count},
    store::Store,
    sync::Mutex,
    version::edit::{Change, Edit},
    wal::{
        path,
        tidy::{self, Closed},
        writer::{Failure, Writer},
    },
};
use keybed_env::{Priority, Step, Task, Waker};
use keybed_format::{Code, Error, Result};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// A moment in the log: what was written before it is durable after a sync up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SyncTicket(u64);

/// The owner's part of the log.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Behind a lock that nobody else takes, because a store may be looked at by many threads while nobody writes;
    /// `None` without a log.
    writer: Option<Box<Mutex<Writer>>>,
    /// Files that take no writes any more, oldest first: also without a log, until what was replayed is flushed.
    kept: Vec<Closed>,
    /// Whoever writes syncs later, for many writes at a time.
    is_sync_deferred: bool,
    /// A file was begun since somebody looked whether the log is too long.
    is_longer: bool,
}

impl Journal {
    /// Appends with `writer`, if there is to be a log; `kept` files hold what is replayed.
    pub(crate) fn new(writer: Option<Writer>, kept: Vec<Closed>) -> Self {
        Journal {
            writer: writer.map(|writer| Box::new(Mutex::new(writer))),
            kept,
            is_sync_deferred: false,
            is_longer: false,
        }
    }

    /// Whether writes go to a log.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }
}

impl Shared {
    /// Whether anything local is promised, so that tables and edits are synced.
    pub(crate) fn is_durable(&self) -> bool {
        self.options.durability != Durability::None
    }

    /// Makes the manifest say that the name of a log file is durable, after making it so.
    pub(crate) fn name_log_file(&self, number: u64) -> Result {
        if self.logged(|log| log.durable >= number) {
            return Ok(());
        }
        self.fs.sync_dir(&self.dir)?;
        self.alter(|_| Edit {
            changes: vec![Change::LogDurable(number)],
        })?;
        self.sync_manifest()
    }

    /// Removes log files that are not needed any more; those below `floor` go with the next open at the latest.
    fn drop_log_files(&self, floor: u64, files: &[Closed]) -> Result {
        self.log.forget_below(floor);
        // A file that is missing must be known to be needed no more, or the log seems to have a hole.
        self.alter(|_| Edit {
            changes: vec![Change::LogFloor(floor)],
        })?;
        self.sync_manifest()
            .map_err(|error| self.poison(error, "the manifest cannot be synced"))?;
        for file in files {
            self.remove_quietly(&path(&self.dir, file.number));
        }
        Ok(())
    }
}

impl Store {
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// `InvalidArgument` if the store keeps no log ([`Durability::None`]); `Poisoned` if a sync fails, now or before:
    /// what is durable is unknown, and the store must be opened again.
    ///
    /// ```
    /// # fn main() -> keybed_format::Result {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use keybed_lsm::{Store, StoreOptions};
    /// let mut store = Store::open(dir.path().join("s"), StoreOptions::default())?;
    /// let orders = store.family("orders")?;
    /// store.put(orders, b"o-1", b"42")?; // survives the death of the process
    /// store.sync()?; // survives a power loss from here on
    /// # Ok(()) }
    /// ```
    pub fn sync(&mut self) -> Result {
        self.check_open()?;
        let now = self.ticket_to_sync()?;
        self.shared.sync_log(now)
    }

    /// The moment after the last write, of a store that can be synced.
    pub(crate) fn ticket_to_sync(&mut self) -> Result<SyncTicket> {
        if !self.journal.is_on() {
            return Err(Error::invalid("a store without a log cannot be synced; flush it"));
        }
        Ok(self.sync_ticket())
    }

    /// The moment after the last write.
    pub(crate) fn sync_ticket(&mut self) -> SyncTicket {
        let writer = self.journal.writer.as_mut();
        SyncTicket(writer.map_or(0, |writer| writer.get_mut().position()))
    }

    /// Whether writes under [`Durability::Sync`] return before their sync: whoever says so makes them durable with
    /// [`Shared::sync_log`] before he acknowledges them.
    pub(crate) fn defer_sync(&mut self, deferred: bool) {
        self.journal.is_sync_deferred = deferred;
    }

    /// Logs one version of a key.
    #[inline(never)]
    pub(crate) fn log_write(&mut self, family: Family, key: &[u8], kind: EntryKind, value: &[u8]) -> Result {
        self.owned(family)?;
        let family = family.0;
        let stamp = (kind.stamp_bytes() > 0).then(|| expiry::stamps(kind, value, 0).touched);
        let value = expiry::bare(kind, value);
        let op = match kind {
            EntryKind::Put | EntryKind::PutStamped => Op::Put {
                family,
                key,
                stamp,
                value,
            },
            EntryKind::Delete => Op::Delete { family, key },
            EntryKind::Merge | EntryKind::MergeStamped => Op::Merge {
                family,
                key,
                stamp,
                operand: value,
            },
        };
        self.log_all(std::iter::once(op))
    }

    /// Logs an operand that was merged at `stamp`.
    pub(crate) fn log_merge(&mut self, family: Family, key: &[u8], stamp: u64, operand: &[u8]) -> Result {
        self.log_all(std::iter::once(Op::Merge {
            family: family.0,
            key,
            stamp: Some(stamp),
            operand,
        }))
    }

    /// Logs bytes that are added to a value.
    pub(crate) fn log_append(
        &mut self,
        family: Family,
        key: &[u8],
        stamp: Option<u64>,
        bytes: &[u8],
    ) -> Result {
        let family = family.0;
        self.log_all(std::iter::once(Op::Append {
            family,
            key,
            stamp,
            bytes,
        }))
    }

    /// Logs operations as one frame. Nothing of them is applied if that fails.
    #[inline]
    pub(crate) fn log_all<'a>(&mut self, ops: impl Iterator<Item = Op<'a>>) -> Result {
        let Some(writer) = &mut self.journal.writer else {
            return Ok(());
        };
        if writer.get_mut().must_begin() {
            self.begin_log_file()?;
        }
        let Some(writer) = &mut self.journal.writer else {
            return Ok(());
        };
        let writer = writer.get_mut();
        let families = &self.families;
        let id = |token: u32| families[token as usize].id;
        let before = writer.position();
        match writer.append(self.next_seqno, ops, id, self.shared.log.synced()) {
            Ok(()) => {}
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Broken(error)) => {
                return Err(self.shared.poison(error, "the log cannot be written"));
            }
        }
        let position = writer.position();
        self.shared.log.wrote(position);
        self.shared.owner_counters.log_bytes.add(position - before);
        if self.shared.options.durability == Durability::Sync && !self.journal.is_sync_deferred {
            self.shared.sync_log(SyncTicket(position))?;
        }
        Ok(())
    }

    /// Closes the current file and begins the next one.
    #[cold]
    fn begin_log_file(&mut self) -> Result {
        let synced = self.shared.log.synced();
        let Some(writer) = &mut self.journal.writer else {
            return Ok(());
        };
        let writer = writer.get_mut();
        self.journal.kept.extend(writer.close_current());
        let begun = writer
            .begin(self.next_seqno, synced)
            .map_err(|error| match error.code() {
                Code::IoFailed => error
                    .recode(Code::BackendReadOnly)
                    .context("no log file can be begun; the write can be repeated"),
                _ => error,
            })?;
        self.shared.log.began(begun.number, begun.base);
        self.shared.log.wrote(writer.position());
        if self.shared.options.durability == Durability::Sync {
            // Now, while a refusal costs nothing: the file's name becomes durable before the first write in it.
            self.shared.sync_whole_log().inspect_err(|_| {
                if let Some(writer) = &mut self.journal.writer {
                    self.journal.kept.extend(writer.get_mut().close_current());
                }
            })?;
        }
        // The next write looks whether the log is too long; this one may have found its place already.
        self.journal.is_longer = true;
        self.seen = 0;
        Ok(())
    }

    /// Seals the memtables that hold the oldest files back if the log is too long; if it is twice as long as it may be,
    /// waits for their flush. Only between two writes: whoever has found the place of a key in a memtable needs it.
    ///
    /// # Errors
    /// As [`Store::put`], if they are not flushed in time.
    pub(crate) fn bound_log(&mut self) -> Result {
        if !std::mem::take(&mut self.journal.is_longer) {
            return Ok(());
        }
        let bytes_max = self.shared.options.wal_bytes_max;
        let Some(seqno) = tidy::hold_back(&self.journal.kept, bytes_max) else {
            return Ok(());
        };
        for number in 0..self.families.len() {
            if self.families[number].active.memtable.seqnos().0 <= seqno {
                self.seal(number);
            }
        }
        let is_too_long = |store: &Store| tidy::hold_back(&store.journal.kept, 2 * bytes_max).is_some();
        if !is_too_long(self) {
            return Ok(());
        }
        count(&self.shared.owner_counters.stalls);
        flush::schedule(&self.shared);
        let at_most = self.shared.options.write_wait_max;
        let failed =
            |state: &State| state.poisoned.is_some() || (state.flush_error.is_some() && !state.flushing);
        let in_time = self.shared.waiting(WaitReason::Stop, || {
            let done = |state: &mut State| state.queue.is_empty() || failed(state);
            self.shared.wait(Priority::Flush, at_most, done)
        });
        self.refresh();
        if is_too_long(self) {
            self.journal.is_longer = true;
            return Err(self.why_no_room(in_time));
        }
        Ok(())
    }

    /// The oldest write that is in a memtable alone.
    fn unflushed(&self) -> Option<Seqno> {
        let oldest = |family: &OwnedFamily| {
            let sealed = family.sealed.iter().map(|sealed| &sealed.memtable);
            let all = sealed.chain([&family.active.memtable]);
            all.filter(|memtable| !memtable.is_empty())
                .map(|memtable| memtable.seqnos().0)
                .min()
        };
        let live = self.families.iter().filter(|family| !family.dropped);
        live.filter_map(oldest).min()
    }

    /// Lets files go of which everything is flushed.
    pub(crate) fn retire_log_files(&mut self) {
        if self.journal.kept.is_empty() {
            return;
        }
        let gone = tidy::obsolete(&self.journal.kept, self.unflushed());
        if gone == 0 {
            return;
        }
        let files: Vec<Closed> = self.journal.kept.drain(..gone).collect();
        let last = files.last().map_or(0, |file| file.number);
        let floor = self.journal.kept.first().map_or(last + 1, |file| file.number);
        self.shared.state.lock().tidying += 1;
        let shared = self.shared.clone();
        self.shared.scheduler.submit(
            Priority::Flush,
            Box::new(move || {
                // A failure is remembered by the store itself; the files stay until it is opened again.
                let _ = shared.drop_log_files(floor, &files);
                shared.state.lock().tidying -= 1;
                shared.announce_quietly();
            }),
        );
    }

    /// Removes the whole log of a store whose memtables are all flushed.
    pub(crate) fn end_log(&mut self) -> Result {
        if self.unflushed().is_some() {
            return Ok(());
        }
        if let Some(writer) = &mut self.journal.writer {
            self.journal.kept.extend(writer.get_mut().close_current());
        }
        let files = std::mem::take(&mut self.journal.kept);
        match files.last() {
            Some(last) => self.shared.drop_log_files(last.number + 1, &files),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Makes durable what was logged before a moment; many who wait are served by one sync. Any thread.
    ///
    /// # Errors
    /// `Poisoned` if a sync fails, now or before.
    pub(crate) fn sync_log(&self, ticket: SyncTicket) -> Result {
        self.log.sync_to(self, ticket.0)
    }

    /// Makes durable everything logged so far.
    pub(crate) fn sync_whole_log(&self) -> Result {
        self.log.sync_to(self, self.log.written())
    }
}

/// Syncs the log of a store every so often, until the store is gone.
struct Interval {
    shared: Weak<Shared>,
    every: Duration,
}

impl Task for Interval {
    fn step(&mut self) -> Step {
        let Some(shared) = self.shared.upgrade() else {
            return Step::Done;
        };
        let ends = |error: Error| error.code() == Code::Poisoned;
        if shared.state.lock().closing || shared.sync_whole_log().is_err_and(ends) {
            return Step::Done;
        }
        // Also after a refusal, which passes when there is space again.
        Step::Park(Some(self.every))
    }
}

/// Starts syncing every so often under [`Durability::Interval`].
pub(crate) fn start_interval(shared: &Arc<Shared>) {
    let Durability::Interval(every) = shared.options.durability else {
        return;
    };
    let weak = Arc::downgrade(shared);
    let build = move |waker: Waker| -> Box<dyn Task> {
        if let Some(shared) = weak.upgrade() {
            *shared.log_waker.lock() = Some(waker);
        }
        Box::new(Interval { shared: weak, every })
    };
    shared.scheduler.spawn("keybed-log-sync", Box::new(build));
}
