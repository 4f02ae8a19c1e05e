//! RocksDB in several configurations; the best of them counts per row.

use super::engine::{Add, Each, Engine, Rest, Setup, SharedEngine, added};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    DataBlockIndexType, MergeOperands, Options, ReadOptions, WaitForCompactOptions, WriteOptions,
    checkpoint::Checkpoint,
};
use std::{path::Path, sync::Arc};

pub struct RocksDb {
    db: Arc<DB>,
    write: WriteOptions,
    appends: bool,
}

/// How it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// As Apache Flink does: 64 MB memtables, bloom filter of 10 bits, Snappy, WAL off.
    Flink,
    /// What its documentation recommends for point look-ups: hash index in data blocks, filter in the memtable, LZ4.
    PointLookup,
    /// Its defaults: no filter, Snappy. WAL off, equal cache and memtables, as for all.
    Plain,
    /// Files mapped and not compressed, filter, hash index in data blocks.
    Mapped,
}

impl RocksDb {
    pub fn open(dir: &Path, setup: &Setup, tuning: Tuning) -> Self {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(setup.memtable_bytes);
        options.set_max_write_buffer_number(2);
        options.set_max_background_jobs(2);
        if tuning != Tuning::Plain {
            table.set_bloom_filter(10.0, false);
        }
        if matches!(tuning, Tuning::PointLookup | Tuning::Mapped) {
            table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            table.set_data_block_hash_ratio(0.75);
            options.set_memtable_prefix_bloom_ratio(0.1);
            options.set_memtable_whole_key_filtering(true);
        }
        options.set_compression_type(match tuning {
            Tuning::Flink | Tuning::Plain => DBCompressionType::Snappy,
            Tuning::PointLookup => DBCompressionType::Lz4,
            Tuning::Mapped => DBCompressionType::None,
        });
        options.set_allow_mmap_reads(tuning == Tuning::Mapped);
        if setup.appends {
            options.set_merge_operator_associative("append", append);
        }
        options.set_block_based_table_factory(&table);
        let family = ColumnFamilyDescriptor::new("default", options.clone());
        let db = DB::open_cf_descriptors(&options, dir, [family]).expect("RocksDB opens");
        RocksDb {
            db: Arc::new(db),
            write: without_wal(),
            appends: setup.appends,
        }
    }
}

fn without_wal() -> WriteOptions {
    let mut write = WriteOptions::default();
    write.disable_wal(true);
    write
}

/// A database is shared as it is.
pub fn open_shared(dir: &Path, setup: &Setup, tuning: Tuning) -> Box<dyn SharedEngine> {
    Box::new(RocksDb::open(dir, setup, tuning))
}

impl SharedEngine for RocksDb {
    fn handle(&self) -> Box<dyn SharedEngine> {
        Box::new(RocksDb {
            db: self.db.clone(),
            write: without_wal(),
            appends: self.appends,
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.write).expect("RocksDB writes");
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        seen(self.db.get_pinned(key).expect("RocksDB reads").as_deref());
    }

    fn settle(&self) {
        wait(&self.db);
    }
}

fn wait(db: &DB) {
    db.wait_for_compact(&WaitForCompactOptions::default())
        .expect("RocksDB compacts");
}

fn append(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut value = old.unwrap_or_default().to_vec();
    for operand in operands {
        value.extend_from_slice(operand);
    }
    Some(value)
}

/// The first key behind those that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xFF) {
        end.pop();
    }
    *end.last_mut()? += 1;
    Some(end)
}

fn show(iterator: &mut DBRawIterator<'_>, each: Each<'_>) {
    while let Some((key, value)) = iterator.item() {
        if !each(key, value) {
            break;
        }
        iterator.next();
    }
    iterator.status().expect("RocksDB scans");
}

impl Engine for RocksDb {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.write).expect("RocksDB writes");
    }

    fn delete(&mut self, key: &[u8]) {
        self.db.delete_opt(key, &self.write).expect("RocksDB deletes");
    }

    fn get(&mut self, key: &[u8], seen: &mut dyn FnMut(Option<&[u8]>)) {
        seen(self.db.get_pinned(key).expect("RocksDB reads").as_deref());
    }

    fn multi_get(&mut self, keys: &[&[u8]], seen: &mut dyn FnMut(usize, Option<&[u8]>)) {
        let family = self.db.cf_handle("default").expect("the family is open");
        let values = self.db.batched_multi_get_cf(&family, keys.iter().copied(), false);
        for (at, value) in values.into_iter().enumerate() {
            seen(at, value.expect("RocksDB reads").as_deref());
        }
    }

    fn add(&mut self, key: &[u8], how: Add) {
        let mut buffer = [0; 128];
        let old = self.db.get_pinned(key).expect("RocksDB reads");
        let new = added(old.as_deref(), how, &mut buffer);
        self.db.put_opt(key, new, &self.write).expect("RocksDB writes");
    }

    fn append(&mut self, key: &[u8], bytes: &[u8]) {
        assert!(self.appends, "the store was opened with the operator");
        self.db
            .merge_opt(key, bytes, &self.write)
            .expect("RocksDB merges");
    }

    fn scan(&mut self, from: &[u8], to: Option<&[u8]>, each: Each<'_>) {
        let mut read = ReadOptions::default();
        if let Some(to) = to {
            read.set_iterate_upper_bound(to);
        }
        let mut iterator = self.db.raw_iterator_opt(read);
        iterator.seek(from);
        show(&mut iterator, each);
    }

    fn prefix(&mut self, prefix: &[u8], each: Each<'_>) {
        let end = prefix_end(prefix);
        self.scan(prefix, end.as_deref(), each);
    }

    fn pop_through(&mut self, queue: &[u8], last: &[u8], _keys: &[[u8; 18]]) {
        let family = self.db.cf_handle("default").expect("the family is open");
        self.db
            .delete_range_cf_opt(&family, queue, &[last, &[0]].concat(), &self.write)
            .expect("RocksDB deletes a range");
    }

    fn delete_prefix(&mut self, prefix: &[u8]) {
        let family = self.db.cf_handle("default").expect("the family is open");
        let end = prefix_end(prefix).expect("a prefix that is removed has an end");
        self.db
            .delete_range_cf_opt(&family, prefix, &end, &self.write)
            .expect("RocksDB deletes a range");
    }

    fn settle(&mut self) {
        wait(&self.db);
    }

    fn flush(&mut self) {
        self.db.flush().expect("RocksDB flushes");
    }

    /// Flush and hard links.
    fn snapshot(&mut self, to: &Path) -> Option<Rest> {
        let checkpoint = Checkpoint::new(&self.db).expect("RocksDB makes a checkpoint");
        checkpoint.create_checkpoint(to).expect("RocksDB links its files");
        Some(Box::new(|| {}))
    }

    fn close(self: Box<Self>) {
        self.db.flush().expect("RocksDB flushes");
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
