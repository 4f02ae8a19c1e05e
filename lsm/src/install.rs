//! Installing: how an edit becomes visible, and what it does to tables.
//!
//! ```text
//! edit ─► manifest (durable, if anything is) ─► versions of its families ─► tables that nobody names go
//!            │ a failed append or sync: poisoned, nothing is installed any more
//! ```
//! Under the lock of the catalogue from the append to the publication, so that versions appear in the order of edits.

use crate::{
    floor::Floors,
    key::{Seqno, TableId},
    planted,
    shared::{Shared, State},
    version::{
        LiveTable, LiveView, Run, Version,
        edit::{Change, Edit, TableRecord},
        manifest::{Manifest, ROLL_BYTES},
        set::{LogSet, VersionSet},
    },
};
use keybed_format::{Code, Error, Result};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

const CANNOT_WRITE: &str = "the manifest cannot be written";

/// The manifest and the readers of the tables it names.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) manifest: Manifest,
    pub(crate) tables: HashMap<TableId, Arc<LiveTable>>,
}

impl Shared {
    /// Appends an edit of one family to the manifest, publishes the versions it makes, and lets `then` change the
    /// state with them. Returns false, and changes nothing, if the family is gone or was cleared since its `epoch`; the
    /// tables then go with their last holder.
    ///
    /// # Errors
    /// `Poisoned` if the manifest cannot be written (now or before).
    pub(crate) fn install(
        &self,
        (family, epoch): (u32, u64),
        edit: &Edit,
        tables: Vec<Arc<LiveTable>>,
        then: impl FnOnce(&mut State),
    ) -> Result<bool> {
        let mut catalogue = self.catalogue.lock();
        // Whoever clears a family holds the catalogue, too.
        let is_current = |state: &State| {
            let mut slots = state.families.iter();
            slots.any(|slot| slot.id == family && slot.epoch == epoch && !slot.dropped)
        };
        if catalogue.manifest.set().family(family).is_none() || !is_current(&self.state.lock()) {
            tables.iter().for_each(|table| table.retire());
            return Ok(false);
        }
        self.append(&mut catalogue, edit).inspect_err(|error| {
            // Nothing was appended: whoever tries again comes with tables of his own.
            if error.code() != Code::Poisoned {
                tables.iter().for_each(|table| table.retire());
            }
        })?;
        self.sync_edit(&mut catalogue)?;
        catalogue
            .tables
            .extend(tables.into_iter().map(|table| (table.id(), table)));
        let mut version = version_of(&catalogue.manifest, &catalogue.tables, family)?;
        let removes = |change: &Change| matches!(change, Change::RemoveTable { .. });
        let floors = floors_of(&catalogue.manifest, family);
        {
            let mut state = self.state.lock();
            if let Some(slot) = state
                .families
                .iter_mut()
                .find(|slot| slot.id == family && !slot.dropped)
            {
                version.removals = slot.version.removals + u64::from(edit.changes.iter().any(removes));
                slot.version = Arc::new(version);
                slot.floors = floors;
            }
            then(&mut state);
            // Under the lock: a waiter who sees the change must find that the generation has risen, or the owner
            // believes that its own view of the state is the newest.
            self.generation.fetch_add(1, Ordering::Release);
        }
        retire_unnamed(&mut catalogue, edit);
        let files = &self.opener.files;
        let rolled = files.with_room(|| catalogue.manifest.roll(&*self.fs, ROLL_BYTES));
        if let Err(error) = rolled {
            return Err(self.poison(error, CANNOT_WRITE));
        }
        drop(catalogue);
        self.announce_quietly();
        Ok(true)
    }

    /// Appends an edit that creates or drops families.
    ///
    /// # Errors
    /// As [`Shared::install`].
    pub(crate) fn alter(&self, edit: impl FnOnce(&VersionSet) -> Edit) -> Result<Edit> {
        let mut catalogue = self.catalogue.lock();
        let edit = edit(catalogue.manifest.set());
        self.append(&mut catalogue, &edit)?;
        let drops = |change: &Change| matches!(change, Change::DropFamily(_));
        let expires = |change: &Change| matches!(change, Change::Expire(..));
        if edit.changes.iter().any(|change| drops(change) || expires(change)) {
            self.sync_edit(&mut catalogue)?;
        }
        if edit.changes.iter().any(drops) {
            catalogue.retire_all_unnamed();
        }
        Ok(edit)
    }

