//! Taking and restoring savepoints of one subtask, as a job does.

use crate::{
    Answer,
    content::{Job, MAX_PARALLELISM},
};
use keybed_env::{OsFs, random::Ids};
use keybed_snapshot::{
    Birth, CheckpointId, Generation, JobId, Metadata, OperatorSnapshot, OperatorUid, RootId, SavepointTarget,
    SnapshotDir, SnapshotKind, SnapshotRequest, SubtaskIndex, SubtaskState, rescale,
};
use keybed_state::{BackendOptions, KeyedState, SnapshotStats};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Takes a savepoint into a new directory in `target`, durable on return.
pub fn take(
    job: &Job,
    state: &mut KeyedState,
    target: &Path,
    kind: SnapshotKind,
) -> Answer<(PathBuf, SnapshotStats)> {
    let birth = Birth {
        generation: Generation(1),
        checkpoint: CheckpointId(1),
    };
    let writer = SavepointTarget::new(Arc::new(OsFs), target).begin(JobId(1), birth, Ids::Entropy)?;
    let pending = state.prepare(&SnapshotRequest {
        checkpoint: birth.checkpoint,
        kind,
        timestamp_ms: 0,
    })?;
    let written = pending.write(&*writer)?;
    writer.publish(&Metadata {
        job: JobId(1),
        root: RootId(1),
        generation: birth.generation,
        checkpoint: birth.checkpoint,
        kind,
        timestamp_ms: 0,
        externals: Vec::new(),
        operators: vec![OperatorSnapshot {
            uid: OperatorUid::new("generator")?,
            parallelism: 1,
            max_parallelism: MAX_PARALLELISM,
            catalogue: (*job.catalogue).clone(),
            subtasks: vec![SubtaskState {
                keyed: Some(written.handle),
                ..SubtaskState::empty(SubtaskIndex(0))
            }],
        }],
        properties: BTreeMap::new(),
    })?;
    Ok((writer.directory().to_path_buf(), written.stats))
}

/// Restores the savepoint in `dir`.
pub fn restore(job: &Job, dir: &Path, options: BackendOptions) -> Answer<KeyedState> {
    let snapshot = SnapshotDir::open(Arc::new(OsFs), dir)?;
    let subtasks = &snapshot.metadata().operators[0].subtasks;
    let part = rescale(subtasks, MAX_PARALLELISM, 1)?.remove(0);
    let catalogue = job.catalogue.clone();
    Ok(KeyedState::restore(
        options,
        part.range,
        MAX_PARALLELISM,
        catalogue,
        &part.keyed,
        &snapshot,
    )?)
}
