//! Making the log durable: one leader syncs for all who wait.
//!
//! ```text
//! owner    append, written = position (Release)
//! anybody  sync_to(position):  synced already? done.  somebody leads? wait.  else lead:
//!          target = written → manifest → each file in order → names → synced = target, wake all
//! ```
//! The manifest goes first: it names the families of the frames. A name that became durable is told to the manifest.
//! A failed sync is final: it is never repeated, the store is poisoned, and everybody who waits hears of it.

use super::path;
use crate::{
    planted,
    shared::Shared,
    sync::{AtomicU64, Condvar, Mutex},
};
use keybed_env::WriteFile;
use keybed_format::{Code, Error, Result};
use std::{collections::VecDeque, sync::atomic::Ordering};

/// How far the log was written and synced.
#[derive(Debug, Default)]
pub(crate) struct LogSync {
    /// The position behind the last frame. Stored by the owner alone, with Release after the append; the leader's
    /// Acquire load is the partner.
    written: AtomicU64,
    /// The position up to which everything is durable. Release after the syncs; Acquire by who relies on it.
    synced: AtomicU64,
    state: Mutex<State>,
    /// Notified when a leader ends.
    ended: Condvar,
    /// The leader's handle of the newest file it synced; used by one leader at a time.
    handle: Mutex<Option<Handle>>,
}

#[derive(Debug, Default)]
struct State {
    /// Files of which something may not be durable, oldest first.
    files: VecDeque<File>,
    leading: bool,
    failed: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    number: u64,
    /// The position of its first byte.
    base: u64,
    /// The position behind its last byte, once that is known.
    end: Option<u64>,
}

#[derive(Debug)]
struct Handle {
    number: u64,
    file: Box<dyn WriteFile>,
}

impl LogSync {
    /// The position behind the last frame.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The position up to which everything is durable.
    #[inline]
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Notes how far the log was written.
    #[inline]
    pub(crate) fn wrote(&self, position: u64) {
        self.written.store(position, Ordering::Release);
    }

    /// Notes a new file that begins at the position `base`, where the one before it ended.
    pub(crate) fn began(&self, number: u64, base: u64) {
        let mut state = self.state.lock();
        if let Some(last) = state.files.back_mut() {
            last.end = Some(base);
        }
        state.files.push_back(File {
            number,
            base,
            end: None,
        });
    }

    /// Notes that files below `number` are not needed any more.
    pub(crate) fn forget_below(&self, number: u64) {
        self.state.lock().files.retain(|file| file.number >= number);
    }

    /// Makes everything up to `position` durable; returns at once if it is.
    ///
    /// # Errors
    /// `Poisoned` if a sync failed, now or before; `BackendReadOnly` if there is no space to tell the manifest of a
    /// new file.
    pub(crate) fn sync_to(&self, shared: &Shared, position: u64) -> Result {
        if self.synced() >= position || planted::is("acknowledged-before-sync") {
            return Ok(());
        }
        let (target, files) = {
            let mut state = self.state.lock();
            loop {
                if let Some(error) = &state.failed {
                    return Err(error.duplicate());
                }
                if self.synced() >= position {
                    return Ok(());
                }
                if !state.leading {
                    break;
                }
                self.ended.wait(&mut state);
            }
            state.leading = true;
            let target = self.written();
            let files: Vec<File> = state
                .files
                .iter()
                .filter(|file| file.base < target)
                .copied()
                .collect();
            (target, files)
        };
        let led = self.lead(shared, &files);
        let is_early = planted::is("told-before-synced");
        if is_early {
            self.ended.notify_all();
        }
        let mut state = self.state.lock();
        state.leading = false;
        let result = match led {
            Ok(()) => {
                self.synced.store(target, Ordering::Release);
                state.files.retain(|file| file.end.is_none_or(|end| end > target));
                Ok(())
            }
            // The syncs went well; there was no space to tell the manifest. It may be tried again.
            Err(error) if error.code() == Code::BackendReadOnly => Err(error),
            Err(error) if planted::is("synced-again-after-failure") => Err(error),
            Err(error) => {
                let error = shared.poison(error, "the log cannot be synced");
                state.failed = Some(error.duplicate());
                Err(error)
            }
        };
        drop(state);
        if !is_early {
            self.ended.notify_all();
        }
        result
    }

    fn lead(&self, shared: &Shared, files: &[File]) -> Result {
        shared.sync_manifest()?;
        let mut handle = self.handle.lock();
        for file in files {
            match self.sync_file(shared, &mut handle, file.number) {
                // A file whose writes are all in tables may go at any time.
                Err(error) if error.code() == Code::NotFound && !self.knows(file.number) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn knows(&self, number: u64) -> bool {
        self.state.lock().files.iter().any(|file| file.number == number)
    }

    fn sync_file(&self, shared: &Shared, handle: &mut Option<Handle>, number: u64) -> Result {
        let open = match handle {
            Some(open) if open.number == number => open,
            _ => {
                // The owner's handle is busy with appends; what a file's sync covers does not depend on the handle.
                let file = shared.fs.append(&path(&shared.dir, number))?;
                handle.insert(Handle { number, file })
            }
        };
        if !planted::is("log-not-synced") {
            shared.timed(&shared.timings.sync, || open.file.sync())?;
        }
        shared.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
        shared.name_log_file(number)
    }
}
