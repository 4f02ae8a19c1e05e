//! Keyed state of one subtask: the current key, the backend, the timers.

use crate::{
    BackendOptions, BackendStats, Change, EntryScan, HeapBackend, KeyedBackend, LsmBackend, PendingSnapshot,
    StateFamily, Timer,
    backend::Restored,
    canonical::{self, CanonicalHeader, PendingCanonical},
    current::{Current, Slot, prefix_end},
    runs::Runs,
    timers::TimerQueue,
};
use keybed_format::{Result, Sink};
use keybed_snapshot::{
    BackendKind, CheckpointId, KeyGroupRange, KeyedHandle, OpenFiles, SnapshotKind, SnapshotRequest,
    StateCatalogue,
};
use std::sync::Arc;

/// Whatever leads to the keyed state of the running operator: the state itself, or a context that holds it.
pub trait StateAccess {
    /// The keyed state.
    fn keyed(&mut self) -> &mut KeyedState;
}

/// Keyed state of one subtask, owned by the thread that runs it.
///
/// Tokens ([`ValueState`](crate::ValueState) …) say *which* state, [`KeyedState::set_key`] says *whose*.
#[derive(Debug)]
pub struct KeyedState {
    range: KeyGroupRange,
    max_parallelism: u32,
    catalogue: Arc<StateCatalogue>,
    backend: Box<dyn KeyedBackend>,
    current: Current,
    timers: TimerQueue,
    /// Encoded value or element on its way into the backend.
    scratch: Sink,
}

impl StateAccess for KeyedState {
    fn keyed(&mut self) -> &mut KeyedState {
        self
    }
}

impl KeyedState {
    /// Empty keyed state for the key groups `range` of `max_parallelism`.
    ///
    /// # Errors
    /// The work directory cannot be prepared.
    pub fn create(
        options: BackendOptions,
        range: KeyGroupRange,
        max_parallelism: u32,
        catalogue: Arc<StateCatalogue>,
    ) -> Result<Self> {
        let backend: Box<dyn KeyedBackend> = match options.kind {
            BackendKind::Heap => Box::new(HeapBackend::create(options, range)?),
            BackendKind::Lsm => Box::new(LsmBackend::create(options, range, &catalogue)?),
        };
        Self::over(backend, range, max_parallelism, catalogue)
    }

    /// Keyed state of the key groups `range`, restored from the handles that rescale assigned to this subtask; their
    /// views lie inside `range`. Either backend restores what either one wrote. The work directory is wiped first.
    ///
    /// # Errors
    /// `SnapshotCorrupt` with file and offset if a byte differs from what was written; `SnapshotIncomplete` if a file
    /// is missing; errors of the work directory.
    pub fn restore(
        options: BackendOptions,
        range: KeyGroupRange,
        max_parallelism: u32,
        catalogue: Arc<StateCatalogue>,
        handles: &[KeyedHandle],
        files: &dyn OpenFiles,
    ) -> Result<Self> {
        let (tables, mut canonical) = canonical::separate(handles, range)?;
        for part in &mut canonical {
            part.max_parallelism = Some(max_parallelism);
        }
        let mut runs = Runs::combine(&tables, range)?;
        if !canonical.is_empty() {
            runs.next_seqno = runs.next_seqno.max(canonical::NEXT_SEQNO);
        }
        let content = Restored {
            runs,
            canonical: &canonical,
            catalogue: &catalogue,
        };
        let backend: Box<dyn KeyedBackend> = match options.kind {
            BackendKind::Heap => Box::new(HeapBackend::restore(options, range, content, files)?),
            BackendKind::Lsm => Box::new(LsmBackend::restore(options, range, &content, files)?),
        };
        Self::over(backend, range, max_parallelism, catalogue)
    }

    /// Keyed state over a backend that is empty or was restored; the timers in it are read.
    ///
    /// # Errors
    /// Reading the timers may fail.
    pub(crate) fn over(
        backend: Box<dyn KeyedBackend>,
        range: KeyGroupRange,
        max_parallelism: u32,
        catalogue: Arc<StateCatalogue>,
    ) -> Result<Self> {
        let timers = TimerQueue::read(&*backend)?;
        let current = Current::new(range, max_parallelism);
        Ok(KeyedState {
            range,
            max_parallelism,
            catalogue,
            backend,
            current,
            timers,
            scratch: Sink::new(),
        })
    }

    /// Key groups whose keys lie here.
    pub fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// Number of key groups of the operator.
    pub fn max_parallelism(&self) -> u32 {
        self.max_parallelism
    }

    /// The operator's states.
    pub fn catalogue(&self) -> &Arc<StateCatalogue> {
        &self.catalogue
    }

    /// Makes `key` (a component: [`encode_key`](crate::codec::encode_key)) the current key with the void namespace.
    ///
    /// # Errors
    /// `InvalidArgument` if the key's group belongs to another subtask; then no key is current.
    pub fn set_key(&mut self, key: &[u8]) -> Result {
        self.current.set_key(key)
    }

    /// Makes `namespace` (a component) the current namespace of namespace-first states, until the next
    /// [`KeyedState::set_key`]. Key-first states do not see it.
    pub fn set_namespace(&mut self, namespace: &[u8]) {
        self.current.set_namespace(namespace);
    }

    /// The current key's component.
    pub fn key(&self) -> Option<&[u8]> {
        self.current.key()
    }

    /// The current namespace's component; void is empty.
    pub fn namespace(&self) -> &[u8] {
        self.current.namespace()
    }

