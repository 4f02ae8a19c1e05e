//! Kinds of snapshots and what a backend is asked for.

use crate::CheckpointId;

/// What a snapshot is for. One metadata format serves all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SnapshotKind {
    /// Owned by the job; shares tables with earlier and later checkpoints.
    Checkpoint,
    /// Owned by the job; references nothing older, later checkpoints may build on it.
    FullCheckpoint,
    /// Owned by the user; every file in its own directory, files as the engine has them.
    NativeSavepoint,
    /// Owned by the user; every file in its own directory, key/value state written uniformly.
    CanonicalSavepoint,
}

impl SnapshotKind {
    /// Which files the snapshot may share with others; a savepoint with shared files cannot be asked for.
    pub fn sharing(self) -> FileSharing {
        match self {
            SnapshotKind::Checkpoint => FileSharing::ForwardBackward,
            SnapshotKind::FullCheckpoint => FileSharing::Forward,
            SnapshotKind::NativeSavepoint | SnapshotKind::CanonicalSavepoint => FileSharing::NoSharing,
        }
    }

    /// Who may delete the snapshot.
    pub fn owner(self) -> SnapshotOwner {
        match self {
            SnapshotKind::Checkpoint | SnapshotKind::FullCheckpoint => SnapshotOwner::Job,
            SnapshotKind::NativeSavepoint | SnapshotKind::CanonicalSavepoint => SnapshotOwner::User,
        }
    }
}

/// Which files a snapshot may share with other snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileSharing {
    /// It may reference files of earlier snapshots, and later ones may reference its files.
    ForwardBackward,
    /// It references only files of its own; later ones may reference them.
    Forward,
    /// Nothing is shared in either direction.
    NoSharing,
}

/// Who decides when a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotOwner {
    /// The job: it is subsumed and deleted by retention.
    Job,
    /// The user: no job deletes it unless it was claimed.
    User,
}

/// What every subtask is asked for when a barrier arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// The snapshot's number.
    pub checkpoint: CheckpointId,
    /// What it is for; sharing and ownership follow from it.
    pub kind: SnapshotKind,
    /// Milliseconds since 1970-01-01T00:00:00Z at the trigger; *now* of everything that ages.
    pub timestamp_ms: u64,
}

impl SnapshotRequest {
    /// Which files the snapshot may share.
    pub fn sharing(&self) -> FileSharing {
        self.kind.sharing()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_savepoint_never_shares() {
        for kind in [SnapshotKind::NativeSavepoint, SnapshotKind::CanonicalSavepoint] {
            assert_eq!(
                (kind.sharing(), kind.owner()),
                (FileSharing::NoSharing, SnapshotOwner::User)
            );
        }
        assert_eq!(SnapshotKind::Checkpoint.sharing(), FileSharing::ForwardBackward);
    }
}
