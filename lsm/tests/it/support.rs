//! What the tests of this crate share.

use keybed_format::Result;
use keybed_lsm::{
    FamilyOptions, MergeOperator, Mount, MountFamily, MountRun, MountTable, PinnedFiles, Store, StoreOptions,
};
use std::path::Path;

/// A store that flushes after a few writes and merges to the bottom after a few flushes.
pub(crate) fn tiny() -> StoreOptions {
    StoreOptions {
        memtable_bytes: 4 << 10,
        block_bytes: 512,
        fan_in: 2,
        runs_max: 3,
        target_file_bytes: 4 << 10,
        cache_bytes: 64 << 10,
        ..StoreOptions::default()
    }
}

/// Iterations of a loop: `KEYBED_SCALE` times as many where somebody has time.
pub(crate) fn scale(count: u64) -> u64 {
    count
        * std::env::var("KEYBED_SCALE")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
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
    pinned: &PinnedFiles,
    target: &Path,
    options: impl Fn(usize) -> FamilyOptions,
) -> Mount {
    std::fs::create_dir_all(target).unwrap();
    for table in pinned.tables() {
        let to = Store::table_path(target, table.id);
        if !to.exists() {
            std::fs::hard_link(&table.path, to).unwrap();
        }
    }
    let families = pinned
        .families
        .iter()
        .enumerate()
        .map(|(number, family)| MountFamily {
            name: family.name.clone(),
            options: options(number),
            runs: family
                .runs
                .iter()
                .map(|run| MountRun {
                    tier: run.tier,
                    tables: run
                        .tables
                        .iter()
                        .map(|table| MountTable {
                            path: Store::table_path(target, table.id),
                            id: table.id,
                            visible: table.visible.clone(),
                        })
                        .collect(),
                })
                .collect(),
        });
    Mount {
        families: families.collect(),
        next_seqno: pinned.next_seqno,
    }
}
