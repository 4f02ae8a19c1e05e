//! The snapshot that the job was started from: what is to be known about it, and when its owner may have it back.
//!
//! Tasks read it while they take up their state, into work directories of their own; once all are ready, none has it
//! open. So what still needs it is a recovery, and under LEGACY the checkpoints that refer to its files: the storage
//! knows.

use super::Driver;
use crate::event::JobEvent;
use keybed_snapshot::ClaimMode;

impl Driver {
    /// Tells what is to be known, before the first attempt.
    pub(super) fn warn(&self) {
        let warnings = self
            .shared
            .warnings
            .iter()
            .filter(|_| self.attempts == 1)
            .cloned();
        warnings.for_each(|warning| self.event(&JobEvent::RestoreWarning { warning }));
    }

    /// Whether the next checkpoint must refer to nothing of the snapshot.
    pub(super) fn copies_source(&self) -> bool {
        let restore = self.shared.place.options.restore.as_ref();
        self.foreign && restore.is_none_or(|restore| restore.claim == ClaimMode::NoClaim)
    }

    /// Tells that the snapshot is not needed any more, once. To be called whenever that may have become true.
    pub(super) fn release_source(&mut self) {
        if self.storage.needs_source() || !std::mem::take(&mut self.shared.progress.lock().needs_source) {
            return;
        }
        // What the job claimed, it removes by itself.
        let kept = self
            .shared
            .source
            .as_ref()
            .filter(|(_, mode)| *mode != ClaimMode::Claim);
        if let Some((location, _)) = kept {
            let location = location.clone();
            self.event(&JobEvent::SourceSnapshotReleased { location });
        }
    }
}
