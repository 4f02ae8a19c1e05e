//! What the tests of this crate share.

use keybed_env::{Fs, ManualClock, Random, SimFs, SimScheduler, random::Ids};
use keybed_format::Result;
use keybed_lsm::{
    Durability, Family, FamilyOptions, MergeOperator, Mount, MountFamily, PinnedFiles, Store, StoreOptions,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Content of a family.
pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that flushes after a few writes and merges to the bottom after a few flushes; on threads and the real
/// file system.
pub(crate) fn tiny() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 4 << 10,
        block_bytes: 512,
        fan_in: 2,
        runs_max: 3,
        target_file_bytes: 4 << 10,
        cache_bytes: 64 << 10,
        durability: Durability::None,
        ..StoreOptions::default()
    }
}

/// The same on a given file system, with jobs on this thread in a seeded order.
pub(crate) fn simulated(fs: Arc<dyn Fs>, seed: u64) -> StoreOptions {
    let clock = Arc::new(ManualClock::new());
    StoreOptions {
        fs,
        scheduler: Arc::new(SimScheduler::new(seed, clock.clone())),
        clock,
        ids: Ids::Seeded(Random::from_seed(seed)),
        ..tiny()
    }
}

/// An empty simulated disk that keeps no history.
pub(crate) fn disk() -> Arc<SimFs> {
    Arc::new(SimFs::without_history())
}

/// Iterations of a loop: `KEYBED_SCALE` times as many where somebody has time.
pub(crate) fn scale(count: u64) -> u64 {
    count
        * std::env::var("KEYBED_SCALE")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
}

/// Everything in a family.
pub(crate) fn content(store: &Store, family: Family) -> Result<Map> {
    store.range(family, ..)?.collect()
}

/// An operator that cannot combine its operands.
#[derive(Debug)]
pub(crate) struct Chain;

impl MergeOperator for Chain {
    fn name(&self) -> &str {
        "test.chain"
    }

    fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result {
        out.extend_from_slice(operand);
        out.extend_from_slice(b"<");
        out.extend_from_slice(existing.unwrap_or_default());
        Ok(())
    }
}

/// Links pinned files into a new directory and says how to mount them.
pub(crate) fn pinned_content(
    fs: &dyn Fs,
    pinned: &PinnedFiles,
    target: &Path,
    options: impl Fn(usize) -> FamilyOptions,
) -> Mount {
    fs.create_dir_all(target).unwrap();
    for table in pinned.tables() {
        let to = Store::table_path(target, table.id);
        if fs.facts(&to).unwrap().is_none() {
            fs.link(&table.path, &to).unwrap();
        }
    }
    let families = pinned
        .families
        .iter()
        .enumerate()
        .map(|(number, family)| MountFamily {
            options: options(number),
            ..family.mount(target)
        });
    Mount {
        families: families.collect(),
        next_seqno: pinned.next_seqno,
    }
}
