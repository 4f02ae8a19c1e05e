//! Room for writes: what a write that looks at the background does, and what it waits for.
//!
//! ```text
//! attend_step (owner: decides, seals) ──► Pause ──► Shared::pause (waits; needs no owner) ──► attend_step … ──► go on
//! ```
//! Deciding and waiting are apart, so that a shared store waits without its lock.

use crate::{
    compaction::work,
    flush,
    pressure::{self, Debt},
    shared::{Shared, State},
    stats::{WaitReason, count},
    store::Store,
    wait::read_only,
};
use keybed_env::Priority;
use keybed_format::{Code, Error, Result};
use std::{sync::atomic::Ordering, time::Duration};

/// A family with this many times [`runs_max`](crate::StoreOptions::runs_max) runs makes writes wait for merges: the
/// last resort, when slowing down to a megabyte per second was not enough.
const RUNS_STOP_FACTOR: usize = 8;

/// What one write owes at most, however large it is.
const OWED_MAX: Duration = Duration::from_millis(5);

/// What a write waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pause {
    /// Sealed memtables have reached their bound.
    Flush,
    /// Some family has far too many runs.
    Merges,
    /// The background falls behind.
    Rest(Duration),
}

/// How the waits of one write went so far.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    /// A wait for flushes ended without room: the error to give if there is none still.
    flush_gave_up: Option<GaveUp>,
    /// Merges were waited for; it is done once, because too many runs make reads slow, not wrong.
    merges: bool,
    /// The last sleep: what it was to be, and what it was.
    rest: (Duration, Duration),
}

#[derive(Clone, Copy, Debug)]
struct GaveUp {
    in_time: bool,
}

impl Store {
    /// Takes notice of the background, and makes room if the write memory is used up.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend(&mut self) -> Result {
        let mut waited = Waited::default();
        while let Some(pause) = self.attend_step(&mut waited)? {
            self.shared.pause(pause, &mut waited);
        }
        Ok(())
    }

    /// One step of [`Store::attend`]: what to wait for before the next step, or nothing if writes may go on.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend_step(&mut self, waited: &mut Waited) -> Result<Option<Pause>> {
        self.check_open()?;
        self.check_writable()?;
        self.refresh();
        if let Some(error) = &self.shared.state.lock().poisoned {
            return Err(error.duplicate());
        }
        self.bound_log()?;
        self.flush_if_asked();
        if self.active_bytes >= self.shared.options.memtable_bytes
            && let Some(pause) = self.make_room(waited)?
        {
            return Ok(Some(pause));
        }
        let (paid, slept) = std::mem::take(&mut waited.rest);
        self.owed = (self.owed + paid).saturating_sub(slept);
        Ok(self.slow_down())
    }

    fn debt(&self) -> Debt {
        let options = &self.shared.options;
        let flushed = self.shared.flush_progress.load(Ordering::Relaxed) as usize;
        Debt {
            memory_bytes: (self.active_bytes + self.sealed_bytes.saturating_sub(flushed)) as u64,
            memory_bytes_max: ((options.sealed_max + 1) * options.memtable_bytes) as u64,
            ..self.merge_debt
        }
    }

    /// The next of the small sleeps that pay for what was written since the last look, if the background falls behind.
    fn slow_down(&mut self) -> Option<Pause> {
        let memtable_bytes = self.shared.options.memtable_bytes;
        let written = self.active_bytes.saturating_sub(self.looked_at) as u64;
        let delay = pressure::nanos_per_byte(&self.debt());
        self.owed = (self.owed + Duration::from_nanos(delay.saturating_mul(written))).min(OWED_MAX);
        self.looked_at = self.active_bytes;
        if self.attend_at != 0 {
            let next = match delay {
                0 => memtable_bytes,
                _ => pressure::bytes_until_next_look(delay, memtable_bytes as u64) as usize,
            };
            self.attend_at = memtable_bytes.min(self.active_bytes.saturating_add(next));
        }
        if delay == 0 {
            self.owed = Duration::ZERO;
        } else if self.owed >= pressure::SLEEP_MIN {
            let rest = self.owed.min(pressure::SLEEP_MAX);
            // Paid in advance, so that no two writers of a shared store sleep for the same bytes.
            self.owed -= rest;
            return Some(Pause::Rest(rest));
        }
        None
    }

    /// Seals the largest memtable; if the sealed ones exceed their bound, which slowing down should have prevented,
    /// after waiting until they do not.
    fn make_room(&mut self, waited: &mut Waited) -> Result<Option<Pause>> {
        let options = &self.shared.options;
        if self.sealed_bytes >= sealed_bytes_max(&self.shared) {
            if let Some(gave_up) = waited.flush_gave_up {
                return Err(self.why_no_room(gave_up.in_time));
            }
            count(&self.shared.owner_counters.stalls);
            flush::schedule(&self.shared);
            return Ok(Some(Pause::Flush));
        }
        let too_many = options.compaction && self.merge_debt.runs > runs_stop(&self.shared) as u64;
        if too_many && !waited.merges {
            count(&self.shared.owner_counters.stalls);
            work::schedule(&self.shared);
            return Ok(Some(Pause::Merges));
        }
        let largest = (0..self.families.len()).max_by_key(|&at| self.families[at].active.memtable.bytes());
        if let Some(largest) = largest {
            self.seal(largest);
        }
        Ok(None)
    }

    pub(crate) fn why_no_room(&self, in_time: bool) -> Error {
        let state = self.shared.state.lock();
        match (&state.poisoned, &state.flush_error) {
            (Some(error), _) => error.duplicate(),
            (None, Some(error)) => read_only(error),
            (None, None) => Error::new(Code::Busy, "sealed memtables wait for their flush")
                .with("limit", "sealed_max")
                .with("waited", !in_time),
        }
    }
}

fn sealed_bytes_max(shared: &Shared) -> usize {
    shared.options.sealed_max * shared.options.memtable_bytes
}

fn runs_stop(shared: &Shared) -> usize {
    shared.options.runs_max.saturating_mul(RUNS_STOP_FACTOR)
}

impl Shared {
    /// Waits as a write must, and notes how it went.
    pub(crate) fn pause(&self, pause: Pause, waited: &mut Waited) {
        match pause {
            Pause::Flush => waited.flush_gave_up = self.pause_for_flush(),
            Pause::Merges => {
                self.pause_for_merges();
                waited.merges = true;
            }
            Pause::Rest(rest) => {
                let slept = self.rest(rest);
                self.timings.waited(WaitReason::Delay, slept);
                waited.rest = (rest, slept);
            }
        }
    }

    fn pause_for_flush(&self) -> Option<GaveUp> {
        let max = sealed_bytes_max(self);
        let has_room = |state: &State| {
            let waiting: usize = state
                .queue
                .iter()
                .map(|(_, sealed)| sealed.memtable.bytes())
                .sum();
            waiting < max
        };
        let failed =
            |state: &State| state.poisoned.is_some() || (state.flush_error.is_some() && !state.flushing);
        let mut has_failed = false;
        let in_time = self.waiting(WaitReason::Stop, || {
            self.wait(Priority::Flush, self.options.write_wait_max, |state| {
                has_failed = failed(state);
                has_room(state) || has_failed
            })
        });
        (has_failed || !in_time).then_some(GaveUp { in_time })
    }

    fn pause_for_merges(&self) {
        let max = runs_stop(self);
        self.waiting(WaitReason::Stop, || {
            self.wait(Priority::Bottom, self.options.write_wait_max, |state| {
                !state.compacting
                    || state
                        .families
                        .iter()
                        .all(|family| family.version.runs.len() <= max)
            })
        });
    }
}
