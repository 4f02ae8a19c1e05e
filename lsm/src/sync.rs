//! Locks, and the atomics through which owner, readers and background hand things over.
//!
//! Those of `parking_lot` and the standard library. A build with `--cfg shuttle` takes those of the crate `shuttle`
//! instead, under which tests (`tests/shuttle`) run the same code in thousands of orders of its steps, each of which can
//! be repeated. No timeout ever passes there: who is not woken hangs, and the test says so.

#[cfg(shuttle)]
pub(crate) use self::permuted::*;
#[cfg(not(shuttle))]
pub(crate) use self::real::*;

#[cfg(not(shuttle))]
mod real {
    pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use std::sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64},
    };
}

#[cfg(shuttle)]
mod permuted {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
    use shuttle::sync::{self, WaitTimeoutResult};
    pub(crate) use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};
    use std::{
        ops::{Deref, DerefMut},
        sync::{LockResult, PoisonError},
        time::Duration,
    };

    fn whole<G>(result: LockResult<G>) -> G {
        result.unwrap_or_else(PoisonError::into_inner)
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// Empty only while a [`Condvar`] waits with it.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(whole(self.0.lock())))
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            whole(self.0.get_mut())
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("it is held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("it is held")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.0 = guard.0.take().map(|held| whole(self.0.wait(held)));
        }

        /// Waits until it is notified, however long that takes.
        pub(crate) fn wait_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            at_most: Duration,
        ) -> WaitTimeoutResult {
            let held = guard.0.take().expect("it is held");
            let (held, timeout) = whole(self.0.wait_timeout(held, at_most));
            guard.0 = Some(held);
            timeout
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            whole(self.0.read())
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            whole(self.0.write())
        }

        pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
            self.0.try_write().ok()
        }
    }

    /// The standard library's would block a whole process whose threads are all the same one to it.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        making: sync::Mutex<()>,
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            OnceLock {
                value: std::sync::OnceLock::new(),
                making: sync::Mutex::new(()),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.value.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.value.set(value)
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.value.get() {
                return value;
            }
            let _alone = whole(self.making.lock());
            if self.value.get().is_none() {
                let _ = self.value.set(make());
            }
            self.value.get().expect("it was just set")
        }
    }
}
