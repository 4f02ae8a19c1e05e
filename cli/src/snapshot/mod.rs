//! `keybed snapshot`: looks into snapshots, copies and removes them; no running job is needed.
//!
//! | file | idea |
//! |---|---|
//! | [`inspect`](mod@inspect) | what a snapshot holds, and which directories it depends on |
//! | [`verify`](mod@verify) | every byte compared with what was written |
//! | [`export`] | a self-contained copy |
//! | [`dispose`] | exactly the files of a savepoint removed |

pub(crate) mod dispose;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod verify;

use keybed::{Result, env::OsFs, snapshot::SnapshotDir};
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
