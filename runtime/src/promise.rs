//! An answer that comes later.

use keybed_env::Scheduler;
use parking_lot::{Condvar, Mutex};
use std::{fmt, sync::Arc, time::Duration};

struct Slot<T> {
    value: Mutex<Option<T>>,
    set: Condvar,
}

/// An answer that comes later; clones wait for the same one.
pub(crate) struct Promise<T>(Arc<Slot<T>>);

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Promise(self.0.clone())
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_kept() {
            "Promise(kept)"
        } else {
            "Promise(open)"
        })
    }
}

impl<T> Promise<T> {
    pub(crate) fn new() -> Self {
        Promise(Arc::new(Slot {
            value: Mutex::new(None),
            set: Condvar::new(),
        }))
    }

    /// Gives the answer; the first one stands.
    pub(crate) fn keep(&self, value: T) {
        let mut slot = self.0.value.lock();
        if slot.is_none() {
            *slot = Some(value);
        }
        self.0.set.notify_all();
    }

    /// Whether the answer is there.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.value.lock().is_some()
    }

    /// What `read` makes of the answer, if it is there.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.value.lock().as_ref().map(read)
    }

    /// Waits for the answer, at most until `give_up` says so (asked about 20 times a second), and runs background
    /// jobs of `scheduler` meanwhile.
    pub(crate) fn wait<R>(
        &self,
        scheduler: &dyn Scheduler,
        read: impl FnOnce(&T) -> R,
        mut give_up: impl FnMut() -> bool,
    ) -> Option<R> {
        loop {
            {
                let mut slot = self.0.value.lock();
                if slot.is_none() {
                    self.0.set.wait_for(&mut slot, Duration::from_millis(50));
                }
                if let Some(value) = slot.as_ref() {
                    return Some(read(value));
                }
            }
            if !scheduler.help() && give_up() {
                return self.read(read);
            }
        }
    }
}