    /// Registers an event-time timer of the current key; `false` if it was registered already.
    ///
    /// `time` is in milliseconds like every event time; `i64::MAX` fires at the end of the input. `namespace` is a
    /// component, void is empty.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is current; writing may fail.
    pub fn register_timer(&mut self, time: i64, namespace: &[u8]) -> Result<bool> {
        let (group, key) = self.current.group_and_key()?;
        self.timers
            .register(&mut *self.backend, group, Timer::new(time, key, namespace))
    }

    /// Deletes an event-time timer of the current key; `false` if there was none.
    ///
    /// # Errors
    /// As [`KeyedState::register_timer`].
    pub fn delete_timer(&mut self, time: i64, namespace: &[u8]) -> Result<bool> {
        let (group, key) = self.current.group_and_key()?;
        self.timers
            .delete(&mut *self.backend, group, &Timer::new(time, key, namespace))
    }

    /// Takes the earliest timer that is due (`time ≤ watermark`) and makes its key and namespace current. Call it
    /// until it returns `None`: timers registered meanwhile that are due fire in the same round.
    ///
    /// Timers come by time, then by the bytes of key and namespace, whatever their key group.
    ///
    /// # Errors
    /// Writing may fail; then the timer is still registered.
    pub fn pop_due(&mut self, watermark: i64) -> Result<Option<Timer>> {
        let Some(timer) = self
            .timers
            .first()
            .filter(|timer| timer.time <= watermark)
            .cloned()
        else {
            return Ok(None);
        };
        let group = self.current.group_of(&timer.key)?;
        self.timers.delete(&mut *self.backend, group, &timer)?;
        self.current.set_key(&timer.key)?;
        self.current.set_namespace(&timer.namespace);
        Ok(Some(timer))
    }

    /// Time of the earliest timer.
    pub fn next_timer_time(&self) -> Option<i64> {
        self.timers.first().map(|timer| timer.time)
    }

    /// Number of registered timers.
    pub fn timer_count(&self) -> usize {
        self.timers.len()
    }

    /// Captures the state as it is now: the synchronous part of a snapshot. No I/O; time depends on neither the number
    /// of entries nor that of states.
    ///
    /// # Errors
    /// The store may be closed or read-only.
    pub fn prepare(&mut self, request: &SnapshotRequest) -> Result<Box<dyn PendingSnapshot>> {
        if request.kind == SnapshotKind::CanonicalSavepoint {
            let catalogue = (*self.catalogue).clone();
            let header = CanonicalHeader::new(self.range, self.max_parallelism, catalogue);
            return Ok(Box::new(PendingCanonical::new(self.backend.capture()?, header)));
        }
        self.backend.prepare(request)
    }

    /// The checkpoint was published: later ones may reference its files.
    pub fn notify_complete(&mut self, checkpoint: CheckpointId) {
        self.backend.notify_complete(checkpoint);
    }

    /// The checkpoint will never be published.
    pub fn notify_aborted(&mut self, checkpoint: CheckpointId) {
        self.backend.notify_aborted(checkpoint);
    }

    /// What the backend has done so far.
    pub fn stats(&self) -> BackendStats {
        self.backend.stats()
    }

    pub(crate) fn read_entry<R>(
        &mut self,
        slot: Slot,
        suffix: impl FnOnce(&mut Sink),
        read: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        let key = self.current.entry(slot, suffix)?;
        let (mut read, mut answer) = (Some(read), None);
        self.backend.get(slot.family, key, &mut |value| {
            if let Some(read) = read.take() {
                answer = Some(read(value)?);
            }
            Ok(())
        })?;
        Ok(answer)
    }

    pub(crate) fn write_entry(
        &mut self,
        slot: Slot,
        suffix: impl FnOnce(&mut Sink),
        write: impl FnOnce(&mut Sink),
    ) -> Result {
        let key = self.current.entry(slot, suffix)?;
        self.scratch.clear();
        write(&mut self.scratch);
        self.backend.put(slot.family, key, self.scratch.as_slice())
    }

    /// An empty buffer; give it back after use.
    pub(crate) fn take_scratch(&mut self) -> Sink {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch
    }

    pub(crate) fn give_scratch(&mut self, scratch: Sink) {
        self.scratch = scratch;
    }

    pub(crate) fn remove_entry(&mut self, slot: Slot, suffix: impl FnOnce(&mut Sink)) -> Result {
        let key = self.current.entry(slot, suffix)?;
        self.backend.delete(slot.family, key)
    }

    pub(crate) fn remove_key(&mut self, family: StateFamily, key: &[u8]) -> Result {
        self.backend.delete(family, key)
    }

    /// Looks an entry up, lets `change` decide, writes; returns what `change` returns beside its decision.
    pub(crate) fn change_entry<R>(
        &mut self,
        slot: Slot,
        suffix: impl FnOnce(&mut Sink),
        change: impl FnOnce(Option<&[u8]>, &mut Sink) -> Result<(Change, R)>,
    ) -> Result<R> {
        let key = self.current.entry(slot, suffix)?;
        let (mut change, mut answer) = (Some(change), None);
        self.backend.update(slot.family, key, &mut |old, out| {
            let change = change.take().expect("a backend asks for a change once");
            let (what, result) = change(old, out)?;
            answer = Some(result);
            Ok(what)
        })?;
        Ok(answer.expect("a backend that succeeds asked for the change"))
    }

    /// Entries of a state for the current key, and the length of what their keys start with.
    pub(crate) fn scan_entries(&mut self, slot: Slot) -> Result<(usize, Box<dyn EntryScan + '_>)> {
        let prefix = self.current.entry(slot, |_| ())?;
        let end = prefix_end(prefix);
        Ok((prefix.len(), self.backend.scan(slot.family, prefix, Some(&end))?))
    }
}
