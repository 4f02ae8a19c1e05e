//! What a manifest says: families and the tables of their runs. Pure: edits in, facts out.
//!
//! Invariants, checked by [`VersionSet::apply`] because edits come from disk, too:
//! names and ids of families are unique; the tables of one run have one tier and disjoint visible ranges; run 0 and
//! tier [`BOTTOM`] belong together; a removed table was there.

use super::edit::{BOTTOM, Change, Edit, FamilyRecord, TableRecord};
use crate::{
    expiry::TtlRecord,
    floor::Floors,
    key::{Seqno, TableId},
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

/// One family of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySet {
    /// What is known about it.
    pub record: FamilyRecord,
    /// All writes up to this one are in its tables.
    pub flushed: Seqno,
    /// Its tables by (run, visible start, table id).
    tables: BTreeMap<(u64, Vec<u8>, TableId), TableRecord>,
    /// Its floors.
    pub floors: Arc<Floors>,
    /// For how long its entries live; `None` = for ever.
    pub ttl: Option<TtlRecord>,
}

impl FamilySet {
    /// Runs newest first, each with its tables in the order of their keys.
    pub fn runs(&self) -> Vec<(u64, Vec<&TableRecord>)> {
        let mut runs: Vec<(u64, Vec<&TableRecord>)> = Vec::new();
        for ((run, ..), table) in &self.tables {
            match runs.last_mut() {
                Some((last, tables)) if last == run => tables.push(table),
                _ => runs.push((*run, vec![table])),
            }
        }
        runs.reverse();
        runs
    }
}

/// Everything a manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionSet {
    families: BTreeMap<u32, FamilySet>,
    next_family: u32,
    /// The first unused seqno.
    pub next_seqno: Seqno,
    /// What is known about the log.
    pub log: LogSet,
    /// Tables may not be durable: an owner who promised nothing wrote them.
    pub is_volatile: bool,
    /// It was this late already, in milliseconds since 1970.
    pub time: u64,
}

/// What a manifest knows about the store's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSet {
    /// Files below this number are not needed any more.
    pub floor: u64,
    /// Names of files up to this number are durable.
    pub durable: u64,
    /// The log was durable up to this write.
    pub synced: Seqno,
}

fn wrong(message: &str) -> Error {
    Error::new(Code::Malformed, message)
}

impl VersionSet {
    /// Families by id.
    pub fn families(&self) -> impl Iterator<Item = &FamilySet> {
        self.families.values()
    }

    /// One family.
    pub fn family(&self, id: u32) -> Option<&FamilySet> {
        self.families.get(&id)
    }

    /// The id of the next family: larger than any that this set has seen, dropped ones included, so that work under
    /// way for a dropped family never meets another one of its id.
    pub fn next_family(&self) -> u32 {
        self.next_family
    }

    /// The largest run number in use.
    pub fn run_max(&self) -> u64 {
        self.families
            .values()
            .filter_map(|family| family.tables.keys().next_back())
            .map(|(run, ..)| *run)
            .max()
            .unwrap_or(0)
    }

    /// The tables of which any family shows a part.
    pub fn table_ids(&self) -> HashSet<TableId> {
        self.tables().map(TableRecord::id).collect()
    }

    /// All tables of all families; one id may occur several times.
    pub fn tables(&self) -> impl Iterator<Item = &TableRecord> {
        self.families.values().flat_map(|family| family.tables.values())
    }

    /// Applies an edit whole or not at all.
    ///
    /// # Errors
    /// `Malformed` if a change contradicts the set.
    pub fn apply(&mut self, edit: &Edit) -> Result {
        // Only what the edit touches is put aside: a set may hold thousands of families.
        let numbers = (
            self.next_seqno,
            self.next_family,
            self.log,
            self.is_volatile,
            self.time,
        );
        let touched: BTreeMap<u32, Option<FamilySet>> = edit
            .changes
            .iter()
            .filter_map(Change::family)
            .map(|id| (id, self.families.get(&id).cloned()))
            .collect();
        let result = self.apply_all(edit);
        if result.is_err() {
            (
                self.next_seqno,
                self.next_family,
                self.log,
                self.is_volatile,
                self.time,
            ) = numbers;
            for (id, family) in touched {
                match family {
                    Some(family) => self.families.insert(id, family),
                    None => self.families.remove(&id),
                };
            }
        }
        result
    }

