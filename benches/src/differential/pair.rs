//! One store of each kind, and every operation on both.

use super::{
    draw::{Merges, PARTITION_BYTES, Shape},
    walk,
};
use crate::engines::rocksdb::prefix_end;
use keybed_env::Random;
use keybed_lsm::{Family, Store, Update, WriteBatch};
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, FlushOptions, MergeOperands, Options,
    WriteBatch as RocksBatch, WriteOptions,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How often what was done, by name.
#[derive(Debug, Default)]
pub struct Counts(Vec<(&'static str, u64)>);

impl Counts {
    fn count(&mut self, name: &'static str) {
        self.add_one(name, 1);
    }

    fn add_one(&mut self, name: &'static str, n: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += n,
            None => self.0.push((name, n)),
        }
    }

    pub fn add(&mut self, other: &Counts) {
        for (name, n) in &other.0 {
            self.add_one(name, *n);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(name, n)| format!("{name} {n}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// The stores of a program.
pub struct Pair {
    pub random: Random,
    pub shape: Shape,
    dir: PathBuf,
    store: Option<Store>,
    pub family: Family,
    db: Option<Arc<DB>>,
    write: WriteOptions,
    counts: Counts,
}

fn append(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut value = old.unwrap_or_default().to_vec();
    operands
        .iter()
        .for_each(|operand| value.extend_from_slice(operand));
    Some(value)
}

fn sum(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let sum = operands.iter().fold(old.map_or(0, word), |sum, operand| {
        sum.wrapping_add(word(operand))
    });
    Some(sum.to_le_bytes().to_vec())
}

impl Pair {
    pub fn open(dir: &Path, seed: u64) -> Pair {
        let mut random = Random::from_seed(seed);
        let shape = Shape::draw(&mut random);
        let (store, family) = open_keybed(dir, &shape);
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Pair {
            random,
            dir: dir.to_owned(),
            store: Some(store),
            family,
            db: Some(open_rocksdb(dir, &shape)),
            write,
            shape,
            counts: Counts::default(),
        }
    }

    pub fn describe(&self) -> String {
        format!("{:?}; so far {}", self.shape, self.counts)
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("the store is open")
    }

    pub fn db(&self) -> Arc<DB> {
        self.db.clone().expect("the database is open")
    }

    /// One operation of any kind.
    pub fn step(&mut self) {
        match self.random.below(1000) {
            0..=3 => self.reopen(),
            4..=6 => self.compact(),
            7..=12 => self.flush(),
            13..=22 => {
                self.counts.count("view");
                walk::view(self);
            }
            23..=62 => {
                self.counts.count("cursor");
                walk::cursor(self);
            }
            _ => self.write_or_read(),
        }
    }

    /// One operation that is allowed while snapshots are held.
    pub fn write_or_read(&mut self) {
        let family = self.family;
        let key = self.shape.key(&mut self.random);
        match self.random.below(100) {
            0..=29 => {
                self.counts.count("put");
                let value = self.shape.value(&mut self.random);
                self.store().put(family, &key, &value).expect("keybed writes");
                self.db()
                    .put_opt(&key, &value, &self.write)
                    .expect("RocksDB writes");
            }
            30..=44 => {
                self.counts.count("delete");
                self.store().delete(family, &key).expect("keybed deletes");
                self.db().delete_opt(&key, &self.write).expect("RocksDB deletes");
            }
            45..=59 => {
                self.counts.count("merge");
                let operand = self.shape.operand(&mut self.random);
                self.store().merge(family, &key, &operand).expect("keybed merges");
                self.db()
                    .merge_opt(&key, &operand, &self.write)
                    .expect("RocksDB merges");
            }
            60..=64 => self.batch(),
            65..=68 => self.update(&key),
            69 => self.delete_many(&key),
            70..=74 => self.multi_get(),
            75..=79 => {
                self.counts.count("scan");
                walk::scan(self);
            }
            _ => {
                self.counts.count("get");
                self.compare(&key);
            }
        }
    }

    fn compare(&mut self, key: &[u8]) {
        let theirs = self.db().get(key).expect("RocksDB reads");
        let family = self.family;
        let ours = self.store().get(family, key).expect("keybed reads");
        assert_eq!(
            ours.as_deref(),
            theirs.as_deref(),
            "get of {}",
            key.escape_ascii()
        );
    }

    fn update(&mut self, key: &[u8]) {
        self.counts.count("update");
        let value = self.shape.value(&mut self.random);
        let theirs = self.db().get(key).expect("RocksDB reads");
        let family = self.family;
        let remove = theirs.is_some() && self.random.one_in(4);
        let seen = theirs.clone();
        let make = |old: Option<&[u8]>| {
            assert_eq!(old, seen.as_deref(), "update of {}", key.escape_ascii());
            if remove {
                Update::Delete
            } else {
                Update::Put(value.clone())
            }
        };
        self.store().update(family, key, make).expect("keybed updates");
        let result = if remove {
            self.db().delete_opt(key, &self.write)
        } else {
            self.db().put_opt(key, &value, &self.write)
        };
        result.expect("RocksDB writes");
    }

    fn batch(&mut self) {
        self.counts.count("batch");
        let (mut ours, mut theirs) = (WriteBatch::new(), RocksBatch::default());
        for _ in 0..self.random.below(12) {
            let key = self.shape.key(&mut self.random);
            match self.random.below(3) {
                0 => {
                    let value = self.shape.value(&mut self.random);
                    ours.put(self.family, &key, &value);
                    theirs.put(&key, &value);
                }
                1 => {
                    ours.delete(self.family, &key);
                    theirs.delete(&key);
                }
                _ => {
                    let operand = self.shape.operand(&mut self.random);
                    ours.merge(self.family, &key, &operand);
                    theirs.merge(&key, &operand);
                }
            }
        }
        self.store().write(&ours).expect("keybed writes a batch");
        self.db()
            .write_opt(theirs, &self.write)
            .expect("RocksDB writes a batch");
    }

    /// A range, a prefix, what lies below a floor, or everything.
    fn delete_many(&mut self, key: &[u8]) {
        let family = self.family;
        let (from, to) = match self.random.below(20) {
            0..=11 => {
                self.counts.count("delete_range");
                let (from, to) = self.shape.range(&mut self.random);
                let range = from.as_slice()..to.as_slice();
                self.store()
                    .delete_range(family, range)
                    .expect("keybed deletes a range");
                (from, Some(to))
            }
            12..=15 => {
                self.counts.count("delete_prefix");
                let prefix = &key[..2];
                self.store()
                    .delete_prefix(family, prefix)
                    .expect("keybed deletes a prefix");
                (prefix.to_vec(), prefix_end(prefix))
            }
            16..=18 => {
                self.counts.count("raise_floor");
                let (partition, bound) = key.split_at(PARTITION_BYTES);
                let floor = self
                    .store()
                    .floor(family, partition)
                    .expect("keybed tells a floor");
                let risen = self.store().raise_floor(family, partition, bound);
                let risen = risen.expect("keybed raises a floor");
                assert!(
                    risen || floor.is_some_and(|floor| *floor >= *bound),
                    "a floor rises"
                );
                if !risen {
                    return;
                }
                (partition.to_vec(), Some(key.to_vec()))
            }
            _ => {
                self.counts.count("clear");
                self.store().clear(family).expect("keybed clears a family");
                (Vec::new(), None)
            }
        };
        let db = self.db();
        let handle = db.cf_handle("default").expect("the family is open");
        // Behind every key of a program.
        let to = to.unwrap_or_else(|| vec![0xFF; 16]);
        db.delete_range_cf_opt(&handle, &from, &to, &self.write)
            .expect("RocksDB deletes a range");
    }

    fn multi_get(&mut self) {
        self.counts.count("multi_get");
        let keys: Vec<Vec<u8>> = (0..self.random.below(20))
            .map(|_| self.shape.key(&mut self.random))
            .collect();
        let theirs = self.db().multi_get(&keys);
        let family = self.family;
        let ours = self.store().multi_get(family, &keys).expect("keybed reads");
        for ((key, ours), theirs) in keys.iter().zip(ours).zip(theirs) {
            let (ours, theirs) = (ours.expect("keybed reads"), theirs.expect("RocksDB reads"));
            assert_eq!(
                ours.as_deref(),
                theirs.as_deref(),
                "multi_get of {}",
                key.escape_ascii()
            );
        }
    }

    fn flush(&mut self) {
        self.counts.count("flush");
        self.store().flush().expect("keybed flushes");
        self.db()
            .flush_opt(&FlushOptions::default())
            .expect("RocksDB flushes");
    }

    fn compact(&mut self) {
        self.counts.count("compact");
        let family = self.family;
        self.store().compact(family).expect("keybed merges");
        self.db().compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    /// Both keep what was written: without a log, closing writes it to tables.
    fn reopen(&mut self) {
        self.counts.count("reopen");
        let store = self.store.take().expect("the store is open");
        store.close().expect("keybed closes");
        self.db().flush().expect("RocksDB flushes");
        self.db = None;
        let (store, family) = open_keybed(&self.dir, &self.shape);
        self.store = Some(store);
        self.family = family;
        self.db = Some(open_rocksdb(&self.dir, &self.shape));
    }

    /// Everything once more, in both directions, and again after reopening.
    pub fn finish(&mut self) {
        walk::all(self);
        self.reopen();
        walk::all(self);
    }
}

fn open_keybed(dir: &Path, shape: &Shape) -> (Store, Family) {
    let mut store = Store::open(dir.join("keybed"), shape.store_options()).expect("keybed opens");
    let family = store
        .family_with("differential", shape.family_options())
        .expect("keybed opens its family");
    (store, family)
}

fn open_rocksdb(dir: &Path, shape: &Shape) -> Arc<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(64 << 10);
    match shape.merges {
        Merges::Append => options.set_merge_operator_associative("append", append),
        Merges::Sum => options.set_merge_operator_associative("sum", sum),
    }
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&table);
    let family = ColumnFamilyDescriptor::new("default", options.clone());
    Arc::new(DB::open_cf_descriptors(&options, dir.join("rocksdb"), [family]).expect("RocksDB opens"))
}
