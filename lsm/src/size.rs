//! How much there is, without reading it.

use crate::{family::Family, key::KeyRange, store::Store, version::Version};
use keybed_format::Result;
use std::{collections::HashSet, ops::RangeBounds};

impl Store {
    /// About how many bytes of table files hold keys of a range, stale versions included: whole blocks at its ends,
    /// what is still in memory left out.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store; `TableMissing`, `TableCorrupt`.
    pub fn approximate_size<'k>(&self, family: Family, range: impl RangeBounds<&'k [u8]>) -> Result<u64> {
        let range = KeyRange::of(&range);
        let mut bytes = 0;
        for live in self
            .owned(family)?
            .version
            .runs
            .iter()
            .flat_map(|run| &run.tables)
        {
            let part = live.visible.clip(&range);
            let facts = &live.table.record.facts;
            if !part.touches(&facts.smallest, &facts.largest) {
                continue;
            }
            bytes += if part.contains(&facts.smallest) && part.contains(&facts.largest) {
                facts.bytes
            } else {
                live.table.reader()?.bytes_in(&part)
            };
        }
        Ok(bytes)
    }

    /// About how many keys a family has, from counts: exact after a merge of everything into the bottom, too large
    /// while keys have several versions in different runs, and where a table shows only a part.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is not of this store.
    pub fn estimate_keys(&self, family: Family) -> Result<u64> {
        let family = self.owned(family)?;
        let in_memory: usize = family
            .sources()
            .memtables()
            .map(crate::memtable::Memtable::len)
            .sum();
        Ok((in_memory as u64 + table_keys(&family.version)).saturating_sub(2 * tombstones(&family.version)))
    }
}

fn distinct(version: &Version) -> impl Iterator<Item = &crate::table::TableFacts> {
    let mut seen = HashSet::new();
    let tables = version.runs.iter().flat_map(|run| &run.tables);
    tables
        .filter(move |live| seen.insert(live.table.id()))
        .map(|live| &*live.table.record.facts)
}

fn table_keys(version: &Version) -> u64 {
    distinct(version).map(|facts| facts.keys).sum()
}

/// A delete counts as a key itself and hides another.
fn tombstones(version: &Version) -> u64 {
    distinct(version).map(|facts| facts.tombstones).sum()
}
