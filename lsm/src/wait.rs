//! Waiting for the background, and the end of a store.
//!
//! Whoever waits helps the scheduler meanwhile, so that a scheduler with a single thread gets on.

use crate::{
    compaction::work,
    flush,
    shared::State,
    stats::WaitReason,
    store::{LONG, Store},
};
use keybed_env::Priority;
use keybed_format::{Code, Error, Result};

impl Store {
    /// Writes everything in memory to tables and waits for it.
    ///
    /// # Errors
    /// `BackendReadOnly` if a table cannot be written (the data stays in memory, and reads go on); `Poisoned`.
    pub fn flush(&mut self) -> Result {
        self.check_writable()?;
        self.seal_all()?;
        self.wait_for_flush()
    }

    fn wait_for_flush(&mut self) -> Result {
        flush::schedule(&self.shared);
        let mut result = Ok(());
        self.shared.waiting(WaitReason::Flush, || {
            self.shared
                .wait(Priority::Flush, LONG, |state| match flush_ended(state) {
                    Some(ended) => {
                        result = ended;
                        true
                    }
                    None => false,
                })
        });
        self.refresh();
        result
    }

    /// Waits until nothing is left to flush or to merge, as if nothing more were written.
    ///
    /// # Errors
    /// As [`Store::flush`] and [`Store::compact`].
    pub fn wait_for_background(&mut self) -> Result {
        self.check_open()?;
        self.wait_for_flush()?;
        // A merge that failed before is tried again: its cause may have passed.
        {
            let mut state = self.shared.state.lock();
            state.compaction_error = None;
            state.settle();
        }
        work::schedule(&self.shared);
        let mut result = Ok(());
        let shared = self.shared.clone();
        let ended = |state: &mut State| {
            if state.flushing || state.compacting || state.tidying > 0 {
                return false;
            }
            if let Some(error) = state.compaction_error.as_ref().or(state.poisoned.as_ref()) {
                result = Err(error.duplicate());
                return true;
            }
            work::next(&shared, state).is_none()
        };
        self.shared.waiting(WaitReason::Merge, || {
            self.shared.wait(Priority::Bottom, LONG, ended)
        });
        // The owner's old versions go now, and with them the files that only they held.
        self.refresh();
        self.shared
            .wait(Priority::Bottom, LONG, |state| state.tidying == 0);
        self.shared.bury_the_dead();
        result
    }

    /// Flushes, ends background work and releases the directory (unless files of it are still pinned).
    ///
    /// Dropping a store without closing it leaves what was not flushed to the log, from which the next open replays it;
    /// without a log ([`Durability::None`](crate::Durability::None)) it is discarded.
    ///
    /// # Errors
    /// As [`Store::flush`]; the store is closed nevertheless.
    pub fn close(mut self) -> Result {
        let result = if self.closed || self.is_read_only {
            Ok(())
        } else {
            self.flush().and_then(|()| self.end_log())
        };
        self.shut_down();
        result
    }

    pub(crate) fn shut_down(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.attend_at = 0;
        self.shared.state.lock().closing = true;
        if let Some(waker) = self.shared.log_waker.lock().take() {
            waker.wake();
        }
        self.shared.announce();
        self.shared.wait(Priority::Bottom, LONG, |state| {
            !state.flushing && !state.compacting && state.tidying == 0
        });
        self.families.clear();
        self.shared.release();
    }
}

/// Whether flushing came to an end, and which.
pub(crate) fn flush_ended(state: &State) -> Option<Result> {
    if let Some(error) = &state.poisoned {
        return Some(Err(error.duplicate()));
    }
    if state.flushing {
        return None;
    }
    match &state.flush_error {
        Some(error) if !state.queue.is_empty() => Some(Err(read_only(error))),
        _ => state.queue.is_empty().then_some(Ok(())),
    }
}

/// The error of a caller who cannot go on because tables cannot be written.
pub(crate) fn read_only(error: &Error) -> Error {
    let code = if error.code() == Code::Poisoned {
        Code::Poisoned
    } else {
        Code::BackendReadOnly
    };
    error
        .duplicate()
        .recode(code)
        .context("a memtable cannot be flushed")
}
