//! The configurations: every mechanism small enough to run within a few hundred operations.

use super::model::{APPENDS, CHAINS, FAMILIES, PLAIN, SUMS};
use crate::{
    Access, Append, Durability, FamilyOptions, MemtableKind, MergeOperator, PrefixRule, StoreOptions, SumI64,
    table::Compression,
};
use keybed_env::{Fs, ManualClock, Random, SimScheduler, random::Ids};
use keybed_format::Result;
use std::{sync::Arc, time::Duration};

/// How many configurations there are.
pub const CONFIGS: u64 = 50;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// An operator that cannot combine its operands.
#[derive(Debug)]
struct Chain;

impl MergeOperator for Chain {
    fn name(&self) -> &str {
        "differential.chain"
    }

    fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result {
        out.extend_from_slice(operand);
        out.extend_from_slice(b"<");
        out.extend_from_slice(existing.unwrap_or_default());
        Ok(())
    }
}

/// One way to run a program.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its number.
    pub number: u64,
    /// On threads and the real file system, else simulated.
    pub is_real: bool,
    memtable_bytes: usize,
    sealed_max: usize,
    block_bytes: usize,
    upper: Compression,
    bottom: Compression,
    fan_in: usize,
    runs_max: usize,
    target_file_bytes: u64,
    access: Access,
    cache_bytes: usize,
    open_files_max: usize,
    compaction: bool,
    /// What survives a crash.
    pub durability: Durability,
    memtables: [MemtableKind; FAMILIES],
    cut_prefix: u8,
    bottom_filter: bool,
    prefix_bytes: u16,
    seed: u64,
    /// Hours that the entries of a family live; half an hour more, to be exact.
    pub(super) ttl: [Option<i64>; FAMILIES],
    expired_age_max: Option<Duration>,
}

/// One of `all`.
fn one<T: Clone>(random: &mut Random, all: &[T]) -> T {
    all[random.index(all.len())].clone()
}

impl Config {
    /// Configuration `number`: the first five are extremes by hand, the others drawn from its number.
    pub fn new(number: u64) -> Config {
        let mut random = Random::from_seed(number ^ 0xC0F1);
        let random = &mut random;
        let by_prefix = |bytes| MemtableKind::Prefix(PrefixRule { bytes, pieces: 0 });
        let kinds = [
            MemtableKind::Hash,
            MemtableKind::Ordered,
            by_prefix(1),
            by_prefix(2),
        ];
        let packings: &[Compression] = if cfg!(feature = "zstd") {
            &[
                Compression::None,
                Compression::None,
                Compression::Lz4,
                Compression::Zstd(-5),
            ]
        } else {
            &[Compression::None, Compression::Lz4]
        };
        let mut config = Config {
            number,
            is_real: number % 10 == 9,
            memtable_bytes: one(random, &[4 << 10, 16 << 10, 1 << 20]),
            sealed_max: one(random, &[1, 3]),
            block_bytes: one(random, &[512, 4 << 10, 64 << 10]),
            upper: one(random, packings),
            bottom: one(random, packings),
            fan_in: one(random, &[2, 4, 16]),
            runs_max: one(random, &[2, 3, 6, 100]),
            target_file_bytes: one(random, &[4 << 10, 64 << 10, 64 << 20]),
            access: one(random, &[Access::Map, Access::Cache]),
            cache_bytes: one(random, &[0, 16 << 10, 32 << 20]),
            open_files_max: one(random, &[1, 8, 256]),
            compaction: random.below(8) != 0,
            durability: one(
                random,
                &[
                    Durability::None,
                    Durability::Buffered,
                    Durability::Sync,
                    Durability::Interval(Duration::from_millis(50)),
                ],
            ),
            memtables: std::array::from_fn(|_| one(random, &kinds)),
            cut_prefix: one(random, &[0, 1, 2, 3]),
            bottom_filter: random.below(4) != 0,
            prefix_bytes: one(random, &[0, 1, 2, 3]),
            seed: random.u64(),
            ttl: [None; FAMILIES],
            expired_age_max: one(random, &[None, Some(Duration::ZERO)]),
        };
        // On a real disk time cannot be made to pass.
        if !config.is_real && !number.is_multiple_of(3) {
            config.ttl = std::array::from_fn(|_| one(random, &[None, Some(0), Some(1), Some(4)]));
        }
        match number {
            // Real syncs take their time.
            _ if config.is_real => config.durability = Durability::Buffered,
            // The smallest of everything.
            0 => {
                (config.memtable_bytes, config.block_bytes, config.cache_bytes) = (4 << 10, 512, 0);
                (config.fan_in, config.runs_max, config.target_file_bytes) = (2, 2, 4 << 10);
                config.open_files_max = 1;
            }
            // Everything in memory.
            1 => config.memtable_bytes = 64 << 20,
            // Nothing is ever merged by itself.
            2 => (config.compaction, config.memtable_bytes) = (false, 4 << 10),
            // The slowest codec, for few and large blocks.
            5 if cfg!(feature = "zstd") => {
                config.bottom = Compression::Zstd(19);
                (config.memtable_bytes, config.block_bytes) = (1 << 20, 64 << 10);
            }
            // Only sorted order, then only hashes.
            3 => config.memtables = [MemtableKind::Ordered; FAMILIES],
            4 => config.memtables = [MemtableKind::Hash; FAMILIES],
            // Only prefixes, in memtables of any size.
            6..=8 => config.memtables = [by_prefix(number as u16 - 5); FAMILIES],
            _ => {}
        }
        config
    }

    /// Options of a store on `fs`. `opened` tells the openings apart, for they name tables.
    pub fn store(&self, fs: Option<Arc<dyn Fs>>, opened: u64, clock: &Arc<ManualClock>) -> StoreOptions {
        let options = StoreOptions {
            memtable_bytes: self.memtable_bytes,
            sealed_max: self.sealed_max,
            block_bytes: self.block_bytes,
            upper_compression: self.upper,
            bottom_compression: self.bottom,
            fan_in: self.fan_in,
            runs_max: self.runs_max,
            target_file_bytes: self.target_file_bytes,
            access: self.access,
            cache_bytes: self.cache_bytes,
            open_files_max: self.open_files_max,
            compaction: self.compaction,
            durability: self.durability,
            ..StoreOptions::default()
        };
        let Some(fs) = fs else { return options };
        let clock = clock.clone();
        StoreOptions {
            fs,
            scheduler: Arc::new(SimScheduler::new(self.seed ^ opened, clock.clone())),
            clock,
            ids: Ids::Seeded(Random::from_seed(self.seed ^ (opened << 32))),
            ..options
        }
    }

    /// Name and options of family `number`.
    pub fn family(&self, number: usize) -> (String, FamilyOptions) {
        let (name, merge): (_, Option<Arc<dyn MergeOperator>>) = match number {
            PLAIN => ("plain", None),
            APPENDS => ("appends", Some(Arc::new(Append))),
            SUMS => ("sums", Some(Arc::new(SumI64))),
            CHAINS => ("chains", Some(Arc::new(Chain))),
            _ => ("prefixes", Some(Arc::new(Append))),
        };
        let options = FamilyOptions {
            merge,
            memtable: self.memtables[number],
            partition_prefix: 2,
            cut_prefix: self.cut_prefix,
            prefix_bytes: if number > CHAINS { 2 } else { self.prefix_bytes },
            bottom_filter: self.bottom_filter,
            ttl: self.ttl[number].map(|hours| HOUR * hours as u32 + HOUR / 2),
            expired_age_max: self.expired_age_max,
            ..FamilyOptions::default()
        };
        (name.to_owned(), options)
    }
}
