//! The one lock of a shared store: many readers or one writer, fair to the writer.
//!
//! The only place that knows which lock it is. Page: docs/decisions/shared-store-lock.md.

use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Who is alone.
pub(super) type WriteGuard<'a, T> = RwLockWriteGuard<'a, T>;

/// A value behind the lock.
#[derive(Debug)]
pub(super) struct Lock<T>(RwLock<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Lock(RwLock::new(value))
    }

    /// Beside other readers. A thread that reads must not ask again: a writer may wait in between.
    #[inline]
    pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// Alone, if that is possible at once.
    #[inline]
    pub(super) fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.0.try_write()
    }

    /// Alone.
    #[inline]
    pub(super) fn write(&self) -> WriteGuard<'_, T> {
        self.0.write()
    }
}
