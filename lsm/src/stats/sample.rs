//! One read in a thousand is timed, and then followed through the tables to see what it met. The others pay nothing.

use super::nanos;
use crate::{
    key::SEQNO_MAX,
    read::{Sources, Value},
    shared::Shared,
};
use keybed_format::Result;
use std::sync::atomic::Ordering::Relaxed;

impl Shared {
    /// Reads like [`Sources::get`], and notes how long it took and what it met.
    #[cold]
    #[inline(never)]
    pub(crate) fn get_sampled<'a>(
        &self,
        sources: &Sources<'a>,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<Value<'a>>> {
        let started = self.options.clock.monotonic();
        let value = sources.get(key, hash)?;
        let took = self.options.clock.monotonic().saturating_sub(started);
        self.timings.table_get.record(nanos(took));
        self.follow(sources, key, hash)?;
        Ok(value)
    }

    /// Walks the same way again: blocks are in memory now.
    fn follow(&self, sources: &Sources<'_>, key: &[u8], hash: u64) -> Result {
        let sampled = &self.timings.sampled;
        sampled.gets.fetch_add(1, Relaxed);
        if sources
            .memtables()
            .any(|memtable| memtable.get(key, hash).is_some())
        {
            return Ok(());
        }
        for run in &sources.version.runs {
            let Some(table) = run.find(key) else { continue };
            sampled.tables.fetch_add(1, Relaxed);
            let reader = table.table.reader()?;
            if !reader.may_contain(key, hash) {
                sampled.filter_negatives.fetch_add(1, Relaxed);
            } else if reader.get(key, hash, SEQNO_MAX)?.is_some() {
                return Ok(());
            } else {
                sampled.filter_false_positives.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }
}
