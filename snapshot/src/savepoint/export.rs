//! Export: from any snapshot to a self-contained directory, which equals a native savepoint.
//!
//! Every file is copied once, however many views show it, and the copy is read completely before it is referenced.

use super::SavepointTarget;
use crate::{
    Birth, ExternalAnchor, FileHandle, Metadata, SnapshotDir, SnapshotKind, SnapshotOwner, SubtaskState,
};
use keybed_env::random::Ids;
use keybed_format::Result;
use std::{collections::BTreeMap, path::PathBuf};

/// Copies `snapshot` into a new savepoint directory of `target` and returns that. Job, generation, id, time and state
/// stay what they are; a checkpoint becomes a native savepoint, a savepoint keeps its kind. Files are copies, or hard
/// links if the target allows them. Nothing is written to the source; its job may run and delete the snapshot meanwhile,
/// because the files are open by then ([`SnapshotDir::hold`]). If it does so earlier the export fails.
///
/// # Errors
/// Those of [`SnapshotDir::hold`], before anything is created; `SnapshotCorrupt` naming a damaged file;
/// those of [`SavepointWriter::publish`](super::SavepointWriter::publish). A failed export leaves no directory behind.
pub fn export(snapshot: &SnapshotDir, target: &SavepointTarget, ids: Ids) -> Result<PathBuf> {
    let held = snapshot.hold()?;
    let source = snapshot.metadata();
    let birth = Birth {
        generation: source.generation,
        checkpoint: source.checkpoint,
    };
    let writer = target.begin(source.job, birth, ids)?;
    let mut copies = BTreeMap::new();
    let exported = exported(source, |handle| {
        if let Some(copy) = copies.get(handle) {
            return Ok((FileHandle::clone(copy), 0));
        }
        let copy = writer.put_copy(&held, handle)?;
        copies.insert(handle.clone(), copy.clone());
        let bytes = copy.length;
        Ok((copy, bytes))
    })?;
    writer.publish(&exported)?;
    Ok(writer.directory().to_path_buf())
}

/// The metadata of the exported snapshot; `copy` tells where a file lies now and how many bytes that added.
fn exported(
    source: &Metadata,
    mut copy: impl FnMut(&FileHandle) -> Result<(FileHandle, u64)>,
) -> Result<Metadata> {
    let mut metadata = Metadata {
        kind: match source.kind.owner() {
            SnapshotOwner::Job => SnapshotKind::NativeSavepoint,
            SnapshotOwner::User => source.kind,
        },
        externals: Vec::<ExternalAnchor>::new(),
        ..source.clone()
    };
    for operator in &mut metadata.operators {
        for subtask in &mut operator.subtasks {
            move_files(subtask, &mut copy)?;
        }
    }
    Ok(metadata)
}

fn move_files(
    subtask: &mut SubtaskState,
    copy: &mut impl FnMut(&FileHandle) -> Result<(FileHandle, u64)>,
) -> Result {
    let mut new_bytes = 0_u64;
    let families = subtask.keyed.iter_mut().flat_map(|keyed| &mut keyed.families);
    for run in families.flat_map(|family| &mut family.runs) {
        for table in &mut run.tables {
            let (file, bytes) = copy(&table.file)?;
            table.file = file;
            new_bytes = new_bytes.saturating_add(bytes);
        }
    }
    subtask.new_bytes = new_bytes;
    Ok(())
}
