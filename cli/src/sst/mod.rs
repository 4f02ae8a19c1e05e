//! `keybed sst`: looks into the files of tables; they are only read.
//!
//! | file | idea |
//! |---|---|
//! | [`props`] | what is known about a table |
//! | [`verify`] | every byte compared with what was written |
//! | [`dump`] | blocks or entries |

pub(crate) mod dump;
pub(crate) mod props;
pub(crate) mod verify;

use keybed::{
    Result,
    env::OsFs,
    lsm::{
        BlockCache,
        table::{BlockAccess, TableReader, table_id_of},
    },
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Bytes of decoded blocks that are kept: one pass needs none twice.
const CACHE_BYTES: usize = 1 << 20;

/// Opens a table under the id that its own trailer names.
///
/// # Errors
/// `TableCorrupt` with file and offset, `UnsupportedFormatVersion`, `NotFound`.
fn open(path: &Path) -> Result<Arc<TableReader>> {
    let id = table_id_of(&OsFs, path)?;
    TableReader::open(
        &OsFs,
        path,
        id,
        BlockAccess::Cache(Arc::new(BlockCache::new(CACHE_BYTES))),
    )
}

/// Bytes of keys and values as people and programs read them: printable ASCII, the rest escaped.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The facts of a table for programs.
fn facts(reader: &TableReader) -> Value {
    let facts = reader.facts();
    let sections: Vec<Value> = reader
        .sections()
        .map(|(name, offset, bytes)| json!({ "name": name, "offset": offset, "bytes": bytes }))
        .collect();
    let mut all = json!({
        "file": reader.path().display().to_string(),
        "id": facts.id.to_string(),
        "bytes": facts.bytes,
        "digest": format!("{:016x}", facts.digest),
        "entries": facts.entries,
        "keys": facts.keys,
        "tombstones": facts.tombstones,
        "merges": facts.merges,
        "range_deletes": facts.range_deletes,
        "smallest": text(&facts.smallest),
        "largest": text(&facts.largest),
        "seqno_min": facts.seqno_min,
        "seqno_max": facts.seqno_max,
        "key_bytes": facts.key_bytes,
        "value_bytes": facts.value_bytes,
        "blocks": facts.blocks,
        "partition_prefix": facts.partition_prefix,
        "filter_prefix": facts.filter_prefix,
        "sections": sections,
    });
    if let (Some((oldest, newest)), Some(all)) = (facts.touched, all.as_object_mut()) {
        all.insert("touched_oldest".to_owned(), json!(oldest));
        all.insert("touched_newest".to_owned(), json!(newest));
        all.insert("unstamped".to_owned(), json!(facts.unstamped));
    }
    all
}
