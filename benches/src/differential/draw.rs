//! What a seed stands for.

use keybed_env::Random;
use keybed_lsm::{Access, Append, FamilyOptions, MemtableKind, MergeOperator, StoreOptions, SumU64};
use std::{ops::Bound, sync::Arc};

/// First bytes of a key that name its partition.
pub const PARTITION_BYTES: usize = 1;

/// What merges do in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merges {
    /// Operands are appended.
    Append,
    /// Values and operands are sums of eight bytes.
    Sum,
}

/// The shape of a program.
#[derive(Clone, Debug)]
pub struct Shape {
    pub merges: Merges,
    /// Distinct keys, roughly.
    pub keys: u64,
    /// Bytes of the longest ordinary value.
    pub value_bytes: u64,
    memtable: MemtableKind,
    access: Access,
    memtable_bytes: usize,
    block_bytes: usize,
    target_file_bytes: u64,
    compaction: bool,
    prefix_bytes: u16,
}

impl Shape {
    pub fn draw(random: &mut Random) -> Shape {
        let mut of = |choices: &[u64]| choices[random.index(choices.len())];
        Shape {
            merges: if of(&[0, 1]) == 0 {
                Merges::Append
            } else {
                Merges::Sum
            },
            keys: of(&[20, 300, 3000]),
            value_bytes: of(&[8, 40, 300]),
            memtable: if of(&[0, 1]) == 0 {
                MemtableKind::Hash
            } else {
                MemtableKind::Ordered
            },
            access: if of(&[0, 1]) == 0 {
                Access::Map
            } else {
                Access::Cache
            },
            memtable_bytes: of(&[4 << 10, 64 << 10, 1 << 20]) as usize,
            block_bytes: of(&[512, 4 << 10, 16 << 10]) as usize,
            target_file_bytes: of(&[4 << 10, 64 << 10, 64 << 20]),
            compaction: of(&[0, 1, 1, 1]) == 1,
            prefix_bytes: of(&[0, 0, 2]) as u16,
        }
    }

    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            access: self.access,
            memtable_bytes: self.memtable_bytes,
            block_bytes: self.block_bytes,
            target_file_bytes: self.target_file_bytes,
            compaction: self.compaction,
            cache_bytes: 1 << 20,
            ..StoreOptions::default()
        }
    }

    pub fn family_options(&self) -> FamilyOptions {
        let merge: Arc<dyn MergeOperator> = match self.merges {
            Merges::Append => Arc::new(Append),
            Merges::Sum => Arc::new(SumU64),
        };
        FamilyOptions {
            merge: Some(merge),
            memtable: self.memtable,
            prefix_bytes: self.prefix_bytes,
            partition_prefix: PARTITION_BYTES as u8,
            ..FamilyOptions::default()
        }
    }

    /// A key: a byte of a few, a number, sometimes a tail, so that some keys are prefixes of others.
    pub fn key(&self, random: &mut Random) -> Vec<u8> {
        let n = random.below(self.keys);
        let mut key = vec![b"ab\xff"[(n % 3) as usize], (n / 3 % 7) as u8];
        key.extend_from_slice(&(n as u32).to_be_bytes()[2..]);
        match n % 5 {
            0 => key.extend_from_slice(b"-tail"),
            1 => key.truncate(2),
            _ => {}
        }
        key
    }

    pub fn value(&self, random: &mut Random) -> Vec<u8> {
        match self.merges {
            Merges::Sum => random.u64().to_le_bytes().to_vec(),
            Merges::Append => {
                let bytes = if random.one_in(200) {
                    20_000
                } else {
                    random.below(self.value_bytes + 1)
                };
                let first = random.u64() as u8;
                (0..bytes).map(|i| first.wrapping_add(i as u8)).collect()
            }
        }
    }

    pub fn operand(&self, random: &mut Random) -> Vec<u8> {
        match self.merges {
            Merges::Sum => random.below(1000).to_le_bytes().to_vec(),
            Merges::Append => {
                let bytes = random.below(12);
                (0..bytes).map(|_| random.u64() as u8).collect()
            }
        }
    }

    /// Two keys in order; they may be equal.
    pub fn range(&self, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
        let (a, b) = (self.key(random), self.key(random));
        if a <= b { (a, b) } else { (b, a) }
    }

    /// Bounds of an iterator, lower inclusive and upper exclusive as RocksDB has them; either may be absent.
    pub fn bounds(&self, random: &mut Random) -> Bounds {
        let (from, to) = self.range(random);
        Bounds {
            from: (!random.one_in(4)).then_some(from),
            to: (!random.one_in(4)).then_some(to),
        }
    }
}

/// Bounds of an iterator.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
}

impl Bounds {
    pub fn range(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.from.as_deref().map_or(Bound::Unbounded, Bound::Included),
            self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        )
    }

    pub fn read_options(&self) -> rocksdb::ReadOptions {
        let mut options = rocksdb::ReadOptions::default();
        if let Some(from) = &self.from {
            options.set_iterate_lower_bound(from.as_slice());
        }
        if let Some(to) = &self.to {
            options.set_iterate_upper_bound(to.as_slice());
        }
        options
    }
}
