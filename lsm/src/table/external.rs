//! Tables made outside of a store, to be ingested: sorted entries without seqnos.

use super::{TableBuilder, TableFacts, TableOptions, footer, reader::damage_of_table};
use crate::{
    expiry,
    key::{Entry, EntryKind, TableId},
    options::{FamilyOptions, StoreOptions},
};
use keybed_env::Fs;
use keybed_format::{Code, Error, Result, checksum, trailer};
use std::path::Path;

/// Writes a table for [`Store::ingest`](crate::Store::ingest): each key once, in ascending order. The store that
/// takes it gives all its entries one seqno.
///
/// ```
/// # fn main() -> keybed_format::Result {
/// # let dir = tempfile::tempdir().unwrap();
/// use keybed_lsm::{FamilyOptions, IngestOptions, Store, StoreOptions, table::ExternalTable};
///
/// let options = StoreOptions::default();
/// let file = dir.path().join("prices.sst");
/// let mut table = ExternalTable::create(&file, &options, &FamilyOptions::default())?;
/// for i in 0..1000_u32 {
///     table.put(&i.to_be_bytes(), b"9.99")?;
/// }
/// table.finish()?;
///
/// let mut store = Store::open(dir.path().join("s"), options)?;
/// let prices = store.family("prices")?;
/// store.ingest(prices, &[&file], IngestOptions::default())?;
/// assert_eq!(store.get(prices, &7_u32.to_be_bytes())?.unwrap(), b"9.99");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ExternalTable(TableBuilder);

impl ExternalTable {
    /// Creates the file `path`, which must not exist, as the bottom tables of such a store and family are made.
    ///
    /// # Errors
    /// `TargetExists`; `InvalidArgument` for options out of bounds; errors of the file system.
    pub fn create(
        path: impl AsRef<Path>,
        store: &StoreOptions,
        family: &FamilyOptions,
    ) -> Result<ExternalTable> {
        let table = TableOptions {
            block_bytes: store.table_block_bytes(),
            compression: store.bottom_compression,
            filter: true,
            partition_prefix: family.partition_prefix,
            filter_prefix: family.prefix_bytes,
        };
        let path = path.as_ref();
        // Options that are clones of each other hand out the same ids where they are seeded; the paths differ.
        let path_hash = checksum::hash(path.as_os_str().as_encoded_bytes());
        let id = TableId(store.ids.clone().fresh()? ^ u128::from(path_hash));
        TableBuilder::new(&*store.fs, path, id, table).map(ExternalTable)
    }

    /// Adds a key with its value.
    ///
    /// # Errors
    /// `InvalidArgument` unless `key` lies behind the last one; `KeyTooLarge`, `ValueTooLarge`; `IoFailed`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result {
        self.add(key, EntryKind::Put, value)
    }

    /// Adds a key whose value was touched last at `stamp`, in milliseconds since 1970, for a family whose entries
    /// expire. Values without a stamp count there from the moment when its entries began to expire.
    ///
    /// # Errors
    /// As [`ExternalTable::put`].
    pub fn put_stamped(&mut self, key: &[u8], value: &[u8], stamp: u64) -> Result {
        let mut stamped = Vec::with_capacity(8 + value.len());
        expiry::start_put(&mut stamped, stamp);
        stamped.extend_from_slice(value);
        self.add(key, EntryKind::PutStamped, &stamped)
    }

    /// Adds a key that is deleted in the store that takes the table.
    ///
    /// # Errors
    /// As [`ExternalTable::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result {
        self.add(key, EntryKind::Delete, &[])
    }

    /// Adds an operand for the merge operator of the family that takes the table.
    ///
    /// # Errors
    /// As [`ExternalTable::put`].
    pub fn merge(&mut self, key: &[u8], operand: &[u8]) -> Result {
        self.add(key, EntryKind::Merge, operand)
    }

    fn add(&mut self, key: &[u8], kind: EntryKind, value: &[u8]) -> Result {
        self.0.add(Entry {
            key,
            seqno: 0,
            kind,
            value,
        })
    }

    /// About how large the file would be if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        self.0.estimated_bytes()
    }

    /// Writes what is left and makes the file's bytes durable.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was added; `IoFailed`: the file must be abandoned.
    pub fn finish(self) -> Result<TableFacts> {
        self.0.finish(true)
    }
}

/// The id in the trailer of the table at `path`.
///
/// # Errors
/// `TableCorrupt` if the file does not end as a table does; errors of the file system.
pub fn table_id_of(fs: &dyn Fs, path: &Path) -> Result<TableId> {
    let file = fs.open(path)?;
    let found = trailer::read(file.len(), &mut |offset, buffer| {
        file.read_exact_at(buffer, offset)
    });
    let found = found.and_then(|found| {
        if found.kind == footer::KIND {
            Ok(TableId(found.content_id))
        } else {
            Err(Error::new(Code::Malformed, "the file is no table").at(found.content_bytes))
        }
    });
    found.map_err(|error| damage_of_table(error, path))
}