    /// Empties a family: what was sealed before is installed nowhere any more, and nothing that was written before
    /// `seqno` is seen by a reader that comes later. The append to the manifest makes it visible.
    ///
    /// # Errors
    /// `Poisoned` if the manifest cannot be written (now or before).
    pub(crate) fn clear(&self, number: usize, family: u32, seqno: Seqno) -> Result {
        let mut catalogue = self.catalogue.lock();
        let edit = Edit {
            changes: vec![Change::ClearFamily(family, seqno), Change::NextSeqno(seqno + 1)],
        };
        self.append(&mut catalogue, &edit)?;
        self.sync_edit(&mut catalogue)?;
        let mut garbage = None;
        {
            let mut state = self.state.lock();
            if let Some(slot) = state.families.get_mut(number) {
                slot.epoch += 1;
                slot.floors = None;
                // Memtables stay in the queue: pinned files may wait for their tables.
                garbage = Some((
                    std::mem::take(&mut slot.sealed),
                    std::mem::take(&mut slot.version),
                ));
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
        catalogue.retire_all_unnamed();
        drop(catalogue);
        drop(garbage);
        self.announce_quietly();
        Ok(())
    }

    fn append(&self, catalogue: &mut Catalogue, edit: &Edit) -> Result {
        if let Some(error) = &self.state.lock().poisoned {
            return Err(error.duplicate());
        }
        catalogue
            .manifest
            .reserve(edit)
            .map_err(|error| match error.code() {
                Code::IoFailed => error
                    .recode(Code::BackendReadOnly)
                    .context("the manifest has no space"),
                _ => error,
            })?;
        let appended = catalogue.manifest.append(edit);
        appended.map_err(|error| self.poison(error, CANNOT_WRITE))
    }

    /// Makes an edit durable if anything is: before files go that it makes superfluous (inputs of a merge, the log of a
    /// memtable), and before writes to other families that come later.
    fn sync_edit(&self, catalogue: &mut Catalogue) -> Result {
        if !self.is_durable() || planted::is("edit-not-synced") {
            return Ok(());
        }
        let synced = catalogue.manifest.sync();
        synced.map_err(|error| self.poison(error, CANNOT_WRITE))
    }

    /// Makes every edit so far durable.
    pub(crate) fn sync_manifest(&self) -> Result {
        self.catalogue.lock().manifest.sync()
    }

    /// Asks what the manifest knows about the log.
    pub(crate) fn logged<R>(&self, ask: impl FnOnce(&LogSet) -> R) -> R {
        ask(&self.catalogue.lock().manifest.set().log)
    }

    /// Whether the manifest says that its owner keeps no log.
    pub(crate) fn is_volatile(&self) -> bool {
        self.catalogue.lock().manifest.set().is_volatile
    }

    /// Remembers that the content of the manifest or the log is unknown from now on.
    pub(crate) fn poison(&self, error: Error, what: &str) -> Error {
        if error.code() == Code::Poisoned {
            return error;
        }
        let error = error.recode(Code::Poisoned).context(what);
        self.state.lock().poisoned = Some(error.duplicate());
        self.announce();
        error
    }
}

impl Catalogue {
    /// Lets go of the tables that no family names any more.
    fn retire_all_unnamed(&mut self) {
        let named = self.manifest.set().table_ids();
        self.tables.retain(|id, table| {
            let stays = named.contains(id);
            if !stays {
                table.retire();
            }
            stays
        });
    }
}

/// The floors of a family that the manifest names.
pub(crate) fn floors_of(manifest: &Manifest, family: u32) -> Option<Arc<Floors>> {
    let floors = &manifest.set().family(family)?.floors;
    (!floors.is_empty()).then(|| floors.clone())
}

/// Lets go of the tables that an edit removed and that no family names any more.
fn retire_unnamed(catalogue: &mut Catalogue, edit: &Edit) {
    let mut removed: Vec<TableId> = edit
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::RemoveTable { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    if removed.is_empty() {
        return;
    }
    let named = catalogue.manifest.set().table_ids();
    removed.retain(|id| !named.contains(id));
    for id in removed {
        if let Some(table) = catalogue.tables.remove(&id) {
            table.retire();
        }
    }
}

/// Builds the version of a family from what the manifest says.
///
/// # Errors
/// `TableMissing` if a reader is missing, which cannot happen to tables installed here.
pub(crate) fn version_of(
    manifest: &Manifest,
    tables: &HashMap<TableId, Arc<LiveTable>>,
    family: u32,
) -> Result<Version> {
    let Some(set) = manifest.set().family(family) else {
        return Ok(Version::default());
    };
    let live = |record: &&TableRecord| {
        let table = tables.get(&record.id()).ok_or_else(|| {
            Error::new(Code::TableMissing, "a table that the manifest names is not open")
                .with("table", record.id())
        })?;
        Ok(LiveView::new(table.clone(), record.visible.clone()))
    };
    let run = |(number, records): (u64, Vec<&TableRecord>)| {
        let tier = records.first().map_or(0, |record| record.tier);
        Ok(Run {
            number,
            tier,
            tables: records.iter().map(live).collect::<Result<_>>()?,
        })
    };
    let runs = set.runs().into_iter().map(run).collect::<Result<_>>()?;
    Ok(Version::new(runs))
}
