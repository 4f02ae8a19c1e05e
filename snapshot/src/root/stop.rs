//! The stop record of an owned root: written, confirmed, removed.

use super::{CheckpointRoot, Shared};
use crate::{ObjectPath, Place, StopRecord, stop::STOP_BYTES_MAX};
use keybed_format::{Code, Result};

impl CheckpointRoot {
    /// Checks that no newer owner took the root over.
    ///
    /// # Errors
    /// `Fenced`.
    pub fn demand_owner(&self) -> Result {
        self.shared.demand_newest()
    }

    /// Records that a stop with a savepoint begins, in place of any older record: afterwards the savepoint's
    /// directory may be created.
    ///
    /// # Errors
    /// `Fenced`; `InvalidArgument` if the directory cannot be recorded; errors of the storage: whether the record is
    /// there is then unknown, and harmless as long as the savepoint is not published.
    pub fn write_stop(&self, record: &StopRecord) -> Result {
        let bytes = record.encode()?;
        self.shared.demand_newest()?;
        self.remove_stop()?;
        self.shared.put_stop(&ObjectPath::Stop, &bytes, record)?;
        self.shared.demand_newest()
    }

    /// Records that the savepoint of the recorded stop exists: afterwards sinks may commit. Doing it again changes
    /// nothing.
    ///
    /// # Errors
    /// `Fenced`; errors of the storage.
    pub fn confirm_stop(&self, record: &StopRecord) -> Result {
        self.shared.demand_newest()?;
        let bytes = record.encode()?;
        // Beside a confirmation alone a recovery would go on from a checkpoint.
        self.shared.demand_stop(&ObjectPath::Stop, &bytes, record)?;
        self.shared.demand_stop(&ObjectPath::Stopped, &bytes, record)
    }

    /// Removes the record of a stop that came to nothing, durably; nothing happens if there is none.
    ///
    /// # Errors
    /// `Fenced`; errors of the storage.
    pub fn remove_stop(&self) -> Result {
        let storage = &*self.shared.storage;
        let listed = storage.list(Place::Root)?;
        // The confirmation counts beside its record only, so it goes first.
        let present = [ObjectPath::Stopped, ObjectPath::Stop]
            .into_iter()
            .filter(|path| listed.iter().any(|l| l.name == path.name()));
        for path in present {
            self.shared.demand_newest()?;
            storage.delete(&path)?;
            storage.sync(Place::Root)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Makes sure that the record is there, durably.
    fn demand_stop(&self, path: &ObjectPath, bytes: &[u8], record: &StopRecord) -> Result {
        match self.put_stop(path, bytes, record) {
            Err(e) if e.code() == Code::TargetExists => {}
            put => return put,
        }
        match self.storage.read(path, STOP_BYTES_MAX) {
            // An earlier try wrote it and may have failed before its name was durable.
            Ok(found) if found == bytes => self.storage.sync(Place::Root),
            Err(e) if e.code() != Code::NotFound => Err(e),
            // That of an older stop, which came to nothing.
            _ => {
                self.storage.delete(path)?;
                self.put_stop(path, bytes, record)
            }
        }
    }

    fn put_stop(&self, path: &ObjectPath, bytes: &[u8], record: &StopRecord) -> Result {
        let temporary = self.temporary(record.checkpoint)?;
        self.storage.put_new(path, bytes, &temporary)
    }
}