    fn apply_all(&mut self, edit: &Edit) -> Result {
        for change in &edit.changes {
            self.apply_change(change)?;
        }
        // Each run once, however many tables it was given.
        let runs: BTreeSet<(u32, u64)> = edit
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::AddTable(family, table) => Some((*family, table.run)),
                _ => None,
            })
            .collect();
        runs.into_iter()
            .try_for_each(|(family, run)| self.check_run(family, run))
    }

    fn apply_change(&mut self, change: &Change) -> Result {
        match change {
            Change::CreateFamily(record) => {
                if self.families.contains_key(&record.id)
                    || self
                        .families
                        .values()
                        .any(|family| family.record.name == record.name)
                {
                    return Err(wrong("a family is created twice").with("family", &record.name));
                }
                if record.id == u32::MAX {
                    return Err(wrong("a family's number is too large"));
                }
                self.next_family = self.next_family.max(record.id + 1);
                self.families.insert(
                    record.id,
                    FamilySet {
                        record: record.clone(),
                        flushed: 0,
                        tables: BTreeMap::new(),
                        floors: Arc::new(Floors::new(record.partition_prefix)),
                        ttl: None,
                    },
                );
            }
            Change::DropFamily(id) => {
                self.families
                    .remove(id)
                    .ok_or_else(|| wrong("a dropped family was not there").with("family", id))?;
            }
            Change::AddTable(id, table) => {
                let family = self.family_mut(*id)?;
                let key = (table.run, table.visible.start.clone(), table.id());
                if family.tables.insert(key, table.clone()).is_some() {
                    return Err(wrong("a table is added twice").with("table", table.id()));
                }
            }
            Change::RemoveTable {
                family,
                run,
                id,
                visible_start,
            } => {
                self.family_mut(*family)?
                    .tables
                    .remove(&(*run, visible_start.clone(), *id))
                    .ok_or_else(|| wrong("a removed table was not there").with("table", id))?;
            }
            Change::RaiseFloor(id, floor) => Arc::make_mut(&mut self.family_mut(*id)?.floors)
                .add(floor)
                .map_err(|error| error.recode(Code::Malformed))?,
            Change::ClearFamily(id, seqno) => {
                let family = self.family_mut(*id)?;
                family.tables.clear();
                family.floors = Arc::new(Floors::new(family.record.partition_prefix));
                family.flushed = family.flushed.max(*seqno);
                self.next_seqno = self.next_seqno.max(*seqno);
            }
            // Memtables that were sealed together are flushed in any order.
            Change::NextSeqno(seqno) => self.next_seqno = self.next_seqno.max(*seqno),
            Change::Flushed(id, seqno) => {
                let family = self.family_mut(*id)?;
                family.flushed = family.flushed.max(*seqno);
            }
            Change::NextFamily(number) => self.next_family = self.next_family.max(*number),
            Change::Expire(id, record) => self.family_mut(*id)?.ttl = *record,
            Change::Time(millis) => self.time = self.time.max(*millis),
            Change::NotDurable(flag) => self.is_volatile = *flag,
            Change::LogFloor(number) => self.log.floor = self.log.floor.max(*number),
            Change::LogDurable(number) => self.log.durable = self.log.durable.max(*number),
            Change::LogSynced(seqno) => self.log.synced = self.log.synced.max(*seqno),
        }
        Ok(())
    }

    fn family_mut(&mut self, id: u32) -> Result<&mut FamilySet> {
        self.families
            .get_mut(&id)
            .ok_or_else(|| wrong("a table's family was not there").with("family", id))
    }

    fn check_run(&self, family: u32, run: u64) -> Result {
        let Some(family) = self.families.get(&family) else {
            return Ok(());
        };
        let from = (run, Vec::new(), TableId(0));
        let tables: Vec<_> = family
            .tables
            .range(from..)
            .take_while(|((number, ..), _)| *number == run)
            .map(|(_, t)| t)
            .collect();
        for pair in tables.windows(2) {
            let [a, b] = pair else { continue };
            if a.visible.intersects(&b.visible) {
                return Err(wrong("two tables of a run overlap")
                    .with("run", run)
                    .with("table", b.id()));
            }
            if a.tier != b.tier {
                return Err(wrong("two tables of a run have different tiers").with("run", run));
            }
        }
        match tables.first() {
            Some(table) if (table.tier == BOTTOM) != (run == 0) => {
                Err(wrong("run 0 and the bottom tier belong together").with("run", run))
            }
            _ => Ok(()),
        }
    }

    /// One edit that builds this set from nothing.
    pub fn full_edit(&self) -> Edit {
        let mut changes = vec![Change::NextSeqno(self.next_seqno)];
        if self.log != LogSet::default() {
            changes.extend([
                Change::LogFloor(self.log.floor),
                Change::LogDurable(self.log.durable),
                Change::LogSynced(self.log.synced),
            ]);
        }
        if self.is_volatile {
            changes.push(Change::NotDurable(true));
        }
        if self.time > 0 {
            changes.push(Change::Time(self.time));
        }
        // Those of families that are gone must not come again: the log may hold writes to them.
        if self.families.keys().next_back().map_or(0, |last| last + 1) < self.next_family {
            changes.push(Change::NextFamily(self.next_family));
        }
        for family in self.families.values() {
            changes.push(Change::CreateFamily(family.record.clone()));
            let id = family.record.id;
            changes.extend(family.floors.iter().map(|floor| Change::RaiseFloor(id, floor)));
            changes.extend(family.ttl.map(|record| Change::Expire(id, Some(record))));
            if family.flushed > 0 {
                changes.push(Change::Flushed(id, family.flushed));
            }
            changes.extend(
                family
                    .tables
                    .values()
                    .map(|table| Change::AddTable(id, table.clone())),
            );
        }
        Edit { changes }
    }
}
