//! RocksDB in two configurations; the best of them counts per row.

use crate::engine::Engine;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, Options, WaitForCompactOptions,
    WriteOptions,
};
use std::path::Path;

/// Block cache of every engine that has one: larger than the data at the default size.
pub const CACHE_BYTES: usize = 512 << 20;
const MEMTABLE_BYTES: usize = 64 << 20;

pub struct RocksDb {
    db: DB,
    write: WriteOptions,
}

impl RocksDb {
    /// As Apache Flink sets it up: 64 MB memtables, bloom filter of 10 bits, Snappy, WAL off.
    pub fn flink(dir: &Path) -> Self {
        let mut table = BlockBasedOptions::default();
        table.set_bloom_filter(10.0, false);
        Self::open(dir, &mut table, DBCompressionType::Snappy, |_| {})
    }

    /// What its documentation recommends for point look-ups: hash index in data blocks, filter in the memtable, LZ4.
    pub fn tuned(dir: &Path) -> Self {
        let mut table = BlockBasedOptions::default();
        table.set_bloom_filter(10.0, false);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
        table.set_cache_index_and_filter_blocks(false);
        Self::open(dir, &mut table, DBCompressionType::Lz4, |options| {
            options.set_memtable_prefix_bloom_ratio(0.1);
            options.set_memtable_whole_key_filtering(true);
        })
    }

    fn open(
        dir: &Path,
        table: &mut BlockBasedOptions,
        compression: DBCompressionType,
        tune: impl FnOnce(&mut Options),
    ) -> Self {
        table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_max_write_buffer_number(2);
        options.set_max_background_jobs(2);
        options.set_compression_type(compression);
        options.set_block_based_table_factory(table);
        tune(&mut options);
        let db = DB::open(&options, dir).expect("RocksDB opens");
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        RocksDb { db, write }
    }
}

impl Engine for RocksDb {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.write).expect("RocksDB writes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        seen(self.db.get_pinned(key).expect("RocksDB reads").as_deref());
    }

    fn increment(&mut self, key: &[u8]) {
        let mut buffer = [0; 100];
        let len = {
            let old = self
                .db
                .get_pinned(key)
                .expect("RocksDB reads")
                .expect("the key was loaded");
            buffer[..old.len()].copy_from_slice(&old);
            old.len()
        };
        let count = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes")) + 1;
        buffer[..8].copy_from_slice(&count.to_le_bytes());
        self.db
            .put_opt(key, &buffer[..len], &self.write)
            .expect("RocksDB writes");
    }

    fn settle(&mut self) {
        self.db
            .wait_for_compact(&WaitForCompactOptions::default())
            .expect("RocksDB compacts");
    }

    fn facts(&mut self) -> String {
        let levels: Vec<String> = (0..7)
            .map(|n| {
                let name = format!("rocksdb.num-files-at-level{n}");
                self.db.property_value(&name).ok().flatten().unwrap_or_default()
            })
            .collect();
        format!("files per level {}", levels.join(" "))
    }
}
