//! `keybed snapshot`: looks into snapshots; no running job is needed and nothing is written.
//!
//! | file | idea |
//! |---|---|
//! | [`inspect`](mod@inspect) | what a snapshot holds, and which directories it depends on |
//! | [`verify`](mod@verify) | every byte compared with what was written |

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
