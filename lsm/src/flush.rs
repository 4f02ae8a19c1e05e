//! From sealed memtable to table.
//!
//! One job at a time flushes in the order of the seals: build the table, append the edit (visible here), publish the
//! version. A table that fails is abandoned and built again under a new id, at once and then whenever somebody who
//! waits asks; until that works, writes beyond the bound on sealed memtables fail with `BackendReadOnly` and reads
//! go on.

use crate::{
    compaction::{
        output::{Output, OutputOptions},
        resolve::{Outcome, Resolver},
        work,
    },
    iter::{MergeIter, Source},
    memtable::Sealed,
    shared::{Shared, panicked},
    table::TableOptions,
    version::{
        Run,
        edit::{Change, Edit},
    },
};
use keybed_env::Priority;
use keybed_format::{Code, Result};
use std::{
    cell::Cell,
    sync::{Arc, Weak, atomic::Ordering},
};

/// Attempts of one job before it gives up until somebody asks again.
const ATTEMPTS: u32 = 3;

/// Starts a flush job if memtables wait and none is under way.
pub(crate) fn schedule(shared: &Arc<Shared>) {
    {
        let mut state = shared.state.lock();
        if state.flushing
            || state.queue.is_empty()
            || state.closing
            || state.poisoned.is_some()
            || state.is_read_only
        {
            return;
        }
        state.flushing = true;
    }
    let shared_for_job = shared.clone();
    shared.scheduler.submit(
        Priority::Flush,
        Box::new(move || {
            let ended = Ended(shared_for_job);
            run(&ended.0);
            ended.0.flush_progress.store(0, Ordering::Relaxed);
            ended.0.bury_the_dead();
        }),
    );
}

/// Says that the flush job is over, whatever happened.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let (again, retry) = {
            let mut state = self.0.state.lock();
            state.flushing = false;
            if std::thread::panicking() {
                state.flush_error = Some(panicked("a flush"));
                state.flush_failures += 1;
            }
            let waiting = !state.queue.is_empty() && state.poisoned.is_none();
            let failed = state.flush_error.is_some();
            let retry = waiting && failed && !state.flush_retry;
            if retry {
                state.flush_retry = true;
                state.flush_failures_in_a_row += 1;
            }
            // A memtable may have been sealed between the last look at the queue and now.
            (waiting && !failed, retry.then_some(state.flush_failures_in_a_row))
        };
        self.0.announce();
        if again {
            schedule(&self.0);
        }
        if let Some(failures) = retry {
            // The disk may have room again by then, and nobody may ask.
            work::later(&self.0, work::retry_delay(failures), Priority::Flush, |shared| {
                shared.state.lock().flush_retry = false;
                schedule(shared);
            });
        }
        work::schedule(&self.0);
    }
}

/// Flushes what waits, or until an attempt fails for good. What is sealed meanwhile is for the next job: others of the
/// pool come first.
fn run(shared: &Shared) {
    let mut attempt = 0;
    let mut waiting = shared.state.lock().queue.len();
    loop {
        let next = {
            let mut state = shared.state.lock();
            if state.closing || state.poisoned.is_some() {
                return;
            }
            match state.queue.front() {
                Some(_) if waiting == 0 => return,
                Some((family, sealed)) => (*family, sealed.clone()),
                None => {
                    state.flush_error = None;
                    return;
                }
            }
        };
        attempt += 1;
        match shared.timed(&shared.timings.flush, || flush(shared, next.0, &next.1)) {
            Ok(Outcome::Stopped) => return,
            Ok(Outcome::Complete) => {
                (attempt, waiting) = (0, waiting - 1);
                let mut state = shared.state.lock();
                state.flush_error = None;
                state.flush_failures_in_a_row = 0;
            }
            Err(error) => {
                let mut state = shared.state.lock();
                state.flush_failures += 1;
                if attempt >= ATTEMPTS || error.code() == Code::Poisoned {
                    state.flush_error = Some(error);
                    return;
                }
            }
        }
    }
}

