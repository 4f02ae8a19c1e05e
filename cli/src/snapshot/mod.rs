//! `keybed snapshot`: looks into snapshots, copies and removes them; no running job is needed.
//!
//! | file | idea |
//! |---|---|
//! | [`ls`] | which snapshots lie below directories, and how they stand |
//! | [`inspect`](mod@inspect) | what a snapshot holds, and which directories it depends on |
//! | [`verify`](mod@verify) | every byte compared with what was written |
//! | [`export`] | a self-contained copy |
//! | [`convert`] | a copy in the other format |
//! | [`dispose`] | exactly the files of a savepoint removed |

pub(crate) mod convert;
pub(crate) mod dispose;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod verify;

use keybed::{
    Result,
    env::OsFs,
    snapshot::{ClaimRecord, SnapshotDir, SnapshotKind},
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Opens a snapshot by its directory or its `_metadata`.
///
/// # Errors
/// `NotASnapshot`, `SnapshotCorrupt`, `UnsupportedFormatVersion`.
fn open(path: &Path) -> Result<SnapshotDir> {
    SnapshotDir::open(Arc::new(OsFs), path)
}

/// Bytes as people read them.
pub(crate) fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).display().iec().to_string()
}

/// A kind of snapshot as people and programs read it.
pub(crate) fn kind_name(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Checkpoint => "checkpoint",
        SnapshotKind::FullCheckpoint => "full checkpoint",
        SnapshotKind::NativeSavepoint => "native savepoint",
        SnapshotKind::CanonicalSavepoint => "canonical savepoint",
        _ => "snapshot",
    }
}

/// Milliseconds since 1970 as a time.
pub(crate) fn time(timestamp_ms: u64) -> String {
    let millis = i64::try_from(timestamp_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| format!("{millis} ms"), |t| t.to_string())
}

/// A claim for people.
pub(crate) fn claim_text(claim: &ClaimRecord) -> String {
    let (claimant, since) = (&claim.claimant, time(claim.since_ms));
    format!("job {} in {}, since {since}", claimant.job, claimant.path)
}

/// A claim for programs.
pub(crate) fn claim_object(claim: &ClaimRecord) -> Value {
    json!({
        "job_id": claim.claimant.job.to_string(),
        "root_id": claim.claimant.root.to_string(),
        "root": claim.claimant.path,
        "since_ms": claim.since_ms,
    })
}
