//! Publishing: the one step that makes a checkpoint exist.
//!
//! ```text
//! fence ─ names of new objects durable ─ `_metadata`: temporary, sync, link, sync ─ fence
//!                                                                ↑ exists
//! crash before the link: no checkpoint, its objects are orphans by their names
//! crash after it: the checkpoint exists, every byte it names is durable
//! ```

use super::Shared;
use crate::{CheckpointId, Metadata, ObjectPath, Place, SnapshotOwner, metadata, registry::References};
use keybed_format::{Code, Error, Result};

pub(super) fn publish(shared: &Shared, snapshot: &Metadata) -> Result<Vec<CheckpointId>> {
    let id = snapshot.checkpoint;
    let written = prepare(shared, snapshot).and_then(|bytes| {
        let temporary = shared.temporary(id)?;
        Ok((
            shared
                .storage
                .put_new(&ObjectPath::Metadata(id), &bytes, &temporary),
            bytes,
        ))
    });
    let (put, bytes) = match written {
        Ok(tried) => tried,
        Err(error) => {
            shared.registry.lock().aborted(id);
            return Err(error);
        }
    };
    if let Err(error) = put
        && !is_published_after_all(shared, id, &bytes)
    {
        return Err(error);
    }
    // Whoever took over meanwhile has not seen this checkpoint, or has and does not continue it.
    if let Err(error) = shared.demand_newest() {
        shared.registry.lock().publish_uncertain(id);
        return Err(error);
    }
    Ok(shared.registry.lock().published(id))
}

/// Everything before the first byte of `_metadata`.
fn prepare(shared: &Shared, snapshot: &Metadata) -> Result<Vec<u8>> {
    let ours = (shared.job, shared.root, shared.generation);
    if (snapshot.job, snapshot.root, snapshot.generation) != ours {
        return Err(
            Error::invalid("the metadata names another job, root or generation")
                .with("generation", snapshot.generation),
        );
    }
    if snapshot.kind.owner() != SnapshotOwner::Job {
        return Err(Error::invalid(
            "a savepoint belongs to the user, and what is published here is deleted by retention",
        )
        .with("kind", format_args!("{:?}", snapshot.kind)));
    }
    // A newer owner sweeps what we uploaded: say so before stumbling over it, and look again before writing.
    shared.demand_newest()?;
    let id = snapshot.checkpoint;
    let references = References::of(id, snapshot)?;
    // Whoever took the snapshot knows handles; which places they mean is known here.
    let externals = shared.source.rows(&references.outside)?;
    let bytes = metadata::encode(&Metadata {
        externals,
        ..snapshot.clone()
    })?;
    let places = shared.registry.lock().publish_begins(id, references)?;
    for place in places {
        shared
            .storage
            .sync(place)
            .inspect_err(|_| shared.registry.lock().names_lost(place))?;
    }
    shared.demand_newest()?;
    Ok(bytes)
}

/// Writing failed: finds out what is certain. If the document is there it is tried to make it last; if that fails too,
/// everything it names is kept until it was read again.
fn is_published_after_all(shared: &Shared, id: CheckpointId, bytes: &[u8]) -> bool {
    match shared.storage.read(&ObjectPath::Metadata(id), bytes.len() as u64) {
        Err(e) if e.code() == Code::NotFound => {
            shared.registry.lock().aborted(id);
            return false;
        }
        Ok(found) if found == bytes && shared.storage.sync(Place::Checkpoint(id)).is_ok() => return true,
        _ => {}
    }
    shared.registry.lock().publish_uncertain(id);
    false
}