/// Flushes one memtable and installs the result.
fn flush(shared: &Shared, family: usize, sealed: &Arc<Sealed>) -> Result<Outcome> {
    let (id, options, version, run) = {
        let mut state = shared.state.lock();
        state.next_run += 1;
        let run = state.next_run;
        let slot = &state.families[family];
        let of_now = (slot.id, slot.options.clone(), slot.version.clone(), run);
        // Its family was cleared, and neither a view nor pinned files hold it but the queue and this function.
        if slot.epoch != sealed.epoch && Arc::strong_count(sealed) <= 2 {
            state.queue.retain(|(_, waiting)| !Arc::ptr_eq(waiting, sealed));
            return Ok(Outcome::Complete);
        }
        of_now
    };
    let mut output = Output::new(
        shared,
        OutputOptions {
            table: TableOptions {
                block_bytes: shared.options.table_block_bytes(),
                compression: shared.options.upper_compression,
                filter: true,
                partition_prefix: options.partition_prefix,
                filter_prefix: options.prefix_bytes,
            },
            run,
            tier: 0,
            target_file_bytes: None,
            cut_prefix: 0,
        },
    );
    // The floors of the moment it was sealed: pinned files of that moment get its table.
    let floors = sealed.memtable.floors();
    let mut merge = MergeIter::hiding(vec![Source::Memtable(sealed.iter())], floors.map(Arc::as_ref));
    merge.seek(&[])?;
    shared.flush_progress.store(0, Ordering::Relaxed);
    let stops = |bytes: u64| {
        shared.flush_progress.fetch_add(bytes, Ordering::Relaxed);
        shared.state.lock().closing
    };
    let below = sealed.below();
    let flushed = below.flushed_runs();
    let mut older: Vec<&[Run]> = vec![&version.runs, &flushed];
    if !Arc::ptr_eq(below.version(), &version) {
        older.push(&below.version().runs);
    }
    let resolver = Resolver {
        operator: options.merge.as_deref(),
        older: &older,
        expiry: sealed.expiry,
        expired: Cell::default(),
        // Views and pinned files of the moment of the seal read this table, too: they keep what they saw. The first
        // merge asks the filter.
        filter: None,
        stops: &stops,
    };
    if let Some(covers) = sealed.memtable.covers() {
        output.set_range_deletes(resolver.kept_range_deletes(&covers.deletes));
    }
    if resolver.run(&mut merge, None, &mut output)? == Outcome::Stopped {
        return Ok(Outcome::Stopped);
    }
    let expired = resolver.expired.get();
    let tables = output.finish()?;
    let table = tables.first().cloned();
    let mut edit = Edit {
        changes: vec![
            Change::NextSeqno(sealed.memtable.seqnos().1 + 1),
            Change::Flushed(id, sealed.memtable.seqnos().1),
        ],
    };
    if !sealed.expiry.is_off() {
        edit.changes.push(Change::Time(sealed.expiry.now));
    }
    if shared.is_durable() && sealed.needs_log {
        shared.sync_whole_log()?;
        edit.changes.push(Change::LogSynced(sealed.memtable.seqnos().1));
    }
    edit.changes.extend(
        tables
            .iter()
            .map(|table| Change::AddTable(id, table.record.clone())),
    );
    let raised = sealed
        .memtable
        .covers()
        .into_iter()
        .flat_map(|covers| covers.raised.values());
    edit.changes
        .extend(raised.map(|floor| Change::RaiseFloor(id, floor.clone())));
    let (bytes, entries) = table.as_ref().map_or((0, 0), |table| {
        (table.record.facts.bytes, table.record.facts.entries)
    });
    // Before the version is published: whoever finds the memtable gone from the queue finds the table here.
    let orphan = table.clone();
    let done = |state: &mut crate::shared::State| {
        sealed.set_flushed(table);
        state.queue.retain(|(_, waiting)| !Arc::ptr_eq(waiting, sealed));
        if let Some(slot) = state.families.get_mut(family) {
            slot.sealed.retain(|waiting| !Arc::ptr_eq(waiting, sealed));
            slot.covers_changed |= sealed
                .memtable
                .covers()
                .is_some_and(|covers| !covers.is_untouched());
        }
    };
    if !shared.install((id, sealed.epoch), &edit, tables, done)? {
        // The family was dropped or cleared meanwhile. Who holds the memtable gets its table, which goes with him.
        sealed.set_flushed(orphan);
        let mut state = shared.state.lock();
        state.queue.retain(|(_, waiting)| !Arc::ptr_eq(waiting, sealed));
        drop(state);
        shared.rebase_views(family);
        shared.note_lingering(sealed);
        return Ok(Outcome::Complete);
    }
    shared.rebase_views(family);
    shared.note_lingering(sealed);
    shared.counters.flushes.fetch_add(1, Ordering::Relaxed);
    shared
        .counters
        .expired_entries
        .fetch_add(expired, Ordering::Relaxed);
    shared.counters.flush_bytes.fetch_add(bytes, Ordering::Relaxed);
    shared
        .counters
        .flushed_entries
        .fetch_add(entries, Ordering::Relaxed);
    Ok(Outcome::Complete)
}

impl Shared {
    /// Remembers a memtable that is flushed, or will never be, as long as somebody holds it.
    pub(crate) fn note_lingering(&self, sealed: &Arc<Sealed>) {
        let mut lingering = self.lingering.lock();
        lingering.retain(|sealed| sealed.strong_count() > 0);
        lingering.push(Arc::downgrade(sealed));
    }

    /// Bytes of memtables that wait for no flush and are held nevertheless.
    pub(crate) fn lingering_bytes(&self) -> u64 {
        let lingering: Vec<_> = self.lingering.lock().iter().filter_map(Weak::upgrade).collect();
        lingering
            .iter()
            .map(|sealed| sealed.memtable.bytes() as u64)
            .sum()
    }
}
